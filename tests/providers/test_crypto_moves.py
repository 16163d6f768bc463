"""Keys that cross the enclave's border: sealed in by their owner, sealed out to another enclave that was verified.

Real evidence of simulated NSMs of one network, real sealing. Rule: docs/architecture.md, "Secrets".
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.crypto import Crypto, CryptoConfig
from tea.providers.crypto.algorithms import ALGORITHMS, SEEDED, VERIFIERS
from tea.providers.crypto.symmetric import AEADS, MAX_MESSAGES, AeadKey
from tea.providers.testing import InMemoryServices, SimulatedAttester, VirtualClock, invoke, start_provider
from tea.trust.policy import Policy, parse_policy
from tea.trust.sealing import seal

BUNDLE = b"\7" * 32
ALICE = Call(caller="alice", bundle=BUNDLE)
BOB = Call(caller="bob", bundle=BUNDLE)
EXPORT: dict[str, object] = {"export": {"alice": ["e2"]}}
RSA = rsa.generate_private_key(65537, 2048)


class Enclave:
    """One enclave of a network: its crypto provider, and evidence in its actors' names."""

    def __init__(self, crypto: Crypto, services: InMemoryServices) -> None:
        self.crypto = crypto
        self.services = services
        attester = services.attester
        assert isinstance(attester, SimulatedAttester)
        self.attester = attester

    async def ask(self, operation: str, *args: object, call: Call = ALICE) -> Any:
        return await invoke(self.crypto, operation, *args, call=call)

    async def refused(self, code: Code, operation: str, *args: object, call: Call = ALICE) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.ask(operation, *args, call=call)
        assert caught.value.code is code
        return caught.value

    async def evidence(self, actor: str = "alice", nonce: bytes | None = None, kind: str = "actor") -> Any:
        return await self.attester.attest(kind, b"a key, please", speaker=(actor, BUNDLE), nonce=nonce)

    def sealed(self, secret: bytes, algorithm: str) -> bytes:
        """As `teactl secret seal --key ALGORITHM` seals it for alice."""
        return seal(
            self.attester.sealing_key.public,
            secret,
            purpose=f"key:{algorithm}",
            actor="alice",
            manifest_digest=self.attester.manifest,
        )


Network = Callable[..., Any]


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """Makes enclaves that share a clock, a CA and a manifest; each knows the others' slots."""
    clock, made = VirtualClock(), list[Enclave]()

    async def enclave(config: dict[str, object] | None = None, **other: Any) -> Enclave:
        services = InMemoryServices("crypto", clock=clock)
        services.attester = SimulatedAttester(
            clock.now,
            **{
                "manifest": services.manifest_digest,
                "ca": made[0].attester.ca if made else None,
                "instance_id": f"i-0123456789abcdef{len(made)}",
                **other,
            },
        )
        one = Enclave(await start_provider(Crypto, services, config), services)
        made.append(one)
        services.policies = {}
        for known in made:
            for number, member in enumerate(made, 1):
                known.services.policies[f"e{number}"] = policy_of(member)
        return one

    yield enclave
    for one in made:
        await one.crypto.stop()
        await one.services.close()
        assert one.services.failures == []


def policy_of(member: Enclave) -> Policy:
    registers = member.attester.pcrs()
    text = f"""\
tea: policy/1
simulated: {{root: "sha256:{member.attester.ca.root_digest.hex()}"}}
pcrs: {{0: "{registers[0][1].hex()}", 4: "{registers[4][1].hex()}"}}
deployment: test
manifests: ["sha384:{hashlib.sha384(b"test").hexdigest()}"]
"""
    return parse_policy(text, "policy")


