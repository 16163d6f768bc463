"""The conformance suite of endpoints: what they promise on every transport and every event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.protocol.limits import Limits
from tea.protocol.operations import operation
from tea.protocol.transport import Address, Endpoint, Server, Settings, connect, listen

DESK = 7
Defects = list[tuple[str, BaseException]]


class Desk:
    """What either end serves."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.running = 0
        self.most = 0
        self.go_on = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    @operation
    async def add(self, left: int, right: int = 1) -> int:
        return left + right

    @operation
    def plain(self, text: str) -> str:
        return text.upper()

    @operation
    async def digest(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    @operation
    async def zeros(self, size: int) -> bytes:
        return bytes(size)

    @operation
    async def note(self, text: str) -> None:
        self.noted.append(text)

    @operation
    async def refuse(self, reason: str) -> None:
        raise CallError(Code.CONFLICT, reason, place="desk", tries=3)

    @operation
    async def refuse_badly(self, size: int) -> None:
        raise CallError(Code.CONFLICT, "no", blob="x" * size if size else object())  # type: ignore[arg-type]

    @operation
    async def fail(self) -> None:
        raise ValueError("the password is hunter2")

    @operation
    async def time_out_inside(self) -> None:
        raise TimeoutError

    @operation
    async def wrong_result(self) -> int:
        return object()  # type: ignore[return-value]

    @operation
    async def await_something_cancelled(self) -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    @operation
    async def cancel_itself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @operation
    async def wait(self, data: bytes = b"") -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.arrived.set()
        try:
            await self.go_on.wait()
            return len(data)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1


class Pair:
    """A dialer (`here`) and a listener (`there`), each with a desk."""

    def __init__(self) -> None:
        self.server: Server
        self.here: Endpoint
        self.there: Endpoint
        self.desk_here = Desk()
        self.desk_there = Desk()
        self.defects: Defects = []

    async def call(self, name: str, *args: object, **kwargs: Any) -> Any:
        """From here to there."""
        return await self.here.call(DESK, Desk, name, *args, **kwargs)


Open = Callable[..., Awaitable[Pair]]


@pytest.fixture
async def open_pair(address: Address) -> AsyncIterator[Open]:
    pairs: list[Pair] = []

    async def make(here: Settings | None = None, there: Settings | None = None, *, reconnect: bool = False) -> Pair:
        pair = Pair()
        met: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()

        def on_endpoint(endpoint: Endpoint) -> None:
            endpoint.serve(DESK, Desk, pair.desk_there)
            met.set_result(endpoint)

        quiet = Settings(on_defect=lambda where, error: pair.defects.append((where, error)))
        pair.server = await listen(address, on_endpoint, settings=there or quiet)
        pair.here = await connect(
            pair.server.address,
            on_endpoint=lambda endpoint: endpoint.serve(DESK, Desk, pair.desk_here),
            settings=here,
            reconnect=reconnect,
        )
        pair.there = await met
        pairs.append(pair)
        return pair

    yield make
    for pair in pairs:
        await pair.here.close()
        await pair.server.close()
        assert not pair.server.endpoints


async def failure(awaitable: Awaitable[object]) -> CallError:
    with pytest.raises(CallError) as caught:
        await awaitable
    return caught.value


async def pending(calls: list[asyncio.Task[Any]]) -> None:
    """Let tasks run up to their first wait."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


# -- calls and tells ---------------------------------------------------------------------------------------------------


async def test_a_call_is_answered_with_a_typed_result(open_pair: Open) -> None:
    pair = await open_pair()
    assert await pair.call("add", 2, 3) == 5
    assert await pair.call("add", 2) == 3
    assert await pair.call("add", left=1, right=9) == 10
    assert await pair.call("plain", "abc") == "ABC"
    assert await pair.call("zeros", 10, timeout=None) == bytes(10)


async def test_both_ends_call_each_other(open_pair: Open) -> None:
    pair = await open_pair()
    answers = await asyncio.gather(
        *(pair.call("add", n) for n in range(200)), *(pair.there.call(DESK, Desk, "add", n) for n in range(200))
    )
    assert answers == [n + 1 for n in range(200)] * 2
    assert pair.here.figures.calls == pair.here.figures.requests == 200


async def test_tells_arrive_in_order_before_a_later_call(open_pair: Open) -> None:
    pair = await open_pair()
    assert all(pair.here.tell(DESK, Desk, "note", str(n)) for n in range(100))
    await pair.call("add", 1)
    assert pair.desk_there.noted == [str(n) for n in range(100)]
    assert pair.here.figures.tells == 100


async def test_large_arguments_and_results_pass_in_a_pipeline(open_pair: Open) -> None:
    pair = await open_pair()
    chunks = [bytes([n]) * (MAX_BODY - 16) for n in range(30)]
    digests = await asyncio.gather(*(pair.call("digest", chunk) for chunk in chunks))
    assert digests == [hashlib.sha256(chunk).digest() for chunk in chunks]
    results = await asyncio.gather(*(pair.call("zeros", MAX_BODY - 16) for _ in range(30)))
    assert all(len(result) == MAX_BODY - 16 for result in results)


async def test_calling_what_the_interface_does_not_have_is_a_mistake_of_the_caller(open_pair: Open) -> None:
    pair = await open_pair()
    with pytest.raises(LookupError):
        await pair.call("subtract", 1)
    with pytest.raises(TypeError):
        await pair.call("add", 1, 2, 3)
    with pytest.raises(LookupError):
        pair.here.tell(DESK, Desk, "subtract")
    assert pair.here.figures.calls == 0


# -- errors ------------------------------------------------------------------------------------------------------------


async def test_a_refusal_crosses_with_its_code_sentence_and_details(open_pair: Open) -> None:
    pair = await open_pair()
    error = await failure(pair.call("refuse", "already there"))
    assert (error.code, error.sentence, error.details) == (
        Code.CONFLICT,
        "already there",
        {"place": "desk", "tries": 3},
    )
    assert pair.there.figures.refused == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fail", ValueError),
        ("time_out_inside", TimeoutError),
        ("wrong_result", TypeError),
        ("await_something_cancelled", asyncio.CancelledError),
    ],
)
async def test_any_other_exception_is_internal_without_detail_and_reported(
    open_pair: Open, name: str, kind: type[BaseException]
) -> None:
    pair = await open_pair()
    error = await failure(pair.call(name))
    assert (error.code, error.details) == (Code.INTERNAL, {})
    assert error.sentence == f"{name} failed; the callee's log has the cause"
    ((where, defect),) = pair.defects
    assert where == f"Desk.{name}"
    assert isinstance(defect, kind)


async def test_without_a_hook_defects_go_to_the_loops_exception_handler(open_pair: Open) -> None:
    pair = await open_pair(there=Settings())
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    await failure(pair.call("fail"))
    assert isinstance(seen[0]["exception"], ValueError)
    assert "hunter2" not in seen[0]["message"]


async def test_a_service_that_cancels_itself_still_answers(open_pair: Open) -> None:
    pair = await open_pair()
    assert (await failure(pair.call("cancel_itself"))).code is Code.UNAVAILABLE
    assert pair.here.tell(DESK, Desk, "cancel_itself")
    assert await pair.call("add", 1) == 2


@pytest.mark.parametrize("size", [0, MAX_BODY])
async def test_a_refusal_whose_details_cannot_cross_crosses_without_them(open_pair: Open, size: int) -> None:
    pair = await open_pair()
    error = await failure(pair.call("refuse_badly", size))
    assert (error.code, error.sentence, error.details) == (Code.CONFLICT, "no", {})


async def test_a_tell_that_fails_disturbs_nobody(open_pair: Open) -> None:
    pair = await open_pair()
    for name, *args in (("fail",), ("refuse", "x"), ("wrong_result",)):
        assert pair.here.tell(DESK, Desk, name, *args)
    assert await pair.call("add", 1) == 2
    assert pair.there.figures.defects == 2


async def test_an_unknown_channel_or_operation_is_not_found(open_pair: Open) -> None:
    pair = await open_pair()
    error = await failure(pair.here.call(DESK + 1, Desk, "add", 1))
    assert (error.code, error.sentence) == (Code.NOT_FOUND, "nothing is served on channel 8")
    error = await failure(pair.here.call_raw(DESK, 99, b""))
    assert error.code is Code.NOT_FOUND
    assert "none has number 99" in error.sentence
    assert await pair.call("add", 1) == 2


async def test_arguments_of_the_wrong_type_are_invalid(open_pair: Open) -> None:
    pair = await open_pair()
    error = await failure(pair.call("add", "two"))
    assert error.code is Code.INVALID
    assert "add(left: int, right: int = ...) -> int" in error.sentence


async def test_what_does_not_fit_a_frame_is_exhausted_at_the_end_that_made_it(open_pair: Open) -> None:
    pair = await open_pair()
    error = await failure(pair.call("digest", bytes(MAX_BODY)))
    assert (error.code, pair.here.figures.calls) == (Code.EXHAUSTED, 0)
    error = await failure(pair.call("zeros", MAX_BODY))
    assert error.code is Code.EXHAUSTED
    assert not pair.here.tell(DESK, Desk, "digest", bytes(MAX_BODY))
    assert await pair.call("add", 1) == 2


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_the_call_at_both_ends(open_pair: Open) -> None:
    pair = await open_pair()
    error = await failure(pair.call("wait", timeout=0.05))
    assert error.code is Code.DEADLINE
    await pair.desk_there.cancelled.wait()
    assert await pair.call("add", 1) == 2
    assert pair.here.figures.overdue + pair.here.figures.late >= 1


async def test_the_callee_says_deadline_when_the_caller_still_waits(open_pair: Open) -> None:
    pair = await open_pair()
    # As the frame's deadline counts whole milliseconds, the callee's ends before the caller's here.
    error = await failure(pair.call("wait", timeout=0.0019))
    assert error.code is Code.DEADLINE


async def test_an_answer_that_comes_too_late_is_counted_and_forgotten(open_pair: Open) -> None:
    pair = await open_pair()
    call = asyncio.ensure_future(pair.call("wait", timeout=None))
    await pair.desk_there.arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    pair.desk_there.go_on.set()
    await pair.call("add", 1)
    await pair.call("add", 1)
    assert pair.here.figures.late == 1


async def test_a_call_that_waits_for_room_keeps_its_deadline(open_pair: Open) -> None:
    pair = await open_pair(there=Settings(limits=Limits(window_frames=1)))
    first = asyncio.ensure_future(pair.call("wait"))
    await pair.desk_there.arrived.wait()
    assert (await failure(pair.call("add", 1, timeout=0.02))).code is Code.DEADLINE
    pair.desk_there.go_on.set()
    await first
    assert await pair.call("add", 1) == 2
    assert pair.there.figures.requests == 2  # the one that was overdue was never sent


# -- back-pressure -----------------------------------------------------------------------------------------------------


async def test_a_slow_callee_slows_its_callers_and_memory_stays_bounded(open_pair: Open) -> None:
    pair = await open_pair(there=Settings(limits=Limits(window_frames=8), handlers=3))
    calls = [asyncio.ensure_future(pair.call("wait", b"x" * n, timeout=None)) for n in range(100)]
    await pair.desk_there.arrived.wait()
    await pending(calls)
    assert pair.there.figures.requests <= 8
    pair.desk_there.go_on.set()
    assert await asyncio.gather(*calls) == list(range(100))
    assert pair.desk_there.most == 3


async def test_a_tell_without_room_is_dropped_and_counted(open_pair: Open) -> None:
    pair = await open_pair(there=Settings(limits=Limits(window_frames=2)))
    call = asyncio.ensure_future(pair.call("wait", timeout=None))
    await pair.desk_there.arrived.wait()
    told = [pair.here.tell(DESK, Desk, "wait") for _ in range(5)]
    assert told == [True, False, False, False, False]
    assert pair.here.figures.tells_dropped == 4
    pair.desk_there.go_on.set()
    await call
    assert await pair.call("add", 1) == 2


async def test_calls_that_wait_are_bounded_in_number_and_in_bytes(open_pair: Open) -> None:
    pair = await open_pair(here=Settings(waiting=3, waiting_bytes=1000), there=Settings(limits=Limits(window_frames=1)))
    calls = [asyncio.ensure_future(pair.call("wait", timeout=None)) for _ in range(4)]
    await pair.desk_there.arrived.wait()
    await pending(calls)
    error = await failure(pair.call("wait"))
    assert error.code is Code.EXHAUSTED
    calls.pop().cancel()
    await asyncio.sleep(0)
    assert (await failure(pair.call("wait", bytes(1001)))).code is Code.EXHAUSTED
    calls.append(asyncio.ensure_future(pair.call("wait", bytes(900), timeout=None)))
    await pending(calls)
    pair.desk_there.go_on.set()
    assert await asyncio.gather(*calls) == [0, 0, 0, 900]


async def test_a_flooded_direction_does_not_block_the_other(open_pair: Open) -> None:
    pair = await open_pair(there=Settings(limits=Limits(window_frames=4), handlers=2))
    flood = [asyncio.ensure_future(pair.call("wait", bytes(900_000), timeout=None)) for _ in range(20)]
    await pair.desk_there.arrived.wait()
    for n in range(50):
        assert await pair.there.call(DESK, Desk, "add", n) == n + 1
    await pending(flood)
    pair.desk_there.go_on.set()
    assert await asyncio.gather(*flood) == [900_000] * 20


async def test_two_ends_that_flood_each_other_both_get_through(open_pair: Open) -> None:
    small = Settings(limits=Limits(retained_frames=4, retained_bytes=2 << 20, window_frames=4), handlers=2)
    pair = await open_pair(here=small, there=small)
    calls = [
        end.call(DESK, Desk, "zeros", 500_000 + n, timeout=None) for n in range(40) for end in (pair.here, pair.there)
    ]
    results = await asyncio.gather(*calls)
    assert [len(result) for result in results] == [500_000 + n // 2 for n in range(80)]


async def test_what_is_kept_for_a_resume_stays_within_its_bounds(open_pair: Open) -> None:
    pair = await open_pair(here=Settings(limits=Limits(retained_frames=2, retained_bytes=100)))
    for n in range(300):
        assert await pair.call("add", n) == n + 1
    assert await asyncio.gather(*(pair.call("add", n) for n in range(300))) == [n + 1 for n in range(300)]


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_closing_one_end_fails_the_calls_of_both_and_says_why(open_pair: Open) -> None:
    pair = await open_pair()
    mine = asyncio.ensure_future(pair.call("wait", timeout=None))
    theirs = asyncio.ensure_future(pair.there.call(DESK, Desk, "wait", timeout=None))
    await pair.desk_there.arrived.wait()
    await pair.desk_here.arrived.wait()
    await pair.here.close(CallError(Code.UNAVAILABLE, "shutting down"))
    assert (await failure(mine)).code is Code.UNAVAILABLE
    error = await failure(theirs)
    assert error.code is Code.UNAVAILABLE
    assert "shutting down" in error.sentence
    await pair.there.closed.wait()
    assert pair.there.reason is not None
    assert not pair.there.opened.is_set()
    await pair.desk_here.cancelled.wait()
    await pair.desk_there.cancelled.wait()


async def test_an_end_that_is_closed_answers_unavailable_and_drops_tells(open_pair: Open) -> None:
    pair = await open_pair()
    await pair.here.close()
    await pair.here.close()
    error = await failure(pair.call("add", 1))
    assert error.code is Code.UNAVAILABLE
    assert "closed at this end" in error.sentence
    assert not pair.here.tell(DESK, Desk, "note", "x")
    assert pair.here.figures.tells_dropped == 1


async def test_what_was_told_before_closing_arrives(open_pair: Open) -> None:
    pair = await open_pair()
    for n in range(20):
        assert pair.here.tell(DESK, Desk, "note", str(n))
    await pair.here.close()
    await pair.there.closed.wait()
    assert pair.there.figures.requests == 20


async def test_an_answer_is_not_waited_for_when_its_caller_is_gone(open_pair: Open) -> None:
    # The dialer's end keeps one frame only: its second answer waits for room when the peer goes.
    pair = await open_pair(here=Settings(limits=Limits(retained_frames=1)))
    calls = [asyncio.ensure_future(pair.there.call(DESK, Desk, "wait", timeout=None)) for _ in range(10)]
    await pair.desk_here.arrived.wait()
    pair.desk_here.go_on.set()
    await pair.there.close()
    await pair.here.closed.wait()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, CallError | int) for result in results)


async def test_an_endpoint_says_what_it_is_without_its_secret(open_pair: Open) -> None:
    pair = await open_pair()
    assert repr(pair.here).startswith("Endpoint(Session(dialer, open")
    assert repr(pair.there).startswith("Endpoint(Session(listener, open")
