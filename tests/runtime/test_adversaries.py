"""Adversaries: each attack is contained, named in the log and in status, and the neighbour's worker goes on.

The hostile actor runs in a real worker of a real host. Latency under attack is `bench/adversaries.py`'s.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tea.protocol.channels import ActorStatus
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Flag, Frame, Kind, encode_frame
from tea.runtime.refusals import LISTENED_CALLS
from tea.runtime.worker.layers import Layer
from tea.runtime.worker.seccomp_policy import FATAL

from .adversary import ENTRY, NAME, OPERATIONS, SOURCE
from .conftest import ECHO

Enclave = Any
LIMITS = ", limits: {memory_mib: 64, in_flight: 32, mailbox: 32}, restart: {backoff_ms: 10, backoff_max_ms: 50}"
KVP = ("get", "set", "set_add", "set_contains", "set_intersection", "set_union")
ASKS = {"echo": ("echo", "who"), "kvp": KVP, "intercom": ("request", "request_all")}
EPERM = errno.errorcode[errno.EPERM]


class Arena:
    """An adversary and its neighbour in one enclave."""

    def __init__(self, enclave: Enclave) -> None:
        self.enclave = enclave
        self.neighbour: list[int] = []

    async def open(self, limits: str = LIMITS) -> None:
        enclave = self.enclave
        enclave.bundle(NAME, SOURCE, ENTRY, capabilities=ASKS)
        enclave.bundle("echo", ECHO, "Echo")
        links = [
            f"  - {{from: parent, to: {NAME}, operations: [{', '.join(OPERATIONS)}]}}",
            "  - {from: parent, to: echo, operations: [echo, who]}",
            f"  - {{from: {NAME}, to: echo, operations: [echo, who]}}",
            f"  - {{from: {NAME}, to: kvp, operations: [{', '.join(KVP)}]}}",
            f"  - {{from: {NAME}, to: intercom, operations: [request, request_all]}}",
        ]
        await enclave.push(
            enclave.manifest(
                links="\n".join(links),
                providers="  kvp: {}\n  intercom: {}",
                actors={NAME: limits},
                issuer_capabilities="kvp, echo, intercom",
            )
        )
        self.neighbour = self.supervisor("echo").pids

    def supervisor(self, name: str = NAME) -> Any:
        return self.enclave.host.supervisors[name]

    def status(self, name: str = NAME) -> ActorStatus:
        found: ActorStatus = next(one for one in self.enclave.host.status().actors if one.name == name)
        return found

    async def attack(self, operation: str, *arguments: object) -> Any:
        return await self.enclave.call(NAME, operation, *arguments)

    async def native(self, name: str, *arguments: object) -> str:
        found: str = await self.attack("call", name, arguments)
        return found

    async def fatal(self, operation: str, *arguments: object) -> CallError:
        """An attack that ends its worker: the call in hand is answered, and the actor comes back."""
        restarts = self.supervisor().restarts
        with pytest.raises(CallError) as ended:
            await self.attack(operation, *arguments)
        async with asyncio.timeout(15):
            while self.supervisor().restarts == restarts:
                await asyncio.sleep(0.005)
        assert await self.attack("alive") == "alive"
        return ended.value

    async def unharmed(self) -> None:
        """The neighbour's worker is the one that it was, and answers."""
        assert await self.enclave.call("echo", "echo", value="here") == "here"
        assert self.supervisor("echo").pids == self.neighbour
        assert self.status("echo").restarts == 0
        assert self.enclave.host.router.in_flight == 0


@pytest.fixture
async def arena(enclave: Enclave) -> AsyncIterator[Arena]:
    made = Arena(enclave)
    await made.open()
    yield made


def named(report: Any) -> bool:
    return Layer.NAMED_REFUSALS in report.held


async def assert_named(arena: Arena, call: str) -> None:
    """The refused call's name stands in the log and in status, where the kernel tells it."""
    if named(arena.enclave.host.zygote.report):
        assert await arena.enclave.logged(f"was refused {call}") == f"{NAME}#0 was refused {call}"
        assert arena.status().refused[call] >= 1


