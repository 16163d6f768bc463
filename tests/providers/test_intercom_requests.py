"""Requests to replicas, the provider's part: bounds, outcomes, whose name they go under. The rights are the host's.

Rule: docs/architecture.md, "Rights"; tests/runtime/test_requests.py has the host's part.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.base import Answer, Call
from tea.providers.intercom import Intercom, Outcome
from tea.providers.intercom.requests import CHECKED, MAX_ANSWERS, outcomes
from tea.providers.testing import InMemoryServices, invoke, start_provider

DESK = Call(caller="desk", chain=("clerk", "parent"))


async def started(**config: object) -> tuple[Intercom, InMemoryServices]:
    services = InMemoryServices("intercom")
    services.handlers["worker", "status"] = lambda *args: {"busy": list(args)}
    return await start_provider(Intercom, services, config), services


async def refused(code: Code, provider: Intercom, *args: Any, call: Call = DESK, **kwargs: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(provider, *args, call=call, **kwargs)
    assert caught.value.code is code
    return caught.value


async def test_a_request_goes_under_the_name_and_chain_of_who_asks() -> None:
    intercom, services = await started()
    assert await invoke(intercom, "request", "worker", "status", [1, "two"], call=DESK) == {"busy": [1, "two"]}
    [asked] = services.asked
    assert (asked.caller, asked.chain, asked.actor, asked.operation) == (
        "desk", ("clerk", "parent"), "worker", "status",
    )  # fmt: skip


async def test_a_request_to_all_has_one_outcome_a_replica_in_their_order() -> None:
    intercom, services = await started()
    services.replicas["worker"] = 3
    turns = iter([41, CallError(Code.EXHAUSTED, "no more"), None])

    def status() -> object:
        turn = next(turns)
        if isinstance(turn, CallError):
            raise turn
        return turn

    services.handlers["worker", "status"] = status
    answers = await invoke(intercom, "request_all", "worker", "status", call=DESK)
    assert [(one.replica, one.error, one.sentence) for one in answers] == [
        (0, None, None), (1, "EXHAUSTED", "no more"), (2, None, None),
    ]  # fmt: skip
    assert msgspec.msgpack.decode(bytes(answers[0].value)) == 41


async def test_what_the_operation_refuses_is_the_answer_to_a_request() -> None:
    intercom, services = await started()

    def status() -> object:
        raise CallError(Code.CONFLICT, "not now", since="noon")

    services.handlers["worker", "status"] = status
    error = await refused(Code.CONFLICT, intercom, "request", "worker", "status")
    assert (error.sentence, error.details) == ("not now", {"since": "noon"})


@pytest.mark.parametrize("timeout", [0.0, -1.0, 121.0, float("nan"), float("inf")])
async def test_a_timeout_out_of_bounds_is_invalid(timeout: float) -> None:
    intercom, _ = await started()
    await refused(Code.INVALID, intercom, "request", "worker", "status", timeout=timeout)
    await refused(Code.INVALID, intercom, "request_all", "worker", "status", timeout=timeout)


async def test_a_bad_operation_is_invalid() -> None:
    intercom, services = await started()
    await refused(Code.INVALID, intercom, "request", "worker", "_hidden")
    assert services.asked == []


async def test_a_request_waits_no_longer_than_the_call_for_which_it_is_made() -> None:
    intercom, services = await started()
    await invoke(intercom, "request", "worker", "status", timeout=5.0, call=Call(caller="desk", deadline=0.25))
    await invoke(intercom, "request", "worker", "status", timeout=5.0, call=Call(caller="desk", deadline=60.0))
    assert [asked.timeout for asked in services.asked] == [0.25, 5.0]


async def test_each_actor_has_a_bound_of_requests_that_wait() -> None:
    intercom, services = await started(requests=2)
    answered = asyncio.Event()
    services.handlers["worker", "wait"] = lambda: answered.wait()
    waiting = [asyncio.ensure_future(invoke(intercom, "request", "worker", "wait", call=DESK)) for _ in range(2)]
    while len(services.asked) < 2:
        await asyncio.sleep(0)
    assert intercom.usage()["requests_waiting"] == 2
    await refused(Code.EXHAUSTED, intercom, "request_all", "worker", "status")
    await invoke(intercom, "request", "worker", "status", call=Call(caller="another"))
    answered.set()
    await asyncio.gather(*waiting)
    await invoke(intercom, "request", "worker", "status", call=DESK)
    usage = intercom.usage()
    assert (usage["requests"], usage["requests_waiting"]) == (4, 0)


async def test_a_request_that_is_given_up_leaves_room() -> None:
    intercom, services = await started(requests=1)
    services.handlers["worker", "wait"] = lambda: asyncio.Event().wait()
    waiting = asyncio.ensure_future(invoke(intercom, "request", "worker", "wait", call=DESK))
    while not services.asked:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await invoke(intercom, "request", "worker", "status", call=DESK)


@pytest.mark.parametrize("bytes_of_it", [b"", b"\xc1", b"\x93\x01", b"\x01\x02", b"\x81\x80\x01", b"\x91" * 5000])
def test_an_answer_that_is_no_single_value_is_an_error_and_harms_no_neighbour(bytes_of_it: bytes) -> None:
    answers = [Answer(0, b"\x07"), Answer(1, bytes_of_it), Answer(2, b"\x08")]
    encoded = msgspec.msgpack.decode(msgspec.msgpack.encode(outcomes(answers)))
    assert [one["value"] for one in encoded] == [7, None, 8]
    assert [one["error"] for one in encoded] == [None, "INTERNAL", None]


def test_answers_that_do_not_fit_one_reply_are_refused() -> None:
    half = msgspec.msgpack.encode(b"x" * (MAX_ANSWERS // 2))
    with pytest.raises(CallError) as caught:
        outcomes([Answer(0, half), Answer(1, half)])
    assert caught.value.code is Code.EXHAUSTED
    assert len(outcomes([Answer(0, half), Answer(1, CallError(Code.DEADLINE, "late"))])) == 2


def test_an_outcome_of_none_is_no_error() -> None:
    assert outcomes([Answer(5, b"\xc0")]) == [Outcome(5, msgspec.Raw(b"\xc0"))]


LISTS = b"\xdd\x00\x00\x40\x00" + b"\x90" * 0x4000
"""16,384 empty lists: 16 KiB, and two dozen times that as Python's objects."""


