"""Every call ends exactly once, whatever workers, callers and time do: random walks over a real router.

The router, its ports and frames are the real ones; sockets and the clock are the test's. Rule: docs/architecture.md,
"The wire", "Back-pressure" and "Cancellation".
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, FrameDecoder, Kind, encode_frame
from tea.protocol.sticky import KEY_BYTES
from tea.runtime.cancellation import SWEEP_SECONDS
from tea.runtime.links import Grant
from tea.runtime.parking import HOST_LINE
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router
from tea.runtime.worker.window import cost_of, is_due, is_over, unit_of
from tea.runtime.worker_port import WorkerPort

ACTORS = ("ada", "ben", "cyd")
WINDOW = 4
MAILBOX = 2
SIZES = (0, 10, unit_of(WINDOW) + 1)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Socket(asyncio.Transport):
    """Takes all that the host writes, until it is closed."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._decoder = FrameDecoder()
        self._worker = worker
        self.closed = False

    def write(self, data: Any) -> None:
        for frame in self._decoder.feed(data):
            self._worker.take(frame)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


class Worker:
    """What a worker does, one step at a time; `honest` ones keep within their windows."""

    def __init__(self, router: Router, group: ReplicaGroup, replica: int, links: dict[int, Grant]) -> None:
        self.inbox: list[Frame] = []
        self.skipped: list[int] = []
        """Calls that nobody waits for, which it has yet to answer."""
        self.waiting: dict[int, int] = {}
        self.told: collections.Counter[int] = collections.Counter()
        self.answered: collections.Counter[int] = collections.Counter()
        self.refused_for_window = 0
        self.honest = True
        self.alive = True
        self._numbers = itertools.count(1)
        self.port = WorkerPort(
            router,
            group,
            replica,
            bundle_digest=bytes(32),
            links=links,
            in_flight_limit=WINDOW,
            mailbox=MAILBOX,
            kvp_bytes=0,
            note=lambda port, level, text: None,
        )
        self.port.connection_made(Socket(self))
        self.port.operation_numbers = {"work": 0}
        self.port.open = True
        group.ports.append(self.port)

    def take(self, frame: Frame) -> None:
        if frame.kind in (Kind.CALL, Kind.TELL):
            self.inbox.append(frame)
        elif frame.kind in (Kind.REPLY, Kind.ERROR):
            assert frame.correlation in self.waiting, "an answer to a call that was answered, or never made"
            del self.waiting[frame.correlation]
            self.answered[frame.correlation] += 1
            if frame.kind is Kind.ERROR:
                error = CallError.decode(frame.body)
                self.refused_for_window += error.code is Code.EXHAUSTED
        elif frame.kind is Kind.CREDIT:
            self.told[frame.link] -= frame.correlation
            assert self.told[frame.link] >= 0, "more credit than was spent"
        elif frame.kind is Kind.BYE:
            for queued in self.inbox[1:]:  # the first is in hand
                if queued.correlation == frame.correlation:
                    self.inbox.remove(queued)
                    self.skipped.append(frame.correlation)
                    return

    def say(self, frame: Frame) -> None:
        self.port.data_received(encode_frame(frame))

    def call(self, link: int, deadline: int, size: int, key: bytes, *, on_behalf: bool) -> None:
        body = key + bytes(size)
        cost = cost_of(body, self.port.unit)
        if self.honest and is_over(sum(self.waiting.values()), cost, WINDOW):
            return
        number = next(self._numbers)
        self.waiting[number] = cost
        first = self.inbox[0] if self.inbox and on_behalf else None
        self.say(Frame(Kind.CALL, 0, 0, link, number, first.correlation if first else 0, deadline, body))

    def tell(self, link: int, size: int, key: bytes) -> None:
        body = key + bytes(size)
        cost = cost_of(body, self.port.unit)
        if self.honest and is_over(self.told[link], cost, WINDOW):
            return
        self.told[link] += cost
        self.say(Frame(Kind.TELL, 0, 0, link, body=body))

    def finish_first(self, *, failed: bool) -> None:
        first = self.inbox.pop(0)
        if first.kind is Kind.TELL:
            self.say(Frame(Kind.CREDIT, correlation=first.correlation))
        elif failed:
            self.say(Frame(Kind.ERROR, correlation=first.correlation, body=CallError(Code.INVALID, "no").encode()))
        else:
            self.say(Frame(Kind.REPLY, correlation=first.correlation, body=b"\xc0"))

    def skip(self) -> None:
        while self.skipped:
            body = CallError(Code.DEADLINE, "nobody waits").encode()
            self.say(Frame(Kind.ERROR, correlation=self.skipped.pop(), body=body))

    def die(self) -> None:
        self.alive = False
        self.port.abort()
        self.port.connection_lost(None)