# -- the system --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/1/environ", "/proc/self/mem", "/dev/nsm", "/dev/vsock", "/"])
async def test_opening_files(arena: Arena, path: str) -> None:
    assert await arena.attack("open_file", path) == EPERM
    assert await arena.native("openat", -100, path.encode(), os.O_RDONLY) == EPERM
    await assert_named(arena, "openat")
    await arena.unharmed()


async def test_opening_sockets(arena: Arena) -> None:
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert await arena.native("socket", int(family), int(kind), 0) == EPERM
    assert await arena.native("socketpair", 1, 1, 0, bytes(8)) == EPERM
    await assert_named(arena, "socket")
    await assert_named(arena, "socketpair")
    await arena.unharmed()


async def test_calling_the_parent_over_vsock(arena: Arena) -> None:
    assert await arena.native("socket", 40, int(socket.SOCK_STREAM), 0) == EPERM
    await assert_named(arena, "socket")
    await arena.unharmed()


async def test_asking_the_nsm(arena: Arena) -> None:
    assert await arena.native("openat", -100, b"/dev/nsm", os.O_RDWR) == EPERM
    assert await arena.native("ioctl", 0, 0xC0200A00, bytes(32)) == EPERM
    await assert_named(arena, "ioctl")
    await arena.unharmed()


async def test_forking(arena: Arena) -> None:
    assert await arena.attack("python_fork") == EPERM
    assert "can't start new thread" in await arena.attack("thread")
    for flags in (17, 0x10000011, 0x3D0F00):
        assert await arena.native("clone", flags, 0, 0, 0, 0) == EPERM
    assert await arena.native("clone3", bytes(88), 88) == EPERM
    await assert_named(arena, "clone")
    await arena.unharmed()


async def test_executing_a_program(arena: Arena) -> None:
    assert await arena.native("execve", b"/bin/sh", None, None) == EPERM
    assert await arena.native("execveat", 0, b"", None, None, 0x1000) == EPERM
    await assert_named(arena, "execve")
    await arena.unharmed()


FATAL_ATTACKS: Mapping[str, tuple[object, ...]] = {
    "ptrace": (16, 1, 0, 0),
    "process_vm_readv": (1, bytes(16), 1, bytes(16), 1, 0),
    "process_vm_writev": (1, bytes(16), 1, bytes(16), 1, 0),
    "pidfd_open": (1, 0),
    "bpf": (0, bytes(64), 64),
    "userfaultfd": (0,),
    "io_uring_setup": (8, bytes(120)),
    "perf_event_open": (bytes(128), 0, -1, -1, 0),
    "keyctl": (0, -3, 0, 0, 0),
    "unshare": (0x10000000,),
    "mount": (b"x", b"/", b"tmpfs", 0, None),
    "seccomp": (1, 0, bytes(16)),
    "sendmsg": (0, bytes(56), 0),
    "setuid": (0,),
}


@pytest.mark.parametrize("name", FATAL_ATTACKS)
async def test_attacking_the_kernel_or_others_memory_ends_the_worker(arena: Arena, name: str) -> None:
    assert name in FATAL or name in ("seccomp", "sendmsg")
    error = await arena.fatal("call", name, FATAL_ATTACKS[name])
    assert error.code is Code.UNAVAILABLE
    assert "SIGSYS" in (arena.status().last_error or "")
    assert "SIGSYS" in await arena.enclave.logged("SIGSYS")
    await arena.unharmed()


async def test_reading_proc(arena: Arena) -> None:
    for who in ("self", "1", str(os.getpid()), str(arena.neighbour[0])):
        for what in ("environ", "mem", "maps", "fd/0", "root/etc/passwd"):
            assert await arena.attack("open_file", f"/proc/{who}/{what}") == EPERM
    await assert_named(arena, "openat")
    await arena.unharmed()


async def test_killing_others(arena: Arena) -> None:
    (own,) = arena.supervisor().pids
    for target in (0, -1, os.getpid(), arena.neighbour[0], arena.enclave.host.zygote.pid, own + 1):
        assert await arena.native("kill", target, int(signal.SIGKILL)) == EPERM
        assert await arena.native("tkill", target, int(signal.SIGKILL)) == EPERM
        assert await arena.native("pidfd_send_signal", 0, 9, None, 0) == EPERM
    # The kernel's own ways of sending a signal for somebody.
    assert await arena.native("fcntl", 0, 8, os.getpid()) == EPERM
    assert await arena.native("ioctl", 0, 0x8901, os.getpid().to_bytes(4, "little")) == EPERM
    await assert_named(arena, "kill")
    await assert_named(arena, "fcntl")
    await arena.unharmed()


