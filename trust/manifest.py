"""Manifests: read from YAML or canonical CBOR, and the questions that the host asks of an approved one.

May not: read a clock or a file, or grant anything that is not written in the manifest.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from . import canonical
from .canonical import CanonicalError
from .claims import Claims
from .manifest_error import ManifestCode, ManifestError
from .manifest_model import (
    MANIFEST_TAG,
    MANIFEST_YAML_TAG,
    ActorEntry,
    Backups,
    Limits,
    Link,
    Manifest,
    Member,
    Restart,
    Rounds,
    Variable,
    time_text,
)
from .manifest_schema import read_manifest
from .manifest_yaml import MAX_TEXT, node_of, read_yaml
from .names import PARENT
from .schema import Field

__all__ = [
    "ActorEntry",
    "Backups",
    "Limits",
    "Link",
    "Manifest",
    "ManifestCode",
    "ManifestError",
    "Member",
    "Restart",
    "Rounds",
    "Variable",
    "effective_operations",
    "manifest_from_canonical",
    "parse_manifest",
    "require_grants",
    "require_not_expired",
    "require_revision",
]


def parse_manifest(text: str, filename: str = "manifest.yaml") -> Manifest:
    """Read a manifest's YAML (at most 1 MiB). Raises `ManifestError`: file, line, place, found, expected, mend."""
    return read_manifest(Field(read_yaml(text, filename), "", filename))


def manifest_from_canonical(data: bytes) -> Manifest:
    """Read a manifest's canonical form (at most 1 MiB) by the same schema.

    Raises `ManifestError`; NOT_CANONICAL when `Manifest.canonical` would not have written these bytes.
    """
    try:
        fields = canonical.decode_tagged(data, MANIFEST_TAG, limit=MAX_TEXT)
    except CanonicalError as error:
        raise ManifestError(
            ManifestCode.NOT_CANONICAL, f"this is no manifest in canonical form: {error.sentence}"
        ) from None
    manifest = read_manifest(Field(node_of({**fields, "tea": MANIFEST_YAML_TAG}), "", "the canonical manifest"))
    if manifest.canonical() != data:
        raise ManifestError(
            ManifestCode.NOT_CANONICAL,
            "the canonical manifest has another form than its own (defaults left out, lists unsorted): compile it anew",
        )
    return manifest


def effective_operations(link: Link, claims: Claims | None) -> tuple[str, ...]:
    """What a link really allows: what it grants AND what its source's bundle asks for, sorted.

    `claims` are those of the source's bundle; None for the parent, who has none (`ValueError` for an actor's link).
    """
    if link.source == PARENT:
        return link.operations
    if claims is None or claims.name != link.source:
        raise ValueError(f"the link of {link.source} needs the claims of its own bundle")
    return tuple(sorted(set(link.operations) & set(claims.capabilities.get(link.target, ()))))


def require_grants(manifest: Manifest, actor: str, claims: Claims, bundle_digest: bytes) -> None:
    """Raise `ManifestError` unless this verified bundle is the one that the manifest names for `actor`, and asks for
    nothing that the manifest does not grant.

    `bundle_digest` is the SHA-256 of the bundle file. Codes: UNKNOWN_NAME (no such actor), OTHER_BUNDLE (name, version,
    digest or issuer differ), NOT_GRANTED (a target or an operation without a link).
    """
    entry = manifest.actors.get(actor)
    if entry is None:
        raise ManifestError(
            ManifestCode.UNKNOWN_NAME, f"found no actor {actor!r} in the manifest: add it under `actors`"
        )
    issuer = manifest.issuers[entry.issuer]
    _require_same(actor, "name", claims.name, actor)
    _require_same(actor, "version", claims.version, entry.version)
    _require_same(actor, "issuer's key id", claims.issuer.hex(), issuer.key.key_id.hex())
    if not hmac.compare_digest(bundle_digest, entry.bundle):
        _require_same(actor, "digest", f"sha256:{bundle_digest.hex()}", f"sha256:{entry.bundle.hex()}")
    for target, asked in claims.capabilities.items():
        if target not in issuer.capabilities:
            raise ManifestError(
                ManifestCode.NOT_GRANTED,
                f"{actor} asks for {target}, found nothing of the kind under issuers.{entry.issuer}.capabilities, "
                f"expected it there: add {target}, or build the bundle without",
            )
        granted = {one for link in manifest.links_of(actor) if link.target == target for one in link.operations}
        if missing := [one for one in asked if one not in granted]:
            raise ManifestError(
                ManifestCode.NOT_GRANTED,
                f"{actor} asks for {target}: {', '.join(missing)}; found {', '.join(sorted(granted)) or 'no link'}, "
                f"expected a link that grants it: add `{{from: {actor}, to: {target}, "
                f"operations: [{', '.join(missing)}]}}` under `links`, or build the bundle without",
            )


def _require_same(actor: str, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ManifestError(
            ManifestCode.OTHER_BUNDLE,
            f"the bundle of {actor} is another: found the {what} {found}, expected {expected}: "
            "push that bundle, or approve a manifest with this one",
        )


def require_revision(current: tuple[int, bytes] | None, new: Manifest) -> None:
    """Raise `ManifestError` when `new` is a rollback: a lower revision than the running (revision, digest), or an equal
    one that says something else. None: nothing runs yet.
    """
    if current is None:
        return
    revision, digest = current
    if new.revision < revision:
        raise ManifestError(
            ManifestCode.LOWER_REVISION,
            f"found revision {new.revision}, expected {revision} or higher: raise `revision` and have it approved",
        )
    if new.revision == revision and not hmac.compare_digest(new.digest, digest):
        raise ManifestError(
            ManifestCode.OTHER_AT_SAME_REVISION,
            f"found another manifest of revision {revision} (sha384:{new.digest.hex()[:16]}...), expected the "
            f"running one (sha384:{digest.hex()[:16]}...): raise `revision` and have it approved",
        )


def require_not_expired(manifest: Manifest, now: datetime) -> None:
    """Raise `ManifestError(EXPIRED)` from the second `not_after` on. `now` is aware, best of a fresh NSM document."""
    if now.tzinfo is None:
        raise ValueError("now is an aware datetime")
    if manifest.not_after is not None and now.astimezone(UTC).timestamp() >= manifest.not_after:
        raise ManifestError(
            ManifestCode.EXPIRED,
            f"found the time {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, expected one before not_after, "
            f"{time_text(manifest.not_after)}: approve a manifest with a later one",
        )
