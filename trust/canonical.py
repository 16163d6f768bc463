"""The one encoding of everything that is signed or hashed: canonical CBOR, both ways, with nothing left to choice.

May not: accept two encodings of one value, tags, indefinite lengths, infinities, or keys but text, integers or bytes.
Rule: RFC 8949 section 4.2.1 (core deterministic encoding); docs/architecture.md, "Digests and encodings".
"""

from __future__ import annotations

import enum
import math
import struct
from typing import Final

from .errors import TrustError

MAX_DEPTH: Final = 16
"""Containers within containers; the outermost counts as 1."""
DEFAULT_LIMIT: Final = 1 << 20
"""Bytes that `decode` reads when it is not told otherwise."""

Key = str | int | bytes
Value = None | bool | int | float | str | bytes | list["Value"] | dict[Key, "Value"]
"""What decodes: plain data. Integers are those of 64 bits, with CBOR's sign apart: -2**64 to 2**64 - 1."""

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FLOATS: Final = ((0xF9, ">e"), (0xFA, ">f"), (0xFB, ">d"))


class CanonicalCode(enum.StrEnum):
    """Why bytes are not canonical CBOR."""

    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    TRUNCATED = "truncated"
    TRAILING = "trailing-bytes"
    NOT_CANONICAL = "not-canonical"
    UNSUPPORTED = "unsupported"
    WRONG_THING = "wrong-thing"


class CanonicalError(TrustError):
    """The bytes are not the canonical encoding of anything that we read."""


def encode(value: object) -> bytes:
    """The canonical CBOR of plain data (None, bool, int, float, str, bytes, list or tuple, dict).

    Raises `TypeError` on another type or an unencodable key, `ValueError` on an integer beyond 64 bits, a float that is
    not a number, text with lone surrogates, or more than 16 levels: all of them our caller's mistakes.
    """
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def _head(major: int, argument: int, out: bytearray) -> None:
    if argument < 24:
        out.append(major << 5 | argument)
    elif argument < 1 << 8:
        out += bytes((major << 5 | 24, argument))
    elif argument < 1 << 16:
        out.append(major << 5 | 25)
        out += argument.to_bytes(2, "big")
    elif argument < 1 << 32:
        out.append(major << 5 | 26)
        out += argument.to_bytes(4, "big")
    elif argument < 1 << 64:
        out.append(major << 5 | 27)
        out += argument.to_bytes(8, "big")
    else:
        raise ValueError("an integer needs more than 64 bits")


def _encode(value: object, out: bytearray, depth: int) -> None:
    if value is None:
        out.append(0xF6)
    elif value is True:
        out.append(0xF5)
    elif value is False:
        out.append(0xF4)
    elif isinstance(value, int):
        _head(_UINT, value, out) if value >= 0 else _head(_NINT, -1 - value, out)
    elif isinstance(value, str):
        raw = value.encode("utf-8")
        _head(_TEXT, len(raw), out)
        out += raw
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _head(_BYTES, memoryview(value).nbytes, out)
        out += value
    elif isinstance(value, float):
        out += _encode_float(value)
    elif isinstance(value, (list, tuple)):
        _require_depth(depth)
        _head(_ARRAY, len(value), out)
        for item in value:
            _encode(item, out, depth + 1)
    elif isinstance(value, dict):
        _require_depth(depth)
        _head(_MAP, len(value), out)
        entries: dict[bytes, object] = {}
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, (str, int, bytes)):
                raise TypeError(f"a map's key is text, an integer or bytes, not {type(key).__name__}")
            entries[encode(key)] = item
        for encoded_key in sorted(entries):
            out += encoded_key
            _encode(entries[encoded_key], out, depth + 1)
    else:
        raise TypeError(f"{type(value).__name__} has no canonical encoding")


def _require_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} containers within each other")


def _encode_float(value: float) -> bytes:
    if not math.isfinite(value):
        raise ValueError("a float is finite")
    for initial, form in _FLOATS[:2]:
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return bytes((initial,)) + packed
    return b"\xfb" + struct.pack(">d", value)


def decode(data: bytes, *, limit: int = DEFAULT_LIMIT) -> Value:
    """The value of canonical CBOR; at most `limit` bytes are looked at.

    Raises `CanonicalError` (and nothing else) on anything that `encode` would not have written.
    """
    if len(data) > limit:
        raise CanonicalError(CanonicalCode.TOO_LARGE, f"{len(data)} bytes of CBOR, at most {limit} are read")
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise CanonicalError(
            CanonicalCode.TRAILING, f"{len(data) - end} bytes follow the CBOR value, which ends at byte {end}"
        )
    return value


