"""Sorted vectors under a key: values under integers, in the integers' order.

May not: wait, or change anything when it refuses: every function is one atomic step over a namespace.
A vector whose last value goes is gone itself. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from tea.protocol.errors import CallError, Code

from . import limits
from .entries import Vector
from .store import Namespace


def insert(space: Namespace, key: str, index: int, value: bytes, overwrite: bool) -> bool:
    """Put a value at an index; False, with nothing done, when one is there and `overwrite` is not set."""
    size = limits.key_size(key)
    limits.require_integer(index, "the index")
    limits.require_value(value)
    now = space.begin()
    entry = space.find(key, Vector, now)
    cost = limits.INDEX_COST + len(value)
    if entry is None:
        entry = Vector()
        space.insert(key, size, entry, cost, now)
    else:
        old = entry.values.get(index)
        if old is not None:
            if not overwrite:
                return False
            cost = len(value) - len(old)
        space.grow(cost, now)
        entry.cost += cost
    entry.indices.add(index)
    entry.values[index] = value
    return True


def get(space: Namespace, key: str, index: int) -> bytes | None:
    """The value at an index, or None."""
    limits.key_size(key)
    limits.require_integer(index, "the index")
    entry = space.find(key, Vector, space.begin())
    return entry.values.get(index) if entry is not None else None


def remove(space: Namespace, key: str, index: int) -> bool:
    """Remove the value at an index; False when there is none."""
    limits.key_size(key)
    limits.require_integer(index, "the index")
    entry = space.find(key, Vector, space.begin())
    if entry is None or index not in entry.values:
        return False
    entry.indices.discard(index)
    _take(space, key, entry, [index])
    return True


def tail_off(space: Namespace, key: str, size: int) -> int:
    """Keep the values at the `size` lowest indices; answers how many went."""
    limits.key_size(key)
    if size < 0:
        raise CallError(Code.INVALID, f"a vector is cut to 0 or more values, not to {size}")
    entry = space.find(key, Vector, space.begin())
    if entry is None:
        return 0
    gone = entry.indices.cut(size)
    if gone:
        _take(space, key, entry, gone)
    return len(gone)


def values(space: Namespace, key: str, start: int | None, stop: int | None, limit: int) -> list[tuple[int, bytes]]:
    """(index, value) from `start` to before `stop`, ascending; as many as `limit` and a page allow."""
    limits.key_size(key)
    limits.require_limit(limit)
    for bound in (start, stop):
        if bound is not None:
            limits.require_integer(bound, "a bound")
    entry = space.find(key, Vector, space.begin())
    answer: list[tuple[int, bytes]] = []
    if entry is None:
        return answer
    room = limits.PAGE_BYTES
    for index in entry.indices.above(start, inclusive=True):
        if len(answer) == limit or (stop is not None and index >= stop):
            break
        value = entry.values[index]
        room -= len(value) + 16
        if room < 0 and answer:
            break
        answer.append((index, value))
    return answer


def _take(space: Namespace, key: str, entry: Vector, gone: list[int]) -> None:
    freed = sum(limits.INDEX_COST + len(entry.values.pop(index)) for index in gone)
    if entry.values:
        entry.cost -= freed
        space.bytes -= freed
    else:
        space.drop(key, entry)
