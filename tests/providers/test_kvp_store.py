"""What the store refuses, and that a refusal changes nothing; bounds of work, of answers and of memory.

That it does what a model does is held in test_kvp_model.py. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.kvp import limits, lists, locks, sets, vectors
from tea.providers.kvp.store import Namespace

SWEPT_BY_A_CHANGE = 64


def space(quota: int = 1 << 24, time: float = 0.0) -> tuple[Namespace, list[float]]:
    clock = [time]
    return Namespace(lambda: clock[0], quota), clock


def refused(code: Code, step: Callable[..., object], *args: object) -> CallError:
    with pytest.raises(CallError) as caught:
        step(*args)
    assert caught.value.code is code
    return caught.value


@pytest.mark.parametrize("key", ["", "k" * 513, "\u00e9" * 257, "\ud800"])
def test_a_key_that_is_empty_too_long_or_no_text_is_refused(key: str) -> None:
    store, _ = space()
    steps: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.set(key, b""),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.incr(key),
        lambda: store.compare_and_set(key, None, b""),
        lambda: lists.push(store, key, b""),
        lambda: lists.items(store, key, 0, None),
        lambda: lists.delete(store, key, b""),
        lambda: lists.clear(store, key),
        lambda: lists.length(store, key),
        lambda: sets.add(store, key, b""),
        lambda: sets.remove(store, key, b""),
        lambda: sets.contains(store, key, b""),
        lambda: sets.members(store, key, 1, None),
        lambda: vectors.insert(store, key, 1, b"", False),
        lambda: vectors.get(store, key, 1),
        lambda: vectors.remove(store, key, 1),
        lambda: vectors.tail_off(store, key, 1),
        lambda: vectors.values(store, key, None, None, 1),
        lambda: locks.lock(store, key, 1.0, None),
        lambda: locks.unlock(store, key, b""),
    ]
    for step in steps:
        refused(Code.INVALID, step)
    assert store.bytes == 0


def test_the_longest_key_and_the_largest_value_are_taken() -> None:
    store, _ = space()
    for key in ("k" * 512, "\u00e9" * 256):
        store.set(key, bytes(limits.MAX_VALUE))
        assert store.get(key) == bytes(limits.MAX_VALUE)


def test_a_value_over_its_limit_is_refused_everywhere() -> None:
    store, _ = space()
    large = bytes(limits.MAX_VALUE + 1)
    steps: list[Callable[[], object]] = [
        lambda: store.set("k", large),
        lambda: store.compare_and_set("k", None, large),
        lambda: lists.push(store, "k", large),
        lambda: lists.delete(store, "k", large),
        lambda: sets.add(store, "k", large),
        lambda: sets.remove(store, "k", large),
        lambda: sets.contains(store, "k", large),
        lambda: vectors.insert(store, "k", 0, large, True),
    ]
    for step in steps:
        refused(Code.INVALID, step)
    assert store.bytes == 0


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, math.inf, limits.MAX_TTL * 1.01])
def test_a_time_to_live_that_is_none_is_refused(ttl: float) -> None:
    store, _ = space()
    refused(Code.INVALID, lambda: store.set("k", b"", ttl))
    refused(Code.INVALID, lambda: store.compare_and_set("k", None, b"", ttl))
    refused(Code.INVALID, lambda: locks.lock(store, "k", ttl, None))
    assert store.bytes == 0


def test_integers_over_64_bits_pages_and_cuts_that_make_no_sense_are_refused() -> None:
    store, _ = space()
    for number in (1 << 63, -(1 << 63) - 1):
        refused(Code.INVALID, store.incr, "k", number)
        refused(Code.INVALID, vectors.insert, store, "k", number, b"", True)
        refused(Code.INVALID, vectors.get, store, "k", number)
        refused(Code.INVALID, vectors.remove, store, "k", number)
        refused(Code.INVALID, vectors.values, store, "k", number, None, 1)
        refused(Code.INVALID, lists.items, store, "k", number, None)
        refused(Code.INVALID, lists.items, store, "k", 0, number)
    for limit in (0, -1, limits.MAX_PAGE + 1):
        refused(Code.INVALID, store.scan, "", limit, None)
        refused(Code.INVALID, sets.union, store, ["k"], limit, None)
        refused(Code.INVALID, vectors.values, store, "k", None, None, limit)
    refused(Code.INVALID, lambda: store.scan("p" * 513, 1, None))
    refused(Code.INVALID, lambda: vectors.tail_off(store, "k", -1))
    refused(Code.INVALID, lambda: sets.union(store, [], 1, None))
    refused(Code.INVALID, lambda: sets.intersection(store, ["k"] * 17, 1, None))


def test_a_value_that_is_no_counter_is_a_conflict_and_stays() -> None:
    store, _ = space()
    for value in (b"", b"x", b"01", b"+1", b"-0", b" 1", b"1\n", "\u0661".encode(), b"9" * 20):
        store.set("k", value)
        refused(Code.CONFLICT, lambda: store.incr("k"))
        assert store.get("k") == value
    store.set("k", b"%d" % limits.MAX_INTEGER)
    refused(Code.CONFLICT, lambda: store.incr("k"))
    assert store.incr("k", -1) == limits.MAX_INTEGER - 1


def test_over_the_quota_nothing_is_done_and_the_figures_are_given() -> None:
    store, _ = space(limits.VALUE_COST + 1 + 10)
    store.set("k", b"x" * 10)
    error = refused(Code.EXHAUSTED, lambda: store.set("k", b"x" * 11))
    assert error.details == {"quota": store.quota, "used": store.quota, "needed": 1}
    assert store.get("k") == b"x" * 10
    refused(Code.EXHAUSTED, lambda: store.set("l", b""))
    refused(Code.EXHAUSTED, lambda: lists.push(store, "l", b""))
    refused(Code.EXHAUSTED, lambda: sets.add(store, "l", b""))
    refused(Code.EXHAUSTED, lambda: vectors.insert(store, "l", 1, b"", True))
    refused(Code.EXHAUSTED, lambda: locks.lock(store, "l", 1.0, None))
    assert len(store) == 1
    assert store.bytes == store.quota


def test_under_a_lowered_quota_what_shrinks_is_still_taken() -> None:
    store, _ = space()
    store.set("k", b"x" * 100)
    store.quota = 10
    store.set("k", b"x" * 99)
    refused(Code.EXHAUSTED, lambda: store.set("k", b"x" * 100))
    assert store.delete("k")
    assert store.bytes == 0


def test_room_that_expired_entries_take_is_found_again() -> None:
    one = limits.VALUE_COST + limits.TTL_COST + 4
    store, clock = space(one * 500)
    for number in range(500):
        store.set(f"k{number:03d}", b"", 1.0)
    refused(Code.EXHAUSTED, lambda: store.set("more", b"x" * 200))
    clock[0] = 1.0
    store.set("more", b"x" * 100_000)
    assert store.expired > SWEPT_BY_A_CHANGE
    assert store.get("k499") is None


def test_one_change_sweeps_a_bounded_number() -> None:
    store, clock = space()
    for number in range(1000):
        store.set(f"k{number}", b"", 1.0)
    clock[0] = 5.0
    store.set("x", b"")
    assert store.expired == SWEPT_BY_A_CHANGE
    assert len(store) == 1000 - SWEPT_BY_A_CHANGE + 1
    assert [entry.key for entry in store.scan("", 1000, None).entries] == ["x"]
    store.sweep(10_000)
    assert store.expired == 1000
    assert len(store) == 1


def test_setting_a_time_to_live_again_and_again_takes_no_memory() -> None:
    store, clock = space()
    for number in range(1000):
        store.set("k", b"", 10.0 + number)
        clock[0] += 0.001
    assert store.bytes == limits.VALUE_COST + limits.TTL_COST + 1
    clock[0] = 500.0
    assert store.exists("k")
    store.set("k", b"")
    clock[0] = 1e6
    assert store.exists("k")


def test_a_scan_over_much_that_has_expired_comes_back_with_a_cursor() -> None:
    store, clock = space(1 << 30)
    for number in range(6000):
        store.set(f"k{number:05d}", b"", 1.0)
    store.set("last", b"here")
    clock[0] = 2.0
    first = store.scan("", 10, None)
    assert first.entries == ()
    assert first.after is not None
    second = store.scan("", 10, first.after)
    assert [entry.key for entry in second.entries] == ["last"]
    assert second.after is None


def test_answers_are_pages_that_fit_a_frame() -> None:
    store, _ = space(1 << 26)
    large = bytes(300 * 1024)
    for number in range(4):
        store.set(f"v{number}", large)
        lists.push(store, "list", large)
        sets.add(store, "set", large + bytes([number]))
        sets.add(store, "other", large + bytes([number]))
        vectors.insert(store, "vector", number, large, True)
    page = store.scan("v", 10, None)
    assert [entry.key for entry in page.entries] == ["v0", "v1"]
    assert [entry.key for entry in store.scan("v", 10, page.after).entries] == ["v2", "v3", "vector"]
    assert len(lists.items(store, "list", 0, None)) == 2
    assert len(lists.items(store, "list", 3, None)) == 1
    for members in (
        sets.members(store, "set", 10, None),
        sets.union(store, ["set", "other"], 10, None),
        sets.intersection(store, ["set", "other"], 10, None),
    ):
        assert len(members.members) == 2
        assert members.after == members.members[-1]
    assert [index for index, _ in vectors.values(store, "vector", None, None, 10)] == [0, 1]
    for _ in range(limits.MAX_PAGE + 1):
        lists.push(store, "many", b"")
    assert len(lists.items(store, "many", 0, None)) == limits.MAX_PAGE


def test_an_intersection_looks_at_a_bounded_number_of_members() -> None:
    store, _ = space(1 << 30)
    for number in range(limits.MAX_EXAMINED + 10):
        sets.add(store, "even", b"%06d" % (2 * number))
        sets.add(store, "odd", b"%06d" % (2 * number + 1))
    sets.add(store, "odd", b"%06d" % (2 * (limits.MAX_EXAMINED + 5)))
    first = sets.intersection(store, ["even", "odd"], 10, None)
    assert first.members == ()
    assert first.after is not None
    assert sets.intersection(store, ["even", "odd"], 10, first.after).members == (b"008202",)


def test_a_lock_that_expired_is_not_renewed_but_taken_anew() -> None:
    store, clock = space()
    token = locks.lock(store, "l", 1.0, None)
    assert token is not None
    clock[0] = 1.0
    assert locks.lock(store, "l", 1.0, token) is None
    other = locks.lock(store, "l", 1.0, None)
    assert other not in (None, token)
    assert not locks.unlock(store, "l", token)
    assert locks.lock(store, "l", 1.0, None) is None


def test_a_lock_s_token_is_not_in_its_repr() -> None:
    store, _ = space()
    token = locks.lock(store, "l", 1.0, None)
    assert token is not None
    assert repr(token) not in repr(store.locks)
    assert token.hex() not in repr(store.locks)


def test_a_name_whose_expired_holder_still_lies_there_is_free() -> None:
    store, clock = space()
    for number in range(200):
        store.set(f"k{number:03d}", b"old", 1.0)
        locks.lock(store, f"k{number:03d}", 1.0, None)
    clock[0] = 2.0
    store.set("k199", b"new")
    assert store.get("k199") == b"new"
    assert locks.lock(store, "k199", 1.0, None) is not None
    store.sweep(1000)
    assert (len(store), len(store.locks)) == (1, 1)
    assert store.expired == 399  # the lock's predecessor was replaced, not swept
    assert store.bytes == limits.VALUE_COST + limits.LOCK_COST + 3 + 4 + 4


def test_members_of_a_set_come_in_byte_order_once() -> None:
    store, _ = space()
    assert [sets.add(store, "s", member) for member in (b"b", b"", b"a", b"b")] == [True, True, True, False]
    assert sets.members(store, "s", 10, None).members == (b"", b"a", b"b")
    assert sets.members(store, "s", 10, b"").members == (b"a", b"b")
    assert store.bytes == limits.SET_COST + 1 + 3 * limits.ITEM_COST + 2
