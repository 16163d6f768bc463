"""Calls that nobody waits for any more: skipped where they were not begun, and nobody is called for them.

Rule: docs/architecture.md, "Cancellation".
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, FrameDecoder, Kind
from tea.protocol.operations import OperationDescription, operation
from tea.providers.base import Call, Config, Provider
from tea.runtime.in_flight import HostOrigin
from tea.runtime.links import Grant
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router
from tea.runtime.worker.wire import Ready
from tea.runtime.worker_port import WorkerPort

Enclave = Any

LAST = """
import time
from tea.sdk import Actor, operation

class Last(Actor):
    def on_start(self) -> None:
        self.begun: list[str] = []

    @operation
    def hold(self, seconds: float) -> str:
        time.sleep(seconds)
        return "held"

    @operation
    def work(self, what: str) -> str:
        self.begun.append(what)
        return what

    @operation
    def list(self) -> list[str]:
        return self.begun
"""
MIDDLE = """
from tea.sdk import Actor, CallError, operation

class Middle(Actor):
    def on_start(self) -> None:
        self.said: list[str] = []

    @operation
    def work(self, what: str) -> str:
        for number in range(2):
            try:
                self.last.work(f"{what} {number}")
            except CallError as error:
                self.said.append(f"{error.code.name}: {error.sentence}")
        return "done"

    @operation
    def list(self) -> list[str]:
        return self.said
"""
FIRST = """
import os
from tea.sdk import Actor, operation

class First(Actor):
    @operation
    def through(self, what: str) -> str:
        return self.middle.work(what)

    @operation
    def several(self, count: int) -> list[str]:
        pending = [self.last.later.work(f"call {number}") for number in range(count)]
        return [one.result() for one in pending]
"""
LINKS = """
  - {from: parent, to: first, operations: [several, through]}
  - {from: parent, to: middle, operations: [list, work]}
  - {from: parent, to: last, operations: [hold, list, work]}
  - {from: first, to: middle, operations: [work]}
  - {from: first, to: last, operations: [work]}
  - {from: middle, to: last, operations: [work]}
"""
QUICK = ", restart: {backoff_ms: 10, backoff_max_ms: 50}"


async def push(enclave: Enclave, last: str = "") -> None:
    enclave.bundle("last", LAST, "Last")
    enclave.bundle("middle", MIDDLE, "Middle", capabilities={"last": ("work",)})
    enclave.bundle("first", FIRST, "First", capabilities={"middle": ("work",), "last": ("work",)})
    await enclave.push(enclave.manifest(links=LINKS, actors={"first": QUICK, "last": last}))


async def hold(enclave: Enclave, until: Any, seconds: float = 0.6) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.ensure_future(enclave.call("last", "hold", seconds=seconds))
    await until(lambda: in_hand(enclave, "last") == 1)
    return task


def in_hand(enclave: Enclave, name: str) -> int:
    return sum(len(port.delivered) for port in enclave.host.router.groups[name].ports)


def assert_answered_once(enclave: Enclave) -> None:
    now = enclave.host.status()
    assert (now.in_flight, now.parked) == (0, 0)
    assert now.calls == now.replies + now.errors
    for name in ("last", "middle"):
        assert enclave.host.supervisors[name].restarts == 0, "none of them broke the protocol"


async def killed(enclave: Enclave, waiting: asyncio.Task[Any]) -> None:
    os.kill(enclave.host.supervisors["first"].pids[0], signal.SIGKILL)
    with pytest.raises(CallError) as ended:
        await waiting
    assert ended.value.code is Code.UNAVAILABLE


async def test_what_a_dead_caller_has_in_mailboxes_is_never_begun(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    held = await hold(enclave, until)
    waiting = asyncio.ensure_future(enclave.call("first", "several", count=5))
    await until(lambda: in_hand(enclave, "last") == 6)
    await killed(enclave, waiting)
    status = enclave.host.status()
    assert (status.cancelled, next(one.cancelled for one in status.actors if one.name == "last")) == (5, 5)
    assert enclave.host.router.in_flight == 1, "they have ended, though the callee does not know yet"
    assert await held == "held"
    assert await enclave.call("last", "list") == []
    assert_answered_once(enclave)


async def test_what_a_dead_caller_has_waiting_for_a_place_is_taken_back(enclave: Enclave, until: Any) -> None:
    await push(enclave, ", limits: {mailbox: 1}")
    held = await hold(enclave, until)
    waiting = asyncio.ensure_future(enclave.call("first", "several", count=5))
    await until(lambda: enclave.host.router.figures.parked == 5)
    await killed(enclave, waiting)
    assert (enclave.host.router.figures.parked, enclave.host.router.figures.cancelled) == (0, 5)
    assert await held == "held"
    assert await enclave.call("last", "list") == []
    assert_answered_once(enclave)


async def test_what_was_called_for_a_dead_caller_ends_down_the_chain(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    held = await hold(enclave, until)
    waiting = asyncio.ensure_future(enclave.call("first", "through", what="x"))
    await until(lambda: in_hand(enclave, "last") == 2)
    await killed(enclave, waiting)
    # The one in the middle has begun: it hears at once that its call is over, and that it need not call again.
    said = await enclave.call("middle", "list")
    assert not held.done()
    assert len(said) == 2
    assert all(one.startswith("DEADLINE: nobody waits for this any more") for one in said)
    assert await held == "held"
    assert await enclave.call("last", "list") == []
    assert enclave.host.router.figures.cancelled == 2
    assert_answered_once(enclave)


async def test_a_call_whose_deadline_passed_in_the_mailbox_is_never_begun(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    held = await hold(enclave, until)
    with pytest.raises(CallError) as late:
        await enclave.host.router.call("parent", "last", "work", msgspec.msgpack.encode(["x"]), timeout=0.05)
    assert late.value.code is Code.DEADLINE
    assert await held == "held"
    assert await enclave.call("last", "list") == []
    assert enclave.host.router.figures.late_answers == 1
    assert_answered_once(enclave)


async def test_a_caller_in_the_host_that_gives_up_takes_its_call_back(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    held = await hold(enclave, until)
    calling = asyncio.ensure_future(
        enclave.host.router.call("provider:x", "last", "work", msgspec.msgpack.encode(["x"]), timeout=30.0)
    )
    await until(lambda: in_hand(enclave, "last") == 2)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert enclave.host.router.figures.cancelled == 1
    assert await held == "held"
    assert await enclave.call("last", "list") == []
    assert_answered_once(enclave)


async def test_the_callee_of_a_dead_caller_goes_on_with_others(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    held = await hold(enclave, until)
    waiting = asyncio.ensure_future(enclave.call("first", "several", count=5))
    await until(lambda: in_hand(enclave, "last") == 6)
    other = asyncio.ensure_future(enclave.call("last", "work", what="mine"))
    await until(lambda: in_hand(enclave, "last") == 7)
    await killed(enclave, waiting)
    assert await other == "mine"
    assert await held == "held"
    assert await enclave.call("last", "list") == ["mine"]
    assert_answered_once(enclave)


LATER = """
from tea.sdk import Actor, CallError, operation

