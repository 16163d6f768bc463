"""kvp: values, counters, lists, sets, vectors, locks. Everything is put under keys of this check and deleted.

May not: touch other keys of the actor. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import Code, Link

VALUE, COUNT, LIST, SET_A, SET_B, VEC, LOCK = (
    f"selftest/{name}" for name in ("value", "count", "list", "a", "b", "vec", "lock")
)


def check(kvp: Link, rows: Rows) -> None:
    """All operations of kvp."""
    if rows.granted("delete"):
        for key in (VALUE, COUNT, LIST, SET_A, SET_B, VEC):  # an earlier run may have been killed half way
            kvp.delete(key)
    _values(kvp, rows)
    _lists(kvp, rows)
    _sets(kvp, rows)
    _vectors(kvp, rows)
    _locks(kvp, rows)
    rows.works("memory", lambda: require(kvp.memory()["quota"] > 0, "no quota is said"))
    rows.works("delete", lambda: expect([kvp.delete(key) for key in (VALUE, COUNT, SET_A)], [True] * 3))
    for key in (LIST, SET_B, VEC):
        if rows.granted("delete"):
            kvp.delete(key)


def _values(kvp: Link, rows: Rows) -> None:
    rows.works("set", lambda: kvp.set(VALUE, b"one", ttl=60.0))
    rows.refuses("set", Code.INVALID, lambda: kvp.set("", b"one"))
    rows.works("get", lambda: expect(kvp.get(VALUE), b"one"))
    rows.refuses("get", Code.DENIED, lambda: kvp.get(VALUE, namespace="not-granted"))
    rows.works("exists", lambda: expect(kvp.exists(VALUE), True))
    rows.works("incr", lambda: expect((kvp.incr(COUNT, 5), kvp.incr(COUNT, -2)), (5, 3)))
    rows.refuses("incr", Code.CONFLICT, lambda: kvp.incr(VALUE))
    rows.works("compare_and_set", lambda: expect(kvp.compare_and_set(VALUE, b"one", b"two"), True))
    rows.works("compare_and_set", lambda: expect(kvp.compare_and_set(VALUE, b"one", b"three"), False), "not equal")
    rows.works("scan", lambda: expect([entry["key"] for entry in kvp.scan("selftest/v")["entries"]], [VALUE]))


def _lists(kvp: Link, rows: Rows) -> None:
    rows.works("list_push", lambda: expect([kvp.list_push(LIST, item) for item in (b"a", b"b", b"a")], [1, 2, 3]))
    rows.refuses("list_push", Code.CONFLICT, lambda: kvp.list_push(COUNT, b"a"))
    rows.works("list_range", lambda: expect(kvp.list_range(LIST, 1), [b"b", b"a"]))
    rows.works("list_delete", lambda: expect(kvp.list_delete(LIST, b"a"), 2))
    rows.works("list_len", lambda: expect(kvp.list_len(LIST), 1))
    rows.works("list_clear", lambda: expect(kvp.list_clear(LIST), 1))


def _sets(kvp: Link, rows: Rows) -> None:
    rows.works(
        "set_add", lambda: expect([kvp.set_add(SET_A, member) for member in (b"x", b"y", b"x")], [True, True, False])
    )
    if rows.granted("set_add"):
        kvp.set_add(SET_B, b"y")
    rows.works("set_contains", lambda: expect(kvp.set_contains(SET_A, b"x"), True))
    rows.works("set_members", lambda: expect(kvp.set_members(SET_A)["members"], [b"x", b"y"]))
    rows.works("set_union", lambda: expect(kvp.set_union([SET_A, SET_B])["members"], [b"x", b"y"]))
    rows.works("set_intersection", lambda: expect(kvp.set_intersection([SET_A, SET_B])["members"], [b"y"]))
    rows.refuses("set_intersection", Code.INVALID, lambda: kvp.set_intersection([]))
    rows.works("set_remove", lambda: expect(kvp.set_remove(SET_A, b"x"), True))


def _vectors(kvp: Link, rows: Rows) -> None:
    rows.works("vec_insert", lambda: expect([kvp.vec_insert(VEC, at, b"%d" % at) for at in (3, 1, 2)], [True] * 3))
    rows.works("vec_get", lambda: expect(kvp.vec_get(VEC, 2), b"2"))
    rows.works("vec_range", lambda: expect(kvp.vec_range(VEC, 2), [(2, b"2"), (3, b"3")]))
    rows.works("vec_remove", lambda: expect(kvp.vec_remove(VEC, 2), True))
    rows.works("vec_tail_off", lambda: expect(kvp.vec_tail_off(VEC, 1), 1))
    rows.refuses("vec_get", Code.CONFLICT, lambda: kvp.vec_get(COUNT, 0))


def _locks(kvp: Link, rows: Rows) -> None:
    token = rows.works("lock", lambda: kvp.lock(LOCK, 60.0))
    if token is None:
        return
    rows.works("lock", lambda: expect(kvp.lock(LOCK, 60.0), None), "held already")
    rows.refuses("lock", Code.INVALID, lambda: kvp.lock(LOCK, -1.0))
    rows.works("unlock", lambda: expect((kvp.unlock(LOCK, bytes(16)), kvp.unlock(LOCK, token)), (False, True)))
