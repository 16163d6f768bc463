"""A session between two processes that outlives its connections: nothing lost, nothing delivered twice. Sans-IO.

May not: touch sockets, read a clock, or draw random numbers. Rule: docs/architecture.md, "The wire".

Theory of operation. Both ends number, by counting, the application frames that they send (CALL, REPLY, ERROR, TELL) and
keep what the other end has not acknowledged. A session is begun by the dialer, who chooses its id. On every new stream
the dialer says HELLO (id, how many frames it has received), the listener finds the session and answers with its own
count; each end drops what the other has, sends the rest again, and goes on. CREDIT acknowledges received frames and
gives back the room of requests that were consumed, PING asks for a CREDIT, BYE ends the session for good. A process
that has restarted does not know the session: the listener says BYE, and the dialer begins another.

Memory is bounded by `Limits`: what this end keeps, and, through the window that it announces, what the other end may
have asked for without an answer. A window concerns requests alone: replies, acknowledgements and reading never wait for
it, so that a flooded direction cannot block the other.

What leads from which state to which is all in `TRANSITIONS`. A trigger from the wire that has no entry there ends the
session as malformed; a local one is a defect of the caller and raises `RuntimeError`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .errors import CallError, Code
from .frame import Frame, FrameDecoder, FrameError, Kind, encode_frame
from .hello import HIGHEST_VERSION, LOWEST_VERSION, Hello, encode_credit, parse_credit, parse_hello
from .inbox import Inbox
from .limits import Limits
from .outbox import Outbox


class Role(enum.Enum):
    """Who began the session."""

    DIALER = "dialer"
    LISTENER = "listener"


class State(enum.Enum):
    """Where a session stands."""

    NEW = "new"
    """No stream, and the other end has never been heard."""
    GREETING = "greeting"
    """The first stream is there; the other end's HELLO is awaited."""
    OPEN = "open"
    """Frames flow."""
    DETACHED = "detached"
    """The stream was lost; the session waits for another."""
    RESUMING = "resuming"
    """Another stream is there; the other end's HELLO is awaited."""
    CLOSED = "closed"
    """Over, for good; `Session.ending` says why."""


class Trigger(enum.Enum):
    """What moves a session. The first three are local, the others come from the wire."""

    ATTACH = "attach"
    DETACH = "detach"
    CLOSE = "close"
    HELLO = "HELLO"
    APPLICATION = "CALL, REPLY, ERROR, TELL"
    CREDIT = "CREDIT"
    PING = "PING"
    BYE = "BYE"
    MALFORMED = "malformed"


_ENDS: Final = {Trigger.CLOSE: State.CLOSED, Trigger.BYE: State.CLOSED, Trigger.MALFORMED: State.CLOSED}

TRANSITIONS: Final[Mapping[State, Mapping[Trigger, State]]] = MappingProxyType(
    {
        State.NEW: {Trigger.ATTACH: State.GREETING, Trigger.CLOSE: State.CLOSED},
        State.GREETING: {Trigger.HELLO: State.OPEN, Trigger.DETACH: State.NEW, **_ENDS},
        State.OPEN: {
            Trigger.APPLICATION: State.OPEN,
            Trigger.CREDIT: State.OPEN,
            Trigger.PING: State.OPEN,
            Trigger.DETACH: State.DETACHED,
            **_ENDS,
        },
        State.DETACHED: {Trigger.ATTACH: State.RESUMING, Trigger.CLOSE: State.CLOSED},
        State.RESUMING: {Trigger.HELLO: State.OPEN, Trigger.DETACH: State.DETACHED, **_ENDS},
        State.CLOSED: {Trigger.DETACH: State.CLOSED, Trigger.CLOSE: State.CLOSED},
    }
)

_ESTABLISHED: Final = frozenset({State.OPEN, State.DETACHED, State.RESUMING})

_TRIGGERS: Final = {
    Kind.HELLO: Trigger.HELLO,
    Kind.CREDIT: Trigger.CREDIT,
    Kind.PING: Trigger.PING,
    Kind.BYE: Trigger.BYE,
}


class Opened(NamedTuple):
    """Frames flow now: for the first time, or again."""

    greeting: bytes
    resumed: bool


class Credited(NamedTuple):
    """There is more room than before: what `can_send` refused may fit."""

    retained: int
    """Frames that are still kept."""


class Ended(NamedTuple):
    """The session is over; nothing follows."""

    error: CallError


Event = Frame | Opened | Credited | Ended