def decode_tagged(data: bytes, thing: str, *, limit: int = DEFAULT_LIMIT) -> dict[str, Value]:
    """The fields of a canonical map with text keys and `"tea": thing`, the tag itself left out.

    Raises `CanonicalError`; WRONG_THING when it is another thing, so that one signed thing never passes for another.
    """
    value = decode(data, limit=limit)
    if not isinstance(value, dict) or value.get("tea") != thing:
        found = repr(value["tea"])[:80] if isinstance(value, dict) and "tea" in value else "none"
        raise CanonicalError(CanonicalCode.WRONG_THING, f"the tag is {found}, expected {thing!r}")
    fields: dict[str, Value] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise CanonicalError(CanonicalCode.UNSUPPORTED, f"the key {key!r} of {thing} is not text")
        if key != "tea":
            fields[key] = item
    return fields


def _truncated(at: int) -> CanonicalError:
    return CanonicalError(CanonicalCode.TRUNCATED, f"the CBOR ends early: what starts at byte {at} is cut off")


def _not_canonical(what: str, at: int) -> CanonicalError:
    return CanonicalError(CanonicalCode.NOT_CANONICAL, f"{what} at byte {at}: only the canonical encoding is accepted")


def _decode_head(data: bytes, at: int) -> tuple[int, int, int]:
    """(major type, argument, where the content starts), shortest form required; floats never get here."""
    initial = data[at]
    major, info = initial >> 5, initial & 0x1F
    if info < 24:
        return major, info, at + 1
    if info > 27:
        if info == 31 and major in (_BYTES, _TEXT, _ARRAY, _MAP):
            raise _not_canonical("an indefinite length", at)
        raise CanonicalError(CanonicalCode.UNSUPPORTED, f"byte {at} (0x{initial:02x}) starts nothing that is read")
    size = 1 << (info - 24)
    end = at + 1 + size
    if end > len(data):
        raise _truncated(at)
    argument = int.from_bytes(data[at + 1 : end], "big")
    if argument < (24 if size == 1 else 1 << (4 * size)):
        raise _not_canonical("a length or integer that is not in its shortest form", at)
    return major, argument, end


def _decode(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if at >= len(data):
        raise _truncated(at)
    if data[at] >> 5 == _SIMPLE:
        return _decode_simple(data, at)
    major, argument, start = _decode_head(data, at)
    if major == _UINT:
        return argument, start
    if major == _NINT:
        return -1 - argument, start
    if major in (_BYTES, _TEXT):
        end = start + argument
        if end > len(data):
            raise _truncated(at)
        raw = bytes(data[start:end])
        if major == _BYTES:
            return raw, end
        try:
            return raw.decode("utf-8"), end
        except UnicodeDecodeError:
            raise CanonicalError(CanonicalCode.UNSUPPORTED, f"the text at byte {at} is not UTF-8") from None
    if major == _TAG:
        raise CanonicalError(CanonicalCode.UNSUPPORTED, f"a CBOR tag ({argument}) at byte {at}: none is accepted")
    if depth >= MAX_DEPTH:
        raise CanonicalError(CanonicalCode.TOO_DEEP, f"more than {MAX_DEPTH} containers within each other at byte {at}")
    if major == _ARRAY:
        return _decode_array(data, start, argument, depth)
    return _decode_map(data, start, argument, depth)


def _decode_array(data: bytes, at: int, count: int, depth: int) -> tuple[Value, int]:
    # An item takes at least one byte, so a count that the bytes cannot hold ends at the first one missing.
    items: list[Value] = []
    for _ in range(count):
        item, at = _decode(data, at, depth + 1)
        items.append(item)
    return items, at


def _decode_map(data: bytes, at: int, count: int, depth: int) -> tuple[Value, int]:
    entries: dict[Key, Value] = {}
    previous = b""
    for _ in range(count):
        start = at
        key, at = _decode(data, at, depth + 1)
        if isinstance(key, bool) or not isinstance(key, (str, int, bytes)):
            raise CanonicalError(
                CanonicalCode.UNSUPPORTED, f"a map's key at byte {start} is neither text, nor an integer, nor bytes"
            )
        encoded_key = bytes(data[start:at])
        if encoded_key <= previous:
            what = "a key that comes twice" if encoded_key == previous else "a key out of order"
            raise _not_canonical(what, start)
        previous = encoded_key
        entries[key], at = _decode(data, at, depth + 1)
    return entries, at


def _decode_simple(data: bytes, at: int) -> tuple[Value, int]:
    initial = data[at]
    if initial in (0xF4, 0xF5):
        return initial == 0xF5, at + 1
    if initial == 0xF6:
        return None, at + 1
    for float_initial, form in _FLOATS:
        if initial == float_initial:
            end = at + 1 + struct.calcsize(form)
            if end > len(data):
                raise _truncated(at)
            number: float = struct.unpack(form, data[at + 1 : end])[0]
            if not math.isfinite(number):
                raise CanonicalError(CanonicalCode.UNSUPPORTED, f"the float at byte {at} is not finite")
            if _encode_float(number) != data[at:end]:
                raise _not_canonical("a float that is not in its shortest form", at)
            return number, end
    raise CanonicalError(CanonicalCode.UNSUPPORTED, f"byte {at} (0x{initial:02x}) starts nothing that is read")
