"""Approval: a manifest counts when m of the n approvers in the image (or their successors) have signed it.

May not: take keys, threshold or epoch from what is to be approved; count a key twice; accept a threshold of none.
Rule: docs/architecture.md, "Bundle, manifest, measured boot" and "Approvers".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from . import canonical, cose
from .canonical import CanonicalError
from .keys import PublicKey, Signer, SigningCode, SigningError
from .manifest import manifest_from_canonical
from .manifest_error import ManifestCode, ManifestError
from .manifest_model import Manifest
from .manifest_schema import read_deployment
from .manifest_yaml import node_of, read_yaml
from .schema import Field

APPROVERS_TAG: Final = "tea.approvers.v1"
APPROVERS_YAML_TAG: Final = "approvers/1"
MANIFEST_CONTENT_TYPE: Final = "application/tea-manifest+cbor"
APPROVERS_CONTENT_TYPE: Final = "application/tea-approvers+cbor"
MAX_APPROVERS: Final = 64
MAX_CHANGES: Final = 1024
MAX_ENVELOPE: Final = 2 << 20
"""Bytes of an approved manifest, signatures included."""


@dataclass(frozen=True)
class Approvers:
    """Who approves: keys and how many of them it takes, for one deployment, in one epoch."""

    deployment: str
    epoch: int
    threshold: int
    keys: tuple[PublicKey, ...]
    """Sorted by text, each once."""

    def by_id(self) -> dict[bytes, PublicKey]:
        return {key.key_id: key for key in self.keys}

    def plain(self) -> dict[str, object]:
        return {
            "deployment": self.deployment,
            "epoch": self.epoch,
            "threshold": self.threshold,
            "keys": [key.text for key in self.keys],
        }

    def canonical(self) -> bytes:
        """The canonical CBOR: measured with the image, and what a change names as the set before it."""
        return canonical.encode({"tea": APPROVERS_TAG, **self.plain()})

    @cached_property
    def digest(self) -> bytes:
        """SHA-384 of the canonical form, 48 bytes."""
        return hashlib.sha384(self.canonical()).digest()

    def to_yaml(self) -> str:
        """The file that `parse_approvers` reads."""
        lines = [f"tea: {APPROVERS_YAML_TAG}", f'deployment: "{self.deployment}"']
        lines += [f"epoch: {self.epoch}", f"threshold: {self.threshold}", "keys:"]
        return "\n".join([*lines, *(f'  - "{key.text}"' for key in self.keys)]) + "\n"


def parse_approvers(text: str, filename: str = "approvers.yaml") -> Approvers:
    """Read an approvers' file (YAML). Raises `ManifestError`: file, line, place, found, expected, mend."""
    return _read_approvers(Field(read_yaml(text, filename), "", filename), ("tea",))


def _read_approvers(root: Field, more: tuple[str, ...]) -> Approvers:
    fields = root.mapping((*more, "deployment", "epoch", "threshold", "keys"))
    if "tea" in fields:
        fields["tea"].text(APPROVERS_YAML_TAG.__eq__, APPROVERS_YAML_TAG, mend=f"write `tea: {APPROVERS_YAML_TAG}`")
    # Sorted and each once: a key counts once, whatever else is in the file.
    keys = tuple(
        PublicKey.parse(text) for text in fields["keys"].set_of(lambda one: one.key().text, least=1, most=MAX_APPROVERS)
    )
    return Approvers(
        read_deployment(fields["deployment"]),
        fields["epoch"].integer(1, 2**53),
        fields["threshold"].integer(1, len(keys)),
        keys,
    )


# ---- manifests -------------------------------------------------------------------------------------------------------


def approve(manifest_canonical: bytes, key: Signer) -> bytes:
    """A first approval: COSE_Sign of the canonical manifest. Raises `ManifestError` when it is no manifest."""
    manifest_from_canonical(manifest_canonical)  # nobody signs what cannot run
    return cose.sign(manifest_canonical, key, content_type=MANIFEST_CONTENT_TYPE)


def add_approval(envelope: bytes, key: Signer) -> bytes:
    """One more approval of the same manifest. Raises `ManifestError(NOT_APPROVED)`, twice by one key included."""
    try:
        manifest_from_canonical(cose.unverified_payload(envelope, limit=MAX_ENVELOPE))
        return cose.add_signature(envelope, key)
    except SigningError as error:
        raise ManifestError(ManifestCode.NOT_APPROVED, f"the approval cannot be added: {error.sentence}") from None


def verify_approval(envelope: bytes, approvers: Approvers) -> Manifest:
    """The manifest of an envelope that at least `approvers.threshold` of these approvers signed, for their deployment.

    Raises `ManifestError`: NOT_APPROVED (with how many of how many), WRONG_DEPLOYMENT, or what the schema refuses.
    """
    payload = _verify_quorum(envelope, approvers, MANIFEST_CONTENT_TYPE, "the manifest is not approved")
    manifest = manifest_from_canonical(payload)
    if manifest.deployment != approvers.deployment:
        raise ManifestError(
            ManifestCode.WRONG_DEPLOYMENT,
            f"found a manifest for {manifest.deployment!r}, expected one for {approvers.deployment!r}, "
            "which these approvers stand for: approve it under that name, or use that deployment's image",
        )
    return manifest


