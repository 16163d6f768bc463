"""Namespaces of a worker's own, and a root directory with nothing in it.

May not: give a worker anything; what a new namespace has, it has empty. Rule: namespaces(7), user_namespaces(7),
pivot_root(2). An ordinary user gets the others through a user namespace, whose ids stay unmapped: everyone in it is
"nobody", and there is nothing that a mapping would be good for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Final

from .kernel import fork, mount, system_call
from .layers import Finding, Layer

CLONE_FLAGS: Final = {
    Layer.EMPTY_ROOT: 0x0002_0000,
    Layer.UTS_NAMESPACE: 0x0400_0000,
    Layer.IPC_NAMESPACE: 0x0800_0000,
    Layer.PID_NAMESPACE: 0x2000_0000,
    Layer.NETWORK_NAMESPACE: 0x4000_0000,
}
"""Layer -> the namespace that each worker is forked into (of EMPTY_ROOT: a copy of the zygote's mounts, all one)."""
_NEW_USER: Final = 0x1000_0000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_MOVE, _MS_REC, _MS_PRIVATE = 0x2000, 0x4000, 1 << 18
_MNT_DETACH: Final = 2
# Any directory that is there will do to mount on: it is only seen in the worker's own mount namespace.
_ANCHORS: Final = ("/tmp", "/proc", "/dev", "/sys", "/run")  # noqa: S108 (nothing is written there)


def flags_of(layers: Iterable[Layer]) -> int:
    """The flags with which a worker is forked into namespaces of its own."""
    flags = 0
    for layer in layers:
        flags |= CLONE_FLAGS.get(layer, 0)
    return flags


def enclose_zygote() -> tuple[Finding, ...]:
    """Give this process, and so all that it forks, an empty root; for an ordinary user within a user namespace.

    Done once in the zygote, not in each worker: letting go of the old root takes the kernel milliseconds. Irreversible.
    """
    findings: list[Finding] = []
    if os.geteuid() != 0:
        try:
            system_call("unshare", _NEW_USER)
        except OSError as error:
            why = error.strerror or str(error)
            return tuple(Finding(layer, False, why) for layer in (Layer.USER_NAMESPACE, Layer.EMPTY_ROOT))
        findings.append(Finding(Layer.USER_NAMESPACE, True, "workers are nobody, in a user namespace without ids"))
    try:
        system_call("unshare", CLONE_FLAGS[Layer.EMPTY_ROOT])
        enter_empty_root()
    except OSError as error:
        findings.append(Finding(Layer.EMPTY_ROOT, False, error.strerror or str(error)))
    else:
        findings.append(Finding(Layer.EMPTY_ROOT, True, "the root directory is an empty read-only file system"))
    return tuple(findings)


def try_namespaces() -> dict[Layer, str | None]:
    """Which namespaces a fork of this process can have of its own (None), and why not the others. Tried by forking."""
    if (_try(flags_of(CLONE_FLAGS))) is None:
        return dict.fromkeys(CLONE_FLAGS)
    return {layer: _try(flag) for layer, flag in CLONE_FLAGS.items()}


def _try(flags: int) -> str | None:
    try:
        pid = fork(flags)
    except OSError as error:
        return error.strerror
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return None


def enter_empty_root() -> None:
    """Make an empty read-only file system the root, and let go of the old one. In a mount namespace of one's own.

    Raises `OSError`.
    """
    anchor = next((path for path in _ANCHORS if os.path.isdir(path)), None)  # noqa: PTH112 (before any import of pathlib)
    if anchor is None:
        raise OSError(errno.ENOENT, f"none of {', '.join(_ANCHORS)} is there to mount on")
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount("tea-worker", anchor, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
    os.chdir(anchor)
    try:
        system_call("pivot_root", b".", b".")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The initial ramdisk's root cannot be pivoted away from; it can be covered, and nothing is left open beneath.
        mount(".", "/", None, _MS_MOVE)
        system_call("chroot", b".")
    else:
        # The old root lies under the new one at the same place: the topmost of the two is what "." names.
        system_call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def leave_session() -> None:
    """A session and process group of one's own: no terminal, no signals to or from a group."""
    if os.getsid(0) != os.getpid():
        os.setsid()
