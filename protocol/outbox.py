"""What one end of a session has sent and must keep until it is acknowledged, within the other end's window.

May not: know of streams' states or of what frames say. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from .frame import HEADER_SIZE, Frame, FrameError, Kind, encode_frame
from .hello import Credit
from .limits import Limits

_JOIN_LIMIT: Final = 64 * 1024
# Bodies above this are handed to the transport as they are; below, one joined write is cheaper than two.


class _Retained(NamedTuple):
    head: bytes
    """The frame; without its body when that is large."""
    body: bytes | None
    size: int


class Outbox:
    """The retransmission queue: frames that wait, frames that were written on the present stream, and the window.

    Bounded by `Limits.retained_*`, and by what the other end announced with `open_window`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[_Retained] = deque()
        self._written: deque[_Retained] = deque()
        self._bytes = 0
        self._acknowledged = 0
        self._highest_written = 0
        self._window_frames = 0
        self._window_bytes = 0
        self._requests = 0
        self._request_bytes = 0
        self._credited = Credit(0, 0, 0)

    def __len__(self) -> int:
        """Frames that are kept."""
        return len(self._waiting) + len(self._written)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """Frames that are not yet written on the present stream."""
        return len(self._waiting)

    def open_window(self, frames: int, size: int) -> None:
        """What the other end's HELLO announced: requests, and bytes of requests, that it takes without consuming."""
        self._window_frames, self._window_bytes = frames, size

    def fits(self, kind: Kind, size: int) -> bool:
        """Whether a frame with a body of `size` bytes fits the bounds, and, as a request, the other end's window."""
        total = size + HEADER_SIZE
        kept = len(self._waiting) + len(self._written)
        if kept and (kept >= self._limits.retained_frames or self._bytes + total > self._limits.retained_bytes):
            return False
        if kind is Kind.CALL or kind is Kind.TELL:
            outstanding = self._requests - self._credited.consumed_frames
            return not outstanding or (
                outstanding < self._window_frames
                and self._request_bytes - self._credited.consumed_bytes + total <= self._window_bytes
            )
        return True

    def put(self, frame: Frame) -> None:
        """Queue a frame that `fits`. Raises `FrameError` when no frame can be that large."""
        if len(frame.body) > _JOIN_LIMIT:
            item = _Retained(encode_frame(frame, with_body=False), frame.body, HEADER_SIZE + len(frame.body))
        else:
            item = _Retained(encode_frame(frame), None, HEADER_SIZE + len(frame.body))
        self._waiting.append(item)
        self._bytes += item.size
        if frame.kind is Kind.CALL or frame.kind is Kind.TELL:
            self._requests += 1
            self._request_bytes += item.size

    def take(self, limit: int, small: list[bytes], out: list[bytes]) -> None:
        """Move about `limit` bytes of frames to `out`, in order; `small` holds pieces that still wait to be joined."""
        waiting, written = self._waiting, self._written
        while waiting and limit > 0:
            item = waiting.popleft()
            written.append(item)
            limit -= item.size
            small.append(item.head)
            if item.body is not None:
                out.append(b"".join(small))
                out.append(item.body)
                small.clear()
        self._highest_written = max(self._highest_written, self._acknowledged + len(written))

    def resume(self, received: int) -> None:
        """A new stream, and the other end has `received` frames: forget those, write the others again.

        Raises `FrameError` when that cannot be.
        """
        if not self._acknowledged <= received <= self._highest_written:
            raise FrameError(
                f"{received} frames are said to be received, but {self._acknowledged} were acknowledged before and "
                f"{self._highest_written} were sent"
            )
        self._forget(received)
        self._waiting.extendleft(reversed(self._written))
        self._written.clear()

    def credit(self, credit: Credit) -> bool:
        """The other end has received and consumed this much; True when that is more than before.

        Raises `FrameError` when it is less than before, or more than was sent.
        """
        before = self._credited
        if (
            credit.received < self._acknowledged
            or credit.received > self._acknowledged + len(self._written)
            or not before.consumed_frames <= credit.consumed_frames <= self._requests
            or not before.consumed_bytes <= credit.consumed_bytes <= self._request_bytes
        ):
            raise FrameError(f"{credit} does not follow {before._replace(received=self._acknowledged)}")
        progress = credit.received != self._acknowledged or credit[1:] != before[1:]
        self._forget(credit.received)
        self._credited = credit
        return progress

    def clear(self) -> None:
        """The session is over: keep nothing."""
        self._waiting.clear()
        self._written.clear()
        self._bytes = 0

    def _forget(self, received: int) -> None:
        for _ in range(received - self._acknowledged):
            self._bytes -= self._written.popleft().size
        self._acknowledged = received
