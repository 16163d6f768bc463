"""Back-pressure between real workers: windows are kept by waiting, and a full mailbox keeps its callers in lines.

Rule: docs/architecture.md, "Back-pressure".
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

Enclave = Any

WORK = """
import time
from tea.sdk import Actor, operation

class Work(Actor):
    def on_start(self) -> None:
        self.seen: list[object] = []

    @operation
    def hold(self, seconds: float) -> str:
        time.sleep(seconds)
        return "held"

    @operation
    def note(self, what: object) -> object:
        self.seen.append([self.caller, what])
        return what

    @operation
    def size(self, data: bytes) -> int:
        return len(data)

    @operation
    def noted(self) -> list[object]:
        return self.seen
"""
CALLER = """
from tea.sdk import Actor, CallError, operation

class Caller(Actor):
    @operation
    def burst(self, count: int) -> list[object]:
        pending = [self.work.later.note(number) for number in range(count)]
        return [one.result() for one in pending]

    @operation
    def large(self, count: int, size: int) -> list[int]:
        pending = [self.work.later.size(bytes(size)) for _ in range(count)]
        return [one.result() for one in pending]

    @operation
    def tell(self, count: int) -> None:
        for number in range(count):
            self.work.tell.note(number)

    @operation
    def one(self, what: object, seconds: float = 30.0) -> str:
        try:
            return str(self.work.with_timeout(seconds).note(what))
        except CallError as error:
            return f"{error.code.name}: {error.sentence}"
"""
ASKS = {"work": ("note", "size")}
LINKS = """
  - {from: parent, to: first, operations: [burst, large, one, tell]}
  - {from: parent, to: second, operations: [burst, large, one, tell]}
  - {from: parent, to: work, operations: [hold, note, noted]}
  - {from: first, to: work, operations: [note, size]}
  - {from: second, to: work, operations: [note, size]}