async def both_use(old: Enclave, handle: str, new: Enclave, moved: str, algorithm: str) -> None:
    """The two handles are one key."""
    if algorithm in VERIFIERS or algorithm.startswith(("x25519", "rsa")):
        assert await old.ask("public_key", handle) == await new.ask("public_key", moved)
    if algorithm in VERIFIERS:
        public = await old.ask("public_key", handle)
        assert await old.ask("verify", algorithm, public, b"m", await new.ask("sign", moved, b"m"))
    elif algorithm in AEADS:
        assert await new.ask("aead_decrypt", moved, await old.ask("aead_encrypt", handle, b"m")) == b"m"
    elif algorithm == "x25519":
        public = await old.ask("public_key", handle)
        assert await new.ask("hpke_open", moved, await old.ask("hpke_seal", public, b"m")) == b"m"
    elif algorithm.startswith("rsa"):
        public = await old.ask("public_key", handle)
        assert await new.ask("rsa_oaep_decrypt", moved, await old.ask("rsa_oaep_encrypt", public, b"m")) == b"m"
    else:
        assert await old.ask("hmac", handle, b"m") == await new.ask("hmac", moved, b"m")


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if "3072" not in name])
async def test_an_exportable_key_goes_to_another_attested_enclave_and_works_in_both(
    network: Network, algorithm: str
) -> None:
    old, new = await network(EXPORT), await network(EXPORT)
    handle = await old.ask("generate", algorithm, True)
    nonce = await old.ask("random", 32)
    sealed = await old.ask("export_sealed", handle, *await new.evidence(nonce=nonce), "e2", nonce)
    moved = await new.ask("import_sealed", algorithm, sealed)
    await both_use(old, handle, new, moved, algorithm)
    assert old.crypto.usage()["exported"] == 1
    (record,) = old.services.logs
    assert (record.message, record.fields["slot"], record.fields["to"]) == (
        "exported a key",
        "e2",
        new.attester.module_id,
    )


async def test_what_was_exported_opens_for_the_same_actor_in_that_enclave_alone(network: Network) -> None:
    old, new, other = await network(EXPORT), await network(), await network()
    handle = await old.ask("generate", "ed25519", True)
    sealed = await old.ask("export_sealed", handle, *await new.evidence(), "e2")
    await new.refused(Code.UNTRUSTED, "import_sealed", "ed25519", sealed, call=BOB)
    await new.refused(Code.UNTRUSTED, "import_sealed", "x25519", sealed)
    await other.refused(Code.UNTRUSTED, "import_sealed", "ed25519", sealed)
    await old.refused(Code.UNTRUSTED, "import_sealed", "ed25519", sealed)
    new.attester.manifest = bytes(48)  # a later revision
    await new.refused(Code.UNTRUSTED, "import_sealed", "ed25519", sealed)


async def test_no_key_leaves_unless_it_was_made_for_that_and_the_manifest_says_where(network: Network) -> None:
    old, new = await network({"export": {"alice": ["e2"], "carol": ["e1"]}}), await network()
    evidence = await new.evidence()
    # 1. Who is not named makes none.
    await old.refused(Code.DENIED, "generate", "ed25519", True, call=BOB)
    await old.refused(Code.DENIED, "generate", "rsa-pss-2048", True, call=BOB)
    await old.refused(Code.DENIED, "import_sealed", "ed25519", old.sealed(b"k" * 32, "ed25519"), True, call=BOB)
    await new.refused(Code.DENIED, "generate", "ed25519", True)  # no config at all: nobody
    # 2. A key that was not made so stays, also one that is derived from one that may go.
    kept = await old.ask("generate", "ed25519")
    await old.refused(Code.DENIED, "export_sealed", kept, *evidence, "e2")
    secret = await old.ask("generate", "hkdf-hmac", True)
    await old.refused(Code.DENIED, "export_sealed", await old.ask("hkdf", secret, b"i"), *evidence, "e2")
    # 3. Nowhere but to the slots that are named.
    going = await old.ask("generate", "ed25519", True)
    await old.refused(Code.DENIED, "export_sealed", going, *evidence, "e1")
    await old.refused(Code.DENIED, "export_sealed", going, *evidence, "x" * 10_000)
    # 4. Another actor's handle is none.
    await old.refused(Code.NOT_FOUND, "export_sealed", going, *evidence, "e2", call=Call(caller="carol"))
    shown = {one.handle: one.exportable for one in await old.ask("handles")}
    assert shown[kept] is False
    assert shown[going] is True
    assert old.crypto.usage()["exported"] == 0


async def test_a_slot_that_the_manifest_no_longer_has_gets_nothing(network: Network) -> None:
    old, new = await network(EXPORT), await network()
    handle = await old.ask("generate", "ed25519", True)
    evidence = await new.evidence()
    old.services.policies.clear()
    await old.refused(Code.NOT_FOUND, "export_sealed", handle, *evidence, "e2")


