"""The store does what a plain model of dicts does, at every step, also about bytes, quotas and refusals.

Values, times to live, lists, sets, vectors and locks together. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tea.protocol.errors import CallError, Code
from tea.providers.kvp import limits, lists, locks, sets, vectors
from tea.providers.kvp.store import Namespace

Content = bytes | list[bytes] | set[bytes] | dict[int, bytes]
_OVERHEAD: dict[type, int] = {
    bytes: limits.VALUE_COST,
    list: limits.LIST_COST,
    set: limits.SET_COST,
    dict: limits.VECTOR_COST,
}
_KIND: dict[type, str] = {bytes: "value", list: "list", set: "set", dict: "vector"}
KEYS = st.sampled_from(["a", "ab", "l", "s", "b\u00e9"])
"""Any key; the three below mostly hold their own kind, so that lists, sets and vectors grow beyond one item."""
LIST_KEYS = st.sampled_from(["l", "l", "l", "a"])
SET_KEYS = st.sampled_from(["s", "s", "ab", "a"])
VECTOR_KEYS = st.sampled_from(["b\u00e9", "b\u00e9", "b\u00e9", "a"])
VALUE_KEYS = st.sampled_from(["a", "ab", "b"])
BYTES = st.sampled_from([b"", b"1", b"-7", b"x" * 40, b"y" * 300])
TTL = st.one_of(st.none(), st.sampled_from([0.5, 1.0, 3.0]))
INDEX = st.integers(-3, 3)


def cost_of(key: str, content: Content, expires: float) -> int:
    """What the docs say a key is charged."""
    base = _OVERHEAD[type(content)] + len(key.encode()) + (limits.TTL_COST if expires != math.inf else 0)
    if isinstance(content, bytes):
        return base + len(content)
    if isinstance(content, dict):
        return base + sum(limits.INDEX_COST + len(value) for value in content.values())
    return base + sum(limits.ITEM_COST + len(value) for value in content)


class Store(RuleBasedStateMachine):
    """A namespace beside its model: `keys` maps to (content, expiry), `locks` to (token, expiry)."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 100.0
        self.keys: dict[str, tuple[Content, float]] = {}
        self.locks: dict[str, tuple[bytes, float]] = {}
        self.space = Namespace(lambda: self.time, 0)

    @initialize(quota=st.sampled_from([1500, 4000, 1 << 20]))
    def begin(self, quota: int) -> None:
        self.space.quota = quota

    # -- the model

    def used(self) -> int:
        held = sum(limits.LOCK_COST + len(name.encode()) for name in self.locks)
        return held + sum(cost_of(key, content, expires) for key, (content, expires) in self.keys.items())

    def content(self, key: str, kind: type[Content]) -> Content | None:
        """What the key holds, or the CONFLICT that an operation of `kind` must answer."""
        if key not in self.keys:
            return None
        content = self.keys[key][0]
        if not isinstance(content, kind):
            raise CallError(Code.CONFLICT, "")
        return content

    def both(self, real: Callable[[], object], model: Callable[[], object]) -> None:
        """Run both; the same answer or the same refusal, and after a refusal nothing has changed."""
        before = (dict(self.keys), dict(self.locks))
        expected: object
        try:
            expected = model()
            if self.used() > self.space.quota and self.used() > self.used_by(*before):
                self.keys, self.locks = before
                expected = Code.EXHAUSTED
        except CallError as refused:
            self.keys, self.locks = before
            expected = refused.code
        try:
            answer = real()
        except CallError as refused:
            answer = refused.code
        assert answer == expected

    def used_by(self, keys: dict[str, tuple[Content, float]], held: dict[str, tuple[bytes, float]]) -> int:
        present, self.keys, self.locks = (self.keys, self.locks), keys, held
        try:
            return self.used()
        finally:
            self.keys, self.locks = present

    def put(self, key: str, content: Content, expires: float | None = None) -> None:
        old = self.keys[key][1] if key in self.keys else math.inf
        if content or isinstance(content, bytes):
            self.keys[key] = (content, old if expires is None else expires)
        else:
            self.keys.pop(key, None)

    # -- values and time

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds
        self.keys = {key: held for key, held in self.keys.items() if held[1] > self.time}
        self.locks = {name: held for name, held in self.locks.items() if held[1] > self.time}

    @rule(key=VALUE_KEYS, value=BYTES, ttl=TTL)
    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        def model() -> None:
            self.content(key, bytes)
            self.put(key, value, self.time + ttl if ttl is not None else math.inf)

        self.both(lambda: self.space.set(key, value, ttl), model)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        self.both(lambda: self.space.get(key), lambda: self.content(key, bytes))

    @rule(key=KEYS)
    def exists_and_delete(self, key: str) -> None:
        assert self.space.exists(key) == (key in self.keys)
        self.both(lambda: self.space.delete(key), lambda: self.keys.pop(key, None) is not None)

    @rule(key=VALUE_KEYS, expected=st.one_of(st.none(), BYTES), value=BYTES, ttl=TTL)
    def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> None:
        def model() -> bool:
            if self.content(key, bytes) != expected:
                return False
            self.put(key, value, self.time + ttl if ttl is not None else math.inf)
            return True

        self.both(lambda: self.space.compare_and_set(key, expected, value, ttl), model)

    @rule(key=VALUE_KEYS, by=st.sampled_from([1, -5, 1 << 62]))
    def incr(self, key: str, by: int) -> None:
        def model() -> int:
            old = self.content(key, bytes)
            assert old is None or isinstance(old, bytes)
            text = b"0" if old is None else old
            if not text.removeprefix(b"-").isdigit() or not -(1 << 63) <= int(text) + by < 1 << 63:
                raise CallError(Code.CONFLICT, "")
            self.put(key, b"%d" % (int(text) + by))
            return int(text) + by

        self.both(lambda: self.space.incr(key, by), model)

    @rule(prefix=st.sampled_from(["", "a", "ab", "b", "z"]), limit=st.integers(1, 4))
    def scan(self, prefix: str, limit: int) -> None:
        found: list[tuple[str, str, bytes | None]] = []
        after: str | None = None
        while True:
            page = self.space.scan(prefix, limit, after)
            assert len(page.entries) <= limit
            found += [(one.key, one.kind, one.value) for one in page.entries]
            after = page.after
            if after is None:
                break
        assert found == [
            (key, _KIND[type(content)], content if isinstance(content, bytes) else None)
            for key, (content, _) in sorted(self.keys.items())
            if key.startswith(prefix)
        ]

    # -- lists

    @rule(key=LIST_KEYS, value=BYTES)
    def list_push(self, key: str, value: bytes) -> None:
        def model() -> int:
            old = self.content(key, list) or []
            assert isinstance(old, list)
            self.put(key, [*old, value])
            return len(old) + 1

        self.both(lambda: lists.push(self.space, key, value), model)

    @rule(key=LIST_KEYS, start=st.integers(-4, 4), stop=st.one_of(st.none(), st.integers(-4, 4)))
    def list_range(self, key: str, start: int, stop: int | None) -> None:
        def model() -> Content:
            old = self.content(key, list) or []
            assert isinstance(old, list)
            return old[start:stop]

        self.both(lambda: lists.items(self.space, key, start, stop), model)
        self.both(lambda: lists.length(self.space, key), lambda: len(self.content(key, list) or []))

    @rule(key=LIST_KEYS, value=BYTES)
    def list_delete(self, key: str, value: bytes) -> None:
        def model() -> int:
            old = self.content(key, list)
            if old is None:
                return 0
            assert isinstance(old, list)
            self.put(key, [item for item in old if item != value])
            return old.count(value)

        self.both(lambda: lists.delete(self.space, key, value), model)

    @rule(key=LIST_KEYS)
    def list_clear(self, key: str) -> None:
        def model() -> int:
            old = self.content(key, list)
            self.keys.pop(key, None)
            return len(old or [])

        self.both(lambda: lists.clear(self.space, key), model)

    # -- sets

    @rule(key=SET_KEYS, member=BYTES)
    def set_add(self, key: str, member: bytes) -> None:
        def model() -> bool:
            old = self.content(key, set)
            old = set() if old is None else old
            assert isinstance(old, set)
            self.put(key, {*old, member})
            return member not in old

        self.both(lambda: sets.add(self.space, key, member), model)

    @rule(key=SET_KEYS, member=BYTES)
    def set_remove(self, key: str, member: bytes) -> None:
        def model() -> bool:
            old = self.content(key, set)
            if old is None:
                return False
            assert isinstance(old, set)
            self.put(key, old - {member})
            return member in old

        self.both(
            lambda: sets.contains(self.space, key, member), lambda: member in (self.content(key, set) or frozenset())
        )
        self.both(lambda: sets.remove(self.space, key, member), model)

    @rule(keys=st.lists(SET_KEYS, min_size=1, max_size=3), limit=st.integers(1, 3))
    def set_union_and_intersection(self, keys: list[str], limit: int) -> None:
        def pages(ask: Callable[[bytes | None], sets.Members]) -> list[bytes]:
            found: list[bytes] = []
            after: bytes | None = None
            while True:
                page = ask(after)
                assert len(page.members) <= limit
                found += page.members
                after = page.after
                if after is None:
                    return found

        def members(key: str) -> frozenset[bytes]:
            found = self.content(key, set)
            assert found is None or isinstance(found, set)
            return frozenset(found or ())

        self.both(
            lambda: pages(lambda after: sets.union(self.space, keys, limit, after)),
            lambda: sorted(frozenset[bytes]().union(*[members(key) for key in keys])),
        )
        self.both(
            lambda: pages(lambda after: sets.intersection(self.space, keys, limit, after)),
            lambda: sorted(frozenset.intersection(*[members(key) for key in keys])),
        )
        self.both(
            lambda: pages(lambda after: sets.members(self.space, keys[0], limit, after)),
            lambda: sorted(members(keys[0])),
        )

    # -- vectors

    def vector(self, key: str) -> dict[int, bytes]:
        found = self.content(key, dict) or {}
        assert isinstance(found, dict)
        return found

    @rule(key=VECTOR_KEYS, index=INDEX, value=BYTES, overwrite=st.booleans())
    def vec_insert(self, key: str, index: int, value: bytes, overwrite: bool) -> None:
        def model() -> bool:
            old = self.vector(key)
            if index in old and not overwrite:
                return False
            self.put(key, {**old, index: value})
            return True

        self.both(lambda: vectors.insert(self.space, key, index, value, overwrite), model)

    @rule(key=VECTOR_KEYS, index=INDEX)
    def vec_remove(self, key: str, index: int) -> None:
        def model() -> bool:
            old = self.vector(key)
            if index in old:
                self.put(key, {at: value for at, value in old.items() if at != index})
            return index in old

        self.both(lambda: vectors.get(self.space, key, index), lambda: self.vector(key).get(index))
        self.both(lambda: vectors.remove(self.space, key, index), model)

    @rule(key=VECTOR_KEYS, size=st.integers(0, 3))
    def vec_tail_off(self, key: str, size: int) -> None:
        def model() -> int:
            old = self.vector(key)
            if old:
                self.put(key, dict(sorted(old.items())[:size]))
            return max(0, len(old) - size)

        self.both(lambda: vectors.tail_off(self.space, key, size), model)

    @rule(key=VECTOR_KEYS, start=st.one_of(st.none(), INDEX), stop=st.one_of(st.none(), INDEX), limit=st.integers(1, 4))
    def vec_range(self, key: str, start: int | None, stop: int | None, limit: int) -> None:
        self.both(
            lambda: vectors.values(self.space, key, start, stop, limit),
            lambda: [
                (at, value)
                for at, value in sorted(self.vector(key).items())
                if (start is None or at >= start) and (stop is None or at < stop)
            ][:limit],
        )

    # -- locks

    @rule(name=KEYS, ttl=st.sampled_from([0.5, 2.0]))
    def lock(self, name: str, ttl: float) -> None:
        def real() -> bool:
            token = locks.lock(self.space, name, ttl, None)
            if token is not None:
                self.locks[name] = (token, self.time + ttl)
            return token is not None

        def model() -> bool:
            if name in self.locks:
                return False
            self.locks[name] = (b"", self.time + ttl)
            return True

        self.both(real, model)

    @rule(name=KEYS, good=st.booleans())
    def renew(self, name: str, good: bool) -> None:
        token, _ = self.locks.get(name, (b"none", 0.0))
        renewed = locks.lock(self.space, name, 2.0, token if good else b"guess")
        assert renewed == (token if good and name in self.locks else None)
        if renewed is not None:
            self.locks[name] = (token, self.time + 2.0)

    @rule(name=KEYS, good=st.booleans())
    def unlock(self, name: str, good: bool) -> None:
        token, _ = self.locks.get(name, (b"none", 0.0))
        assert locks.unlock(self.space, name, token if good else b"guess") == (good and name in self.locks)
        if good:
            self.locks.pop(name, None)

    @invariant()
    def bytes_are_what_the_docs_say(self) -> None:
        self.space.sweep(limits.MAX_EXAMINED)
        assert self.space.bytes == self.used()
        assert len(self.space) == len(self.keys)
        assert len(self.space.locks) == len(self.locks)


class SweptOnlyByUse(Store):
    """The same without sweeping between the steps: what has expired is not seen even while it lies there."""

    @invariant()
    def bytes_are_what_the_docs_say(self) -> None:
        assert self.space.bytes >= self.used()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSweptOnlyByUse = SweptOnlyByUse.TestCase
TestSweptOnlyByUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