async def test_mapping_executable_memory(arena: Arena) -> None:
    assert await arena.native("mmap", 0, 4096, 7, 0x22, -1, 0) == EPERM
    assert await arena.native("mmap", 0, 4096, 4, 0x22, -1, 0) == EPERM
    assert await arena.native("mprotect", 0x10000, 4096, 5) == EPERM
    assert await arena.native("memfd_create", b"code", 0) == EPERM
    await assert_named(arena, "mmap")
    await assert_named(arena, "mprotect")
    await arena.unharmed()


async def test_loading_native_code_with_ctypes(arena: Arena) -> None:
    """ctypes itself is there, and all these tests use it: what it can load is nothing, what it can call is filtered."""
    assert await arena.attack("load_library", "libanl.so.1") == "refused"
    assert await arena.attack("load_library", "/lib/x86_64-linux-gnu/libanl.so.1") == "refused"
    assert await arena.attack("callback") in ("refused", "7")
    await assert_named(arena, "openat")
    await arena.unharmed()


async def test_refused_calls_without_end_cost_the_host_a_bounded_number(arena: Arena) -> None:
    for _ in range(LISTENED_CALLS + 20):
        assert await arena.native("socket", 40, 1, 0) in (EPERM, "ENOSYS")
    if named(arena.enclave.host.zygote.report):
        assert arena.status().refused["socket"] == LISTENED_CALLS
        await arena.enclave.logged(f"more than {LISTENED_CALLS} refused system calls")
    assert await arena.native("openat", -100, b"/etc/passwd", 0) in (EPERM, "ENOSYS")
    await arena.unharmed()


# -- resources ---------------------------------------------------------------------------------------------------


async def test_spinning(enclave: Enclave) -> None:
    arena = Arena(enclave)
    await arena.open(LIMITS.replace("memory_mib: 64", "memory_mib: 64, cpu_seconds: 1"))
    attack = asyncio.create_task(arena.fatal("spin"))
    while not attack.done():
        assert await enclave.call("echo", "echo", value="meanwhile") == "meanwhile"
    assert (await attack).code is Code.UNAVAILABLE
    assert "used up its 1 s of CPU time" in (arena.status().last_error or "")
    await enclave.logged("used up its 1 s of CPU time")
    await arena.unharmed()


async def test_eating_memory(arena: Arena) -> None:
    with pytest.raises(CallError) as refused:
        await arena.attack("eat")
    assert refused.value.code is Code.INTERNAL
    assert "MemoryError" in await arena.enclave.logged("MemoryError")
    assert arena.status().errors == 1
    assert await arena.attack("alive") == "alive"
    await arena.unharmed()


async def test_eating_memory_natively(arena: Arena) -> None:
    assert await arena.attack("eat_natively") < 64 + 16
    await arena.unharmed()


async def test_flooding_the_log(arena: Arena) -> None:
    await arena.attack("flood_log", 5000)
    await arena.enclave.logged("was refused more than 200 printed lines a second")
    assert arena.status().refused["more than 200 printed lines a second"] > 0
    await arena.unharmed()


async def test_flooding_with_calls(arena: Arena, until: Any) -> None:
    await arena.attack("flood_calls", "echo", 640)
    await arena.enclave.logged("more calls in flight than its limit")
    assert arena.status().refused["more calls in flight than its limit"] > 0
    await until(lambda: arena.enclave.host.router.in_flight == 0)
    await arena.unharmed()


async def test_flooding_with_messages(arena: Arena, until: Any) -> None:
    await arena.attack("flood_messages", "echo", 1280)
    await until(lambda: not arena.supervisor("echo").group.ports[0].delivered)
    assert arena.enclave.host.status().dead_letters > 0
    assert any("EXHAUSTED" in what for what in arena.status().refused), "it is told whose messages were lost"
    await arena.enclave.logged("was refused the delivery of a message")
    await arena.unharmed()


