"""crypto as actors see it: handles that work for their actor alone, every operation over its wire form, every refusal.

What the algorithms compute is held in test_crypto_vectors.py. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pss
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.crypto import Crypto, Handle, Ss58Address, SubstrateTransaction, limits, symmetric
from tea.providers.crypto.algorithms import ALGORITHMS, DRAWN, SEEDED, VERIFIERS
from tea.providers.testing import InMemoryServices, SimulatedAttester, invoke, start_provider
from tea.trust.sealing import seal

ALICE = Call(caller="alice")
BOB = Call(caller="bob")
TRANSACTION = SubstrateTransaction(call=b"\0\0", nonce=0, spec_version=1, transaction_version=1, genesis_hash=bytes(32))
FAST = (*SEEDED, *DRAWN)


@asynccontextmanager
async def started(config: Mapping[str, object] | None = None) -> AsyncIterator[tuple[Crypto, InMemoryServices]]:
    services = InMemoryServices("crypto")
    crypto = await start_provider(Crypto, services, config)
    try:
        yield crypto, services
    finally:
        await crypto.stop()
        await services.close()
        assert services.failures == []


async def refused(code: Code, crypto: Crypto, operation: str, *args: object, call: Call = ALICE) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(crypto, operation, *args, call=call)
    assert caught.value.code is code
    return caught.value


def sealed_key(services: InMemoryServices, key: bytes = b"k" * 32, purpose: str = "key:ed25519") -> bytes:
    """A key as `teactl secret seal --key ed25519` seals it for alice."""
    attester = services.attester
    assert isinstance(attester, SimulatedAttester)
    return seal(attester.sealing_key.public, key, purpose=purpose, actor="alice", manifest_digest=attester.manifest)


async def test_a_sealed_key_is_used_and_never_seen() -> None:
    async with started() as (crypto, services):
        handle = await invoke(crypto, "import_sealed", "ed25519", sealed_key(services), call=ALICE)
        signature = await invoke(crypto, "sign", handle, b"m", call=ALICE)
        Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key().verify(signature, b"m")
        await refused(Code.UNTRUSTED, crypto, "import_sealed", "ed25519", sealed_key(services), call=BOB)
        await refused(Code.UNTRUSTED, crypto, "import_sealed", "x25519", sealed_key(services))
        await refused(Code.UNTRUSTED, crypto, "import_sealed", "ed25519", sealed_key(services, purpose="secret"))
        await refused(Code.UNTRUSTED, crypto, "import_sealed", "ed25519", b"")
        await refused(Code.INVALID, crypto, "import_sealed", "rot13", sealed_key(services))
        await refused(Code.INVALID, crypto, "import_sealed", "ed25519", sealed_key(services, b"k" * 31))
    async with started({"max_handles": 1}) as (crypto, services):
        await invoke(crypto, "import_sealed", "ed25519", sealed_key(services), call=ALICE)
        await refused(Code.EXHAUSTED, crypto, "import_sealed", "ed25519", sealed_key(services))


async def test_every_operation_answers_over_the_wire() -> None:
    async with started() as (crypto, services):

        async def ask(operation: str, *args: object) -> Any:
            asked.add(operation)
            return await invoke(crypto, operation, *args, call=ALICE)

        asked: set[str] = set()
        signer = await ask("generate", "secp256k1")
        public = await ask("public_key", signer)
        signature = await ask("sign", signer, b"m")
        assert await ask("verify", "secp256k1", public, b"m", signature) is True
        assert await ask("verify", "secp256k1", public, b"n", signature) is False
        recoverable = await ask("sign_recoverable", signer, bytes(32))
        assert await ask("recover_public_key", bytes(32), recoverable) == public
        assert len(await ask("evm_address", public)) == 42
        cipher = await ask("generate", "aes-256-gcm")
        sealed = await ask("aead_encrypt", cipher, b"plain", b"context")
        assert await ask("aead_decrypt", cipher, sealed, b"context") == b"plain"
        opener = await ask("generate", "rsa-oaep-2048")
        sealed = await ask("rsa_oaep_encrypt", await ask("public_key", opener), b"plain")
        assert await ask("rsa_oaep_decrypt", opener, sealed) == b"plain"
        agreeing = await ask("generate", "x25519")
        own = await ask("public_key", agreeing)
        assert await ask("hpke_open", agreeing, await ask("hpke_seal", own, b"plain", b"i"), b"i") == b"plain"
        secret = await ask("x25519_agree", agreeing, own, b"", b"", "hkdf-hmac")
        tag = await ask("hmac", secret, b"m", "sha384")
        assert await ask("hmac_verify", secret, b"m", tag, "sha384") is True
        assert await ask("hmac_verify", secret, b"m", tag[:-1], "sha384") is False
        derived = await ask("hkdf", secret, b"info", b"salt", "chacha20-poly1305")
        imported = await ask("import_sealed", "ed25519", sealed_key(services))
        assert len(await ask("public_key", imported)) == 32
        assert len(await ask("hash", "sha256", b"")) == 32
        assert len(await ask("random", 300)) == 300
        shares = await ask("shamir_split", b"secret", 2, 3)
        assert await ask("shamir_join", shares[1:]) == b"secret"
        address = await ask("ss58_encode", bytes(32))
        assert await ask("ss58_decode", address) == Ss58Address(42, bytes(32))
        assert (await ask("multisig_address", [bytes(32), b"\1" * 32], 2)).startswith("5")
        made = await ask("substrate_extrinsic", signer, TRANSACTION)
        assert made.extrinsic[2:4] == b"\x84\0"
        assert (await ask("bitcoin_decode", await ask("bitcoin_address", public))).kind == "p2wpkh"
        together = await ask("bitcoin_multisig", [public], 1)
        once = await ask("sign", signer, bytes(32), True)
        assert (await ask("bitcoin_witness", [public], 1, bytes(32), [once]))[-1] == together.script
        await refused(Code.DENIED, crypto, "export_sealed", signer, b"", b"", "e2")  # test_crypto_moves.py
        asked.add("export_sealed")
        assert Handle(derived, "chacha20-poly1305") in await ask("handles")
        assert await ask("forget_key", derived) is True
        assert await ask("forget_key", derived) is False
        assert asked == set(Crypto.operations())


async def test_every_operation_says_what_it_does() -> None:
    for operation in Crypto.operations().values():
        assert len(operation.description.doc) > 20, operation.name


async def test_a_handle_works_for_its_actor_alone_and_for_all_its_replicas() -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", "ed25519", call=ALICE)
        signature = await invoke(crypto, "sign", handle, b"m", call=Call(caller="alice", replica=2))
        assert len(signature) == 64
        for operation, args in (("sign", (b"m",)), ("public_key", ()), ("hmac", (b"m",)), ("hpke_open", (b"",))):
            await refused(Code.NOT_FOUND, crypto, operation, handle, *args, call=BOB)
        assert await invoke(crypto, "forget_key", handle, call=BOB) is False
        assert await invoke(crypto, "handles", call=BOB) == []
        assert await invoke(crypto, "sign", handle, b"m", call=ALICE) == signature


async def test_handles_are_not_guessable() -> None:
    async with started() as (crypto, _):
        handles = [await invoke(crypto, "generate", "ed25519", call=ALICE) for _ in range(50)]
        assert len(set(handles)) == 50
        assert {len(handle) for handle in handles} == {24}
        assert [one.handle for one in await invoke(crypto, "handles", call=ALICE)] == handles


async def test_an_unknown_handle_is_not_repeated_in_the_error() -> None:
    async with started() as (crypto, _):
        for handle in ("my secret password", "x" * 10_000, ""):
            error = await refused(Code.NOT_FOUND, crypto, "sign", handle, b"m")
            assert not handle or handle not in error.sentence
            assert error.details == {}


async def test_more_handles_than_the_limit_are_exhausted_and_a_forgotten_one_makes_room() -> None:
    async with started({"max_handles": 2}) as (crypto, _):
        secret = await invoke(crypto, "generate", "hkdf-hmac", call=ALICE)
        agreeing = await invoke(crypto, "generate", "x25519", call=ALICE)
        own = await invoke(crypto, "public_key", agreeing, call=ALICE)
        error = await refused(Code.EXHAUSTED, crypto, "generate", "ed25519")
        assert error.details == {"limit": 2}
        await refused(Code.EXHAUSTED, crypto, "generate", "rsa-pss-2048")
        await refused(Code.EXHAUSTED, crypto, "hkdf", secret, b"")
        await refused(Code.EXHAUSTED, crypto, "x25519_agree", agreeing, own)
        await invoke(crypto, "generate", "ed25519", call=BOB)
        assert crypto.usage() == {"handles": 3, "actors": 2, "exported": 0}
        await invoke(crypto, "forget_key", secret, call=ALICE)
        await invoke(crypto, "generate", "ed25519", call=ALICE)


async def test_the_limit_holds_while_rsa_keys_are_made() -> None:
    async with started({"max_handles": 1}) as (crypto, _):
        results = await asyncio.gather(
            *(crypto.generate(ALICE, "rsa-pss-2048") for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["CallError", "str"]
        assert crypto.usage()["handles"] == 1


async def test_an_actor_that_left_leaves_no_key_not_even_one_in_the_making() -> None:
    async with started() as (crypto, services):
        handle = await invoke(crypto, "generate", "ed25519", call=ALICE)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
            begun.set()
            await go_on.wait()
            return function(*args)

        services.run_in_thread = run_in_thread  # type: ignore[method-assign]
        making = asyncio.create_task(crypto.generate(ALICE, "rsa-pss-2048"))
        await begun.wait()
        await crypto.forget("alice")
        go_on.set()
        with pytest.raises(CallError) as caught:
            await making
        assert caught.value.code is Code.UNAVAILABLE
        await refused(Code.NOT_FOUND, crypto, "sign", handle, b"m")
        assert crypto.usage() == {"handles": 0, "actors": 0, "exported": 0}


async def test_what_takes_long_leaves_the_loop() -> None:
    async with started() as (crypto, services):
        ran: list[str] = []
        plain = services.run_in_thread

        async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
            ran.append(getattr(function, "__name__", "made"))
            return await plain(function, *args)

        services.run_in_thread = run_in_thread  # type: ignore[method-assign]
        rsa = await crypto.generate(ALICE, "rsa-oaep-2048")
        sealed = await crypto.rsa_oaep_encrypt(ALICE, await crypto.public_key(ALICE, rsa), b"m")
        await crypto.rsa_oaep_decrypt(ALICE, rsa, sealed)
        p384 = await crypto.generate(ALICE, "p-384")
        await crypto.sign(ALICE, p384, b"m")
        await crypto.hash(ALICE, "keccak-256", bytes(limits.MAX_DATA))
        await crypto.shamir_split(ALICE, b"s", 10, 20)
        assert ran == ["made", "decrypt", "sign", "_keccak256", "split"]
        ed25519 = await crypto.generate(ALICE, "ed25519")
        await crypto.sign(ALICE, ed25519, b"m")
        assert len(ran) == 5


@pytest.mark.parametrize("algorithm", FAST)
async def test_a_key_does_what_its_algorithm_is_for_and_nothing_else(algorithm: str) -> None:
    uses: dict[str, tuple[tuple[object, ...], set[str]]] = {
        "sign": ((b"m",), {"ed25519", "sr25519", "p-256", "p-384", "secp256k1"}),
        "sign_recoverable": ((bytes(32),), {"secp256k1"}),
        "substrate_extrinsic": ((TRANSACTION,), {"ed25519", "sr25519", "secp256k1"}),
        "aead_encrypt": ((b"m",), {"aes-256-gcm", "chacha20-poly1305"}),
        "aead_decrypt": ((b"m",), set()),
        "rsa_oaep_decrypt": ((b"m",), set()),
        "hpke_open": ((b"m",), set()),
        "x25519_agree": ((b"\x09" + bytes(31),), {"x25519"}),
        "hkdf": ((b"",), {"hkdf-hmac"}),
        "hmac": ((b"",), {"hkdf-hmac"}),
        "hmac_verify": ((b"", b""), {"hkdf-hmac"}),
    }
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", algorithm, call=ALICE)
        for operation, (args, can) in uses.items():
            if algorithm in can:
                await invoke(crypto, operation, handle, *args, call=ALICE)
            elif (operation, algorithm) in (
                ("hpke_open", "x25519"),
                ("aead_decrypt", "aes-256-gcm"),
                ("aead_decrypt", "chacha20-poly1305"),
            ):
                await refused(Code.UNTRUSTED, crypto, operation, handle, *args)
            else:
                error = await refused(Code.INVALID, crypto, operation, handle, *args)
                assert error.details == {"algorithm": algorithm}


async def test_names_that_are_in_no_table_are_invalid() -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", "hkdf-hmac", call=ALICE)
        for name in ("", "rsa", "ED25519", "x" * 5000):
            await refused(Code.INVALID, crypto, "generate", name)
            await refused(Code.INVALID, crypto, "verify", name, b"", b"", b"")
            await refused(Code.INVALID, crypto, "hash", name, b"")
            await refused(Code.INVALID, crypto, "hmac", handle, b"", name)
            await refused(Code.INVALID, crypto, "hkdf", handle, b"", b"", name)
            await refused(Code.INVALID, crypto, "public_key", handle, name)
        await refused(Code.INVALID, crypto, "hkdf", handle, b"", b"", "p-256")
        await refused(Code.NOT_FOUND, crypto, "export", b"")


@pytest.mark.parametrize(
    ("algorithm", "formats"),
    [
        ("ed25519", {"native": 32, "spki": 44, "pem": 113}),
        ("x25519", {"native": 32, "spki": 44, "pem": 113}),
        ("sr25519", {"native": 32}),
        ("p-256", {"native": 33, "uncompressed": 65, "spki": 91, "pem": 178}),
        ("p-384", {"native": 49, "uncompressed": 97, "spki": 120, "pem": 215}),
        ("secp256k1", {"native": 33, "uncompressed": 65, "spki": 88, "pem": 174}),
        ("aes-256-gcm", {}),
        ("hkdf-hmac", {}),
        ("rsa-pss-2048", {"native": 294, "spki": 294, "pem": 451, "pkcs1": 270}),
        ("rsa-oaep-2048", {"native": 294, "spki": 294, "pem": 451, "pkcs1": 270}),
    ],
)
async def test_public_keys_have_the_formats_of_the_docs(algorithm: str, formats: dict[str, int]) -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", algorithm, call=ALICE)
        for format in ("native", "uncompressed", "spki", "pem", "pkcs1"):
            if format in formats:
                assert len(await invoke(crypto, "public_key", handle, format, call=ALICE)) == formats[format]
            else:
                await refused(Code.INVALID, crypto, "public_key", handle, format)


@pytest.mark.parametrize("algorithm", [*VERIFIERS])
async def test_a_signature_is_one_for_its_data_key_and_form_alone(algorithm: str) -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", algorithm, call=ALICE)
        public = await invoke(crypto, "public_key", handle, call=ALICE)
        signature = await invoke(crypto, "sign", handle, b"data", call=ALICE)

        async def verify(public_key: bytes, data: bytes, candidate: bytes) -> bool:
            return bool(await invoke(crypto, "verify", algorithm, public_key, data, candidate, call=ALICE))

        assert await verify(public, b"data", signature)
        assert not await verify(public, b"Data", signature)
        for place in (0, len(signature) // 2, len(signature) - 1):
            flipped = bytearray(signature)
            flipped[place] ^= 1
            assert not await verify(public, b"data", bytes(flipped))
        for wrong in (b"", signature[:-1], signature + b"\0", bytes(len(signature)), b"\xff" * len(signature)):
            assert not await verify(public, b"data", wrong)
        for no_key in (b"", public[:-1], public + b"\0", b"\xff" * 2000):
            await refused(Code.INVALID, crypto, "verify", algorithm, no_key, b"data", signature)
        if algorithm in ("ed25519", "sr25519"):
            await refused(Code.INVALID, crypto, "sign", handle, bytes(32), True)
            await refused(Code.INVALID, crypto, "verify", algorithm, public, bytes(32), signature, True)
            await refused(Code.INVALID, crypto, "verify", algorithm, bytes(32), b"data", signature)
        else:
            await refused(Code.INVALID, crypto, "sign", handle, bytes(31), True)
            await refused(Code.INVALID, crypto, "verify", algorithm, public, bytes(31), signature, True)
            digest = await invoke(crypto, "hash", "sha384" if algorithm == "p-384" else "sha256", b"data")
            prehashed = await invoke(crypto, "sign", handle, digest, True, call=ALICE)
            assert await verify(public, b"data", prehashed)


async def test_points_that_are_no_keys_are_invalid() -> None:
    async with started() as (crypto, _):
        for algorithm, size in (("p-256", 33), ("p-384", 49), ("secp256k1", 33)):
            for no_point in (b"\x02" + b"\xff" * (size - 1), b"\x04" + bytes(size - 1), b"\x04" + bytes(2 * size - 2)):
                await refused(Code.INVALID, crypto, "verify", algorithm, no_point, b"", b"")
        hybrid = await invoke(crypto, "generate", "secp256k1", call=ALICE)
        point = await invoke(crypto, "public_key", hybrid, "uncompressed", call=ALICE)
        await refused(Code.INVALID, crypto, "evm_address", bytes([6 + point[-1] % 2]) + point[1:])
        await refused(Code.INVALID, crypto, "evm_address", point[1:])
        # Small order, with either sign: anybody's signature would verify.
        for encoding in (bytes(32), bytes(31) + b"\x80", b"\x01" + bytes(31), b"\xec" + b"\xff" * 31):
            await refused(Code.INVALID, crypto, "verify", "ed25519", encoding, b"", bytes(64))


async def test_a_high_s_is_no_signature_on_secp256k1() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", "secp256k1", call=ALICE)
        public = await invoke(crypto, "public_key", handle, call=ALICE)
        digest = await invoke(crypto, "hash", "keccak-256", b"tx")
        signature = await invoke(crypto, "sign_recoverable", handle, digest, call=ALICE)
        high = signature[:32] + (order - int.from_bytes(signature[32:64])).to_bytes(32)
        assert await invoke(crypto, "verify", "secp256k1", public, digest, signature[:64], True) is True
        assert await invoke(crypto, "verify", "secp256k1", public, digest, high, True) is False
        await refused(Code.UNTRUSTED, crypto, "recover_public_key", digest, high + bytes([signature[64] ^ 1]))
        for v in (4, 26, 29, 255):
            await refused(Code.UNTRUSTED, crypto, "recover_public_key", digest, signature[:64] + bytes([v]))
        await refused(Code.UNTRUSTED, crypto, "recover_public_key", digest, bytes(65))
        await refused(Code.INVALID, crypto, "recover_public_key", digest, signature[:64])
        await refused(Code.INVALID, crypto, "recover_public_key", digest[:31], signature)
        await refused(Code.INVALID, crypto, "sign_recoverable", handle, b"not hashed")


@pytest.mark.parametrize("algorithm", ["aes-256-gcm", "chacha20-poly1305"])
async def test_a_ciphertext_opens_only_whole_under_its_key_and_context(algorithm: str) -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", algorithm, call=ALICE)
        other = await invoke(crypto, "generate", algorithm, call=ALICE)
        sealed = await invoke(crypto, "aead_encrypt", handle, b"plain", b"context", call=ALICE)
        assert sealed != await invoke(crypto, "aead_encrypt", handle, b"plain", b"context", call=ALICE)
        for place in range(len(sealed)):
            changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
            await refused(Code.UNTRUSTED, crypto, "aead_decrypt", handle, changed, b"context")
            await refused(Code.UNTRUSTED, crypto, "aead_decrypt", handle, sealed[:place], b"context")
        await refused(Code.UNTRUSTED, crypto, "aead_decrypt", handle, sealed, b"")
        await refused(Code.UNTRUSTED, crypto, "aead_decrypt", other, sealed, b"context")
        empty = await invoke(crypto, "aead_encrypt", handle, b"", call=ALICE)
        assert await invoke(crypto, "aead_decrypt", handle, empty, call=ALICE) == b""


def test_a_key_that_encrypted_too_much_is_exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "MAX_MESSAGES", 2)
    key = symmetric.AeadKey("aes-256-gcm", bytes(32))
    sealed = [key.encrypt(b"m", b"") for _ in range(2)]
    with pytest.raises(CallError) as caught:
        key.encrypt(b"m", b"")
    assert caught.value.code is Code.EXHAUSTED
    assert [key.decrypt(one, b"") for one in sealed] == [b"m", b"m"]


async def test_hpke_messages_open_only_whole_under_their_key_and_info() -> None:
    async with started() as (crypto, _):
        handle = await invoke(crypto, "generate", "x25519", call=ALICE)
        public = await invoke(crypto, "public_key", handle, call=ALICE)
        sealed = await invoke(crypto, "hpke_seal", public, b"plain", b"info", call=BOB)
        for wrong in (b"", sealed[:-1], sealed[:31], bytes(len(sealed)), b"\1" + sealed[1:]):
            await refused(Code.UNTRUSTED, crypto, "hpke_open", handle, wrong, b"info")
        await refused(Code.UNTRUSTED, crypto, "hpke_open", handle, sealed, b"")
        for no_key in (bytes(32), b"", bytes(33)):  # a point of low order, and wrong sizes
            await refused(Code.INVALID, crypto, "hpke_seal", no_key, b"plain")
            await refused(Code.INVALID, crypto, "x25519_agree", handle, no_key)


async def test_rsa_agrees_with_another_implementation() -> None:
    async with started() as (crypto, _):
        signer = await invoke(crypto, "generate", "rsa-pss-3072", call=ALICE)
        key = RSA.import_key(await invoke(crypto, "public_key", signer, call=ALICE))
        assert key.size_in_bits() == 3072
        signature = await invoke(crypto, "sign", signer, b"m", call=ALICE)
        pss.new(key, salt_bytes=32).verify(SHA256.new(b"m"), signature)
        opener = await invoke(crypto, "generate", "rsa-oaep-3072", call=ALICE)
        key = RSA.import_key(await invoke(crypto, "public_key", opener, call=ALICE))
        sealed = PKCS1_OAEP.new(key, hashAlgo=SHA256).encrypt(b"m")
        assert await invoke(crypto, "rsa_oaep_decrypt", opener, sealed, call=ALICE) == b"m"


async def test_rsa_refuses_what_does_not_fit_it() -> None:
    async with started() as (crypto, _):
        opener = await invoke(crypto, "generate", "rsa-oaep-2048", call=ALICE)
        public = await invoke(crypto, "public_key", opener, call=ALICE)
        await invoke(crypto, "rsa_oaep_encrypt", public, bytes(190))
        await refused(Code.INVALID, crypto, "rsa_oaep_encrypt", public, bytes(191))
        await refused(Code.INVALID, crypto, "rsa_oaep_encrypt", bytes(32), b"m")
        small = RSA.generate(1024).public_key().export_key("DER")
        await refused(Code.INVALID, crypto, "rsa_oaep_encrypt", small, b"m")
        await refused(Code.INVALID, crypto, "rsa_oaep_decrypt", opener, bytes(255))
        await refused(Code.UNTRUSTED, crypto, "rsa_oaep_decrypt", opener, bytes(256))
        await refused(Code.UNTRUSTED, crypto, "rsa_oaep_decrypt", opener, b"\xff" * 256)
        await refused(Code.INVALID, crypto, "verify", "rsa-pss-3072", public, b"m", bytes(384))
        elliptic = await invoke(crypto, "generate", "p-256", call=ALICE)
        spki = await invoke(crypto, "public_key", elliptic, "spki", call=ALICE)
        await refused(Code.INVALID, crypto, "verify", "rsa-pss-2048", spki, b"m", bytes(256))


async def test_sizes_over_their_limits_are_invalid() -> None:
    large, context = bytes(limits.MAX_DATA + 1), bytes(limits.MAX_CONTEXT + 1)
    async with started() as (crypto, _):
        made = {name: await crypto.generate(ALICE, name) for name in ("ed25519", "aes-256-gcm", "x25519", "hkdf-hmac")}
        public = await crypto.public_key(ALICE, made["x25519"])
        steps: list[tuple[object, ...]] = [
            ("sign", made["ed25519"], large),
            ("verify", "ed25519", public, large, bytes(64)),
            ("hash", "sha256", large),
            ("hmac", made["hkdf-hmac"], large),
            ("hmac_verify", made["hkdf-hmac"], large, b""),
            ("aead_encrypt", made["aes-256-gcm"], large),
            ("aead_encrypt", made["aes-256-gcm"], b"", context),
            ("aead_decrypt", made["aes-256-gcm"], large + bytes(28)),
            ("aead_decrypt", made["aes-256-gcm"], b"", context),
            ("hpke_seal", public, large),
            ("hpke_seal", public, b"", context),
            ("hpke_open", made["x25519"], large + bytes(48)),
            ("hpke_open", made["x25519"], b"", context),
            ("x25519_agree", made["x25519"], public, context),
            ("x25519_agree", made["x25519"], public, b"", context),
            ("hkdf", made["hkdf-hmac"], context),
            ("hkdf", made["hkdf-hmac"], b"", context),
            ("random", 0),
            ("random", limits.MAX_RANDOM + 1),
        ]
        for operation, *args in steps:
            await refused(Code.INVALID, crypto, str(operation), *args)
        assert crypto.usage()["handles"] == len(made)
        largest = await invoke(crypto, "aead_encrypt", made["aes-256-gcm"], large[1:], call=ALICE)
        assert await invoke(crypto, "aead_decrypt", made["aes-256-gcm"], largest, call=ALICE) == large[1:]


@pytest.mark.parametrize("algorithm", FAST)
async def test_a_secret_is_in_no_repr_error_or_pickle(algorithm: str) -> None:
    async with started() as (crypto, services):
        drawn: list[bytes] = []
        plain = services.attester.random

        def random(size: int) -> bytes:
            drawn.append(plain(size))
            return drawn[-1]

        services.attester.random = random  # type: ignore[method-assign]
        handle = await crypto.generate(ALICE, algorithm)
        assert drawn, "the key is made of the NSM's random"
        ring = crypto._rings["alice"]
        key = ring._keys[handle]
        errors = [await refused(Code.INVALID, crypto, "rsa_oaep_decrypt", handle, b"") for _ in range(1)]
        errors.append(await refused(Code.INVALID, crypto, "public_key", handle, "nothing"))
        said = " ".join([repr(key), str(key), repr(ring), repr(crypto), *map(repr, errors), *map(str, errors)])
        for secret in drawn:
            assert secret.hex() not in said
            assert repr(secret)[2:-1] not in said
        assert repr(key) == f"<key of {algorithm}>"
        with pytest.raises(TypeError):
            pickle.dumps(key)
        assert all(record.message == "" for record in services.logs)  # nothing is logged at all


async def test_every_algorithm_can_be_generated() -> None:
    async with started() as (crypto, _):
        for algorithm in ALGORITHMS:
            await crypto.generate(ALICE, algorithm)
        assert [one.algorithm for one in await crypto.handles(ALICE)] == list(ALGORITHMS)


@pytest.mark.parametrize("config", [{"max_handles": 0}, {"max_handles": 65537}, {"max_keys": 1}, {"max_handles": "1"}])
async def test_a_config_that_makes_no_sense_is_refused(config: Mapping[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Crypto, InMemoryServices("crypto"), config)
