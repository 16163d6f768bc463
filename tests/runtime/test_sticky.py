"""Sticky links between real replicas: one value, one replica, for as long as it lives.

Rule: docs/architecture.md, "Sticky keys".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import msgspec
import pytest
from wasmtime import wat2wasm

from tea.protocol.errors import CallError
from tea.protocol.sticky import KEY_BYTES, NO_KEY
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.rights import split_key
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle

Enclave = Any

WORK = """
from tea.sdk import Actor, operation

class Work(Actor):
    told = 0

    @operation
    def where(self, other: int, key: str = "none") -> int:
        return self.replica

    @operation
    def note(self, key: str) -> None:
        self.told += 1

    @operation
    def count(self) -> list[int]:
        return [self.replica, self.told]
"""
FRONT = """
from tea.sdk import Actor, operation

class Front(Actor):
    @operation
    def where(self, key: str) -> list[int]:
        return [self.work.where(1, key), self.work.where(key=key, other=2), self.work.later.where(3, key).result()]

    @operation
    def default(self) -> list[int]:
        return [self.work.where(1), self.work.where(2, "none")]

    @operation
    def plain(self, times: int) -> list[int]:
        return [self.free.where(1, "x") for _ in range(times)]

    @operation
    def tell(self, key: str, times: int) -> None:
        for _ in range(times):
            self.work.tell.note(key)
"""
RING = """
from tea.sdk import Actor, operation

class Ring(Actor):
    @operation
    def where(self, other: int, key: str = "none") -> int:
        return self.replica

    @operation
    def ask(self, keys: list[str], key: str) -> list[int]:
        return [self.other.where(number, key) for number, key in enumerate(keys)]
