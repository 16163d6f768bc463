"""A vault, an attested enclave that asks it, and a policy between them. Rule: docs/secrets.md."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tea.parent_client.secrets.service import Limits, ReleaseService
from tea.parent_client.secrets.vault import Vault
from tea.providers.nitro.authority import SimulatedCa
from tea.providers.testing import SimulatedAttester
from tea.trust.policy import Policy
from tea.trust.release import Ask, Request, open_answer, parse_challenge
from tea.trust.roots import Roots

MANIFEST = hashlib.sha384(b"the manifest").digest()
BUNDLE = hashlib.sha256(b"the bundle").digest()
SECRET = b"correct horse battery staple"


@dataclass
class Setting:
    """Everything that a test breaks one thing of."""

    vault: Vault
    ca: SimulatedCa
    enclave: SimulatedAttester
    service: ReleaseService
    policy: Policy

    def put(self, name: str = "api-key", actors: tuple[str, ...] = ("payer",), lease: int = 60) -> None:
        self.vault.put(name, SECRET, policy=self.policy.to_yaml(), actors=actors, lease=lease)

    async def request(
        self,
        name: str = "api-key",
        *,
        actor: str = "payer",
        enclave: SimulatedAttester | None = None,
        kind: str = "seal",
        nonce: bytes | None = None,
        attested: bytes | None = None,
        public_key: bytes | None = None,
        body: bytes | None = None,
        statement: bytes | None = None,
    ) -> bytes:
        """A request, encoded; each argument breaks one thing of it."""
        given = nonce or parse_challenge(self.service.challenge()).nonce
        document, made = await (enclave or self.enclave).attest(
            kind,
            body if body is not None else Ask(name, actor, BUNDLE).encode(),
            nonce=attested or given,
            public_key=public_key,
            speaker=(actor, BUNDLE) if kind == "actor" else None,
        )
        return Request(document, statement or made, given).encode()

    async def released(self, name: str = "api-key") -> bytes:
        """The secret, as the enclave opens it."""
        nonce = parse_challenge(self.service.challenge()).nonce
        answer = self.service.release(await self.request(name, nonce=nonce))
        return open_answer(
            answer,
            self.vault.service.public,
            ask=Ask(name, "payer", BUNDLE),
            nonce=nonce,
            key=self.enclave.sealing_key,
            manifest=MANIFEST,
        ).value


@pytest.fixture
def make_service() -> Callable[[Vault], ReleaseService]:
    return lambda vault: ReleaseService(vault, Limits(enclave=(1000.0, 1000), strangers=(1000.0, 1000)))


@pytest.fixture
def setting(tmp_path: Path, make_service: Callable[[Vault], ReleaseService]) -> Iterator[Setting]:
    """A vault with nothing in it, and an enclave that its policy accepts."""
    vault = Vault.create(tmp_path / "vault")
    ca = SimulatedCa.create()
    enclave = SimulatedAttester(time.time, deployment="test", manifest=MANIFEST, ca=ca)
    image = {index: (found[1],) for index, found in enclave.pcrs().items() if index <= 2}
    policy = Policy(
        pinned=Roots.from_digests([ca.root_digest]),
        simulated=True,
        pcrs=image,
        deployment="test",
        manifests=(MANIFEST,),
    )
    yield Setting(vault, ca, enclave, make_service(vault), policy)
    vault.close()
