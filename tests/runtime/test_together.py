"""What goes out together: answers of calls that were queued, calls begun in one block, what one read sets off.

May not: time anything. Rule: docs/architecture.md, "What goes out together".
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, FrameDecoder, Kind, encode_frame
from tea.runtime import worker_port
from tea.runtime.links import Grant
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router
from tea.runtime.worker.sender import HELD_BYTES, Sender
from tea.runtime.worker_port import JOINED_FRAMES, JOINED_SIZE, WorkerPort

Enclave = Any

WORK = """
import os, time
from tea.sdk import Actor, operation

class Work(Actor):
    @operation
    def hold(self, seconds: float) -> str:
        time.sleep(seconds)
        return "held"

    @operation
    def note(self, what: str) -> str:
        return what

    @operation
    def die(self) -> None:
        os._exit(9)

    @operation
    def leave(self) -> None:
        raise SystemExit(1)
"""
CALLER = """
from tea.sdk import Actor, operation, together

class Caller(Actor):
    @operation
    def apart(self, count: int) -> list[str]:
        pending = [self.work.later.note(str(number)) for number in range(count)]
        return [one.result() for one in pending]

    @operation
    def begin(self, count: int) -> list[str]:
        with together():
            pending = [self.work.later.note(str(number)) for number in range(count)]
        return [one.result() for one in pending]

    @operation
    def waits_within(self) -> list[str]:
        with together():
            first = self.work.later.note("a")
            with together():
                second = self.work.later.note("b")
            return [first.result(), second.result(), self.work.note("c")]

    @operation
    def fails_within(self) -> str:
        try:
            with together():
                begun = self.work.later.note("begun")
                raise KeyError
        except KeyError:
            return begun.result()

    @operation
    def tells(self, count: int) -> None:
        with together():
            for number in range(count):
                self.work.tell.note(str(number))
"""
LINKS = """
  - {from: parent, to: work, operations: [die, hold, leave, note]}
  - {from: parent, to: caller, operations: [apart, begin, fails_within, tells, waits_within]}
  - {from: caller, to: work, operations: [note]}
"""


# -- the worker's writing end --------------------------------------------------------------------------------------


@pytest.fixture(name="ends")
def ends_fixture() -> Iterator[tuple[Sender, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield Sender(ours), theirs


def test_what_is_held_back_goes_out_in_order_with_what_is_sent(ends: tuple[Sender, socket.socket]) -> None:
    sender, other = ends
    sender.hold(b"a")
    sender.hold(b"b")
    assert sender.held
    with pytest.raises(BlockingIOError):
        other.recv(10)
    sender.send(b"c")
    assert other.recv(10) == b"abc"
    assert not sender.held
    sender.flush()
    with pytest.raises(BlockingIOError):
        other.recv(10)


def test_no_more_is_held_back_than_its_limit(ends: tuple[Sender, socket.socket]) -> None:
    sender, other = ends
    sender.hold(bytes(HELD_BYTES - 1))
    assert sender.held
    sender.hold(b"x")
    assert not sender.held
    assert len(other.recv(2 * HELD_BYTES)) == HELD_BYTES


def test_a_gathering_within_another_ends_with_the_outer_one(ends: tuple[Sender, socket.socket]) -> None:
    sender, other = ends
    with sender.gathering():
        sender.put(b"a")
        with sender.gathering():
            sender.put(b"b")
        sender.put(b"c")
        with pytest.raises(BlockingIOError):
            other.recv(10)
    assert other.recv(10) == b"abc"
    sender.put(b"d")
    assert other.recv(10) == b"d"


# -- the host ------------------------------------------------------------------------------------------------------


class Pipe(asyncio.Transport):
    """Keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        return

    def frames(self) -> list[list[Frame]]:
        """The frames of each write."""
        return [FrameDecoder().feed(data) for data in self.writes]


def port_of(router: Router, name: str, links: dict[int, Grant]) -> tuple[WorkerPort, Pipe]:
    group = router.groups[name] = ReplicaGroup(name)
    port = WorkerPort(
        router,
        group,
        0,
        bundle_digest=bytes(32),
        links=links,
        in_flight_limit=64,
        mailbox=64,
        kvp_bytes=0,
        note=lambda port, level, text: None,
    )
    pipe = Pipe()
    port.connection_made(pipe)
    port.operation_numbers = {"note": 0}
    port.open = True
    group.ports.append(port)
    return port, pipe


