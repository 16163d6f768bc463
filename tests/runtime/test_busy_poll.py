"""Looking before sleeping: when a worker looks, when it sleeps, and that the host's loop comes to rest."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tea.runtime import busy_loop
from tea.runtime.busy_loop import BusyLoop
from tea.runtime.fair_threads import FairThreads
from tea.runtime.worker import busy_poll
from tea.runtime.worker.busy_poll import (
    APART_SECONDS,
    BURST_SECONDS,
    CROWDED_SECONDS,
    MOST_SECONDS,
    SHORT_WAITS,
    BusyPoll,
)
from tea.runtime.worker.wire import Welcome
from tea.runtime.worker_port import WorkerPort

Enclave = Any

SOON = MOST_SECONDS / 4
LATE = MOST_SECONDS * 10


class Machine:
    """Clocks, a scheduler, and something to wait for."""

    def __init__(self) -> None:
        self.now = 1.0
        self.cpu = 0.0
        self.comes_at = 0.0
        self.asked: list[int | None] = []
        """What `poll` was asked for since `wait` began."""
        self.turn = 1e-6
        """How long a turn takes that is given away."""
        self.turns = 0

    def poll(self, milliseconds: int | None = None) -> list[tuple[int, int]]:
        """As `select.poll`'s: each look takes a microsecond of the processor, a sleep none."""
        self.asked.append(milliseconds)
        self.now += 1e-6
        self.cpu += 1e-6
        if self.comes_at > self.now and milliseconds != 0:
            limit = self.comes_at if milliseconds is None else min(self.comes_at, self.now + milliseconds / 1000)
            self.now = limit
        return [(0, select.POLLIN)] if self.now >= self.comes_at else []

    def give_way(self) -> None:
        self.turns += 1
        self.now += self.turn

    def works(self, seconds: float) -> None:
        self.now += seconds
        self.cpu += seconds


