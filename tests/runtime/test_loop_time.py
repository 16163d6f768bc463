"""What an actor's provider calls may take of the host's loop. The clocks are the tests' own: nothing here takes time.

Rule: docs/architecture.md, "Back-pressure".
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind
from tea.protocol.operations import operation
from tea.providers.base import Call, Config, Provider
from tea.runtime.links import Grant
from tea.runtime.loop_time import (
    AT_ONCE_SECONDS,
    CHARGED_AT_MOST,
    CHEAP_SECONDS,
    FREE_SECONDS,
    LIMIT_SECONDS,
    SECONDS_PER_BYTE,
    SHARE,
    WATCHED_SECONDS,
    LoopTime,
)
from tea.runtime.refusals import (
    DEBT_LIMIT,
    HOLD_SECONDS,
    REST_AT_LEAST,
    REST_AT_MOST,
    REST_TURNS,
    TOO_LONG,
    TOO_MANY,
    Debt,
)
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router
from tea.runtime.worker.wire import LogLine
from tea.runtime.worker_port import WorkerPort

DEAR = CHEAP_SECONDS + 2 * CHARGED_AT_MOST
CALLS_TO_LIMIT = round(LIMIT_SECONDS / CHARGED_AT_MOST)


class Account:
    """A `LoopTime` between two clocks that stand still until a test moves them."""

    def __init__(self) -> None:
        self.wall = 100.0
        self.cpu = 5.0
        self.paused = 0.0
        self.holds = 0
        self.rests = 0
        self.rested = 0.0
        self.lapsing = 0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.alone = False
        self._heard = 0
        self.debt = Debt()
        self.time = LoopTime(
            self.debt,
            lambda after, do: self.later.append((after, do)),
            self._others,
            self._wall,
            self._cpu,
            self._paused,
        )

    def _paused(self) -> float:
        seconds, self.paused = self.paused, 0.0
        return seconds

    def _others(self) -> int:
        self._heard += not self.alone
        return self._heard

    def _wall(self) -> float:
        return self.wall

    def _cpu(self) -> float:
        return self.cpu

    def call(self, wall: float, cpu: float | None = None, size: int = 0, *, behind: bool = False) -> None:
        """A call that takes so much, as who measures it would say. `behind`: it came in one read with those before."""
        if not behind:
            self.time.at_once = 0.0
        began = self.time.clock()
        self.wall += wall
        self.cpu += wall if cpu is None else cpu
        taken = self.time.clock() - began
        self.time.at_once += taken
        if taken > FREE_SECONDS or self.time.at_once > AT_ONCE_SECONDS:
            self.time.took(taken, size)
        if self.debt.lapses and not behind:
            self.debt.forgive()
        if self.debt.units >= DEBT_LIMIT:  # as the port does
            if self.debt.rests:
                self.rests += 1
                self.rested += self.debt.seconds
                self.lapsing += self.debt.lapses
            else:
                self.holds += 1
                self.pass_time(HOLD_SECONDS)
            self.debt.forgive()

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds


def test_cheap_calls_are_never_charged_however_many() -> None:
    account = Account()
    for _ in range(100_000):
        account.call(FREE_SECONDS)
    assert (account.holds, account.rests, account.time.watched) == (0, 0, False)


def test_many_cheap_calls_of_one_read_let_the_others_have_their_turn() -> None:
    account = Account()
    calls = 10_000
    for _ in range(calls):
        account.call(AT_ONCE_SECONDS / 4, behind=True)
    assert (account.holds, account.time.watched) == (0, False)
    assert calls // 5 <= account.rests <= calls // 4
    assert account.rested >= account.rests * max(REST_AT_LEAST, AT_ONCE_SECONDS * (1 / SHARE - 1))
    account.alone = True
    account.pass_time(1.0)
    account.call(FREE_SECONDS)
    before = account.rests
    for _ in range(1000):
        account.call(AT_ONCE_SECONDS / 4, behind=True)
    assert account.rests == before


async def test_a_rest_lapses_where_nothing_more_came_in_the_same_read() -> None:
    port = Port()
    for _ in range(2):
        port._debt.rest(0.0, lapses=True)
        assert port.take([]) == 0
        assert port.take(port.calls("at_once", 0, 3)) == 0
    for order in ((True, False), (False, True)):
        for lapses in order:
            port._debt.rest(0.0, lapses=lapses)
        assert port.take([]) == 0
        assert port.take(port.calls("at_once", 0, 3)) == 3  # it rests for something else too
        assert await port.rested() == 0


def test_a_rest_lasts_as_long_as_the_others_share_takes_and_is_bounded() -> None:
    debt = Debt()
    for seconds, expected in ((0.0, REST_AT_LEAST), (2 * REST_AT_LEAST, 2 * REST_AT_LEAST), (9.0, REST_AT_MOST)):
        debt.rest(seconds)
        assert debt.seconds == expected
        debt.forgive()


def test_who_takes_much_in_small_calls_lets_others_have_a_turn_after_each() -> None:
    account = Account()
    for _ in range(10_000):
        account.call(5 * FREE_SECONDS)
    assert account.rests > 9_990
    assert account.holds == 0


def test_who_is_alone_has_the_loop_for_itself() -> None:
    account = Account()
    account.alone = True
    for _ in range(1_000):
        account.call(5 * FREE_SECONDS)
        account.call(DEAR)
    assert (account.holds, account.rests) == (0, 0)
    account.alone = False
    account.call(FREE_SECONDS)
    for _ in range(1_000):
        account.call(5 * FREE_SECONDS)
        account.call(DEAR)
    assert account.holds
    assert account.rests


async def test_somebody_else_was_heard_when_another_worker_was_read() -> None:
    router = Router(asyncio.get_running_loop(), lambda what, error: None)
    one, other = Port(router), Port(router)
    for _ in range(3):
        one.data_received(b"")
    before = router.heard
    one.data_received(b"")
    assert router.heard == before
    other.data_received(b"")
    one.data_received(b"")
    assert router.heard == before + 2


def test_calls_of_some_length_that_leave_the_others_time_are_not_held_up() -> None:
    account = Account()
    for _ in range(10_000):
        account.call(3 * FREE_SECONDS)
        account.pass_time(2 * FREE_SECONDS / SHARE)
    assert account.rests == 0


def test_tasks_that_begin_at_once_are_counted_by_what_they_took_lately() -> None:
    account = Account()
    for _ in range(64):
        account.time.ended(6 * FREE_SECONDS, 0)
    assert account.time.usual == pytest.approx(6 * FREE_SECONDS, rel=0.01)
    begun = 0
    while account.debt.units < DEBT_LIMIT:
        account.time.begins()
        begun += 1
    assert begun == 2
    account.debt.forgive()
    assert account.debt.units == 0


def test_a_collection_of_garbage_is_not_whose_call_it_came_in() -> None:
    account = Account()
    for _ in range(1000):
        account.paused = 0.01
        account.call(0.01)
    assert (account.holds, account.rests, account.time.watched) == (0, 0, False)


def test_a_rest_forgives_no_refused_frames() -> None:
    debt = Debt()
    debt.add(DEBT_LIMIT - 10, 100.0)
    debt.rest(0.0)
    assert (debt.units >= DEBT_LIMIT, debt.rests, debt.why) == (True, True, "")
    debt.add(5, 100.1)
    debt.forgive()
    assert (debt.units, debt.rests, debt.why) == (DEBT_LIMIT - 5, False, TOO_MANY)
    debt.rest(0.0)
    debt.add(7, 102.0)
    assert debt.units >= DEBT_LIMIT
    debt.forgive()
    assert debt.units == 7
    debt.exhaust()
    debt.rest(0.0)
    assert (debt.rests, debt.why) == (False, TOO_LONG)


def test_what_bytes_take_is_not_charged() -> None:
    account = Account()
    for _ in range(10_000):
        account.call(CHEAP_SECONDS + 1e6 * SECONDS_PER_BYTE - 1e-9, size=1_000_000)
    assert (account.holds, account.rests, account.time.watched) == (0, 0, False)


def test_dear_calls_are_watched_first_and_then_held() -> None:
    account = Account()
    for _ in range(CALLS_TO_LIMIT):
        assert not account.time.watched
        account.call(DEAR)
    assert (account.holds, account.time.watched) == (0, True)
    for _ in range(CALLS_TO_LIMIT):
        assert account.holds == 0
        account.call(DEAR)
    assert account.holds == 1
    for _ in range(CALLS_TO_LIMIT):
        account.call(DEAR)
    assert account.holds == 2


def test_one_pause_holds_nobody_back() -> None:
    account = Account()
    for _ in range(CALLS_TO_LIMIT):
        account.call(DEAR)
    account.call(10.0)
    assert account.holds == 0


def test_who_is_preempted_is_not_held_for_it() -> None:
    account = Account()
    for _ in range(1000):
        account.call(DEAR, cpu=CHEAP_SECONDS / 2)
    assert account.time.watched
    assert account.holds == 0


def test_dear_calls_now_and_then_are_nothing() -> None:
    account = Account()
    for _ in range(1000):
        account.call(DEAR)
        account.pass_time(1.1 / (CALLS_TO_LIMIT - 1))
    assert (account.holds, account.time.watched) == (0, False)


def test_who_was_watched_for_long_enough_is_trusted_again() -> None:
    account = Account()
    for _ in range(CALLS_TO_LIMIT):
        account.call(DEAR)
    [(after, trust)] = account.later
    assert after == WATCHED_SECONDS
    trust()
    assert not account.time.watched


# -- with a port -------------------------------------------------------------------------------------------------


class Clocks:
    """Both clocks of one port, moved by the provider that it calls."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Heavy(Provider[Config]):
    """Takes of the loop what it is told to."""

    name = "heavy"
    clocks = Clocks()

    @operation
    def at_once(self, call: Call, milliseconds: int) -> None:
        """Takes it while it is called."""
        self.clocks.now += milliseconds / 1e3

    @operation
    async def later(self, call: Call, milliseconds: int) -> None:
        """Takes it in its task, in two steps, and waits in between for what costs nothing."""
        self.clocks.now += milliseconds / 2e3
        await asyncio.sleep(0)
        self.clocks.now += milliseconds / 2e3

    @operation
    def refuse(self, call: Call, milliseconds: int) -> None:
        """Takes it, and refuses."""
        self.clocks.now += milliseconds / 1e3
        raise CallError(Code.CONFLICT, "not now")

    @operation
    async def wait(self, call: Call, milliseconds: int) -> None:
        """Takes nothing, for long."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()

        def over() -> None:
            self.clocks.now += milliseconds / 1e3
            waiting.set_result(None)

        loop.call_soon(over)
        await waiting


NAMES = ("at_once", "later", "refuse", "wait")


class Port(WorkerPort):
    """A port without a socket that may call `Heavy`."""

    def __init__(self, router: Router | None = None) -> None:
        self.notes: list[str] = []
        provider = Heavy(Config())
        typed = tuple(Heavy.operations()[name] for name in NAMES)
        methods = tuple(getattr(provider, name) for name in NAMES)
        grant = Grant(1, "heavy", "actor", "heavy", NAMES, provider, typed, methods)
        super().__init__(
            router or Router(asyncio.get_running_loop(), lambda what, error: None),
            ReplicaGroup("actor"),
            0,
            bundle_digest=bytes(32),
            links={1: grant},
            in_flight_limit=64,
            mailbox=64,
            kvp_bytes=0,
            note=lambda port, level, text: self.notes.append(text),
        )
        clocks = provider.clocks = Clocks()
        others = itertools.count(1).__next__
        self.loop_time = LoopTime(self._debt, lambda after, do: None, others, clocks, lambda: clocks.now, lambda: 0.0)
        self._last = 0

    def calls(self, name: str, milliseconds: int, count: int) -> list[Frame]:
        self._last += count
        numbers = range(self._last - count + 1, self._last + 1)
        body = bytes((0x91, milliseconds))
        return [Frame(Kind.CALL, 0, NAMES.index(name), 1, number, 0, 0, body) for number in numbers]

    def take(self, frames: list[Frame]) -> int:
        """Take these; how many are left for later."""
        self._take(iter(frames))
        return len(self._held)

    async def rested(self) -> int:
        """Let it go on after its rests; how many are left for when it was held."""
        async with asyncio.timeout(10):
            while self._held and self._debt.rests:
                await asyncio.sleep(0)
        return len(self._held)


@pytest.mark.parametrize("name", ["at_once", "refuse"])
async def test_who_takes_too_much_of_the_loop_is_not_read_on(name: str) -> None:
    port = Port()
    assert port.take(port.calls(name, 5, 20)) == 19
    left = await port.rested()
    assert left == 20 - 2 * CALLS_TO_LIMIT
    assert port.group.refusals.counts == {TOO_LONG: 1}
    assert any(TOO_LONG in note for note in port.notes)
    answered = port._router.figures.replies + port._router.figures.errors
    assert answered == 2 * CALLS_TO_LIMIT


async def test_what_a_task_takes_of_the_loop_counts_too() -> None:
    port = Port()
    assert port.take(port.calls("later", 5, 2 * CALLS_TO_LIMIT)) == 0
    while port._router.in_flight:
        await asyncio.sleep(0)
    assert port.take(port.calls("at_once", 0, 1)) == 1
    assert port.group.refusals.counts == {TOO_LONG: 1}


async def test_who_rests_goes_on_after_some_turns_of_the_loop() -> None:
    port = Port()
    port._debt.rest(0.0)
    assert port.take(port.calls("at_once", 0, 3)) == 3
    turns = 0
    while port._held:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= REST_TURNS
    assert port._router.figures.replies == 3
    assert port.group.refusals.counts == {}


async def test_who_was_held_is_read_again_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port()
    later: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(port._router, "loop", Later(later))

    def holds(left: int) -> int:
        held = 0
        while left:
            [(after, resume)] = later
            later.clear()
            held += after == HOLD_SECONDS
            resume()
            assert len(port._held) <= left
            left = len(port._held)
        return held

    assert holds(port.take(port.calls("at_once", 5, 10))) > 0
    assert port._router.figures.replies == 10
    assert holds(port.take(port.calls("at_once", 0, 64))) == 0
    assert port._router.figures.replies == 74


class Later:
    """A loop that only writes down what it was told to do later."""

    def __init__(self, calls: list[tuple[float, Callable[[], None]]]) -> None:
        self._calls = calls

    def call_later(self, after: float, do: Callable[[], None]) -> None:
        self._calls.append((after, do))

    def call_soon(self, do: Callable[..., None], *args: object) -> None:
        self._calls.append((0.0, lambda: do(*args)))


async def test_waiting_takes_nothing_of_the_loop() -> None:
    port = Port()
    for _ in range(10):
        assert port.take(port.calls("wait", 100, 1)) == 0
        while port._router.in_flight:
            await asyncio.sleep(0)
    assert not port.loop_time.watched
    assert port.take(port.calls("at_once", 0, 64)) == 0


async def test_a_neighbour_is_not_held_for_another() -> None:
    port, neighbour = Port(), Port()
    assert port.take(port.calls("at_once", 5, 20)) > 0
    assert neighbour.take(neighbour.calls("at_once", 0, 128)) == 0


async def test_a_provider_is_told_of_a_cancellation_as_before() -> None:
    port = Port()
    assert port.take(port.calls("wait", 100, 1)) == 0
    await asyncio.sleep(0)
    [task] = port._router.cancel_tasks()
    await asyncio.wait({task})
    assert task.cancelled()
    assert port._router.figures.errors == 1


async def test_a_large_printed_line_is_paid_for_by_its_size() -> None:
    port = Port()
    frame = Frame(Kind.TELL, body=msgspec.msgpack.encode(LogLine("info", "x" * (512 << 10))))
    lines = 4 * (DEBT_LIMIT >> 9)
    assert port.take([frame] * lines) > 0
    assert len(port.notes) < lines