def call(number: int) -> bytes:
    return encode_frame(Frame(Kind.CALL, link=1, correlation=number, body=b"\x90"))


async def test_what_one_read_sets_off_is_one_write_a_worker() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    caller, back = port_of(router, "caller", {1: Grant(1, "work", "caller", "work", ("note",))})
    work, forth = port_of(router, "work", {})
    caller.data_received(b"".join(map(call, range(1, 6))))
    (delivered,) = forth.frames()
    assert [frame.kind for frame in delivered] == [Kind.CALL] * 5
    work.data_received(
        b"".join(encode_frame(Frame(Kind.REPLY, correlation=one.correlation, body=b"\xc0")) for one in delivered)
    )
    (answers,) = back.frames()
    assert [frame.correlation for frame in answers] == [1, 2, 3, 4, 5]
    caller.data_received(call(6))  # alone, it is written at once
    assert [len(frames) for frames in forth.frames()] == [5, 1]


async def test_large_frames_and_many_are_written_at_once_and_in_order() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    caller, _back = port_of(router, "caller", {1: Grant(1, "work", "caller", "work", ("note",))})
    work, forth = port_of(router, "work", {})
    caller.in_flight_limit = work.mailbox = 2 * JOINED_FRAMES
    large = encode_frame(Frame(Kind.CALL, link=1, correlation=2, body=bytes(JOINED_SIZE)))
    caller.data_received(call(1) + large + call(3))
    assert [[len(frame.body) >= JOINED_SIZE for frame in frames] for frames in forth.frames()] == [
        [False, True],
        [False],
    ]
    forth.writes.clear()
    caller.data_received(b"".join(map(call, range(4, JOINED_FRAMES + 6))))
    assert [len(frames) for frames in forth.frames()] == [JOINED_FRAMES + 1, 1]
    delivered = [frame.correlation for frames in forth.frames() for frame in frames]
    assert delivered == sorted(delivered)


async def test_answers_that_nobody_reads_are_bounded_within_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    caller, back = port_of(router, "caller", {1: Grant(1, "work", "caller", "work", ("note",))})
    work, forth = port_of(router, "work", {})
    monkeypatch.setattr(back, "get_write_buffer_size", lambda: sum(map(len, back.writes)))
    caller.data_received(b"".join(map(call, range(1, 65))))
    (delivered,) = forth.frames()
    large = bytes(1 << 20)
    monkeypatch.setattr(worker_port, "UNREAD_LIMIT", 4 << 20)
    for one in delivered:
        work.data_received(encode_frame(Frame(Kind.REPLY, correlation=one.correlation, body=large)))
    assert "does not read its answers" in str(caller.violated)
    assert len(back.writes) == 4
    assert work.violated is None


async def test_a_violation_within_a_read_keeps_nothing_back_from_others() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    caller, back = port_of(router, "caller", {1: Grant(1, "work", "caller", "work", ("note",))})
    _work, forth = port_of(router, "work", {})
    caller.data_received(call(1) + call(2) + encode_frame(Frame(Kind.REPLY, correlation=99)) + call(3))
    assert caller.violated is not None
    (delivered,) = forth.frames()
    assert len(delivered) == 2
    assert not router.cork.on
    assert back.writes == []


# -- real workers --------------------------------------------------------------------------------------------------


