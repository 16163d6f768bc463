"""Closes a forked worker in: descriptors, environment, identity, limits. Irreversible by design.

May not: be called in the host or the zygote. Nothing here trusts the actor; the kernel is the boundary.
Rule: docs/architecture.md, "The sandbox"; order as measured there (the parent-death signal comes after the uid
change, which clears it; the descriptor limit comes last, since everything before may need a descriptor).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
_LAST_CAPABILITY: Final = 63

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int = 0) -> None:
    """prctl(2). Raises `OSError`."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {value}): {os.strerror(code)}")


def move_to_lowest(descriptor: int) -> int:
    """Make `descriptor` the only open one, as number 0, and answer 0.

    The socket takes the place of standard input and the limit leaves no second number, so an actor that closes it to
    open something else has lost its only way to tell anybody.
    """
    if descriptor != 0:
        os.dup2(descriptor, 0, inheritable=False)
    os.closerange(1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return 0


def enter_sandbox(*, uid: int | None, memory_bytes: int, cpu_seconds: int, parent: int) -> None:
    """Give up everything that a worker does not need. `uid` is taken when the process runs as root.

    `memory_bytes` bounds the address space beyond what the process has now; `cpu_seconds` is its CPU time, 0: no bound.
    Raises `OSError` when a layer cannot be set: the worker then ends before any of the actor's code runs.
    """
    os.environ.clear()
    os.umask(0o777)
    os.chdir("/")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if os.geteuid() == 0 and uid is not None:
        _drop_root(uid)
    # Not dumpable: no core file, and no other process of this uid may read its memory or descriptors.
    prctl(PR_SET_DUMPABLE, 0)
    # The uid change above clears the death signal, so it is set after it, and the race with a dying host is closed
    # by looking at the parent again.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    address_space = _address_space_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    if cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))


def _drop_root(uid: int) -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _address_space_bytes() -> int:
    # /proc may be absent in an image; then the limit is counted from zero and has to be generous in the manifest.
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (no pathlib machinery in a forked worker)
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
