"""The host's loop looks before it sleeps while workers speak at short intervals (`worker/busy_poll.py`).

May not: hold back anything that is due in the loop, or take turns from the host's threads or from workers.
Rule: docs/decisions/0013-looking-before-sleeping.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from .worker.busy_poll import MOST_SECONDS, SHORT_WAITS, has_cores

CROWDED_SECONDS: Final = 5e-6
"""A turn given to whoever waits for this core that takes longer: there was somebody, and a worker in all likelihood."""
APART_SECONDS: Final = 0.002
"""How long the loop sleeps as usual then, so that the kernel can find them a core each."""


Clock = Callable[[], float]


class BusyLoop:
    """Keeps a loop turning for a moment after what it is told of, if the last came at short intervals."""

    __slots__ = ("_clock", "_last", "_loop", "_not_before", "_short", "_turning", "_yield", "on", "others")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock = time.monotonic,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self.on = has_cores()
        self.others: Callable[[], bool] = lambda: False
        """Whether other threads of this process are at work: a loop that turns would keep the interpreter from them."""
        self._loop = loop
        self._clock = clock
        self._yield = give_way
        self._last = 0.0
        self._short = 0
        self._not_before = 0.0
        self._turning = False

    def heard(self) -> None:
        """Something came in."""
        now = self._clock()
        if not self._turning:
            if now - self._last >= MOST_SECONDS:
                self._short = 0
            elif self._short < SHORT_WAITS:
                self._short += 1
            elif self.on and now > self._not_before:
                self._turning = True
                self._loop.call_soon(self._turn)
        self._last = now

    def make_room(self) -> None:
        """Somebody keeps the host busy, and a core of its own as well: sleep as usual for a while.

        A loop that turns while it has nothing to do would have the last core, and whoever the host waits for none.
        """
        self._not_before = self._clock() + APART_SECONDS

    def _turn(self) -> None:
        now = self._clock()
        if self._not_before < now < self._last + MOST_SECONDS and not self.others():
            self._yield()
            after = self._clock()
            if after - now <= CROWDED_SECONDS:
                self._loop.call_soon(self._turn)
                return
            self.make_room()
        self._turning = False
        self._short = 0
