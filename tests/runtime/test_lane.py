"""The two ends of a lane, over a real socketpair as the host makes it: what fits, what is dropped, what breaks it.

Rule: docs/architecture.md, "Direct links".
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tea.protocol.frame import Frame, Kind, encode_frame
from tea.runtime.lanes import Lane
from tea.runtime.links import Grant
from tea.runtime.worker import lane as lane_module
from tea.runtime.worker.lane import CHARGE, LANE_BYTES, MAX_ARGUMENTS, Incoming, LaneBroken, Outgoing, age_ms, now_ms

GRANT = Grant(7, "work", "front", "work", ("echo",), direct=True)
WINDOW = 1 << 16


class Joined(NamedTuple):
    """A lane of the host's, and the two ends as workers hold them."""

    lane: Lane
    caller: Outgoing
    callee: Incoming

    def hear(self) -> None:
        poll = select.poll()
        poll.register(self.callee.socket, self.callee.wants())
        for _descriptor, events in poll.poll(0):
            self.callee.hear(events)


@pytest.fixture
def joined() -> Iterator[Joined]:
    lane = Lane(GRANT, 0, 0)
    host, _worker = socket.socketpair()
    caller, callee = lane.hand_over("front", 1), lane.hand_over("work", 1)
    lane.go_live()
    with host, _worker, caller, callee:
        yield Joined(
            lane,
            Outgoing(caller, lane.describe("front", {7: GRANT}), _worker),
            Incoming(callee, lane.describe("work", {})),
        )
        lane.cut()


def answer(number: int, body: bytes = b"\xc0") -> bytes:
    return encode_frame(Frame(Kind.REPLY, correlation=number, body=body))


@pytest.mark.parametrize("size", [0, 1, 200, 232, 700, 1200, 2000, 3700, 3753, 3780, 4100, 7900, 8200, MAX_ARGUMENTS])
def test_whatever_the_size_of_calls_sending_never_waits_while_there_is_room(joined: Joined, size: int) -> None:
    sent = 0
    while joined.caller.has_room(size, WINDOW):
        sent += 1
        assert joined.caller.send(sent, 0, 1000, bytes(size))
    assert sent == LANE_BYTES // (CHARGE + size)


def test_a_call_goes_whole_or_not_at_all(joined: Joined) -> None:
    sent = 0
    while joined.caller.send(sent + 1, 0, 1000, bytes(MAX_ARGUMENTS)):  # past the window, until the buffer is full
        sent += 1
    assert joined.caller.open
    for number in range(1, sent + 1):
        while not joined.callee.mail:
            joined.hear()
        assert joined.callee.mail.popleft().correlation == number


def test_what_is_held_back_goes_out_in_order_with_what_follows(joined: Joined) -> None:
    caller, callee = joined.caller, joined.callee
    for number in (1, 2):
        assert caller.send(number, 0, 1000, b"x", hold=True)
    joined.hear()
    assert not callee.mail
    assert caller.under_way == 2 * (CHARGE + 1)
    assert caller.send(3, 0, 1000, b"x")
    joined.hear()
    assert [frame.correlation for frame in callee.mail] == [1, 2, 3]
    callee.mail.clear()
    caller.send(4, 0, 1000, b"x", hold=True)
    caller.flush()
    caller.flush()
    joined.hear()
    assert [frame.correlation for frame in callee.mail] == [4]


def test_held_calls_of_a_lane_that_was_cut_end_with_it(joined: Joined) -> None:
    joined.caller.send(1, 0, 1000, b"x", hold=True)
    joined.lane.cut()
    joined.caller.flush()
    assert (joined.caller.open, joined.caller.ended) == (False, True)
    assert not joined.caller.send(2, 0, 1000, b"x")


def test_held_calls_that_find_no_room_end_the_lane(joined: Joined) -> None:
    while joined.caller.send(1, 0, 1000, bytes(MAX_ARGUMENTS)):  # more than anybody may who keeps to the window
        pass
    joined.caller.send(2, 0, 1000, bytes(MAX_ARGUMENTS), hold=True)
    joined.caller.flush()
    assert joined.caller.ended


