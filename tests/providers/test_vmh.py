"""The vmh provider: messages to the same actor elsewhere; nothing that the parent sends in does harm.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tea.protocol.channels import Channel, Peers
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.testing import InMemoryServices, invoke, start_provider
from tea.providers.vmh import Vmh

MEMBERS = {name: {"pcr4": "00" * 48} for name in ("e3", "e1", "e2")}
RA = Call(caller="ra")


class OtherParents(Peers):
    """Answers requests with a function of the test."""

    def __init__(self, answer: Callable[[str, str, str, bytes], Awaitable[bytes]]) -> None:
        self._answer = answer

    async def request(self, to: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        return await self._answer(to, actor, topic, body)


async def started(own_slot: str | None = "e1", **config: object) -> tuple[Vmh, InMemoryServices]:
    services = InMemoryServices("vmh")
    services.members = MEMBERS
    services.own_slot = own_slot
    return await start_provider(Vmh, services, config), services


async def refused(code: Code, awaitable: Awaitable[object]) -> CallError:
    with pytest.raises(CallError) as caught:
        await awaitable
    assert caught.value.code is code
    return caught.value


async def test_members_and_the_own_slot_are_the_manifests() -> None:
    vmh, _ = await started()
    assert await invoke(vmh, "members", call=RA) == ["e1", "e2", "e3"]
    assert await invoke(vmh, "own_slot", call=RA) == "e1"


async def test_a_message_goes_to_the_actor_of_the_same_name() -> None:
    vmh, services = await started()
    await invoke(vmh, "tell", "e2", "round", b"hello", call=RA)
    assert services.parent.tells == [(Channel.PEERS, "send", ("e2", "ra", "round", b"hello"))]


async def test_publishing_reaches_every_other_slot() -> None:
    vmh, services = await started()
    assert await invoke(vmh, "publish", "round", b"x", call=RA) == 2
    assert [args[0] for _, _, args in services.parent.tells] == ["e2", "e3"]


async def test_a_request_brings_the_answer() -> None:
    vmh, services = await started()

    async def answer(to: str, actor: str, topic: str, body: bytes) -> bytes:
        return f"{to} {actor} {topic} ".encode() + body

    services.parent.stand_in(Channel.PEERS, OtherParents(answer))
    assert await invoke(vmh, "request", "e3", "node", b"?", call=RA) == b"e3 ra node ?"
    assert vmh.usage()["requests_waiting"] == 0


@pytest.mark.parametrize("operation", ["tell", "request"])
async def test_a_peer_is_another_slot_of_the_deployment(operation: str) -> None:
    vmh, services = await started()
    await refused(Code.NOT_FOUND, invoke(vmh, operation, "e9", "t", b"", call=RA))
    await refused(Code.NOT_FOUND, invoke(vmh, operation, "x" * 100_000, "t", b"", call=RA))
    await refused(Code.INVALID, invoke(vmh, operation, "e1", "t", b"", call=RA))
    await refused(Code.INVALID, invoke(vmh, operation, "e2", "bad topic", b"", call=RA))
    assert services.parent.tells == []


async def test_an_enclave_without_a_slot_reaches_nobody() -> None:
    vmh, _ = await started(own_slot=None)
    assert await invoke(vmh, "own_slot", call=RA) is None
    await refused(Code.UNAVAILABLE, invoke(vmh, "tell", "e2", "t", b"", call=RA))
    await refused(Code.UNAVAILABLE, invoke(vmh, "publish", "t", b"", call=RA))
    await refused(Code.UNAVAILABLE, invoke(vmh, "request", "e2", "t", b"", call=RA))


async def test_a_body_over_the_limit_is_invalid_and_names_it() -> None:
    vmh, _ = await started(max_body=4)
    for operation, args in (("tell", ("e2",)), ("publish", ()), ("request", ("e2",))):
        error = await refused(Code.INVALID, invoke(vmh, operation, *args, "t", b"12345", call=RA))
        assert error.details["limit"] == 4


@pytest.mark.parametrize("timeout", [0.0, -1.0, 121.0, float("nan"), float("inf")])
async def test_a_timeout_out_of_bounds_is_invalid(timeout: float) -> None:
    vmh, _ = await started()
    await refused(Code.INVALID, invoke(vmh, "request", "e2", "t", b"", timeout, call=RA))


async def test_a_peer_that_is_not_reached_is_unavailable_and_the_request_counts_no_more() -> None:
    vmh, services = await started()
    services.parent.cut = True
    await refused(Code.UNAVAILABLE, invoke(vmh, "request", "e2", "t", b"", call=RA))
    await invoke(vmh, "tell", "e2", "t", b"", call=RA)
    assert vmh.usage()["requests_waiting"] == 0


async def test_no_answer_in_time_is_a_deadline() -> None:
    vmh, services = await started()

    async def never(to: str, actor: str, topic: str, body: bytes) -> bytes:
        return await asyncio.Future()

    services.parent.stand_in(Channel.PEERS, OtherParents(never))
    await refused(Code.DEADLINE, invoke(vmh, "request", "e2", "t", b"", 0.01, call=RA))
    short = Call(caller="ra", deadline=0.01)
    await refused(Code.DEADLINE, invoke(vmh, "request", "e2", "t", b"", 60.0, call=short))


async def test_an_actor_has_a_bound_of_waiting_requests_and_others_are_not_held_up() -> None:
    vmh, services = await started(requests=2)
    gate = asyncio.Event()

    async def late(to: str, actor: str, topic: str, body: bytes) -> bytes:
        await gate.wait()
        return b"late"

    services.parent.stand_in(Channel.PEERS, OtherParents(late))
    waiting = [asyncio.create_task(invoke(vmh, "request", "e2", "t", b"", call=RA)) for _ in range(2)]
    await asyncio.sleep(0)
    await refused(Code.EXHAUSTED, invoke(vmh, "request", "e2", "t", b"", call=RA))
    other = asyncio.create_task(invoke(vmh, "request", "e2", "t", b"", call=Call(caller="other")))
    gate.set()
    assert await asyncio.gather(*waiting, other) == [b"late"] * 3


async def test_an_answer_over_the_limit_is_not_passed_on() -> None:
    vmh, services = await started(max_body=4)

    async def long(to: str, actor: str, topic: str, body: bytes) -> bytes:
        return b"12345"

    services.parent.stand_in(Channel.PEERS, OtherParents(long))
    await refused(Code.UNAVAILABLE, invoke(vmh, "request", "e2", "t", b"", call=RA))


async def test_a_subscribed_actor_is_told_and_its_replicas_take_turns() -> None:
    vmh, services = await started()
    for replica in range(2):
        await invoke(vmh, "subscribe", "round", "heard", call=Call(caller="ra", replica=replica))
    for _ in range(3):
        await services.parent.send(Channel.PEERS, "deliver", "e2", "ra", "round", b"x")
    assert services.tells == [
        ("ra", "heard", ("e2", "round", b"x"), 0),
        ("ra", "heard", ("e2", "round", b"x"), 1),
        ("ra", "heard", ("e2", "round", b"x"), 0),
    ]
    assert vmh.usage()["delivered"] == 3


async def test_a_message_that_nobody_takes_is_a_dead_letter() -> None:
    vmh, services = await started()
    await services.parent.send(Channel.PEERS, "deliver", "e2", "ra", "round", b"x")
    await invoke(vmh, "subscribe", "round", "heard", call=RA)
    await services.parent.send(Channel.PEERS, "deliver", "e2", "other", "round", b"x")
    services.full.add("ra")
    await services.parent.send(Channel.PEERS, "deliver", "e2", "ra", "round", b"x")
    assert services.tells == []
    assert vmh.usage()["dead_letters"] == 3


async def test_a_subscribed_actor_answers_a_request() -> None:
    vmh, services = await started()
    services.handlers["ra", "heard"] = lambda sender, topic, body: body + sender.encode()
    await invoke(vmh, "subscribe", "node", "heard", call=RA)
    assert await services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b"from ") == b"from e2"
    assert vmh.usage()["answered"] == 1


async def test_a_request_for_who_is_not_subscribed_is_not_found() -> None:
    _, services = await started()
    await refused(Code.NOT_FOUND, services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))


async def test_an_actors_refusal_goes_back_to_the_peer() -> None:
    vmh, services = await started()

    def refuse(sender: str, topic: str, body: bytes) -> bytes:
        raise CallError(Code.UNTRUSTED, "this height is in quarantine")

    services.handlers["ra", "heard"] = refuse
    await invoke(vmh, "subscribe", "node", "heard", call=RA)
    error = await refused(Code.UNTRUSTED, services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))
    assert "quarantine" in error.sentence


@pytest.mark.parametrize("answer", [None, "text", 7, b"12345"])
async def test_an_actor_that_answers_no_bytes_or_too_many_is_a_defect_and_logged(answer: object) -> None:
    vmh, services = await started(max_body=4)
    services.handlers["ra", "heard"] = lambda sender, topic, body: answer
    await invoke(vmh, "subscribe", "node", "heard", call=RA)
    await refused(Code.INTERNAL, services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))
    assert [logged.level for logged in services.logs] == ["error"]


async def test_an_actor_that_takes_too_long_is_a_deadline() -> None:
    vmh, services = await started(answer_seconds=0.01)
    services.handlers["ra", "heard"] = lambda sender, topic, body: asyncio.Future()
    await invoke(vmh, "subscribe", "node", "heard", call=RA)
    await refused(Code.DEADLINE, services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))
    assert vmh.usage()["answering"] == 0


async def test_requests_of_other_enclaves_are_bounded() -> None:
    vmh, services = await started(answers=1)
    gate: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    services.handlers["ra", "heard"] = lambda sender, topic, body: gate
    await invoke(vmh, "subscribe", "node", "heard", call=RA)
    first = asyncio.create_task(services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))
    await asyncio.sleep(0)
    await refused(Code.EXHAUSTED, services.parent.send(Channel.PEERS, "answer", "e2", "ra", "node", b""))
    gate.set_result(b"done")
    assert await first == b"done"


@pytest.mark.parametrize(
    ("sender", "topic", "body"),
    [("e9", "t", b""), ("e1", "t", b""), ("", "t", b""), ("e2", "bad topic", b""), ("e2", "t", b"12345")],
)
async def test_what_no_peer_could_have_sent_is_refused_and_counted(sender: str, topic: str, body: bytes) -> None:
    vmh, services = await started(max_body=4)
    await invoke(vmh, "subscribe", "t", "heard", call=RA)
    for operation in ("deliver", "answer"):
        await refused(Code.INVALID, services.parent.send(Channel.PEERS, operation, sender, "ra", topic, body))
    assert services.tells == []
    assert vmh.usage()["refused"] == 2


async def test_a_subscription_ends_by_unsubscribing_with_the_replica_and_with_the_actor() -> None:
    vmh, services = await started()

    async def heard(end: Callable[[], Awaitable[Any]]) -> bool:
        services.tells.clear()
        await invoke(vmh, "subscribe", "t", "heard", call=RA)
        await end()
        await services.parent.send(Channel.PEERS, "deliver", "e2", "ra", "t", b"")
        return bool(services.tells)

    assert not await heard(lambda: invoke(vmh, "unsubscribe", "t", call=RA))
    assert not await heard(lambda: vmh.replica_gone("ra", 0))
    assert not await heard(lambda: vmh.forget("ra"))
    assert await heard(lambda: vmh.replica_gone("ra", 1))
    assert not await invoke(vmh, "unsubscribe", "other", call=RA)


async def test_bad_subscriptions_are_refused() -> None:
    vmh, _ = await started(subscriptions=1)
    await refused(Code.INVALID, invoke(vmh, "subscribe", "bad topic", "heard", call=RA))
    await refused(Code.INVALID, invoke(vmh, "subscribe", "t", "__init__", call=RA))
    await invoke(vmh, "subscribe", "t", "heard", call=RA)
    await refused(Code.EXHAUSTED, invoke(vmh, "subscribe", "u", "heard", call=RA))


async def test_http_is_unavailable_until_there_is_a_facade() -> None:
    _, services = await started()
    await refused(Code.UNAVAILABLE, services.parent.send(Channel.FACADE, "request", "GET", "/", {}, b""))


@pytest.mark.parametrize("config", [{"max_body": 1 << 20}, {"requests": 0}, {"answer_seconds": 0}, {"peers": []}])
async def test_a_bad_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Vmh, InMemoryServices("vmh"), config)
