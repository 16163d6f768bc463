"""Keys that are held elsewhere: a token's or a service's signature counts like a file's, for its own certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.reader import open_image
from tea.enclave_image.eif.signer import FileSigner, HeldSigner, open_signer
from tea.enclave_image.eif.verify import verify_image
from tea.enclave_image.eif.writer import sign_image
from tea.parent_client.refusal import Refusal
from tea.trust.keys import ED25519, P384, PrivateKey

from ..conftest import certificate_of, pem_of


def held(key: PrivateKey) -> ec.EllipticCurvePrivateKey:
    loaded = serialization.load_pem_private_key(key.to_pem(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def test_a_held_key_signs_an_image(tiny: Path) -> None:
    holder = PrivateKey.generate(P384)
    signer = HeldSigner(holder, certificate_of(held(holder)))
    sign_image(tiny, tiny, signer)
    with open_image(tiny) as image:
        assert verify_image(image, signed=True).signature is not None


def test_another_key_s_certificate_is_refused() -> None:
    with pytest.raises(ImageError) as refused:
        HeldSigner(PrivateKey.generate(P384), certificate_of(held(PrivateKey.generate(P384))))
    assert refused.value.code is ImageCode.SIGNER


def test_a_key_of_another_kind_is_refused() -> None:
    certificate = certificate_of(held(PrivateKey.generate(P384)))
    with pytest.raises(ImageError, match="P-384"):
        HeldSigner(PrivateKey.generate(ED25519), certificate)
    with pytest.raises(ImageError):
        HeldSigner(PrivateKey.generate(P384), b"no certificate")


def test_a_key_is_a_file_or_whatever_the_parent_s_part_opens(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "key.pem").write_bytes(pem_of(key))
    (tmp_path / "certificate.pem").write_bytes(certificate_of(key))
    assert isinstance(open_signer(str(tmp_path / "key.pem"), tmp_path / "certificate.pem"), FileSigner)
    for spec in ("pkcs11:nonsense", "awskms:"):
        with pytest.raises(Refusal):
            open_signer(spec, tmp_path / "certificate.pem")
