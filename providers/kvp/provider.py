"""kvp: the key-value store as operations. Who may touch which namespace, at what quota, is decided here.

May not: keep anything outside memory, or know how entries are kept: that is `store`. Rule: docs/architecture.md,
"Providers".
"""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import MANY, Call, Config, Provider, Services
from . import lists, locks, sets, vectors
from .limits import MAX_EXAMINED
from .sets import Members
from .state import export_namespaces, fill, parse_state
from .store import Namespace, Page

_SWEEP_PERIOD: Final = 1.0
"""Seconds between two sweeps of expired entries while nobody calls."""


class SharedNamespace(Config, frozen=True):
    """Who may read and write a namespace that no actor owns, and its quota in bytes (1 to 2**40)."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.bytes <= 1 << 40:
            raise ValueError(f"the quota of a shared namespace is 1 to 2**40 bytes, not {self.bytes}")
        if not (self.read or self.write):
            raise ValueError("a shared namespace that nobody may read or write is a mistake: name actors")


class KvpConfig(Config, frozen=True):
    """`shared`: shared namespaces by name. Every actor has one of its own beside them, named by the empty string."""

    shared: dict[str, SharedNamespace] = {}

    def __post_init__(self) -> None:
        if "" in self.shared:
            raise ValueError("a shared namespace needs a name: the empty one is each actor's own")


class Memory(msgspec.Struct, frozen=True):
    """What a namespace takes: bytes charged, the quota, entries and locks; expired ones may count until swept."""

    bytes: int
    quota: int
    entries: int
    locks: int


class Kvp(Provider[KvpConfig]):
    """A key-value store in the host's memory; what it holds ends with the host.

    Keys are text of 1 to 512 bytes in UTF-8, values bytes of at most 512 KiB. A key holds one kind of thing: a value, a
    list, a set or a vector; an operation of another kind answers CONFLICT until the key is deleted. Every operation is
    one atomic step. `namespace` is empty for the actor's own (all its replicas share it), or names a shared one of
    the manifest; without a grant there the answer is DENIED.

    What is charged are the bytes of keys and values, and beside them: a value 256, a list 320, a set 512, a vector 640,
    a lock 384; each list item and set member 48, each value of a vector 192; a time to live 128. What would pass
    the quota (`limits.kvp_bytes` of the actor, `bytes` of a shared namespace) is answered EXHAUSTED with the figures,
    and nothing was done.
    Times to live are seconds above 0 and at most ten years on a clock that never goes back; what has expired is never
    seen again, and is freed a bounded number at a time. Bad sizes and values are INVALID.
    """

    name: ClassVar[str] = "kvp"
    config_type: ClassVar[type[Config]] = KvpConfig
    in_place: ClassVar[frozenset[str]] = frozenset({"shared"})

    def __init__(self, config: KvpConfig) -> None:
        super().__init__(config)
        self._own: dict[str, Namespace] = {}
        self._shared: dict[str, Namespace] = {}

    async def start(self, services: Services) -> None:
        await super().start(services)
        self._add_shared(self.config)
        services.spawn(self._sweep())

    async def stop(self) -> None:
        self._own.clear()
        self._shared.clear()

    def prepare(self, config: KvpConfig) -> None:
        super().prepare(config)
        self._add_shared(config)

    def abandon(self) -> None:
        super().abandon()
        self._drop_shared()

    def reconfigure(self, config: KvpConfig) -> None:
        super().reconfigure(config)
        self._drop_shared()
        for name, shared in config.shared.items():
            self._shared[name].quota = shared.bytes

    def _add_shared(self, config: KvpConfig) -> None:
        for name, shared in config.shared.items():
            if name not in self._shared:
                self._shared[name] = Namespace(self.services.monotonic, shared.bytes)

    def _drop_shared(self) -> None:
        """A shared namespace that the manifest does not have is gone, with what it held: nobody could read it."""
        self._shared = {name: space for name, space in self._shared.items() if name in self.config.shared}

    async def export_state(self) -> bytes:
        return export_namespaces(self._own, self._shared)

    async def import_state(self, state: bytes) -> None:
        parsed = parse_state(state)
        missing = parsed.shared.keys() - self._shared.keys()
        if missing:
            raise ValueError(f"the manifest has no shared namespace {sorted(missing)[0]!r:.80} any more: keep it")
        own: dict[str, Namespace] = {}
        shared = {name: Namespace(self.services.monotonic, space.quota) for name, space in self._shared.items()}
        for actor, exported in parsed.own.items():
            own[actor] = Namespace(self.services.monotonic, exported.quota)
            fill(own[actor], exported)
        for name, exported in parsed.shared.items():
            fill(shared[name], exported)
            shared[name].quota = self._shared[name].quota  # the manifest's, not the past's
        self._own, self._shared = own, shared

    async def forget(self, actor: str) -> None:
        self._own.pop(actor, None)

    def usage(self) -> dict[str, int]:
        """Bytes charged, entries, locks, namespaces, and entries that expired since the start.

        And the bytes and the quota of each namespace: `bytes:ACTOR`, `quota:ACTOR`; `bytes:shared/NAME`.
        """
        named = {**self._own, **{f"shared/{name}": space for name, space in self._shared.items()}}
        spaces = named.values()
        figures = {
            "bytes": sum(space.bytes for space in spaces),
            "entries": sum(len(space) for space in spaces),
            "locks": sum(len(space.locks) for space in spaces),
            "namespaces": len(spaces),
            "expired": sum(space.expired for space in spaces),
        }
        for name, space in named.items():
            figures[f"bytes:{name}"], figures[f"quota:{name}"] = space.bytes, space.quota
        return figures

    # -- values

    @operation
    def get(self, call: Call, key: str, namespace: str = "") -> bytes | None:
        """The value under a key, or None. Raises CONFLICT when the key holds another kind of thing."""
        return self._reader(call, namespace).get(key)

    @operation
    def set(self, call: Call, key: str, value: bytes, ttl: float | None = None, namespace: str = "") -> None:
        """Put a value of at most 512 KiB under a key; an older one and its time to live go.

        `ttl` in seconds, None: for good. Raises EXHAUSTED when the quota has no room, CONFLICT on another kind.
        """
        self._writer(call, namespace).set(key, value, ttl)

    @operation
    def delete(self, call: Call, key: str, namespace: str = "") -> bool:
        """Free a key, whatever kind of thing it holds; False when it held nothing."""
        return self._writer(call, namespace).delete(key)

    @operation
    def exists(self, call: Call, key: str, namespace: str = "") -> bool:
        """Whether a key holds anything."""
        return self._reader(call, namespace).exists(key)

    @operation
    def incr(self, call: Call, key: str, by: int = 1, namespace: str = "") -> int:
        """Add `by` (may be negative) to a counter and answer the new value; a missing counter is 0.

        A counter is a value of decimal digits, a signed integer of 64 bits; its time to live stays. Raises CONFLICT
        when the value is no counter or would leave 64 bits. In a shared namespace it needs both grants.
        """
        return self._both(call, namespace).incr(key, by)

    @operation
    def compare_and_set(
        self,
        call: Call,
        key: str,
        expected: bytes | None,
        value: bytes,
        ttl: float | None = None,
        namespace: str = "",
    ) -> bool:
        """Put a value only if the present one equals `expected` (None: only if there is none); whether it did.

        Limits and errors as `set`. In a shared namespace it needs both grants.
        """
        return self._both(call, namespace).compare_and_set(key, expected, value, ttl)

    @operation
    def scan(
        self, call: Call, prefix: str = "", limit: int = 100, after: str | None = None, namespace: str = ""
    ) -> Page:
        """The keys that begin with `prefix`, in order, with their kinds and values: {entries, after}.

        At most `limit` (1 to 1,000) keys and 768 KiB a page. Hand `after` back for the next page; None: there is none.
        A page may be empty and yet not the last. Changes between pages are seen or not, by where they fall.
        """
        return self._reader(call, namespace).scan(prefix, limit, after)

    # -- lists

    @operation
    def list_push(self, call: Call, key: str, value: bytes, namespace: str = "") -> int:
        """Append an item of at most 512 KiB; answers the list's new length. Raises EXHAUSTED, CONFLICT."""
        return lists.push(self._writer(call, namespace), key, value)

    @operation
    def list_range(
        self, call: Call, key: str, start: int = 0, stop: int | None = None, namespace: str = ""
    ) -> list[bytes]:
        """The items from `start` to before `stop`, counted as a Python slice does (negative: from the end).

        At most 1,000 items and 768 KiB, the first ones of the slice: go on at `start` plus what came. Empty at its end.
        """
        return lists.items(self._reader(call, namespace), key, start, stop)

    @operation
    def list_delete(self, call: Call, key: str, value: bytes, namespace: str = "") -> int:
        """Remove every item that equals `value`; answers how many there were. Time grows with the list."""
        return lists.delete(self._writer(call, namespace), key, value)

    @operation
    def list_clear(self, call: Call, key: str, namespace: str = "") -> int:
        """Remove the whole list; answers how many items it had."""
        return lists.clear(self._writer(call, namespace), key)

    @operation
    def list_len(self, call: Call, key: str, namespace: str = "") -> int:
        """How many items the list has; 0 when there is none."""
        return lists.length(self._reader(call, namespace), key)

    # -- sets

    @operation
    def set_add(self, call: Call, key: str, member: bytes, namespace: str = "") -> bool:
        """Add a member of at most 512 KiB; False when it was one already. Raises EXHAUSTED, CONFLICT."""
        return sets.add(self._writer(call, namespace), key, member)

    @operation
    def set_remove(self, call: Call, key: str, member: bytes, namespace: str = "") -> bool:
        """Remove a member; False when it was none."""
        return sets.remove(self._writer(call, namespace), key, member)

    @operation
    def set_contains(self, call: Call, key: str, member: bytes, namespace: str = "") -> bool:
        """Whether it is a member."""
        return sets.contains(self._reader(call, namespace), key, member)

    @operation
    def set_members(
        self, call: Call, key: str, limit: int = 1000, after: bytes | None = None, namespace: str = ""
    ) -> Members:
        """The members in byte order: {members, after}; at most `limit` (1 to 1,000) and 768 KiB a page, as `scan`."""
        return sets.members(self._reader(call, namespace), key, limit, after)

    @operation
    def set_union(
        self,
        call: Call,
        keys: Annotated[list[str], MANY],
        limit: int = 1000,
        after: bytes | None = None,
        namespace: str = "",
    ) -> Members:
        """The members of any of 1 to 16 sets, each once, in byte order; pages as `set_members`."""
        return sets.union(self._reader(call, namespace), keys, limit, after)

    @operation
    def set_intersection(
        self,
        call: Call,
        keys: Annotated[list[str], MANY],
        limit: int = 1000,
        after: bytes | None = None,
        namespace: str = "",
    ) -> Members:
        """The members of all of 1 to 16 sets, in byte order; pages as `set_members`.

        A page looks at 4,096 members of the smallest set at most: it may be empty and yet not the last.
        """
        return sets.intersection(self._reader(call, namespace), keys, limit, after)

    # -- sorted vectors

    @operation
    def vec_insert(
        self, call: Call, key: str, index: int, value: bytes, overwrite: bool = False, namespace: str = ""
    ) -> bool:
        """Put a value of at most 512 KiB at an index (a signed integer of 64 bits); whether it did.

        False when the index has a value and `overwrite` is not set. Raises EXHAUSTED, CONFLICT.
        """
        return vectors.insert(self._writer(call, namespace), key, index, value, overwrite)

    @operation
    def vec_get(self, call: Call, key: str, index: int, namespace: str = "") -> bytes | None:
        """The value at an index, or None."""
        return vectors.get(self._reader(call, namespace), key, index)

    @operation
    def vec_tail_off(self, call: Call, key: str, size: int, namespace: str = "") -> int:
        """Keep the values at the `size` lowest indices; answers how many went. Time grows with what goes."""
        return vectors.tail_off(self._writer(call, namespace), key, size)

    @operation
    def vec_remove(self, call: Call, key: str, index: int, namespace: str = "") -> bool:
        """Remove the value at an index; False when there is none."""
        return vectors.remove(self._writer(call, namespace), key, index)

    @operation
    def vec_range(
        self,
        call: Call,
        key: str,
        start: int | None = None,
        stop: int | None = None,
        limit: int = 1000,
        namespace: str = "",
    ) -> list[tuple[int, bytes]]:
        """[index, value] from `start` to before `stop` (None: open), ascending.

        At most `limit` (1 to 1,000) and 768 KiB: go on at the last index plus 1. Empty at the end.
        """
        return vectors.values(self._reader(call, namespace), key, start, stop, limit)

    # -- locks and figures

    @operation
    def lock(self, call: Call, key: str, ttl: float, token: bytes | None = None, namespace: str = "") -> bytes | None:
        """Take a lock for `ttl` seconds; answers its token (16 bytes), or None when another holds it.

        With the `token` of a lock that is held it renews that lock; None when it has expired meanwhile. Locks and keys
        do not share names. Raises EXHAUSTED.
        """
        return locks.lock(self._writer(call, namespace), key, ttl, token)

    @operation
    def unlock(self, call: Call, key: str, token: bytes, namespace: str = "") -> bool:
        """Give a lock back; False when this token does not hold it (any more)."""
        return locks.unlock(self._writer(call, namespace), key, token)

    @operation
    def memory(self, call: Call, namespace: str = "") -> Memory:
        """What a namespace takes: {bytes, quota, entries, locks}."""
        space = self._reader(call, namespace)
        space.sweep(MAX_EXAMINED)
        return Memory(space.bytes, space.quota, len(space), len(space.locks))

    # -- inside

    def _reader(self, call: Call, namespace: str) -> Namespace:
        return self._granted(call, namespace, "read") if namespace else self._owned(call)

    def _writer(self, call: Call, namespace: str) -> Namespace:
        return self._granted(call, namespace, "write") if namespace else self._owned(call)

    def _both(self, call: Call, namespace: str) -> Namespace:
        """For writing operations whose answer tells what is stored."""
        self._reader(call, namespace)
        return self._writer(call, namespace)

    def _owned(self, call: Call) -> Namespace:
        space = self._own.get(call.caller)
        if space is None:
            space = self._own[call.caller] = Namespace(self.services.monotonic, call.kvp_bytes)
        space.quota = call.kvp_bytes  # an upgrade may have changed it
        return space

    def _granted(self, call: Call, namespace: str, right: str) -> Namespace:
        shared = self.config_for(call).shared.get(namespace)
        allowed = () if shared is None else shared.read if right == "read" else shared.write
        if call.caller not in allowed:
            # One answer for "not yours" and "not there": names of namespaces are not for probing.
            raise CallError(
                Code.DENIED,
                f"{call.caller} has no grant to {right} a shared namespace {namespace[:64]!r}: "
                f"the manifest gives it under providers.kvp.shared.NAME.{right}",
                caller=call.caller,
                right=right,
            )
        return self._shared[namespace]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_PERIOD)
            for space in [*self._own.values(), *self._shared.values()]:
                while space.sweep(MAX_EXAMINED) == MAX_EXAMINED:  # noqa: ASYNC110 (others' calls go between)
                    await asyncio.sleep(0)
