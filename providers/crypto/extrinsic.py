"""Signed extrinsics of Substrate chains, format 4: what is signed, who signed, and the bytes that a node takes.

May not: know a chain's calls: they come encoded. Written in: Substrate's "Transaction format";
`sp_runtime::generic::{UncheckedExtrinsic, SignedPayload}`; extensions CheckSpecVersion, CheckTxVersion, CheckGenesis,
CheckMortality, CheckNonce, ChargeTransactionPayment, in this order. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from tea.protocol.errors import CallError, Code

from .curves import Secp256k1Key
from .keys import SigningKey
from .limits import MAX_CONTEXT, MAX_DATA, require_exactly, require_size
from .scale import IMMORTAL, MAX_COMPACT, compact, mortal_era, u32
from .symmetric import hash_of

_SIGNED_V4: Final = b"\x84"
_ID: Final = b"\0"
"""MultiAddress::Id."""
_HASHED_OVER: Final = 256
"""Bytes over which the payload's BLAKE2b-256 is signed in its place."""
_MULTI_SIGNATURE: Final = {"ed25519": b"\0", "sr25519": b"\1", "secp256k1": b"\2"}
_U32: Final = (1 << 32) - 1


class SubstrateTransaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call and everything else that is signed with it."""

    call: bytes
    """The encoded call: pallet, function, arguments."""
    nonce: int
    """How many transactions the account has sent, 0 to 2**32 - 1."""
    spec_version: int
    transaction_version: int
    genesis_hash: bytes
    tip: int = 0
    """In the chain's smallest unit, 0 to 2**128 - 1."""
    period: int | None = None
    """Blocks for which it is valid; None: for good."""
    block: int = 0
    """Number of the block with which the period begins."""
    block_hash: bytes | None = None
    """Hash of that block."""
    extra: bytes = b""
    """Encoded extensions behind the tip, at most 4 KiB: part of the extrinsic, and signed."""
    additional: bytes = b""
    """What those extensions sign and do not send, at most 4 KiB."""


class SignedExtrinsic(msgspec.Struct, frozen=True):
    """An extrinsic as a node takes it, its length in front, and the hash by which it is found."""

    extrinsic: bytes
    hash: bytes


class _Extensions(NamedTuple):
    sent: bytes
    implied: bytes


def sign_extrinsic(key: SigningKey, transaction: SubstrateTransaction) -> SignedExtrinsic:
    """Sign with an ed25519, sr25519 or secp256k1 key. Raises INVALID."""
    kind = _MULTI_SIGNATURE.get(key.algorithm)
    if kind is None:
        raise CallError(Code.INVALID, f"a key of {key.algorithm} signs no extrinsic", algorithm=key.algorithm)
    extensions = _extensions(transaction)
    payload = transaction.call + extensions.sent + extensions.implied
    blake = hash_of("blake2b-256")
    if len(payload) > _HASHED_OVER:
        payload = blake(payload)
    public = key.public("native")
    if isinstance(key, Secp256k1Key):
        account, signature = blake(public), key.sign_recoverable(blake(payload))
    else:
        account, signature = public, key.sign(payload, False)
    body = _SIGNED_V4 + _ID + account + kind + signature + extensions.sent + transaction.call
    extrinsic = compact(len(body)) + body
    return SignedExtrinsic(extrinsic, blake(extrinsic))


def _extensions(transaction: SubstrateTransaction) -> _Extensions:
    require_size(transaction.call, MAX_DATA, "a call")
    require_size(transaction.extra, MAX_CONTEXT, "extra")
    require_size(transaction.additional, MAX_CONTEXT, "additional")
    require_exactly(transaction.genesis_hash, (32,), "a genesis hash")
    if len(transaction.call) < 2:
        raise CallError(Code.INVALID, "a call has at least the two bytes of its pallet and function")
    for name, number, most in (
        ("nonce", transaction.nonce, _U32),
        ("spec_version", transaction.spec_version, _U32),
        ("transaction_version", transaction.transaction_version, _U32),
        ("block", transaction.block, (1 << 64) - 1),
        ("tip", transaction.tip, MAX_COMPACT),
    ):
        if not 0 <= number <= most:
            raise CallError(Code.INVALID, f"{name} is 0 to {most}, not {number}")
    if transaction.period is None:
        if transaction.block_hash not in (None, transaction.genesis_hash):
            raise CallError(Code.INVALID, "a block_hash goes with a period: what is valid for good has none")
        era, since = IMMORTAL, transaction.genesis_hash
    else:
        if transaction.block_hash is None:
            raise CallError(Code.INVALID, "a period needs the block_hash of the block with which it begins")
        require_exactly(transaction.block_hash, (32,), "a block hash")
        era, since = mortal_era(transaction.period, transaction.block), transaction.block_hash
    sent = era + compact(transaction.nonce) + compact(transaction.tip) + transaction.extra
    implied = u32(transaction.spec_version) + u32(transaction.transaction_version)
    implied += transaction.genesis_hash + since + transaction.additional
    return _Extensions(sent, implied)
