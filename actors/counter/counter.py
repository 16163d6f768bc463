"""Counts: the actor of the tutorial. The number lives in kvp, so it outlives its worker, and all replicas share it.

May not: import anything but tea.sdk, msgspec and the standard library. Rule: README.md, "Write an actor".
"""

from __future__ import annotations

from tea.sdk import Actor, CallError, Code, Link, operation

KEY = "count"
MAX_STEP = 1_000_000


class Counter(Actor):
    """One number that only grows."""

    kvp: Link

    @operation
    def increment(self, by: int = 1) -> int:
        """Add `by` (1 to 1,000,000) and answer the new count. Raises INVALID on another step."""
        if not 1 <= by <= MAX_STEP:
            raise CallError(Code.INVALID, f"a step is 1 to {MAX_STEP}, not {by}")
        count: int = self.kvp.incr(KEY, by)
        return count

    @operation
    def value(self) -> int:
        """The count; 0 before the first step."""
        digits: bytes | None = self.kvp.get(KEY)
        return int(digits or b"0")