class Calls(RuleBasedStateMachine):
    """Three actors that all may call each other, two replicas each, and a parent."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clock()
        self.router = Router(self.loop, lambda what, error: None)
        self.router.accepting = True
        self.workers: list[Worker] = []
        self.parents: list[asyncio.Task[bytes]] = []
        self.honest = True
        for name in ACTORS:
            self.router.groups[name] = ReplicaGroup(name, self.router.figures_of(name))
            for replica in range(2):
                self.start(name, replica)

    def start(self, name: str, replica: int) -> None:
        links = {
            number: Grant(number, other, name, other, ("work",), sticky="key" if number == 2 else "")
            for number, other in enumerate((one for one in ACTORS if one != name), 1)
        }
        self.workers.append(Worker(self.router, self.router.groups[name], replica, links))

    def turn(self, seconds: float = 0.0) -> None:
        """Let timers and tasks run; time passes."""
        self.loop.now += seconds
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))

    def alive(self) -> list[Worker]:
        return [one for one in self.workers if one.alive]

    def one(self, number: int) -> Worker:
        return self.alive()[number % len(self.alive())]

    @precondition(lambda self: self.alive())
    @rule(
        who=st.integers(0, 5),
        link=st.sampled_from((1, 2)),
        deadline=st.sampled_from((0, 0, 30, 500)),
        size=st.sampled_from(SIZES),
        key=st.integers(0, 3),
        on_behalf=st.booleans(),
    )
    def call(self, who: int, link: int, deadline: int, size: int, key: int, on_behalf: bool) -> None:
        worker = self.one(who)
        worker.call(link, deadline, size, key.to_bytes(KEY_BYTES) if link == 2 else b"", on_behalf=on_behalf)

    @precondition(lambda self: self.alive())
    @rule(who=st.integers(0, 5), link=st.sampled_from((1, 2)), size=st.sampled_from(SIZES), times=st.integers(1, 6))
    def tell(self, who: int, link: int, size: int, times: int) -> None:
        for number in range(times):
            self.one(who).tell(link, size, number.to_bytes(KEY_BYTES) if link == 2 else b"")

    @rule(actor=st.sampled_from(ACTORS), timeout=st.sampled_from((None, 0.03, 0.5)), times=st.integers(1, 4))
    def parent_calls(self, actor: str, timeout: float | None, times: int) -> None:
        for _ in range(times):
            call = self.router.call("parent", actor, "work", b"\x90", timeout=timeout)
            task = self.loop.create_task(call)
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self.parents.append(task)
        self.turn()

    @rule(actor=st.sampled_from(ACTORS))
    def provider_tells(self, actor: str) -> None:
        self.router.tell("provider:clock", actor, "work", b"\x90")

    @precondition(lambda self: self.parents)
    @rule(number=st.integers(0, 20))
    def parent_gives_up(self, number: int) -> None:
        self.parents[number % len(self.parents)].cancel()
        self.turn()

    @precondition(lambda self: any(one.inbox for one in self.alive()))
    @rule(who=st.integers(0, 5), failed=st.booleans())
    def finish(self, who: int, failed: bool) -> None:
        busy = [one for one in self.alive() if one.inbox]
        busy[who % len(busy)].finish_first(failed=failed)

    @rule()
    def skip(self) -> None:
        for worker in self.alive():
            worker.skip()

    @precondition(lambda self: self.alive())
    @rule(who=st.integers(0, 5))
    def die(self, who: int) -> None:
        self.one(who).die()

    @rule()
    def restart(self) -> None:
        for name in ACTORS:
            group = self.router.groups[name]
            for replica in {0, 1} - {port.replica for port in group.ports}:
                self.start(name, replica)
            self.router.parking.serve(group)

    @rule(name=st.sampled_from(ACTORS))
    def upgrade(self, name: str) -> None:
        old = self.router.groups[name]
        self.router.groups[name] = ReplicaGroup(name, old.figures)
        for replica in (2, 3):
            self.start(name, replica)
        for port in old.ports:
            port.open = False
            port.retiring = True
        self.router.parking.leave(old, "it is stopped")

    @rule(seconds=st.sampled_from((0.01, 0.04, 0.6)))
    def time_passes(self, seconds: float) -> None:
        self.turn(seconds)
        if seconds > SWEEP_SECONDS:
            deadlines = [
                one.deadline_at
                for group in self.router.parking.crowded
                for line in group.lines.values()
                for one in line.waiting
                if one.deadline_at is not None
            ]
            assert all(one > self.loop.now for one in deadlines), "nobody waits beyond its deadline"

    @invariant()
    def books_balance(self) -> None:
        self.turn()
        while any(one.port._held for one in self.alive()):
            self.turn(0.3)  # one that was refused too much is not read for a while
        figures = self.router.figures
        assert all(one.port.violated is None for one in self.workers)
        waiting = sum(len(one.waiting) for one in self.alive()) + sum(not one.done() for one in self.parents)
        assert self.router.in_flight == waiting
        assert figures.parked == sum(
            len(line.waiting) for group in self.router.parking.crowded for line in group.lines.values()
        )
        for worker in self.alive():
            assert len(worker.port.delivered) <= MAILBOX
            mail = [*(one.correlation for one in worker.inbox), *worker.skipped]
            assert sorted(worker.port.delivered) == sorted(mail)
            assert sorted(worker.port.outgoing) == sorted(worker.waiting)
            assert max(worker.answered.values(), default=1) == 1
            if worker.honest:
                assert worker.refused_for_window == 0, "who keeps within its windows is never refused for them"
            for parked in worker.port.parked.values():
                assert 0 <= parked <= WINDOW + cost_of(bytes(SIZES[-1] + KEY_BYTES), worker.port.unit)
        for group in self.router.groups.values():
            parent = group.lines.get("parent")
            assert parent is None or len(parent.waiting) <= min(MAILBOX, HOST_LINE)

    def teardown(self) -> None:
        """Whatever stood open, ends: by answers, then by deaths."""
        for _ in range(200):
            self.skip()
            busy = [one for one in self.alive() if one.inbox]
            if not busy:
                break
            for worker in busy:
                if worker.inbox:
                    worker.finish_first(failed=False)
            self.turn()
        self.turn(1.0)
        self.books_balance()
        assert self.router.figures.parked == 0
        assert self.router.in_flight == 0
        for worker in self.alive():
            assert not any(is_due(owed, WINDOW) for owed in worker.told.values()), "all credit came back"
            worker.die()
        self.turn(1.0)
        for task in self.parents:
            assert task.done()
        self.loop.close()


class HostileCalls(Calls):
    """The same, with workers that do not care for their windows: they are refused, and nobody else is."""

    def start(self, name: str, replica: int) -> None:
        super().start(name, replica)
        self.workers[-1].honest = name != "ada"


TestCalls = Calls.TestCase
TestHostileCalls = HostileCalls.TestCase
for case in (TestCalls, TestHostileCalls):
    case.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
