"""Transactions made inside: held against eth-account, and refused when malformed."""

from __future__ import annotations

import hashlib

import pytest
from coincurve import PrivateKey
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.layer1.evm import (
    MAX_DATA,
    EvmTransaction,
    encode_rlp,
    encode_signed,
    keccak256,
    transaction_digest,
)

SECRET = hashlib.sha256(b"a test key").digest()
PLAIN = EvmTransaction(1337, 0, b"\x22" * 20, 21_000, 10**9)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (b"", "80"),
        (b"\x00", "00"),
        (b"\x7f", "7f"),
        (b"\x80", "8180"),
        (b"dog", "83646f67"),
        (0, "80"),
        (15, "0f"),
        (1024, "820400"),
        ([], "c0"),
        ([b"cat", b"dog"], "c88363617483646f67"),
        ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
        (b"a" * 56, "b838" + "61" * 56),
        ([b"a" * 60], "f83eb83c" + "61" * 60),
    ],
)
def test_rlp_is_as_the_yellow_paper_says(item: bytes | int | list[bytes], encoded: str) -> None:
    assert encode_rlp(item).hex() == encoded


@given(
    nonce=st.integers(0, 2**32),
    to=st.binary(min_size=20, max_size=20),
    value=st.integers(0, 2**64 - 1) | st.binary(max_size=32),
    data=st.binary(max_size=300),
    fee=st.integers(1, 2**60),
    gas=st.integers(21_000, 2**40),
)
def test_signed_transactions_are_byte_for_byte_those_of_eth_account(
    nonce: int, to: bytes, value: int | bytes, data: bytes, fee: int, gas: int
) -> None:
    transaction = EvmTransaction(1337, nonce, to, gas, fee, fee // 2, value, data)
    signature = PrivateKey(SECRET).sign_recoverable(transaction_digest(transaction), hasher=None)
    raw = encode_signed(transaction, signature)
    reference = Account.from_key(SECRET).sign_transaction(
        {
            "type": 2,
            "chainId": 1337,
            "nonce": nonce,
            "to": to,
            "gas": gas,
            "maxFeePerGas": fee,
            "maxPriorityFeePerGas": fee // 2,
            "value": value if isinstance(value, int) else int.from_bytes(value, "big"),
            "data": data,
        }
    )
    assert raw == bytes(reference.raw_transaction)
    assert keccak256(raw) == bytes(reference.hash)


def test_a_transaction_that_creates_a_contract_has_no_recipient() -> None:
    creation = EvmTransaction(1, 0, b"", 100_000, 1, data=b"\x60\x00")
    raw = encode_signed(creation, PrivateKey(SECRET).sign_recoverable(transaction_digest(creation), hasher=None))
    assert Account.recover_transaction(raw) == Account.from_key(SECRET).address


def test_a_high_s_is_turned_low_and_the_sender_stays() -> None:
    signature = PrivateKey(SECRET).sign_recoverable(transaction_digest(PLAIN), hasher=None)
    s = int.from_bytes(signature[32:64], "big")
    high = signature[:32] + (ORDER - s).to_bytes(32, "big") + bytes([27 + (signature[64] ^ 1)])
    assert encode_signed(PLAIN, high) == encode_signed(PLAIN, signature)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x01" * 64,
        b"\x01" * 64 + b"\x02",
        b"\x01" * 64 + b"\x1d",
        bytes(32) + b"\x01" * 33,
        b"\x01" * 32 + bytes(33),
        ORDER.to_bytes(32, "big") + b"\x01" * 33,
        b"\x01" * 32 + ORDER.to_bytes(32, "big") + b"\x01",
    ],
)
def test_a_signature_that_is_none_is_refused(signature: bytes) -> None:
    with pytest.raises(CallError) as refused:
        encode_signed(PLAIN, signature)
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize(
    "transaction",
    [
        EvmTransaction(1, 0, b"\x22" * 19, 21_000, 1),
        EvmTransaction(1, -1, b"\x22" * 20, 21_000, 1),
        EvmTransaction(-1, 0, b"\x22" * 20, 21_000, 1),
        EvmTransaction(1, 0, b"\x22" * 20, -1, 1),
        EvmTransaction(1, 0, b"\x22" * 20, 21_000, 1, 2),
        EvmTransaction(1, 0, b"\x22" * 20, 21_000, 1, value=b"\x01" * 33),
        EvmTransaction(1, 0, b"\x22" * 20, 21_000, 1, data=bytes(MAX_DATA + 1)),
    ],
)
def test_a_malformed_transaction_is_refused(transaction: EvmTransaction) -> None:
    with pytest.raises(CallError) as refused:
        transaction_digest(transaction)
    assert refused.value.code is Code.INVALID