class Later(Actor):
    said = "nothing"

    @operation
    def go(self) -> None:
        self.send(self.myAddress, "go on")

    def on_message(self, message: str, sender: object) -> None:
        try:
            self.said = str(self.kvp.incr("went on"))
        except CallError as error:
            self.said = error.sentence

    @operation
    def heard(self) -> str:
        return self.said
"""


async def test_what_an_answered_call_leaves_behind_is_the_actors_own_accord(enclave: Enclave) -> None:
    enclave.bundle("later", LATER, "Later", capabilities={"kvp": ("incr",)})
    links = """
  - {from: parent, to: later, operations: [go, heard]}
  - {from: later, to: kvp, operations: [incr]}
"""
    await enclave.push(enclave.manifest(links=links))
    await enclave.call("later", "go")
    assert await enclave.call("later", "heard") == "1"


# -- without a process: what a worker is told, and what providers do ------------------------------------------------


class Endless(Provider[Config]):
    """A provider that answers nobody."""

    name = "endless"

    @operation
    async def wait(self, call: Call) -> None:
        """Waits for ever."""
        await asyncio.Event().wait()


class Sink(asyncio.Transport):
    """The host's end of a socket that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []

    def write(self, data: Any) -> None:
        self.frames.extend(self.decoder.feed(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def test_a_providers_task_ends_with_the_call_that_it_is_for() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    provider = Endless(Config())
    wait = Endless.operations()["wait"]
    grant = Grant(1, "endless", "actor", "endless", ("wait",), provider, (wait,), (provider.wait,))
    port = WorkerPort(
        router,
        ReplicaGroup("actor"),
        0,
        bundle_digest=bytes(32),
        links={1: grant},
        in_flight_limit=4,
        mailbox=4,
        kvp_bytes=0,
        note=lambda port, level, text: None,
    )
    sink = Sink()
    port.connection_made(sink)
    port._own_frame(
        Frame(Kind.HELLO, body=msgspec.msgpack.encode(Ready((OperationDescription("work", (), "None", ""),))))
    )
    port.open = True
    port.group.ports.append(port)
    router.groups["actor"] = port.group
    router.accepting = True
    calling = asyncio.ensure_future(router.call("parent", "actor", "work", b"\x90", timeout=None))
    await asyncio.sleep(0)
    (delivered,) = sink.frames
    router.call_from(port, Frame(Kind.CALL, 0, 0, 1, 77, delivered.correlation, 0, b"\x90"))
    assert router.in_flight == 2
    (task,) = router.provider_calls._tasks
    calling.cancel()
    await asyncio.wait({task, calling})
    assert task.cancelled()
    assert router.in_flight == 0
    ended, answer = sink.frames[1:]
    assert (ended.kind, ended.link, ended.correlation) == (Kind.BYE, 0, delivered.correlation)
    assert (answer.kind, answer.correlation) == (Kind.ERROR, 77)
    assert "nobody waits" in CallError.decode(answer.body).sentence
    # From now on nothing is done for it; what the worker does of its own accord is its own.
    router.call_from(port, Frame(Kind.CALL, 0, 0, 1, 78, delivered.correlation, 0, b"\x90"))
    assert CallError.decode(sink.frames[-1].body).code is Code.DEADLINE
    router.call_from(port, Frame(Kind.CALL, 0, 0, 1, 79, 0, 0, b"\x90"))
    assert router.in_flight == 1
    port.connection_lost(None)
    assert router.in_flight == 0


async def test_a_second_end_of_one_call_does_nothing() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    origin = HostOrigin("x", asyncio.get_running_loop().create_future())
    router.cancellation.caller_gone(origin)
    assert router.figures.cancelled == 0
