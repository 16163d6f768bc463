"""Witness programs as text: bech32 for version 0 (BIP-173), bech32m for 1 to 16 (BIP-350).

May not: repair a mistyped address, or accept another spelling than the one true form (and its capitals).
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tea.protocol.errors import CallError, Code

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PLACE: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3
_CHECKSUM: Final = 6
MAX_TEXT: Final = 90
"""Characters of a bech32 text."""


def encode(prefix: str, version: int, program: bytes) -> str:
    """The address of a witness program of 2 to 40 bytes, version 0 to 16."""
    words = [version, *_regroup(program, 8, 5, pad=True)]
    target = _BECH32 if version == 0 else _BECH32M
    check = _polymod([*_expand(prefix), *words, *([0] * _CHECKSUM)]) ^ target
    words += [check >> 5 * (_CHECKSUM - 1 - at) & 31 for at in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_ALPHABET[word] for word in words)}"


def decode(address: str) -> tuple[str, int, bytes]:
    """(prefix, version, program) of an address. Raises INVALID."""
    if len(address) > MAX_TEXT or not address.isascii() or (address != address.lower() and address != address.upper()):
        raise _invalid(f"it has at most {MAX_TEXT} characters, all small or all capital")
    prefix, separator, data = address.lower().rpartition("1")
    if not separator or not prefix or len(data) <= _CHECKSUM or not all(sign in _PLACE for sign in data):
        raise _invalid("it is PREFIX, 1, and at least 7 characters of bech32's alphabet")
    words = [_PLACE[sign] for sign in data]
    version = words[0]
    if _polymod([*_expand(prefix), *words]) != (_BECH32 if version == 0 else _BECH32M):
        raise _invalid("its checksum is wrong: a character was mistyped")
    program = bytes(_regroup(words[1:-_CHECKSUM], 5, 8, pad=False))
    if version > 16 or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise _invalid("its witness program has no such version or size")
    return prefix, version, program


def _expand(prefix: str) -> list[int]:
    return [*(ord(sign) >> 5 for sign in prefix), 0, *(ord(sign) & 31 for sign in prefix)]


def _polymod(words: Iterable[int]) -> int:
    check = 1
    for word in words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for bit, part in enumerate(_GENERATOR):
            check ^= part if top >> bit & 1 else 0
    return check


def _regroup(data: Sequence[int], old: int, new: int, *, pad: bool) -> list[int]:
    """Bits in groups of `old` as groups of `new`. Padding that is not zero, or a whole group of it, is INVALID."""
    held, bits, groups = 0, 0, list[int]()
    for value in data:
        held, bits = held << old | value, bits + old
        while bits >= new:
            bits -= new
            groups.append(held >> bits & (1 << new) - 1)
        held &= (1 << bits) - 1
    if pad and bits:
        groups.append(held << new - bits)
    elif not pad and (bits >= old or held):
        raise _invalid("its last character holds bits of nothing")
    return groups


def _invalid(why: str) -> CallError:
    return CallError(Code.INVALID, f"this is no bech32 address: {why}")
