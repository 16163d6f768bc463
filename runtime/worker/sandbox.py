"""Closes a forked worker in, layer by layer. Irreversible by design.

May not: be called in the host or the zygote, nor run any of the actor's code before the last layer is on. Nothing here
trusts the actor; the kernel is the boundary. Rule: docs/sandbox.md, "The order, and why".
"""

from __future__ import annotations

import array
import fcntl
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from . import landlock
from .kernel import (
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    clear_capabilities,
    install_filter,
    prctl,
    set_c_environment,
    system_call,
)
from .layers import Finding, Layer
from .seccomp_policy import Profile, code_lock, first_filter, last_lock

__all__ = [
    "PR_SET_DUMPABLE",
    "Born",
    "Confinement",
    "SandboxError",
    "address_space_bytes",
    "close_in",
    "forget_environment",
    "move_to_lowest",
    "prctl",
    "seal_code",
    "warm_up",
]

_FILTER_NEW_LISTENER: Final = 1 << 3
_LAST_CAPABILITY: Final = 63


class SandboxError(Exception):
    """A layer that this kernel grants could not be put on: the worker ends before any of the actor's code runs."""


class Born(msgspec.Struct, frozen=True, array_like=True):
    """A worker's first word, before it speaks frames: it is closed in, or why not. Its seccomp listener is attached."""

    error: str | None
    findings: tuple[Finding, ...] = ()
    """What became of each layer, when all were tried (`probe.py`)."""


@dataclass
class Confinement:
    """How one worker is closed in."""

    layers: frozenset[Layer]
    uid: int | None
    """Taken when the process is root's."""
    memory_bytes: int
    """Address space beyond `base_bytes`."""
    cpu_seconds: int
    """CPU time; 0: no bound."""
    parent: int
    """The host's pid: whoever else is the parent is too late."""
    base_bytes: int
    """Address space of the process at the fork: `address_space_bytes()`, asked while there was a /proc."""
    profile: Profile = Profile.PYTHON
    lanes: int = 0
    """Sockets to other workers, which it has beside its own as the numbers from 1 on."""
    filtered: bool = False
    """Set by the step that installs the filter: there is something to lock."""
    listener: int = -1
    """Set by the same step: where the host hears of refused calls; -1: it does not."""


Step = Callable[[Confinement], str]


def close_in(connection: socket.socket, plan: Confinement, *, tolerant: bool = False) -> None:
    """Put on every layer of the plan, in order, and say so on `connection`, which with the lanes is all that is left.

    Raises `SandboxError` at the first layer that fails, having said so; when `tolerant`, goes on and reports all.
    """
    findings: list[Finding] = []
    if os.environ:
        forget_environment()
    os.umask(0o777)
    for layer, step in _STEPS:
        if layer not in plan.layers:
            continue
        try:
            findings.append(Finding(layer, True, step(plan)))
        except (OSError, ValueError, OverflowError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if not tolerant:
                _say(connection, Born(f"{layer.value}: {why}"), -1)
                raise SandboxError(f"{layer.value}: {why}") from error
            findings.append(Finding(layer, False, why))
    _say(connection, Born(None, tuple(findings) if tolerant else ()), plan.listener)
    if plan.listener >= 0:
        os.close(plan.listener)
    # The limit on descriptors comes after all that needs one; the last lock takes away what the steps here needed.
    if Layer.DESCRIPTORS in plan.layers:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 + plan.lanes, 1 + plan.lanes))
    if plan.filtered:
        install_filter(last_lock(platform.machine(), plan.profile), 0)


def forget_environment() -> None:
    """Keep no variable. In the zygote, so that its workers have none to forget."""
    os.environ.clear()
    set_c_environment("TZ", "UTC0")  # or the C library would look for /etc/localtime at the first local time


def seal_code(plan: Confinement) -> None:
    """From now on nothing more becomes executable: what had to be compiled is. Raises `OSError`."""
    if plan.filtered and plan.profile is Profile.WASM:
        install_filter(code_lock(platform.machine()), 0)


def warm_up(layers: frozenset[Layer]) -> None:
    """Assemble the filters that workers will need, in the zygote, so that none has to."""
    machine = platform.machine()
    if Layer.PID_NAMESPACE in layers:  # where every worker has pid 1
        for profile in Profile:
            first_filter(machine, profile, 1, Layer.EMPTY_ROOT in layers, Layer.NAMED_REFUSALS in layers)
    for profile in Profile:
        last_lock(machine, profile)
    code_lock(machine)


def _say(connection: socket.socket, born: Born, listener: int) -> None:
    attached = array.array("i", [listener] if listener >= 0 else [])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, attached.tobytes())] if attached else []
    connection.sendmsg([msgspec.msgpack.encode(born)], ancillary)


