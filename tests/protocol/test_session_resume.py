"""Whatever is cut, wherever, however often: nothing is lost and nothing is delivered twice while both ends live."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tea.protocol.errors import Code
from tea.protocol.frame import HEADER_SIZE, Frame, Kind
from tea.protocol.limits import Limits
from tea.protocol.session import Ended, Role, Session, State

KINDS = st.sampled_from([Kind.CALL, Kind.REPLY, Kind.ERROR, Kind.TELL])
ENDS = st.sampled_from([0, 1])


class End:
    """One process: its session, and what the model knows of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.requests: deque[Frame] = deque()
        self.pipe = bytearray()
        """Bytes on their way to this end."""
        self.ended: Ended | None = None


class TwoEnds(RuleBasedStateMachine):
    """A dialer and a listener, two pipes, and an enemy who cuts them."""

    @initialize(
        retained_frames=st.integers(4, 60),
        retained_bytes=st.integers(1000, 20_000),
        window_frames=st.integers(4, 40),
        window_bytes=st.integers(1000, 10_000),
    )
    def begin(self, retained_frames: int, retained_bytes: int, window_frames: int, window_bytes: int) -> None:
        self.limits = Limits(retained_frames, retained_bytes, window_frames, window_bytes)
        self.number = 0
        self.lives = 0
        self.since_cut = 0
        self.ends = self.pair()
        self.attach(2)

    def pair(self) -> tuple[End, End]:
        self.lives += 1
        session_id = self.lives.to_bytes(16, "big")
        return (
            End(Session(Role.DIALER, session_id, limits=self.limits)),
            End(Session(Role.LISTENER, session_id, limits=self.limits)),
        )

    @property
    def attached(self) -> bool:
        return self.ends[0].session.state not in (State.NEW, State.DETACHED)

    def attach(self, hellos: int) -> None:
        for me in self.ends:
            me.session.attach()
        for end in range(hellos):
            self.write(end, 1)
            self.read(1 - end, 1 << 20)

    def write(self, end: int, limit: int) -> None:
        self.ends[1 - end].pipe += b"".join(self.ends[end].session.data_to_send(limit))

    def read(self, end: int, size: int) -> None:
        me = self.ends[end]
        data = bytes(me.pipe[:size])
        del me.pipe[:size]
        for event in me.session.receive(data):
            if isinstance(event, Frame):
                me.received.append(event.body)
                if event.kind in (Kind.CALL, Kind.TELL):
                    me.requests.append(event)
            elif isinstance(event, Ended):
                me.ended = event

    @rule(end=ENDS, what=st.lists(st.tuples(KINDS, st.integers(4, 500)), min_size=1, max_size=20))
    def send(self, end: int, what: list[tuple[Kind, int]]) -> None:
        me = self.ends[end]
        for kind, size in what:
            if me.session.can_send(kind, size):
                self.number += 1
                self.since_cut += 1
                body = self.number.to_bytes(4, "big") + bytes(size - 4)
                me.session.send(Frame(kind, body=body))
                me.sent.append(body)
            else:
                me.session.ask_credit()

    @precondition(lambda self: self.attached)
    @rule(end=ENDS, limit=st.integers(1, 2000))
    def some_bytes_leave(self, end: int, limit: int) -> None:
        self.write(end, limit)

    @precondition(lambda self: self.attached)
    @rule(end=ENDS, size=st.integers(1, 2000))
    def some_bytes_arrive(self, end: int, size: int) -> None:
        self.read(end, size)

    @precondition(lambda self: self.attached)
    @rule(end=ENDS, limit=st.integers(1, 3000), arrives=st.floats(0, 1))
    def some_bytes_cross(self, end: int, limit: int, arrives: float) -> None:
        self.write(end, limit)
        self.read(1 - end, int(len(self.ends[1 - end].pipe) * arrives))

    @rule(end=ENDS, count=st.integers(1, 8))
    def requests_are_consumed(self, end: int, count: int) -> None:
        me = self.ends[end]
        for _ in range(min(count, len(me.requests))):
            me.session.consume(me.requests.popleft())

    @rule(end=ENDS)
    def a_heart_beats(self, end: int) -> None:
        self.ends[end].session.settle()
        self.ends[end].session.ping()

    # Neither too seldom nor so often that nothing else happens.
    @precondition(lambda self: self.attached and self.since_cut >= 2)
    @rule()
    def the_connection_is_cut(self) -> None:
        self.since_cut = 0
        for end in self.ends:
            end.session.detach()
            end.pipe.clear()

    @precondition(lambda self: not self.attached)
    @rule(hellos=st.sampled_from([2, 2, 1, 0]))
    def the_dialer_comes_back(self, hellos: int) -> None:
        self.attach(hellos)

    @precondition(lambda self: self.number > 30 * self.lives)
    @rule(which=ENDS)
    def a_process_restarts(self, which: int) -> None:
        """A new dialer begins another session; a new listener refuses the old one, and the dialer begins another."""
        old_dialer, old_listener = self.ends
        if self.attached:
            for end in self.ends:
                end.session.detach()
        if which == 1 and old_dialer.session.state is State.DETACHED:
            stranger = Session(Role.LISTENER, self.lives.to_bytes(16, "big"), limits=self.limits)
            old_dialer.session.attach()
            stranger.attach()
            refusal = stranger.receive(b"".join(old_dialer.session.data_to_send()))
            assert isinstance(refusal[-1], Ended)
            told = old_dialer.session.receive(b"".join(stranger.data_to_send()))
            assert isinstance(told[-1], Ended)
            assert told[-1].error.code is Code.CONFLICT
            assert old_dialer.session.retained == (0, 0)
        else:
            old_dialer.session.close()
        old_listener.session.close()
        self.ends = self.pair()

    @invariant()
    def each_end_has_received_a_beginning_of_what_the_other_sent(self) -> None:
        for me, other in (self.ends, self.ends[::-1]):
            assert me.received == other.sent[: len(me.received)]

    @invariant()
    def nobody_was_accused(self) -> None:
        assert all(end.ended is None for end in self.ends)

    @invariant()
    def memory_is_bounded(self) -> None:
        for me in self.ends:
            frames, size = me.session.retained
            assert frames <= self.limits.retained_frames
            assert size <= max(self.limits.retained_bytes, 500 + HEADER_SIZE)
            requests, size = me.session.unconsumed
            assert requests == len(me.requests) <= self.limits.window_frames
            assert size <= max(self.limits.window_bytes, 500 + HEADER_SIZE)

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        if not self.attached:
            self.attach(2)
        self.quiet()
        for me, other in (self.ends, self.ends[::-1]):
            assert me.session.state is State.OPEN
            assert me.received == other.sent
        # Whoever had no room has room again, now that everything is consumed.
        for end, me in enumerate(self.ends):
            while me.requests:
                me.session.consume(me.requests.popleft())
            if not self.ends[1 - end].session.can_send(Kind.CALL, 400):
                self.ends[1 - end].session.ask_credit()
        self.quiet()
        for me in self.ends:
            assert me.session.can_send(Kind.CALL, 400)
            me.session.settle()
        self.quiet()
        for me in self.ends:
            assert me.session.retained == (0, 0)

    def quiet(self) -> None:
        for _ in range(1000):
            for end in (0, 1):
                self.write(end, 1 << 20)
            if not any(end.pipe for end in self.ends):
                return
            for end in (0, 1):
                self.read(end, 1 << 20)
        raise AssertionError("the two ends never fall silent")


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=80, stateful_step_count=100, deadline=None)
