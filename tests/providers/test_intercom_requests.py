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
from tea.providers.intercom.requests import MAX_ANSWERS, outcomes
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
