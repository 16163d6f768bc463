"""Writes images: sections from files or bytes, streamed; signing rewrites the file with true sizes, offsets and CRC.

May not: leave a half-written file under the name that was asked for, or hold a section in memory.
Rule: AWS, aws-nitro-enclaves-image-format, src/utils; section order as its builder writes it: kernel, cmdline,
metadata, ramdisks, signature.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from .codes import ImageCode, ImageError
from .layout import (
    CRC_OFFSET,
    CURRENT_VERSION,
    HEADER_SIZE,
    MAX_CMDLINE_SIZE,
    MAX_SECTIONS,
    SECTION_HEADER_SIZE,
    Header,
    SectionHeader,
    SectionType,
)
from .measure import measure
from .metadata import Metadata
from .reader import CHUNK, EifImage, open_image
from .signature import sign_pcr0
from .signer import Signer

DEFAULT_MEMORY: Final = 1 << 30
DEFAULT_CPUS: Final = 2
"""As AWS's builder writes them."""


@dataclass(frozen=True)
class Piece:
    """The data of one section to be: its size, and the bytes when they are asked for."""

    type: SectionType
    size: int
    chunks: Callable[[], Iterable[bytes]]

    @classmethod
    def of_bytes(cls, kind: SectionType, data: bytes) -> Piece:
        """Data that is small."""
        return cls(kind, len(data), lambda: (data,))

    @classmethod
    def of_file(cls, kind: SectionType, path: Path) -> Piece:
        """A file, streamed."""
        return cls(kind, path.stat().st_size, lambda: _file_chunks(path))


def compose(kernel: Path, cmdline: str, ramdisks: Sequence[Path], metadata: Metadata | None) -> tuple[Piece, ...]:
    """The pieces of an image in AWS's order. Raises `ImageError(CMDLINE)`, `ImageError(INPUT)`, `OSError`."""
    if not cmdline.isascii() or not cmdline.isprintable():
        raise ImageError(ImageCode.CMDLINE, "the command line is not one line of printable ASCII")
    if len(cmdline) > MAX_CMDLINE_SIZE:
        raise ImageError(ImageCode.CMDLINE, f"the command line has {len(cmdline)} bytes, at most {MAX_CMDLINE_SIZE}")
    if not ramdisks:
        raise ImageError(ImageCode.INPUT, "an image needs a ramdisk")
    pieces = [
        Piece.of_file(SectionType.KERNEL, kernel),
        Piece.of_bytes(SectionType.CMDLINE, cmdline.encode("ascii")),
    ]
    if metadata is not None:
        pieces.append(Piece.of_bytes(SectionType.METADATA, metadata.encode()))
    pieces += [Piece.of_file(SectionType.RAMDISK, path) for path in ramdisks]
    return tuple(pieces)


def write_image(
    out: Path,
    pieces: Sequence[Piece],
    *,
    version: int = CURRENT_VERSION,
    flags: int = 0,
    memory: int = DEFAULT_MEMORY,
    cpus: int = DEFAULT_CPUS,
    signer: Signer | None = None,
) -> None:
    """Write an image, signed when there is a signer. The file appears whole or not at all.

    `memory` in bytes and `cpus` are what a launcher takes by default. Raises `ImageError`, `OSError`.
    """
    with _partial(out) as (file, path):
        _write(file, pieces, version, flags, memory, cpus)
        if signer is not None:
            with open_image(path) as unsigned:
                signature = sign_pcr0(measure(unsigned).pcr0, signer)
            signed = (*pieces, Piece.of_bytes(SectionType.SIGNATURE, signature))
            # The header grows by nothing and the signature comes last: what was written before it stays.
            _append(file, signed, version, flags, memory, cpus)


def sign_image(source: Path, out: Path, signer: Signer) -> None:
    """Write a copy of an image with a signature, in the place of the one it has, or at its end.

    `out` may be `source`. Raises `ImageError` when the image is irregular or of version 2, `OSError`.
    """
    with open_image(source) as image:
        if image.header.version < SectionType.SIGNATURE.since:
            raise ImageError(
                ImageCode.VERSION, f"version {image.header.version} has no signatures: build the image anew", offset=4
            )
        for one in image.irregularities:
            raise one
        measured = measure(image)
        if measured.crc != image.header.crc:
            raise crc_error(image, measured.crc)
        signature = Piece.of_bytes(SectionType.SIGNATURE, sign_pcr0(measured.pcr0, signer))
        pieces = [
            signature
            if one.type is SectionType.SIGNATURE
            else Piece(one.type, one.size, _section_chunks(image, one.index))
            for one in image.sections
        ]
        if image.only(SectionType.SIGNATURE) is None:
            pieces.append(signature)
        header = image.header
        with _partial(out) as (file, _):
            _write(file, pieces, header.version, header.flags, header.default_memory, header.default_cpus)
        image.require_unchanged()


def crc_error(image: EifImage, found: int) -> ImageError:
    """The refusal of an image whose bytes are not those that its CRC was made of."""
    return ImageError(
        ImageCode.CRC, f"the header says CRC {image.header.crc:08x}, the file has {found:08x}: it is damaged",
        offset=CRC_OFFSET,
    )  # fmt: skip


# ---- writing ----------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, pieces: Sequence[Piece], version: int, flags: int, memory: int, cpus: int) -> None:
    file.seek(HEADER_SIZE)
    for piece in pieces:
        _write_piece(file, piece)
    _write_header(file, pieces, version, flags, memory, cpus)


def _append(file: BinaryIO, pieces: Sequence[Piece], version: int, flags: int, memory: int, cpus: int) -> None:
    file.seek(0, os.SEEK_END)
    _write_piece(file, pieces[-1])
    _write_header(file, pieces, version, flags, memory, cpus)


def _write_piece(file: BinaryIO, piece: Piece) -> None:
    file.write(SectionHeader(piece.type, piece.size).encode())
    written = 0
    for chunk in piece.chunks():
        written += len(chunk)
        file.write(chunk)
    if written != piece.size:
        raise ImageError(
            ImageCode.CHANGED, f"a {piece.type.name.lower()} had {piece.size} bytes and gave {written}: it changed"
        )


def _write_header(file: BinaryIO, pieces: Sequence[Piece], version: int, flags: int, memory: int, cpus: int) -> None:
    if len(pieces) > MAX_SECTIONS:
        raise ImageError(ImageCode.SECTION_COUNT, f"{len(pieces)} sections, at most {MAX_SECTIONS}")
    table, offset = [], HEADER_SIZE
    for piece in pieces:
        table.append((offset, piece.size))
        offset += SECTION_HEADER_SIZE + piece.size
    header = Header(version, flags, memory, cpus, tuple(table), 0).encode()
    crc = zlib.crc32(header[:CRC_OFFSET])
    file.flush()
    file.seek(HEADER_SIZE)
    while chunk := file.read(CHUNK):
        crc = zlib.crc32(chunk, crc)
    file.seek(0)
    file.write(header[:CRC_OFFSET] + crc.to_bytes(4, "big"))
    file.flush()


@contextlib.contextmanager
def _partial(out: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside `out` that takes its name when all went well. Mode 0644 whatever the umask."""
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file, path
            file.flush()
            os.fsync(file.fileno())
        path.replace(out)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _section_chunks(image: EifImage, index: int) -> Callable[[], Iterable[bytes]]:
    section = next(one for one in image.sections if one.index == index)
    return lambda: image.chunks(section)