async def test_evidence_that_is_not_that_slot_s_own_gets_nothing(network: Network) -> None:
    old, new, third = await network(EXPORT), await network(), await network()
    handle = await old.ask("generate", "ed25519", True)
    document, statement = await new.evidence()

    async def untrusted(*args: object) -> CallError:
        error: CallError = await old.refused(Code.UNTRUSTED, "export_sealed", handle, *args)
        return error

    # 1. Bent, or of others.
    await untrusted(document[:-1] + bytes([document[-1] ^ 1]), statement, "e2")
    await untrusted(b"", b"", "e2")
    await untrusted(document, (await new.evidence("bob"))[1], "e2")
    assert (await untrusted(*await third.evidence(), "e2")).details["reason"] == "pcr"
    # 2. Old: the nonce is another's.
    await untrusted(*await new.evidence(nonce=b"theirs"), "e2", b"ours")
    await untrusted(document, statement, "e2", b"ours")
    # 3. Of another actor, or of another kind than an actor's plain word.
    await untrusted(*await new.evidence("bob"), "e2")
    await untrusted(*await new.evidence(kind="ra"), "e2")
    # 4. The host's word: it is not the actor who asks.
    await untrusted(*await new.attester.attest("seal", b""), "e2")
    # 5. With a key that nothing is sealed to.
    rsa_key = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    await untrusted(*await new.attester.attest("actor", b"", speaker=("alice", BUNDLE), public_key=rsa_key), "e2")
    await untrusted(*await new.attester.attest("actor", b"", speaker=("alice", BUNDLE), public_key=bytes(32)), "e2")
    # 6. Under another manifest.
    new.attester.manifest = b"\1" * 48
    await untrusted(*await new.evidence(), "e2")
    # 7. From another network, and after three hours.
    stranger = await network(ca=None)
    await untrusted(*await stranger.evidence(), "e2")
    old.services.clock.elapsed += 4 * 3600
    await untrusted(document, statement, "e2")
    for args in ((bytes(0x3001), b"", "e2"), (b"", bytes(1 << 17), "e2"), (b"", b"", "e2", bytes(513))):
        await old.refused(Code.INVALID, "export_sealed", handle, *args)
    assert old.crypto.usage()["exported"] == 0
    assert old.services.logs == []


def aead_key(enclave: Enclave, handle: str) -> AeadKey:
    key = enclave.crypto._rings["alice"]._keys[handle]
    assert isinstance(key, AeadKey)
    return key


async def test_two_holders_of_an_aead_key_together_encrypt_no_more_than_one_could(network: Network) -> None:
    old, new = await network(EXPORT), await network(EXPORT)
    handle = await old.ask("generate", "aes-256-gcm", True)
    evidence = await new.evidence()
    sealed = await old.ask("export_sealed", handle, *evidence, "e2")
    moved = await new.ask("import_sealed", "aes-256-gcm", sealed)
    ours, theirs = aead_key(old, handle), aead_key(new, moved)
    assert ours.left + theirs.left == MAX_MESSAGES
    ours.left = 1
    await old.refused(Code.EXHAUSTED, "export_sealed", handle, *evidence, "e2")
    assert ours.left == 1
    owner = await new.ask("import_sealed", "aes-256-gcm", new.sealed(b"k" * 32, "aes-256-gcm"))
    assert aead_key(new, owner).left == MAX_MESSAGES
    too_many = b"k" * 32 + (MAX_MESSAGES + 1).to_bytes(8)
    await new.refused(Code.INVALID, "import_sealed", "aes-256-gcm", new.sealed(too_many, "aes-256-gcm"))


async def test_an_exportable_key_stays_so_in_the_next_holder_of_its_slot(network: Network) -> None:
    old, new = await network(EXPORT), await network(EXPORT)
    for exportable in (True, False):
        await old.ask("generate", "sr25519", exportable)
    await new.crypto.import_state(await old.crypto.export_state())
    assert [one.exportable for one in await new.ask("handles")] == [True, False]
    before = msgspec.msgpack.encode(["tea.crypto-state.v1", {"alice": [["h", "ed25519", bytes(32), 0]]}])
    await new.crypto.import_state(before)  # what an earlier version exported
    assert [one.exportable for one in await new.ask("handles")] == [False]


# -- keys of their owners


def forms() -> dict[str, tuple[bytes, bytes]]:
    """algorithm -> (what is sealed, the public key as another implementation has it)."""
    made: dict[str, tuple[bytes, bytes]] = {}
    for name, curve, size in (
        ("p-256", ec.SECP256R1(), 32),
        ("p-384", ec.SECP384R1(), 48),
        ("secp256k1", ec.SECP256K1(), 32),
    ):
        key = ec.generate_private_key(curve)
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        made[name] = (key.private_numbers().private_value.to_bytes(size), point)
    seed = ed25519.Ed25519PrivateKey.generate()
    made["ed25519"] = (seed.private_bytes_raw(), seed.public_key().public_bytes_raw())
    spki = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for name in ("rsa-pss-2048", "rsa-oaep-2048"):
        made[name] = (RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), spki)
    return made


FORMS = forms()


