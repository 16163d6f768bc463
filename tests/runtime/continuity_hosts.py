"""Hosts as their continuity sees them: real kvp and crypto providers, a simulated NSM; one world, changed by a test.

May not: hold tests, or start processes. Rule: docs/continuity.md.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.providers.base import Call, Provider
from tea.providers.crypto import Crypto
from tea.providers.kvp import Kvp
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.providers.testing import InMemoryServices, start_provider
from tea.runtime.continuity import Continuity
from tea.trust import pcr
from tea.trust.approval import Approvers, add_approval, approve, parse_approvers
from tea.trust.handover import Approved
from tea.trust.keys import PrivateKey
from tea.trust.manifest import Backups, Manifest, parse_manifest
from tea.trust.policy import Policy
from tea.trust.recovery import recovery_key_text
from tea.trust.roots import Roots
from tea.trust.sealing import SealingKey
from tea.trust.statement import Statement

A, B, C = (PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
APPROVERS = parse_approvers(
    "tea: approvers/1\ndeployment: d\nepoch: 1\nthreshold: 2\nkeys:\n"
    + "".join(f'  - "{key.public.text}"\n' for key in (A, B))
)
INSTANCE, SLOT = "i-0123456789abcdef0", "e1"
IMAGE = {index: pcr.image_pcr(hashlib.sha384(b"image %d" % index).digest()) for index in range(3)}
CA = SimulatedCa.create()
COUNTER = Call(caller="counter", kvp_bytes=1 << 24)
Ask = Callable[[bytes], Awaitable[bytes]]


KEEPERS = {name: SealingKey.generate() for name in ("alice", "bob", "carol")}


def manifest_of(revision: int, *, keepers: bool = True) -> Manifest:
    member = f"{{pcr4: '{pcr.pcr4(INSTANCE).hex()}'}}"
    keys = ", ".join(f"{name}: '{recovery_key_text(key.public)}'" for name, key in KEEPERS.items())
    backup = f"backup: {{threshold: 2, keepers: {{{keys}}}}}\n" if keepers else ""
    return parse_manifest(
        f"tea: manifest/1\ndeployment: d\nrevision: {revision}\nra: {{members: {{{SLOT}: {member}}}}}\n{backup}"
    )


class OneHost:
    """What a host lends its continuity; `import_error` and `skew_ms` are faults."""

    def __init__(self, revision: int = 1, image: Mapping[int, bytes] = IMAGE, *, keepers: bool = True) -> None:
        self.manifest = manifest_of(revision, keepers=keepers)
        self.revision = revision
        self.epoch = 1
        self.quorum = APPROVERS
        self.key = SealingKey.from_raw(os.urandom(32))
        self.nsm = Nsm(SimulatedNsm(CA.issue_instance(INSTANCE), f"{INSTANCE}-enc0", image, time.time))
        self.providers: dict[str, Provider[Any]] = {}
        self.frozen = False
        self.skew_ms = 0
        self.import_error: ValueError | None = None
        self.logs: list[str] = []

    async def started(self) -> OneHost:
        self.providers = {
            "kvp": await start_provider(Kvp, InMemoryServices("kvp")),
            "crypto": await start_provider(Crypto, InMemoryServices("crypto")),
        }
        return self

    @property
    def approvers(self) -> Approvers:
        return APPROVERS

    @property
    def approved(self) -> Approved:
        return Approved(add_approval(approve(self.manifest.canonical(), A), B))

    @property
    def manifest_digest(self) -> bytes:
        return self.manifest.digest

    @property
    def keepers(self) -> Backups | None:
        return self.manifest.backup

    @property
    def sealing_key(self) -> SealingKey:
        return self.key

    def policy(self) -> Policy:
        return Policy(
            pinned=Roots.from_digests([CA.root_digest]),
            simulated=True,
            pcrs={**{index: (value,) for index, value in IMAGE.items()}, 4: (pcr.pcr4(INSTANCE),)},
            deployment="d",
            manifests=(self.manifest.digest,),
            min_revision=self.revision,
            min_epoch=1,
        )

    async def attest(
        self, kind: str, body: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> tuple[bytes, bytes]:
        said = Statement(
            kind=kind,
            deployment="d",
            manifest=self.manifest.digest,
            revision=self.revision,
            epoch=1,
            log_head=pcr.ZERO,
            body=body,
        )
        return self.nsm.attestation(said.digest, nonce, public_key or self.key.public), said.encode()

    def random(self, size: int) -> bytes:
        return self.nsm.random(size)

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.skew_ms

    async def freeze(self) -> None:
        self.frozen = True

    async def thaw(self) -> None:
        self.frozen = False

    async def export_states(self) -> dict[str, bytes]:
        assert self.frozen, "state must not change while it is exported"
        exported = {name: await provider.export_state() for name, provider in self.providers.items()}
        return {name: state for name, state in exported.items() if state is not None}

    async def import_states(self, states: Mapping[str, bytes]) -> None:
        if self.import_error is not None:
            raise self.import_error
        for name, state in states.items():
            await self.providers[name].import_state(state)

    def log(self, level: str, message: str, **fields: object) -> None:
        self.logs.append(f"{message} {fields}")


async def holding(**options: Any) -> tuple[OneHost, Continuity]:
    host = await OneHost(**options).started()
    part = Continuity(host, "d", SLOT)
    part.begin()
    return host, part


async def fresh(**options: Any) -> tuple[OneHost, Continuity]:
    host = await OneHost(**options).started()
    return host, Continuity(host, "d", SLOT)