"""
SMALL = ", limits: {in_flight: 8, mailbox: 8}"


async def push(enclave: Enclave, work: str, *, revision: int = 1, source: str = WORK) -> None:
    enclave.bundle("work", source, "Work")
    if revision == 1:
        for name in ("first", "second"):
            enclave.bundle(
                name, CALLER.replace("class Caller", f"class {name.title()}"), name.title(), capabilities=ASKS
            )
    actors = {"work": work, "first": SMALL, "second": SMALL}
    await enclave.push(enclave.manifest(revision=revision, links=LINKS, actors=actors))


def figures(enclave: Enclave) -> Any:
    return enclave.host.router.figures_of("work")


def status(enclave: Enclave, name: str) -> Any:
    return next(one for one in enclave.host.status().actors if one.name == name)


def in_hand(enclave: Enclave) -> int:
    return sum(len(port.delivered) for port in enclave.host.router.groups["work"].ports)


def assert_nothing_left(enclave: Enclave) -> None:
    now = enclave.host.status()
    assert (now.in_flight, now.parked) == (0, 0)
    assert now.calls == now.replies + now.errors


async def hold(enclave: Enclave, until: Any, seconds: float = 0.6) -> asyncio.Task[Any]:
    """Keep the callee busy, so that what comes now waits."""
    task: asyncio.Task[Any] = asyncio.ensure_future(enclave.call("work", "hold", seconds=seconds))
    await until(lambda: in_hand(enclave) == 1)
    return task


async def test_a_worker_keeps_within_its_window_by_waiting(enclave: Enclave) -> None:
    await push(enclave, ", limits: {mailbox: 2}")
    assert await enclave.call("first", "burst", count=200) == list(range(200))
    assert figures(enclave).waited > 0
    assert status(enclave, "first").refused == {}
    assert_nothing_left(enclave)


async def test_large_arguments_take_more_of_a_window_and_are_never_refused(enclave: Enclave) -> None:
    await push(enclave, ", limits: {mailbox: 1}")
    size = 1_000_000
    assert await enclave.call("first", "large", count=12, size=size) == [size] * 12
    assert status(enclave, "first").refused == {}
    assert_nothing_left(enclave)


async def test_messages_wait_for_credit_and_none_is_lost(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 3}")
    held = await hold(enclave, until)
    await enclave.call("first", "tell", count=300)
    await held
    await until(lambda: in_hand(enclave) == 0)
    noted = await enclave.call("work", "noted")
    assert noted == [["first", number] for number in range(300)]
    assert enclave.host.status().dead_letters == 0


async def test_callers_of_a_full_mailbox_are_served_in_turn(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 2}")
    held = await hold(enclave, until)
    flood = asyncio.ensure_future(enclave.call("first", "burst", count=8))
    await until(lambda: figures(enclave).parked == 7)
    other = asyncio.ensure_future(enclave.call("second", "one", what="me"))
    await until(lambda: figures(enclave).parked == 8)
    parent = asyncio.ensure_future(enclave.call("work", "note", what="outside"))
    await until(lambda: figures(enclave).parked == 9)
    assert await other == "me"
    assert await parent == "outside"
    assert await flood == list(range(8))
    await held
    order = [caller for caller, _ in await enclave.call("work", "noted")]
    assert max(order.index("second"), order.index("parent")) <= 4, "nobody waits behind all of another's"
    assert [what for caller, what in await enclave.call("work", "noted") if caller == "first"] == list(range(8))
    assert_nothing_left(enclave)


async def test_a_call_that_gets_no_place_in_time_was_never_begun(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 1}")
    held = await hold(enclave, until)
    answer = await enclave.call("first", "one", what="late", seconds=0.05)
    assert answer.startswith("DEADLINE: there was no place in the mailbox of work")
    await held
    assert await enclave.call("work", "noted") == []
    assert_nothing_left(enclave)


async def test_what_waits_for_an_actor_that_ends_is_unavailable_once(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 1}, restart: {backoff_ms: 10}")
    held = await hold(enclave, until, 30.0)
    waiting = asyncio.ensure_future(enclave.call("first", "one", what="x"))
    await until(lambda: figures(enclave).parked == 1)
    os.kill(enclave.host.supervisors["work"].pids[0], signal.SIGKILL)
    assert (await waiting).startswith("UNAVAILABLE")
    with pytest.raises(CallError) as ended:
        await held
    assert ended.value.code is Code.UNAVAILABLE
    assert_nothing_left(enclave)


async def test_what_waits_goes_to_the_replica_that_comes_free(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", replicas: 2, limits: {mailbox: 1}")
    long, short = (asyncio.ensure_future(enclave.call("work", "hold", seconds=seconds)) for seconds in (30.0, 0.4))
    await until(lambda: in_hand(enclave) == 2)
    waiting = asyncio.ensure_future(enclave.call("first", "one", what="x"))
    await until(lambda: figures(enclave).parked == 1)
    assert await waiting == "x"
    assert await short == "held"
    assert not long.done()
    for pid in enclave.host.supervisors["work"].pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(CallError):
        await long


async def test_what_waits_goes_to_the_next_revision(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 1}")
    held = await hold(enclave, until, 1.5)
    waiting = asyncio.ensure_future(enclave.call("first", "burst", count=5))
    await until(lambda: figures(enclave).parked == 5)
    await push(enclave, ", limits: {mailbox: 2}", revision=2, source=WORK + "# new\n")
    assert await waiting == list(range(5))
    assert not held.done(), "the old replica still has its call in hand"
    assert len(await enclave.call("work", "noted")) == 5
    assert await held == "held"
    await enclave.host.drained()
    assert_nothing_left(enclave)


async def test_the_parents_calls_wait_in_a_bounded_line(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 2}")
    held = await hold(enclave, until)
    results = await asyncio.gather(
        *(enclave.call("work", "note", what=number) for number in range(8)), return_exceptions=True
    )
    assert await held == "held"
    refused = [one for one in results if isinstance(one, CallError)]
    assert len(refused) == 5, "one in the mailbox, two in the line"
    assert {one.code for one in refused} == {Code.EXHAUSTED}
    assert_nothing_left(enclave)


async def test_actors_that_call_each_other_in_a_circle_end_by_their_deadlines(enclave: Enclave) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        source = f"""
from tea.sdk import Actor, CallError, operation

class {name.title()}(Actor):
    @operation
    def go(self) -> str:
        pending = [self.{other}.with_timeout(0.5).later.go() for _ in range(2)]
        for one in pending:
            try:
                one.result()
            except CallError:
                pass
        return "ended"
"""
        enclave.bundle(name, source, name.title(), capabilities={other: ("go",)})
    links = """
  - {from: parent, to: left, operations: [go]}
  - {from: left, to: right, operations: [go]}
  - {from: right, to: left, operations: [go]}
"""
    fields = ", replicas: 2, limits: {mailbox: 1, in_flight: 2}"
    await enclave.push(enclave.manifest(links=links, actors={"left": fields, "right": fields}))
    results = await asyncio.gather(
        *(enclave.host.router.call("parent", "left", "go", b"\x90", timeout=3.0) for _ in range(4)),
        return_exceptions=True,
    )
    assert all(isinstance(one, bytes | CallError) for one in results)
    assert_nothing_left(enclave)
