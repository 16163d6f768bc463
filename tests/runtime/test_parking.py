"""What waits for a place: counted as its sender counted it, bounded over a sender's lives, and within today's rights.

The router, its ports and frames are the real ones; sockets and the clock are the test's. Rule: docs/architecture.md,
"Back-pressure" and "Rights".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind
from tea.protocol.sticky import KEY_BYTES
from tea.runtime.links import Grant
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router

from .test_router_states import MAILBOX, WINDOW, Clock, Worker

LINK = Grant(1, "ben", "ada", "ben", ("work",))
KEY = b"k" * KEY_BYTES


class Two:
    """`ada` may send to `ben`, whose mailbox is full."""

    def __init__(self, link: Grant = LINK) -> None:
        self.loop = Clock()
        self.router = Router(self.loop, lambda what, error: None)
        self.router.accepting = True
        self.link = link
        for name in ("ada", "ben"):
            self.group(name)
        self.ada, self.ben = self.start("ada"), self.start("ben")
        for _ in range(MAILBOX):
            assert self.router.tell("provider:clock", "ben", "work", b"\x90")

    def group(self, name: str) -> ReplicaGroup:
        before = self.router.groups.get(name)
        self.router.groups[name] = ReplicaGroup(name, self.router.figures_of(name))
        return before or self.router.groups[name]

    def start(self, name: str, replica: int = 0) -> Worker:
        return Worker(self.router, self.router.groups[name], replica, {1: self.link})

    def upgrade_ben(self) -> Worker:
        """The next revision replaces it; what waited goes on."""
        old = self.group("ben")
        new = self.start("ben", 1)
        for port in old.ports:
            port.open = False
        self.router.parking.leave(old, "it is stopped")
        return new

    def turn(self) -> None:
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))

    @property
    def parked(self) -> int:
        return self.router.figures.parked


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.loop.close()


@pytest.fixture
def sticky() -> Iterator[Two]:
    made = Two(replace(LINK, sticky="key"))
    yield made
    made.loop.close()


@pytest.mark.parametrize("spare", range(KEY_BYTES + 1))
def test_a_message_on_a_sticky_link_gives_back_what_it_took_of_the_window(sticky: Two, spare: int) -> None:
    ada = sticky.ada
    size = ada.port.unit - spare  # with its key in front it may take a unit more than without
    for _ in range(3 * WINDOW):
        ada.tell(1, size, KEY)
        while sticky.parked:
            sticky.ben.finish_first(failed=False)
        while len(sticky.ben.inbox) < MAILBOX:
            sticky.router.tell("provider:clock", "ben", "work", b"\x90")
        assert ada.told[1] == 0, "all of it came back"


def test_messages_of_workers_that_ended_do_not_pile_up_before_a_full_mailbox(two: Two) -> None:
    for life in range(20):
        for _ in range(WINDOW):
            two.ada.tell(1, 0, b"")
        call = two.ada.waiting
        two.ada.call(1, 0, 0, b"", on_behalf=False)
        assert call
        assert two.parked == WINDOW + 1
        two.ada.die()
        assert two.parked == 0 and two.router.in_flight == 0
        assert two.router.figures_of("ben").dead_letters == (life + 1) * WINDOW
        two.ada = two.start("ada")
    two.ada.tell(1, 0, b"")
    two.ben.finish_first(failed=False)
    assert two.parked == 0, "the next life's messages get through"
    assert len(two.ben.inbox) == MAILBOX


def test_messages_of_a_replaced_revisions_worker_are_delivered_all_the_same(two: Two) -> None:
    two.ada.tell(1, 0, b"")
    two.group("ada")
    two.ada.die()
    two.ben.finish_first(failed=False)
    assert two.parked == 0 and len(two.ben.inbox) == MAILBOX
    assert two.router.figures.dead_letters == 0


def test_what_waits_goes_to_the_next_revision_where_its_link_still_stands(two: Two) -> None:
    two.ada.tell(1, 0, b"")
    two.ada.call(1, 0, 0, b"", on_behalf=False)
    new = two.upgrade_ben()
    assert [frame.kind for frame in new.inbox] == [Kind.TELL, Kind.CALL]


def test_what_waits_does_not_go_to_the_next_revision_by_a_link_that_it_took_away(two: Two) -> None:
    answers: list[Frame] = []
    take = two.ada.take

    def taken(frame: Frame) -> None:
        answers.append(frame)
        take(frame)

    two.ada.take = taken  # type: ignore[method-assign]
    two.ada.tell(1, 0, b"")
    two.ada.call(1, 0, 0, b"", on_behalf=False)
    two.ada.port.links = {1: replace(LINK, revoked=frozenset({0}))}
    new = two.upgrade_ben()
    assert new.inbox == []
    (refusal,) = [frame for frame in answers if frame.kind is Kind.ERROR]
    assert CallError.decode(refusal.body).code is Code.DENIED
    assert two.router.figures.dead_letters == 1
    assert two.ada.waiting == {} and two.parked == 0


@pytest.mark.parametrize("granted", [True, False])
def test_a_call_of_the_parent_that_waits_is_asked_for_its_link_again(two: Two, granted: bool) -> None:
    call = two.loop.create_task(two.router.call("parent", "ben", "work", b"\x90", timeout=None))
    two.turn()
    assert two.parked == 1
    two.router.parent_grants = {"ben": frozenset({"work"} if granted else ())}
    new = two.upgrade_ben()
    two.turn()
    if granted:
        new.finish_first(failed=False)
        two.turn()
        assert call.result() == b"\xc0"
    else:
        error = call.exception()
        assert isinstance(error, CallError) and error.code is Code.DENIED
        assert new.inbox == []


def test_a_request_that_waits_is_asked_for_its_right_again(two: Two) -> None:
    def gone() -> None:
        raise CallError(Code.DENIED, "no link")

    call = two.loop.create_task(two.router.call_for("ada", (), "ben", "work", b"\x90", timeout=None, require=gone))
    two.turn()
    assert two.parked == 1, "it was checked before"
    new = two.upgrade_ben()
    two.turn()
    error = call.exception()
    assert isinstance(error, CallError) and error.code is Code.DENIED
    assert new.inbox == []
