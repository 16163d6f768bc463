"""Which part of an EVM chain's state is watched, and how it is named and encoded for the cache.

May not: do I/O. The same for every enclave of a deployment, or their states can't agree.
Rules: Solidity's "Layout of State Variables in Storage"; Vyper's `storage_layout` (the reverse order of hashing).

    account/0x<address>                 balance in wei (32 bytes) | nonce (8 bytes), big-endian
    storage/0x<contract>/0x<slot>       the slot's 32 bytes; absent when they are zero, as the EVM has it
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from Crypto.Hash import keccak

Address = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{40}$")]
TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256("Transfer(address,address,uint256)"), the event of ERC-20."""


class MappingWatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping from addresses in a contract's storage, such as a token's balances.

    Its keys are the addresses in the contract's Transfer events.
    """

    contract: Address
    slot: Annotated[int, msgspec.Meta(ge=0)]
    layout: Literal["solidity", "vyper"] = "solidity"
    keys_from: Literal["transfer-events"] = "transfer-events"


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is watched, from a first height on.

    `touched` accounts are those in a block's transactions (from, to), its miner and its withdrawals; listed accounts
    are read at every block, so that internal calls show too.
    """

    accounts: Literal["touched"] | tuple[Address, ...] = "touched"
    mappings: tuple[MappingWatch, ...] = ()
    start: Annotated[int, msgspec.Meta(ge=0)] = 0


def mapping_slot(watch: MappingWatch, address: bytes) -> bytes:
    """The storage slot (32 bytes) of an address's entry in a mapping."""
    key = address.rjust(32, b"\x00")
    place = watch.slot.to_bytes(32, "big")
    preimage = place + key if watch.layout == "vyper" else key + place
    return keccak.new(digest_bits=256, data=preimage).digest()


def account_key(address: bytes) -> bytes:
    """The cache's key of an account (20-byte address)."""
    return b"account/0x" + address.hex().encode()


def account_value(balance: int, nonce: int) -> bytes:
    """The cache's value of an account: 40 bytes. Raises `OverflowError` for what no chain has."""
    return balance.to_bytes(32, "big") + nonce.to_bytes(8, "big")


def storage_key(contract: str, slot: bytes) -> bytes:
    """The cache's key of a storage slot."""
    return f"storage/{contract.lower()}/0x{slot.hex()}".encode()


def storage_value(word: bytes) -> bytes | None:
    """The cache's value of a slot: 32 bytes, None for zero."""
    padded = word.rjust(32, b"\x00")
    return padded if any(padded) else None
