"""Ramdisks: a tree as a cpio archive (newc) in gzip, streamed; the same tree gives the same bytes.

May not: hold more than a chunk of a file, or write a time, an owner or a name that comes from this machine.
Rule: Linux, Documentation/driver-api/early-userspace/buffer-format.rst; RFC 1952.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ..eif.codes import ImageCode, ImageError
from .tree import Entry, Tree

CHUNK: Final = 1 << 20
LEVEL: Final = 6
_TRAILER: Final = "TRAILER!!!"
# Magic, deflate, no flags, no time, no hint, unknown system.
_GZIP: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object: ...


class GzipWriter:
    """Gzip with a constant header. `finish` writes the end."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        out.write(_GZIP)

    def write(self, data: bytes) -> None:
        """Compress some bytes."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._out.write(self._deflate.compress(data))

    def finish(self) -> None:
        """The rest, and the trailer."""
        self._out.write(self._deflate.flush())
        self._out.write(self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little"))


def write_ramdisk(tree: Tree, out: Path, *, prefix: str = "") -> None:
    """Write a tree as cpio.gz, below `prefix` (a folder in the archive)."""
    with out.open("wb") as file:
        _write(tree, file, prefix)


def _write(tree: Tree, file: BinaryIO, prefix: str) -> None:
    gzip = GzipWriter(file)
    write_cpio(tree, gzip, prefix=prefix)
    gzip.finish()


def write_cpio(tree: Tree, out: Sink, *, prefix: str = "") -> None:
    """Write a tree as a bare cpio archive."""
    number = 1
    for path, entry in _with_prefix(tree, prefix):
        # Inode numbers count: what says that two files are one must not come from a disk.
        out.write(_header(path, entry.mode, entry.size, number, links=2 if stat.S_ISDIR(entry.mode) else 1))
        written = 0
        for chunk in _chunks(entry):
            written += len(chunk)
            out.write(chunk)
        if written != entry.size:
            raise ImageError(ImageCode.CHANGED, f"{path} changed while the ramdisk was written")
        out.write(bytes(-written % 4))
        number += 1
    out.write(_header(_TRAILER, 0, 0, 0, links=1))


def _with_prefix(tree: Tree, prefix: str) -> Iterator[tuple[str, Entry]]:
    if prefix:
        parts = prefix.split("/")
        for depth in range(1, len(parts) + 1):
            yield "/".join(parts[:depth]), Entry(stat.S_IFDIR | 0o755)
    for path, entry in tree.items():
        yield f"{prefix}/{path}" if prefix else path, entry


def _chunks(entry: Entry) -> Iterator[bytes]:
    if isinstance(entry.content, bytes):
        if entry.content:
            yield entry.content
        return
    with entry.content.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _header(path: str, mode: int, size: int, number: int, *, links: int) -> bytes:
    if size > 0xFFFFFFFF:
        raise ImageError(ImageCode.BUILD, f"{path} has {size} bytes: a ramdisk's files have less than 4 GiB")
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device, special device, name, check
    fields = (number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name), 0)
    data = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return data + bytes(-len(data) % 4)
