"""Signatures: made and checked on every curve, kept true when signed again, and every way of being wrong."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.describe import describe_image
from tea.enclave_image.eif.layout import SectionType
from tea.enclave_image.eif.reader import open_image
from tea.enclave_image.eif.signature import parse_signatures, payload_of, sign_pcr0, verify_signature
from tea.enclave_image.eif.signer import FileSigner
from tea.enclave_image.eif.verify import verify_image
from tea.enclave_image.eif.writer import sign_image, write_image

from ..conftest import CMDLINE, KERNEL, METADATA, certificate_of, pem_of, pieces, raw_image

Make = Callable[..., FileSigner]
PCR0 = bytes(range(48))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_curve_signs_and_verifies(tiny: Path, make_signer: Make, curve: ec.EllipticCurve) -> None:
    signer = make_signer(curve)
    sign_image(tiny, tiny, signer)
    with open_image(tiny) as image:
        described = verify_image(image, signed=True)
    der = x509.load_pem_x509_certificate(signer.certificate_pem).public_bytes(serialization.Encoding.DER)
    assert described.pcrs()[8] == hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()


def test_an_image_can_be_written_signed(tmp_path: Path, make_signer: Make) -> None:
    signer = make_signer()
    write_image(tmp_path / "a.eif", pieces(), signer=signer)
    with open_image(tmp_path / "a.eif") as image:
        assert verify_image(image, signed=True).signature is not None


def test_signing_again_replaces_the_signature_and_keeps_all_else(tiny: Path, make_signer: Make) -> None:
    with open_image(tiny) as image:
        before = describe_image(image)
    for curve in (ec.SECP521R1(), ec.SECP256R1(), ec.SECP384R1()):
        sign_image(tiny, tiny, make_signer(curve))
    with open_image(tiny) as image:
        after = verify_image(image, signed=True)
        assert len(image.of(SectionType.SIGNATURE)) == 1
    assert {index: after.pcrs()[index] for index in (0, 1, 2)} == before.pcrs()
    assert after.metadata == before.metadata


def test_a_signature_in_the_middle_stays_there_and_what_follows_moves(tmp_path: Path, make_signer: Make) -> None:
    old = cbor2.dumps([{"signing_certificate": list(make_signer().certificate_pem), "signature": [0]}])
    path = tmp_path / "middle.eif"
    path.write_bytes(raw_image([(1, KERNEL), (2, CMDLINE), (4, old), (5, METADATA.encode()), (3, b"after")]))
    sign_image(path, path, make_signer())
    with open_image(path) as image:
        verify_image(image, signed=True)
        assert [one.type for one in image.sections][2] is SectionType.SIGNATURE
        assert b"".join(image.chunks(image.of(SectionType.RAMDISK)[0])) == b"after"


def test_what_is_signed_is_what_aws_signs() -> None:
    assert payload_of(PCR0) == bytes.fromhex(
        "a2" + "6e" + b"register_index".hex() + "00" + "6e" + b"register_value".hex() + "9830"
    ) + b"".join(bytes([one]) if one < 24 else bytes([0x18, one]) for one in PCR0)


def test_a_signature_over_another_image_is_described_and_refused(tmp_path: Path, make_signer: Make) -> None:
    section = sign_pcr0(PCR0, make_signer())
    path = tmp_path / "other.eif"
    path.write_bytes(raw_image([(1, KERNEL), (2, CMDLINE), (5, METADATA.encode()), (4, section)]))
    with open_image(path) as image:
        assert describe_image(image).to_json()["SignatureCheck"] is False
        with pytest.raises(ImageError) as refused:
            verify_image(image)
    assert refused.value.code is ImageCode.SIGNATURE


def rebuilt(section: bytes, **changes: object) -> bytes:
    """A signature section with parts of its COSE_Sign1 or its entry changed."""
    entry = cbor2.loads(section)[0]
    cose = cbor2.loads(bytes(entry["signature"]))
    for place, name in enumerate(("protected", "unprotected", "payload", "signature")):
        cose[place] = changes.get(name, cose[place])
    entry["signature"] = changes.get("cose", list(cbor2.dumps(changes.get("message", cose))))
    entry["signing_certificate"] = changes.get("certificate", entry["signing_certificate"])
    return cbor2.dumps(changes.get("entries", [entry]))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signature": bytes(96)}, ImageCode.SIGNATURE),
        ({"signature": bytes(95)}, ImageCode.SIGNATURE),
        ({"signature": b""}, ImageCode.SIGNATURE),
        ({"payload": payload_of(bytes(48))}, ImageCode.SIGNATURE),
        ({"protected": cbor2.dumps({1: -7})}, ImageCode.SIGNATURE),
        ({"protected": cbor2.dumps({1: -35, 4: b"kid"})}, ImageCode.SIGNATURE),
        ({"protected": b""}, ImageCode.SIGNATURE),
        ({"unprotected": {4: b"kid"}}, ImageCode.SIGNATURE_FORMAT),
        ({"payload": None}, ImageCode.SIGNATURE_FORMAT),
        ({"message": [1, 2, 3]}, ImageCode.SIGNATURE_FORMAT),
        ({"message": cbor2.CBORTag(18, [b"", {}, b"", b""])}, ImageCode.SIGNATURE_FORMAT),
        ({"cose": [256]}, ImageCode.SIGNATURE_FORMAT),
        ({"cose": [-1]}, ImageCode.SIGNATURE_FORMAT),
        ({"cose": [True]}, ImageCode.SIGNATURE_FORMAT),
        ({"cose": b"bytes"}, ImageCode.SIGNATURE_FORMAT),
        ({"cose": "text"}, ImageCode.SIGNATURE_FORMAT),
        ({"certificate": list(b"no certificate")}, ImageCode.CERTIFICATE),
        ({"entries": []}, ImageCode.SIGNATURE_FORMAT),
        ({"entries": {}}, ImageCode.SIGNATURE_FORMAT),
        ({"entries": [{}]}, ImageCode.SIGNATURE_FORMAT),
        ({"entries": [[]]}, ImageCode.SIGNATURE_FORMAT),
    ],
)
def test_every_wrong_signature_is_refused(make_signer: Make, changes: dict[str, object], code: ImageCode) -> None:
    section = rebuilt(sign_pcr0(PCR0, make_signer()), **changes)
    with pytest.raises(ImageError) as refused:
        verify_signature(parse_signatures(section, 0)[0], PCR0, 0)
    assert refused.value.code is code


def test_another_key_s_certificate_is_refused(make_signer: Make) -> None:
    other = make_signer()
    section = rebuilt(sign_pcr0(PCR0, make_signer()), certificate=list(other.certificate_pem))
    with pytest.raises(ImageError) as refused:
        verify_signature(parse_signatures(section, 0)[0], PCR0)
    assert refused.value.code is ImageCode.SIGNATURE


def test_an_rsa_certificate_is_refused(make_signer: Make) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    section = rebuilt(sign_pcr0(PCR0, make_signer()), certificate=list(certificate_of(key)))
    with pytest.raises(ImageError) as refused:
        verify_signature(parse_signatures(section, 0)[0], PCR0)
    assert refused.value.code is ImageCode.CERTIFICATE
    with pytest.raises(ImageError) as refused:
        FileSigner(pem_of(key), certificate_of(key))
    assert refused.value.code is ImageCode.SIGNER


def test_only_the_first_signature_counts(make_signer: Make) -> None:
    first, second = (cbor2.loads(sign_pcr0(PCR0, make_signer()))[0] for _ in range(2))
    parsed = parse_signatures(cbor2.dumps([first, second]), 0)
    assert len(parsed) == 2
    verify_signature(parsed[0], PCR0)


def test_trailing_bytes_and_long_encodings_are_refused(make_signer: Make) -> None:
    section = sign_pcr0(PCR0, make_signer())
    for bad in (section + b"\0", b"\x98\x01" + section[1:], b"\xc6" + section):
        with pytest.raises(ImageError) as refused:
            parse_signatures(bad, 0)
        assert refused.value.code is ImageCode.SIGNATURE_FORMAT


def test_a_key_that_is_not_the_certificate_s_cannot_sign(make_signer: Make) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(ImageError) as refused:
        FileSigner(pem_of(key), make_signer().certificate_pem)
    assert refused.value.code is ImageCode.SIGNER


@pytest.mark.parametrize("bad", [b"", b"no key", pem_of(ec.generate_private_key(ec.SECP256K1()))])
def test_a_file_that_is_no_key_of_ours_cannot_sign(make_signer: Make, bad: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        FileSigner(bad, make_signer().certificate_pem)
    assert refused.value.code is ImageCode.SIGNER


def test_an_encrypted_key_needs_its_password(make_signer: Make) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    certificate = certificate_of(key)
    FileSigner(locked, certificate, b"secret")
    for wrong in (None, b"wrong"):
        with pytest.raises(ImageError) as refused:
            FileSigner(locked, certificate, wrong)
        assert "secret" not in str(refused.value)


def test_a_signer_that_answers_nonsense_makes_no_image(tiny: Path, make_signer: Make) -> None:
    good = make_signer()

    class Broken:
        algorithm = good.algorithm
        certificate_pem = good.certificate_pem

        def sign(self, data: bytes) -> bytes:
            return bytes(96)

    before = tiny.read_bytes()
    with pytest.raises(ImageError) as refused:
        sign_image(tiny, tiny, Broken())
    assert refused.value.code is ImageCode.SIGNER
    assert tiny.read_bytes() == before


def test_the_signer_s_repr_shows_no_key(make_signer: Make) -> None:
    assert repr(make_signer()) == "FileSigner(ES384)"


def test_a_certificate_out_of_its_time_is_refused_at_that_time(tiny: Path, make_signer: Make) -> None:
    sign_image(tiny, tiny, make_signer(days=-1))
    with open_image(tiny) as image:
        verify_image(image)
        with pytest.raises(ImageError) as refused:
            verify_image(image, at=datetime.datetime.now(datetime.UTC))
    assert refused.value.code is ImageCode.CERTIFICATE


def test_version_2_takes_no_signature_and_version_3_does(tmp_path: Path, make_signer: Make) -> None:
    for version in (2, 3):
        write_image(tmp_path / f"{version}.eif", pieces(version), version=version)
    with pytest.raises(ImageError) as refused:
        sign_image(tmp_path / "2.eif", tmp_path / "out.eif", make_signer())
    assert refused.value.code is ImageCode.VERSION
    sign_image(tmp_path / "3.eif", tmp_path / "3s.eif", make_signer())
    with open_image(tmp_path / "3s.eif") as image:
        assert verify_image(image, signed=True).image.header.version == 3


def test_a_damaged_image_is_not_signed(tiny: Path, make_signer: Make) -> None:
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    tiny.write_bytes(data)
    with pytest.raises(ImageError) as refused:
        sign_image(tiny, tiny, make_signer())
    assert refused.value.code is ImageCode.CRC
    assert tiny.read_bytes() == bytes(data)


def test_an_unsigned_image_is_refused_where_a_signature_is_asked_for(tiny: Path) -> None:
    with open_image(tiny) as image, pytest.raises(ImageError) as refused:
        verify_image(image, signed=True)
    assert refused.value.code is ImageCode.NOT_SIGNED


def test_measurements_that_are_not_the_expected_ones_are_refused(tiny: Path) -> None:
    with open_image(tiny) as image:
        pcrs = describe_image(image).pcrs()
        verify_image(image, pcrs=pcrs)
        for expected in ({0: bytes(48)}, {1: pcrs[0]}, {8: bytes(48)}):
            with pytest.raises(ImageError) as refused:
                verify_image(image, pcrs=expected)
            assert refused.value.code is ImageCode.PCR
