"""Workers: what they cannot do, how they end, what becomes of the calls that they had in hand."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

Enclave = Any

HOSTILE = """
import os
from tea.sdk import Actor, operation

class Hostile(Actor):
    @operation
    def open_file(self, path: str) -> str:
        try:
            return str(os.open(path, os.O_RDONLY))
        except OSError as error:
            return f"refused: {error.errno}"

    @operation
    def open_socket(self, family: int) -> str:
        import _socket
        try:
            return str(_socket.socket(family, 1))
        except OSError as error:
            return f"refused: {error.errno}"

    @operation
    def fork(self) -> str:
        try:
            pid = os.fork()
        except OSError as error:
            return f"refused: {error.errno}"
        if pid == 0:
            os._exit(0)
        return "forked"

    @operation
    def facts(self) -> dict[str, object]:
        descriptors = []
        for number in range(64):
            try:
                os.fstat(number)
                descriptors.append(number)
            except OSError:
                pass
        return {"environment": dict(os.environ), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
                "descriptors": descriptors, "cwd": os.getcwd()}

    @operation
    def eat(self, mib: int) -> int:
        return len(bytearray(mib << 20))

    @operation
    def die(self) -> None:
        os._exit(7)

    @operation
    def spin(self) -> None:
        while True:
            pass

    @operation
    def sleep(self, seconds: float) -> str:
        import time
        time.sleep(seconds)
        return "slept"

    @operation
    def fail(self) -> None:
        raise RuntimeError("a secret of the actor")

    @operation
    def print_it(self, text: str) -> None:
        print(text)

    @operation
    def exit_python(self) -> None:
        raise SystemExit(3)

    @operation
    def raw(self, data: bytes) -> None:
        os.write(0, data)