def test_room_comes_back_with_each_answer_also_of_calls_that_nobody_waits_for(joined: Joined) -> None:
    caller, callee = joined.caller, joined.callee
    for number in (1, 2):
        caller.send(number, 0, 1000, b"x")
    caller.abandoned.add(1)
    callee.send(answer(1) + answer(2))
    caller.take_answers()
    assert (caller.under_way, caller.charges, caller.abandoned) == (0, {}, set())
    assert list(caller.answers) == [2]


def test_no_more_calls_than_the_window_are_under_way(joined: Joined) -> None:
    assert joined.caller.has_room(0, 1)
    joined.caller.send(1, 0, 1000, b"")
    assert not joined.caller.has_room(0, 1)


def test_a_piece_is_read_only_when_the_one_before_was_begun(joined: Joined) -> None:
    for number in range(1, 101):
        joined.caller.send(number, 0, 1000, bytes(1000))
    joined.hear()
    queued = len(joined.callee.mail)
    assert 0 < queued <= lane_module.READ // 1000
    joined.hear()
    assert len(joined.callee.mail) == queued


def test_an_answer_that_is_not_read_holds_up_the_lane_and_nobody_else(joined: Joined) -> None:
    caller, callee = joined.caller, joined.callee
    caller.send(1, 0, 1000, b"")
    caller.send(2, 0, 1000, b"")
    joined.hear()
    callee.mail.popleft()
    callee.send(answer(1, bytes(1 << 20)))
    assert callee.unsent is not None
    assert (callee.is_due, callee.wants()) == (False, select.POLLOUT)
    while 1 not in caller.answers:
        caller.take_answers()
        joined.hear()
    assert caller.answers[1].body == bytes(1 << 20)
    assert callee.is_due


def test_what_is_queued_is_dropped_when_the_lane_is_cut(joined: Joined) -> None:
    for number in (1, 2, 3):
        joined.caller.send(number, 0, 1000, b"")
    joined.hear()
    assert len(joined.callee.mail) == 3
    joined.lane.cut()
    joined.hear()
    assert (joined.callee.ended, joined.callee.is_due) == (True, False)
    assert not joined.caller.send(4, 0, 1000, b"")
    joined.caller.take_answers()
    assert joined.caller.ended


def test_what_was_sent_before_its_callee_retires_is_answered(joined: Joined) -> None:
    joined.caller.send(1, 0, 1000, b"")
    joined.lane.retire()
    assert not joined.caller.send(2, 0, 1000, b"")
    assert not joined.caller.open
    joined.hear()
    assert [frame.correlation for frame in joined.callee.mail] == [1]
    joined.callee.mail.clear()
    joined.hear()
    assert joined.callee.ended
    joined.callee.send(answer(1))
    joined.caller.take_answers()
    assert 1 in joined.caller.answers


def test_the_death_of_either_worker_is_heard_by_the_other(joined: Joined) -> None:
    joined.caller.send(1, 0, 1000, b"")
    joined.callee.socket.close()  # with something unread
    joined.caller.take_answers()
    assert (joined.caller.ended, joined.caller.open) == (True, False)


def test_the_host_keeps_a_lane_open_until_it_cuts_it(joined: Joined) -> None:
    joined.caller.socket.close()
    joined.hear()
    assert not joined.callee.ended
    joined.lane.cut()
    joined.lane.cut()
    joined.hear()
    assert joined.callee.ended


@pytest.mark.parametrize("data", [answer(9), encode_frame(Frame(Kind.TELL)), b"\xff" * 24, answer(1) + b"\xff" * 24])
def test_an_end_that_breaks_the_rules_breaks_the_lane(joined: Joined, data: bytes) -> None:
    joined.caller.send(1, 0, 1000, b"")
    joined.callee.send(data)
    with pytest.raises(LaneBroken):
        joined.caller.take_answers()


def test_the_age_of_a_call_is_what_passed_since_it_was_sent_and_never_negative() -> None:
    before = now_ms()
    time.sleep(0.01)
    assert age_ms(before) >= 10
    assert age_ms((now_ms() + 60_000) & 0xFFFF_FFFF) == 0


def test_the_age_of_a_call_holds_over_the_end_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: (1 << 32) / 1000 + 0.005)
    assert age_ms(0xFFFF_FFFF - 4) == 10
