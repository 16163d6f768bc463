"""Which shared libraries a program needs, read off its ELF dynamic section; and the closure of that over a tree.

May not: run the program, or guess: a library that nobody brings is an error of the build, not of the boot.
Rule: System V ABI, "Dynamic Section" (DT_NEEDED).
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterable
from typing import Final

from ..eif.codes import ImageCode, ImageError
from .tree import Entry, Tree

_MAGIC: Final = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> tuple[str, ...]:
    """The names of the libraries that a 64-bit little-endian ELF file asks for; () for what is no such file."""
    if not data.startswith(_MAGIC):
        return ()
    try:
        return _needed(data)
    except (struct.error, ValueError, IndexError):
        raise ImageError(ImageCode.INPUT, "a program or library is a malformed ELF file") from None


def _needed(data: bytes) -> tuple[str, ...]:
    table, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, table + size * index) for index in range(count)]
    loads = [(start, offset, length) for kind, _, offset, start, _, length in segments if kind == _PT_LOAD]
    dynamic = next(((offset, length) for kind, _, offset, _, _, length in segments if kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return ()
    entries: list[tuple[int, int]] = []
    for offset in range(dynamic[0], dynamic[0] + dynamic[1], 16):
        tag, value = struct.unpack_from("<QQ", data, offset)
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    address = next(value for tag, value in entries if tag == _DT_STRTAB)
    strings = next(offset + address - start for start, offset, length in loads if start <= address < start + length)
    names = (strings + value for tag, value in entries if tag == _DT_NEEDED)
    return tuple(data[at : data.index(b"\0", at)].decode() for at in names)


def keep_needed_libraries(tree: Tree, folder: str, always: Iterable[str] = ()) -> None:
    """Take out of `folder` every library that nothing in the tree needs. Raises `ImageError` on one that is missing.

    A wheel's own libraries (in its NAME.libs folder, found by their names) count as there.
    """
    libraries = {path for path, _ in tree.items() if posixpath.dirname(path) == folder and ".so" in path}
    bundled = {posixpath.basename(path) for path, _ in tree.items() if ".libs/" in path}
    waiting = [path for path, entry in tree.items() if entry.is_file and path not in libraries]
    waiting += [f"{folder}/{name}" for name in always]
    kept: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in libraries:
            if path in kept:
                continue
            kept.add(path)
        entry = tree.get(path)
        if entry is None:
            raise ImageError(ImageCode.BUILD, f"{path} is needed and no package of the lock has it")
        if entry.is_link:
            waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.read().decode())))
            continue
        for name in needed(_program(entry)):
            if name in bundled:
                continue
            if f"{folder}/{name}" not in tree:
                raise ImageError(ImageCode.BUILD, f"{path} needs {name}, which no package of the lock has")
            waiting.append(f"{folder}/{name}")
    for path in libraries - kept:
        tree.remove(path)


def _program(entry: Entry) -> bytes:
    """The bytes of a program; nothing of any other file, however large it is."""
    if isinstance(entry.content, bytes):
        return entry.content
    with entry.content.open("rb") as file:
        start = file.read(len(_MAGIC))
        return start + file.read() if start == _MAGIC else b""
