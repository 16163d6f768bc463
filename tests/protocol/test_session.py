"""A session's states: every trigger in every state, what each end may claim, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, HEADER_SIZE, Flag, Frame, FrameDecoder, Kind, encode_frame
from tea.protocol.hello import Credit, Hello, encode_credit
from tea.protocol.inbox import ACKNOWLEDGE_FRAMES
from tea.protocol.limits import Limits
from tea.protocol.session import (
    TRANSITIONS,
    Credited,
    Ended,
    Event,
    Opened,
    Role,
    Session,
    State,
    Trigger,
    farewell,
    unknown_session,
)

ID = bytes(range(16))
LOCAL = (Trigger.ATTACH, Trigger.DETACH, Trigger.CLOSE)


def dialer(**kwargs: object) -> Session:
    return Session(Role.DIALER, ID, **kwargs)  # type: ignore[arg-type]


def listener(**kwargs: object) -> Session:
    return Session(Role.LISTENER, ID, **kwargs)  # type: ignore[arg-type]


def sent(session: Session) -> bytes:
    return b"".join(session.data_to_send(1 << 30))


def frames(data: bytes) -> list[Frame]:
    return FrameDecoder().feed(data)


def hello(**changes: object) -> bytes:
    base = Hello("tea", 1, 1, ID, 1, 0, False, True, 1024, 1 << 20)
    return encode_frame(Frame(Kind.HELLO, body=msgspec.structs.replace(base, **changes).encode()))


def bye(error: CallError | None = None) -> bytes:
    return encode_frame(Frame(Kind.BYE, body=b"" if error is None else error.encode()))


def pump(a: Session, b: Session) -> tuple[list[Event], list[Event]]:
    """Carry bytes until both are silent; what each end saw."""
    seen: tuple[list[Event], list[Event]] = ([], [])
    while True:
        to_b, to_a = sent(a), sent(b)
        if not to_b and not to_a:
            return seen
        if to_b and b.state not in (State.NEW, State.DETACHED):
            seen[1].extend(b.receive(to_b))
        if to_a and a.state not in (State.NEW, State.DETACHED):
            seen[0].extend(a.receive(to_a))


def opened(limits: Limits | None = None) -> tuple[Session, Session]:
    a, b = dialer(limits=limits), listener(limits=limits)
    a.attach()
    b.attach()
    pump(a, b)
    assert (a.state, b.state) == (State.OPEN, State.OPEN)
    return a, b


def reconnect(a: Session, b: Session) -> tuple[list[Event], list[Event]]:
    for session in (a, b):
        if session.state in (State.OPEN, State.GREETING, State.RESUMING):
            session.detach()
    a.attach()
    b.attach()
    return pump(a, b)


def applications(events: list[Event]) -> list[bytes]:
    return [event.body for event in events if isinstance(event, Frame)]


def ended(events: list[Event]) -> CallError:
    assert isinstance(events[-1], Ended), events
    return events[-1].error


# -- the table ---------------------------------------------------------------------------------------------------------


def in_state(role: Role, state: State) -> Session:
    session = Session(role, ID)
    if state is State.NEW:
        return session
    if state is State.CLOSED:
        session.close()
        return session
    session.attach()
    sent(session)
    if state is State.GREETING:
        return session
    session.receive(hello())
    sent(session)
    if state is State.OPEN:
        return session
    session.detach()
    if state is State.DETACHED:
        return session
    session.attach()
    sent(session)
    return session


WIRE: dict[Trigger, Callable[[Session], bytes]] = {
    Trigger.HELLO: lambda session: (
        hello(attempt=2, established=True) if session.state is State.RESUMING else hello(attempt=1)
    ),
    Trigger.APPLICATION: lambda _: encode_frame(Frame(Kind.CALL)),
    Trigger.CREDIT: lambda _: encode_frame(Frame(Kind.CREDIT, body=encode_credit(Credit(0, 0, 0)))),
    Trigger.PING: lambda _: encode_frame(Frame(Kind.PING)),
    Trigger.BYE: lambda _: bye(),
    Trigger.MALFORMED: lambda _: HEADER.pack(0, 77, 0, 0, 0, 0, 0, 0),
}


def test_the_table_names_every_state_and_every_trigger() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {trigger for row in TRANSITIONS.values() for trigger in row} == set(Trigger)
    assert set(LOCAL) | set(WIRE) == set(Trigger)
    assert {state for row in TRANSITIONS.values() for state in row.values()} == set(State)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_every_trigger_in_every_state_leads_where_the_table_says(role: Role, state: State, trigger: Trigger) -> None:
    session = in_state(role, state)
    assert session.state is state
    after = TRANSITIONS[state].get(trigger)
    if trigger in LOCAL:
        act = {Trigger.ATTACH: session.attach, Trigger.DETACH: session.detach, Trigger.CLOSE: session.close}[trigger]
        if after is None:
            with pytest.raises(RuntimeError, match="is not possible while"):
                act()
            assert session.state is state
        else:
            act()
            assert session.state is after
    elif state in (State.NEW, State.DETACHED):
        with pytest.raises(RuntimeError, match="no stream is attached"):
            session.receive(WIRE[trigger](session))
    elif state is State.CLOSED:
        assert session.receive(WIRE[trigger](session)) == []
    else:
        events = session.receive(WIRE[trigger](session))
        if after is None:
            assert "is not possible while" in ended(events).sentence
            assert session.state is State.CLOSED
            assert [frame.kind for frame in frames(sent(session))] == [Kind.BYE]
        else:
            assert session.state is after


# -- the main path -----------------------------------------------------------------------------------------------------


def test_both_ends_open_and_hear_each_others_greeting() -> None:
    a, b = dialer(greeting=b"from the dialer"), listener(greeting=b"from the listener")
    a.attach()
    b.attach()
    assert pump(a, b) == ([Opened(b"from the listener", False)], [Opened(b"from the dialer", False)])


def test_frames_arrive_in_order_in_both_directions() -> None:
    a, b = opened()
    for number in range(10):
        a.send(Frame(Kind.CALL, body=b"a%d" % number))
        b.send(Frame(Kind.TELL, body=b"b%d" % number))
    at_a, at_b = pump(a, b)
    assert applications(at_a) == [b"b%d" % n for n in range(10)]
    assert applications(at_b) == [b"a%d" % n for n in range(10)]


def test_nothing_can_be_sent_before_the_other_end_was_heard() -> None:
    a = dialer()
    assert not a.can_send(Kind.REPLY, 0)
    with pytest.raises(RuntimeError, match="ask can_send first"):
        a.send(Frame(Kind.REPLY))


def test_frames_sent_while_detached_arrive_after_the_reconnect() -> None:
    a, b = opened()
    a.detach()
    b.detach()
    a.send(Frame(Kind.CALL, body=b"a"))
    b.send(Frame(Kind.CALL, body=b"b"))
    at_a, at_b = reconnect(a, b)
    assert (applications(at_a), applications(at_b)) == ([b"b"], [b"a"])
    assert Opened(b"", True) in at_a
    assert Opened(b"", True) in at_b


def test_what_was_written_and_lost_is_written_again_and_what_arrived_is_not() -> None:
    a, b = opened()
    for number in range(5):
        a.send(Frame(Kind.TELL, body=b"%d" % number))
    data = sent(a)
    half = len(data) // 5 * 2 + 3
    first = applications(b.receive(data[:half]))
    _, at_b = reconnect(a, b)
    assert first + applications(at_b) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_hello_that_was_lost_on_its_way_back_loses_nothing() -> None:
    a, b = dialer(), listener()
    a.attach()
    b.attach()
    assert b.receive(sent(a)) == [Opened(b"", False)]
    sent(b)  # lost with the connection
    b.send(Frame(Kind.TELL, body=b"early"))
    sent(b)
    at_a, _ = reconnect(a, b)
    assert applications(at_a) == [b"early"]
    assert a.state is b.state is State.OPEN


def test_a_large_body_is_handed_out_uncopied() -> None:
    a, _ = opened()
    body = bytes(200_000)
    a.send(Frame(Kind.CALL, body=b"small"))
    a.send(Frame(Kind.CALL, body=body))
    a.send(Frame(Kind.CALL, body=b"small"))
    pieces = a.data_to_send()
    assert pieces[1] is body
    assert len(pieces) == 3


def test_data_to_send_keeps_to_its_limit_by_whole_frames() -> None:
    a, _ = opened()
    for _ in range(10):
        a.send(Frame(Kind.TELL, body=bytes(100)))
    assert len(b"".join(a.data_to_send(250))) == 3 * (100 + HEADER_SIZE)


# -- acknowledgement and credit ----------------------------------------------------------------------------------------


def test_received_frames_are_acknowledged_after_64_and_then_forgotten() -> None:
    a, b = opened()
    for _ in range(ACKNOWLEDGE_FRAMES - 1):
        a.send(Frame(Kind.REPLY))
    pump(a, b)
    assert a.retained == (63, 63 * HEADER_SIZE)
    a.send(Frame(Kind.REPLY))
    at_a, _ = pump(a, b)
    assert at_a == [Credited(0)]
    assert a.retained == (0, 0)


def test_received_bytes_are_acknowledged_after_256_kib() -> None:
    a, b = opened()
    a.send(Frame(Kind.REPLY, body=bytes(256 * 1024)))
    assert pump(a, b)[0] == [Credited(0)]


def test_settle_acknowledges_what_would_wait_for_more() -> None:
    a, b = opened()
    a.send(Frame(Kind.REPLY))
    pump(a, b)
    b.settle()
    assert pump(a, b)[0] == [Credited(0)]
    b.settle()
    assert sent(b) == b""


def test_what_is_kept_is_bounded_in_frames_and_in_bytes_and_one_frame_always_fits() -> None:
    a, _ = opened(Limits(retained_frames=3, retained_bytes=200))
    assert a.can_send(Kind.REPLY, 1000)
    for _ in range(2):
        a.send(Frame(Kind.REPLY, body=bytes(50)))
    assert not a.can_send(Kind.REPLY, 50)
    a.send(Frame(Kind.REPLY))
    assert not a.can_send(Kind.REPLY, 0)
    with pytest.raises(RuntimeError, match="does not fit"):
        a.send(Frame(Kind.REPLY))


def test_requests_wait_for_the_window_and_answers_do_not() -> None:
    a, b = opened(Limits(window_frames=2))
    a.send(Frame(Kind.CALL))
    a.send(Frame(Kind.TELL))
    assert not a.can_send(Kind.CALL, 0)
    assert not a.can_send(Kind.TELL, 0)
    assert a.can_send(Kind.REPLY, 0)
    assert a.can_send(Kind.ERROR, 0)
    _, at_b = pump(a, b)
    assert b.unconsumed == (2, 2 * HEADER_SIZE)
    for event in at_b:
        assert isinstance(event, Frame)
        b.consume(event)
    pump(a, b)
    assert a.can_send(Kind.CALL, 0)
    assert b.unconsumed == (0, 0)


def test_the_window_counts_bytes_and_takes_one_request_of_any_size() -> None:
    a, b = opened(Limits(window_bytes=100))
    a.send(Frame(Kind.CALL, body=bytes(1000)))
    assert not a.can_send(Kind.CALL, 0)
    _, (request,) = pump(a, b)
    assert isinstance(request, Frame)
    b.consume(request)
    pump(a, b)
    a.send(Frame(Kind.CALL, body=bytes(30)))
    assert a.can_send(Kind.CALL, 20)
    assert not a.can_send(Kind.CALL, 30)


def test_whoever_has_no_room_asks_once_and_is_told_when_there_is_some() -> None:
    a, b = opened(Limits(window_frames=100))
    a.send(Frame(Kind.CALL))
    a.ask_credit()
    a.ask_credit()
    data = sent(a)
    assert [frame.kind for frame in frames(data)] == [Kind.CALL, Kind.PING]
    request = b.receive(data)[0]
    assert a.receive(sent(b)) == [Credited(0)]
    a.ask_credit()
    b.receive(sent(a))
    a.receive(sent(b))  # says nothing new: a does not ask again
    a.ask_credit()
    assert sent(a) == b""
    assert isinstance(request, Frame)
    b.consume(request)  # far from a quarter of the window, but b was asked
    assert a.receive(sent(b)) == [Credited(0)]


def test_a_ping_is_answered_by_credit() -> None:
    a, b = opened()
    a.ping()
    b.receive(sent(a))
    assert [frame.kind for frame in frames(sent(b))] == [Kind.CREDIT]
    a.detach()
    a.ping()
    assert sent(a) == b""


def test_a_credit_that_was_lost_is_said_again_after_the_reconnect() -> None:
    a, b = opened(Limits(window_frames=1))
    a.send(Frame(Kind.CALL))
    (request,) = b.receive(sent(a))
    assert isinstance(request, Frame)
    b.consume(request)
    sent(b)
    reconnect(a, b)
    assert a.can_send(Kind.CALL, 0)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_what_is_queued_is_written_before_the_bye() -> None:
    a, b = opened()
    a.send(Frame(Kind.REPLY, body=b"last"))
    a.close(CallError(Code.UNAVAILABLE, "going home"))
    a.close()
    at_b = b.receive(sent(a))
    assert applications(at_b) == [b"last"]
    assert ended(at_b).code is Code.UNAVAILABLE
    assert ended(at_b).sentence == "the other end closed the session: going home"
    assert b.ending is ended(at_b)
    assert sent(a) == sent(b) == b""


def test_a_bye_without_a_reason_says_that_the_other_end_closed() -> None:
    a, b = opened()
    a.close()
    assert ended(b.receive(sent(a))).sentence == "the other end closed the session"
    assert b.retained == (0, 0)
    assert a.ending is not None


def test_closing_without_a_stream_says_nothing_and_forgets_what_was_kept() -> None:
    a, _ = opened()
    a.send(Frame(Kind.CALL))
    a.detach()
    a.close()
    assert sent(a) == b""
    assert a.retained == (0, 0)


def test_what_follows_the_bye_is_not_read() -> None:
    _, b = opened()
    events = b.receive(bye() + encode_frame(Frame(Kind.CALL)))
    assert len(events) == 1


def test_a_dialer_that_does_not_come_back_says_so() -> None:
    a, b = dialer(resumable=False), listener()
    a.attach()
    b.attach()
    pump(a, b)
    assert not b.resumable
    assert not a.resumable


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(session: Session, data: bytes) -> CallError:
    error = ended(session.receive(data))
    assert session.state is State.CLOSED
    (last,) = frames(sent(session))
    assert last.kind is Kind.BYE
    assert CallError.decode(last.body).sentence == error.sentence
    return error


@pytest.mark.parametrize(("lowest", "highest"), [(2, 3), (0, 0)])
@pytest.mark.parametrize("role", Role)
def test_a_peer_of_another_version_is_told_both_ranges(role: Role, lowest: int, highest: int) -> None:
    session = in_state(role, State.GREETING)
    error = refused(session, hello(lowest=lowest, highest=highest))
    assert error.code is Code.INVALID
    assert error.sentence == (
        f"the peer speaks versions {lowest} to {highest} of the session protocol, this end 1 to 1: update the older one"
    )


def test_a_newer_peer_that_still_speaks_our_version_is_welcome() -> None:
    session = in_state(Role.LISTENER, State.GREETING)
    later = ["tea", 1, 9, ID, 1, 0, False, True, 10, 1000, b"", "a field of version 9"]
    assert session.receive(encode_frame(Frame(Kind.HELLO, body=msgspec.msgpack.encode(later)))) == [Opened(b"", False)]


def test_a_listener_that_has_restarted_does_not_know_the_session() -> None:
    error = refused(in_state(Role.LISTENER, State.GREETING), hello(established=True))
    assert error.code is Code.CONFLICT
    assert error.sentence == unknown_session().sentence


def test_a_dialer_notices_a_listener_that_has_forgotten_the_session() -> None:
    error = refused(in_state(Role.DIALER, State.RESUMING), hello(attempt=2, established=False))
    assert error.code is Code.CONFLICT


@pytest.mark.parametrize(
    ("role", "state", "data", "why"),
    [
        (Role.DIALER, State.GREETING, hello(session=bytes(16)), "another session"),
        (Role.LISTENER, State.GREETING, hello(session=bytes(16)), "another session"),
        (Role.LISTENER, State.RESUMING, hello(attempt=1, established=True), "was overtaken"),
        (Role.DIALER, State.RESUMING, hello(attempt=1, established=True), "answers connection 1, not 2"),
        (Role.DIALER, State.GREETING, hello(received=1), "1 frames are said to be received"),
        (Role.LISTENER, State.RESUMING, hello(attempt=2, received=1), "1 frames are said to be received"),
        (Role.DIALER, State.OPEN, encode_frame(Frame(Kind.CALL, Flag.CONTEXT)), "no meaning in a session"),
        (Role.DIALER, State.OPEN, encode_frame(Frame(Kind.PING, Flag.MORE)), "no meaning in a session"),
        (Role.DIALER, State.OPEN, encode_frame(Frame(Kind.CREDIT, body=b"x")), "24 bytes, not 1"),
        (Role.DIALER, State.GREETING, encode_frame(Frame(Kind.HELLO, body=b"x")), "no HELLO"),
    ],
)
def test_what_no_honest_peer_says_ends_the_session(role: Role, state: State, data: bytes, why: str) -> None:
    error = refused(in_state(role, state), data)
    assert error.code is Code.INVALID
    assert why in error.sentence


@pytest.mark.parametrize("credit", [Credit(2, 0, 0), Credit(1, 2, 0), Credit(1, 0, 999), Credit(0, 0, 0)])
def test_credit_for_what_was_not_sent_or_less_than_before_ends_the_session(credit: Credit) -> None:
    a, _ = opened()
    a.send(Frame(Kind.CALL))
    sent(a)
    assert a.receive(encode_frame(Frame(Kind.CREDIT, body=encode_credit(Credit(1, 1, HEADER_SIZE)))))
    assert "does not follow" in refused(a, encode_frame(Frame(Kind.CREDIT, body=encode_credit(credit)))).sentence


def test_a_request_beyond_the_window_ends_the_session() -> None:
    b = listener(limits=Limits(window_frames=2))
    b.attach()
    b.receive(hello())
    sent(b)
    call = encode_frame(Frame(Kind.CALL))
    assert len(b.receive(call * 2)) == 2
    assert "beyond the window" in refused(b, call).sentence


def test_frames_before_a_malformed_one_are_delivered() -> None:
    _, b = opened()
    events = b.receive(encode_frame(Frame(Kind.CALL, body=b"good")) + b"\xff" * HEADER_SIZE)
    assert applications(events) == [b"good"]
    assert ended(events).sentence == "unknown frame kind 255"


def test_only_a_newer_connection_of_the_same_session_is_admitted() -> None:
    session = in_state(Role.LISTENER, State.OPEN)

    def admits(**changes: object) -> bool:
        return session.admits(msgspec.structs.replace(Hello("tea", 1, 1, ID, 1, 0, True, True, 1, 1), **changes))

    assert admits(attempt=2)
    assert not admits(attempt=1)
    assert not admits(attempt=2, session=bytes(16))
    session.close()
    assert not admits(attempt=2)


def test_the_id_is_in_no_repr() -> None:
    a, _ = opened()
    for text in (repr(a), repr(Hello("tea", 1, 1, ID, 1, 0, True, True, 1, 1))):
        assert ID.hex() not in text
        assert repr(ID) not in text


def test_a_farewell_to_a_stranger_is_a_bye_with_the_reason() -> None:
    (frame,) = frames(farewell(CallError(Code.EXHAUSTED, "too many")))
    assert (frame.kind, CallError.decode(frame.body).sentence) == (Kind.BYE, "too many")


@given(st.sampled_from(Role), st.sampled_from([State.GREETING, State.OPEN, State.RESUMING]), st.binary(max_size=200))
def test_whatever_arrives_a_session_raises_nothing(role: Role, state: State, data: bytes) -> None:
    session = in_state(role, state)
    session.receive(data)
    session.data_to_send()


@given(
    st.sampled_from(Role),
    st.sampled_from([State.GREETING, State.OPEN, State.RESUMING]),
    st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=80)), max_size=5),
)
def test_whatever_frames_arrive_a_session_raises_nothing(
    role: Role, state: State, said: list[tuple[Kind, bytes]]
) -> None:
    session = in_state(role, state)
    session.receive(b"".join(encode_frame(Frame(kind, body=body)) for kind, body in said))
    session.data_to_send()
