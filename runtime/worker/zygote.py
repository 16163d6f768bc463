"""The zygote: a warm, single-threaded process that forks workers on the host's word.

May not: hold any secret, run any actor's code, or start a thread. Forked workers become children of the HOST
(CLONE_PARENT), which supervises them; a dead zygote takes no worker with it. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import array
import functools
import gc
import os
import signal
import socket
import sys
from typing import Final, NoReturn

import msgspec

from tea.sdk.system import System

from . import offered
from .direct import DirectLoop
from .kernel import CLONE_PARENT, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, fork, prctl
from .layers import Layer
from .loop import run_worker
from .namespaces import flags_of, leave_session
from .output import install_logging
from .probe import probe
from .rehearsal import rehearse
from .sandbox import (
    Confinement,
    address_space_bytes,
    close_in,
    forget_environment,
    move_to_lowest,
    seal_code,
    warm_up,
)
from .seccomp_policy import Profile
from .wire import MAX_LANES, Awake, Spawn, Spawned

_MESSAGE: Final = 4096


def serve(control: socket.socket, layers: frozenset[Layer], base_bytes: int, system: System) -> None:
    """Fork a worker for every `Spawn` until the host closes the control socket; `system` is for each to open."""
    parent = os.getppid()
    flags = CLONE_PARENT | flags_of(layers)
    while True:
        data, descriptors = _receive(control)
        if not data:
            return
        request = msgspec.msgpack.decode(data, type=Spawn)
        sockets = 1 + request.lanes
        if len(descriptors) not in (sockets, sockets + 1):
            raise RuntimeError(
                f"a spawn request carries {sockets} descriptors or one more, this one {len(descriptors)}"
            )
        cgroup = descriptors[sockets] if len(descriptors) > sockets else None
        try:
            pid = fork(flags, cgroup)
        except OSError as error:
            answer = Spawned(request.token, -1, str(error))
        else:
            if pid == 0:
                plan = Confinement(
                    layers,
                    request.uid,
                    request.memory_bytes,
                    request.cpu_seconds,
                    parent,
                    base_bytes,
                    profile=request.profile,
                    lanes=request.lanes,
                )
                _become_worker(descriptors[:sockets], plan, system)
            answer = Spawned(request.token, pid, None)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(msgspec.msgpack.encode(answer))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _flags, _address = control.recvmsg(_MESSAGE, socket.CMSG_SPACE(4 * (2 + MAX_LANES)))
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)


def _become_worker(descriptors: list[int], plan: Confinement, system: System) -> NoReturn:
    code = 1
    try:
        gc.enable()
        leave_session()
        connection = socket.socket(fileno=move_to_lowest(descriptors[0], descriptors[1:]))
        lanes = [socket.socket(fileno=1 + place) for place in range(plan.lanes)]
        offered.reseed()
        close_in(connection, plan)
        seal = functools.partial(seal_code, plan)
        code = DirectLoop(connection, lanes, seal, system).run() if lanes else run_worker(connection, seal, system)
    finally:
        # No atexit handlers, no flushing: they belong to the zygote's image.
        os._exit(code)


def main() -> None:
    """`python -m tea.runtime.worker.zygote [wasm]`, with the control socket as standard input.

    Two zygotes, so that workers that run Python have nothing of the compiler in their memory.
    """
    # A collection would leave holes all over the memory that workers share, and each would fill them with its own.
    gc.disable()
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    offered.preload()
    if sys.argv[1:] == [Profile.WASM]:
        offered.preload_wasm()
    offered.close()
    base_bytes = address_space_bytes()
    forget_environment()
    report = probe()
    warm_up(report.held)
    # After the probe, which may have changed who this process is: that clears the signal.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    install_logging()
    system = rehearse()
    gc.freeze()
    control.send(msgspec.msgpack.encode(Awake(report)))
    serve(control, report.held, base_bytes, system)


if __name__ == "__main__":
    main()
    sys.exit(0)
