"""The archive of a bundle: a ZIP file with one possible form, so that the same source always gives the same bytes.

May not: compress, carry times, owners, comments or links, name what is outside, or hide a module of the worker's.
Rule: PKWARE APPNOTE 6.3.3 sections 4.3.7, 4.3.12 and 4.3.16 (what `zipimport` reads of it); docs/architecture.md,
"Bundle, manifest, measured boot".
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from collections.abc import Mapping
from typing import Final

from .claims import BundleCode, BundleError

MAX_FILES: Final = 2000
MAX_TOTAL: Final = 64 * 1024 * 1024
"""Bytes of all files together."""
MAX_FILE_NAME: Final = 255

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_COMPILED: Final = (".pyc", ".pyo", ".pyd", ".so", ".pth")
_FOREIGN: Final = frozenset(
    # What a worker has imported, or imports later, besides the standard library.
    [
        "tea",
        "thespian",
        "msgspec",
        "msgpack",
        "cbor2",
        "pycose",
        "cryptography",
        "yaml",
        "_yaml",
        "uvloop",
        "cffi",
        "_cffi_backend",
        "pycparser",
        "sr25519",
        "Crypto",
        "coincurve",
        "ecdsa",
        "attr",
        "attrs",
        "certvalidator",
        "setuptools",
        "pkg_resources",
        "sitecustomize",
        "usercustomize",
    ]
)

_DATE: Final = (1980 - 1980) << 9 | 1 << 5 | 1  # 1980-01-01, the first that the format can say
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_VERSION: Final = 20
_MADE_BY_UNIX: Final = 3 << 8 | _VERSION
_MODE: Final = 0o100644 << 16


def build_archive(files: Mapping[str, bytes]) -> bytes:
    """The one ZIP (stored, sorted, 1980-01-01, mode 0644) of these files, by `/`-separated relative name.

    Raises `BundleError`: BAD_FILE_NAME, SHADOWED_MODULE, TOO_LARGE (2,000 files, 64 MiB), BAD_ARCHIVE when empty.
    """
    _require_sizes(len(files), sum(len(content) for content in files.values()))
    _require_file_names(files)
    out = bytearray()
    directory = bytearray()
    for name in sorted(files):
        content, raw = files[name], name.encode("ascii")
        crc, size = zlib.crc32(content), len(content)
        directory += _CENTRAL.pack(
            _CENTRAL_MAGIC,
            _MADE_BY_UNIX,
            _VERSION,
            0,
            0,
            0,
            _DATE,
            crc,
            size,
            size,
            len(raw),
            0,
            0,
            0,
            0,
            _MODE,
            len(out),
        )
        directory += raw
        out += _LOCAL.pack(_LOCAL_MAGIC, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(raw), 0)
        out += raw
        out += content
    start = len(out)
    out += directory
    out += _END.pack(_END_MAGIC, 0, 0, len(files), len(files), len(directory), start, 0)
    return bytes(out)


def read_archive(archive: bytes) -> dict[str, bytes]:
    """The files of an archive whose digest is believed. Only the very bytes that `build_archive` makes are read.

    Raises `BundleError` as `build_archive` does; BAD_ARCHIVE on any other form (compressed, twice the same name, a
    directory that says otherwise than the files, bytes before, between or after).
    """
    if len(archive) > MAX_TOTAL + (MAX_FILES + 1) * 1024:
        raise BundleError(BundleCode.TOO_LARGE, f"the archive has {len(archive)} bytes")
    files: dict[str, bytes] = {}
    at = total = 0
    while archive[at : at + 4] == _LOCAL_MAGIC:
        name, place = _place_of(archive, at)
        content, at = archive[place], place.stop
        total += len(content)
        if name in files:
            raise _bad(f"{name!r} is in it twice")
        files[name] = content
        _require_sizes(len(files), total)
    # The directory is not parsed but made again: what differs in any byte is not ours.
    if build_archive(files) != archive:
        raise _bad("it is not in its one form (stored, sorted, no times, nothing else in it)")
    return files


def locate(archive: bytes) -> dict[str, slice]:
    """Where the files of an archive are that `read_archive` has read before; of another, where they seem to be.

    Raises `BundleError` on an archive that is surely in another form.
    """
    places: dict[str, slice] = {}
    at = 0
    while archive[at : at + 4] == _LOCAL_MAGIC:
        name, place = _place_of(archive, at)
        places[name] = place
        at = place.stop
    return places


def _place_of(archive: bytes, at: int) -> tuple[str, slice]:
    start = at + _LOCAL.size
    if start > len(archive):
        raise _bad(f"it ends within the header at byte {at}")
    _, _, _, method, _, _, _, packed, size, name_size, extra = _LOCAL.unpack_from(archive, at)
    if method != 0 or packed != size or extra != 0:
        raise _bad(f"the file at byte {at} is compressed or has extra fields: only stored files are read")
    end = start + name_size + size
    if end > len(archive):
        raise _bad(f"it ends within the file at byte {at}")
    try:
        name = archive[start : start + name_size].decode("ascii")
    except UnicodeDecodeError:
        raise BundleError(BundleCode.BAD_FILE_NAME, f"the file name at byte {at} is not ASCII") from None
    return name, slice(start + name_size, end)


def has_module(files: Mapping[str, bytes], module: str) -> bool:
    """Whether the archive has this dotted module."""
    path = module.replace(".", "/")
    return f"{path}.py" in files or f"{path}/__init__.py" in files


def _bad(why: str) -> BundleError:
    return BundleError(BundleCode.BAD_ARCHIVE, f"the archive is refused: {why}")


def _require_sizes(count: int, total: int) -> None:
    if count > MAX_FILES or total > MAX_TOTAL:
        raise BundleError(
            BundleCode.TOO_LARGE, f"{count} files of {total} bytes, at most {MAX_FILES} and {MAX_TOTAL}: leave some out"
        )


def _require_file_names(files: Mapping[str, bytes]) -> None:
    if not files:
        raise _bad("it has no files")
    folders: set[str] = set()
    for name in files:
        segments = name.split("/")
        if len(name) > MAX_FILE_NAME or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise BundleError(
                BundleCode.BAD_FILE_NAME,
                f"the file name {name[:80]!r} is refused: relative, of ASCII letters, digits, '_', '-', '.'",
            )
        if name.endswith(_COMPILED):
            raise BundleError(
                BundleCode.BAD_FILE_NAME, f"{name!r} is compiled code: bundles carry source, which can be read"
            )
        top = segments[0].partition(".")[0]
        if top in sys.stdlib_module_names or top in _FOREIGN or top == "__main__":
            raise BundleError(
                BundleCode.SHADOWED_MODULE,
                f"{name!r} would hide the module {top!r} from everything in the worker: rename it",
            )
        folders.update("/".join(segments[:depth]) for depth in range(1, len(segments)))
    for folder in sorted(folders):
        if folder in files or f"{folder}.py" in files:
            raise BundleError(
                BundleCode.BAD_FILE_NAME, f"{folder!r} is a folder and a file or module at once: rename one of them"
            )
