"""The last value of each topic that keeps one, within a bound of bytes.

May not: keep more than one value a topic, or decide who gets it. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tea.protocol.errors import CallError, Code

VALUE_COST: Final = 256
"""Bytes charged for a kept value beside its own and its topic's."""


class Retained:
    """Values by topic; `limit` is what they may take together, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: dict[str, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size(self) -> int:
        """Bytes charged for the values that are kept."""
        return self._bytes

    def get(self, topic: str) -> bytes | None:
        """The last value, or None."""
        return self._values.get(topic)

    def put(self, topic: str, value: bytes) -> None:
        """Keep a value in the place of the one before. Raises `CallError(EXHAUSTED)`, and has kept the old one then.

        Over a bound that was lowered, a value that takes no more than the one before still takes its place.
        """
        before = self._charge(topic)
        after = VALUE_COST + len(topic) + len(value)
        if after > before and self._bytes - before + after > self.limit:
            raise CallError(
                Code.EXHAUSTED,
                f"the last values of the topics take {self._bytes} bytes, this one would make "
                f"{self._bytes - before + after} of {self.limit}: raise retained_bytes in the manifest",
                limit=self.limit,
            )
        self._values[topic] = value
        self._bytes += after - before

    def drop(self, topic: str) -> bool:
        """Forget a topic's value; False when there was none."""
        self._bytes -= self._charge(topic)
        return self._values.pop(topic, None) is not None

    def drop_unless(self, keep: Callable[[str], bool]) -> None:
        """Forget the values of the topics for which `keep` says no."""
        for topic in [topic for topic in self._values if not keep(topic)]:
            self.drop(topic)

    def _charge(self, topic: str) -> int:
        value = self._values.get(topic)
        return 0 if value is None else VALUE_COST + len(topic) + len(value)
