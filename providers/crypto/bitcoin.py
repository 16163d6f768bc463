"""Bitcoin: addresses both ways, multi-signature scripts with their keys in order, and the witness that spends one.

May not: hold keys, or know transactions: what is signed comes as its digest. Written in: BIP-13, BIP-16 (p2sh), BIP-67
(order of keys), BIP-141 (witness programs), BIP-147 (the empty first item), BIP-173, BIP-350.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from Crypto.Hash import RIPEMD160
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tea.protocol.errors import CallError, Code

from . import base58, bech32
from .curves import secp256k1_point, verify_secp256k1
from .limits import require_exactly, unknown

MAX_KEYS: Final = 15
"""Keys of a multi-signature script: with 16 a p2sh script would be over its 520 bytes."""
MAX_SIGNATURES: Final = 2 * MAX_KEYS
SIGHASHES: Final = (1, 2, 3, 0x81, 0x82, 0x83)
_CHECKMULTISIG: Final = 0xAE
_SEGWIT: Final = {(0, 20): "p2wpkh", (0, 32): "p2wsh", (1, 32): "p2tr"}


class _Network(NamedTuple):
    p2pkh: int
    p2sh: int
    prefix: str


NETWORKS: Final[Mapping[str, _Network]] = {
    "mainnet": _Network(0x00, 0x05, "bc"),
    "testnet": _Network(0x6F, 0xC4, "tb"),
}


class BitcoinAddress(msgspec.Struct, frozen=True):
    """An address taken apart; `script` is the scriptPubKey that pays to it."""

    network: str
    kind: str
    version: int | None
    program: bytes
    script: bytes


class BitcoinMultisig(msgspec.Struct, frozen=True):
    """The address of several keys, and the script that its spender shows."""

    address: str
    script: bytes


def address_of(public_key: bytes, network: str, kind: str) -> str:
    """The p2wpkh or p2pkh address of a secp256k1 public key. Raises INVALID."""
    known = _network(network)
    secp256k1_point(public_key)
    if kind == "p2pkh":
        return base58.encode_checked(bytes([known.p2pkh]) + _hash160(public_key))
    if kind != "p2wpkh":
        raise unknown("kind of address of one key,", kind, ("p2wpkh", "p2pkh"))
    require_exactly(public_key, (33,), "the key of a p2wpkh address (compressed)")
    return bech32.encode(known.prefix, 0, _hash160(public_key))


def parse_address(address: str) -> BitcoinAddress:
    """An address of either network, checked whole. Raises INVALID."""
    for name, network in NETWORKS.items():
        if address[:3].lower() == f"{network.prefix}1":
            prefix, version, program = bech32.decode(address)
            if prefix != network.prefix:  # a 1 may stand in a prefix too: the last one ends it
                raise CallError(Code.INVALID, "this is no Bitcoin address: its prefix goes on behind its first 1")
            opcode = 0x50 + version if version else 0
            script = bytes([opcode, len(program)]) + program
            return BitcoinAddress(name, _SEGWIT.get((version, len(program)), "witness"), version, program, script)
    if len(address) > bech32.MAX_TEXT:
        raise CallError(Code.INVALID, f"a Bitcoin address has at most {bech32.MAX_TEXT} characters, not {len(address)}")
    body = base58.decode_checked(address)
    program = body[1:]
    for name, network in NETWORKS.items():
        if len(program) == 20 and body[0] == network.p2pkh:
            return BitcoinAddress(name, "p2pkh", None, program, b"\x76\xa9\x14" + program + b"\x88\xac")
        if len(program) == 20 and body[0] == network.p2sh:
            return BitcoinAddress(name, "p2sh", None, program, b"\xa9\x14" + program + b"\x87")
    raise CallError(Code.INVALID, f"this is no address of Bitcoin's {' or '.join(NETWORKS)}: its version is {body[0]}")


def multisig(public_keys: Sequence[bytes], threshold: int, network: str, kind: str) -> BitcoinMultisig:
    """The p2wsh or p2sh address of `threshold` of these keys, in any order. Raises INVALID."""
    known = _network(network)
    script = _script(_sorted(public_keys, threshold), threshold)
    if kind == "p2wsh":
        return BitcoinMultisig(bech32.encode(known.prefix, 0, hashlib.sha256(script).digest()), script)
    if kind == "p2sh":
        return BitcoinMultisig(base58.encode_checked(bytes([known.p2sh]) + _hash160(script)), script)
    raise unknown("kind of address of several keys,", kind, ("p2wsh", "p2sh"))


def witness(
    public_keys: Sequence[bytes], threshold: int, digest: bytes, signatures: Sequence[bytes], sighash: int
) -> list[bytes]:
    """The witness of a p2wsh output of `multisig`. Raises INVALID; UNTRUSTED unless enough keys signed."""
    keys = _sorted(public_keys, threshold)
    require_exactly(digest, (32,), "the digest")
    if sighash not in SIGHASHES:
        raise CallError(Code.INVALID, f"a signature hash type is one of {SIGHASHES}, not {sighash}")
    if len(signatures) > MAX_SIGNATURES:
        raise CallError(Code.INVALID, f"at most {MAX_SIGNATURES} signatures, not {len(signatures)}")
    signed: dict[bytes, bytes] = {}
    for number, signature in enumerate(signatures):
        require_exactly(signature, (64,), f"signature {number} (r || s)")
        signer = next((key for key in keys if verify_secp256k1(key, digest, signature, True)), None)
        if signer is None:
            raise CallError(Code.UNTRUSTED, f"signature {number} is of none of these keys over this digest")
        signed[signer] = signature
    if len(signed) < threshold:
        raise CallError(Code.UNTRUSTED, f"{len(signed)} of the keys signed, and {threshold} must")
    chosen = [signed[key] for key in keys if key in signed][:threshold]
    return [b"", *(_der(signature) + bytes([sighash]) for signature in chosen), _script(keys, threshold)]


def _sorted(public_keys: Sequence[bytes], threshold: int) -> list[bytes]:
    if not 1 <= len(public_keys) <= MAX_KEYS:
        raise CallError(Code.INVALID, f"1 to {MAX_KEYS} keys sign together, not {len(public_keys)}")
    for key in public_keys:
        require_exactly(key, (33,), "a key that signs with others (compressed)")
        secp256k1_point(key)
    if len(set(public_keys)) != len(public_keys):
        raise CallError(Code.INVALID, "a key is there twice")
    if not 1 <= threshold <= len(public_keys):
        raise CallError(Code.INVALID, f"the threshold is 1 to {len(public_keys)}, not {threshold}")
    return sorted(public_keys)


def _script(keys: Sequence[bytes], threshold: int) -> bytes:
    pushed = b"".join(bytes([len(key)]) + key for key in keys)
    return bytes([0x50 + threshold]) + pushed + bytes([0x50 + len(keys), _CHECKMULTISIG])


def _der(signature: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


def _hash160(data: bytes) -> bytes:
    return RIPEMD160.new(hashlib.sha256(data).digest()).digest()


def _network(name: str) -> _Network:
    if name not in NETWORKS:
        raise unknown("Bitcoin network", name, tuple(NETWORKS))
    return NETWORKS[name]
