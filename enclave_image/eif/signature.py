"""The signature section: a certificate and a COSE_Sign1 over PCR0; what makes PCR8.

May not: say whose certificate it is: PCR8 is the certificate, and who relies on it compares that.
Rule: AWS, aws-nitro-enclaves-image-format, src/utils (`PcrSignature`, `PcrInfo`); RFC 9052 section 4.4, RFC 9053
section 2.1. CBOR as serde writes it: byte vectors are arrays of integers, maps are in the order of the fields.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tea.trust import pcr

from .codes import ImageCode, ImageError
from .layout import MAX_SIGNATURE_SIZE
from .signer import ALGORITHMS, Algorithm, Signer

_ALG: Final = 1
_MAX_SIGNATURES: Final = 32


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """One entry of the section. Only the first is checked by the hypervisor, and here."""

    certificate_pem: bytes
    certificate: x509.Certificate
    cose: bytes

    @property
    def pcr8(self) -> bytes:
        """What PCR8 is when this signs the image: the certificate's DER is what is measured."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return pcr.image_pcr(hashlib.sha384(der).digest())


def sign_pcr0(pcr0: bytes, signer: Signer) -> bytes:
    """The data of a signature section. Raises `ImageError(SIGNER)` when the signer's answer does not hold."""
    protected = cbor2.dumps({_ALG: signer.algorithm.cose})
    payload = payload_of(pcr0)
    signature = signer.sign(_to_be_signed(protected, payload))
    cose = cbor2.dumps([protected, {}, payload, signature])
    section = cbor2.dumps([{"signing_certificate": list(signer.certificate_pem), "signature": list(cose)}])
    try:
        verify_signature(parse_signatures(section, 0)[0], pcr0)
    except ImageError as error:
        raise ImageError(
            ImageCode.SIGNER, f"what was signed does not hold ({error.code.value}): is this the certificate of the key?"
        ) from None
    return section


def payload_of(pcr0: bytes) -> bytes:
    """What is signed: register 0 and its value."""
    return cbor2.dumps({"register_index": 0, "register_value": list(pcr0)})


def parse_signatures(data: bytes, offset: int) -> tuple[ImageSignature, ...]:
    """The entries of a section whose data begins at `offset`; nothing is verified.

    Raises `ImageError`: SIGNATURE_SIZE, SIGNATURE_FORMAT, CERTIFICATE.
    """
    if len(data) > MAX_SIGNATURE_SIZE:
        raise ImageError(
            ImageCode.SIGNATURE_SIZE, f"{len(data)} bytes, at most {MAX_SIGNATURE_SIZE} are accepted", offset=offset
        )
    entries = _plain_cbor(data, offset)
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_SIGNATURES:
        raise _malformed("no array of signatures", offset)
    return tuple(_parse_entry(entry, offset) for entry in entries)


_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What `cryptography` raises for a certificate that is not one."""


def verify_signature(one: ImageSignature, pcr0: bytes, offset: int | None = None) -> Algorithm:
    """Check that the certificate's key signed this PCR0; the algorithm.

    Raises `ImageError`: SIGNATURE_FORMAT, CERTIFICATE, SIGNATURE.
    """
    # 1. The key: an elliptic curve that the format knows, in the certificate.
    key = one.certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ALGORITHMS:
        raise ImageError(
            ImageCode.CERTIFICATE, "the signing certificate's key is not on P-256, P-384 or P-521", offset=offset
        )
    algorithm = ALGORITHMS[key.curve.name]
    # 2. The structure: untagged COSE_Sign1 with exactly the algorithm of the key.
    protected, payload, signature = _parse_cose(one.cose, offset)
    if protected != cbor2.dumps({_ALG: algorithm.cose}):
        raise ImageError(
            ImageCode.SIGNATURE, f"its protected header is not exactly {algorithm.name}, the key's one", offset=offset
        )
    if len(signature) != 2 * algorithm.coordinate:
        raise ImageError(
            ImageCode.SIGNATURE, f"{len(signature)} bytes of signature, expected {2 * algorithm.coordinate}",
            offset=offset,
        )  # fmt: skip
    # 3. The signature.
    r, s = (
        int.from_bytes(half, "big") for half in (signature[: algorithm.coordinate], signature[algorithm.coordinate :])
    )
    try:
        key.verify(encode_dss_signature(r, s), _to_be_signed(protected, payload), ec.ECDSA(algorithm.hash()))
    except InvalidSignature:
        raise ImageError(ImageCode.SIGNATURE, "the signature does not hold", offset=offset) from None
    # 4. What it was made over: this image's PCR0, byte for byte as AWS compares it.
    if payload != payload_of(pcr0):
        raise ImageError(
            ImageCode.SIGNATURE, f"the signature is over another register than PCR0 = {pcr0.hex()}", offset=offset
        )
    return algorithm


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload])


def _parse_entry(entry: object, offset: int) -> ImageSignature:
    if not isinstance(entry, dict) or set(entry) != {"signing_certificate", "signature"}:
        raise _malformed("an entry that is not {signing_certificate, signature}", offset)
    pem = _octets(entry["signing_certificate"], offset)
    cose = _octets(entry["signature"], offset)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        # Some fields are read when they are first looked at: here, so that nobody behind stumbles over one.
        _ = certificate.public_key(), certificate.issuer, certificate.signature_algorithm_oid
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except _UNREADABLE as error:
        raise ImageError(
            ImageCode.CERTIFICATE, f"the signing certificate is no PEM certificate: {error}", offset=offset
        ) from None
    return ImageSignature(pem, certificate, cose)


def _parse_cose(data: bytes, offset: int | None) -> tuple[bytes, bytes, bytes]:
    message = _plain_cbor(data, offset)
    if not isinstance(message, list) or len(message) != 4 or message[1] != {}:
        raise _malformed("no untagged COSE_Sign1 without unprotected headers", offset)
    protected, _, payload, signature = message
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise _malformed("a COSE_Sign1 whose parts are not bytes", offset)
    return protected, payload, signature


def _plain_cbor(data: bytes, offset: int | None) -> object:
    """CBOR of plain data that has one encoding only: decoded, and the same bytes when encoded again."""
    try:
        # disable_reads of tags: what is not plain data does not come back as the same bytes.
        value = cbor2.CBORDecoder(io.BytesIO(data), tag_hook=_no_tag).decode()
        same = cbor2.dumps(value) == data
    except (cbor2.CBORError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError, MemoryError):
        raise _malformed("no CBOR", offset) from None
    if not same:
        raise _malformed("CBOR with bytes after it, or in another encoding than the shortest", offset)
    return value


def _no_tag(decoder: object, tag: object) -> object:
    raise ValueError("a tag")


def _octets(value: object, offset: int) -> bytes:
    if isinstance(value, list) and all(type(one) is int and 0 <= one <= 255 for one in value):
        return bytes(value)
    raise _malformed("a byte vector that is no array of integers from 0 to 255", offset)


def _malformed(what: str, offset: int | None) -> ImageError:
    return ImageError(ImageCode.SIGNATURE_FORMAT, f"the signature section holds {what}", offset=offset)
