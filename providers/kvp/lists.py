"""Lists under a key: items in the order in which they were pushed.

May not: wait, or change anything when it refuses: every function is one atomic step over a namespace.
A list whose last item goes is gone itself. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from itertools import islice

from . import limits
from .entries import List
from .store import Namespace


def push(space: Namespace, key: str, value: bytes) -> int:
    """Append an item; answers the list's new length."""
    size = limits.key_size(key)
    limits.require_value(value)
    now = space.begin()
    entry = space.find(key, List, now)
    cost = limits.ITEM_COST + len(value)
    if entry is None:
        entry = List()
        space.insert(key, size, entry, cost, now)
    else:
        space.grow(cost, now)
        entry.cost += cost
    entry.items.append(value)
    return len(entry.items)


def items(space: Namespace, key: str, start: int, stop: int | None) -> list[bytes]:
    """The items from `start` to before `stop`, as a Python slice counts; as many from its begin as fit a page."""
    limits.key_size(key)
    limits.require_integer(start, "the start")
    if stop is not None:
        limits.require_integer(stop, "the stop")
    entry = space.find(key, List, space.begin())
    if entry is None:
        return []
    first, last, _ = slice(start, stop).indices(len(entry.items))
    answer: list[bytes] = []
    room = limits.PAGE_BYTES
    for item in islice(entry.items, first, max(first, min(last, first + limits.MAX_PAGE))):
        room -= len(item) + 8
        if room < 0 and answer:
            break
        answer.append(item)
    return answer


def delete(space: Namespace, key: str, value: bytes) -> int:
    """Remove every item that equals `value`; answers how many there were."""
    limits.key_size(key)
    limits.require_value(value)
    entry = space.find(key, List, space.begin())
    if entry is None:
        return 0
    kept = [item for item in entry.items if item != value]
    gone = len(entry.items) - len(kept)
    if not kept:
        space.drop(key, entry)
    elif gone:
        freed = gone * (limits.ITEM_COST + len(value))
        entry.cost -= freed
        space.bytes -= freed
        entry.items = kept
    return gone


def clear(space: Namespace, key: str) -> int:
    """Remove the whole list; answers how many items it had."""
    limits.key_size(key)
    entry = space.find(key, List, space.begin())
    if entry is None:
        return 0
    space.drop(key, entry)
    return len(entry.items)


def length(space: Namespace, key: str) -> int:
    """How many items the list has; 0 when there is none."""
    limits.key_size(key)
    entry = space.find(key, List, space.begin())
    return len(entry.items) if entry is not None else 0
