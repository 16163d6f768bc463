"""Revocation: what is no longer given secrets, whatever a policy says; minimums only rise.

May not: take anything back that was released (a lease's end does), read a clock, or judge what is not verified.
Rule: docs/secrets.md, "Revocation"; docs/architecture.md, "Rollback and revocation".
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .attestation import AttestationDocument
from .release import ReleaseCode, ReleaseError
from .statement import Statement


@dataclass(frozen=True, slots=True)
class Revocations:
    """All that is revoked."""

    images: Collection[bytes] = ()
    """PCR0 values, 48 bytes."""
    manifests: Collection[bytes] = ()
    """Digests, 48 bytes."""
    enclaves: Collection[str] = ()
    """Module ids (one boot of one enclave), or instance ids (every enclave of that instance)."""
    least_revision: Mapping[str, int] = field(default_factory=dict)
    """By deployment."""
    least_epoch: Mapping[str, int] = field(default_factory=dict)
    """By deployment."""

    def require(self, document: AttestationDocument, statement: Statement) -> None:
        """Raise `ReleaseError` when what a verified document and statement stand for is revoked."""
        image = document.pcrs.get(0)
        if image is None or _among(image, self.images):
            shown = "not there" if image is None else image.hex()
            raise ReleaseError(ReleaseCode.REVOKED_IMAGE, f"PCR0 is {shown}: this image is revoked, start a newer one")
        if document.module_id in self.enclaves or document.instance_id in self.enclaves:
            raise ReleaseError(
                ReleaseCode.REVOKED_ENCLAVE,
                f"the enclave {document.module_id!r:.120} is revoked: start another on another instance, if it may be",
            )
        if statement.manifest is None or _among(statement.manifest, self.manifests):
            shown = "none" if statement.manifest is None else f"sha384:{statement.manifest.hex()}"
            raise ReleaseError(
                ReleaseCode.REVOKED_MANIFEST, f"the active manifest is {shown}, which is revoked: push a newer one"
            )
        least = self.least_revision.get(statement.deployment, 0)
        if statement.revision < least:
            raise ReleaseError(
                ReleaseCode.REVOKED_REVISION,
                f"the manifest's revision is {statement.revision}, expected at least {least}: push a newer one",
            )
        least = self.least_epoch.get(statement.deployment, 0)
        if statement.epoch < least:
            raise ReleaseError(
                ReleaseCode.REVOKED_EPOCH,
                f"the approvers' epoch is {statement.epoch}, expected at least {least}: push the approvers' changes",
            )


def _among(found: bytes, revoked: Collection[bytes]) -> bool:
    return any(hmac.compare_digest(found, value) for value in revoked)
