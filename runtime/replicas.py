"""The running replicas of one actor: which of them a call goes to, and who waits for a place in their mailboxes.

May not: deliver anything. Rule: docs/architecture.md, "Back-pressure" and "Sticky keys".
"""

from __future__ import annotations

import collections
import hashlib
import os
from typing import TYPE_CHECKING, Final

from .in_flight import Figures
from .poison import PoisonBook
from .refusals import Refusals

if TYPE_CHECKING:
    from .parking import Parked
    from .worker_port import WorkerPort

_SALT: Final = os.urandom(16)
"""Of this host alone: nobody outside can choose keys that all go to one replica."""


class Line:
    """What one caller has waiting for a place in an actor's mailboxes, oldest first."""

    __slots__ = ("size", "waiting")

    def __init__(self) -> None:
        self.waiting: collections.deque[Parked] = collections.deque()
        self.size = 0
        """Bytes of arguments."""


class ReplicaGroup:
    """The running replicas of one actor; calls go to the least loaded, or to the one that their key names."""

    def __init__(self, name: str, figures: Figures | None = None) -> None:
        self.name = name
        self.ports: list[WorkerPort] = []
        self.lines: dict[str, Line] = {}
        """Who waits, by caller, in the order in which they are served; a caller that waits for nothing has none."""
        self.figures = figures if figures is not None else Figures()
        self.refusals = Refusals()
        self.poison = PoisonBook()
        self.prompt = False
        """Whether workers that start from now on send each answer before they begin the next call: one has ended with
        several in hand, and the next to end shall leave no doubt about which it was."""
        self._turn = 0

    def pick(self, replica: int | None = None) -> WorkerPort | None:
        """The least loaded open replica (in turn among equals), or the one asked for; None when none is open."""
        best: WorkerPort | None = None
        ports = self.ports
        count = len(ports)
        if count == 1 and replica is None:
            return ports[0] if ports[0].open else None
        self._turn += 1
        for offset in range(count):
            port = ports[(self._turn + offset) % count]
            if not port.open or (replica is not None and port.replica != replica):
                continue
            if best is None or len(port.delivered) < len(best.delivered):
                best = port
        return best

    def pick_by(self, key: bytes) -> WorkerPort | None:
        """The open replica that a sticky key goes to: the same one for as long as it is open (rendezvous hashing)."""
        best: WorkerPort | None = None
        highest = b""
        for port in self.ports:
            if port.open:
                weight = hashlib.blake2b(key + port.replica.to_bytes(4), digest_size=8, key=_SALT).digest()
                if best is None or weight > highest:
                    best, highest = port, weight
        return best