@pytest.fixture(name="machine")
def machine_fixture(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(busy_poll, "monotonic", lambda: machine.now)
    monkeypatch.setattr(busy_poll, "thread_time", lambda: machine.cpu)
    monkeypatch.setattr(busy_poll, "sched_yield", machine.give_way)
    return machine


def wait(busy: BusyPoll, machine: Machine, after: float, timeout: float | None = None) -> list[int | None]:
    """Wait for something that comes `after` so many seconds: what `poll` was asked for."""
    machine.asked.clear()
    machine.comes_at = machine.now + after
    busy.wait(machine, timeout)  # type: ignore[arg-type]
    return list(machine.asked)


def eager(machine: Machine) -> BusyPoll:
    """One that looks, by all it has seen."""
    busy = BusyPoll()
    busy.on = True
    for _ in range(SHORT_WAITS):
        assert wait(busy, machine, SOON) == [None]
    return busy


def test_it_looks_after_short_waits_and_finds_without_sleeping(machine: Machine) -> None:
    busy = eager(machine)
    asked = wait(busy, machine, SOON)
    assert len(asked) > 5
    assert set(asked) == {0}
    assert machine.turns == len(asked) - 1  # whoever waits for this core has a turn between any two looks


def test_it_sleeps_at_once_while_it_is_off_and_when_it_may_not_wait(machine: Machine) -> None:
    busy = eager(machine)
    busy.on = False
    assert wait(busy, machine, SOON) == [None]
    assert wait(busy, machine, SOON, 0.25) == [250]
    busy.on = True
    assert wait(busy, machine, SOON, 0.0) == [0]
    assert wait(busy, machine, SOON, -1.0) == [0]


def test_what_does_not_come_soon_is_slept_for_as_long_as_was_asked(machine: Machine) -> None:
    busy = eager(machine)
    began = machine.now
    asked = wait(busy, machine, LATE, 0.25)
    assert asked[-1] == 250
    assert set(asked[:-1]) == {0}
    assert machine.now - began >= LATE
    # Until waits are short again, it goes to sleep at once.
    for _ in range(SHORT_WAITS):
        assert wait(busy, machine, SOON) == [None]
    assert 0 in wait(busy, machine, SOON)


def test_a_long_wait_between_short_ones_begins_the_count_anew(machine: Machine) -> None:
    busy = BusyPoll()
    busy.on = True
    for after in (SOON, LATE, SOON, LATE, SOON):
        assert wait(busy, machine, after) == [None]


def test_a_timeout_is_kept_while_it_looks(machine: Machine) -> None:
    busy = eager(machine)
    machine.comes_at = machine.now + 10.0
    machine.asked.clear()
    began = machine.now
    assert busy.wait(machine, 0.001) == []  # type: ignore[arg-type]
    assert 0.001 <= machine.now - began <= 0.001 + 2 * MOST_SECONDS


def test_where_cores_are_scarce_it_sleeps_for_a_while(machine: Machine) -> None:
    busy = eager(machine)
    machine.turn = CROWDED_SECONDS * 2  # somebody had this core, who is not the other end of a call
    until = machine.now + APART_SECONDS
    assert wait(busy, machine, LATE) == [0, None]
    machine.turn = 1e-6
    while machine.now < until - SOON:
        assert wait(busy, machine, SOON) == [None]
    machine.now = until + MOST_SECONDS
    assert 0 in wait(busy, machine, SOON)


def test_it_takes_its_share_of_a_core_and_no_more(machine: Machine) -> None:
    busy = eager(machine)
    looked = slept = 0
    cpu = began = machine.now
    for _ in range(20_000):
        machine.works(10e-6)
        machine.turn = 0.0
        # All of the wait is spent looking or asleep, and where it looks, it has the core to itself.
        before, at = machine.now, machine.cpu
        asked = wait(busy, machine, SOON)
        if asked == [None]:
            slept += 1
        else:
            looked += 1
            machine.cpu = at + (machine.now - before)
    cpu = machine.cpu
    assert looked > slept > 100
    share = (cpu - BURST_SECONDS) / (machine.now - began)
    assert share <= busy_poll.SHARE + 0.02


def test_long_work_does_not_keep_it_from_looking_for_ever(machine: Machine) -> None:
    busy = eager(machine)
    machine.works(60.0)
    waits = 0
    while 0 not in wait(busy, machine, SOON):
        waits += 1
        machine.works(1e-6)
    assert waits * SOON < 4 * BURST_SECONDS


def test_with_a_real_socket_it_finds_what_was_sent_and_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ready = select.poll()
        ready.register(ours, select.POLLIN)
        busy = BusyPoll()
        busy.on = True
        for _ in range(100):
            theirs.send(b"x")
            assert busy.wait(ready) == [(ours.fileno(), select.POLLIN)]
            ours.recv(1)
        assert busy.wait(ready, 0.001) == []
        theirs.close()
        ((_, events),) = busy.wait(ready)
        assert events & select.POLLHUP


# -- the host's loop -----------------------------------------------------------------------------------------------


class Turns:
    """A loop of which only the turns count."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.machine = Machine()

    def call_soon(self, do: Callable[[], None]) -> None:
        self.due.append(do)

    def run(self) -> int:
        """Turn until there is nothing to do; how often that was."""
        turns = 0
        while self.due:
            due, self.due = self.due, []
            for do in due:
                do()
            self.machine.now += 2e-6
            turns += 1
            assert turns < 1000
        return turns


@pytest.fixture(name="turns")
def turns_fixture() -> Iterator[Turns]:
    yield Turns()


def busy_of(turns: Turns) -> BusyLoop:
    busy = BusyLoop(turns, lambda: turns.machine.now, turns.machine.give_way)  # type: ignore[arg-type]
    busy.on = True
    return busy


def hear(busy: BusyLoop, turns: Turns, times: int, apart: float = SOON) -> None:
    for _ in range(times):
        turns.machine.now += apart
        busy.heard()


def test_the_loop_turns_for_a_moment_after_short_intervals_and_comes_to_rest(turns: Turns) -> None:
    busy = busy_of(turns)
    hear(busy, turns, 1 + SHORT_WAITS)
    assert turns.run() == 0
    hear(busy, turns, 1)
    began = turns.machine.now
    assert turns.run() > 10
    assert MOST_SECONDS <= turns.machine.now - began <= 2 * MOST_SECONDS
    assert turns.machine.turns > 10
    # What is heard while it turns keeps it turning, and once: no second chain of turns begins.
    hear(busy, turns, 2 + SHORT_WAITS)
    assert len(turns.due) == 1
    hear(busy, turns, 10)
    assert len(turns.due) == 1


def test_the_loop_sleeps_where_intervals_are_long_or_there_is_one_core(turns: Turns) -> None:
    busy = busy_of(turns)
    hear(busy, turns, 100, LATE)
    assert turns.run() == 0
    busy.on = False
    hear(busy, turns, 100)
    assert turns.run() == 0


def test_the_loop_makes_room_for_somebody_who_wants_its_core(turns: Turns) -> None:
    busy = busy_of(turns)
    turns.machine.turn = 2 * busy_loop.CROWDED_SECONDS
    hear(busy, turns, 2 + SHORT_WAITS)
    assert turns.run() == 1
    hear(busy, turns, 10)  # and for a while after
    assert turns.run() == 0
    turns.machine.now += busy_loop.APART_SECONDS
    hear(busy, turns, 2 + SHORT_WAITS)
    assert turns.run() == 1


def test_the_loop_makes_room_when_it_is_told_to(turns: Turns) -> None:
    busy = busy_of(turns)
    hear(busy, turns, 2 + SHORT_WAITS)
    busy.make_room()
    assert turns.run() == 1
    hear(busy, turns, 10)
    assert turns.run() == 0
    turns.machine.now += busy_loop.APART_SECONDS
    hear(busy, turns, 2 + SHORT_WAITS)
    assert turns.run() > 10


def test_the_loop_makes_room_for_threads_of_its_own_process(turns: Turns) -> None:
    busy = busy_of(turns)
    busy.others = lambda: True
    hear(busy, turns, 100)
    assert turns.run() <= 1


async def test_threads_are_at_work_until_the_last_one_ends() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as executor:
        threads = FairThreads(loop, executor)
        assert not threads.at_work()
        both = asyncio.gather(threads.run(time.sleep, 0.01), threads.run(time.sleep, 0.02))
        await asyncio.sleep(0)
        assert threads.at_work()
        await both
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
        await asyncio.sleep(0)
        assert not threads.at_work()


# -- who looks -----------------------------------------------------------------------------------------------------

ECHO = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def echo(self, value: int) -> int:
        return value
"""
CALLER = """
from tea.sdk import Actor, operation

class Caller(Actor):
    @operation
    def sum(self, rounds: int) -> int:
        return sum(self.echo.echo(number) for number in range(rounds))
"""


@pytest.fixture(name="welcomes")
def welcomes_fixture(monkeypatch: pytest.MonkeyPatch) -> dict[str, Welcome]:
    """What workers were told at their start, by actor."""
    told: dict[str, Welcome] = {}
    welcome = WorkerPort.welcome

    def kept(self: WorkerPort, to_worker: Welcome, bundle: bytes) -> None:
        told[self.name] = to_worker
        welcome(self, to_worker, bundle)

    monkeypatch.setattr(WorkerPort, "welcome", kept)
    return told


@pytest.mark.parametrize("cores", [1, 2])
async def test_workers_look_where_there_are_cores_and_their_time_is_not_limited(
    enclave: Enclave, welcomes: dict[str, Welcome], cores: int
) -> None:
    enclave.host.router.busy.on = cores > 1
    enclave.bundle("echo", ECHO, "Echo")
    enclave.bundle("caller", CALLER, "Caller", capabilities={"echo": ("echo",)})
    links = "  - {from: parent, to: caller, operations: [sum]}\n  - {from: caller, to: echo, operations: [echo]}"
    await enclave.push(enclave.manifest(links=links, actors={"echo": ", limits: {cpu_seconds: 60}", "caller": ""}))
    assert welcomes["caller"].looks is (cores > 1)
    assert not welcomes["echo"].looks
    assert await enclave.call("caller", "sum", rounds=300) == sum(range(300))


@pytest.mark.parametrize("cores", [{0}, {0, 1}])
def test_cores_are_those_that_this_process_may_run_on(monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> None:
    monkeypatch.setattr(busy_poll, "sched_getaffinity", lambda pid: cores)
    assert busy_poll.has_cores() is (len(cores) > 1)
