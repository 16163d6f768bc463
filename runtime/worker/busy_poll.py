"""Looking before sleeping: who was not kept waiting long lately looks again and again for a moment, then sleeps.

Waking a core that has gone to sleep takes longer than most calls do. So a process that waits for something that will
be there at once, by all experience, does not let its core sleep; where it comes later, this costs one such moment.

May not: change what is waited for, or for how long; take turns from anybody who has something to do.
Rule: docs/decisions/0013-looking-before-sleeping.md. The kernel does so for virtual machines, with the bound that is
used here (Documentation/virt/kvm/halt-polling.rst).
"""

from __future__ import annotations

import math
import select
from os import sched_getaffinity, sched_yield
from time import monotonic, thread_time
from typing import Final

MOST_SECONDS: Final = 200e-6
"""How long one wait may be spent looking; what takes longer is slept for."""
SHORT_WAITS: Final = 2
"""So many in a row, each shorter than that, make the next one be spent looking."""
CROWDED_SECONDS: Final = 50e-6
"""A turn given to whoever waits for this core that takes longer than the two ends of a call: cores are scarce."""
APART_SECONDS: Final = 0.005
"""How long nothing is looked for then."""
SHARE: Final = 0.8
"""Of one core, for all that a worker does: beyond it, it sleeps. A cgroup would stop it at 0.9, for longer."""
BURST_SECONDS: Final = 0.005
"""Of processor time that may be taken beyond that share, or saved up."""
_COUNTED: Final = 16
"""Waits between two looks at the processor's clock, which is a system call."""


def has_cores() -> bool:
    """Whether this process may run on more than one core: on one, who looks keeps waiting whoever it waits for."""
    return len(sched_getaffinity(0)) > 1


class BusyPoll:
    """How a worker waits for one kind of thing."""

    __slots__ = ("_at", "_cpu", "_left", "_not_before", "_short", "_used", "_waits", "on")

    def __init__(self) -> None:
        self.on = False
        """Whether it looks at all; off, it sleeps at once."""
        self._short = 0
        self._not_before = 0.0
        self._waits = 0
        self._left = BURST_SECONDS
        self._at = self._used = 0.0

    def wait(self, poll: select.poll, timeout: float | None = None) -> list[tuple[int, int]]:
        """What `poll` finds, after at most `timeout` seconds; None: for as long as it takes."""
        milliseconds = None if timeout is None else math.ceil(max(0.0, timeout) * 1000)
        if not self.on or milliseconds == 0:
            return poll.poll(milliseconds)
        began = monotonic()
        if self._short >= SHORT_WAITS and began > self._not_before and self._may(began):
            return self._look(poll, began) or poll.poll(milliseconds)
        found = poll.poll(milliseconds)
        self._short = self._short + 1 if monotonic() - began < MOST_SECONDS else 0
        return found

    def _look(self, poll: select.poll, began: float) -> list[tuple[int, int]]:
        look = poll.poll
        until = began + MOST_SECONDS
        while True:
            found = look(0)
            if found:
                return found
            now = monotonic()
            if now > until:
                break
            sched_yield()
            after = monotonic()
            if after - now > CROWDED_SECONDS:
                self._not_before = after + APART_SECONDS
                break
        self._short = 0
        return []

    def _may(self, now: float) -> bool:
        """Whether its share allows it."""
        self._waits += 1
        if self._waits % _COUNTED == 1:
            cpu = thread_time()
            left = self._left + (now - self._at) * SHARE - (cpu - self._used)
            self._left = max(-BURST_SECONDS, min(left, BURST_SECONDS))
            self._at, self._used = now, cpu
        return self._left > 0
