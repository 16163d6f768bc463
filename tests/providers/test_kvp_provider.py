"""kvp as actors see it: typed operations over the wire form, namespaces, grants, quotas, lives and ends.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.kvp import Found, Kvp, Members, Memory, Page
from tea.providers.testing import InMemoryServices, invoke, start_provider

ALICE = Call(caller="alice", kvp_bytes=1 << 22)
BOB = Call(caller="bob", kvp_bytes=1 << 20)
SHARED = {"shared": {"board": {"read": ["alice", "bob"], "write": ["alice"]}, "box": {"write": ["bob"], "bytes": 400}}}


@asynccontextmanager
async def started(config: Mapping[str, object] | None = None) -> AsyncIterator[tuple[Kvp, InMemoryServices]]:
    services = InMemoryServices("kvp")
    services.clock.install()
    kvp = await start_provider(Kvp, services, config)
    try:
        yield kvp, services
    finally:
        await kvp.stop()
        await services.close()
        assert services.failures == []


async def refused(
    code: Code, kvp: Kvp, operation: str, *args: object, call: Call = ALICE, **kwargs: object
) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(kvp, operation, *args, call=call, **kwargs)
    assert caught.value.code is code
    return caught.value


async def test_every_operation_answers_over_the_wire() -> None:
    async with started() as (kvp, _):

        async def ask(operation: str, *args: object, **kwargs: object) -> object:
            asked.add(operation)
            return await invoke(kvp, operation, *args, call=ALICE, **kwargs)

        asked: set[str] = set()
        assert await ask("get", "k") is None
        assert await ask("set", "k", b"v", 5) is None
        assert await ask("get", "k") == b"v"
        assert await ask("exists", "k") is True
        assert await ask("compare_and_set", "k", b"v", b"w") is True
        assert await ask("compare_and_set", "k", None, b"w") is False
        assert await ask("scan") == Page((Found("k", "value", b"w"),), None)
        assert await ask("delete", "k") is True
        assert await ask("incr", "n") == 1
        assert await ask("incr", "n", by=-3) == -2
        assert await ask("list_push", "l", b"a") == 1
        assert await ask("list_push", "l", b"b") == 2
        assert await ask("list_range", "l", -1) == [b"b"]
        assert await ask("list_delete", "l", b"a") == 1
        assert await ask("list_len", "l") == 1
        assert await ask("list_clear", "l") == 1
        assert await ask("set_add", "s", b"a") is True
        assert await ask("set_add", "t", b"b") is True
        assert await ask("set_contains", "s", b"a") is True
        assert await ask("set_members", "s") == Members((b"a",), None)
        assert await ask("set_union", ["s", "t"]) == Members((b"a", b"b"), None)
        assert await ask("set_intersection", ["s", "t"]) == Members((), None)
        assert await ask("set_remove", "s", b"a") is True
        assert await ask("vec_insert", "v", 7, b"seven") is True
        assert await ask("vec_insert", "v", 7, b"sept") is False
        assert await ask("vec_insert", "v", 7, b"sieben", overwrite=True) is True
        assert await ask("vec_insert", "v", -1, b"less") is True
        assert await ask("vec_get", "v", 7) == b"sieben"
        assert await ask("vec_range", "v") == [(-1, b"less"), (7, b"sieben")]
        assert await ask("vec_tail_off", "v", 1) == 1
        assert await ask("vec_remove", "v", -1) is True
        token = await ask("lock", "l", 5)
        assert isinstance(token, bytes)
        assert await ask("lock", "l", 5) is None
        assert await ask("lock", "l", 5, token) == token
        assert await ask("unlock", "l", token) is True
        figures = await ask("memory")
        assert isinstance(figures, Memory)
        assert figures.quota == 1 << 22
        assert figures.entries == 2
        assert asked == set(Kvp.operations())


async def test_every_operation_says_what_it_does() -> None:
    for operation in Kvp.operations().values():
        assert len(operation.description.doc) > 20, operation.name


async def test_actors_do_not_see_each_other_s_keys_and_replicas_do() -> None:
    async with started() as (kvp, _):
        await invoke(kvp, "set", "k", b"alice's", call=ALICE)
        assert await invoke(kvp, "get", "k", call=BOB) is None
        assert await invoke(kvp, "get", "k", call=Call(caller="alice", replica=3, kvp_bytes=1 << 20)) == b"alice's"
        # An actor that is named as a namespace is no namespace.
        await refused(Code.DENIED, kvp, "get", "k", call=BOB, namespace="alice")


async def test_a_shared_namespace_is_for_those_who_have_a_grant() -> None:
    async with started(SHARED) as (kvp, _):
        await invoke(kvp, "set", "k", b"v", None, "board", call=ALICE)
        assert await invoke(kvp, "get", "k", call=BOB, namespace="board") == b"v"
        assert await invoke(kvp, "get", "k", call=BOB) is None
        error = await refused(Code.DENIED, kvp, "set", "k", b"v", None, "board", call=BOB)
        assert error.details == {"caller": "bob", "right": "write"}
        assert await invoke(kvp, "incr", "n", 1, "board", call=ALICE) == 1


async def test_a_grant_to_write_is_none_to_read() -> None:
    async with started(SHARED) as (kvp, _):
        await invoke(kvp, "set", "k", b"v", None, "box", call=BOB)
        for operation, args in (("get", ("k",)), ("incr", ("n", 1)), ("compare_and_set", ("k", b"v", b"w", None))):
            error = await refused(Code.DENIED, kvp, operation, *args, call=BOB, namespace="box")
            assert error.details["right"] == "read"


async def test_not_yours_and_not_there_are_told_alike() -> None:
    async with started(SHARED) as (kvp, _):
        there = await refused(Code.DENIED, kvp, "get", "k", call=ALICE, namespace="box")
        not_there = await refused(Code.DENIED, kvp, "get", "k", call=ALICE, namespace="boo")
        assert there.sentence.replace("'box'", "") == not_there.sentence.replace("'boo'", "")
        assert there.details == not_there.details


async def test_every_operation_checks_the_grant() -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "set": ("k", b"", None),
        "incr": ("k", 1),
        "compare_and_set": ("k", None, b"", None),
        "scan": ("", 100, None),
        "list_range": ("k", 0, None),
        "set_members": ("k", 1000, None),
        "memory": (),
        "list_push": ("k", b""),
        "list_delete": ("k", b""),
        "set_union": (["k"], 1000, None),
        "set_intersection": (["k"], 1000, None),
        "vec_insert": ("k", 1, b"", False),
        "vec_get": ("k", 1),
        "vec_remove": ("k", 1),
        "vec_range": ("k", None, None, 1000),
        "vec_tail_off": ("k", 1),
        "lock": ("k", 1.0, None),
        "unlock": ("k", b""),
        **dict.fromkeys(("set_add", "set_remove", "set_contains"), ("k", b"")),
    }
    async with started(SHARED) as (kvp, _):
        for name in Kvp.operations():
            args = arguments.get(name, ("k",))
            await refused(Code.DENIED, kvp, name, *args, call=Call(caller="eve", kvp_bytes=99), namespace="board")


async def test_the_quota_is_the_manifest_s_for_the_actor_and_the_config_s_for_shared() -> None:
    async with started(SHARED) as (kvp, _):
        await refused(Code.EXHAUSTED, kvp, "set", "k", b"", call=Call(caller="poor"))
        await invoke(kvp, "set", "k", b"x" * 300, call=Call(caller="poor", kvp_bytes=1000))
        await invoke(kvp, "set", "k", b"x" * 100, None, "box", call=BOB)
        error = await refused(Code.EXHAUSTED, kvp, "set", "k", b"x" * 200, None, "box", call=BOB)
        assert error.details == {"quota": 400, "used": 357, "needed": 100}


async def test_what_has_expired_is_freed_while_nobody_calls() -> None:
    async with started() as (kvp, services):
        for number in range(5000):
            kvp.set(ALICE, f"k{number}", b"v", 1.0)
        await services.clock.advance(0.5)
        assert kvp.usage()["entries"] == 5000
        await services.clock.advance(2.5)
        usage = kvp.usage()
        assert {name: figure for name, figure in usage.items() if ":" not in name} == {
            "bytes": 0, "entries": 0, "locks": 0, "namespaces": 1, "expired": 5000,
        }  # fmt: skip


async def test_a_time_to_live_ends_at_its_moment() -> None:
    async with started() as (kvp, services):
        await invoke(kvp, "set", "k", b"v", ttl=2.0, call=ALICE)
        await services.clock.advance(1.5)
        assert await invoke(kvp, "get", "k", call=ALICE) == b"v"
        await services.clock.advance(0.6)
        assert await invoke(kvp, "get", "k", call=ALICE) is None
        assert await invoke(kvp, "exists", "k", call=ALICE) is False


async def test_an_actor_that_left_leaves_nothing() -> None:
    async with started(SHARED) as (kvp, _):
        await invoke(kvp, "set", "k", b"v", call=ALICE)
        await invoke(kvp, "set", "k", b"v", None, "board", call=ALICE)
        await kvp.forget("alice")
        await kvp.forget("nobody")
        assert await invoke(kvp, "get", "k", call=ALICE) is None
        assert await invoke(kvp, "get", "k", call=BOB, namespace="board") == b"v"


async def test_arguments_that_do_not_fit_are_invalid() -> None:
    async with started() as (kvp, _):
        for args in (("k", "text"), ("k", b"v", "1"), (7, b"v"), ("k", b"v", 1.0, "", 1)):
            with pytest.raises(CallError) as caught:
                Kvp.operations()["set"].decode_arguments(msgspec.msgpack.encode(args))
            assert caught.value.code is Code.INVALID
        await refused(Code.INVALID, kvp, "set", "", b"v")
        await refused(Code.INVALID, kvp, "set", "k", b"v", 0.0)


@pytest.mark.parametrize(
    "config",
    [
        {"shard": {}},
        {"shared": {"": {"read": ["alice"]}}},
        {"shared": {"x": {}}},
        {"shared": {"x": {"read": ["alice"], "bytes": 0}}},
        {"shared": {"x": {"read": ["alice"], "bytes": (1 << 40) + 1}}},
        {"shared": {"x": {"read": "alice"}}},
        {"shared": {"x": {"reed": ["alice"]}}},
    ],
)
async def test_a_config_that_makes_no_sense_is_refused(config: Mapping[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Kvp, InMemoryServices("kvp"), config)


async def test_usage_has_the_bytes_and_the_quota_of_every_namespace() -> None:
    shared = {"board": {"read": ["counter"], "write": ["counter"], "bytes": 7000}}
    async with started({"shared": shared}) as (kvp, _):
        await invoke(kvp, "set", "k", b"x" * 100, call=Call(caller="counter", kvp_bytes=5000))
        await invoke(kvp, "set", "k", b"x" * 100, call=Call(caller="other", kvp_bytes=6000))
        usage = kvp.usage()
        assert {name: figure for name, figure in usage.items() if name.startswith("quota:")} == {
            "quota:counter": 5000, "quota:other": 6000, "quota:shared/board": 7000,
        }  # fmt: skip
        assert usage["bytes:counter"] == usage["bytes:other"] == usage["bytes"] // 2 > 100
        assert usage["bytes:shared/board"] == 0
