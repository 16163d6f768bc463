"""A simulated NSM behind the harness: documents that verify under a root made for one test, statements as the host's.

May not: import providers: the simulated NSM is found beside the entry point `nitro` of the group `tea.providers`.
Rule: docs/architecture.md, "Modes" and "Measured boot" (Statements).
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Final

from tea.trust import pcr
from tea.trust.sealing import SealingKey
from tea.trust.statement import Speaker, Statement

MODULE_ID: Final = "i-0123456789abcdef0-enc0123456789abcdef"
_IMAGE: Final = hashlib.sha384(b"the image of an actor's test").digest()


class SimulatedAttester:
    """What the host's NSM can do for providers, over a simulated NSM that booted `manifest`.

    `root_digest` (SHA-256 of the simulated root's DER) is what a policy names to accept its documents.
    """

    def __init__(self, nitro: EntryPoint, deployment: str, manifest: bytes, clock: Callable[[], float]) -> None:
        simulated: Any = importlib.import_module(f"{nitro.module}.simulated")
        client: Any = importlib.import_module(f"{nitro.module}.client")
        authority = simulated.SimulatedCa.create(now=clock())
        credential = authority.issue_instance(MODULE_ID.partition("-enc")[0], now=clock())
        image = {index: pcr.image_pcr(_IMAGE) for index in pcr.IMAGE_PCRS}
        self.module_id = MODULE_ID
        self.root_digest: bytes = authority.root_digest
        self._nsm: Any = client.Nsm(simulated.SimulatedNsm(credential, MODULE_ID, image, clock))
        self._deployment = deployment
        self._manifest = manifest
        self.sealing_key = SealingKey.generate()
        self._nsm.extend_pcr(pcr.MANIFEST_PCR, manifest)
        self._nsm.extend_pcr(pcr.SETTINGS_PCR, hashlib.sha384(b"no settings").digest())
        self._nsm.lock_pcrs(pcr.OWNER_PCR + 1)

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]:
        """Every PCR: index -> (locked, its 48 bytes)."""
        described = {index: self._nsm.describe_pcr(index) for index in range(pcr.COUNT)}
        return {index: (found.locked, found.data) for index, found in described.items()}

    def random(self, size: int) -> bytes:
        """`size` bytes from the simulated NSM."""
        return bytes(self._nsm.random(size))

    async def attest(
        self,
        kind: str,
        body: bytes,
        *,
        speaker: tuple[str, bytes] | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
        on_behalf: tuple[str, bytes] | None = None,
    ) -> tuple[bytes, bytes]:
        """(document, canonical statement). Raises the nitro provider's `NsmError` on what the NSM refuses."""
        statement = Statement(
            kind=kind,
            deployment=self._deployment,
            manifest=self._manifest,
            revision=1,
            epoch=0,
            log_head=pcr.ZERO,
            speaker=None if speaker is None else Speaker(*speaker),
            body=body,
        )
        key = self.sealing_key.public if public_key is None else public_key
        return bytes(self._nsm.attestation(statement.digest, nonce, key)), statement.encode()

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None:
        """The manifest that it booted."""
        return self._manifest

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes:
        """What was sealed to `sealing_key`. Raises `SealError`."""
        return self.sealing_key.open(sealed, purpose=purpose, actor=actor, manifest_digest=self._manifest)
