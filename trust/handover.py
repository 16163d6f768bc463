"""What both ends of a handover need: evidence verified, keys derived, and which manifests may follow each other.

May not: attest, send, or read a clock (times are arguments). Rule: docs/continuity.md, "The handover".
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import pcr
from .approval import Approvers, verify_approval, verify_changes
from .attestation import AttestationDocument, ChainCache, verify_document
from .continuity import ContinuityCode, ContinuityError, Role, Tenure
from .errors import TrustError
from .handover_messages import NONCE_BYTES, HolderBody, Message
from .manifest import Manifest
from .policy import Accepts, Policy
from .statement import Kind, Statement, verify_statement

_NO_NONCE: Final = bytes(NONCE_BYTES)
_NO_DIGEST: Final = bytes(48)

Random = Callable[[int], bytes]
"""Gives that many random bytes; the host's is the NSM."""
M = TypeVar("M", bound=Message)


class Tenancy(NamedTuple):
    """Who holds a slot, by verified evidence."""

    deployment: str
    slot: str
    term: int
    role: Role
    holder: bytes
    """The X25519 key of its boot, 32 bytes."""


class Keys(NamedTuple):
    """What follows from a parcel's secret: a key for the pieces, and one for each proof."""

    pieces: bytes
    prepared: bytes
    commit: bytes
    cancelled: bytes
    abort: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


class Approved(NamedTuple):
    """How an enclave shows that its manifest is approved."""

    approval: bytes
    """The manifest (COSE_Sign by its approvers)."""
    changes: tuple[bytes, ...] = ()
    """Changes of the approvers since those of the image."""


def holder_body(tenure: Tenure, *, nonce: bytes = _NO_NONCE, hello: bytes = _NO_DIGEST) -> bytes:
    """The body of a holder's statement (kind `attest`, the boot's own key): for a challenge, or for any third party."""
    return HolderBody(tenure.slot, tenure.term, str(tenure.role), nonce, hello).encode()


def verify_tenancy(
    document: bytes, statement: bytes, policy: Accepts, *, nonce: bytes, now_ms: int, cache: ChainCache | None = None
) -> Tenancy:
    """Who holds a slot, for a third party that asked with `nonce`; a `Fence` remembers it. Raises `TrustError`."""
    genuine, said, body = verify_evidence(document, statement, policy, Kind.ATTEST, HolderBody, nonce, now_ms, cache)
    return tenancy_of(genuine, said, body)


def approved_policy(
    own: Policy,
    slot: str,
    shown: Approved,
    *,
    approvers: Approvers,
    least: int,
    most: int | None = None,
    least_epoch: int = 0,
) -> Policy:
    """What the other end must meet: `own`, or the same with the approved manifest that it shows.

    `own` is this enclave's policy for the slot under its own manifest, `approvers` the image's. The other's revision is
    at least `least` and at most `most`, its approvers' epoch at least `least_epoch`: a holder takes successors only
    (from its own revision plus 1, in its own epoch at least), a receiver predecessors that are not too old. The image
    stays the same: another gets nothing, and gives nothing, whatever its manifest. Raises `ContinuityError(APPROVAL)`.
    """
    try:
        current = verify_changes(approvers, shown.changes)
        manifest = verify_approval(shown.approval, current)
    except TrustError as error:
        raise ContinuityError(ContinuityCode.APPROVAL, f"the other end's manifest: {error.sentence}") from None
    if manifest.digest in own.manifests:
        return own
    if manifest.revision < least or (most is not None and manifest.revision > most):
        expected = f"at least {least}" + ("" if most is None else f" and at most {most}")
        raise ContinuityError(
            ContinuityCode.APPROVAL, f"the other end's manifest has revision {manifest.revision}, expected {expected}"
        )
    if current.epoch < least_epoch:
        raise ContinuityError(
            ContinuityCode.APPROVAL, f"the other end's approvers are of epoch {current.epoch}, expected {least_epoch}"
        )
    pcrs = dict(own.pcrs)
    if binding := _binding(manifest, slot):
        # The slot's place is the newer quorum's to say: by instance before, by role now, or the other way round.
        pcrs = {index: values for index, values in pcrs.items() if index not in (pcr.ROLE_PCR, pcr.INSTANCE_PCR)}
        pcrs |= binding
    return dataclasses.replace(
        own, pcrs=pcrs, manifests=(manifest.digest,), min_revision=manifest.revision, min_epoch=current.epoch
    )


def _binding(manifest: Manifest, slot: str) -> dict[int, tuple[bytes, ...]]:
    """The PCR that binds the slot under a manifest: a new one may give the slot to another instance or role."""
    slots = manifest.ra.slots() if manifest.ra is not None else {}
    return {int(key.removeprefix("pcr")): (bytes.fromhex(value),) for key, value in slots.get(slot, {}).items()}


def verify_evidence(
    document: bytes,
    statement: bytes,
    policy: Accepts,
    kind: Kind,
    body: type[M],
    nonce: bytes,
    now_ms: int,
    cache: ChainCache | None,
) -> tuple[AttestationDocument, Statement, M]:
    """A genuine document over our nonce, its statement of this kind, as the policy wants them, and the typed body."""
    genuine = verify_document(document, roots=policy.roots(), at=now_ms, nonce=nonce, cache=cache)
    said = verify_statement(genuine, statement)
    policy.require(genuine, said, now_ms=now_ms, kind=kind)
    return genuine, said, body.parse(said.body)


def tenancy_of(genuine: AttestationDocument, said: Statement, body: HolderBody) -> Tenancy:
    """What verified evidence says of who holds a slot. Raises `ContinuityError`."""
    try:
        role = Role(body.role)
    except ValueError:
        raise ContinuityError(ContinuityCode.MALFORMED, "a holder's role is none that there is") from None
    if genuine.public_key is None or len(genuine.public_key) != 32:
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "a holder's document carries the X25519 key of its boot")
    return Tenancy(said.deployment, body.slot, body.term, role, genuine.public_key)


def require_exchange(holds: bool) -> None:
    """Raise `ContinuityError(TRANSCRIPT)` unless the evidence is of this exchange."""
    if not holds:
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "genuine evidence, but of another exchange than this one")


def purpose_of(transcript: bytes) -> str:
    """What a parcel is sealed for."""
    return f"continuity:{transcript.hex()}"


def derive(secret: bytes, transcript: bytes) -> Keys:
    """The keys of one handover: HKDF-SHA256 of the sealed secret, salted with everything that was said before."""
    if len(secret) != 32:
        raise ContinuityError(ContinuityCode.MALFORMED, "a parcel's secret has 32 bytes")
    okm = HKDF(hashes.SHA256(), 160, transcript, b"tea.continuity.v1").derive(secret)
    return Keys(okm[:32], okm[32:64], okm[64:96], okm[96:128], okm[128:])


def proof_of(key: bytes, transcript: bytes) -> bytes:
    """32 bytes that only the two ends of this handover can make."""
    return hmac.digest(key, transcript, "sha256")


def nonce_of(index: int) -> bytes:
    """The AEAD nonce of a piece: its number. The key is for this handover alone."""
    return index.to_bytes(12, "big")
