"""Signed extrinsics are, byte for byte, what other implementations of Substrate's formats make.

The vectors are in crypto_vectors/, beside the program that wrote them. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.crypto import SubstrateTransaction
from tea.providers.crypto.algorithms import VERIFIERS, key_from_secret
from tea.providers.crypto.extrinsic import sign_extrinsic
from tea.providers.crypto.keys import SigningKey
from tea.providers.crypto.scale import MAX_COMPACT, compact, mortal_era

MADE: dict[str, Any] = json.loads((Path(__file__).parent / "crypto_vectors" / "extrinsics.json").read_text())
TRANSACTION = SubstrateTransaction(call=b"\0\0", nonce=0, spec_version=1, transaction_version=1, genesis_hash=bytes(32))


def key(algorithm: str) -> SigningKey:
    made = key_from_secret(algorithm, bytes.fromhex(MADE["seed"]))
    assert isinstance(made, SigningKey)
    return made


def transaction(vector: dict[str, Any]) -> SubstrateTransaction:
    call = vector["call"]
    if isinstance(call, list):  # [head, repeated byte, how often]
        call = call[0] + call[1] * call[2]
    return SubstrateTransaction(
        call=bytes.fromhex(call),
        nonce=vector["nonce"],
        tip=vector.get("tip", 0),
        period=vector.get("period"),
        block=vector.get("block", 0),
        block_hash=bytes.fromhex(MADE["block"]) if "period" in vector else None,
        extra=bytes.fromhex(vector.get("extra", "")),
        additional=bytes.fromhex(vector.get("additional", "")),
        spec_version=MADE["spec_version"],
        transaction_version=MADE["transaction_version"],
        genesis_hash=bytes.fromhex(MADE["genesis"]),
    )


@pytest.mark.parametrize("vector", MADE["vectors"], ids=lambda one: f"{one['algorithm']}-{one['nonce']}")
def test_an_extrinsic_is_another_implementation_s(vector: dict[str, Any]) -> None:
    signer = key(vector["algorithm"])
    made = sign_extrinsic(signer, transaction(vector))
    assert made.hash == hashlib.blake2b(made.extrinsic, digest_size=32).digest()
    if vector["algorithm"] == "sr25519":  # its signatures are random
        before = bytes.fromhex(vector["before"])
        signature, after = made.extrinsic[len(before) : len(before) + 64], made.extrinsic[len(before) + 64 :]
        assert made.extrinsic.startswith(before)
        assert hashlib.sha256(after).hexdigest() == vector["after_sha256"]
        assert VERIFIERS["sr25519"](signer.public("native"), bytes.fromhex(vector["payload"]), signature, False)
    elif "extrinsic" in vector:
        assert (made.extrinsic.hex(), made.hash.hex()) == (vector["extrinsic"], vector["hash"])
    else:
        assert hashlib.sha256(made.extrinsic).hexdigest() == vector["extrinsic_sha256"]
        assert made.hash.hex() == vector["hash"]


@pytest.mark.parametrize(
    "changes",
    [
        {"call": b"\0"},
        {"call": bytes(768 * 1024 + 1)},
        {"nonce": -1},
        {"nonce": 1 << 32},
        {"tip": -1},
        {"tip": 1 << 128},
        {"spec_version": 1 << 32},
        {"transaction_version": -1},
        {"genesis_hash": bytes(31)},
        {"block_hash": b"\1" * 32},
        {"period": 64},
        {"period": 64, "block_hash": bytes(31)},
        {"period": 63, "block_hash": bytes(32)},
        {"period": 2, "block_hash": bytes(32)},
        {"period": 1 << 17, "block_hash": bytes(32)},
        {"period": 0, "block_hash": bytes(32)},
        {"period": 64, "block": -1, "block_hash": bytes(32)},
        {"period": 1 << 16, "block": 15, "block_hash": bytes(32)},
        {"extra": bytes(4097)},
        {"additional": bytes(4097)},
    ],
)
def test_a_transaction_that_makes_no_sense_is_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(CallError) as caught:
        sign_extrinsic(key("ed25519"), msgspec.structs.replace(TRANSACTION, **changes))
    assert caught.value.code is Code.INVALID


def test_the_block_of_an_era_that_would_do_is_named() -> None:
    with pytest.raises(CallError, match="at 16"):
        mortal_era(1 << 16, 31)


@pytest.mark.parametrize("algorithm", ["p-256", "p-384"])
def test_a_key_that_no_chain_knows_signs_no_extrinsic(algorithm: str) -> None:
    made = key_from_secret(algorithm, bytes([1]) * (48 if algorithm == "p-384" else 32))
    assert isinstance(made, SigningKey)
    with pytest.raises(CallError) as caught:
        sign_extrinsic(made, TRANSACTION)
    assert caught.value.code is Code.INVALID


def _read_compact(data: bytes) -> int:
    # As the text of SCALE says it, from the other side.
    mode = data[0] & 3
    if mode < 3:
        size = (1, 2, 4)[mode]
        assert len(data) == size
        return int.from_bytes(data, "little") >> 2
    assert len(data) == 5 + (data[0] >> 2)
    assert data[-1] != 0
    return int.from_bytes(data[1:], "little")


@given(st.one_of(st.integers(0, MAX_COMPACT), st.integers(0, 1 << 17), st.sampled_from([1 << 30, (1 << 30) - 1])))
def test_a_compact_integer_reads_back_and_is_the_shortest(number: int) -> None:
    written = compact(number)
    assert _read_compact(written) == number
    shortest = 1 if number < 64 else 2 if number < 1 << 14 else 4 if number < 1 << 30 else max(5, 0)
    assert len(written) >= shortest
    assert number >= 1 << 30 or len(written) == shortest


@given(st.integers(2, 16), st.integers(0, (1 << 32) - 1))
def test_an_era_reads_back_as_its_period_and_first_block(power: int, block: int) -> None:
    period = 1 << power
    step = max(1, period >> 12)
    block -= block % step
    encoded = int.from_bytes(mortal_era(period, block), "little")
    assert 2 << (encoded % 16) == period
    phase = (encoded >> 4) * step
    assert (max(block, phase) - phase) // period * period + phase == block
    assert encoded & 0xFF  # the first byte is never the immortal era's
