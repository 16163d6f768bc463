"""Measured boot and what attestations say: extends and locks PCRs, keeps the event log, composes statements.

May not: let anybody but the host choose user_data or public_key. Rule: docs/architecture.md, "Measured boot".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tea.providers.nitro.client import Nsm
from tea.trust import pcr
from tea.trust.eventlog import ACTIVATED, EventLog
from tea.trust.sealing import SealCode, SealError, SealingKey
from tea.trust.statement import Speaker, Statement

from .fair_threads import FairThreads

MANIFEST_PCR: Final = pcr.MANIFEST_PCR
SETTINGS_PCR: Final = pcr.SETTINGS_PCR
OWNER_PCR: Final = pcr.OWNER_PCR


class AlreadyMeasured(Exception):
    """The PCRs hold another manifest: this boot started as something else."""


@dataclass(frozen=True)
class Identity:
    """What the host is, once a manifest runs; it goes into every statement."""

    manifest: bytes
    revision: int
    epoch: int
    speakers: frozenset[tuple[str, bytes]]
    """The actors of the manifest with their bundles' digests."""


class Measurement:
    """The enclave's NSM, event log and sealing key. Implements `providers.base.Attester`."""

    def __init__(self, nsm: Nsm, threads: FairThreads, deployment: str) -> None:
        self.nsm = nsm
        self._deployment = deployment
        self._threads = threads
        self.description = nsm.describe()
        self.log = EventLog()
        self.identity: Identity | None = None
        self.pending: Identity | None = None
        """The revision whose workers are starting, before it is the running one."""
        self._retired: dict[tuple[str, bytes], Identity] = {}
        """Actors with bundles that run no longer, but may still drain: the last revision that had them."""
        self._measured: tuple[bytes, bytes] | None = None
        # A key of this boot alone: secrets are sealed to it, and its public half is in every attestation.
        self._sealing_key = SealingKey.from_raw(nsm.random(32))
        self.sealing_public_key = self._sealing_key.public
        self.attestations = 0

    @property
    def measured(self) -> bool:
        """Whether this boot has measured its first manifest."""
        return self._measured is not None

    def boot(self, manifest_digest: bytes, settings_digest: bytes) -> None:
        """Extend PCR16 and PCR17 and lock 16 to 18, once a boot.

        A second call with the same digests does nothing. Raises `AlreadyMeasured` on other digests: what came first is
        what the enclave started as, and nothing can change that.
        """
        if self._measured is not None:
            if self._measured != (manifest_digest, settings_digest):
                raise AlreadyMeasured(
                    "this boot has measured other first settings (PCR16 and PCR17 are locked): "
                    "push those again, or start a new enclave"
                )
            return
        self.nsm.extend_pcr(MANIFEST_PCR, manifest_digest)
        self.nsm.extend_pcr(SETTINGS_PCR, settings_digest)
        for index in (MANIFEST_PCR, SETTINGS_PCR, OWNER_PCR):
            self.nsm.lock_pcr(index)
        self._measured = (manifest_digest, settings_digest)

    def activated(self, identity: Identity) -> None:
        """An activation: into the event log, and from now on into statements."""
        self.log = self.log.append(
            ACTIVATED,
            manifest=identity.manifest,
            revision=identity.revision,
            epoch=identity.epoch,
            time=int(time.time() * 1000),
        )
        before = self.identity
        if before is not None:
            self._retired.update(dict.fromkeys(before.speakers - identity.speakers, before))
        self.identity, self.pending = identity, None

    @property
    def sealing_key(self) -> SealingKey:
        """The private half of this boot's key, for what is sealed to the host itself. It is handed to nobody else."""
        return self._sealing_key

    @property
    def module_id(self) -> str:
        """The NSM's own name."""
        return self.description.module_id

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]:
        """Every PCR: index -> (locked, its 48 bytes). Blocks as long as the NSM takes."""
        return {index: self.nsm.describe_pcr(index) for index in range(self.description.max_pcrs)}

    def random(self, size: int) -> bytes:
        """`size` bytes from the NSM."""
        return self.nsm.random(size)

    def _identity_for(self, speaker: tuple[str, bytes] | None) -> Identity | None:
        # A replica of the next revision speaks as that revision while it starts, and one that drains as the one it
        # served: it says nothing under a manifest that does not have it, nor opens what was sealed for that.
        running, pending = self.identity, self.pending
        if speaker is None or (running is not None and speaker in running.speakers):
            return running
        if pending is not None and speaker in pending.speakers:
            return pending
        return self._retired.get(speaker)

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None:
        """See `providers.base.Attester`."""
        identity = self._identity_for((actor, bundle))
        return identity.manifest if identity else None

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes:
        """See `providers.base.Attester`."""
        manifest = self.manifest_for(actor, bundle)
        if manifest is None:
            raise SealError(SealCode.NOT_FOR_THIS, "no manifest is active: nothing is sealed for this enclave yet")
        return self._sealing_key.open(sealed, purpose=purpose, actor=actor, manifest_digest=manifest)

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
        """(document, statement): see `providers.base.Attester`. The host's sealing key is the default public_key."""
        identity = self._identity_for(speaker or on_behalf)
        statement = Statement(
            kind=kind,
            deployment=self._deployment,
            manifest=identity.manifest if identity else None,
            revision=identity.revision if identity else 0,
            epoch=identity.epoch if identity else 0,
            log_head=self.log.head,
            speaker=Speaker(*speaker) if speaker is not None else None,
            body=body,
        )
        key = public_key if public_key is not None else self.sealing_public_key
        self.attestations += 1
        document: bytes = await self._threads.run(self.nsm.attestation, statement.digest, nonce, key)
        return document, statement.encode()
