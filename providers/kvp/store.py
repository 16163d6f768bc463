"""One namespace of the key-value store: bytes under keys, times to live, a byte quota. In memory only, pure.

May not: read a clock of its own, do I/O, wait, or change anything when it refuses: every method is one atomic step.
Lists, sets, vectors and locks are steps over it, in the modules of their names.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec

from tea.protocol.errors import CallError, Code

from . import limits
from .entries import Entry, List, Lock, Set, Value, Vector
from .ordered import Ordered

_E = TypeVar("_E", Value, List, Set, Vector)
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}", re.ASCII)
_SWEEP: Final = 64
"""Expired entries that a change sweeps before it begins: more than it can add, so that sweeping keeps up."""


class Found(msgspec.Struct, frozen=True):
    """One key of a scan. `kind` is value, list, set or vector; `value` is None for all but a value."""

    key: str
    kind: str
    value: bytes | None


class Page(msgspec.Struct, frozen=True):
    """A part of a scan, in key order. `after` goes into the next call; None: this was the last page."""

    entries: tuple[Found, ...]
    after: str | None


class Namespace:
    """The keys of one actor, or shared ones. `clock` gives seconds that never go back.

    `quota` is in bytes and may be changed at any time: what is there stays, what would grow past it is refused.
    """

    __slots__ = ("_clock", "_deadlines", "_entries", "_keys", "bytes", "expired", "locks", "quota")

    def __init__(self, clock: Callable[[], float], quota: int) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._keys: Ordered[str] = Ordered()
        self._deadlines: Ordered[tuple[float, bool, str]] = Ordered()
        self.locks: dict[str, Lock] = {}
        self.quota = quota
        self.bytes = 0
        """Charged now, entries that expired and are not swept yet included."""
        self.expired = 0
        """Entries and locks that were swept since the namespace was made."""

    def __len__(self) -> int:
        return len(self._entries)

    # -- values

    def get(self, key: str) -> bytes | None:
        """The value, or None. Raises CONFLICT when the key holds a list, a set or a vector."""
        limits.key_size(key)
        entry = self._entries.get(key)
        if entry is None or (entry.expires != math.inf and entry.expires <= self._clock()):
            return None
        return entry.data if type(entry) is Value else self._as(key, entry, Value).data

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Put a value, in place of an older one and of its time to live."""
        size = limits.key_size(key)
        limits.require_value(value)
        now = self.begin()
        self._put(key, size, self.find(key, Value, now), value, self._expiry(ttl, now), now)

    def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None = None) -> bool:
        """Put a value only if the present one equals `expected` (None: only if there is none)."""
        size = limits.key_size(key)
        limits.require_value(value)
        now = self.begin()
        expires = self._expiry(ttl, now)
        entry = self.find(key, Value, now)
        if (entry.data if entry is not None else None) != expected:
            return False
        self._put(key, size, entry, value, expires, now)
        return True

    def incr(self, key: str, by: int = 1) -> int:
        """Add to a counter (decimal ASCII; a missing one is 0) and answer its new value; a time to live stays."""
        size = limits.key_size(key)
        limits.require_integer(by, "the increment")
        now = self.begin()
        entry = self.find(key, Value, now)
        old = 0
        if entry is not None:
            if _INTEGER.fullmatch(entry.data) is None:
                raise CallError(Code.CONFLICT, f"{key!r} does not hold a counter: decimal digits of 64 bits at most")
            old = int(entry.data)
        new = old + by
        if not limits.MIN_INTEGER <= new <= limits.MAX_INTEGER:
            raise CallError(Code.CONFLICT, f"the counter {key!r} would leave the 64 bits of a signed integer")
        self._put(key, size, entry, b"%d" % new, entry.expires if entry is not None else math.inf, now)
        return new

    def exists(self, key: str) -> bool:
        """Whether the key holds anything."""
        limits.key_size(key)
        entry = self._entries.get(key)
        return entry is not None and (entry.expires == math.inf or entry.expires > self._clock())

    def delete(self, key: str) -> bool:
        """Free a key, whatever it holds; False when it held nothing. Locks are not keys: see `locks`."""
        limits.key_size(key)
        now = self.begin()
        entry = self._entries.get(key)
        if entry is None:
            return False
        self.drop(key, entry)
        return entry.expires > now

    def scan(self, prefix: str, limit: int, after: str | None) -> Page:
        """The keys that begin with `prefix`, in order of their code points, from behind `after` on."""
        if len(prefix) > limits.MAX_KEY:
            raise CallError(
                Code.INVALID, f"a prefix has at most {limits.MAX_KEY} characters, this one has {len(prefix)}"
            )
        limits.require_limit(limit)
        now = self.begin()
        behind = after is not None and after >= prefix
        found: list[Found] = []
        room = limits.PAGE_BYTES
        last: str | None = None
        for examined, key in enumerate(self._keys.above(after if behind else prefix, inclusive=not behind)):
            if not key.startswith(prefix):
                break
            if len(found) == limit or examined == limits.MAX_EXAMINED:
                return Page(tuple(found), last)
            entry = self._entries[key]
            if entry.expires > now:
                value = entry.data if isinstance(entry, Value) else None
                room -= 4 * len(key) + 32 + (len(value) if value is not None else 0)
                if room < 0 and found:
                    return Page(tuple(found), last)
                found.append(Found(key, entry.kind, value))
            last = key
        return Page(tuple(found), None)

    # -- what the other modules build on

    def begin(self) -> float:
        """The time of a change, before which a bounded number of expired entries is swept."""
        now = self._clock()
        if self._deadlines and self._deadlines.first()[0] <= now:
            self.sweep(_SWEEP, now)
        return now

    def find(self, key: str, kind: type[_E], now: float) -> _E | None:
        """What a key holds at `now`. Raises CONFLICT when that is of another kind."""
        entry = self._entries.get(key)
        if entry is None or entry.expires <= now:
            return None
        return self._as(key, entry, kind)

    def live(self, now: float) -> Iterator[tuple[str, Entry, float | None]]:
        """Every key that has not expired, in order, and the seconds that are left to it; None: no end."""
        for key in self._keys.above():
            entry = self._entries[key]
            if entry.expires > now:
                yield key, entry, None if entry.expires == math.inf else entry.expires - now

    def grow(self, by: int, now: float) -> None:
        """Charge bytes (fewer than 0: give back). Raises EXHAUSTED, with nothing done, when the quota has no room."""
        if by > 0 and self.bytes + by > self.quota:
            self.sweep(limits.MAX_EXAMINED, now)
            if self.bytes + by > self.quota:
                left = max(0, self.quota - self.bytes)
                raise CallError(
                    Code.EXHAUSTED,
                    f"this needs {by} bytes, and of the quota's {self.quota} there are {left} left: "
                    "delete something, or raise the quota in the manifest",
                    quota=self.quota,
                    used=self.bytes,
                    needed=by,
                )
        self.bytes += by

    def insert(self, key: str, size: int, entry: Entry, item_cost: int, now: float) -> None:
        """Put a new entry with its first item under a key that holds nothing."""
        stale = self._entries.get(key)
        if stale is not None:  # expired, and not swept yet
            self.drop(key, stale)
            self.expired += 1
        cost = entry.overhead + size + item_cost + (limits.TTL_COST if entry.expires != math.inf else 0)
        self.grow(cost, now)
        entry.cost = cost
        self._entries[key] = entry
        self._keys.add(key)
        if entry.expires != math.inf:
            self._deadlines.add((entry.expires, False, key))

    def drop(self, key: str, entry: Entry) -> None:
        """Take an entry out and give its bytes back."""
        del self._entries[key]
        self._keys.discard(key)
        if entry.expires != math.inf:
            self._deadlines.discard((entry.expires, False, key))
        self.bytes -= entry.cost

    def hold(self, key: str, lock: Lock) -> None:
        """Put a lock that was paid for."""
        self.locks[key] = lock
        self._deadlines.add((lock.expires, True, key))

    def release(self, key: str, lock: Lock) -> None:
        """Take a lock out and give its bytes back."""
        del self.locks[key]
        self._deadlines.discard((lock.expires, True, key))
        self.bytes -= lock.cost

    def sweep(self, limit: int, now: float | None = None) -> int:
        """Free at most `limit` expired entries and locks; answers how many."""
        at = self._clock() if now is None else now
        swept = 0
        while swept < limit and self._deadlines:
            expires, is_lock, key = self._deadlines.first()
            if expires > at:
                break
            if is_lock:
                self.release(key, self.locks[key])
            else:
                self.drop(key, self._entries[key])
            swept += 1
        self.expired += swept
        return swept

    # -- inside

    def _put(self, key: str, size: int, entry: Value | None, value: bytes, expires: float, now: float) -> None:
        if entry is None:
            fresh = Value(value)
            fresh.expires = expires
            self.insert(key, size, fresh, len(value), now)
            return
        change = len(value) - len(entry.data)
        if expires != entry.expires:
            change += limits.TTL_COST * ((expires != math.inf) - (entry.expires != math.inf))
        self.grow(change, now)
        entry.cost += change
        entry.data = value
        if expires != entry.expires:
            if entry.expires != math.inf:
                self._deadlines.discard((entry.expires, False, key))
            if expires != math.inf:
                self._deadlines.add((expires, False, key))
            entry.expires = expires

    @staticmethod
    def _expiry(ttl: float | None, now: float) -> float:
        if ttl is None:
            return math.inf
        limits.require_ttl(ttl)
        return now + ttl

    @staticmethod
    def _as(key: str, entry: Entry, kind: type[_E]) -> _E:
        if isinstance(entry, kind):
            return entry
        raise CallError(
            Code.CONFLICT, f"{key!r} holds a {entry.kind}, not a {kind.kind}: delete it first", kind=entry.kind
        )