"""
FORWARD = """
(module
  (import "tea" "link" (func $link (param i32 i32) (result i32)))
  (import "tea" "operation" (func $operation (param i32 i32 i32) (result i32)))
  (import "tea" "call" (func $call (param i32 i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 16) "work")
  (data (i32.const 32) "where")
  (global $next (mut i32) (i32.const 1024))
  (func (export "tea_alloc") (param $size i32) (result i32)
    (local $place i32)
    (local.set $place (global.get $next))
    (global.set $next (i32.add (local.get $place) (local.get $size)))
    (local.get $place))
  (func (export "tea_handle") (param $number i32) (param $place i32) (param $size i32) (result i64)
    (local $work i32)
    (local.set $work (call $link (i32.const 16) (i32.const 4)))
    (call $call (local.get $work) (call $operation (local.get $work) (i32.const 32) (i32.const 5))
      (local.get $place) (local.get $size) (i32.const 0))))
"""
FORWARDED = {
    "tea": "interface/1",
    "operations": [
        {
            "name": "where",
            "parameters": [{"name": "other", "type": "int"}, {"name": "key", "type": "str"}],
            "result": "int",
        }
    ],
}
KEYS = [f"key {number}" for number in range(24)]


def build(enclave: Enclave) -> None:
    enclave.bundle("work", WORK, "Work")
    enclave.bundle("front", FRONT, "Front", capabilities={"work": ("note", "where")})


def manifest(enclave: Enclave, sticky: str = "key", restart: str = "", parent: str = ", sticky: key") -> str:
    links = f"""
  - {{from: parent, to: front, operations: [default, plain, tell, where]}}
  - {{from: parent, to: work, operations: [note, where]{parent}}}
  - {{from: front, to: work, operations: [note, where], sticky: {sticky}}}
  - {{from: front, to: work, operations: [where], as: free}}
"""
    text: str = enclave.manifest(links=links, actors={"work": f", replicas: 3{restart}"})
    return text


async def test_calls_with_one_value_go_to_one_replica_whoever_calls(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(manifest(enclave))
    found = {}
    for key in KEYS:
        replicas = set(await enclave.call("front", "where", key=key))
        replicas.add(await enclave.call("work", "where", 5, key))
        replicas.add(await enclave.call("work", "where", key=key, other=6))
        assert len(replicas) == 1, key
        found[key] = replicas.pop()
    assert set(found.values()) == {0, 1, 2}, "all replicas have their part"
    assert len(set(await enclave.call("front", "default"))) == 1
    assert set(await enclave.call("front", "plain", times=9)) == {0, 1, 2}, "another link is not sticky"


async def test_calls_of_actors_in_a_circle_stick_from_the_first_on(enclave: Enclave) -> None:
    enclave.bundle("left", RING, "Ring", capabilities={"right": ("where",)})
    enclave.bundle("right", RING, "Ring", capabilities={"left": ("where",)})
    links = "\n".join(
        f"  - {{from: parent, to: {one}, operations: [ask, where], sticky: key}}\n"
        f"  - {{from: {one}, to: {other}, operations: [where], sticky: key, as: other}}"
        for one, other in (("left", "right"), ("right", "left"))
    )
    await enclave.push(enclave.manifest(links=links, actors=dict.fromkeys(("left", "right"), ", replicas: 3")))
    for one, other in (("left", "right"), ("right", "left")):
        homes = [await enclave.call(other, "where", 1, key) for key in KEYS]
        assert set(homes) == {0, 1, 2}
        for key in KEYS[:6]:
            assert await enclave.call(one, "ask", keys=KEYS, key=key) == homes


async def test_calls_of_a_wasm_actor_stick_too(enclave: Enclave) -> None:
    enclave.bundle("work", WORK, "Work")
    claims = ClaimsInput(
        name="front", version="0.1.0", entry="front.wasm", issued_at=1, capabilities={"work": ("where",)}, kind="wasm"
    )
    archive = build_archive({"front.wasm": bytes(wat2wasm(FORWARD)), "front.json": json.dumps(FORWARDED).encode()})
    enclave.bundles["front"] = build_bundle(archive, claims, enclave.key)
    links = """
  - {from: parent, to: front, operations: [where]}
  - {from: parent, to: work, operations: [where], sticky: key}
  - {from: front, to: work, operations: [where], sticky: key}
"""
    await enclave.push(enclave.manifest(links=links, actors={"work": ", replicas: 3"}))
    homes = [await enclave.call("work", "where", 1, key) for key in KEYS]
    assert set(homes) == {0, 1, 2}
    assert [await enclave.call("front", "where", 2, key) for key in KEYS] == homes


async def test_messages_stick_too(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(manifest(enclave))
    await enclave.call("front", "tell", key="a", times=30)
    group = enclave.host.router.groups["work"]
    await until(lambda: not any(port.delivered for port in group.ports))
    counts = [
        await enclave.host.router.call("provider:x", "work", "count", b"\x90", timeout=5.0, replica=replica)
        for replica in range(3)
    ]
    assert sorted(msgspec.msgpack.decode(one)[1] for one in counts) == [0, 0, 30]


async def test_a_key_falls_to_another_replica_while_its_own_is_gone_and_others_stay(
    enclave: Enclave, until: Any
) -> None:
    build(enclave)
    await enclave.push(manifest(enclave, restart=", restart: {backoff_ms: 60000, backoff_max_ms: 60000}"))
    before = {key: await enclave.call("work", "where", 1, key) for key in KEYS}
    supervisor = enclave.host.supervisors["work"]
    gone = before[KEYS[0]]
    os.kill(supervisor._replicas[gone].process.pid, signal.SIGKILL)
    await until(lambda: supervisor.running == 2)
    after = {key: await enclave.call("work", "where", 1, key) for key in KEYS}
    assert after[KEYS[0]] != gone
    assert {key: after[key] for key in KEYS if before[key] != gone} == {
        key: before[key] for key in KEYS if before[key] != gone
    }


async def test_a_call_for_a_full_replica_waits_for_it_though_others_are_free(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(manifest(enclave, restart=", limits: {mailbox: 1}"))
    group = enclave.host.router.groups["work"]
    home = await enclave.call("work", "where", 1, "a")
    pid = enclave.host.supervisors["work"]._replicas[home].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        calls = [asyncio.ensure_future(enclave.call("work", "where", 1, "a")) for _ in range(2)]
        await until(lambda: group.figures.parked == 1)
        other = next(key for key in KEYS if group.pick_by(_key_of(key)).replica != home)
        assert await enclave.call("front", "where", key=other) != [home] * 3, "whose replica is free does not wait"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await asyncio.gather(*calls) == [home, home]


def _key_of(value: str) -> bytes:
    from tea.protocol.sticky import key_of

    return key_of(msgspec.msgpack.encode([value]), 0, ())


@pytest.mark.parametrize("who", ["front", "parent"])
async def test_a_link_that_names_no_parameter_is_refused_with_those_that_there_are(enclave: Enclave, who: str) -> None:
    build(enclave)
    text = manifest(enclave, sticky="kay") if who == "front" else manifest(enclave, parent=", sticky: kay")
    with pytest.raises(CallError, match=f"from {who} to work is sticky by 'kay', and note has no such .* it has key"):
        await enclave.push(text)


def test_a_call_on_a_sticky_link_that_is_too_short_for_a_key_is_refused() -> None:
    with pytest.raises(CallError, match="begins with a key of 8 bytes"):
        split_key(bytes(KEY_BYTES - 1))
    assert split_key(NO_KEY + b"x") == (NO_KEY, b"x")


def test_no_open_replica_has_no_key() -> None:
    assert ReplicaGroup("work").pick_by(bytes(8)) is None