async def test_flooding_without_end_is_not_read(arena: Arena, until: Any) -> None:
    """Each refused frame costs the host something: after some in a second the worker is left unread for a while."""
    await arena.attack("flood_calls", "echo", 640)
    held = "more refused frames than it may send in a second"
    assert arena.status().refused[held] > 0
    await arena.enclave.logged(f"was refused {held}")
    await until(lambda: arena.enclave.host.router.in_flight == 0)
    await arena.unharmed()


async def test_flooding_a_provider_that_answers_at_once(arena: Arena, until: Any) -> None:
    await arena.attack("flood_calls", "kvp", 640)
    assert arena.status().refused["more calls in flight than its limit"] > 0
    await until(lambda: arena.enclave.host.router.in_flight == 0)
    await arena.unharmed()


REQUEST = b"\x93" + msgspec.msgpack.encode("echo") + msgspec.msgpack.encode("echo")
TINY = {
    "empty lists for another": ("intercom", "request", REQUEST, 0x90),
    "empty maps for all of another": ("intercom", "request_all", REQUEST, 0x80),
    "empty texts": ("kvp", "set_union", b"\x91", 0xA0),
    "numbers as texts": ("kvp", "set_union", b"\x91", 0x00),
}


@pytest.mark.parametrize("name", TINY)
async def test_flooding_a_provider_with_a_million_tiny_values_a_call(arena: Arena, until: Any, name: str) -> None:
    """The host builds none of them: what that costs its neighbours is `bench/adversaries.py`'s."""
    link, operation, before, opcode = TINY[name]
    await arena.attack("flood_bodies", link, operation, 8, before, 1000, opcode)
    await until(lambda: arena.enclave.host.router.in_flight == 0)
    assert await arena.attack("alive") == "alive"
    await arena.unharmed()


@pytest.mark.parametrize("members", [50, 1000])
async def test_calls_of_a_few_bytes_that_take_a_provider_long(arena: Arena, until: Any, members: int) -> None:
    await arena.attack("join_sets", members, 256)
    await until(lambda: arena.enclave.host.router.in_flight == 0)
    assert await arena.attack("alive") == "alive"
    await arena.unharmed()


async def test_never_reading_answers(arena: Arena) -> None:
    await arena.fatal("call_unread", "kvp", 400)
    assert "it does not read its answers" in (arena.status().last_error or "")
    await arena.enclave.logged("it does not read its answers")
    await arena.unharmed()


# -- the protocol ------------------------------------------------------------------------------------------------

