"""A reader for the CBOR that an NSM writes: integers, bytes, text, null, arrays and maps, nothing else.

May not: accept duplicate keys, tags, floats, chunked strings or trailing bytes, or raise anything but NsmCborError.
Rule: RFC 8949 sections 3 and 5.3; indefinite-length maps occur in real documents since August 2025, so they are read.
"""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 4
"""Containers within containers that are followed; an attestation document needs two."""

Value = None | int | str | bytes | list["Value"] | dict["str | int", "Value"]

_BREAK: Final = 0xFF
_NULL: Final = 0xF6


class NsmCborError(ValueError):
    """The bytes are not what an NSM writes. `duplicate` holds the key when a map has it twice."""

    def __init__(self, sentence: str, *, trailing: bool = False, duplicate: str | int | None = None) -> None:
        super().__init__(sentence)
        self.trailing = trailing
        self.duplicate = duplicate


def decode(data: bytes) -> Value:
    """The one value that `data` holds. Raises `NsmCborError`."""
    value, end = _read(data, 0, 0)
    if end != len(data):
        raise NsmCborError(f"{len(data) - end} bytes follow the value, which ends at byte {end}", trailing=True)
    return value


def head(major: int, argument: int) -> bytes:
    """The shortest initial bytes of a definite item: `major` 0 to 7, `argument` its value or length."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << (8 * size):
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


def byte_string(value: bytes) -> bytes:
    """A byte string in its shortest encoding."""
    return head(2, len(value)) + value


def _read(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if at >= len(data):
        raise NsmCborError(f"the data ends at byte {at}, where a value should stand")
    initial = data[at]
    major, info = initial >> 5, initial & 0x1F
    if initial == _NULL:
        return None, at + 1
    if info == 31 and major in (4, 5):
        argument, start = None, at + 1
    else:
        argument, start = _argument(data, at, info)
    if major == 0:
        return argument, start
    if major == 1 and argument is not None:
        return -1 - argument, start
    if major in (2, 3) and argument is not None:
        return _string(data, start, argument, major == 3)
    if major in (4, 5):
        if depth >= MAX_DEPTH:
            raise NsmCborError(f"containers are nested deeper than {MAX_DEPTH} at byte {at}")
        return (_array if major == 4 else _map)(data, start, argument, depth)
    raise NsmCborError(f"byte {at} (0x{initial:02x}) starts a tag, float or simple value, which an NSM does not write")


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    if info < 24:
        return info, at + 1
    if info > 27:
        raise NsmCborError(f"byte {at} (0x{data[at]:02x}) starts nothing that an NSM writes")
    end = at + 1 + (1 << (info - 24))
    if end > len(data):
        raise NsmCborError(f"the data is cut off within the item that starts at byte {at}")
    return int.from_bytes(data[at + 1 : end], "big"), end


def _string(data: bytes, start: int, length: int, is_text: bool) -> tuple[Value, int]:
    end = start + length
    if end > len(data):
        raise NsmCborError(f"a string of {length} bytes is cut off: {len(data) - start} bytes are left at byte {start}")
    raw = data[start:end]
    if not is_text:
        return raw, end
    try:
        return raw.decode("utf-8"), end
    except UnicodeDecodeError:
        raise NsmCborError(f"the text at byte {start} is not UTF-8") from None


def _ended(data: bytes, at: int, count: int | None, done: int) -> bool:
    # A count that the data cannot hold ends in "the data ends": nothing is allocated for it beforehand.
    return done == count if count is not None else data[at : at + 1] == bytes((_BREAK,))


def _array(data: bytes, at: int, count: int | None, depth: int) -> tuple[Value, int]:
    items: list[Value] = []
    while not _ended(data, at, count, len(items)):
        item, at = _read(data, at, depth + 1)
        items.append(item)
    return items, at + (count is None)


def _map(data: bytes, at: int, count: int | None, depth: int) -> tuple[Value, int]:
    entries: dict[str | int, Value] = {}
    while not _ended(data, at, count, len(entries)):
        key, after = _read(data, at, depth + 1)
        if not isinstance(key, (str, int)):
            raise NsmCborError(f"a map's key at byte {at} is neither text nor an integer")
        if key in entries:
            raise NsmCborError(f"the key {key!r:.80} stands twice in a map", duplicate=key)
        entries[key], at = _read(data, after, depth + 1)
    return entries, at + (count is None)
