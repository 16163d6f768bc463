"""Opens an image: finds its sections by the header's offsets, and refuses what no reader can agree on.

May not: read a kernel or ramdisk into memory, or trust that sections follow each other: a walker and a loader that
goes by offsets must see the same sections, and where they would not, `irregularities` says so.
Rule: AWS, aws-nitro-enclaves-image-format, README.md ("Enclave image file format").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from .codes import ImageCode, ImageError
from .layout import (
    HEADER_SIZE,
    MAX_CMDLINE_SIZE,
    MAX_METADATA_SIZE,
    MAX_SIGNATURE_SIZE,
    SECTION_HEADER_SIZE,
    Header,
    SectionType,
    offset_field_offset,
    parse_header,
    parse_section_header,
    size_field_offset,
)

CHUNK: Final = 1 << 20
"""Bytes read at a time."""
_LIMITS: Final = {
    SectionType.CMDLINE: (MAX_CMDLINE_SIZE, ImageCode.CMDLINE),
    SectionType.SIGNATURE: (MAX_SIGNATURE_SIZE, ImageCode.SIGNATURE_SIZE),
    SectionType.METADATA: (MAX_METADATA_SIZE, ImageCode.METADATA),
}
"""Sections that are read whole, and how large they may be."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a file."""

    type: SectionType
    offset: int
    """Of its header."""
    size: int
    """Of its data."""
    index: int
    """Its place in the header's table."""

    @property
    def data_offset(self) -> int:
        """Where its data begins."""
        return self.offset + SECTION_HEADER_SIZE

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.data_offset + self.size


