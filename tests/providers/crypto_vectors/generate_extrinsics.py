"""Writes extrinsics.json: extrinsics signed and encoded by implementations that are not this project's.

In an environment of its own:
    pip install substrate-interface==1.8.1 && python tests/providers/crypto_vectors/generate_extrinsics.py
Encodings are scalecodec's, Ed25519 and sr25519 signatures substrate-interface's, ECDSA's eth-keys' (in Python).

May not: be imported by a test, or use anything of this project. Rule: Substrate, "Transaction format", "SCALE codec".
"""

# mypy: ignore-errors
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from eth_keys import keys
from eth_keys.backends import NativeECCBackend
from scalecodec.base import RuntimeConfigurationObject
from scalecodec.type_registry import load_type_registry_preset
from substrateinterface import Keypair, KeypairType

SCALE = RuntimeConfigurationObject()
SCALE.update_type_registry(load_type_registry_preset("legacy"))
SEED = bytes(range(1, 33))
GENESIS, BLOCK = hashlib.sha256(b"genesis").digest(), hashlib.sha256(b"block").digest()


def encode(kind: str, value: object) -> bytes:
    return bytes(SCALE.create_scale_object(kind).encode(value).data)


def blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def signed(algorithm: str, payload: bytes) -> tuple[bytes, dict[str, str]]:
    """(account, MultiSignature)."""
    if algorithm == "secp256k1":
        key = keys.PrivateKey(SEED, backend=NativeECCBackend())
        signature = key.sign_msg_hash(blake(payload)).to_bytes()
        return blake(key.public_key.to_compressed_bytes()), {"Ecdsa": "0x" + signature.hex()}
    kind = KeypairType.ED25519 if algorithm == "ed25519" else KeypairType.SR25519
    pair = Keypair.create_from_seed(SEED.hex(), crypto_type=kind)
    name = "Ed25519" if algorithm == "ed25519" else "Sr25519"
    return pair.public_key, {name: "0x" + pair.sign(payload).hex()}


CASES = [
    {"call": "0000" + "aa" * 5, "nonce": 0},
    {"call": "0503" + "01" * 40, "nonce": 63, "tip": 64},
    {"call": "0503" + "01" * 40, "nonce": 64, "tip": 10**12, "period": 64, "block": 1_234_567},
    {"call": "0503" + "02" * 150, "nonce": 16383, "tip": 1 << 30, "period": 4096, "block": 77},
    {"call": "0503" + "03" * 200, "nonce": 16384, "tip": (1 << 128) - 1, "period": 65536, "block": 160_000},
    {"call": "1f00" + "04" * 20_000, "nonce": (1 << 30) - 1, "period": 4, "block": 3},
    {"call": "0503" + "05" * 33, "nonce": (1 << 32) - 1, "extra": "00", "additional": "00"},
]


def vector(algorithm: str, case: dict) -> dict:
    call = bytes.fromhex(case["call"])
    mortal = "period" in case
    era = encode("Era", {"period": case["period"], "current": case["block"]} if mortal else "00")
    sent = era + encode("Compact<Index>", case["nonce"]) + encode("Compact<Balance>", case.get("tip", 0))
    sent += bytes.fromhex(case.get("extra", ""))
    implied = encode("u32", 9430) + encode("u32", 24) + GENESIS + (BLOCK if mortal else GENESIS)
    payload = call + sent + implied + bytes.fromhex(case.get("additional", ""))
    signed_bytes = blake(payload) if len(payload) > 256 else payload
    account, signature = signed(algorithm, signed_bytes)
    body = b"\x84" + encode("MultiAddress", {"Id": "0x" + account.hex()}) + encode("MultiSignature", signature)
    body += sent + call
    whole = encode("Compact<u32>", len(body)) + body
    assert not mortal or SCALE.create_scale_object("Era").encode({"period": case["period"], "current": case["block"]})
    out = {"algorithm": algorithm, **case, "account": account.hex(), "payload": signed_bytes.hex()}
    if len(call) > 1000:
        out["call"] = [case["call"][:4], case["call"][4:6], len(call) - 2]
    if algorithm == "sr25519":  # its signatures are random: what stands around one
        at = whole.index(bytes.fromhex(signature["Sr25519"][2:]))
        out |= {"before": whole[:at].hex(), "after_sha256": hashlib.sha256(whole[at + 64 :]).hexdigest()}
    elif len(whole) > 1000:
        out |= {"extrinsic_sha256": hashlib.sha256(whole).hexdigest(), "hash": blake(whole).hex()}
    else:
        out |= {"extrinsic": whole.hex(), "hash": blake(whole).hex()}
    return out


if __name__ == "__main__":
    made = {
        "SOURCE": "generate_extrinsics.py, with scalecodec 1.2.12, substrate-interface 1.8.1, eth-keys 0.8.0",
        "seed": SEED.hex(),
        "genesis": GENESIS.hex(),
        "block": BLOCK.hex(),
        "spec_version": 9430,
        "transaction_version": 24,
        "vectors": [vector(one, case) for one in ("ed25519", "sr25519", "secp256k1") for case in CASES],
    }
    Path(__file__).with_name("extrinsics.json").write_text(json.dumps(made, indent=1) + "\n")
