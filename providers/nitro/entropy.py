"""Random numbers of the NSM into the kernel's pool: what an enclave does at boot before it makes a key.

May not: replace the pool (it is added to, so that a bad source makes nothing worse), or show the bytes.
Rule: random(4), RNDADDENTROPY; AWS Nitro Enclaves SDK, "seed entropy".
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

RNDADDENTROPY: Final = 0x40085203
"""`_IOW('R', 0x03, int[2])`, on every Linux that enclaves run."""
POOL_PATH: Final = "/dev/random"
DEFAULT_SIZE: Final = 1024
"""Bytes: four requests to the NSM, as AWS's own SDK mixes in."""
MAX_SIZE: Final = 65536
_PIECE: Final = 512
"""Bytes of one ioctl."""

Ioctl = Callable[[int, int, bytes], object]
"""(file descriptor, command, argument); raises `OSError`. The seam that a test replaces."""


class RandomSource(Protocol):
    """Where random comes from: `Nsm` is one."""

    def random(self, size: int) -> bytes: ...


class Mixed(NamedTuple):
    """What was done."""

    size: int
    """Bytes that were mixed in."""
    credited: bool
    """Whether the kernel counts them as entropy; else they were written to the pool without credit."""


def mix_entropy(
    nsm: RandomSource, size: int = DEFAULT_SIZE, *, path: str = POOL_PATH, ioctl: Ioctl = fcntl.ioctl
) -> Mixed:
    """Mix `size` (1 to 65,536) bytes of the NSM into the kernel's pool, and credit them where that is permitted.

    Call it once at boot, before the first key is made. Raises `NsmError` when the NSM fails, `OSError` when the pool
    cannot be written to: a host that cannot have random must not start.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"1 to {MAX_SIZE} bytes are mixed in, not {size}")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        credited = True
        done = 0
        while done < size:
            piece = nsm.random(min(_PIECE, size - done))
            if credited:
                credited = _add(fd, piece, ioctl)
            if not credited:
                _write(fd, piece)
            done += len(piece)
        return Mixed(done, credited)
    finally:
        os.close(fd)


def _add(fd: int, piece: bytes, ioctl: Ioctl) -> bool:
    """struct rand_pool_info: the bits of entropy, the bytes, the bytes themselves. False: not permitted here."""
    try:
        ioctl(fd, RNDADDENTROPY, struct.pack("=ii", 8 * len(piece), len(piece)) + piece)
    except OSError as error:
        # No CAP_SYS_ADMIN, a sandbox, or a file that is no pool.
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EINVAL):
            raise
        return False
    return True


def _write(fd: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]
