"""A token bucket: so many at once, so many a second in the long run.

May not: read a clock (the moment is an argument). Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations


class Bucket:
    """`rate` tokens a second flow in, at most `burst` are kept. Full at the start."""

    __slots__ = ("_burst", "_level", "_rate", "_seen")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._level = float(burst)
        self._seen = now

    def retune(self, rate: float, burst: int) -> None:
        """Go on at another rate; what is kept beyond the new burst is lost, and nothing is given."""
        self._rate = rate
        self._burst = float(burst)
        self._level = min(self._level, self._burst)

    def take(self, now: float) -> bool:
        """Take one token at `now` (monotonic seconds); False when there is none."""
        if now > self._seen:
            self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
            self._seen = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True
