"""Frames that wait for room in the session, each with the future of whoever waits for it.

May not: send. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from tea.protocol.frame import Frame


class Turn(NamedTuple):
    """A frame that waits."""

    frame: Frame
    done: asyncio.Future[bytes]
    """A call's: its answer. An answer's: that it was sent. When it is done before its turn, the frame is not sent."""


class Line:
    """First come, first served. What nobody waits for any more is dropped, at the latest when room is needed."""

    def __init__(self, frames: int, size: int) -> None:
        """At most `frames` frames with `size` bytes of bodies; one is always accepted."""
        self._turns: deque[Turn] = deque()
        self._bytes = 0
        self._max_frames = frames
        self._max_bytes = size

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def size(self) -> int:
        """Bytes of the bodies that wait."""
        return self._bytes

    def fits(self, size: int) -> bool:
        """Whether one more body of `size` bytes may wait."""
        if self._fits(size):
            return True
        self._turns = deque(turn for turn in self._turns if not turn.done.done())
        self._bytes = sum(len(turn.frame.body) for turn in self._turns)
        return self._fits(size)

    def append(self, turn: Turn) -> None:
        """Wait at the end."""
        self._turns.append(turn)
        self._bytes += len(turn.frame.body)

    def first(self) -> Turn | None:
        """Whose turn it is."""
        while self._turns and self._turns[0].done.done():
            self.pop()
        return self._turns[0] if self._turns else None

    def pop(self) -> None:
        """The first one's turn has come."""
        self._bytes -= len(self._turns.popleft().frame.body)

    def clear(self) -> None:
        """The session is over."""
        self._turns.clear()
        self._bytes = 0

    def _fits(self, size: int) -> bool:
        return not self._turns or (len(self._turns) < self._max_frames and self._bytes + size <= self._max_bytes)