MALFORMED = {
    "a frame longer than any may be": b"\xff" * 4 + b"\x01" + bytes(19),
    "an unknown kind": bytes(4) + b"\x63" + bytes(19),
    "unknown flags": bytes(4) + b"\x01\x80" + bytes(18),
    "a forged context": encode_frame(Frame(Kind.CALL, Flag.CONTEXT, 0, 1, 7, 0, 0, b"\x92\xa6parent\x90\x91\xa1x")),
    "a second HELLO": encode_frame(Frame(Kind.HELLO)),
    "a log line that is none": encode_frame(Frame(Kind.TELL, body=b"\xc1")),
    "a call without a correlation": encode_frame(Frame(Kind.CALL, link=1)),
    "a credit for nothing": encode_frame(Frame(Kind.CREDIT, correlation=0xFFFFFF)),
    "noise": bytes(range(256)) * 16,
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_sending_what_is_no_frame(arena: Arena, name: str) -> None:
    error = await arena.fatal("raw", MALFORMED[name])
    assert error.code is Code.UNAVAILABLE
    assert "broke the protocol" in (arena.status().last_error or "")
    await arena.enclave.logged("broke the protocol")
    await arena.unharmed()


async def test_guessing_links(arena: Arena) -> None:
    own = await arena.attack("link_number", "echo")
    guesses = [number for number in [*range(200), 0xFFFF, 0xFFFFFFFF] if number != own]
    frames = [
        encode_frame(Frame(Kind.CALL, 0, 0, link, 5000 + n, 0, 0, b"\x91\xa1x")) for n, link in enumerate(guesses)
    ]
    before = arena.enclave.host.router.figures_of("echo").calls
    await arena.attack("raw", b"".join(frames))
    assert await arena.attack("alive") == "alive"
    assert arena.enclave.host.router.figures_of("echo").calls == before
    refused = arena.status().refused
    assert refused["a link that it was not given"] + refused["more calls in flight than its limit"] == len(guesses)
    await arena.enclave.logged("was refused a link that it was not given")
    await arena.unharmed()


async def test_guessing_operations_on_a_link(arena: Arena) -> None:
    own = await arena.attack("link_number", "echo")
    await arena.attack("raw", encode_frame(Frame(Kind.CALL, 0, 99, own, 5000, 0, 0, b"\x90")))
    await arena.enclave.logged("an operation that its link to echo does not have")
    assert arena.status().refused["an operation that its link to echo does not have"] == 1
    await arena.unharmed()


async def test_forging_the_caller(arena: Arena) -> None:
    caller, chain = await arena.attack("who_through_the_link")
    assert (caller, chain) == (NAME, ["parent"])
    # A cause that it was not given would put somebody else behind its call.
    own = await arena.attack("link_number", "echo")
    forged = [encode_frame(Frame(Kind.CALL, 0, 1, own, 6000 + n, 0xFFFFFF00 + n, 0, b"\x90")) for n in range(16)]
    before = arena.enclave.host.router.figures_of("echo").calls
    await arena.attack("raw", b"".join(forged))
    assert await arena.attack("alive") == "alive"
    assert arena.enclave.host.router.figures_of("echo").calls == before
    assert arena.status().refused["a cause that it was not given"] == 16
    await arena.enclave.logged("was refused a cause that it was not given")
    await arena.unharmed()


async def test_replaying_correlation_ids(arena: Arena) -> None:
    own = await arena.attack("link_number", "echo")
    frame = encode_frame(Frame(Kind.CALL, 0, 0, own, 7777, 0, 0, b"\x91\xa1x"))
    await arena.fatal("raw", frame * 3)
    assert "correlation 7777 is in use" in (arena.status().last_error or "")
    await arena.enclave.logged("correlation 7777 is in use")
    await arena.unharmed()


async def test_never_replying(arena: Arena) -> None:
    router = arena.enclave.host.router
    with pytest.raises(CallError) as late:
        await router.call("parent", NAME, "hang", msgspec.msgpack.encode(()), timeout=0.05)
    assert late.value.code is Code.DEADLINE
    assert arena.status().refused["more time than a call's deadline"] == 1
    await arena.enclave.logged("was refused more time than a call's deadline")
    # The actor hangs itself alone; even its full mailbox is answered.
    hanging = [router.call("parent", NAME, "alive", b"\x90", timeout=0.2) for _ in range(40)]
    for answer in await asyncio.gather(*hanging, return_exceptions=True):
        assert isinstance(answer, CallError)
        assert answer.code in (Code.DEADLINE, Code.EXHAUSTED)
    await arena.unharmed()


async def test_replying_twice(arena: Arena, until: Any) -> None:
    restarts = arena.supervisor().restarts
    try:
        await arena.attack("answer_everything")  # the first answer to this very call is the answer; the second is none
    except CallError as error:
        assert error.code is Code.UNAVAILABLE
    await until(lambda: arena.supervisor().restarts > restarts)
    assert "which it was not given or has answered" in (arena.status().last_error or "")
    await arena.enclave.logged("which it was not given or has answered")
    await arena.unharmed()


@pytest.mark.parametrize("how", ["close_socket", "shut_socket"])
async def test_closing_its_socket(arena: Arena, how: str) -> None:
    (pid,) = arena.supervisor().pids
    await arena.fatal(how)
    assert not Path(f"/proc/{pid}").exists()
    assert "closed its socket, and was killed" in (arena.status().last_error or "")
    await arena.enclave.logged("closed its socket, and was killed")
    await arena.unharmed()


async def test_ignoring_its_drain(arena: Arena) -> None:
    await arena.attack("be_stubborn")
    supervisor = arena.supervisor()
    (pid,) = supervisor.pids
    await supervisor.stop(drain=0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert "ignored its drain and was killed" in (arena.status().last_error or "")
    await arena.enclave.logged("ignored its drain and was killed")
    await arena.unharmed()
