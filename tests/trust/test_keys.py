"""Keys: one algorithm and one spelling each; secrets are not shown; what is not a good key or signature is refused.

May not: hold a key that is used anywhere else. Rule: RFC 8032, FIPS 186-5, RFC 6979; docs/architecture.md, "Trust".
"""

from __future__ import annotations

import base64
import copy
import pickle
from typing import Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.keys import PrivateKey, PublicKey, SigningCode, SigningError

ALGORITHMS: tuple[Literal["ed25519", "p384"], ...] = ("ed25519", "p384")
KEYS = {name: PrivateKey.generate(name) for name in ALGORITHMS}
both = pytest.mark.parametrize("key", KEYS.values(), ids=ALGORITHMS)


def code_of(text: str) -> str:
    with pytest.raises(SigningError) as caught:
        PublicKey.parse(text)
    return caught.value.code


@both
def test_a_signature_holds_for_its_key_and_data(key: PrivateKey) -> None:
    key.public.verify(key.sign(b"data"), b"data")


@both
@given(flip=st.integers(0, 511), data=st.binary(max_size=100))
def test_a_flipped_bit_breaks_a_signature(key: PrivateKey, flip: int, data: bytes) -> None:
    signature = bytearray(key.sign(data))
    signature[flip // 8] ^= 1 << flip % 8
    with pytest.raises(SigningError) as caught:
        key.public.verify(bytes(signature), data)
    assert caught.value.code == SigningCode.BAD_SIGNATURE


@both
def test_a_signature_of_other_data_is_refused(key: PrivateKey) -> None:
    with pytest.raises(SigningError, match="does not hold"):
        key.public.verify(key.sign(b"data"), b"other")


@both
@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: b"", lambda s: bytes(len(s))])
def test_a_signature_of_another_form_is_refused(key: PrivateKey, change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SigningError) as caught:
        key.public.verify(change(key.sign(b"data")), b"data")
    assert caught.value.code == SigningCode.BAD_SIGNATURE


def test_a_p384_signature_in_der_is_refused() -> None:
    raw = ec.generate_private_key(ec.SECP384R1())
    key = PrivateKey(raw)
    from cryptography.hazmat.primitives import hashes

    with pytest.raises(SigningError):
        key.public.verify(raw.sign(b"data", ec.ECDSA(hashes.SHA384())), b"data")


@both
def test_signing_twice_gives_the_same_bytes(key: PrivateKey) -> None:
    assert key.sign(b"data") == key.sign(b"data")


@both
def test_the_text_of_a_public_key_reads_back(key: PrivateKey) -> None:
    again = PublicKey.parse(key.public.text)
    assert again == key.public
    assert hash(again) == hash(key.public)
    assert again.algorithm == key.public.algorithm == key.public.text.partition(":")[0]
    assert again.key_id == key.public.key_id
    assert len(again.key_id) == 16
    again.verify(key.sign(b"data"), b"data")


def test_keys_differ() -> None:
    assert KEYS["ed25519"].public != KEYS["p384"].public
    assert KEYS["ed25519"].public != "a text"


def test_the_key_id_is_pinned() -> None:
    key = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)).public
    assert key.text == "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
    assert key.key_id.hex() == "d727ab7581a5dfcad5ad2bc82885f66e"


GOOD = KEYS["ed25519"].public.text
P384 = KEYS["p384"].public.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519",
        GOOD.removeprefix("ed25519:"),
        GOOD.replace("ed25519:", "rsa:"),
        GOOD.replace("ed25519:", "p384:"),
        P384.replace("p384:", "ed25519:"),
        GOOD + "\n",
        GOOD.upper(),
        " " + GOOD,
        GOOD[:-4],
        GOOD.rstrip("="),
        "ed25519:" + "é" * 44,
        "p384:" + base64.b64encode(b"\x02" + b"\xff" * 48).decode(),
        "p384:" + base64.b64encode(b"\x05" + b"\x01" * 48).decode(),
    ],
)
def test_text_that_is_no_key_is_refused(text: str) -> None:
    assert code_of(text) == SigningCode.BAD_KEY


def test_another_spelling_of_the_same_key_is_refused() -> None:
    # 32 bytes in base64 leave two bits unused in the last digit: setting them must not make a second name.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits[digits.index(GOOD[-2]) | 1]
    assert code_of(GOOD[:-2] + last + "=") == SigningCode.BAD_KEY


@pytest.mark.parametrize(
    "raw",
    [
        (0).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        (2**255 - 20).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        ((1 << 255) | 1).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        b"\xff" * 32,
    ],
)
def test_a_weak_or_not_canonical_ed25519_point_is_no_key(raw: bytes) -> None:
    assert code_of("ed25519:" + base64.b64encode(raw).decode()) == SigningCode.BAD_KEY


@given(st.text(max_size=80))
def test_parsing_any_text_gives_a_key_or_a_refusal(text: str) -> None:
    try:
        assert PublicKey.parse(text).text == text
    except SigningError:
        pass


@both
@pytest.mark.parametrize("password", [None, b"correct horse"])
def test_a_private_key_goes_through_pem(key: PrivateKey, password: bytes | None) -> None:
    pem = key.to_pem(password)
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY" if password else b"-----BEGIN PRIVATE KEY")
    again = PrivateKey.from_pem(pem, password)
    assert again.public == key.public
    assert again.sign(b"x") == key.sign(b"x")


@both
@pytest.mark.parametrize(("written", "read"), [(b"horse", b"donkey"), (b"horse", None), (None, b"some")])
def test_a_wrong_password_is_refused(key: PrivateKey, written: bytes | None, read: bytes | None) -> None:
    with pytest.raises(SigningError) as caught:
        PrivateKey.from_pem(key.to_pem(written), read)
    assert caught.value.code == SigningCode.BAD_PASSWORD
    assert "horse" not in str(caught.value)
    assert "donkey" not in str(caught.value)


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"hello",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(rsa.generate_private_key(65537, 2048)),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_a_file_that_is_no_key_of_ours_is_refused(pem: bytes) -> None:
    for password in (None, b"x"):
        with pytest.raises(SigningError) as caught:
            PrivateKey.from_pem(pem, password)
        assert caught.value.code in (SigningCode.BAD_KEY, SigningCode.BAD_PASSWORD)


def test_an_unknown_algorithm_makes_no_key() -> None:
    with pytest.raises(SigningError) as caught:
        PrivateKey.generate("rsa")  # type: ignore[arg-type]
    assert caught.value.code == SigningCode.WRONG_ALGORITHM


@both
def test_a_private_key_shows_its_public_half_only(key: PrivateKey) -> None:
    assert repr(key) == f"PrivateKey(of {key.public.text})"
    assert repr(key.public) == f"PublicKey({key.public.text})"
    assert str(key) == repr(key)
    assert not hasattr(key, "__dict__")


@both
def test_keys_are_neither_pickled_nor_copied(key: PrivateKey) -> None:
    for thing in (key, key.public):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="never"):
                take(thing)