def move_to_lowest(descriptor: int, lanes: Sequence[int] = ()) -> int:
    """Make `descriptor` number 0 and `lanes` the numbers from 1 on, close all others, and answer 0.

    The socket takes the place of standard input and the limit leaves no number beyond, so an actor that closes it to
    open something else has lost its only way to tell anybody.
    """
    if lanes:
        # Out of the way first: one may have the number that another is to get.
        apart = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 1 + len(lanes)) for one in (descriptor, *lanes)]
        for number, one in enumerate(apart):
            os.dup2(one, number, inheritable=False)
    elif descriptor != 0:
        os.dup2(descriptor, 0, inheritable=False)
    first = 1 + len(lanes)
    try:
        system_call("close_range", first, 0xFFFF_FFFF, 0)
    except OSError:  # before Linux 5.9
        os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return 0


# -- the steps, in their order ---------------------------------------------------------------------------------


def _descriptors(plan: Confinement) -> str:
    # They were closed before the socket got its Python object; what is shown here is that it worked.
    for number in range(1, 1 + plan.lanes):
        os.fstat(number)
    try:
        os.fstat(1 + plan.lanes)
    except OSError:
        return "one socket is inherited, and nothing else (with direct links one for each lane)"
    raise OSError(0, f"more than {1 + plan.lanes} descriptors are open")


def _own_uid(plan: Confinement) -> str:
    if plan.uid is None:
        raise OSError(1, "the host is not root: all workers have its uid")
    os.setgroups([])
    os.setresgid(plan.uid, plan.uid, plan.uid)
    os.setresuid(plan.uid, plan.uid, plan.uid)
    return "each worker has a uid and gid of its own, and no other group"


def _no_capabilities(plan: Confinement) -> str:
    clear_capabilities()
    return "none in any set, nor any to be had"


def _drop_bounding_set() -> None:
    # Dropping needs CAP_SETPCAP, so it comes before the uid change. A user without it has none to gain either.
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            return


def _bounding_set(plan: Confinement) -> str:
    _drop_bounding_set()
    return ""


def _no_new_privileges(plan: Confinement) -> str:
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    return "running a program gains nothing"


def _not_dumpable(plan: Confinement) -> str:
    prctl(PR_SET_DUMPABLE, 0)
    return "no core file, and nobody of the same uid reads its memory"


def _limits(plan: Confinement) -> str:
    limits = resource.setrlimit
    limits(resource.RLIMIT_CORE, (0, 0))
    limits(resource.RLIMIT_FSIZE, (0, 0))
    space = plan.base_bytes + plan.memory_bytes
    limits(resource.RLIMIT_AS, (space, space))
    if plan.cpu_seconds:
        limits(resource.RLIMIT_CPU, (plan.cpu_seconds, plan.cpu_seconds + 1))
    limits(resource.RLIMIT_NPROC, (0, 0))
    limits(resource.RLIMIT_MEMLOCK, (0, 0))
    limits(resource.RLIMIT_MSGQUEUE, (0, 0))
    limits(resource.RLIMIT_SIGPENDING, (16, 16))
    return "address space, CPU time, processes, files, locked memory"


def _landlock(plan: Confinement) -> str:
    known = landlock.version()
    landlock.deny_all(known)
    return f"version {known} denies all that it knows"


def _parent_death(plan: Confinement) -> str:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A host that died before this line sends no signal any more. In a pid namespace of its own a worker sees no parent
    # to compare; there the end of the socket, whose other end the host alone has, says the same.
    if os.getppid() not in (0, plan.parent):
        os._exit(1)
    return "SIGKILL when the host ends"


def _seccomp(plan: Confinement) -> str:
    machine = platform.machine()

    def install(named: bool) -> int:
        program = first_filter(machine, plan.profile, os.getpid(), Layer.EMPTY_ROOT in plan.layers, named)
        return install_filter(program, _FILTER_NEW_LISTENER if named else 0)

    if Layer.NAMED_REFUSALS in plan.layers:
        try:
            plan.listener = install(True)
        except OSError:
            # Kernels before 5.0, or a listener around this one already (a container's): refused calls have no names.
            install(False)
    else:
        install(False)
    plan.filtered = True
    return f"an allowlist for {machine}"


def _named_refusals(plan: Confinement) -> str:
    if plan.listener < 0:
        raise OSError(0, "the kernel gives no second seccomp listener, or none at all")
    return "a refused call is told to the host by its name"


_STEPS: Final[tuple[tuple[Layer, Step], ...]] = (
    (Layer.DESCRIPTORS, _descriptors),
    (Layer.NO_CAPABILITIES, _bounding_set),
    (Layer.OWN_UID, _own_uid),
    (Layer.NO_CAPABILITIES, _no_capabilities),
    (Layer.NOT_DUMPABLE, _not_dumpable),
    (Layer.LIMITS, _limits),
    (Layer.NO_NEW_PRIVILEGES, _no_new_privileges),
    (Layer.LANDLOCK, _landlock),
    # The uid change above clears the death signal, so it is set after it.
    (Layer.PARENT_DEATH, _parent_death),
    (Layer.SECCOMP, _seccomp),
    (Layer.NAMED_REFUSALS, _named_refusals),
)


def address_space_bytes() -> int:
    """Bytes of address space that this process has."""
    # /proc may be absent in an image; then the limit is counted from zero and has to be generous in the manifest.
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (no pathlib machinery in a forked worker)
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