class EifImage:
    """An open image whose structure holds. `sections` stand in file order, which is the order of measurement."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Read the structure of `file`, which this then owns. Raises `ImageError`."""
        self.path = path
        self._file = file
        status = os.fstat(file.fileno())
        self.size = status.st_size
        self._modified = status.st_mtime_ns
        self.header_bytes = self.read_at(0, min(HEADER_SIZE, self.size))
        self.header: Header = parse_header(self.header_bytes)
        self.sections = tuple(sorted(self._read_sections(), key=lambda one: one.offset))
        self._require_apart()
        self._require_kinds()
        self.irregularities = tuple(self._find_irregularities())
        """What readers of this file could take in two ways; `verify_image` refuses it."""

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises `ImageError(TRUNCATED)`."""
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise ImageError(ImageCode.TRUNCATED, "the file ends here", offset=offset + len(data))
        return data

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`. Raises `ImageError(TRUNCATED)` when the file ended meanwhile."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            if count == 0:
                raise ImageError(ImageCode.TRUNCATED, "the file ends here", offset=offset + done)
            done += count

    def read_section(self, section: Section) -> bytes:
        """The data of a section that is small by the format: cmdline, signature or metadata."""
        if section.type not in _LIMITS:
            raise ValueError(f"a {section.type.name.lower()} is not read whole: use chunks()")
        return self.read_at(section.data_offset, section.size)

    def chunks(self, section: Section) -> Iterator[bytes]:
        """The data of a section, at most `CHUNK` bytes at a time."""
        for offset in range(section.data_offset, section.end, CHUNK):
            yield self.read_at(offset, min(CHUNK, section.end - offset))

    def require_unchanged(self) -> None:
        """Raise `ImageError(CHANGED)` when the file is not as it was when it was opened."""
        status = os.fstat(self._file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified):
            raise ImageError(ImageCode.CHANGED, f"{self.path} changed while it was read: nobody else may write to it")

    def of(self, kind: SectionType) -> tuple[Section, ...]:
        """The sections of a type, in file order."""
        return tuple(one for one in self.sections if one.type is kind)

    def only(self, kind: SectionType) -> Section | None:
        """The one section of a type that is there once at most."""
        found = self.of(kind)
        return found[0] if found else None

    @property
    def cmdline(self) -> str:
        """The kernel's command line. Raises `ImageError(CMDLINE)` when it is no text."""
        section = self.of(SectionType.CMDLINE)[0]
        data = self.read_section(section)
        # AWS's builder writes no terminator; one is accepted, since a kernel would stop there as well.
        text = data.removesuffix(b"\0")
        if not text.isascii() or b"\0" in text or b"\n" in text:
            raise ImageError(
                ImageCode.CMDLINE, "the command line is not one line of ASCII text", offset=section.data_offset
            )
        return text.decode("ascii")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- structure -------------------------------------------------------------------------------------------------

    def _read_sections(self) -> Iterator[Section]:
        for index, (offset, size) in enumerate(self.header.sections):
            at = offset_field_offset(index)
            if offset < HEADER_SIZE:
                raise ImageError(
                    ImageCode.SECTION_OFFSET, f"section {index} begins at {offset}, inside the header", offset=at
                )
            if offset + SECTION_HEADER_SIZE > self.size:
                raise self._cut(index, offset, at)
            found = parse_section_header(self.read_at(offset, SECTION_HEADER_SIZE), offset, self.header.version)
            if found.size != size:
                raise ImageError(
                    ImageCode.SECTION_SIZE,
                    f"section {index} says {found.size} bytes of itself, the header's table says {size}",
                    offset=offset + 4,
                )
            if offset + SECTION_HEADER_SIZE + size > self.size:
                raise ImageError(
                    ImageCode.TRUNCATED,
                    f"section {index} ({found.type.name.lower()}) would end at {offset + SECTION_HEADER_SIZE + size}, "
                    f"the file ends at {self.size}",
                    offset=size_field_offset(index),
                )
            limit, code = _LIMITS.get(found.type, (None, ImageCode.SECTION_SIZE))
            if limit is not None and size > limit:
                raise ImageError(
                    code, f"a {found.type.name.lower()} section has at most {limit} bytes, not {size}", offset=offset
                )
            yield Section(found.type, offset, size, index)

    def _cut(self, index: int, offset: int, at: int) -> ImageError:
        beyond = offset > self.size
        return ImageError(
            ImageCode.SECTION_OFFSET if beyond else ImageCode.TRUNCATED,
            f"section {index} begins at {offset}, the file ends at {self.size}",
            offset=at,
        )

    def _require_apart(self) -> None:
        for before, after in zip(self.sections, self.sections[1:], strict=False):
            if after.offset < before.end:
                raise ImageError(
                    ImageCode.OVERLAP,
                    f"section {after.index} begins inside section {before.index}, which ends at {before.end}",
                    offset=after.offset,
                )

    def _require_kinds(self) -> None:
        for kind in SectionType:
            found = self.of(kind)
            if len(found) > 1 and kind is not SectionType.RAMDISK:
                raise ImageError(ImageCode.DUPLICATE, f"a second {kind.name.lower()} section", offset=found[1].offset)
            mandatory = kind in (SectionType.KERNEL, SectionType.CMDLINE) or (
                kind is SectionType.METADATA and self.header.version >= kind.since
            )
            if mandatory and not found:
                raise ImageError(ImageCode.MISSING, f"there is no {kind.name.lower()} section", offset=26)
        kernel = self.of(SectionType.KERNEL)[0]
        for ramdisk in self.of(SectionType.RAMDISK):
            if ramdisk.offset < kernel.offset:
                raise ImageError(ImageCode.ORDER, "a ramdisk stands before the kernel", offset=ramdisk.offset)

    def _find_irregularities(self) -> Iterator[ImageError]:
        for place, section in enumerate(self.sections):
            if section.index != place:
                yield ImageError(
                    ImageCode.ORDER,
                    f"section {section.index} of the table is number {place} in the file: tools would measure it "
                    "differently",
                    offset=offset_field_offset(section.index),
                )
        end = HEADER_SIZE
        for section in self.sections:
            if section.offset > end:
                yield _gap(end, section.offset)
            end = section.end
        if end < self.size:
            yield _gap(end, self.size)


def _gap(start: int, end: int) -> ImageError:
    return ImageError(ImageCode.GAP, f"{end - start} bytes belong to no section: nobody measures them", offset=start)


def open_image(path: Path) -> EifImage:
    """Open an image. Raises `ImageError` when its structure is malformed, `OSError` when it can't be read."""
    file = path.open("rb", buffering=0)
    try:
        return EifImage(file, path)
    except BaseException:
        file.close()
        raise
