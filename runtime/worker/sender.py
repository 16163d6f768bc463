"""What a worker writes to its socket: at once, or held back for a moment to go out in one write with what follows.

May not: know what it writes, or hold anything back while the worker waits: whoever waits flushes first.
Rule: docs/architecture.md, "What goes out together".
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

HELD_BYTES: Final = 32 << 10
"""What is held back at most."""
QUICK_SECONDS: Final = 0.0005
"""How long an operation may take whose answer waits for those of the calls behind it, and that others wait for."""


class Sender:
    """The writing end of the worker's socket. What is written keeps its order."""

    __slots__ = ("_size", "_socket", "gathers", "held")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._size = 0
        self.held: list[bytes] = []
        """What is held back."""
        self.gathers = False
        """Whether a `gathering` is going on."""

    def send(self, data: bytes) -> None:
        """Write it now, behind what was held back."""
        if self.held:
            self.held.append(data)
            self.flush()
        else:
            self._socket.sendall(data)

    def hold(self, data: bytes) -> None:
        """Write it with what follows, at the next `send` or `flush`."""
        self.held.append(data)
        self._size += len(data)
        if self._size >= HELD_BYTES:
            self.flush()

    def put(self, data: bytes) -> None:
        """`hold` within a `gathering`, `send` otherwise."""
        if self.gathers:
            self.hold(data)
        else:
            self.send(data)

    def flush(self) -> None:
        """Write what is held back."""
        if self.held:
            held, self.held, self._size = self.held, [], 0
            self._socket.sendall(b"".join(held))

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """What is `put` within goes out in one piece at its end, or when the worker waits for something."""
        before, self.gathers = self.gathers, True
        try:
            yield
        finally:
            self.gathers = before
            if not before:
                self.flush()