"""
OPERATIONS = "open_file, open_socket, fork, facts, eat, die, spin, sleep, fail, print_it, exit_python, raw"
LINKS = f"  - {{from: parent, to: hostile, operations: [{OPERATIONS}]}}"
QUICK = ", restart: {backoff_ms: 10, backoff_max_ms: 50}"


async def push_hostile(enclave: Enclave, extra: str = QUICK) -> None:
    enclave.bundle("hostile", HOSTILE, "Hostile")
    await enclave.push(enclave.manifest(links=LINKS, actors={"hostile": extra}))


async def test_a_worker_has_one_descriptor_no_environment_and_no_rights(enclave: Enclave) -> None:
    await push_hostile(enclave)
    facts = await enclave.call("hostile", "facts")
    assert facts["descriptors"] == [0]
    assert facts["environment"] == {}
    assert facts["cwd"] == "/"
    if os.geteuid() == 0:
        assert facts["uid"] >= 61000
        assert facts["gid"] == facts["uid"]
        assert facts["groups"] == []


async def test_a_worker_has_no_new_privileges_and_no_capabilities(enclave: Enclave) -> None:
    await push_hostile(enclave)
    (pid,) = enclave.host.supervisors["hostile"].pids
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/nsm", "/dev/null", "/proc/self/environ", "."])
async def test_a_worker_opens_nothing(enclave: Enclave, path: str) -> None:
    await push_hostile(enclave)
    assert (await enclave.call("hostile", "open_file", path=path)).startswith("refused")


async def test_a_worker_opens_no_socket_of_any_family(enclave: Enclave) -> None:
    await push_hostile(enclave)
    for family in (1, 2, 10, 16, 40):  # unix, IPv4, IPv6, netlink, vsock
        assert (await enclave.call("hostile", "open_socket", family=family)).startswith("refused")


async def test_a_worker_does_not_fork(enclave: Enclave) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root all workers share the developer's uid, and RLIMIT_NPROC counts by uid")
    await push_hostile(enclave)
    assert (await enclave.call("hostile", "fork")).startswith("refused")


async def test_memory_beyond_the_limit_is_refused_and_the_actor_lives(enclave: Enclave) -> None:
    await push_hostile(enclave, QUICK + ", limits: {memory_mib: 64}")
    assert await enclave.call("hostile", "eat", mib=16) == 16 << 20
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "eat", mib=512)
    assert refused.value.code is Code.INTERNAL
    assert await enclave.call("hostile", "eat", mib=16) == 16 << 20


async def test_a_crash_answers_the_call_in_hand_and_the_actor_comes_back(enclave: Enclave, until: Any) -> None:
    await push_hostile(enclave)
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "die")
    assert refused.value.code is Code.UNAVAILABLE
    await until(lambda: enclave.host.supervisors["hostile"].restarts == 1)
    await enclave.call("hostile", "facts")
    status = enclave.host.status()
    assert status.in_flight == 0
    assert "exit status 7" in (status.actors[0].last_error or "")


async def test_kill_9_answers_every_call_that_was_in_hand(enclave: Enclave) -> None:
    await push_hostile(enclave)
    calls = [asyncio.create_task(enclave.call("hostile", "sleep", seconds=30.0)) for _ in range(5)]
    supervisor = enclave.host.supervisors["hostile"]
    async with asyncio.timeout(10):
        while len(supervisor.group.ports[0].delivered) < 5:
            await asyncio.sleep(0.005)
    os.kill(supervisor.pids[0], signal.SIGKILL)
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, CallError)
        assert result.code is Code.UNAVAILABLE


async def test_an_actor_that_keeps_crashing_stays_down_and_says_why(enclave: Enclave, until: Any) -> None:
    await push_hostile(enclave, ", restart: {intensity: 2, period_s: 60, backoff_ms: 1, backoff_max_ms: 10}")
    supervisor = enclave.host.supervisors["hostile"]
    for crash in range(3):
        await until(lambda crash=crash: supervisor.restarts == crash and supervisor.running == 1)
        with pytest.raises(CallError):
            await enclave.call("hostile", "die")
    await until(lambda: supervisor.failed)
    assert "more than its limit of 2" in (supervisor.last_error or "")
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "facts")
    assert refused.value.code is Code.UNAVAILABLE


async def test_cpu_time_beyond_the_limit_ends_the_worker(enclave: Enclave) -> None:
    await push_hostile(enclave, QUICK + ", limits: {cpu_seconds: 1}")
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "spin")
    assert refused.value.code is Code.UNAVAILABLE


async def test_a_deadline_answers_while_the_callee_goes_on(enclave: Enclave) -> None:
    await push_hostile(enclave)
    with pytest.raises(CallError) as late:
        await enclave.host.router.call("parent", "hostile", "sleep", b"\x91\xcb" + b"\x3f\xf0" + bytes(6), timeout=0.05)
    assert late.value.code is Code.DEADLINE
    assert enclave.host.router.in_flight == 0
    assert (await enclave.call("hostile", "facts"))["descriptors"] == [0]
    assert enclave.host.router.figures.late_answers == 1


async def test_what_an_operation_raises_reaches_the_author_and_not_the_caller(enclave: Enclave) -> None:
    await push_hostile(enclave)
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "fail")
    assert refused.value.code is Code.INTERNAL
    assert "secret" not in str(refused.value)
    assert "RuntimeError: a secret of the actor" in await enclave.logged("a secret of the actor")


async def test_system_exit_ends_the_worker_and_it_comes_back(enclave: Enclave, until: Any) -> None:
    await push_hostile(enclave)
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "exit_python")
    assert refused.value.code is Code.UNAVAILABLE
    await until(lambda: enclave.host.supervisors["hostile"].restarts == 1)


async def test_what_an_actor_prints_is_a_log_line_under_its_name(enclave: Enclave) -> None:
    await push_hostile(enclave)
    await enclave.call("hostile", "print_it", text="hello from inside")
    assert await enclave.logged("hello from inside") == "hello from inside"


FRAMES = {
    "a frame of 4 GiB": b"\xff\xff\xff\xff" + b"\x01" + bytes(19),
    "an unknown kind": bytes(4) + b"\x63" + bytes(19),
    "the router's context flag": bytes(4) + b"\x01\x01" + bytes(6) + b"\x00\x00\x00\x09" + bytes(8),
    "an answer that nobody waits for": bytes(4) + b"\x02" + bytes(7) + b"\x00\xff\xff\xff" + bytes(8),
    "a credit for nothing": bytes(4) + b"\x05" + bytes(7) + b"\x00\xff\xff\xff" + bytes(8),
    "a second HELLO": bytes(4) + b"\x06" + bytes(19),
    "a call with correlation 0": bytes(4) + b"\x01" + bytes(19),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_worker_that_breaks_the_protocol_is_cut_off_and_its_neighbour_is_not(
    enclave: Enclave, echo_source: str, until: Any, name: str
) -> None:
    enclave.bundle("echo", echo_source, "Echo")
    enclave.bundle("hostile", HOSTILE, "Hostile")
    links = LINKS + "\n  - {from: parent, to: echo, operations: [echo]}"
    await enclave.push(enclave.manifest(links=links, actors={"hostile": QUICK}))
    neighbour = enclave.host.supervisors["echo"].pids
    with pytest.raises(CallError) as refused:
        await enclave.call("hostile", "raw", data=FRAMES[name])
    assert refused.value.code is Code.UNAVAILABLE
    assert "broke the protocol" in await enclave.logged("broke the protocol")
    assert await enclave.call("echo", "echo", value="still here") == "still here"
    assert enclave.host.supervisors["echo"].pids == neighbour
    await until(lambda: enclave.host.supervisors["hostile"].restarts == 1)


async def test_a_link_that_was_not_granted_cannot_be_called_by_its_number(enclave: Enclave) -> None:
    await push_hostile(enclave)
    before = enclave.host.router.figures.errors
    call = bytes(4) + b"\x01\x00\x00\x00" + b"\x00\x00\x03\xe7" + b"\x00\x00\x00\x01" + bytes(8)
    await enclave.call("hostile", "raw", data=call)  # the worker's own loop ignores the answer that it did not await
    assert enclave.host.router.figures.errors == before + 1
    assert enclave.host.status().actors[0].running == 1
