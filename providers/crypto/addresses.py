"""Addresses of chains: SS58 (Substrate), Substrate's multi-signature accounts, EVM with EIP-55's checksum.

May not: hold keys; these are functions of public bytes. Written in: Substrate's SS58 registry text (docs.substrate.io),
pallet-multisig `multi_account_id`, EIP-55. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from tea.protocol.errors import CallError, Code

from . import base58
from .curves import secp256k1_point
from .limits import require_exactly
from .scale import compact
from .symmetric import hash_of

_MAX_PREFIX: Final = 16383
_RESERVED: Final = (46, 47)
_CHECKSUM: Final = 2
MAX_ADDRESS: Final = 64
"""Characters of an SS58 address that are looked at; a genuine one has at most 50."""
MAX_SIGNATORIES: Final = 100


def encode_ss58(account: bytes, prefix: int) -> str:
    """The SS58 text of an account id (32 bytes) or an ECDSA public key (33) under a network's prefix."""
    require_exactly(account, (32, 33), "an account")
    if not 0 <= prefix <= _MAX_PREFIX or prefix in _RESERVED:
        raise CallError(Code.INVALID, f"an SS58 prefix is 0 to {_MAX_PREFIX}, without 46 and 47, not {prefix}")
    head = bytes([prefix]) if prefix < 64 else _two_bytes(prefix)
    body = head + account
    return base58.encode(body + _ss58_checksum(body))


def decode_ss58(address: str) -> tuple[int, bytes]:
    """(prefix, account of 32 or 33 bytes) of an SS58 text. Raises INVALID on anything but its one true form."""
    if len(address) > MAX_ADDRESS:
        raise CallError(Code.INVALID, f"an SS58 address has at most 50 characters, not {len(address)}")
    raw = base58.decode(address)
    if raw and raw[0] < 64:
        prefix, size = raw[0], 1
    elif len(raw) > 1 and raw[0] < 128:
        prefix, size = (raw[0] & 0b0011_1111) << 2 | raw[1] >> 6 | (raw[1] & 0b0011_1111) << 8, 2
        if prefix < 64:
            raise CallError(Code.INVALID, "the SS58 prefix is written in two bytes though one would do")
    else:
        raise CallError(Code.INVALID, "this is no SS58 address: its prefix is reserved or missing")
    body, checksum = raw[:-_CHECKSUM], raw[-_CHECKSUM:]
    if prefix in _RESERVED or len(body) - size not in (32, 33):
        raise CallError(Code.INVALID, "this is no SS58 address of an account of 32 or 33 bytes")
    if checksum != _ss58_checksum(body):
        raise CallError(Code.INVALID, "the SS58 address's checksum is wrong: a character was mistyped")
    return prefix, body[size:]


def multisig_account(signatories: Sequence[bytes], threshold: int) -> bytes:
    """The account id (32 bytes) of `threshold` of 2 to 100 distinct account ids (32 bytes each), in any order."""
    if not 2 <= len(signatories) <= MAX_SIGNATORIES:
        raise CallError(Code.INVALID, f"2 to {MAX_SIGNATORIES} signatories, not {len(signatories)}")
    for signatory in signatories:
        require_exactly(signatory, (32,), "a signatory's account")
    if len(set(signatories)) != len(signatories):
        raise CallError(Code.INVALID, "a signatory is there twice")
    if not 1 <= threshold <= len(signatories):
        raise CallError(Code.INVALID, f"the threshold is 1 to {len(signatories)}, not {threshold}")
    encoded = (
        b"modlpy/utilisuba"
        + compact(len(signatories))
        + b"".join(sorted(signatories))
        + threshold.to_bytes(2, "little")
    )
    return hash_of("blake2b-256")(encoded)


def evm_address(public_key: bytes) -> str:
    """The EVM address, with EIP-55's checksum, of a secp256k1 public key (33 or 65 bytes)."""
    point = secp256k1_point(public_key).format(compressed=False)
    keccak = hash_of("keccak-256")
    plain = keccak(point[1:])[-20:].hex()
    case = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if int(nibble, 16) >= 8 else c for c, nibble in zip(plain, case, strict=False))


def _two_bytes(prefix: int) -> bytes:
    # 14 bits: 01 and the bits 2 to 7, then the bits 0 and 1, and 8 to 13.
    return bytes([(prefix & 0b1111_1100) >> 2 | 0b0100_0000, prefix >> 8 | (prefix & 0b11) << 6])


def _ss58_checksum(body: bytes) -> bytes:
    return hashlib.blake2b(b"SS58PRE" + body).digest()[:_CHECKSUM]
