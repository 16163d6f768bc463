"""Sets under a key: distinct members, in byte order.

May not: wait, or change anything when it refuses: every function is one atomic step over a namespace.
A set whose last member goes is gone itself; a set that is not there is empty. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Final

import msgspec

from tea.protocol.errors import CallError, Code

from . import limits
from .entries import Set
from .store import Namespace

_PART: Final = 256
"""Members that are looked for at a time; divides `MAX_EXAMINED`."""


class Members(msgspec.Struct, frozen=True):
    """A part of a set, in byte order. `after` goes into the next call; None: this was the last part."""

    members: tuple[bytes, ...]
    after: bytes | None


def add(space: Namespace, key: str, member: bytes) -> bool:
    """Add a member; False when it was one already."""
    size = limits.key_size(key)
    limits.require_value(member)
    now = space.begin()
    entry = space.find(key, Set, now)
    cost = limits.ITEM_COST + len(member)
    if entry is None:
        entry = Set()
        space.insert(key, size, entry, cost, now)
    elif member in entry.members:
        return False
    else:
        space.grow(cost, now)
        entry.cost += cost
    entry.members.add(member)
    return True


def remove(space: Namespace, key: str, member: bytes) -> bool:
    """Remove a member; False when it was none."""
    limits.key_size(key)
    limits.require_value(member)
    entry = space.find(key, Set, space.begin())
    if entry is None or not entry.members.discard(member):
        return False
    if not entry.members:
        space.drop(key, entry)
    else:
        freed = limits.ITEM_COST + len(member)
        entry.cost -= freed
        space.bytes -= freed
    return True


def contains(space: Namespace, key: str, member: bytes) -> bool:
    """Whether it is a member."""
    limits.key_size(key)
    limits.require_value(member)
    entry = space.find(key, Set, space.begin())
    return entry is not None and member in entry.members


def members(space: Namespace, key: str, limit: int, after: bytes | None) -> Members:
    """The members behind `after`."""
    found = _find(space, [key], limit)[0]
    return _page(found.members.above(after), limit) if found is not None else Members((), None)


def union(space: Namespace, keys: list[str], limit: int, after: bytes | None) -> Members:
    """The members of any of the sets, each once."""
    sets = [found.members.above(after) for found in _find(space, keys, limit) if found is not None]
    return _page(heapq.merge(*sets), limit)


def intersection(space: Namespace, keys: list[str], limit: int, after: bytes | None) -> Members:
    """The members of all of the sets. A page may have none and yet not be the last: `after` tells."""
    found = _find(space, keys, limit)
    sets = sorted((one.members for one in found if one is not None), key=len)
    if len(sets) < len(found):
        return Members((), None)
    smallest, others = sets[0], sets[1:]
    hits: list[bytes] = []
    room = limits.PAGE_BYTES
    examined = 0
    last: bytes | None = None
    remaining = smallest.above(after)
    while part := list(itertools.islice(remaining, _PART)):
        if examined == limits.MAX_EXAMINED:
            return Members(tuple(hits), last)
        examined += _PART
        last = part[-1]
        for other in others:
            part = other.held(part)
        for member in part:
            room -= len(member) + 8
            if hits and (len(hits) == limit or room < 0):
                return Members(tuple(hits), hits[-1])
            hits.append(member)
    return Members(tuple(hits), None)


def _find(space: Namespace, keys: list[str], limit: int) -> list[Set | None]:
    if not 1 <= len(keys) <= limits.MAX_SETS:
        raise CallError(Code.INVALID, f"1 to {limits.MAX_SETS} sets can be joined at once, not {len(keys)}")
    limits.require_limit(limit)
    for key in keys:
        limits.key_size(key)
    now = space.begin()
    return [space.find(key, Set, now) for key in keys]


def _page(ordered: Iterable[bytes], limit: int) -> Members:
    taken: list[bytes] = []
    room = limits.PAGE_BYTES
    for member in ordered:
        if taken and member == taken[-1]:
            continue
        room -= len(member) + 8
        if len(taken) == limit or (room < 0 and taken):
            return Members(tuple(taken), taken[-1])
        taken.append(member)
    return Members(tuple(taken), None)
