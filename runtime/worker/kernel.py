"""Raw calls into the kernel, for what Python's `os` does not offer: prctl, clone, mount, pivot_root, seccomp, Landlock.

May not: decide anything; each function is one system call. Rule: the man pages of section 2.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from .syscall_table import number_of

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38

CLONE_PARENT: Final = 0x00008000
CLONE_INTO_CGROUP: Final = 0x2_0000_0000
_CAPABILITY_VERSION_3: Final = 0x20080522

# PyDLL keeps the interpreter's lock: the zygote has one thread, and a fork must not happen between two of its locks.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | None


def _call(name: str, number: int, *arguments: Argument | ctypes.Array[ctypes.c_char]) -> int:
    native = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *native))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def system_call(name: str, *arguments: Argument) -> int:
    """Call the kernel by name; integers and NUL-terminated or packed bytes. Raises `OSError`."""
    return _call(name, number_of(name), *arguments)


def prctl(option: int, value: int = 0) -> None:
    """prctl(2). Raises `OSError`."""
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {value}): {os.strerror(code)}")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises `OSError`."""

    def text(value: str | None) -> bytes | None:
        return value.encode() if value is not None else None

    system_call("mount", text(source), text(target), text(kind), flags, text(options))


def clear_capabilities() -> None:
    """Give up every capability in every set that capset(2) reaches. Raises `OSError`."""
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    system_call("capset", header, bytes(24))


def set_c_environment(name: str, value: str) -> None:
    """setenv(3) for the C library alone: `os.environ` does not show it."""
    _libc.setenv(name.encode(), value.encode(), 1)


def fork(flags: int = 0, cgroup: int | None = None) -> int:
    """fork(2) with clone flags, and into the cgroup whose directory descriptor is given. 0 in the child.

    For a process with one thread: Python's own hooks around a fork, which mend what other threads held, are left out.
    They would write to a hundred pages that every worker shares with the zygote. Random numbers are the caller's to
    seed anew. Raises `OSError`; CLONE_INTO_CGROUP needs Linux 5.7.
    """
    if cgroup is None:
        # The first two arguments, flags and stack, stand alike on x86_64 and aarch64; the rest is unused here.
        pid = int(_libc.syscall(ctypes.c_long(number_of("clone")), ctypes.c_long(flags | signal.SIGCHLD), 0, 0, 0, 0))
    else:
        fields = [flags | CLONE_INTO_CGROUP, 0, 0, 0, int(signal.SIGCHLD) if not flags & CLONE_PARENT else 0]
        fields += [0, 0, 0, 0, 0, cgroup]
        arguments = b"".join(field.to_bytes(8, "little") for field in fields)
        pid = int(_libc.syscall(ctypes.c_long(number_of("clone3")), arguments, ctypes.c_long(len(arguments))))
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def install_filter(program: bytes, flags: int) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER; the listener's descriptor when `flags` ask for one. Raises `OSError`."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(buffer).to_bytes(8, "little")
    return _call("seccomp", number_of("seccomp"), 1, flags, header)
