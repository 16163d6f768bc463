"""The two ends of a lane, as a worker has them: a socket straight to one replica of another actor.

May not: trust what comes out of it: another actor is at the other end. Neither end ever waits in here.
Rule: docs/architecture.md, "Direct links".

    caller -> callee   CALL: link = milliseconds of the monotonic clock at sending, deadline = what remained then
    callee -> caller   REPLY or ERROR, exactly one for each CALL, also for one that is not waited for any more
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import time
from typing import Final

from tea.protocol.frame import HEADER, Frame, FrameDecoder, FrameError, Kind
from tea.protocol.operations import Operation

from .wire import LaneEnd

MAX_ARGUMENTS: Final = 16 << 10
"""Bytes of arguments that go by a lane; larger ones go by the host."""
LANE_BYTES: Final = 128 << 10
"""What may be under way on a lane, `CHARGE` counted for each call: less than its buffer holds, so that sending never
waits."""
CHARGE: Final = 1 << 10
READ: Final = 32 << 10
_CLOCK: Final = 0xFFFF_FFFF


class LaneBroken(Exception):
    """The other end sent what it may not: this lane ends, and nothing else."""


def now_ms() -> int:
    """The clock that all workers of a machine have, in milliseconds, as a lane carries it."""
    return int(time.monotonic() * 1000) & _CLOCK


def age_ms(sent: int) -> int:
    """Milliseconds since a stamp of `now_ms`; 0 for one that lies in the future."""
    age = (now_ms() - sent) & _CLOCK
    return age if age <= _CLOCK >> 1 else 0


class _End:
    """What both ends are."""

    def __init__(self, connection: socket.socket, told: LaneEnd, max_body: int) -> None:
        self.socket = connection
        self.told = told
        self.decoder = FrameDecoder(max_body)
        self.ended = False
        """Whether nothing more comes."""

    @property
    def name(self) -> str:
        return f"{self.told.peer}#{self.told.replica}"

    def receive(self) -> list[Frame]:
        """What is there now, without waiting; sets `ended`. Raises `LaneBroken`."""
        try:
            data = self.socket.recv(READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:  # its worker ended with something unread
            data = b""
        if not data:
            self.ended = True
            return []
        try:
            frames = self.decoder.feed(data)
        except FrameError as error:
            raise LaneBroken(f"a malformed frame: {error}") from None
        if self.decoder.error is not None:
            raise LaneBroken(f"a malformed frame: {self.decoder.error}")
        return frames

    def cut(self) -> None:
        """End it, both ways. Its number stays taken: there is nothing to open in its place."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Outgoing(_End):
    """The caller's end."""

    def __init__(self, connection: socket.socket, told: LaneEnd, host: socket.socket) -> None:
        super().__init__(connection, told, 1 << 20)
        self.open = True
        """Whether calls can be sent: not any more once the callee retires, though answers still come."""
        self.under_way = 0
        """Bytes, see `LANE_BYTES`."""
        self.charges: dict[int, int] = {}
        """Calls that have no answer yet, by correlation."""
        self.abandoned: set[int] = set()
        """Those of them that nobody waits for."""
        self.answers: dict[int, Frame] = {}
        self._held: list[bytes] = []
        self.poll = select.poll()
        """This lane and the host's socket."""
        self.poll.register(host, select.POLLIN)
        self.poll.register(connection, select.POLLIN)

    def has_room(self, size: int, window: int) -> bool:
        """Whether a call with this many bytes of arguments may be sent now."""
        return self.open and self.under_way + CHARGE + size <= LANE_BYTES and len(self.charges) < window

    def send(self, correlation: int, operation: int, deadline: int, body: bytes, *, hold: bool = False) -> bool:
        """Send a call, whole and at once, or not at all (False). `hold`: at the next `flush`, with what follows."""
        size = len(body)
        data = HEADER.pack(size, Kind.CALL, 0, operation, now_ms(), correlation, 0, deadline) + body
        if hold:
            self._held.append(data)
        else:
            self.flush()
            if not (self.open and self._write(data)):
                return False
        self.charges[correlation] = CHARGE + size
        self.under_way += CHARGE + size
        return True

    def flush(self) -> None:
        """Send what is held back. If that fails, the lane has ended, and whoever waits for these calls is told so."""
        if self._held:
            held, self._held = self._held, []
            if not self._write(b"".join(held)):
                self.cut()

    def _write(self, data: bytes) -> bool:
        try:
            sent = self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self.open = False
            return False
        if sent != len(data):
            self.cut()  # half a frame: the callee drops it, and whatever else this lane had under way
            return False
        return True

    def take_answers(self) -> None:
        """Read what is there now. Raises `LaneBroken`."""
        frames = self.receive()
        if self.ended:
            self.open = False
        for frame in frames:
            number = frame.correlation
            charge = self.charges.pop(number, None)
            if charge is None or frame.flags or (frame.kind is not Kind.REPLY and frame.kind is not Kind.ERROR):
                raise LaneBroken(f"{frame.kind.name} {number}, which answers no call")
            self.under_way -= charge
            if number in self.abandoned:
                self.abandoned.discard(number)
            else:
                self.answers[number] = frame

    def cut(self) -> None:
        self.open = False
        super().cut()


class Incoming(_End):
    """The callee's end. Who calls is what the host said of this lane, whatever comes out of it."""

    def __init__(self, connection: socket.socket, told: LaneEnd) -> None:
        super().__init__(connection, told, MAX_ARGUMENTS)
        self.caller = told.peer
        self.granted: tuple[Operation | None, ...] = ()
        """By their number on the link; None: the actor does not have it."""
        self.mail: collections.deque[Frame] = collections.deque()
        self.unsent: memoryview | None = None
        """The rest of an answer that the caller has not read: until then nothing more is taken from it."""

    @property
    def is_due(self) -> bool:
        """Whether there is a call to begin."""
        return bool(self.mail) and self.unsent is None

    def hear(self, events: int) -> None:
        """Act on what `poll` said of it. Raises `LaneBroken`."""
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            # Both ways are shut: the caller is gone, or the host has cut the lane. What is queued is nobody's any more.
            self.drop()
        elif events & select.POLLOUT and self.unsent is not None:
            self.send(self.unsent)
        elif events & select.POLLIN and not self.mail and self.unsent is None:
            for frame in self.receive():
                if frame.kind is not Kind.CALL or frame.flags or frame.cause or not frame.correlation:
                    raise LaneBroken(f"{frame.kind.name} with flags {frame.flags}, where only calls may come")
                self.mail.append(frame)

    def wants(self) -> int:
        """What to ask `poll` for. The end of the lane is told unasked."""
        if self.unsent is not None:
            return select.POLLOUT
        return 0 if self.mail or self.ended else select.POLLIN

    def send(self, data: bytes | memoryview) -> None:
        """Send an answer, as much of it as goes at once."""
        view = memoryview(data)
        try:
            while view:
                view = view[self.socket.send(view, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            self.unsent = view
            return
        except OSError:
            self.drop()
        self.unsent = None

    def drop(self) -> None:
        """Forget all that came by it."""
        self.ended = True
        self.mail.clear()
        self.unsent = None

    def cut(self) -> None:
        self.drop()
        super().cut()
