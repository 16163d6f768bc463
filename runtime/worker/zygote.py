"""The zygote: a warm, single-threaded process that forks workers on the host's word.

May not: hold any secret, run any actor's code, or start a thread. Forked workers become children of the HOST
(CLONE_PARENT), which supervises them; a dead zygote takes no worker with it. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import array
import ctypes
import gc
import os
import platform
import signal
import socket
import sys
from typing import Final, NoReturn

import msgspec

from . import offered
from .loop import run_worker
from .sandbox import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, enter_sandbox, move_to_lowest, prctl
from .wire import Spawn, Spawned

CLONE_PARENT: Final = 0x00008000
_SYS_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_MESSAGE: Final = 4096


def fork_for_parent() -> int:
    """fork(2), but the child is a child of this process's parent. Answers the child's pid, or 0 in the child."""
    number = _SYS_CLONE[platform.machine()]
    api = ctypes.pythonapi
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    api.PyOS_BeforeFork()
    pid = int(libc.syscall(number, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    api.PyOS_AfterFork_Parent()
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def serve(control: socket.socket) -> None:
    """Fork a worker for every `Spawn` until the host closes the control socket."""
    parent = os.getppid()
    while True:
        data, descriptors = _receive(control)
        if not data:
            return
        request = msgspec.msgpack.decode(data, type=Spawn)
        if len(descriptors) != 1:
            raise RuntimeError(f"a spawn request carries 1 descriptor, this one {len(descriptors)}")
        try:
            pid = fork_for_parent()
        except OSError as error:
            answer = Spawned(request.token, -1, str(error))
        else:
            if pid == 0:
                _become_worker(request, descriptors[0], parent)
            answer = Spawned(request.token, pid, None)
        os.close(descriptors[0])
        control.send(msgspec.msgpack.encode(answer))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _flags, _address = control.recvmsg(_MESSAGE, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)


def _become_worker(request: Spawn, descriptor: int, parent: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        enter = {
            "uid": request.uid,
            "memory_bytes": request.memory_bytes,
            "cpu_seconds": request.cpu_seconds,
            "parent": parent,
        }
        connection = socket.socket(fileno=move_to_lowest(descriptor))
        offered.reseed()
        enter_sandbox(**enter)  # type: ignore[arg-type]
        code = run_worker(connection)
    finally:
        # No atexit handlers, no flushing: they belong to the zygote's image.
        os._exit(code)


def main() -> None:
    """`python -m tea.runtime.worker.zygote`, with the control socket as standard input."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    offered.preload()
    offered.close()
    gc.collect()
    gc.freeze()
    control.send(msgspec.msgpack.encode(Spawned(0, os.getpid(), None)))
    serve(control)


if __name__ == "__main__":
    main()
    sys.exit(0)