class Session:
    """One end of a session. Bytes in, events out; frames in, bytes out."""

    def __init__(
        self,
        role: Role,
        session_id: bytes,
        *,
        limits: Limits | None = None,
        greeting: bytes = b"",
        resumable: bool = True,
    ) -> None:
        """`session_id`: 16 bytes, random at the dialer's, and from the dialer's HELLO at the listener's.

        `greeting`: at most 64 KiB that the application says first. `resumable`: whether the dialer comes back.
        """
        self._role = role
        self._id = session_id
        self._limits = limits or Limits()
        self._greeting = greeting
        self._resumable = resumable
        self._state = State.NEW
        self._ending: CallError | None = None
        self._attempt = 0
        self._decoder = FrameDecoder()
        self._outbox = Outbox(self._limits)
        self._inbox = Inbox(self._limits)
        self._greetings: list[bytes] = []
        self._farewell: bytes | None = None
        self._asked = False
        self._ping_due = False

    def __repr__(self) -> str:
        # Without the id: whoever knows it can resume the session.
        return f"Session({self._role.value}, {self._state.value}, received={self._inbox.received})"

    @property
    def state(self) -> State:
        return self._state

    @property
    def ending(self) -> CallError | None:
        """Why the session is over; None while it is not."""
        return self._ending

    @property
    def resumable(self) -> bool:
        """Whether the dialer comes back after its connection was lost (a listener knows it from HELLO)."""
        return self._resumable

    @property
    def retained(self) -> tuple[int, int]:
        """(frames, bytes) that this end keeps until they are acknowledged."""
        return len(self._outbox), self._outbox.size

    @property
    def unconsumed(self) -> tuple[int, int]:
        """(requests, bytes of them) that were received and not yet consumed."""
        return self._inbox.unconsumed

    # -- streams -------------------------------------------------------------------------------------------------

    def admits(self, hello: Hello) -> bool:
        """Whether a stream that begins with this HELLO is newer than all before: an overtaken one is not attached."""
        return self._state is not State.CLOSED and hello.session == self._id and hello.attempt > self._attempt

    def attach(self) -> None:
        """A new byte stream begins. Detach the old one first: `RuntimeError` otherwise, and when it is over."""
        self._move(Trigger.ATTACH)
        self._decoder = FrameDecoder()
        if self._role is Role.DIALER:
            self._attempt += 1
            self._greetings.append(self._hello(established=self._state is State.RESUMING))

    def detach(self) -> None:
        """The byte stream has ended, in whatever state; half a frame that had arrived is forgotten."""
        self._move(Trigger.DETACH)
        self._greetings.clear()
        self._farewell = None
        self._asked = self._ping_due = False

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """What `data` from the stream means. Never raises for what the other end did: that is an `Ended` event."""
        if self._state is State.CLOSED:
            return []
        if self._state in (State.NEW, State.DETACHED):
            raise RuntimeError("bytes arrive, but no stream is attached")
        events: list[Event] = []
        try:
            for frame in self._decoder.feed(data):
                if frame.flags:
                    raise FrameError(f"flags {frame.flags:#04x} have no meaning in a session")
                if frame.kind <= Kind.TELL and self._state is State.OPEN:
                    self._inbox.receive(frame)
                    events.append(frame)
                else:
                    self._control(frame, events)
                    if self._ending is not None:
                        return events
            if self._decoder.error is not None:
                raise FrameError(self._decoder.error)
        except FrameError as error:
            self._refuse(CallError(Code.INVALID, str(error)), events)
        return events

    def data_to_send(self, limit: int = 1 << 20) -> list[bytes]:
        """Byte strings to write next, in order, about `limit` bytes in all; empty when there is nothing to write.

        What it returned counts as sent on this stream. Small frames come joined, large bodies as they are.
        """
        out: list[bytes] = []
        small: list[bytes] = []
        if self._greetings:
            small += self._greetings
            self._greetings.clear()
        is_open = self._state is State.OPEN
        if is_open and self._inbox.due:
            small.append(encode_frame(Frame(Kind.CREDIT, body=encode_credit(self._inbox.give()))))
        if is_open or self._farewell is not None:
            self._outbox.take(limit, small, out)
            if not self._outbox.waiting:
                # After all that it asks about: the CREDIT that answers covers every frame before the PING.
                if self._ping_due and is_open:
                    self._ping_due = False
                    small.append(encode_frame(Frame(Kind.PING)))
                if self._farewell is not None:
                    small.append(self._farewell)
                    self._farewell = None
        if small:
            out.append(b"".join(small))
        return out

    # -- the application's side ----------------------------------------------------------------------------------

    def can_send(self, kind: Kind, size: int) -> bool:
        """Whether a frame of this kind, with a body of `size` bytes, fits the bounds and the other end's window."""
        return self._state in _ESTABLISHED and self._outbox.fits(kind, size)

    def send(self, frame: Frame) -> None:
        """Queue an application frame. Raises `RuntimeError` unless `can_send`, `FrameError` when it is too large."""
        if not self.can_send(frame.kind, len(frame.body)):
            raise RuntimeError(f"{frame.kind.name} of {len(frame.body)} bytes does not fit: ask can_send first")
        self._outbox.put(frame)

    def consume(self, frame: Frame) -> None:
        """A received request (CALL, TELL) is done with: its room is given back to the other end."""
        self._inbox.consume(frame)

    def ask_credit(self) -> None:
        """`can_send` refused: have the other end say CREDIT. Asks once, until a CREDIT brings room."""
        if not self._asked and self._state is State.OPEN:
            self._asked = self._ping_due = True

    def ping(self) -> None:
        """Have the other end show that it lives; nothing happens without a stream."""
        if self._state is State.OPEN:
            self._ping_due = True

    def settle(self) -> None:
        """Acknowledge now what else would wait for more, so that the other end can forget it."""
        self._inbox.settle()

    def close(self, error: CallError | None = None) -> None:
        """End the session: what is queued is still sent, then BYE with the reason. Later calls do nothing."""
        was = self._state
        self._move(Trigger.CLOSE)
        if was is State.CLOSED:
            return
        self._ending = error or CallError(Code.UNAVAILABLE, "the session was closed at this end")
        if was is not State.OPEN:
            self._outbox.clear()
        if was not in (State.NEW, State.DETACHED):
            self._farewell = encode_frame(Frame(Kind.BYE, body=b"" if error is None else error.encode()))

    # -- inside --------------------------------------------------------------------------------------------------

    def _move(self, trigger: Trigger) -> None:
        after = TRANSITIONS[self._state].get(trigger)
        if after is None:
            raise RuntimeError(f"{trigger.value} is not possible while the session is {self._state.value}")
        self._state = after

    def _control(self, frame: Frame, events: list[Event]) -> None:
        trigger = _TRIGGERS.get(frame.kind, Trigger.APPLICATION)
        if trigger not in TRANSITIONS[self._state]:
            raise FrameError(f"{frame.kind.name} is not possible while the session is {self._state.value}")
        if trigger is Trigger.HELLO:
            self._on_hello(frame.body, events)
        elif trigger is Trigger.CREDIT:
            if self._outbox.credit(parse_credit(frame.body)):
                self._asked = False
                events.append(Credited(len(self._outbox)))
        elif trigger is Trigger.PING:
            self._inbox.ask()
        else:
            self._outbox.clear()
            self._move(Trigger.BYE)
            self._ending = _said(frame.body)
            events.append(Ended(self._ending))

    def _on_hello(self, body: bytes, events: list[Event]) -> None:
        try:
            hello = parse_hello(body)
        except CallError as error:
            self._refuse(error, events)
            return
        resumed = self._state is State.RESUMING
        if hello.session != self._id:
            raise FrameError("the HELLO is of another session")
        if self._role is Role.LISTENER:
            if hello.attempt <= self._attempt:
                raise FrameError(f"connection {hello.attempt} was overtaken by connection {self._attempt}")
            # The dialer may never have heard this end; the other way round, this process has forgotten the session.
            forgotten = hello.established and not resumed
        else:
            if hello.attempt != self._attempt:
                raise FrameError(f"the HELLO answers connection {hello.attempt}, not {self._attempt}")
            forgotten = resumed and not hello.established
        if forgotten:
            self._refuse(unknown_session(), events)
            return
        self._outbox.resume(hello.received)
        self._outbox.open_window(hello.window_frames, hello.window_bytes)
        self._inbox.restart(due=resumed)
        if self._role is Role.LISTENER:
            self._attempt = hello.attempt
            self._resumable = hello.resumable
            self._greetings.append(self._hello(established=resumed))
        self._move(Trigger.HELLO)
        events.append(Opened(hello.greeting, resumed))

    def _hello(self, *, established: bool) -> bytes:
        hello = Hello(
            "tea",
            LOWEST_VERSION,
            HIGHEST_VERSION,
            self._id,
            self._attempt,
            self._inbox.received,
            established,
            self._resumable,
            self._limits.window_frames,
            self._limits.window_bytes,
            self._greeting,
        )
        return encode_frame(Frame(Kind.HELLO, body=hello.encode()))

    def _refuse(self, error: CallError, events: list[Event]) -> None:
        self._outbox.clear()
        self._greetings.clear()
        self._move(Trigger.MALFORMED)
        self._ending = error
        self._farewell = farewell(error)
        events.append(Ended(error))


def farewell(error: CallError) -> bytes:
    """A BYE frame with a reason, for a stream that belongs to no session."""
    return encode_frame(Frame(Kind.BYE, body=error.encode()))


def unknown_session() -> CallError:
    """What a listener says to a dialer that wants to resume what this process does not know."""
    return CallError(Code.CONFLICT, "the session is not known here: did the process restart?")


def _said(body: bytes) -> CallError:
    if not body:
        return CallError(Code.UNAVAILABLE, "the other end closed the session")
    error = CallError.decode(body)
    return CallError(error.code, f"the other end closed the session: {error.sentence}")
