"""WASM actors: the same claims, links and operations as Python's, and a guest that no attack gets out of."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wasmtime import wat2wasm

from tea.parent_client.building import build
from tea.protocol.errors import CallError, Code
from tea.runtime.worker.guest import linear_bytes
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle, inspect_bundle

Enclave = Any

HERE = Path(__file__).resolve().parent
COUNTER = HERE.parents[1] / "actors" / "wasm-counter"
HOSTILE = (HERE / "hostile.wat").read_text()
INTERFACE = json.dumps(
    {
        "tea": "interface/1",
        "operations": [
            {"name": "attack", "parameters": [{"name": "what", "type": "int"}], "result": "object", "doc": "One."},
            {"name": "alive", "result": "int", "doc": "How many calls this instance has had."},
            {"name": "mine", "result": "int", "only_from": ["provider:clock"]},
        ],
    }
).encode()
KVP = {"kvp": ("get", "incr")}
QUICK = ", restart: {backoff_ms: 10, backoff_max_ms: 50}"
FUEL = ", limits: {fuel: 100000000, memory_mib: 64}"


def add(
    enclave: Enclave,
    name: str,
    module: bytes,
    *,
    interface: bytes = INTERFACE,
    capabilities: Mapping[str, tuple[str, ...]] | None = None,
    entry: str = "guest.wasm",
) -> None:
    """Build a wasm bundle; it is pushed with every later push."""
    asked = dict(KVP if capabilities is None else capabilities)
    claims = ClaimsInput(
        name=name, version="0.1.0", entry=entry, issued_at=int(time.time()), capabilities=asked, kind="wasm"
    )
    archive = build_archive({"guest.wasm": module, "guest.json": interface})
    enclave.bundles[name] = build_bundle(archive, claims, enclave.key)
    enclave.capabilities[name] = asked


async def push_counter(enclave: Enclave) -> None:
    built = build(COUNTER / "bundle.yaml", enclave.key, enclave.folder / "built")
    enclave.bundles["wasm-counter"] = built.path.read_bytes()
    await enclave.push(
        enclave.manifest(
            links="  - {from: parent, to: wasm-counter, operations: [increment, value]}\n"
            "  - {from: wasm-counter, to: kvp, operations: [get, incr]}"
        )
    )


async def push_hostile(enclave: Enclave, extra: str = FUEL + QUICK, links: str = "") -> None:
    add(enclave, "hostile", bytes(wat2wasm(HOSTILE)))
    await enclave.push(
        enclave.manifest(
            links="  - {from: parent, to: hostile, operations: [attack, alive, mine]}\n"
            "  - {from: hostile, to: kvp, operations: [get, incr]}" + links,
            actors={"hostile": extra},
        )
    )


async def refusal(enclave: Enclave, what: int) -> CallError:
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "attack", what)
    return refused.value


async def load_refusal(enclave: Enclave, wat: str | bytes, **more: Any) -> str:
    add(enclave, "hostile", wat if isinstance(wat, bytes) else bytes(wat2wasm(wat)), capabilities={}, **more)
    with pytest.raises(CallError) as refused:
        await enclave.push(
            enclave.manifest(
                links="  - {from: parent, to: hostile, operations: [alive]}",
                actors={"hostile": ", limits: {memory_mib: 64}"},
            )
        )
    return str(refused.value)


SHAPE = (
    '(memory (export "memory") 1) (func (export "tea_alloc") (param i32) (result i32) (i32.const 8))'
    '(func (export "tea_handle") (param i32 i32 i32) (result i64) (i64.const 0))'
)


# -- what works ----------------------------------------------------------------------------------------------------


async def test_a_wasm_actor_counts_in_kvp(enclave: Enclave) -> None:
    await push_counter(enclave)
    assert await enclave.call("wasm-counter", "value") == 0
    assert await enclave.call("wasm-counter", "increment") == 1
    assert await enclave.call("wasm-counter", "increment", by=300) == 301
    assert await enclave.call("wasm-counter", "value") == 301


async def test_its_refusals_reach_the_caller_with_code_and_sentence(enclave: Enclave) -> None:
    await push_counter(enclave)
    for by in (0, -1, -1000):
        with pytest.raises(CallError) as refused:
            await enclave.call("wasm-counter", "increment", by=by)
        assert refused.value.code is Code.INVALID
        assert refused.value.sentence.startswith("a step is 1 or more")


async def test_arguments_are_checked_before_the_guest_sees_them(enclave: Enclave) -> None:
    await push_counter(enclave)
    for arguments in (("x",), (1, 2), (1.5,)):
        with pytest.raises(CallError) as refused:
            await enclave.call("wasm-counter", "increment", *arguments)
        assert refused.value.code is Code.INVALID


async def test_the_module_that_ships_is_what_its_text_makes() -> None:
    found = importlib.util.spec_from_file_location("wasm_counter_build", COUNTER / "build.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.build() == (COUNTER / "counter.wasm").read_bytes()


async def test_a_bundle_says_its_kind(enclave: Enclave) -> None:
    built = build(COUNTER / "bundle.yaml", enclave.key, enclave.folder / "built")
    claims = inspect_bundle(built.path.read_bytes()).claims
    assert (claims.kind, claims.entry) == ("wasm", "counter.wasm")


@pytest.mark.parametrize(("direct", "behind"), [("false", ["parent"]), ("true", [])])
async def test_a_python_actor_calls_it_and_it_learns_who_called(
    enclave: Enclave, direct: str, behind: list[str]
) -> None:
    source = """
    from tea.sdk import Actor, operation

    class Front(Actor):
        @operation
        def ask(self) -> object:
            return self.hostile.attack(what=11)
    """
    enclave.bundle("front", source, "Front", capabilities={"hostile": ("attack",)})
    await push_hostile(
        enclave,
        links="\n  - {from: parent, to: front, operations: [ask]}"
        f"\n  - {{from: front, to: hostile, operations: [attack], direct: {direct}}}",
    )
    caller, chain, deadline = await enclave.call("front", "ask")
    assert (caller, chain) == ("front", behind)
    assert 0 < deadline <= 30_000
    assert (await enclave.call("hostile", "attack", 11))[0] == "parent"


async def test_it_knows_its_identity_and_its_log_lines_arrive(enclave: Enclave) -> None:
    await push_hostile(enclave)
    name, replica, version, deployment, _environment = await enclave.call("hostile", "attack", 12)
    assert (name, replica, version, deployment) == ("hostile", 0, "0.1.0", "test")
    await enclave.call("hostile", "attack", 10)
    assert await enclave.logged("hello from the guest") == "hello from the guest"


async def test_an_operation_for_one_caller_refuses_all_others(enclave: Enclave) -> None:
    await push_hostile(enclave)
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "mine")
    assert refused.value.code is Code.DENIED


async def test_python_workers_have_nothing_of_wasmtime_in_their_memory(enclave: Enclave, echo_source: str) -> None:
    enclave.bundle("echo", echo_source, "Echo")
    await push_hostile(enclave, links="\n  - {from: parent, to: echo, operations: [echo]}")
    if os.geteuid() != 0:
        pytest.skip("needs root to read a worker's mappings")
    (python,), (wasm,) = (enclave.host.supervisors[name].pids for name in ("echo", "hostile"))
    assert "_libwasmtime" not in Path(f"/proc/{python}/maps").read_text()
    maps = Path(f"/proc/{wasm}/maps").read_text()
    assert "_libwasmtime" in maps
    assert " rwxp " not in maps


async def test_nothing_more_becomes_executable_once_the_guest_runs(enclave: Enclave) -> None:
    await push_hostile(enclave)
    (pid,) = enclave.host.supervisors["hostile"].pids
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Seccomp"] == "2"
    # The host's own, if any, come first: the worker adds the allowlist, the last lock and the lock on code.
    own = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    assert int(status["Seccomp_filters"]) == int(own["Seccomp_filters"]) + 3


# -- what it cannot do ---------------------------------------------------------------------------------------------


async def test_a_call_that_takes_more_than_its_fuel_ends_and_the_actor_lives(enclave: Enclave) -> None:
    await push_hostile(enclave)
    refused = await refusal(enclave, 0)
    assert refused.code is Code.EXHAUSTED
    assert refused.details["limit"] == 100_000_000
    assert await enclave.call("hostile", "alive") == 1
    assert enclave.host.supervisors["hostile"].restarts == 0


@pytest.mark.parametrize("what", [1, 6, 13, 24], ids=["unreachable", "recursion", "division", "out-of-bounds"])
async def test_a_trap_is_internal_without_detail_and_the_next_call_meets_a_fresh_instance(
    enclave: Enclave, what: int
) -> None:
    await push_hostile(enclave)
    assert await enclave.call("hostile", "alive") == 1
    assert await enclave.call("hostile", "alive") == 2
    refused = await refusal(enclave, what)
    assert refused.code is Code.INTERNAL
    assert refused.sentence == "hostile.attack failed; its log has the cause"
    assert await enclave.call("hostile", "alive") == 1
    assert enclave.host.supervisors["hostile"].restarts == 0
    assert "GuestError" in await enclave.logged("operation attack failed")


async def test_memory_beyond_the_limit_is_not_given(enclave: Enclave) -> None:
    await push_hostile(enclave)
    assert await enclave.call("hostile", "attack", 2) == 0xFFFFFFFF
    pages = await enclave.call("hostile", "attack", 3)
    assert 0 < pages * 65536 <= linear_bytes(64 << 20)
    assert pages * 65536 > linear_bytes(64 << 20) // 2
    assert await enclave.call("hostile", "attack", 42) == 42


@pytest.mark.parametrize(
    "what", [4, 8, 15, 17, 19, 23], ids=["result", "body", "alloc", "alloc-in-alloc", "log", "no-memory"]
)
async def test_pointers_out_of_bounds_are_refused(enclave: Enclave, what: int) -> None:
    await push_hostile(enclave)
    assert (await refusal(enclave, what)).code is Code.INTERNAL
    assert await enclave.call("hostile", "alive") == 1


async def test_a_result_that_is_too_large_is_exhausted(enclave: Enclave) -> None:
    await push_hostile(enclave)
    assert (await refusal(enclave, 5)).code is Code.EXHAUSTED


async def test_arguments_that_are_too_large_are_invalid(enclave: Enclave) -> None:
    await push_hostile(enclave)
    assert (await refusal(enclave, 22)).code is Code.INVALID


async def test_an_error_that_is_none_is_internal(enclave: Enclave) -> None:
    await push_hostile(enclave)
    assert (await refusal(enclave, 14)).code is Code.INTERNAL


async def test_an_empty_result_harms_nobody(enclave: Enclave) -> None:
    await push_hostile(enclave)
    body = await enclave.client.call("hostile", "attack", msgspec.msgpack.encode([18]))
    assert body == b""
    assert await enclave.call("hostile", "attack", 42) == 42


@pytest.mark.parametrize("what", [7, 9, 20, 21], ids=["guessed", "none", "operation", "operation-number"])
async def test_links_and_operations_that_are_not_granted_are_denied(enclave: Enclave, what: int) -> None:
    await push_hostile(enclave)
    assert (await refusal(enclave, what)).code is Code.DENIED
    assert await enclave.call("hostile", "attack", 42) == 42


async def test_a_message_to_a_guessed_link_goes_nowhere(enclave: Enclave) -> None:
    await push_hostile(enclave)
    await enclave.call("hostile", "attack", 16)
    async with asyncio.timeout(10):
        while not enclave.host.status().actors[0].refused:
            await asyncio.sleep(0.005)
    assert await enclave.call("hostile", "attack", 42) == 42


# -- what is not loaded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [b"\0asm\1\0\0\0 and then nonsense", b"import os", b"(module)", b"\0asm\x0d\0\1\0"])
async def test_a_module_that_is_none_is_refused_at_its_start(enclave: Enclave, module: bytes) -> None:
    assert "the module is not valid" in await load_refusal(enclave, module)


async def test_imports_that_are_not_offered_are_named(enclave: Enclave) -> None:
    wasi = (
        '(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))' + SHAPE + ")"
    )
    assert "imports wasi_snapshot_preview1.fd_write, which is not offered" in await load_refusal(enclave, wasi)


async def test_an_import_of_another_type_is_refused(enclave: Enclave) -> None:
    wrong = '(module (import "tea" "caller" (func (param i64) (result i32)))' + SHAPE + ")"
    assert "cannot be instantiated" in await load_refusal(enclave, wrong)


@pytest.mark.parametrize(
    ("wat", "why"),
    [
        ("(module)", "exports no memory"),
        ('(module (memory (export "memory") 1))', "exports no function tea_alloc(i32) -> (i32)"),
        ("(module " + SHAPE.replace("(result i64) (i64.const 0)", "(result i32) (i32.const 0)") + ")", "tea_handle"),
        ("(module " + SHAPE + '(func (export "tea_start")))', "tea_start"),
        ('(module (memory (export "memory") 30000)' + SHAPE[28:] + ")", "cannot be instantiated"),
        ("(module " + SHAPE.replace('"memory") 1', '"memory") 1 1 shared') + ")", "not valid"),
        ("(module " + SHAPE + "(func $loop unreachable) (start $loop))", "cannot be instantiated"),
    ],
)
async def test_a_module_of_another_shape_is_refused(enclave: Enclave, wat: str, why: str) -> None:
    assert why in await load_refusal(enclave, wat)


async def test_a_start_that_never_ends_is_refused(enclave: Enclave) -> None:
    spin = "(module " + SHAPE + '(func (export "tea_start") (result i64) (loop $on (br $on)) (i64.const 0)))'
    assert "EXHAUSTED" in await load_refusal(enclave, spin)


@pytest.mark.parametrize(
    ("interface", "why"),
    [
        (b"{", "the interface is not understood"),
        (b'{"tea": "interface/2", "operations": []}', "expected 'interface/1'"),
        (b'{"tea": "interface/1", "operations": []}', "0 operations"),
        (b'{"tea": "interface/1", "operations": [{"name": "x", "result": "Struct"}]}', "is no type"),
        (b'{"tea": "interface/1", "operations": [{"name": "send", "result": "int"}]}', "belongs to Actor itself"),
    ],
)
async def test_an_interface_that_is_none_is_refused(enclave: Enclave, interface: bytes, why: str) -> None:
    assert why in await load_refusal(enclave, "(module " + SHAPE + ")", interface=interface)


async def test_a_killed_worker_and_a_killed_zygote_of_this_kind_come_back(enclave: Enclave) -> None:
    await push_hostile(enclave)
    supervisor = enclave.host.supervisors["hostile"]
    assert enclave.host.zygote._compiled.pid != enclave.host.zygote.pid
    os.kill(enclave.host.zygote._compiled.pid, signal.SIGKILL)
    os.kill(supervisor.pids[0], signal.SIGKILL)
    async with asyncio.timeout(20):
        while supervisor.restarts == 0:
            await asyncio.sleep(0.005)
    assert await enclave.call("hostile", "alive") == 1
    assert enclave.host.zygote.starts == 1