def unverified_manifest(envelope: bytes) -> Manifest:
    """The manifest of an envelope whose approvals NOBODY has checked: to show to a person, never to run."""
    try:
        return manifest_from_canonical(cose.unverified_payload(envelope, limit=MAX_ENVELOPE))
    except SigningError as error:
        raise ManifestError(ManifestCode.NOT_APPROVED, f"this is no approved manifest: {error.sentence}") from None


def _verify_quorum(envelope: bytes, approvers: Approvers, content_type: str, refusal: str) -> bytes:
    try:
        return cose.verify_quorum(
            envelope, approvers.by_id(), approvers.threshold, content_type=content_type, limit=MAX_ENVELOPE
        ).payload
    except SigningError as error:
        more = ""
        if error.code is SigningCode.UNKNOWN_KEY:
            more = f" (it is no approver of {approvers.deployment} in epoch {approvers.epoch})"
        raise ManifestError(ManifestCode.NOT_APPROVED, f"{refusal}: {error.sentence}{more}") from None


# ---- changes of the approvers ----------------------------------------------------------------------------------------


def propose_change(current: Approvers, new: Approvers, key: Signer) -> bytes:
    """A change from `current` to `new`, with the first approval of the old quorum. Raises `ManifestError`:
    WRONG_DEPLOYMENT, WRONG_EPOCH (it is the current one plus 1).
    """
    return cose.sign(change_payload(current, new), key, content_type=APPROVERS_CONTENT_TYPE)


def change_payload(current: Approvers, new: Approvers) -> bytes:
    """What a change from `current` to `new` says, before anybody signs it. Raises `ManifestError` as `propose_change`.

    Whoever adds an approval compares it with what the change really holds.
    """
    _require_succession(current, new)
    return canonical.encode({"tea": APPROVERS_TAG, "previous": current.digest, **new.plain()})


def add_change_approval(change: bytes, key: Signer) -> bytes:
    """One more approval of the same change. Raises `ManifestError(NOT_APPROVED)`, twice by one key included."""
    try:
        return cose.add_signature(change, key)
    except SigningError as error:
        raise ManifestError(ManifestCode.NOT_APPROVED, f"the approval cannot be added: {error.sentence}") from None


def verify_changes(initial: Approvers, changes: Sequence[bytes]) -> Approvers:
    """The approvers after a chain of changes, each approved by the quorum before it, from the set in the image on.

    Raises `ManifestError`: NOT_APPROVED, WRONG_DEPLOYMENT, WRONG_EPOCH (a change left out, replayed or out of order),
    TOO_LARGE. Each sentence says which change.
    """
    if len(changes) > MAX_CHANGES:
        raise ManifestError(
            ManifestCode.TOO_LARGE, f"found {len(changes)} changes, expected at most {MAX_CHANGES}: build a new image"
        )
    current = initial
    for number, change in enumerate(changes, 1):
        current = _verify_change(current, change, number)
    return current


def _verify_change(current: Approvers, change: bytes, number: int) -> Approvers:
    what = f"change {number} of the approvers"
    payload = _verify_quorum(change, current, APPROVERS_CONTENT_TYPE, f"{what} is not approved")
    try:
        fields = canonical.decode_tagged(payload, APPROVERS_TAG)
    except CanonicalError as error:
        raise ManifestError(ManifestCode.NOT_CANONICAL, f"{what}: {error.sentence}") from None
    previous = fields.pop("previous", None)
    new = _read_approvers(Field(node_of(fields), "", what), ())
    if canonical.encode({"tea": APPROVERS_TAG, "previous": previous, **new.plain()}) != payload:
        raise ManifestError(ManifestCode.NOT_CANONICAL, f"{what}: its keys are not sorted: propose it anew")
    if not (isinstance(previous, bytes) and hmac.compare_digest(previous, current.digest)):
        raise ManifestError(
            ManifestCode.WRONG_EPOCH,
            f"{what} follows another set of approvers than that of epoch {current.epoch}: give all changes, in order",
        )
    _require_succession(current, new)
    return new


def _require_succession(current: Approvers, new: Approvers) -> None:
    if new.deployment != current.deployment:
        raise ManifestError(
            ManifestCode.WRONG_DEPLOYMENT,
            f"found approvers for {new.deployment!r}, expected {current.deployment!r}: a deployment keeps its name",
        )
    if new.epoch != current.epoch + 1:
        raise ManifestError(
            ManifestCode.WRONG_EPOCH,
            f"found epoch {new.epoch}, expected {current.epoch + 1}: each change raises the epoch by one",
        )
