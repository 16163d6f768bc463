"""Runs a piece of code in a forked process with chosen layers of the sandbox on, and hands back what it found.

May not: be used where threads run. Rule: docs/sandbox.md, "The layers".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tea.runtime.worker.kernel import fork
from tea.runtime.worker.layers import Layer
from tea.runtime.worker.namespaces import enter_empty_root, flags_of, leave_session
from tea.runtime.worker.sandbox import Born, Confinement, address_space_bytes, close_in, move_to_lowest
from tea.runtime.worker.seccomp_policy import Profile
from tea.runtime.worker.syscall_table import number_of

UID = 61999
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class Outcome(NamedTuple):
    """What became of the process."""

    result: Any
    error: str
    """The exception's traceback, when the code raised; or why it could not be closed in."""
    signal: str | None


def confined(
    attempt: Callable[[], Any],
    *layers: Layer,
    uid: int | None = UID,
    memory_bytes: int = 64 << 20,
    cpu_seconds: int = 0,
    profile: Profile = Profile.PYTHON,
    lanes: Sequence[socket.socket] = (),
    announced: int | None = None,
) -> Outcome:
    """Run `attempt` with exactly these layers on, and these lanes. What it returns must be msgpack's.

    `announced` is how many lanes the plan says there are, where that is not true.
    """
    ours, theirs = socket.socketpair()
    plan = Confinement(
        frozenset(layers),
        uid if os.geteuid() == 0 else None,
        memory_bytes,
        cpu_seconds,
        os.getpid(),
        address_space_bytes(),
        profile=profile,
        lanes=len(lanes) if announced is None else announced,
    )
    with ours, theirs:
        pid = fork(flags_of(layers))
        if pid == 0:
            _child(theirs.detach(), [lane.fileno() for lane in lanes], plan, attempt)
        theirs.close()
        ours.settimeout(30)
        data, descriptors, _flags, _address = socket.recv_fds(ours, 1 << 16, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        born = msgspec.msgpack.decode(data, type=Born) if data else Born("no word")
        answer = b""
        with contextlib.suppress(ConnectionError):  # it was not closed in, and has ended
            if data:
                ours.send(b"go")
            while chunk := ours.recv(1 << 16):
                answer += chunk
    _pid, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    result, error = msgspec.msgpack.decode(answer) if answer else (None, born.error or "")
    return Outcome(result, error, signal.Signals(-code).name if code < 0 else None)


def _child(descriptor: int, lanes: list[int], plan: Confinement, attempt: Callable[[], Any]) -> None:
    try:
        leave_session()
        connection = socket.socket(fileno=move_to_lowest(descriptor, lanes))
        if Layer.EMPTY_ROOT in plan.layers:
            enter_empty_root()
        close_in(connection, plan)
        os.read(0, 2)  # the answer comes after the first word was read
        try:
            answer = (attempt(), "")
        except BaseException:  # noqa: BLE001 (the test shows it)
            answer = (None, traceback.format_exc())
        os.write(0, msgspec.msgpack.encode(answer))
    finally:
        os._exit(0)


def native(name: str, *arguments: int | bytes | None) -> str:
    """Make a system call as native code would; "ok N", or the name of the error."""
    return native_number(number_of(name), *arguments)


def native_number(number: int, *arguments: int | bytes | None) -> str:
    """`native`, by number."""
    converted = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *converted)
    return f"ok {result}" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(function: Callable[..., object], *arguments: object) -> str:
    """Call into the system; "ok", or the name of the error."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except MemoryError:
        return "MemoryError"
    return "ok"
