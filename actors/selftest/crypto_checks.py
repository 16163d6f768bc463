"""crypto: keys by handle, signatures, encryption, derivation, sharing, addresses. Every key made here is forgotten.

May not: keep a handle. Answers of others' implementations are pinned where a published vector is short.
Rule: README.md of this folder.
"""

from __future__ import annotations

from functools import partial

from rows import Rows, expect, require

from tea.sdk import Code, Link

MESSAGE = b"selftest"
DIGEST = bytes(range(32))
SIGNERS = ("ed25519", "sr25519", "p-256", "p-384", "secp256k1")
KECCAK_OF_NOTHING = bytes.fromhex("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")
ALICE = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
ALICE_SS58 = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
"""Substrate's development account, under prefix 42."""
BITCOIN_KEY = bytes.fromhex("0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c")
BITCOIN_ADDRESS = "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"
"""The first receiving address of BIP-84's test vectors, and its public key."""


def check(crypto: Link, rows: Rows) -> None:
    """All operations of crypto. RSA keys take seconds to make, so one of each kind is made."""
    made: list[str] = []
    try:
        _signatures(crypto, rows, made)
        _recoverable(crypto, rows, made)
        _encryption(crypto, rows, made)
        _agreement(crypto, rows, made)
        _derivation(crypto, rows, made)
        _bitcoin(crypto, rows, made)
        _substrate(crypto, rows, made)
        _public(crypto, rows)
        rows.works("handles", lambda: require({h["handle"] for h in crypto.handles()} >= set(made), "one is missing"))
    finally:
        if rows.granted("forget_key"):
            rows.works("forget_key", lambda: expect([crypto.forget_key(h) for h in made], [True] * len(made)))
    rows.works("forget_key", lambda: expect(crypto.forget_key("no such handle"), False), "none of that name")


def _key(crypto: Link, rows: Rows, made: list[str], algorithm: str) -> str:
    handle = rows.works("generate", lambda: crypto.generate(algorithm), algorithm)
    if handle is not None:
        made.append(handle)
    return handle or "none was made"


def _signatures(crypto: Link, rows: Rows, made: list[str]) -> None:
    rows.refuses("generate", Code.INVALID, lambda: crypto.generate("rot13"))
    for algorithm in (*SIGNERS, "rsa-pss-2048"):
        handle = _key(crypto, rows, made, algorithm)
        public = rows.works("public_key", partial(crypto["public_key"], handle), algorithm) or b""
        signature = rows.works("sign", partial(crypto["sign"], handle, MESSAGE), algorithm) or b""
        good = partial(crypto["verify"], algorithm, public, MESSAGE, signature)
        bad = partial(crypto["verify"], algorithm, public, MESSAGE + b".", signature)
        rows.works("verify", lambda good=good, bad=bad: expect((good(), bad()), (True, False)), algorithm)  # type: ignore[misc]
    rows.refuses("public_key", Code.NOT_FOUND, lambda: crypto.public_key("no such handle"))
    rows.refuses("sign", Code.NOT_FOUND, lambda: crypto.sign("no such handle", MESSAGE))
    rows.refuses("import_sealed", Code.UNTRUSTED, lambda: crypto.import_sealed("ed25519", b"sealed by nobody" * 8))
    rows.refuses("verify", Code.INVALID, lambda: crypto.verify("ed25519", b"no key", MESSAGE, bytes(64)))


def _recoverable(crypto: Link, rows: Rows, made: list[str]) -> None:
    handle = _key(crypto, rows, made, "secp256k1")
    signature = rows.works("sign_recoverable", lambda: crypto.sign_recoverable(handle, DIGEST)) or b""
    rows.works(
        "recover_public_key",
        lambda: expect(crypto.recover_public_key(DIGEST, signature), crypto.public_key(handle)),
    )
    rows.refuses("sign_recoverable", Code.INVALID, lambda: crypto.sign_recoverable(handle, b"short"))
    rows.works("evm_address", lambda: expect(len(crypto.evm_address(crypto.public_key(handle))), 42, "its length"))


def _encryption(crypto: Link, rows: Rows, made: list[str]) -> None:
    handle = _key(crypto, rows, made, "aes-256-gcm")
    sealed = rows.works("aead_encrypt", lambda: crypto.aead_encrypt(handle, MESSAGE, b"bound")) or b""
    rows.works("aead_decrypt", lambda: expect(crypto.aead_decrypt(handle, sealed, b"bound"), MESSAGE))
    rows.refuses("aead_decrypt", Code.UNTRUSTED, lambda: crypto.aead_decrypt(handle, sealed, b"other"))
    oaep = _key(crypto, rows, made, "rsa-oaep-2048")
    wrapped = rows.works("rsa_oaep_encrypt", lambda: crypto.rsa_oaep_encrypt(crypto.public_key(oaep), MESSAGE)) or b""
    rows.works("rsa_oaep_decrypt", lambda: expect(crypto.rsa_oaep_decrypt(oaep, wrapped), MESSAGE))
    rows.refuses("rsa_oaep_decrypt", Code.UNTRUSTED, lambda: crypto.rsa_oaep_decrypt(oaep, bytes(256)))


