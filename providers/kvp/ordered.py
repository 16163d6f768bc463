"""An ordered set of plain values in blocks: additions and removals cost about the square root of its size.

May not: know what is stored, or be changed while it is walked. The standard library has no ordered set, and one
sorted list moves megabytes for each key once there are a million. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T", str, bytes, int, tuple[float, bool, str])

BLOCK: Final = 512
"""Values in a block; a block of twice as many is split."""


class Ordered(Generic[T]):
    """Distinct values in ascending order."""

    __slots__ = ("_blocks", "_highest", "_size")

    def __init__(self) -> None:
        self._blocks: list[list[T]] = []
        self._highest: list[T] = []  # the last value of each block: where bisection starts
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, value: T) -> bool:
        at = bisect_left(self._highest, value)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, value)] == value

    def add(self, value: T) -> bool:
        """Put a value in its place; False when it is there already."""
        blocks, highest = self._blocks, self._highest
        at = bisect_left(highest, value)
        if at == len(blocks):
            if not blocks:
                blocks.append([value])
                highest.append(value)
                self._size = 1
                return True
            at -= 1
            block = blocks[at]
            block.append(value)
            highest[at] = value
        else:
            block = blocks[at]
            if block[bisect_left(block, value)] == value:
                return False
            insort(block, value)
        self._size += 1
        if len(block) > 2 * BLOCK:
            upper = block[BLOCK:]
            del block[BLOCK:]
            highest[at] = block[-1]
            blocks.insert(at + 1, upper)
            highest.insert(at + 1, upper[-1])
        return True

    def discard(self, value: T) -> bool:
        """Take a value out; False when it is not there."""
        at = bisect_left(self._highest, value)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        place = bisect_left(block, value)
        if block[place] != value:
            return False
        del block[place]
        self._size -= 1
        if not block:
            del self._blocks[at], self._highest[at]
        elif place == len(block):
            self._highest[at] = block[-1]
        return True

    def first(self) -> T:
        """The lowest value. Raises `IndexError` when there is none."""
        return self._blocks[0][0]

    def held(self, values: list[T]) -> list[T]:
        """Those of `values`, which ascend, that are in it."""
        found: list[T] = []
        blocks, highest = self._blocks, self._highest
        start = 0
        while start < len(values):
            at = bisect_left(highest, values[start])
            if at == len(blocks):
                break
            block = blocks[at]
            end = bisect_right(values, highest[at], start)
            if (end - start) * 8 < len(block):
                found += [value for value in values[start:end] if block[bisect_left(block, value)] == value]
            else:
                there = frozenset(block)
                found += [value for value in values[start:end] if value in there]
            start = end
        return found

    def above(self, start: T | None = None, *, inclusive: bool = False) -> Iterator[T]:
        """The values greater than `start` (from it on, when `inclusive`; all, when None), ascending."""
        at, place = 0, 0
        if start is not None:
            at = bisect_left(self._highest, start) if inclusive else bisect_right(self._highest, start)
            if at < len(self._blocks):
                block = self._blocks[at]
                place = bisect_left(block, start) if inclusive else bisect_right(block, start)
        for number in range(at, len(self._blocks)):
            block = self._blocks[number]
            for index in range(place, len(block)):
                yield block[index]
            place = 0

    def cut(self, size: int) -> list[T]:
        """Keep the `size` lowest values; the others come back, in no promised order."""
        gone: list[T] = []
        while self._size > size:
            block = self._blocks[-1]
            surplus = min(self._size - size, len(block))
            gone += block[-surplus:]
            del block[-surplus:]
            self._size -= surplus
            if block:
                self._highest[-1] = block[-1]
            else:
                del self._blocks[-1], self._highest[-1]
        return gone
