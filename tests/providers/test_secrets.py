"""The secrets provider: believes the service that the manifest names, holds a secret until its lease ends, no longer.

Rule: docs/secrets.md, "The protocol".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tea.protocol.channels import Channel, Release
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.secrets import Secret, Secrets, SecretsConfig
from tea.providers.testing import (
    EPOCH,
    InMemoryServices,
    SimulatedAttester,
    VirtualClock,
    invoke,
    settle,
    start_provider,
)
from tea.trust.attestation import verify_document
from tea.trust.keys import PrivateKey
from tea.trust.release import Challenge, Terms, ask_of, parse_request, seal_answer
from tea.trust.roots import Roots
from tea.trust.sealing import seal
from tea.trust.statement import verify_statement

VALUE = b"correct horse battery staple"
CALL = Call(caller="payer", bundle=b"\x01" * 32)
OTHER = Call(caller="clerk", bundle=b"\x02" * 32)
SERVICE = PrivateKey.generate()
AT = int(EPOCH * 1000)


class Owner(Release):
    """The release service behind the parent; a test sets what goes wrong."""

    def __init__(self, attester: SimulatedAttester) -> None:
        self.attester = attester
        self.key = SERVICE
        self.nonces = 0
        self.terms: dict[str, Any] = {}
        self.seconds = 60
        self.version = 1
        self.tamper: Callable[[bytes], bytes] = lambda answer: answer
        self.refuse: CallError | None = None
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def challenge(self) -> bytes:
        self.nonces += 1
        return Challenge(self.nonces.to_bytes(32, "big"), 60).encode()

    async def release(self, request: bytes) -> bytes:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        asked = parse_request(request)
        roots = Roots.from_digests([self.attester.ca.root_digest])
        document = verify_document(asked.document, roots=roots, at=AT, nonce=asked.nonce)
        statement = verify_statement(document, asked.statement)
        ask = ask_of(statement)
        self.asked.append(f"{ask.actor}:{ask.secret}")
        terms: dict[str, Any] = {
            "nonce": asked.nonce,
            "secret": ask.secret,
            "actor": ask.actor,
            "version": self.version,
            "lease": bytes(16),
            "seconds": self.seconds,
            **self.terms,
        }
        assert statement.manifest is not None
        answer = seal_answer(
            Terms(**terms), VALUE, public_key=document.public_key, manifest=statement.manifest, key=self.key
        )
        return self.tamper(answer)


async def started(**config: object) -> tuple[Secrets, InMemoryServices, Owner]:
    services = InMemoryServices("secrets", clock=VirtualClock())
    attester = services.attester
    assert isinstance(attester, SimulatedAttester)
    owner = Owner(attester)
    services.parent.stand_in(Channel.RELEASE, owner)
    provider = await start_provider(Secrets, services, {"service": SERVICE.public.text, **config})
    return provider, services, owner


async def refused(provider: Secrets, operation: str, *args: object, call: Call = CALL) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(provider, operation, *args, call=call)
    assert VALUE.decode() not in repr(caught.value)
    return caught.value


async def test_a_released_secret_comes_from_memory_while_its_lease_lasts() -> None:
    provider, services, owner = await started()
    secret = await invoke(provider, "get", "api-key", call=CALL)
    assert (secret.value, secret.version, secret.seconds) == (VALUE, 1, 60)
    services.clock.elapsed += 59
    again = await invoke(provider, "get", "api-key", call=CALL)
    assert again.seconds == pytest.approx(1)
    assert owner.asked == ["payer:api-key"]
    assert provider.usage() == {"held": 1, "released": 1}


async def test_after_its_lease_a_secret_is_dropped_and_asked_for_anew() -> None:
    provider, services, owner = await started()
    services.clock.install()
    await invoke(provider, "get", "api-key", call=CALL)
    await services.clock.advance(61)
    assert provider.usage()["held"] == 0
    owner.refuse = CallError(Code.UNTRUSTED, "revoked", reason="release:revoked-secret")
    error = await refused(provider, "get", "api-key")
    assert (error.code, error.details["reason"]) == (Code.UNTRUSTED, "release:revoked-secret")


async def test_each_actor_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _, owner = await started()
    await invoke(provider, "get", "api-key", call=CALL)
    await invoke(provider, "get", "api-key", call=OTHER)
    assert owner.asked == ["payer:api-key", "clerk:api-key"]
    owner.refuse = CallError(Code.UNTRUSTED, "no")
    # Another bundle under the same name is another actor.
    await refused(provider, "get", "api-key", call=Call(caller="payer", bundle=b"\x09" * 32))


async def test_replicas_that_ask_at_once_ask_once() -> None:
    provider, _, owner = await started()
    owner.gate = asyncio.Event()
    asking = [asyncio.ensure_future(invoke(provider, "get", "api-key", call=CALL)) for _ in range(5)]
    await settle()
    owner.gate.set()
    assert {one.value for one in await asyncio.gather(*asking)} == {VALUE}
    assert owner.asked == ["payer:api-key"]
    assert not provider._asking


async def test_under_another_manifest_it_is_asked_for_anew() -> None:
    provider, _services, owner = await started()
    await invoke(provider, "get", "api-key", call=CALL)
    owner.attester.manifest = b"\x05" * 48
    owner.refuse = CallError(Code.UNTRUSTED, "not this manifest")
    await refused(provider, "get", "api-key")
    assert provider.usage()["held"] == 0


async def test_another_services_answer_is_not_believed() -> None:
    provider, _, owner = await started()
    owner.key = PrivateKey.generate()
    error = await refused(provider, "get", "api-key")
    assert (error.code, error.details["reason"]) == (Code.UNTRUSTED, "release:signature")


@pytest.mark.parametrize("terms", [{"nonce": bytes(32)}, {"secret": "other"}, {"actor": "clerk"}])
async def test_an_answer_to_another_question_is_not_believed(terms: dict[str, object]) -> None:
    provider, _, owner = await started()
    owner.terms = terms
    assert (await refused(provider, "get", "api-key")).details["reason"] == "release:nonce"


async def test_an_answer_told_again_is_not_believed() -> None:
    provider, services, owner = await started()
    kept: list[bytes] = []

    def keep(answer: bytes) -> bytes:
        kept.append(answer)
        return kept[0]

    owner.tamper = keep
    await invoke(provider, "get", "api-key", call=CALL)
    services.clock.elapsed += 61
    assert (await refused(provider, "get", "api-key")).details["reason"] == "release:nonce"


async def test_nonsense_from_the_parent_is_refused() -> None:
    provider, _, owner = await started()
    owner.tamper = lambda answer: answer[:-1]
    assert (await refused(provider, "get", "api-key")).code is Code.UNTRUSTED

    async def challenge() -> bytes:
        return b"nonsense"

    owner.challenge = challenge  # type: ignore[method-assign]
    assert (await refused(provider, "get", "api-key")).details["reason"] == "release:malformed"


async def test_what_was_sealed_for_another_manifest_does_not_open() -> None:
    provider, _, owner = await started()
    release = owner.release

    async def upgraded(request: bytes) -> bytes:
        answer = await release(request)
        owner.attester.manifest = b"\x05" * 48
        return answer

    owner.release = upgraded  # type: ignore[method-assign]
    assert (await refused(provider, "get", "api-key")).details["reason"] == "seal:not-for-this"


async def test_no_service_and_no_parent_are_unavailable() -> None:
    provider, services, _ = await started()
    services.parent.cut = True
    assert (await refused(provider, "get", "api-key")).code is Code.UNAVAILABLE
    alone = await start_provider(Secrets, InMemoryServices("secrets"), {})
    assert (await refused(alone, "get", "api-key")).code is Code.UNAVAILABLE


async def test_a_service_that_is_silent_is_late() -> None:
    provider, _services, owner = await started()

    async def silent() -> bytes:
        raise TimeoutError

    owner.challenge = silent  # type: ignore[method-assign]
    assert (await refused(provider, "get", "api-key")).code is Code.DEADLINE


@pytest.mark.parametrize("name", ["", "Api", "a" * 100])
async def test_a_bad_name_is_invalid(name: str) -> None:
    provider, _, _ = await started()
    assert (await refused(provider, "get", name)).code is Code.INVALID


async def test_an_actor_holds_so_many_and_may_drop_them() -> None:
    provider, _, _ = await started(max_held=1)
    await invoke(provider, "get", "one", call=CALL)
    assert (await refused(provider, "get", "two")).code is Code.EXHAUSTED
    assert await invoke(provider, "drop", "one", call=CALL) is True
    assert await invoke(provider, "drop", "one", call=CALL) is False
    await invoke(provider, "get", "two", call=CALL)
    await provider.forget("payer")
    assert provider.usage()["held"] == 0
    await invoke(provider, "get", "two", call=CALL)
    await provider.stop()
    assert provider.usage()["held"] == 0


async def test_what_was_sealed_by_hand_opens_for_its_actor_alone() -> None:
    provider, _services, owner = await started()
    sealed = seal(
        owner.attester.sealing_key.public,
        VALUE,
        purpose="secret",
        actor="payer",
        manifest_digest=owner.attester.manifest,
    )
    assert await invoke(provider, "open", sealed, call=CALL) == VALUE
    assert (await refused(provider, "open", sealed, call=OTHER)).code is Code.UNTRUSTED
    assert (await refused(provider, "open", b"", call=CALL)).code is Code.UNTRUSTED
    key = seal(
        owner.attester.sealing_key.public,
        VALUE,
        purpose="key:ed25519",
        actor="payer",
        manifest_digest=owner.attester.manifest,
    )
    assert (await refused(provider, "open", key, call=CALL)).code is Code.UNTRUSTED


def test_a_service_key_that_is_none_is_refused_with_the_manifest() -> None:
    with pytest.raises(ValueError, match="service"):
        Secrets(SecretsConfig(service="ed25519:nonsense"))


async def test_nothing_shows_the_value() -> None:
    provider, services, _ = await started()
    await invoke(provider, "get", "api-key", call=CALL)
    shown = repr(Secret(VALUE, 1, 1.0)) + repr(services.logs) + repr(provider._held) + repr(provider.__dict__)
    assert VALUE.decode() not in shown