@pytest.fixture(name="reads")
def reads_fixture(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Frames of each read that had several, by actor."""
    seen: dict[str, list[int]] = {}
    take = WorkerPort._take_corked

    def counted(self: WorkerPort, frames: list[Frame]) -> None:
        seen.setdefault(self.name, []).append(len(frames))
        take(self, frames)

    monkeypatch.setattr(WorkerPort, "_take_corked", counted)
    return seen


async def push(enclave: Enclave) -> None:
    enclave.bundle("work", WORK, "Work")
    enclave.bundle("caller", CALLER, "Caller", capabilities={"work": ("note",)})
    quick = ", restart: {backoff_ms: 1, backoff_max_ms: 2}"
    await enclave.push(enclave.manifest(links=LINKS, actors={"work": quick, "caller": ""}))


async def behind(enclave: Enclave, until: Any, *operations: tuple[str, dict[str, object]]) -> list[asyncio.Task[Any]]:
    """These calls, queued in the callee's socket behind one that takes a while; that one first."""
    tasks = [asyncio.ensure_future(enclave.call("work", "hold", seconds=0.3))]
    await until(lambda: sum(len(port.delivered) for port in enclave.host.router.groups["work"].ports) == 1)
    await asyncio.sleep(0.1)  # it has begun
    for operation, arguments in operations:
        tasks.append(asyncio.ensure_future(enclave.call("work", operation, **arguments)))
        await asyncio.sleep(0)  # in this order
    return tasks


async def test_answers_of_queued_calls_come_in_few_reads(
    enclave: Enclave, until: Any, reads: dict[str, list[int]]
) -> None:
    await push(enclave)
    reads.clear()
    notes: list[tuple[str, dict[str, object]]] = [("note", {"what": str(number)}) for number in range(20)]
    tasks = await behind(enclave, until, *notes)
    assert [await task for task in tasks] == ["held", *(str(number) for number in range(20))]
    assert max(reads["work"]) > 1


async def test_an_answer_does_not_wait_for_a_call_that_is_known_to_take_long(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    # It is measured where others wait behind it.
    await asyncio.gather(*await behind(enclave, until, ("hold", {"seconds": 0.01}), ("note", {"what": "a"})))
    first, note, long = await behind(enclave, until, ("note", {"what": "b"}), ("hold", {"seconds": 0.5}))
    assert await note == "b"
    assert not long.done()
    assert [await first, await long] == ["held", "held"]


async def outcome(task: asyncio.Task[Any]) -> object:
    try:
        return await task
    except CallError as error:
        return error.code


async def test_after_a_crash_with_several_in_hand_the_next_one_names_its_cause(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    supervisor = enclave.host.supervisors["work"]

    async def crash() -> list[object]:
        before = supervisor.restarts
        tasks = await behind(
            enclave, until, ("note", {"what": "a"}), ("note", {"what": "a"}), ("die", {}), ("note", {"what": "a"})
        )
        outcomes = [await outcome(task) for task in tasks]
        await until(lambda: supervisor.restarts > before)
        return outcomes

    poison = supervisor.group.poison
    assert (await crash())[0] == "held"
    assert supervisor.group.prompt
    assert not poison.suspects  # whose fault it was nobody can tell
    assert await crash() == ["held", "a", "a", Code.UNAVAILABLE, Code.UNAVAILABLE]
    assert poison.suspects
    await crash()
    await crash()
    assert len(poison) == 1
    assert await outcome(asyncio.ensure_future(enclave.call("work", "die"))) is Code.INVALID
    assert await enclave.call("work", "note", what="a") == "a"


async def test_a_call_alone_in_hand_is_known_from_the_first_crash_on(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    supervisor = enclave.host.supervisors["work"]
    assert await outcome(asyncio.ensure_future(enclave.call("work", "die"))) is Code.UNAVAILABLE
    await until(lambda: supervisor.restarts == 1)
    assert supervisor.group.poison.suspects


async def test_what_was_answered_before_an_actor_ends_itself_is_sent(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    tasks = await behind(enclave, until, ("note", {"what": "a"}), ("leave", {}), ("note", {"what": "b"}))
    assert [await outcome(task) for task in tasks] == ["held", "a", Code.UNAVAILABLE, Code.UNAVAILABLE]


async def test_calls_begun_together_come_in_one_read(enclave: Enclave, reads: dict[str, list[int]]) -> None:
    await push(enclave)
    reads.clear()
    assert await enclave.call("caller", "begin", count=12) == [str(number) for number in range(12)]
    assert max(reads["caller"]) == 12
    assert await enclave.call("caller", "apart", count=12) == [str(number) for number in range(12)]


async def test_waiting_within_a_block_sends_what_was_begun(enclave: Enclave) -> None:
    await push(enclave)
    assert await enclave.call("caller", "waits_within") == ["a", "b", "c"]
    assert await enclave.call("caller", "fails_within") == "begun"


async def test_more_messages_than_a_window_holds_are_told_together(enclave: Enclave, until: Any) -> None:
    await push(enclave)
    await enclave.call("caller", "tells", count=300)
    await until(lambda: not any(port.delivered for port in enclave.host.router.groups["work"].ports))
    assert enclave.host.status().dead_letters == 0
