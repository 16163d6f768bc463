"""Envelopes written by an independent program open; every other kind is refused, and nothing but `CmsError` comes out.

May not: make its own vectors with the code under test. Rule: RFC 5652; vectors/SOURCES.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.providers.nitro.kms import ber
from tea.providers.nitro.kms.cms import CmsCode, CmsError, open_envelope, parse_envelope
from tea.providers.nitro.kms.recipient import RecipientKey

VECTORS = Path(__file__).parent / "vectors"
GOOD = {
    "data-key": "data-key",
    "data-key-stream": "data-key",
    "data-key-issuer": "data-key",
    "empty": "empty",
    "six-kib": "six-kib",
    "six-kib-stream": "six-kib",
}
REFUSED = {
    "refuse-oaep-sha1": CmsCode.ALGORITHM,
    "refuse-mgf1-sha1": CmsCode.ALGORITHM,
    "refuse-oaep-label": CmsCode.ALGORITHM,
    "refuse-pkcs1": CmsCode.ALGORITHM,
    "refuse-aes128": CmsCode.ALGORITHM,
    "refuse-gcm": CmsCode.MALFORMED,
    "refuse-two-recipients": CmsCode.MALFORMED,
    "refuse-other-key": CmsCode.DOES_NOT_OPEN,
}


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.cms").read_bytes()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    loaded = load_pem_private_key((VECTORS / "recipient.key").read_bytes(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return loaded


@pytest.mark.parametrize(("name", "plaintext"), GOOD.items())
def test_what_openssl_wrote_opens(name: str, plaintext: str, key: rsa.RSAPrivateKey) -> None:
    assert RecipientKey(key).open(vector(name)) == (VECTORS / f"{plaintext}.txt").read_bytes()


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_another_algorithm_recipient_or_structure_is_refused(name: str, code: CmsCode, key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(CmsError) as caught:
        open_envelope(key, vector(name))
    assert caught.value.code is code


def test_bytes_behind_the_envelope_are_refused(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(CmsError) as caught:
        open_envelope(key, vector("data-key") + b"\0")
    assert caught.value.code is CmsCode.MALFORMED


def test_a_changed_content_or_key_does_not_open_and_says_no_more_than_that(key: rsa.RSAPrivateKey) -> None:
    whole = vector("data-key")
    envelope = parse_envelope(whole)
    said = set()
    for part in (envelope.encrypted_key, envelope.ciphertext[-16:]):
        at = whole.index(part)
        for place in (at, at + len(part) - 1):
            changed = bytearray(whole)
            changed[place] ^= 0x55
            try:
                assert open_envelope(key, bytes(changed)) != (VECTORS / "data-key.txt").read_bytes()
            except CmsError as error:
                said.add((error.code, error.sentence))
    assert len(said) == 1
    assert next(iter(said))[0] is CmsCode.DOES_NOT_OPEN


@pytest.mark.parametrize("name", GOOD)
def test_every_cut_is_refused(name: str) -> None:
    whole = vector(name)
    for size in {*range(min(len(whole), 480)), len(whole) - 1}:
        with pytest.raises(CmsError):
            parse_envelope(whole[:size])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_a_cms_error(data: bytes) -> None:
    try:
        parse_envelope(data)
    except CmsError:
        pass


@settings(deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.lists(st.tuples(st.integers(0, 6600), st.integers(0, 255)), max_size=4))
def test_any_change_is_an_envelope_or_a_cms_error(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(vector(name))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        parse_envelope(bytes(data))
    except CmsError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x04\x80\x00\x00",
        b"\x1f\x81\x00\x00",
        b"\x00\x00",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x30\x82\x00",
        b"\x30\x80\x04\x01a",
        b"\x30\x80\x04\x01a\x00",
        b"\x30\x80" * 20 + b"\x00\x00" * 20,
        b"\x30\x03\x04\x02a",
        b"\x04\x01ab",
    ],
)
def test_what_is_no_ber_is_refused(data: bytes) -> None:
    with pytest.raises(ber.BerError):
        ber.parse(data, 1000)


def test_nothing_over_the_limit_is_read() -> None:
    with pytest.raises(ber.BerError):
        ber.parse(bytes(1001), 1000)


def test_a_long_form_length_is_read_as_ber_allows() -> None:
    assert ber.parse(b"\x04\x84\x00\x00\x00\x01a", 100).content == b"a"


def test_a_recipient_key_shows_no_secret_and_is_never_pickled(key: rsa.RSAPrivateKey) -> None:
    import pickle

    recipient = RecipientKey(key)
    assert f"{key.private_numbers().d:x}" not in repr(recipient)
    with pytest.raises(TypeError):
        pickle.dumps(recipient)
    assert len(recipient.public) == 294


def test_a_key_of_another_size_is_no_recipient() -> None:
    with pytest.raises(ValueError, match="2048"):
        RecipientKey(rsa.generate_private_key(65537, 1024))
