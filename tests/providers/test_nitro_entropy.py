"""The NSM's random reaches the kernel's pool, credited where that is permitted, and a failing source is not hidden.

May not: credit anything to this machine's pool: the ioctl is a stand-in. Rule: random(4), RNDADDENTROPY.
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from tea.providers.nitro.client import NsmError
from tea.providers.nitro.entropy import RNDADDENTROPY, Mixed, mix_entropy


class Counting:
    """Random that can be recognised."""

    def __init__(self) -> None:
        self.given = b""

    def random(self, size: int) -> bytes:
        piece = bytes((len(self.given) + index) % 251 for index in range(size))
        self.given += piece
        return piece


class Pool:
    """The kernel's side of the ioctl."""

    def __init__(self, error: int | None = None) -> None:
        self.error = error
        self.added = b""
        self.bits = 0

    def __call__(self, fd: int, command: int, argument: bytes) -> object:
        if self.error is not None:
            raise OSError(self.error, "as the kernel says")
        assert command == RNDADDENTROPY
        bits, size = struct.unpack_from("=ii", argument)
        assert len(argument) == 8 + size
        self.bits += bits
        self.added += argument[8:]
        return 0


def test_the_ioctls_number_is_the_kernels() -> None:
    # _IOW('R', 0x03, int[2]): direction write, 8 bytes, type 'R', number 3.
    assert (1 << 30) | (8 << 16) | (ord("R") << 8) | 3 == RNDADDENTROPY


@pytest.mark.parametrize("size", [1, 512, 513, 1024])
def test_every_byte_is_credited_where_that_is_permitted(tmp_path: Path, size: int) -> None:
    (path := tmp_path / "random").touch()
    source, pool = Counting(), Pool()
    assert mix_entropy(source, size, path=str(path), ioctl=pool) == Mixed(size, credited=True)
    assert pool.added == source.given
    assert pool.bits == 8 * size
    assert path.read_bytes() == b""


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EINVAL])
def test_without_the_right_it_is_written_without_credit(tmp_path: Path, error: int) -> None:
    (path := tmp_path / "random").touch()
    source = Counting()
    assert mix_entropy(source, 1024, path=str(path), ioctl=Pool(error)) == Mixed(1024, credited=False)
    assert path.read_bytes() == source.given


def test_another_failure_of_the_pool_is_not_hidden(tmp_path: Path) -> None:
    (path := tmp_path / "random").touch()
    with pytest.raises(OSError, match="as the kernel says"):
        mix_entropy(Counting(), path=str(path), ioctl=Pool(errno.EFAULT))
    with pytest.raises(FileNotFoundError):
        mix_entropy(Counting(), path=str(tmp_path / "missing"))


def test_a_failing_nsm_is_not_hidden(tmp_path: Path) -> None:
    from tea.providers.nitro.client import ErrorCode

    class Failing:
        def random(self, size: int) -> bytes:
            raise NsmError(ErrorCode.INTERNAL_ERROR, "no random")

    (path := tmp_path / "random").touch()
    with pytest.raises(NsmError):
        mix_entropy(Failing(), path=str(path), ioctl=Pool())


@pytest.mark.parametrize("size", [0, 65537])
def test_other_sizes_are_our_own_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="mixed in"):
        mix_entropy(Counting(), size)


def test_this_machines_pool_takes_it() -> None:
    assert mix_entropy(Counting(), 16, ioctl=Pool(errno.EPERM)) == Mixed(16, credited=False)
