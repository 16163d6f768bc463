"""Which lane of a pair of replicas goes live, who has an end of which, and what is left of them: real socketpairs, no
workers.

Rule: docs/architecture.md, "Direct links".
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tea.runtime.lanes import SPARES, Lane, Way, spares
from tea.runtime.links import Grant
from tea.runtime.worker.wire import MAX_LANES
from tea.trust.manifest_links import MAX_LANES as MOST_OF_THE_HOST

GRANT = Grant(7, "work", "front", "work", ("echo",), direct=True)
ENDS = ("front", "work")


class Worker:
    """A worker's port as a way sees it, and the ends that its process has."""

    def __init__(self, name: str, lanes: list[Lane]) -> None:
        self.name = name
        self.open = False
        self.lanes = lanes
        self.ends = [lane.hand_over(name, 1 + place) for place, lane in enumerate(lanes)]
        self.used: list[int] = []
        self.noted: list[str] = []

    def use(self, lane: int) -> None:
        self.used.append(lane)

    def note(self, _level: str, text: str) -> None:
        self.noted.append(text)

    def end(self) -> None:
        self.open = False
        for end in self.ends:
            end.close()


class Joined:
    """One way, and who lives at its ends."""

    def __init__(self, most: int = 1 + SPARES) -> None:
        self.way = Way(GRANT, 0, 0, most)
        self.most = most
        self.workers: dict[str, Worker] = {}

    def start(self, name: str, *, opened: bool = True) -> Worker:
        worker = self.workers[name] = Worker(name, self.way.stock())
        if opened:
            self.open(name)
        return worker

    def open(self, name: str) -> None:
        self.workers[name].open = True
        self.way.opened(self.workers[name])  # type: ignore[arg-type]

    def end(self, name: str) -> None:
        self.workers.pop(name).end()
        self.way.lost(name)

    def live(self) -> Lane | None:
        found = [lane for lane in self.way._lanes if lane.live]
        assert len(found) <= 1
        return found[0] if found else None

    def close(self) -> None:
        self.way.close()
        for name in list(self.workers):
            self.end(name)


@pytest.fixture
def joined() -> Iterator[Joined]:
    made = Joined()
    yield made
    made.close()


def held() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_lane_is_used_once_both_workers_may_use_theirs(joined: Joined) -> None:
    front = joined.start("front")
    assert joined.live() is None
    work = joined.start("work", opened=False)
    assert joined.live() is None
    joined.open("work")
    assert (front.used, work.used) == ([1], [1])
    front.ends[0].send(b"call")
    assert work.ends[0].recv(8) == b"call"


@pytest.mark.parametrize(("victim", "survivor"), [("front", "work"), ("work", "front")])
def test_a_spare_takes_the_place_of_a_lane_whose_end_is_gone(joined: Joined, victim: str, survivor: str) -> None:
    for name in ENDS:
        joined.start(name)
    for life in range(SPARES):
        joined.end(victim)
        assert joined.workers[survivor].ends[life].recv(8) == b"", "its peer's end is told"
        again = joined.start(victim)
        assert joined.workers[survivor].used == list(range(1, 3 + life))
        joined.workers[survivor].ends[1 + life].send(b"to the next")
        assert again.ends[0].recv(16) == b"to the next"
    joined.end(victim)
    again = joined.start(victim)
    assert (again.used, joined.live()) == ([], None)
    assert any("no lane is left between front#0 and work#0" in one for one in again.noted)
    joined.end(survivor)
    joined.start(survivor)
    assert joined.live() is not None, "it has an end of each lane that the other was born with"


def test_a_worker_that_comes_and_goes_without_its_lane_takes_no_spare(joined: Joined) -> None:
    for name in ENDS:
        joined.start(name)
    joined.end("work")
    for _ in range(10):
        joined.start("work", opened=False)
        joined.end("work")
    joined.start("work")
    assert joined.workers["front"].used == [1, 2]


def test_the_caller_hears_of_its_callees_end_from_the_kernel(joined: Joined) -> None:
    for name in ENDS:
        joined.start(name)
    joined.workers["work"].end()
    assert joined.workers["front"].ends[0].recv(8) == b""


def test_no_spare_is_left_or_made_when_nobody_is_started_anew(joined: Joined) -> None:
    for name in ENDS:
        joined.start(name)
    lanes = joined.workers["front"].lanes
    joined.way.close()
    assert [lane.alive for lane in lanes] == [True, *[False] * SPARES]
    for end in joined.workers["front"].ends[1:]:
        with contextlib.suppress(BrokenPipeError):
            end.send(b"x")
            pytest.fail("a spare was left")
    joined.end("work")
    assert joined.start("work").lanes == []
    assert joined.live() is None


def test_a_worker_that_retires_is_given_no_lane(joined: Joined) -> None:
    for name in ENDS:
        joined.start(name)
    joined.workers["front"].open = False
    joined.end("work")
    joined.start("work")
    assert joined.live() is None


def test_spares_take_what_the_bounds_on_descriptors_leave() -> None:
    assert spares(1, 1) == SPARES
    for of_replica, of_host in itertools.product(range(1, MAX_LANES + 1), range(1, MOST_OF_THE_HOST + 1)):
        most = 1 + spares(of_replica, of_host)
        assert most * of_replica <= MAX_LANES
        assert most == 1 or 2 * most * of_host <= MOST_OF_THE_HOST


class Lives(RuleBasedStateMachine):
    """Either end starts, opens and ends in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.before = held()
        self.joined = Joined()

    @rule(name=st.sampled_from(ENDS), opened=st.booleans())
    def start(self, name: str, opened: bool) -> None:
        if name not in self.joined.workers:
            self.joined.start(name, opened=opened)

    @rule(name=st.sampled_from(ENDS))
    def open(self, name: str) -> None:
        if name in self.joined.workers and not self.joined.workers[name].open:
            self.joined.open(name)

    @rule(name=st.sampled_from(ENDS))
    def end(self, name: str) -> None:
        if name in self.joined.workers:
            self.joined.end(name)

    @precondition(lambda self: len(self.joined.workers) == 2)
    @invariant()
    def both_were_told_of_the_same_lane(self) -> None:
        front, work = (self.joined.workers[name] for name in ENDS)
        live = self.joined.live()
        if live is not None:
            assert (front.lanes[front.used[-1] - 1], work.lanes[work.used[-1] - 1]) == (live, live)
            assert front.open
            assert work.open
        else:
            shared = [lane for lane in front.lanes if lane in work.lanes]
            assert not (front.open and work.open) or not any(lane.alive for lane in shared)

    @invariant()
    def descriptors_are_bounded(self) -> None:
        for worker in self.joined.workers.values():
            assert len(worker.ends) <= self.joined.most
        ends = sum(len(worker.ends) for worker in self.joined.workers.values())
        assert held() - self.before - ends <= 2 * self.joined.most

    def teardown(self) -> None:
        self.joined.close()
        assert held() == self.before


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(1, 4))
def test_a_way_has_at_most_the_lanes_that_it_was_given(most: int) -> None:
    joined = Joined(most)
    assert len(joined.start("work").lanes) == most
    assert all(isinstance(end, socket.socket) for end in joined.workers["work"].ends)
    joined.close()
