"""crypto's operations on addresses of chains, and on what several keys sign together.

May not: use a key: these are functions of public bytes. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tea.protocol.operations import operation

from ..base import MANY, Call
from . import addresses, bitcoin
from .bitcoin import BitcoinAddress, BitcoinMultisig
from .keystore import KeyStore


class Ss58Address(msgspec.Struct, frozen=True):
    """An SS58 address taken apart: the network's prefix (0 to 16,383) and the account, 32 or 33 bytes."""

    prefix: int
    account: bytes


class AddressOperations(KeyStore):
    """SS58, EVM and Bitcoin addresses; multi-signature addresses and witnesses."""

    @operation
    async def ss58_encode(self, call: Call, account: bytes, prefix: int = 42) -> str:
        """The SS58 address of an account id (32 bytes) or ECDSA key (33) under a network's prefix (0 to 16,383)."""
        return addresses.encode_ss58(account, prefix)

    @operation
    async def ss58_decode(self, call: Call, address: str) -> Ss58Address:
        """An SS58 address taken apart: {prefix, account}. Raises INVALID on a wrong checksum or form."""
        return Ss58Address(*addresses.decode_ss58(address))

    @operation
    async def evm_address(self, call: Call, public_key: bytes) -> str:
        """The EVM address (0x and 40 digits, EIP-55) of a secp256k1 public key (33 or 65 bytes)."""
        return addresses.evm_address(public_key)

    @operation
    async def multisig_address(
        self, call: Call, signatories: Annotated[list[bytes], MANY], threshold: int, prefix: int = 42
    ) -> str:
        """The SS58 address of Substrate's multi-signature account, `threshold` of 2 to 100 account ids in any order."""
        return addresses.encode_ss58(addresses.multisig_account(signatories, threshold), prefix)

    @operation
    async def bitcoin_address(
        self, call: Call, public_key: bytes, network: str = "mainnet", kind: str = "p2wpkh"
    ) -> str:
        """The Bitcoin address of a secp256k1 public key: `p2wpkh` (bech32) or `p2pkh` (base58check).

        `network` is mainnet or testnet. p2wpkh takes the compressed key (33 bytes) alone, p2pkh also the other (65),
        which has another address. Raises INVALID.
        """
        return bitcoin.address_of(public_key, network, kind)

    @operation
    async def bitcoin_decode(self, call: Call, address: str) -> BitcoinAddress:
        """A Bitcoin address checked and taken apart: {network, kind, version, program, script}.

        `kind` is p2pkh, p2sh, p2wpkh, p2wsh, p2tr or witness (a later version), `version` that of the witness program
        (None for the first two), `program` the hash or key (2 to 40 bytes), `script` the scriptPubKey that pays to it.
        Raises INVALID on a wrong checksum or form, and on other chains' addresses.
        """
        return bitcoin.parse_address(address)

    @operation
    async def bitcoin_multisig(
        self,
        call: Call,
        public_keys: Annotated[list[bytes], MANY],
        threshold: int,
        network: str = "mainnet",
        kind: str = "p2wsh",
    ) -> BitcoinMultisig:
        """The address of `threshold` of 1 to 15 compressed secp256k1 keys in any order: {address, script}.

        `kind` is p2wsh (bech32) or p2sh (base58check). The keys stand in the script in byte order (BIP-67). Raises
        INVALID, also for a key that is there twice.
        """
        return bitcoin.multisig(public_keys, threshold, network, kind)

    @operation
    async def bitcoin_witness(
        self,
        call: Call,
        public_keys: Annotated[list[bytes], MANY],
        threshold: int,
        digest: bytes,
        signatures: Annotated[list[bytes], MANY],
        sighash: int = 1,
    ) -> list[bytes]:
        """The witness that spends a p2wsh output of `bitcoin_multisig`: empty, DER signatures in key order, the script.

        `digest` is the input's signature hash (BIP-143, 32 bytes), `signatures` what `sign` gave over it with
        `hashed` (r||s), in any order; `sighash` is the type that goes behind each: 1, 2, 3, 129, 130 or 131. The first
        `threshold` keys that signed are used. Raises UNTRUSTED when fewer signed, or a signature is of none of the
        keys; INVALID.
        """
        return await self._run(
            len(public_keys) * len(signatures) > 16,
            bitcoin.witness,
            public_keys,
            threshold,
            digest,
            signatures,
            sighash,
        )
