"""Base58 (Bitcoin's alphabet), and base58check: a version and four bytes of double SHA-256 behind.

May not: accept a second spelling of the same bytes. Written in: Bitcoin's "Base58Check encoding".
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
from typing import Final

from tea.protocol.errors import CallError, Code

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PLACE: Final = {character: value for value, character in enumerate(_ALPHABET)}
_CHECKSUM: Final = 4


def encode(data: bytes) -> str:
    """The base58 text of bytes."""
    number = int.from_bytes(data)
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def decode(text: str) -> bytes:
    """The bytes of a base58 text; its time grows with the square of its length. Raises INVALID."""
    number = 0
    for character in text:
        if character not in _PLACE:
            raise CallError(Code.INVALID, "this is no base58 text")
        number = number * 58 + _PLACE[character]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def encode_checked(body: bytes) -> str:
    """The base58check text of a version and a payload."""
    return encode(body + _checksum(body))


def decode_checked(text: str) -> bytes:
    """The version and the payload of a base58check text. Raises INVALID."""
    raw = decode(text)
    if len(raw) <= _CHECKSUM or _checksum(raw[:-_CHECKSUM]) != raw[-_CHECKSUM:]:
        raise CallError(Code.INVALID, "the address's checksum is wrong: a character was mistyped")
    return raw[:-_CHECKSUM]


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(body).digest()).digest()[:_CHECKSUM]
