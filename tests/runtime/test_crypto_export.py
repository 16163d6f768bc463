"""A key goes sealed from one enclave to another through real hosts: what the manifest grants, and nothing else.

The enclave exports to its own slot: the evidence, the policy and the seal are those of any other. What is refused is
held in tests/providers/test_crypto_moves.py. Rule: docs/secrets.md, "A key of the crypto provider".
"""

from __future__ import annotations

from typing import Any

import pytest

from tea.protocol.errors import CallError, Code
from tea.trust import pcr

Enclave = Any
PAYER = """
from tea.sdk import Actor, operation

class Payer(Actor):
    @operation
    def move(self, slot: str, exportable: bool) -> bool:
        crypto = self.crypto
        old = crypto.generate("secp256k1", exportable=exportable)
        nonce = crypto.random(32)
        evidence = self.nitro.attest(b"a key, please", nonce=nonce)
        sealed = crypto.export_sealed(old, evidence["document"], evidence["statement"], slot, nonce)
        new = crypto.import_sealed("secp256k1", sealed)
        made = crypto.substrate_extrinsic(new, {
            "call": b"\\0\\0", "nonce": 0, "spec_version": 1, "transaction_version": 1, "genesis_hash": bytes(32),
        })
        address = crypto.bitcoin_address(crypto.public_key(new))
        return new != old and address == crypto.bitcoin_address(crypto.public_key(old)) and len(made["hash"]) == 32
"""
OPERATIONS = {
    "crypto": (
        "generate", "random", "export_sealed", "import_sealed", "public_key", "bitcoin_address", "substrate_extrinsic"
    ),
    "nitro": ("attest",),
}  # fmt: skip
LINKS = "  - {from: parent, to: payer, operations: [move]}\n" + "\n".join(
    f"  - {{from: payer, to: {target}, operations: [{', '.join(names)}]}}" for target, names in OPERATIONS.items()
)


async def started(enclave: Enclave, export: str) -> None:
    enclave.bundle("payer", PAYER, "Payer", capabilities=OPERATIONS)
    place = pcr.pcr4(pcr.instance_of(enclave.start.module_id)).hex()
    await enclave.push(
        enclave.manifest(
            links=LINKS,
            providers=f"  crypto: {{{export}}}\n  nitro: {{}}",
            issuer_capabilities="crypto, nitro",
            extra=f"ra: {{members: {{e1: {{pcr4: '{place}'}}}}}}",
        )
    )


async def test_a_key_that_may_leave_arrives_and_works(enclave: Enclave) -> None:
    await started(enclave, "export: {payer: [e1]}")
    assert await enclave.call("payer", "move", "e1", True) is True
    assert await enclave.logged("exported a key")


@pytest.mark.parametrize(
    ("export", "slot", "exportable"),
    [("", "e1", True), ("export: {other: [e1]}", "e1", True), ("export: {payer: [e1]}", "e1", False)],
)
async def test_a_key_that_may_not_stays(enclave: Enclave, export: str, slot: str, exportable: bool) -> None:
    await started(enclave, export)
    with pytest.raises(CallError) as caught:
        await enclave.call("payer", "move", slot, exportable)
    assert caught.value.code is Code.DENIED
