"""Writes bitcoin.json: a 2-of-3 p2wsh output spent, its address, script, digest, signatures and witness by embit.

In an environment of its own: pip install embit==0.8.0 && python tests/providers/crypto_vectors/generate_bitcoin.py

May not: be imported by a test, or use anything of this project. Rule: BIP-67, BIP-141, BIP-143.
"""

# mypy: ignore-errors
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from embit import ec, finalizer, script
from embit.networks import NETWORKS
from embit.psbt import PSBT
from embit.transaction import Transaction, TransactionInput, TransactionOutput

PRIVATE = [ec.PrivateKey(hashlib.sha256(b"tea %d" % number).digest()) for number in range(3)]
PUBLIC = [key.get_public_key() for key in PRIVATE]
SCRIPT = script.multisig(2, sorted(PUBLIC, key=lambda key: key.sec()))
OUTPUT = script.p2wsh(SCRIPT)
VALUE = 100_000


def spent(signers: list[int], sighash: int) -> dict:
    inputs = [TransactionInput(hashlib.sha256(b"previous").digest(), 0)]
    transaction = Transaction(vin=inputs, vout=[TransactionOutput(VALUE - 500, script.p2wpkh(PUBLIC[0]))])
    psbt = PSBT(transaction)
    psbt.inputs[0].witness_utxo = TransactionOutput(VALUE, OUTPUT)
    psbt.inputs[0].witness_script = SCRIPT
    digest = psbt.sighash(0, sighash)
    raw = {}
    for number in signers:
        signature = PRIVATE[number].sign(digest)
        psbt.inputs[0].partial_sigs[PUBLIC[number]] = signature.serialize() + bytes([sighash])
        compact = ec.secp256k1.ecdsa_signature_serialize_compact(signature._sig)
        raw[number] = compact.hex()
    final = finalizer.finalize_psbt(psbt)
    return {
        "sighash": sighash,
        "digest": digest.hex(),
        "signatures": [raw[number] for number in signers],
        "witness": [item.hex() for item in final.vin[0].witness.items],
    }


if __name__ == "__main__":
    made = {
        "SOURCE": "generate_bitcoin.py, with embit 0.8.0",
        "public_keys": [key.sec().hex() for key in PUBLIC],
        "threshold": 2,
        "script": SCRIPT.data.hex(),
        "addresses": {name: OUTPUT.address(NETWORKS[net]) for name, net in (("mainnet", "main"), ("testnet", "test"))},
        "p2sh": {
            name: script.p2sh(SCRIPT).address(NETWORKS[net]) for name, net in (("mainnet", "main"), ("testnet", "test"))
        },
        "p2pkh": {
            name: script.p2pkh(PUBLIC[0]).address(NETWORKS[net])
            for name, net in (("mainnet", "main"), ("testnet", "test"))
        },
        "p2pkh_uncompressed": {
            name: script.p2pkh(ec.PublicKey(PUBLIC[0]._point, compressed=False)).address(NETWORKS[net])
            for name, net in (("mainnet", "main"), ("testnet", "test"))
        },
        "uncompressed": ec.PublicKey(PUBLIC[0]._point, compressed=False).sec().hex(),
        "p2wpkh_testnet": script.p2wpkh(PUBLIC[0]).address(NETWORKS["test"]),
        "spent": [spent(signers, sighash) for signers, sighash in (([0, 1], 1), ([2, 0], 1), ([2, 1], 131))],
    }
    Path(__file__).with_name("bitcoin.json").write_text(json.dumps(made, indent=1) + "\n")
