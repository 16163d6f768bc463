"""EVM transactions made inside the enclave: RLP, the digest to sign, the signed bytes, their hash.

May not: hold keys (the crypto provider signs) or do I/O. Rules: EIP-1559 (type 2), EIP-2718, EIP-2 (low s),
Ethereum Yellow Paper appendix B (RLP).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from Crypto.Hash import keccak

from tea.protocol.errors import CallError, Code

MAX_DATA: Final = 128 * 1024
"""Bytes of a transaction's data; nodes refuse larger transactions (geth's txMaxSize)."""
_TYPE: Final = b"\x02"
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_WORD: Final = 1 << 256

RlpItem = bytes | int | Sequence["RlpItem"]


class EvmTransaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fee-market transaction (EIP-1559) without access list. Wei amounts are ints, or big-endian bytes above 2**64.

    `to` has 20 bytes, or none to create a contract.
    """

    chain_id: int
    nonce: int
    to: bytes
    gas: int
    max_fee_per_gas: int | bytes
    max_priority_fee_per_gas: int | bytes = 0
    value: int | bytes = 0
    data: bytes = b""


def keccak256(data: bytes) -> bytes:
    """Keccak-256 (the original padding, not SHA3-256), 32 bytes."""
    return keccak.new(digest_bits=256, data=data).digest()


def encode_rlp(item: RlpItem) -> bytes:
    """RLP of bytes, non-negative integers (big-endian without leading zeros) and sequences of these."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _length(len(item), 0x80) + item
    body = b"".join(encode_rlp(part) for part in item)
    return _length(len(body), 0xC0) + body


def _length(size: int, offset: int) -> bytes:
    if size < 56:
        return bytes((offset + size,))
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((offset + 55 + len(digits),)) + digits


def transaction_digest(transaction: EvmTransaction) -> bytes:
    """The 32 bytes that the sender signs with secp256k1. Raises `CallError(INVALID)`."""
    return keccak256(_TYPE + encode_rlp(_fields(transaction)))


def encode_signed(transaction: EvmTransaction, signature: bytes) -> bytes:
    """The raw transaction to broadcast; the signature is r (32) ‖ s (32) ‖ recovery id (1: 0, 1, 27 or 28).

    A high s is turned into the low one that chains demand (EIP-2). Raises `CallError(INVALID)`.
    """
    if len(signature) != 65 or signature[64] not in (0, 1, 27, 28):
        raise CallError(Code.INVALID, "a signature is 65 bytes: r, s and the recovery id 0 or 1 (or 27, 28)")
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:64], "big")
    parity = signature[64] % 27
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise CallError(Code.INVALID, "the signature's r or s is outside of the curve's order")
    if s > _ORDER // 2:
        s, parity = _ORDER - s, parity ^ 1
    return _TYPE + encode_rlp([*_fields(transaction), parity, r, s])


def _fields(transaction: EvmTransaction) -> list[RlpItem]:
    if len(transaction.to) not in (0, 20):
        raise CallError(Code.INVALID, f"`to` has 20 bytes, or 0 to create a contract; this one {len(transaction.to)}")
    if len(transaction.data) > MAX_DATA:
        raise CallError(Code.INVALID, f"a transaction's data has at most {MAX_DATA} bytes, not {len(transaction.data)}")
    fee = _amount("max_fee_per_gas", transaction.max_fee_per_gas)
    tip = _amount("max_priority_fee_per_gas", transaction.max_priority_fee_per_gas)
    if tip > fee:
        raise CallError(Code.INVALID, f"max_priority_fee_per_gas {tip} is over max_fee_per_gas {fee}")
    return [
        _amount("chain_id", transaction.chain_id),
        _amount("nonce", transaction.nonce),
        tip,
        fee,
        _amount("gas", transaction.gas),
        transaction.to,
        _amount("value", transaction.value),
        transaction.data,
        [],
    ]


def _amount(name: str, value: int | bytes) -> int:
    number = value if isinstance(value, int) else int.from_bytes(value, "big")
    if not 0 <= number < _WORD:
        raise CallError(Code.INVALID, f"{name} is a number from 0 to 2**256 - 1")
    return number
