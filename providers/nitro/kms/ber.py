"""A reader for the BER in which CMS comes: tags of one byte, definite and indefinite lengths, nothing else.

May not: read past its bounds, recurse deeper than `MAX_DEPTH`, or raise anything but `BerError`.
Rule: ITU-T X.690 section 8.1. Lengths need not be the shortest: BER allows it, and nothing here is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 12
_CONSTRUCTED: Final = 0x20
_INDEFINITE: Final = 0x80

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31


class BerError(ValueError):
    """The bytes are not the BER that was expected. The sentence says where, never what was read."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag with class and form bits, its content when primitive, its children when constructed."""

    tag: int
    content: bytes
    children: tuple[Element, ...]

    def expect(self, tag: int, what: str) -> Element:
        """This element, when its tag is the one expected. Raises `BerError`."""
        if self.tag != tag:
            raise BerError(f"{what} has the tag 0x{self.tag:02x}, expected 0x{tag:02x}")
        return self

    def parts(self, tag: int, least: int, most: int, what: str) -> tuple[Element, ...]:
        """The children of a constructed element, `least` to `most` of them. Raises `BerError`."""
        self.expect(tag, what)
        if not least <= len(self.children) <= most:
            raise BerError(f"{what} has {len(self.children)} parts, expected {least} to {most}")
        return self.children


def parse(data: bytes, limit: int) -> Element:
    """The one element that `data` (at most `limit` bytes) holds. Raises `BerError` on trailing bytes too."""
    if len(data) > limit:
        raise BerError(f"{len(data)} bytes, at most {limit} are read")
    element, end = _read(data, 0, len(data), 0)
    if end != len(data):
        raise BerError(f"{len(data) - end} bytes follow the element, which ends at byte {end}")
    return element


def _read(data: bytes, at: int, end: int, depth: int) -> tuple[Element, int]:
    if depth >= MAX_DEPTH:
        raise BerError(f"more than {MAX_DEPTH} elements within each other at byte {at}")
    if end - at < 2:
        raise BerError(f"the data ends within the element at byte {at}")
    tag, first = data[at], data[at + 1]
    if tag & 0x1F == 0x1F or tag == 0:
        raise BerError(f"the tag 0x{tag:02x} at byte {at} is not one that is read")
    constructed = bool(tag & _CONSTRUCTED)
    start = at + 2
    if first == _INDEFINITE:
        if not constructed:
            raise BerError(f"a primitive element of indefinite length at byte {at}")
        return _read_until_end(data, tag, start, end, depth)
    length = first
    if first > _INDEFINITE:
        size = first & 0x7F
        if size > 4 or end - start < size:
            raise BerError(f"the length at byte {at} has {size} bytes, or is cut off")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    stop = start + length
    if stop > end:
        raise BerError(f"the element at byte {at} claims {length} bytes, {end - start} are left")
    if not constructed:
        return Element(tag, data[start:stop], ()), stop
    children: list[Element] = []
    while start < stop:
        child, start = _read(data, start, stop, depth + 1)
        children.append(child)
    return Element(tag, b"", tuple(children)), stop


def _read_until_end(data: bytes, tag: int, at: int, end: int, depth: int) -> tuple[Element, int]:
    children: list[Element] = []
    while data[at : min(at + 2, end)] != b"\0\0":
        child, at = _read(data, at, end, depth + 1)
        children.append(child)
    return Element(tag, b"", tuple(children)), at + 2
