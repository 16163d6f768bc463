"""What one worker's provider calls take of the host's loop, beyond what honest calls of their size take.

May not: believe the wall clock alone (the kernel may have run somebody else meanwhile), or charge a cheap call.
Rule: docs/architecture.md, "Back-pressure".
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from .refusals import Debt

FREE_SECONDS: Final = 10e-6
"""Of one call, never counted: twice what a usual one takes."""
SECONDS_PER_BYTE: Final = 1e-9
"""Never counted either, for the bytes of arguments and result: a few times what it takes to copy them through."""
SHARE: Final = 0.25
"""Of the loop, for what is counted of one worker's calls."""
_OTHERS: Final = 1 / SHARE - 1
"""What the others have of the loop, for each second that is counted."""
TURN_SECONDS: Final = 40e-6
"""What may be counted at once; then the others have their turn: less than a call of theirs takes anyway."""
AT_ONCE_SECONDS: Final = 15e-6
"""For calls that came in one read, free ones included: then the others have their turn as well."""
CHEAP_SECONDS: Final = 100e-6
"""Of one call. What goes beyond it is charged: whoever meets it notices, whatever its share."""
CHARGED_AT_MOST: Final = 2e-3
"""Of one call, so that no single pause (a collection of garbage, say) holds anybody back."""
LIMIT_SECONDS: Final = 8e-3
"""What may be charged within a second."""
WATCHED_SECONDS: Final = 10.0
"""How long a worker that reached the limit by the wall clock is measured by the processor's."""

ALONE_SECONDS: Final = 0.1
"""For so long nobody else was heard, seen from when this worker took much."""

Clock = Callable[[], float]
Others = Callable[[], int]
"""A number that is another one when somebody else was heard meanwhile."""
Later = Callable[[float, Callable[[], None]], object]


class _Pauses:
    """Seconds that collections of garbage took, until they are asked for: they are nobody's in particular."""

    def __init__(self) -> None:
        self._began = 0.0
        self._seconds = 0.0

    def __call__(self, phase: str, info: object) -> None:
        if phase == "start":
            self._began = time.monotonic()
        else:
            self._seconds += time.monotonic() - self._began

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


_pauses: Final = _Pauses()
gc.callbacks.append(_pauses)


class LoopTime:
    """One worker's account, with two bounds; what follows from them, its `Debt` says to the port.

    Nothing follows while no other worker has anything to say: an idle loop is there to be used. Otherwise, what its
    calls take beyond `FREE_SECONDS` each may come to a quarter of the loop: over that, it lets the others have some
    turns after every call or two. And of dear calls only a few go through, then it is held for long: a busy neighbour
    meets them in a few of a thousand calls then, which is less than shows in its p99.

    Reading the wall clock costs 45 ns, the thread's own 670 ns. So a worker is measured by the first, and by the second
    once it looks dear: only what the processor says holds it for long.
    """

    __slots__ = (
        "_charged",
        "_company",
        "_counted",
        "_cpu",
        "_debt",
        "_drained",
        "_heard",
        "_later",
        "_others",
        "_pauses",
        "_since",
        "_wall",
        "at_once",
        "clock",
        "usual",
    )

    def __init__(
        self,
        debt: Debt,
        later: Later,
        others: Others,
        wall: Clock = time.monotonic,
        cpu: Clock = time.thread_time,
        pauses: Clock = _pauses.take,
    ) -> None:
        self._debt = debt
        self._later = later
        self._others = others
        self._heard = 0
        self._company = 0.0
        self._wall = wall
        self._cpu = cpu
        self._pauses = pauses
        self._counted = 0.0
        self._drained = 0.0
        self._charged = 0.0
        self._since = 0.0
        self.clock = wall
        """What a call is measured with now, at its begin and at its end."""
        self.at_once = 0.0
        """What its calls of this read took so far."""
        self.usual = 0.0
        """What the tasks of its calls took lately: those that are begun at once are counted before they run."""

    @property
    def watched(self) -> bool:
        """Whether it is measured by the processor's clock."""
        return self.clock is self._cpu

    def took(self, seconds: float, size: int) -> None:
        """A call took so much of the loop, for `size` bytes of arguments and result; `at_once` has it already.

        Need not be said of one that took no more than `FREE_SECONDS` while `at_once` is within its bound.
        """
        excused = size * SECONDS_PER_BYTE + self._pauses()
        seconds -= excused
        self.at_once -= excused
        if self.at_once > AT_ONCE_SECONDS:
            taken, self.at_once = self.at_once, 0.0
            if not self._is_alone(self._wall()):
                self._debt.rest(taken * _OTHERS, lapses=True)
        self._count(seconds)
        self._charge(seconds)

    def begins(self) -> None:
        """A call goes on in a task. Need not be said while `usual` is within `FREE_SECONDS`."""
        self._count(self.usual)

    def ended(self, seconds: float, size: int) -> None:
        """A call's task took so much of the loop, for `size` bytes of result."""
        seconds -= size * SECONDS_PER_BYTE
        self.usual += (seconds - self.usual) / 4
        if seconds > CHEAP_SECONDS:
            self._charge(seconds - self._pauses())

    def _count(self, seconds: float) -> None:
        if seconds <= FREE_SECONDS:
            return
        now = self._wall()
        left = max(0.0, self._counted - (now - self._drained) * SHARE)
        # One call is no more than one turn: it may be the kernel that took the rest. If not, it is charged for it.
        self._counted, self._drained = left + min(seconds - FREE_SECONDS, TURN_SECONDS), now
        if self._counted > TURN_SECONDS:
            if self._is_alone(now):
                self._counted = 0.0
            else:
                self._debt.rest(seconds * _OTHERS)

    def _charge(self, seconds: float) -> None:
        dear = seconds - CHEAP_SECONDS
        if dear <= 0:
            return
        now = self._wall()
        if now - self._since > 1.0:
            self._charged, self._since = 0.0, now
        self._charged += min(dear, CHARGED_AT_MOST)
        if self._charged < LIMIT_SECONDS:
            return
        self._charged = 0.0
        if self._is_alone(now):
            return
        if self.watched:
            self._debt.exhaust()
        else:
            self.clock = self._cpu
            self._later(WATCHED_SECONDS, self._trust)

    def _is_alone(self, now: float) -> bool:
        heard = self._others()
        if heard != self._heard:
            self._heard, self._company = heard, now
        return now - self._company > ALONE_SECONDS

    def _trust(self) -> None:
        self.clock = self._wall
