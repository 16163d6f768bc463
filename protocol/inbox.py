"""What one end of a session has received: what it must acknowledge, and which requests it has not consumed.

May not: keep frames; it counts them. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from typing import Final

from .frame import HEADER_SIZE, Frame, FrameError, Kind
from .hello import Credit
from .limits import Limits

ACKNOWLEDGE_FRAMES: Final = 64
ACKNOWLEDGE_BYTES: Final = 256 * 1024
"""A CREDIT is due after this many frames, or bytes, that were received and not acknowledged."""


class Inbox:
    """Counts what was received and consumed, holds the other end to its window, and knows when a CREDIT is due."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.received = 0
        self.due = False
        """Whether a CREDIT should be written now."""
        self._owed_frames = 0
        self._owed_bytes = 0
        self._requests = 0
        self._request_bytes = 0
        self._consumed_frames = 0
        self._consumed_bytes = 0
        self._given = Credit(0, 0, 0)
        self._eager = False

    @property
    def unconsumed(self) -> tuple[int, int]:
        """(requests, bytes of them) that were received and not yet consumed."""
        return self._requests - self._consumed_frames, self._request_bytes - self._consumed_bytes

    def receive(self, frame: Frame) -> None:
        """Count an application frame. Raises `FrameError` on a request beyond the window."""
        size = HEADER_SIZE + len(frame.body)
        if frame.kind is Kind.CALL or frame.kind is Kind.TELL:
            waiting = self._requests - self._consumed_frames
            waiting_bytes = self._request_bytes - self._consumed_bytes
            if waiting and (waiting >= self._limits.window_frames or waiting_bytes + size > self._limits.window_bytes):
                raise FrameError(f"a request beyond the window: {waiting} of {waiting_bytes} bytes are not consumed")
            self._requests += 1
            self._request_bytes += size
        self.received += 1
        self._owed_frames += 1
        self._owed_bytes += size
        if self._owed_frames >= ACKNOWLEDGE_FRAMES or self._owed_bytes >= ACKNOWLEDGE_BYTES:
            self.due = True

    def consume(self, frame: Frame) -> None:
        """A received request is done with. A CREDIT is due for every quarter of the window, or at once after `ask`."""
        self._consumed_frames += 1
        self._consumed_bytes += HEADER_SIZE + len(frame.body)
        if (
            self._eager
            or (self._consumed_frames - self._given.consumed_frames) * 4 >= self._limits.window_frames
            or (self._consumed_bytes - self._given.consumed_bytes) * 4 >= self._limits.window_bytes
        ):
            self._eager = False
            self.due = True

    def ask(self) -> None:
        """The other end asked for credit: it is due now, and again as soon as something is consumed."""
        self.due = self._eager = True

    def settle(self) -> None:
        """Make a CREDIT due if there is anything to say."""
        if self._owed_frames or self._given.consumed_frames != self._consumed_frames:
            self.due = True

    def restart(self, *, due: bool) -> None:
        """A new stream has begun; HELLO has acknowledged what was received."""
        self._owed_frames = self._owed_bytes = 0
        self.due = due

    def give(self) -> Credit:
        """What the CREDIT that is written now says."""
        self._given = Credit(self.received, self._consumed_frames, self._consumed_bytes)
        self._owed_frames = self._owed_bytes = 0
        self.due = False
        return self._given