class Recording(InMemoryServices):
    """Keeps what goes to the callee, byte by byte, and decodes none of it."""

    def __init__(self) -> None:
        super().__init__("intercom")
        self.bodies: list[bytes] = []

    async def request_actor(self, call: Call, actor: str, operation: str, body: bytes, **_: Any) -> list[Answer]:
        self.bodies.append(body)
        return [Answer(0, b"\xc0")]


@pytest.mark.parametrize("name", ["request", "request_all"])
@pytest.mark.parametrize(
    "arguments",
    [b"\x91\xcd\x00\x01", b"\xdc\x00\x01\xa1\xff", b"\x91\x81\x80\x01", b"\x91" + LISTS, b"\x90"],
    ids=["a long one", "no text", "a map as a key", "many lists", "none"],
)
async def test_arguments_of_another_actor_pass_as_they_came(name: str, arguments: bytes) -> None:
    services = Recording()
    intercom = await start_provider(Intercom, services, {})
    operation = Intercom.operations()[name]
    target, asked, given, *_ = operation.decode_arguments(b"\x93\xa6worker\xa6status" + arguments)
    assert type(given) is msgspec.Raw
    await getattr(intercom, name)(DESK, target, asked, given)
    assert services.bodies == [arguments]


@pytest.mark.parametrize("given", [b"", b"\xc0"])
async def test_a_request_without_arguments_has_none(given: bytes) -> None:
    services = Recording()
    intercom = await start_provider(Intercom, services, {})
    operation = Intercom.operations()["request"]
    body = bytes((0x92 + bool(given),)) + b"\xa6worker\xa6status" + given
    await intercom.request(DESK, *operation.decode_arguments(body))
    assert services.bodies == [b"\x90"]


@pytest.mark.parametrize("given", [1, "text", {"by": "name"}, b"bytes", 1.5, True])
async def test_arguments_that_are_no_list_are_refused(given: object) -> None:
    intercom, services = await started()
    error = await refused(Code.INVALID, intercom, "request", "worker", "status", given)
    assert "a list, by place" in error.sentence
    assert services.asked == []
    assert intercom.usage()["requests_waiting"] == 0


@pytest.mark.parametrize(
    "given", [b"\x92\x01", b"\x91\xc1", b"\x91" * 5000 + b"\x01", b"\x90\x90", b"\xdd\xff\xff\xff\xff"]
)
def test_arguments_that_are_no_single_value_are_refused(given: bytes) -> None:
    with pytest.raises(CallError) as caught:
        Intercom.operations()["request_all"].decode_arguments(b"\x93\xa6worker\xa6status" + given)
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("bytes_of_it", [b"\xc1", b"\x93\x01", b"\x01\x02", b"\x91" * 5000])
def test_beside_a_large_answer_what_is_no_value_still_harms_no_neighbour(bytes_of_it: bytes) -> None:
    large = msgspec.msgpack.encode(b"x" * CHECKED)
    answers = outcomes([Answer(0, large), Answer(1, bytes_of_it), Answer(2, b"\x08")])
    assert [one["value"] for one in msgspec.msgpack.decode(msgspec.msgpack.encode(answers))] == [
        b"x" * CHECKED,
        None,
        8,
    ]
    assert [one.error for one in answers] == [None, "INTERNAL", None]


def test_large_answers_are_passed_over_and_not_built() -> None:
    """Only who builds a text finds out that it is none: here nobody does."""
    no_text = b"\xdb" + (CHECKED + 1).to_bytes(4, "big") + b"\xff" * (CHECKED + 1)
    assert outcomes([Answer(0, no_text)])[0].error is None
    assert outcomes([Answer(0, b"\xa1\xff")])[0].error == "INTERNAL"
