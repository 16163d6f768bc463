"""The fixed structures of an EIF: the file's header and the section headers, as bytes and as types.

May not: open a file, or judge how sections stand to each other (that is `reader`).
Rule: AWS, aws-nitro-enclaves-image-format, src/defs: all integers big-endian, header 548 bytes, section header 12.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from .codes import ImageCode, ImageError

MAGIC: Final = b".eif"
VERSIONS: Final = (2, 3, 4)
"""Version 1 has no CRC; nobody makes it any more."""
CURRENT_VERSION: Final = 4
MAX_SECTIONS: Final = 32
HEADER_SIZE: Final = 548
CRC_OFFSET: Final = HEADER_SIZE - 4
"""Where the CRC stands; it covers the whole file but these four bytes."""
SECTION_HEADER_SIZE: Final = 12
MAX_SIGNATURE_SIZE: Final = 32768
MAX_METADATA_SIZE: Final = 1 << 20
MAX_CMDLINE_SIZE: Final = 4096
FLAG_AARCH64: Final = 1

_HEADER: Final = struct.Struct(f">4sHHQQHH{MAX_SECTIONS}Q{MAX_SECTIONS}QII")
_SECTION: Final = struct.Struct(">HHQ")
_FLAGS_OFFSET, _RESERVED_OFFSET, _COUNT_OFFSET, _TABLE_OFFSET, _UNUSED_OFFSET = 6, 24, 26, 28, 540
assert _HEADER.size == HEADER_SIZE
assert _SECTION.size == SECTION_HEADER_SIZE


class SectionType(enum.IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5

    @property
    def since(self) -> int:
        """The first version of the format that has it."""
        return {SectionType.SIGNATURE: 3, SectionType.METADATA: 4}.get(self, 2)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image. Offsets point at section headers; sizes are of the data alone."""

    version: int
    flags: int
    default_memory: int
    """Bytes."""
    default_cpus: int
    sections: tuple[tuple[int, int], ...]
    """(offset, size) in the table's order."""
    crc: int

    def encode(self) -> bytes:
        """The 548 bytes."""
        padding = (0,) * (MAX_SECTIONS - len(self.sections))
        offsets = (*(offset for offset, _ in self.sections), *padding)
        sizes = (*(size for _, size in self.sections), *padding)
        return _HEADER.pack(
            MAGIC,
            self.version,
            self.flags,
            self.default_memory,
            self.default_cpus,
            0,
            len(self.sections),
            *offsets,
            *sizes,
            0,
            self.crc,
        )

    @property
    def architecture(self) -> str:
        """`x86_64` or `aarch64`."""
        return "aarch64" if self.flags & FLAG_AARCH64 else "x86_64"


@dataclass(frozen=True, slots=True)
class SectionHeader:
    """The header in front of a section's data."""

    type: SectionType
    size: int

    def encode(self) -> bytes:
        """The 12 bytes."""
        return _SECTION.pack(self.type, 0, self.size)


def parse_header(data: bytes) -> Header:
    """The header at the beginning of a file, from its first 548 bytes. Raises `ImageError` with the offset."""
    if data[:4] != MAGIC[: len(data[:4])] or not data:
        raise ImageError(
            ImageCode.MAGIC, f"found {data[:4].hex() or 'nothing'}, expected '.eif': this is no enclave image", offset=0
        )
    if len(data) < HEADER_SIZE:
        raise ImageError(
            ImageCode.TRUNCATED, f"the file ends inside its header, which has {HEADER_SIZE} bytes", offset=len(data)
        )
    fields = _HEADER.unpack_from(data)
    _, version, flags, memory, cpus, reserved, count = fields[:7]
    offsets, sizes = fields[7 : 7 + MAX_SECTIONS], fields[7 + MAX_SECTIONS : 7 + 2 * MAX_SECTIONS]
    unused, crc = fields[-2:]
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise ImageError(ImageCode.VERSION, f"version {version} of the format, expected one of {known}", offset=4)
    if flags & ~FLAG_AARCH64:
        raise ImageError(ImageCode.FLAGS, f"flags {flags:#06x}: only bit 0 (aarch64) is defined", offset=_FLAGS_OFFSET)
    for value, offset in ((reserved, _RESERVED_OFFSET), (unused, _UNUSED_OFFSET)):
        if value:
            raise ImageError(ImageCode.RESERVED, f"a reserved field holds {value:#x}, expected 0", offset=offset)
    if not 1 <= count <= MAX_SECTIONS:
        raise ImageError(
            ImageCode.SECTION_COUNT, f"{count} sections, expected 1 to {MAX_SECTIONS}", offset=_COUNT_OFFSET
        )
    for table, values in enumerate((offsets, sizes)):
        for index, value in enumerate(values[count:], count):
            if value:
                at = _TABLE_OFFSET + 8 * (MAX_SECTIONS * table + index)
                raise ImageError(
                    ImageCode.SECTION_COUNT, f"the table holds {value} for section {index}, of {count}", offset=at
                )
    return Header(version, flags, memory, cpus, tuple(zip(offsets[:count], sizes[:count], strict=True)), crc)


def parse_section_header(data: bytes, offset: int, version: int) -> SectionHeader:
    """The 12 bytes at `offset` of a file of this version. Raises `ImageError` with the offset."""
    number, flags, size = _SECTION.unpack(data)
    try:
        kind = SectionType(number)
    except ValueError:
        raise ImageError(
            ImageCode.SECTION_TYPE,
            f"section type {number}, expected 1 to 5 (kernel, cmdline, ramdisk, signature, metadata)",
            offset=offset,
        ) from None
    if version < kind.since:
        raise ImageError(
            ImageCode.SECTION_TYPE,
            f"a {kind.name.lower()} section in version {version} of the format, which has none before {kind.since}",
            offset=offset,
        )
    if flags:
        raise ImageError(ImageCode.RESERVED, f"section flags {flags:#06x}, expected 0", offset=offset + 2)
    return SectionHeader(kind, size)


def size_field_offset(index: int) -> int:
    """Where the table holds the size of section `index`: for errors."""
    return _TABLE_OFFSET + 8 * (MAX_SECTIONS + index)


def offset_field_offset(index: int) -> int:
    """Where the table holds the offset of section `index`: for errors."""
    return _TABLE_OFFSET + 8 * index
