"""A timer and the delays between its ticks: fixed, or drawn from a seed that the parent does not know.

May not: read a clock or tell anyone. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Timer:
    """One timer of one replica."""

    operation: str
    token: str
    delays: Iterator[float]
    repeats: bool
    due: float = 0.0
    """When it ticks next, in monotonic seconds."""
    handle: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


def fixed_delays(seconds: float) -> Iterator[float]:
    """The same delay for ever."""
    return itertools.repeat(seconds)


def delays_between(seed: bytes, least: float, most: float) -> Iterator[float]:
    """Delays spread evenly from `least` to `most`, from SHA-256(seed || number of the tick).

    One request of the NSM serves all ticks, and who does not know the seed can't tell the next from the last.
    """
    for number in itertools.count():
        drawn = hashlib.sha256(seed + number.to_bytes(8, "big")).digest()
        # 53 bits: as many as a float holds exactly.
        yield least + (most - least) * (int.from_bytes(drawn[:8], "big") >> 11) / float(1 << 53)
