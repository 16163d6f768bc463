"""Finds out which layers of the sandbox this kernel grants, by closing in a process that is thrown away.

May not: guess from versions or settings: what is reported as held was put on. `probe` is the zygote's own, at its
start; others (`teactl doctor`) use `probe_apart`. Either in a process with one thread. Rule: docs/sandbox.md.
"""

from __future__ import annotations

import os
import platform
import socket
from typing import Final

import msgspec

from .kernel import fork
from .layers import Finding, Layer, SandboxReport
from .namespaces import enclose_zygote, flags_of, leave_session, try_namespaces
from .sandbox import Born, Confinement, address_space_bytes, close_in, move_to_lowest
from .syscall_table import NUMBERS

_SECONDS: Final = 10.0
_PROBE_UID: Final = 65534
_MEMORY: Final = 64 << 20
_OF_ITS_OWN: Final = "each worker has one of its own"


def probe() -> SandboxReport:
    """Enclose this process and find out what those that it forks can have. Takes two or three forks. Irreversible."""
    machine, kernel = platform.machine(), platform.release()
    if machine not in NUMBERS:
        lacking = tuple(Finding(layer, False, f"nothing is known of {machine}") for layer in Layer)
        return SandboxReport(machine, kernel, lacking)
    base_bytes, root = address_space_bytes(), os.geteuid() == 0
    findings = {finding.layer: finding for finding in enclose_zygote()}
    for layer, refusal in try_namespaces().items():
        # An empty root that there is stays one when it is shared with the zygote.
        if layer is not Layer.EMPTY_ROOT:
            findings[layer] = Finding(layer, refusal is None, refusal or _OF_ITS_OWN)
    held = frozenset(layer for layer, finding in findings.items() if finding.held)
    layers = frozenset(Layer) - {Layer.CGROUP} - (frozenset(findings) - held)
    findings |= {one.layer: one for one in _close_one_in(layers, _PROBE_UID if root else None, base_bytes)}
    return SandboxReport(machine, kernel, tuple(findings[layer] for layer in Layer if layer in findings))


def probe_apart() -> SandboxReport:
    """`probe`, in a process that is thrown away, so that the caller keeps its root. Raises `OSError`, `EOFError`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, msgspec.msgpack.encode(probe()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    if not data:
        raise EOFError("the trial of the sandbox ended without a report")
    return msgspec.msgpack.decode(data, type=SandboxReport)


def _close_one_in(layers: frozenset[Layer], uid: int | None, base_bytes: int) -> tuple[Finding, ...]:
    ours, theirs = socket.socketpair()
    plan = Confinement(layers, uid, _MEMORY, 0, os.getpid(), base_bytes)
    with ours, theirs:
        pid = fork(flags_of(layers))
        if pid == 0:
            _throw_away(theirs.detach(), plan)
        theirs.close()
        ours.settimeout(_SECONDS)
        data, descriptors, _flags, _address = socket.recv_fds(ours, 1 << 16, 1)
        for descriptor in descriptors:
            os.close(descriptor)
    _pid, status = os.waitpid(pid, 0)
    if not data:
        why = f"the trial ended before its report ({os.waitstatus_to_exitcode(status)})"
        return tuple(Finding(layer, False, why) for layer in Layer if layer in layers)
    findings = msgspec.msgpack.decode(data, type=Born).findings
    if status != 0:
        why = f"the last lock ended the trial ({os.waitstatus_to_exitcode(status)})"
        return (*findings, Finding(Layer.SECCOMP, False, why), Finding(Layer.NAMED_REFUSALS, False, why))
    return findings


def _throw_away(descriptor: int, plan: Confinement) -> None:
    code = 1
    try:
        leave_session()
        close_in(socket.socket(fileno=move_to_lowest(descriptor)), plan, tolerant=True)
        code = 0
    finally:
        os._exit(code)
