"""Every algorithm gives what its standard's vectors say, through the operations that actors call.

The vectors and where they were published are in test_crypto_vectors.json (`SOURCES`). Secret keys get in as the NSM's
random, for there is no other way in. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call, Services
from tea.providers.crypto import Crypto, CryptoConfig, Ss58Address, curves, exchange, shamir, symmetric

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
CALL = Call(caller="alice")
ORDERS = {name: curve.order for name, curve in curves.CURVES.items()} | {"secp256k1": curves.SECP256K1_ORDER}


def h(text: str) -> bytes:
    return bytes.fromhex(text)


async def crypto_with(random: bytes) -> Crypto:
    """A provider whose NSM's next random bytes are known."""
    left = bytearray(random)

    def draw(size: int) -> bytes:
        assert size <= len(left)
        drawn = bytes(left[:size])
        del left[:size]
        return drawn

    async def run_in_thread(function: Callable[..., object], *args: object) -> object:
        return await asyncio.to_thread(function, *args)

    crypto = Crypto(CryptoConfig())
    attester = SimpleNamespace(random=draw)
    await crypto.start(cast("Services", SimpleNamespace(attester=attester, run_in_thread=run_in_thread)))
    return crypto


def draws(algorithm: str, number: str) -> bytes:
    """The random bytes of which a scalar is made."""
    order = ORDERS[algorithm]
    return (int(number, 16) - 1).to_bytes((order.bit_length() + 7) // 8 + 8)


async def test_ed25519_signs_as_in_rfc_8032() -> None:
    vector = VECTORS["ed25519"]
    crypto = await crypto_with(h(vector["seed"]))
    handle = await crypto.generate(CALL, "ed25519")
    assert await crypto.public_key(CALL, handle) == h(vector["public"])
    assert await crypto.sign(CALL, handle, h(vector["message"])) == h(vector["signature"])
    assert await crypto.verify(CALL, "ed25519", h(vector["public"]), h(vector["message"]), h(vector["signature"]))


@pytest.mark.parametrize("algorithm", ["p-256", "p-384", "secp256k1"])
async def test_ecdsa_signs_as_with_the_nonces_of_rfc_6979(algorithm: str) -> None:
    vector = VECTORS[algorithm]
    crypto = await crypto_with(draws(algorithm, vector["scalar"]))
    handle = await crypto.generate(CALL, algorithm)
    public = await crypto.public_key(CALL, handle)
    assert public[1:] == h(vector["x"])
    assert await crypto.sign(CALL, handle, h(vector["message"])) == h(vector["signature"])
    uncompressed = await crypto.public_key(CALL, handle, "uncompressed")
    for key in (public, uncompressed):
        assert await crypto.verify(CALL, algorithm, key, h(vector["message"]), h(vector["signature"]))
    digest = await crypto.hash(CALL, "sha384" if algorithm == "p-384" else "sha256", h(vector["message"]))
    assert await crypto.sign(CALL, handle, digest, True) == h(vector["signature"])
    assert await crypto.verify(CALL, algorithm, public, digest, h(vector["signature"]), True)


async def test_a_transaction_s_digest_is_signed_recoverably_as_in_eip_155() -> None:
    vector = VECTORS["eip155"]
    crypto = await crypto_with(draws("secp256k1", vector["scalar"]))
    handle = await crypto.generate(CALL, "secp256k1")
    signature = await crypto.sign_recoverable(CALL, handle, h(vector["digest"]))
    assert signature == h(vector["signature"])
    public = await crypto.public_key(CALL, handle)
    for v in (0, 27):
        recovered = await crypto.recover_public_key(CALL, h(vector["digest"]), signature[:64] + bytes([v]))
        assert recovered == public
    assert await crypto.evm_address(CALL, public) == vector["address"]


async def test_sr25519_keys_and_signatures_are_substrate_s() -> None:
    vector = VECTORS["sr25519"]
    crypto = await crypto_with(h(vector["seed"]) + h(vector["old_seed"]))
    alice = await crypto.generate(CALL, "sr25519")
    assert await crypto.public_key(CALL, alice) == h(vector["public"])
    signer = (await crypto.ss58_decode(CALL, vector["address"])).account
    assert await crypto.verify(CALL, "sr25519", signer, h(vector["message"]), h(vector["signature"]))
    assert not await crypto.verify(CALL, "sr25519", signer, b"hello, world", h(vector["signature"]))
    signature = await crypto.sign(CALL, alice, b"m")
    assert await crypto.verify(CALL, "sr25519", h(vector["public"]), b"m", signature)
    # What was signed before Schnorrkel marked its signatures is none.
    old = await crypto.public_key(CALL, await crypto.generate(CALL, "sr25519"))
    assert not await crypto.verify(CALL, "sr25519", old, h(vector["old_message"]), h(vector["old_signature"]))


@pytest.mark.parametrize("algorithm", ["aes-256-gcm", "chacha20-poly1305"])
async def test_aeads_open_their_published_ciphertexts(algorithm: str) -> None:
    vector = VECTORS[algorithm]
    crypto = await crypto_with(h(vector["key"]))
    handle = await crypto.generate(CALL, algorithm)
    sealed = h(vector["nonce"]) + h(vector["ciphertext"]) + h(vector["tag"])
    assert await crypto.aead_decrypt(CALL, handle, sealed, h(vector["associated"])) == h(vector["plaintext"])
    with pytest.raises(CallError) as caught:
        await crypto.aead_decrypt(CALL, handle, sealed, b"")
    assert caught.value.code is Code.UNTRUSTED


@pytest.mark.parametrize("vector", VECTORS["hkdf"])
def test_hkdf_is_rfc_5869_s(vector: dict[str, str]) -> None:
    expected = h(vector["output"])
    derived = symmetric.hkdf_sha256(h(vector["secret"]), h(vector["salt"]), h(vector["info"]), len(expected))
    assert derived == expected


async def test_agreement_gives_both_sides_the_key_that_the_docs_describe() -> None:
    vector = VECTORS["x25519"]
    crypto = await crypto_with(h(vector["a"]) + h(vector["b"]))
    a, b = [await crypto.generate(CALL, "x25519") for _ in range(2)]
    assert await crypto.public_key(CALL, a) == h(vector["a_public"])
    assert await crypto.public_key(CALL, b) == h(vector["b_public"])
    from_a = await crypto.x25519_agree(CALL, a, h(vector["b_public"]), b"info", b"salt", "hkdf-hmac")
    from_b = await crypto.x25519_agree(CALL, b, h(vector["a_public"]), b"info", b"salt", "hkdf-hmac")
    tag = await crypto.hmac(CALL, from_a, b"m")
    assert await crypto.hmac_verify(CALL, from_b, b"m", tag)
    pair = b"".join(sorted([h(vector["a_public"]), h(vector["b_public"])]))
    tagged = b"tea.crypto.v1\0hkdf-hmac\0" + pair + b"info"
    outside = symmetric.SecretKey(symmetric.hkdf_sha256(h(vector["shared"]), b"salt", tagged, 32))
    assert outside.authenticate("sha256", b"m") == tag


async def test_derived_keys_are_the_ones_that_the_docs_describe() -> None:
    crypto = await crypto_with(b"\x0b" * 32)
    secret = await crypto.generate(CALL, "hkdf-hmac")
    derived = await crypto.hkdf(CALL, secret, b"info", b"salt", "ed25519")
    seed = symmetric.hkdf_sha256(b"\x0b" * 32, b"salt", b"tea.crypto.v1\0ed25519\0info", 32)
    assert await crypto.public_key(CALL, derived) == curves.Ed25519Key(seed).public("native")


async def test_hpke_is_rfc_9180_s() -> None:
    vector = VECTORS["hpke"]
    crypto = await crypto_with(h(vector["seed"]))
    handle = await crypto.generate(CALL, "x25519")
    assert await crypto.public_key(CALL, handle) == h(vector["public"])
    # The vector has associated data, which the suite's public interface has not: the suite itself is held to it.
    key = X25519PrivateKey.from_private_bytes(h(vector["seed"]))
    opened = openssl.hpke._decrypt_with_aad(
        exchange.SUITE, h(vector["sealed"]), key, h(vector["info"]), h(vector["associated"])
    )
    assert opened == h(vector["plaintext"])
    sealed = await crypto.hpke_seal(CALL, h(vector["public"]), b"secret", b"info")
    assert len(sealed) == len(b"secret") + 48
    assert await crypto.hpke_open(CALL, handle, sealed, b"info") == b"secret"


@pytest.mark.parametrize(("algorithm", "data", "digest"), VECTORS["hashes"])
async def test_hashes_are_the_standards_(algorithm: str, data: str, digest: str) -> None:
    crypto = await crypto_with(b"")
    assert await crypto.hash(CALL, algorithm, h(data)) == h(digest)


def _product(a: int, b: int) -> int:
    """Polynomials over GF(2), multiplied bit by bit, modulo x**8 + x**4 + x**3 + x + 1."""
    product = 0
    for bit in range(8):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        product ^= (0x11B << (bit - 8)) * (product >> bit & 1)
    return product


def test_the_field_and_the_interpolation_are_the_published_ones() -> None:
    assert all(shamir.multiply(a, b) == _product(a, b) for a in range(256) for b in range(0, 256, 5))
    assert all(shamir.multiply(a, shamir.inverse(a)) == 1 for a in range(1, 256))
    vector = VECTORS["tss"]
    shares = [(x, h(value)) for x, value in vector["shares"]]
    assert shamir.interpolate(shares) == h(vector["secret"])
    # Two points fix the line: its other coefficient gives the shares back.
    slope = bytes(a ^ b for a, b in zip(h(vector["secret"]), shares[0][1], strict=True))
    assert [(x, shamir.evaluate([h(vector["secret"]), slope], x)) for x in (1, 2)] == shares


@pytest.mark.parametrize(("prefix", "address", "account"), VECTORS["ss58"])
async def test_ss58_addresses_are_polkadot_s(prefix: int, address: str, account: str) -> None:
    crypto = await crypto_with(b"")
    assert await crypto.ss58_encode(CALL, h(account), prefix) == address
    assert await crypto.ss58_decode(CALL, address) == Ss58Address(prefix, h(account))


async def test_a_multi_signature_address_is_polkadot_s_in_any_order() -> None:
    vector = VECTORS["multisig"]
    crypto = await crypto_with(b"")
    accounts = [(await crypto.ss58_decode(CALL, one)).account for one in vector["signatories"]]
    for order in (accounts, accounts[::-1]):
        assert await crypto.multisig_address(CALL, order, vector["threshold"]) == vector["address"]


async def test_an_evm_address_has_eip_55_s_capitals() -> None:
    vector = VECTORS["eip55"]
    crypto = await crypto_with(draws("secp256k1", vector["scalar"]))
    handle = await crypto.generate(CALL, "secp256k1")
    for format in ("native", "uncompressed"):
        public = await crypto.public_key(CALL, handle, format)
        assert await crypto.evm_address(CALL, public) == vector["address"]


def test_small_order_points_are_all_in_the_table() -> None:
    # On -x*x + y*y = 1 + d*x*x*y*y over 2**255 - 19: doubled three times, each point of the table is the identity.
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    for encoded in curves._SMALL_ORDER:
        y = int.from_bytes(encoded, "little") % p
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if (x * x - square) % p:
            x = x * pow(2, (p - 1) // 4, p) % p
        assert (x * x - square) % p == 0
        for _ in range(3):
            product = d * x * x * y * y % p
            x, y = (
                2 * x * y * pow(1 + product, -1, p) % p,
                (y * y + x * x) * pow(1 - product, -1, p) % p,
            )
        assert (x, y) == (0, 1)
    assert len(curves._SMALL_ORDER) == 7
