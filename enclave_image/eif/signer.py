"""Who signs an image: one small interface, and the signer whose key is a file.

May not: see more of a key than its holder gives: a signer answers a signature over bytes, nothing else.
Rule: RFC 9053 section 2.1 (ECDSA with COSE); AWS, Nitro Enclaves user guide, "Sign an enclave image file".
"""

from __future__ import annotations

import base64
import enum
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tea.trust import keys as trust

from .codes import ImageCode, ImageError


class Algorithm(enum.Enum):
    """An algorithm that an image can be signed with: COSE's number, the hash, bytes of a coordinate."""

    ES256 = (-7, hashes.SHA256, 32)
    ES384 = (-35, hashes.SHA384, 48)
    ES512 = (-36, hashes.SHA512, 66)

    def __init__(self, cose: int, hash_: Callable[[], hashes.HashAlgorithm], coordinate: int) -> None:
        self.cose = cose
        self.hash = hash_
        self.coordinate = coordinate


ALGORITHMS: Final = {"secp256r1": Algorithm.ES256, "secp384r1": Algorithm.ES384, "secp521r1": Algorithm.ES512}
"""Curve to algorithm: the key decides, as AWS's tools do."""
HELD: Final = ("pkcs11:", "awskms:")
"""Keys that do not lie in a file."""


class Signer(Protocol):
    """Something that holds a key: a file, a PKCS#11 token, a key management service."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of its key."""

    @property
    def certificate_pem(self) -> bytes:
        """The certificate of its key; it goes into the image, and its digest into PCR8."""

    def sign(self, data: bytes) -> bytes:
        """ECDSA over the hash of `data`, as r || s. Raises `ImageError(SIGNER)`."""


class FileSigner:
    """A private key in a PEM file. The repr shows no more than the algorithm."""

    def __init__(self, key_pem: bytes, certificate_pem: bytes, password: bytes | None = None) -> None:
        """Raises `ImageError(SIGNER)` when the key can't sign images, or is not that of the certificate."""
        try:
            key = serialization.load_pem_private_key(key_pem, password)
        except (ValueError, TypeError) as error:
            # cryptography's sentences name the format or the missing password, never the key.
            raise ImageError(ImageCode.SIGNER, f"the private key can't be read: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in ALGORITHMS:
            raise ImageError(ImageCode.SIGNER, "the private key is not on P-256, P-384 or P-521: make such a one")
        self._algorithm, self._certificate_pem = read_certificate(certificate_pem)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if certificate.public_key() != key.public_key():
            raise ImageError(ImageCode.SIGNER, "the certificate is of another key than the one given")
        self._key = key

    @classmethod
    def from_files(cls, key: Path, certificate: Path, password: bytes | None = None) -> FileSigner:
        """Read both files. Raises `ImageError(SIGNER)`, `OSError`."""
        return cls(key.read_bytes(), certificate.read_bytes(), password)

    @property
    def algorithm(self) -> Algorithm:
        return self._algorithm

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate_pem

    def sign(self, data: bytes) -> bytes:
        return raw_signature(self._key.sign(data, ec.ECDSA(self._algorithm.hash())), self._algorithm)

    def __repr__(self) -> str:
        return f"FileSigner({self._algorithm.name})"


class HeldSigner:
    """A P-384 key that its holder does not give away: a PKCS#11 token, a key management service."""

    def __init__(self, holder: trust.Signer, certificate_pem: bytes) -> None:
        """Raises `ImageError(SIGNER)` when the key is no P-384 key, or not that of the certificate."""
        self._algorithm, self._certificate_pem = read_certificate(certificate_pem)
        key = x509.load_pem_x509_certificate(certificate_pem).public_key()
        if holder.public.algorithm != trust.P384 or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ImageError(ImageCode.SIGNER, "a held key that signs images is on P-384: make such a one")
        point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
        if holder.public.text != f"{trust.P384}:{base64.b64encode(point).decode()}":
            raise ImageError(ImageCode.SIGNER, "the certificate is of another key than the one held")
        self._holder = holder

    @property
    def algorithm(self) -> Algorithm:
        return self._algorithm

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate_pem

    def sign(self, data: bytes) -> bytes:
        return self._holder.sign(data)


def open_signer(spec: str, certificate: Path, password_file: Path | None = None) -> Signer:
    """The signer that `--key` names: a file, `pkcs11:...` (RFC 7512) or `awskms:KEY?region=...`.

    Holders are found by entry point, since they are of a floor beside this one. Raises `ImageError(SIGNER)`, `OSError`,
    and what the holder raises.
    """
    if not spec.startswith(HELD):
        password = password_file.read_bytes().rstrip(b"\r\n") if password_file is not None else None
        return FileSigner.from_files(Path(spec), certificate, password)
    points = tuple(importlib.metadata.entry_points(group="tea.signers"))
    if not points:
        raise ImageError(
            ImageCode.SIGNER, f"nothing here opens {spec.partition(':')[0]}: keys: install the parent's part"
        )
    holder: trust.Signer = points[0].load()(spec, password_file)
    return HeldSigner(holder, certificate.read_bytes())


def read_certificate(pem: bytes) -> tuple[Algorithm, bytes]:
    """The algorithm of a certificate's key, and its PEM alone. Raises `ImageError(SIGNER)`."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ImageError(ImageCode.SIGNER, f"the certificate can't be read: {error}") from None
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ALGORITHMS:
        raise ImageError(ImageCode.SIGNER, "the certificate's key is not on P-256, P-384 or P-521")
    # Encoded anew, so that comments around it or a chain behind it do not change the image.
    return ALGORITHMS[key.curve.name], certificate.public_bytes(serialization.Encoding.PEM)


def raw_signature(der: bytes, algorithm: Algorithm) -> bytes:
    """r || s from the DER that most key holders answer with. Raises `ImageError(SIGNER)`."""
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(algorithm.coordinate, "big") + s.to_bytes(algorithm.coordinate, "big")
    except (ValueError, OverflowError):
        raise ImageError(ImageCode.SIGNER, "the key's holder answered with no ECDSA signature of its curve") from None
