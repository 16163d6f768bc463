"""The store's state as bytes, for another enclave of the same slot: what is under every key, and how long yet.

May not: decide who gets it (a handover seals it to an attested enclave), or be read from anyone but the host.
Rule: docs/continuity.md, "What is handed over".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from . import limits, lists, sets, vectors
from .entries import List, Lock, Set, Value, Vector
from .store import Namespace


class EntryState(msgspec.Struct, frozen=True, array_like=True, repr_omit_defaults=True):
    """One key: its kind, its items (one for a value), the indices of a vector, the seconds that are left to it."""

    key: str
    kind: str
    items: tuple[bytes, ...]
    indices: tuple[int, ...] = ()
    ttl: float | None = None

    def __repr__(self) -> str:
        return f"EntryState({self.kind}, {len(self.items)} items)"


class LockState(msgspec.Struct, frozen=True, array_like=True):
    """A held lock."""

    name: str
    token: bytes
    ttl: float

    def __repr__(self) -> str:
        return "LockState(...)"


class NamespaceState(msgspec.Struct, frozen=True, array_like=True):
    """A namespace: its quota in bytes, its entries in key order, its locks."""

    quota: int
    entries: tuple[EntryState, ...]
    locks: tuple[LockState, ...]


class KvpState(msgspec.Struct, frozen=True, array_like=True, tag="tea.kvp-state.v1"):
    """All namespaces: those of actors, and the shared ones."""

    own: dict[str, NamespaceState]
    shared: dict[str, NamespaceState]


def export_namespaces(own: Mapping[str, Namespace], shared: Mapping[str, Namespace]) -> bytes:
    """Everything that has not expired. It holds the actors' secrets: it is for sealing only."""
    state = KvpState(
        {name: _exported(space) for name, space in own.items()},
        {name: _exported(space) for name, space in shared.items()},
    )
    return msgspec.msgpack.encode(state)


def parse_state(data: bytes) -> KvpState:
    """Read what `export_namespaces` made. Raises `ValueError`, which says nothing of what stands in it."""
    try:
        return msgspec.msgpack.decode(data, type=KvpState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("this is not the exported state of a key-value store") from None


def fill(space: Namespace, state: NamespaceState) -> None:
    """Put everything into an empty namespace; its quota is the exported one afterwards. Raises `CallError`."""
    space.quota = 1 << 62  # what was there may be more than a quota that was lowered since
    for entry in state.entries:
        _put(space, entry)
    now = space.begin()
    for lock in state.locks:
        limits.require_ttl(lock.ttl)
        cost = limits.LOCK_COST + limits.key_size(lock.name)
        space.grow(cost, now)
        space.hold(lock.name, Lock(lock.token, now + lock.ttl, cost))
    space.quota = state.quota


def _exported(space: Namespace) -> NamespaceState:
    now = space.begin()
    entries: list[EntryState] = []
    for key, entry, ttl in space.live(now):
        if isinstance(entry, Value):
            entries.append(EntryState(key, entry.kind, (entry.data,), (), ttl))
        elif isinstance(entry, List):
            entries.append(EntryState(key, entry.kind, tuple(entry.items)))
        elif isinstance(entry, Set):
            entries.append(EntryState(key, entry.kind, tuple(entry.members.above())))
        elif isinstance(entry, Vector):
            indices = tuple(entry.indices.above())
            entries.append(EntryState(key, entry.kind, tuple(entry.values[index] for index in indices), indices))
    locks = tuple(
        LockState(name, lock.token, lock.expires - now) for name, lock in space.locks.items() if lock.expires > now
    )
    return NamespaceState(space.quota, tuple(entries), locks)


def _put(space: Namespace, entry: EntryState) -> None:
    if entry.kind == Value.kind and len(entry.items) == 1:
        space.set(entry.key, entry.items[0], entry.ttl)
    elif entry.kind == List.kind:
        for item in entry.items:
            lists.push(space, entry.key, item)
    elif entry.kind == Set.kind:
        for item in entry.items:
            sets.add(space, entry.key, item)
    elif entry.kind == Vector.kind and len(entry.items) == len(entry.indices):
        for index, item in zip(entry.indices, entry.items, strict=True):
            vectors.insert(space, entry.key, index, item, True)
    else:
        raise ValueError("the exported state has an entry of no kind that there is")
