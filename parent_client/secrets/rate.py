"""A bound on requests in a time: one token bucket for each who asks, in bounded memory.

May not: read a clock. Rule: docs/secrets.md, "Limits".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tea.trust.release import ReleaseCode, ReleaseError

MAX_BUCKETS: Final = 4096
"""Who asked longest ago is forgotten beyond that."""


class RateLimit:
    """At most `burst` at once and `per_second` on average, for each key."""

    def __init__(self, per_second: float, burst: int) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a rate is above 0 and a burst at least 1")
        self._rate, self._burst = per_second, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Raise `ReleaseError(TOO_MANY)` when `key` asks too often; `now` in seconds, of a clock that never falls."""
        tokens, before = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - before) * self._rate)
        enough = tokens >= 1
        self._buckets[key] = (tokens - 1 if enough else tokens, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not enough:
            raise ReleaseError(
                ReleaseCode.TOO_MANY,
                f"more than {self._burst} requests at once, or {self._rate:g} a second: ask again in "
                f"{(1 - tokens) / self._rate:.1f} s",
            )
