"""A secret in a real enclave: released while its actor starts, anew under the next revision, gone with the manifest.

Rule: docs/secrets.md, "The protocol".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.secrets.service import ReleaseService
from tea.parent_client.secrets.vault import Vault
from tea.protocol.channels import Channel, Release
from tea.protocol.errors import CallError, Code
from tea.trust.errors import TrustError
from tea.trust.manifest import parse_manifest
from tea.trust.policy import Policy
from tea.trust.roots import Roots
from tea.trust.sealing import seal

SECRET = b"correct horse battery staple"
KEEPER = """
import hashlib
from tea.sdk import Actor, operation

class Keeper(Actor):
    def on_start(self) -> None:
        self.digest = hashlib.sha256(self.secrets.get("api-key")["value"]).hexdigest()

    @operation
    def kept(self) -> str:
        return self.digest

    @operation
    def opened(self, sealed: bytes) -> str:
        return hashlib.sha256(self.secrets.open(sealed)).hexdigest()
"""
LINKS = (
    "  - {from: parent, to: keeper, operations: [kept, opened]}\n"
    "  - {from: keeper, to: secrets, operations: [get, open]}"
)
KEPT = hashlib.sha256(SECRET).hexdigest()


class Owner(Release):
    """The owner's service, without HTTP between."""

    def __init__(self, service: ReleaseService) -> None:
        self.service = service

    async def challenge(self) -> bytes:
        return self.service.challenge()

    async def release(self, request: bytes) -> bytes:
        try:
            return self.service.release(request)
        except TrustError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=error.code.value) from None


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.create(tmp_path / "vault")
    yield made
    made.close()


def manifest(enclave: Any, vault: Vault, revision: int, version: str = "0.1.0") -> str:
    text: str = enclave.manifest(
        revision=revision,
        links=LINKS,
        providers=f"  secrets: {{service: '{vault.service.public.text}'}}",
        issuer_capabilities="secrets",
        versions={"keeper": version},
    )
    return text


def build(enclave: Any, version: str = "0.1.0") -> None:
    enclave.bundle("keeper", KEEPER, "Keeper", version=version, capabilities={"secrets": ("get", "open")})


def accept(enclave: Any, vault: Vault, *texts: str) -> Policy:
    digests = tuple(parse_manifest(text).digest for text in texts)
    pcrs = {index: (enclave.start.pcrs[index],) for index in range(3)}
    policy = Policy(pinned=Roots.from_digests([enclave.root]), simulated=True, pcrs=pcrs, manifests=digests)
    vault.put("api-key", SECRET, policy=policy.to_yaml(), actors=("keeper",), lease=600)
    return policy


def releases(vault: Vault) -> list[tuple[str, int]]:
    entries = [json.loads(line) for line in vault.audit.path.read_text().splitlines()]
    return [(one["event"], one["fields"]["revision"]) for one in entries if one["event"] in ("released", "refused")]


async def test_a_secret_is_there_when_its_actor_starts_and_anew_under_the_next_revision(
    enclave: Any, vault: Vault
) -> None:
    enclave.client._connected().serve(Channel.RELEASE, Release, Owner(ReleaseService(vault)))
    build(enclave)
    first = manifest(enclave, vault, 1)
    accept(enclave, vault, first)
    await enclave.push(first)
    assert await enclave.call("keeper", "kept") == KEPT

    build(enclave, "0.2.0")
    second = manifest(enclave, vault, 2, "0.2.0")
    with pytest.raises(CallError, match="expected"):  # its owner does not accept revision 2 yet
        await enclave.push(second)
    assert await enclave.call("keeper", "kept") == KEPT
    accept(enclave, vault, first, second)
    await enclave.push(second)
    assert await enclave.call("keeper", "kept") == KEPT
    assert set(releases(vault)) == {("released", 1), ("refused", 2), ("released", 2)}


async def test_what_is_sealed_by_hand_opens_under_the_manifest_it_was_sealed_for(enclave: Any, vault: Vault) -> None:
    enclave.client._connected().serve(Channel.RELEASE, Release, Owner(ReleaseService(vault)))
    build(enclave)
    text = manifest(enclave, vault, 1)
    accept(enclave, vault, text)
    await enclave.push(text)
    public = enclave.host.measurement.sealing_public_key

    def sealed(actor: str, digest: bytes) -> bytes:
        return seal(public, SECRET, purpose="secret", actor=actor, manifest_digest=digest)

    digest = parse_manifest(text).digest
    assert await enclave.call("keeper", "opened", sealed("keeper", digest)) == KEPT
    for wrong in (sealed("other", digest), sealed("keeper", bytes(48))):
        with pytest.raises(CallError) as caught:
            await enclave.call("keeper", "opened", wrong)
        assert caught.value.code is Code.UNTRUSTED


async def test_without_a_release_service_the_actor_does_not_start_and_says_why(enclave: Any, vault: Vault) -> None:
    build(enclave)
    with pytest.raises(CallError, match="release service"):
        await enclave.push(manifest(enclave, vault, 1))