def _agreement(crypto: Link, rows: Rows, made: list[str]) -> None:
    ours, theirs = (_key(crypto, rows, made, "x25519") for _ in range(2))
    sealed = rows.works("hpke_seal", lambda: crypto.hpke_seal(crypto.public_key(ours), MESSAGE, b"info")) or b""
    rows.works("hpke_open", lambda: expect(crypto.hpke_open(ours, sealed, b"info"), MESSAGE))
    rows.refuses("hpke_open", Code.UNTRUSTED, lambda: crypto.hpke_open(theirs, sealed, b"info"))
    rows.works("x25519_agree", lambda: _agree(crypto, made, ours, theirs))
    rows.refuses("x25519_agree", Code.INVALID, lambda: crypto.x25519_agree(ours, bytes(32)))


def _agree(crypto: Link, made: list[str], ours: str, theirs: str) -> None:
    mine = crypto.x25519_agree(ours, crypto.public_key(theirs))
    made.append(mine)
    its = crypto.x25519_agree(theirs, crypto.public_key(ours))
    made.append(its)
    expect(crypto.aead_decrypt(its, crypto.aead_encrypt(mine, MESSAGE)), MESSAGE)


def _derivation(crypto: Link, rows: Rows, made: list[str]) -> None:
    secret = _key(crypto, rows, made, "hkdf-hmac")
    derived = rows.works("hkdf", lambda: crypto.hkdf(secret, b"selftest"))
    if derived is not None:
        made.append(derived)
    tag = rows.works("hmac", lambda: crypto.hmac(secret, MESSAGE)) or b""
    rows.works(
        "hmac_verify",
        lambda: expect([crypto.hmac_verify(secret, MESSAGE, t) for t in (tag, bytes(32))], [True, False]),
    )
    rows.refuses("hkdf", Code.NOT_FOUND, lambda: crypto.hkdf("no such handle", b""))


def _bitcoin(crypto: Link, rows: Rows, made: list[str]) -> None:
    rows.works("bitcoin_address", lambda: expect(crypto.bitcoin_address(BITCOIN_KEY), BITCOIN_ADDRESS))
    rows.refuses("bitcoin_address", Code.INVALID, lambda: crypto.bitcoin_address(BITCOIN_KEY, "moon"))
    rows.works("bitcoin_decode", lambda: expect(crypto.bitcoin_decode(BITCOIN_ADDRESS)["kind"], "p2wpkh"))
    rows.refuses("bitcoin_decode", Code.INVALID, lambda: crypto.bitcoin_decode(BITCOIN_ADDRESS[:-1] + "x"))
    handle = _key(crypto, rows, made, "secp256k1")
    keys = [BITCOIN_KEY, crypto.public_key(handle)]
    rows.works(
        "bitcoin_multisig",
        lambda: require(crypto.bitcoin_multisig(keys, 1)["address"].startswith("bc1q"), "no address of the main net"),
    )
    signature = crypto.sign(handle, DIGEST, hashed=True)
    rows.works(
        "bitcoin_witness",
        lambda: expect(crypto.bitcoin_witness(keys, 1, DIGEST, [signature])[0], b"", "the dummy in front"),
    )
    rows.refuses("bitcoin_witness", Code.UNTRUSTED, lambda: crypto.bitcoin_witness(keys, 2, DIGEST, [signature]))


def _substrate(crypto: Link, rows: Rows, made: list[str]) -> None:
    signer = _key(crypto, rows, made, "sr25519")
    fields = {"call": b"\x00\x00", "nonce": 0, "spec_version": 1, "transaction_version": 1, "genesis_hash": DIGEST}
    rows.works(
        "substrate_extrinsic",
        lambda: require(len(crypto.substrate_extrinsic(signer, fields)["extrinsic"]) > 100, "it is too short"),
    )
    rows.refuses(
        "substrate_extrinsic",
        Code.INVALID,
        lambda: crypto.substrate_extrinsic(signer, {**fields, "genesis_hash": b"short"}),
    )
    # Where an export goes is the manifest's to say, and this one says nowhere.
    rows.refuses("export_sealed", Code.DENIED, lambda: crypto.export_sealed(signer, b"document", b"statement", "e1"))


def _public(crypto: Link, rows: Rows) -> None:
    rows.works("hash", lambda: expect(crypto.hash("keccak-256", b""), KECCAK_OF_NOTHING))
    rows.refuses("hash", Code.INVALID, lambda: crypto.hash("md4", b""))
    rows.works("random", lambda: require(crypto.random(32) != crypto.random(32), "the same numbers came twice"))
    rows.refuses("random", Code.INVALID, lambda: crypto.random(0))
    shares = rows.works("shamir_split", lambda: crypto.shamir_split(MESSAGE, 2, 3)) or []
    rows.works("shamir_join", lambda: expect(crypto.shamir_join(shares[1:]), MESSAGE))
    rows.refuses("shamir_join", Code.INVALID, lambda: crypto.shamir_join(shares[:1]))
    rows.works("ss58_encode", lambda: expect(crypto.ss58_encode(ALICE), ALICE_SS58))
    rows.works("ss58_decode", lambda: expect(crypto.ss58_decode(ALICE_SS58), {"prefix": 42, "account": ALICE}))
    rows.refuses("ss58_decode", Code.INVALID, lambda: crypto.ss58_decode(ALICE_SS58[:-1] + "X"))
    rows.works(
        "multisig_address",
        lambda: require(crypto.multisig_address([ALICE, DIGEST], 2).startswith("5"), "not under prefix 42"),
    )
