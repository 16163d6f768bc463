"""The nitro provider: an actor attests in its own name only, and verifies others against a policy.

Real simulated NSM, real verifier. Rule: docs/architecture.md, "Statements".
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.nitro import Nitro, Verdict
from tea.providers.testing import InMemoryServices, SimulatedAttester, invoke, start_provider
from tea.trust.attestation import Roots, verify_document
from tea.trust.policy import all_of, any_of, none_of, parse_policy
from tea.trust.statement import verify_statement

COUNTER = Call(caller="counter", bundle=b"\7" * 32)
RA = Call(caller="ra", bundle=b"\x08" * 32)


async def started(config: dict[str, object] | None = None) -> tuple[Nitro, InMemoryServices, SimulatedAttester]:
    services = InMemoryServices("nitro")
    attester = services.attester
    assert isinstance(attester, SimulatedAttester)
    return await start_provider(Nitro, services, config), services, attester


def policy_text(attester: SimulatedAttester, *more: str) -> str:
    return "\n".join(
        [
            "tea: policy/1",
            f"simulated: {{root: 'sha256:{attester.ca.root_digest.hex()}'}}",
            f"pcrs: {{0: '{attester.pcrs()[0][1].hex()}'}}",
            *more,
        ]
    )


async def refused(code: Code, awaitable: Awaitable[object]) -> CallError:
    with pytest.raises(CallError) as caught:
        await awaitable
    assert caught.value.code is code
    return caught.value


async def test_an_attestation_says_who_speaks_and_what() -> None:
    nitro, services, attester = await started()
    attested = await invoke(nitro, "attest", b"the sum is 7", b"nonce", call=COUNTER)
    document = verify_document(
        attested.document,
        roots=Roots.from_digests([attester.ca.root_digest]),
        at=int(services.now() * 1000),
        nonce=b"nonce",
    )
    statement = verify_statement(document, attested.statement)
    assert statement.speaker == ("counter", b"\7" * 32)
    assert (statement.kind, statement.body) == ("actor", b"the sum is 7")
    assert (statement.deployment, statement.manifest) == ("test", services.manifest_digest)
    assert document.public_key == attester.sealing_key.public  # as the host: secrets are sealed to it


@pytest.mark.parametrize("kind", ["ready", "attest", "seal", "kms", "", "other" * 100])
async def test_no_actor_makes_the_hosts_statements(kind: str) -> None:
    nitro, _, _ = await started()
    error = await refused(Code.DENIED, invoke(nitro, "attest", b"x", None, kind, call=COUNTER))
    assert len(error.sentence) < 400


async def test_only_the_actors_of_the_config_contribute_to_rounds() -> None:
    nitro, _, _ = await started()
    await refused(Code.DENIED, invoke(nitro, "attest", b"x", None, "ra", call=COUNTER))
    assert (await invoke(nitro, "attest", b"x", None, "ra", call=RA)).document
    other, _, _ = await started({"ra_actors": ["counter"]})
    assert (await invoke(other, "attest", b"x", None, "ra", call=COUNTER)).document
    await refused(Code.DENIED, invoke(other, "attest", b"x", None, "ra", call=RA))


async def test_a_body_and_a_nonce_have_limits() -> None:
    nitro, _, _ = await started()
    assert (await invoke(nitro, "attest", bytes(64 << 10), bytes(512), call=COUNTER)).statement
    await refused(Code.INVALID, invoke(nitro, "attest", bytes((64 << 10) + 1), call=COUNTER))
    await refused(Code.INVALID, invoke(nitro, "attest", b"", bytes(513), call=COUNTER))


async def test_all_pcrs_are_described_and_the_module_named() -> None:
    nitro, _, attester = await started()
    pcrs = await invoke(nitro, "describe_pcrs")
    assert {index: (value.locked, value.data) for index, value in pcrs.items()} == attester.pcrs()
    module = await invoke(nitro, "module")
    assert module.module_id == attester.module_id
    assert module.instance_id == "i-0123456789abcdef0"
    assert (module.mode, module.locked_pcrs) == ("simulated", tuple(range(19)))


@pytest.mark.parametrize("size", [1, 256, 257, 65536])
async def test_random_gives_as_many_bytes_as_asked(size: int) -> None:
    nitro, _, _ = await started()
    drawn = await invoke(nitro, "random", size)
    assert len(drawn) == size
    assert size < 16 or drawn != await invoke(nitro, "random", size)


@pytest.mark.parametrize("size", [0, -1, 65537, 1 << 40])
async def test_random_of_another_size_is_invalid(size: int) -> None:
    nitro, _, _ = await started()
    await refused(Code.INVALID, invoke(nitro, "random", size))


async def test_a_failing_nsm_is_unavailable_and_logged() -> None:
    nitro, services, attester = await started()
    attester.device.failing = errno.EIO
    await refused(Code.UNAVAILABLE, invoke(nitro, "attest", b"x", call=COUNTER))
    await refused(Code.UNAVAILABLE, invoke(nitro, "random", 8))
    await refused(Code.UNAVAILABLE, invoke(nitro, "describe_pcrs"))
    assert [logged.message for logged in services.logs] == ["the NSM failed"] * 3
    attester.device.failing = None
    assert await invoke(nitro, "random", 8)


async def test_anothers_attestation_is_verified_against_a_policys_text() -> None:
    nitro, services, attester = await started()
    attested = await invoke(nitro, "attest", b"body", b"nonce", call=COUNTER)
    verdict = await invoke(
        nitro,
        "verify",
        attested.document,
        attested.statement,
        policy=policy_text(attester, "deployment: test", "max_age: 60"),
        slot=None,
        nonce=b"nonce",
    )
    assert isinstance(verdict, Verdict)
    assert (verdict.actor, verdict.bundle, verdict.body) == ("counter", b"\7" * 32, b"body")
    assert (verdict.kind, verdict.deployment, verdict.manifest) == ("actor", "test", services.manifest_digest)
    assert (verdict.module_id, verdict.root) == (attester.module_id, attester.ca.root_digest)
    assert verdict.timestamp == int(services.now() * 1000)
    assert sorted(verdict.pcrs) == list(range(19))
    assert not verdict.debug
    assert nitro.usage() == {"attested": 1, "verified": 1, "refused": 0, "kms": 0}


async def test_a_combined_policys_text_is_a_policys_text() -> None:
    nitro, _, attester = await started()
    attested = await invoke(nitro, "attest", b"body", call=RA)
    this = parse_policy(policy_text(attester))
    verify = (nitro, "verify", attested.document, attested.statement, None)
    verdict = await invoke(*verify, any_of(this).to_yaml())
    assert verdict.actor == "ra"
    error = await refused(Code.UNTRUSTED, invoke(*verify, all_of(this, none_of(this)).to_yaml()))
    assert error.details["reason"] == "excluded"
    error = await refused(Code.INVALID, invoke(*verify, "tea: policy/1\nall: []\n"))
    assert error.details["reason"] == "nothing"


async def test_a_slot_means_the_running_manifests_policy() -> None:
    nitro, services, attester = await started()
    services.policies["e2"] = parse_policy(policy_text(attester))
    attested = await invoke(nitro, "attest", b"body", call=RA)
    verdict = await invoke(nitro, "verify", attested.document, attested.statement, "e2")
    assert verdict.actor == "ra"
    await refused(Code.NOT_FOUND, invoke(nitro, "verify", attested.document, attested.statement, "e9"))


async def test_a_document_alone_is_verified_without_a_statement() -> None:
    nitro, _, attester = await started()
    attested = await invoke(nitro, "attest", b"body", call=RA)
    verdict = await invoke(nitro, "verify", attested.document, None, None, policy_text(attester))
    assert (verdict.kind, verdict.actor, verdict.body) == (None, None, None)
    assert verdict.user_data is not None


async def test_every_way_of_being_untrusted_names_the_rule() -> None:
    nitro, services, attester = await started()
    first = await invoke(nitro, "attest", b"one", b"nonce", call=COUNTER)
    second = await invoke(nitro, "attest", b"two", b"nonce", call=COUNTER)
    accepted = policy_text(attester, "max_age: 60")

    async def reason(document: bytes, statement: bytes | None, policy: str, nonce: bytes | None = None) -> object:
        error = await refused(Code.UNTRUSTED, invoke(nitro, "verify", document, statement, None, policy, nonce))
        return error.details["reason"]

    stranger = SimulatedAttester(services.now)
    reasons = [
        await reason(b"no document", first.statement, accepted),
        await reason(first.document[:-1] + bytes([first.document[-1] ^ 1]), first.statement, accepted),
        await reason(first.document, second.statement, accepted),
        await reason(first.document, first.statement, accepted, b"another nonce"),
        await reason(first.document, first.statement, policy_text(stranger)),
        await reason(first.document, first.statement, policy_text(attester, "deployment: other")),
        await reason(first.document, None, policy_text(attester, "deployment: test")),
    ]
    await services.clock.advance(120)
    reasons.append(await reason(first.document, first.statement, accepted))
    assert len(set(reasons)) == len(reasons)
    assert nitro.usage()["refused"] == len(reasons)


async def test_exactly_one_of_slot_and_policy_is_given() -> None:
    nitro, _, attester = await started()
    await refused(Code.INVALID, invoke(nitro, "verify", b"x", b"y"))
    await refused(Code.INVALID, invoke(nitro, "verify", b"x", b"y", "e1", policy_text(attester)))


async def test_a_bad_policy_is_invalid_not_untrusted() -> None:
    nitro, _, _ = await started()
    for text in ("", "tea: policy/1", "a: [", "tea: policy/9\nroots: [aws]\n"):
        await refused(Code.INVALID, invoke(nitro, "verify", b"x", b"y", None, text))


async def test_what_is_too_large_to_be_evidence_is_invalid_before_anything_is_parsed() -> None:
    nitro, _, attester = await started()
    text = policy_text(attester)
    await refused(Code.INVALID, invoke(nitro, "verify", bytes(0x3001), None, None, text))
    await refused(Code.INVALID, invoke(nitro, "verify", b"", bytes(80_000), None, text))
    await refused(Code.INVALID, invoke(nitro, "verify", b"", b"", None, "#" * 70_000))
    await refused(Code.INVALID, invoke(nitro, "verify", b"", b"", None, text, bytes(513)))


async def test_actors_have_no_operation_that_extends_or_locks() -> None:
    assert set(Nitro.operations()) == {"attest", "describe_pcrs", "kms_decrypt", "module", "random", "verify"}


@pytest.mark.parametrize("config", [{"ra_actors": "ra"}, {"device": "/dev/nsm"}])
async def test_a_bad_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await started(config)