@pytest.mark.parametrize("algorithm", FORMS)
async def test_an_owner_s_key_comes_in_sealed_and_is_that_key(network: Network, algorithm: str) -> None:
    enclave = await network()
    secret, public = FORMS[algorithm]
    handle = await enclave.ask("import_sealed", algorithm, enclave.sealed(secret, algorithm))
    assert await enclave.ask("public_key", handle) == public
    if algorithm in VERIFIERS:
        assert await enclave.ask("verify", algorithm, public, b"m", await enclave.ask("sign", handle, b"m"))
    else:
        sealed = await enclave.ask("rsa_oaep_encrypt", public, b"m")
        assert await enclave.ask("rsa_oaep_decrypt", handle, sealed) == b"m"


async def test_an_rsa_key_comes_in_and_its_public_half_goes_out_in_the_original_s_form(network: Network) -> None:
    enclave = await network()
    pkcs1 = RSA.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    handle = await enclave.ask("import_sealed", "rsa-oaep-2048", enclave.sealed(pkcs1, "rsa-oaep-2048"))
    public = await enclave.ask("public_key", handle, "pkcs1")
    assert public == RSA.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    sealed = await enclave.ask("rsa_oaep_encrypt", public, b"m")
    assert await enclave.ask("rsa_oaep_decrypt", handle, sealed) == b"m"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_what_is_no_key_of_its_algorithm_is_invalid_and_not_repeated(network: Network, algorithm: str) -> None:
    enclave = await network()
    order = {"p-256": 2**256 - 1, "secp256k1": 2**256 - 1, "p-384": 2**384 - 1}
    wrong = [b"", b"x", b"SECRET" * 6, bytes(31), bytes(33), bytes(96), bytes(200)]
    if algorithm in order:
        size = 48 if algorithm == "p-384" else 32
        wrong += [bytes(size), order[algorithm].to_bytes(size), b"\1" + bytes(size)]
    elif algorithm not in SEEDED:
        wrong.append(RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))
        for other in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())):
            wrong.append(other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        if "2048" not in algorithm:
            wrong.append(FORMS["rsa-pss-2048"][0])
    for secret in wrong:
        error = await enclave.refused(Code.INVALID, "import_sealed", algorithm, enclave.sealed(secret, algorithm))
        assert "SECRET" not in error.sentence
    await enclave.refused(Code.UNTRUSTED, "import_sealed", algorithm, enclave.sealed(bytes(32), "secret"))
    await enclave.refused(Code.INVALID, "import_sealed", algorithm, bytes(8193))
    await enclave.refused(Code.INVALID, "import_sealed", "rot13", enclave.sealed(bytes(32), "rot13"))
    assert await enclave.ask("handles") == []


async def test_an_import_that_ends_after_its_actor_left_leaves_no_key(network: Network) -> None:
    enclave = await network()

    async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
        await enclave.crypto.forget("alice")
        return function(*args)

    enclave.services.run_in_thread = run_in_thread
    sealed = enclave.sealed(FORMS["rsa-pss-2048"][0], "rsa-pss-2048")
    await enclave.refused(Code.UNAVAILABLE, "import_sealed", "rsa-pss-2048", sealed)
    assert enclave.crypto.usage()["handles"] == 0


async def test_a_key_that_is_forgotten_while_evidence_is_verified_does_not_leave(network: Network) -> None:
    old, new = await network(EXPORT), await network()
    handle = await old.ask("generate", "ed25519", True)

    async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
        await old.ask("forget_key", handle)
        return function(*args)

    old.services.run_in_thread = run_in_thread
    await old.refused(Code.NOT_FOUND, "export_sealed", handle, *await new.evidence(), "e2")


async def test_a_grant_that_is_taken_back_while_evidence_is_verified_holds_the_key_back(network: Network) -> None:
    old, new = await network(EXPORT), await network()
    handle = await old.ask("generate", "ed25519", True)

    async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
        old.crypto.reconfigure(CryptoConfig())
        return function(*args)

    old.services.run_in_thread = run_in_thread
    await old.refused(Code.DENIED, "export_sealed", handle, *await new.evidence(), "e2")
    await old.refused(Code.DENIED, "export_sealed", handle, *await new.evidence(), "e2")
    await old.refused(Code.DENIED, "generate", "ed25519", True)
    assert old.crypto.usage()["exported"] == 0


@pytest.mark.parametrize("export", [{"alice": []}, {"alice": "e2"}, ["alice"], {"alice": [1]}])
async def test_an_export_that_makes_no_sense_is_refused(export: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Crypto, InMemoryServices("crypto"), {"export": export})
