"""Signatures on elliptic curves: Ed25519 (RFC 8032), sr25519 (Schnorrkel, context "substrate"), ECDSA (FIPS 186-5).

May not: compute anything of a curve itself: `cryptography`, libsecp256k1 (coincurve) and schnorrkel (sr25519) do.
ECDSA nonces are deterministic (RFC 6979), signatures r||s of fixed size. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import coincurve
import sr25519
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tea.protocol.errors import CallError, Code

from .keys import Key, Random, SigningKey, encode_public, scalar
from .limits import require_exactly

Hash = hashes.SHA256 | hashes.SHA384
_SR25519_PUBLIC: Final = 32
_SR25519_PAIR: Final = 96
SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Encodings, the sign bit cleared, of edwards25519's points of small order: under such a "key" anyone signs anything,
and OpenSSL verifies it."""


class Curve(NamedTuple):
    """A NIST curve: its group order, the hash that goes with it, and the bytes of a coordinate."""

    curve: ec.EllipticCurve
    hash: Callable[[], Hash]
    order: int
    size: int


CURVES: Final[Mapping[str, Curve]] = {
    "p-256": Curve(
        ec.SECP256R1(), hashes.SHA256, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 32
    ),
    "p-384": Curve(
        ec.SECP384R1(),
        hashes.SHA384,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
}


class Ed25519Key(SigningKey):
    """Ed25519; the public half has 32 bytes, a signature 64."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        super().__init__("ed25519")
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)

    def export_secret(self) -> bytes:
        return self._key.private_bytes_raw()

    def public(self, format: str) -> bytes:
        if format == "native":
            return self._key.public_key().public_bytes_raw()
        return encode_public(self._key.public_key(), format) or super().public(format)

    def sign(self, data: bytes, hashed: bool) -> bytes:
        if hashed:
            raise no_digest(self.algorithm)
        return self._key.sign(data)


class Sr25519Key(SigningKey):
    """sr25519; the public half has 32 bytes, a signature 64. It has no SubjectPublicKeyInfo."""

    __slots__ = ("_pair",)

    def __init__(self, seed: bytes) -> None:
        super().__init__("sr25519")
        self._pair: tuple[bytes, bytes] = sr25519.pair_from_seed(seed)

    @classmethod
    def from_secret(cls, secret: bytes) -> Sr25519Key:
        """The key that `export_secret` gave: its public half, then the secret one. Raises `ValueError`."""
        pair = secret[:_SR25519_PUBLIC], secret[_SR25519_PUBLIC:]
        # A pair that is none signs nothing that verifies: better found out now.
        if (
            len(secret) != _SR25519_PAIR
            or not any(pair[0])
            or not sr25519.verify(sr25519.sign(pair, b"tea"), b"tea", pair[0])
        ):
            raise ValueError("this is no sr25519 pair")
        key = cls.__new__(cls)
        Key.__init__(key, "sr25519")
        key._pair = pair
        return key

    def export_secret(self) -> bytes:
        return b"".join(self._pair)

    def public(self, format: str) -> bytes:
        return self._pair[0] if format == "native" else super().public(format)

    def sign(self, data: bytes, hashed: bool) -> bytes:
        if hashed:
            raise no_digest(self.algorithm)
        return bytes(sr25519.sign(self._pair, data))


class EcdsaKey(SigningKey):
    """ECDSA on P-256 with SHA-256 (signature of 64 bytes) or P-384 with SHA-384 (96); native: the compressed point."""

    __slots__ = ("_curve", "_key")

    def __init__(self, algorithm: str, random: Random) -> None:
        super().__init__(algorithm)
        self._curve = CURVES[algorithm]
        self._key = ec.derive_private_key(scalar(random, self._curve.order), self._curve.curve)

    @classmethod
    def from_secret(cls, algorithm: str, secret: bytes) -> EcdsaKey:
        """The key that `export_secret` gave. Raises `ValueError`."""
        key = cls.__new__(cls)
        Key.__init__(key, algorithm)
        key._curve = CURVES[algorithm]
        key._key = ec.derive_private_key(int.from_bytes(secret), key._curve.curve)
        return key

    def export_secret(self) -> bytes:
        return self._key.private_numbers().private_value.to_bytes(self._curve.size)

    def public(self, format: str) -> bytes:
        public = self._key.public_key()
        if format == "native":
            return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        if format == "uncompressed":
            return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return encode_public(public, format) or super().public(format)

    def sign(self, data: bytes, hashed: bool) -> bytes:
        der = self._key.sign(data, ec.ECDSA(_hash(self._curve, data, hashed), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(self._curve.size) + s.to_bytes(self._curve.size)


class Secp256k1Key(SigningKey):
    """ECDSA on secp256k1 with SHA-256; 64 bytes with a low s. Also recoverable over a digest, as EVM chains want."""

    __slots__ = ("_key",)

    def __init__(self, random: Random) -> None:
        super().__init__("secp256k1")
        self._key = coincurve.PrivateKey(scalar(random, SECP256K1_ORDER).to_bytes(32))

    @classmethod
    def from_secret(cls, secret: bytes) -> Secp256k1Key:
        """The key that `export_secret` gave. Raises `ValueError`."""
        key = cls.__new__(cls)
        Key.__init__(key, "secp256k1")
        key._key = coincurve.PrivateKey(secret)
        return key

    def export_secret(self) -> bytes:
        return self._key.secret

    def public(self, format: str) -> bytes:
        if format in ("native", "uncompressed"):
            return self._key.public_key.format(compressed=format == "native")
        point = self._key.public_key.format(compressed=False)
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), point)
        return encode_public(public, format) or super().public(format)

    def sign(self, data: bytes, hashed: bool) -> bytes:
        return self.sign_recoverable(_digest_of(data, hashed))[:64]

    def sign_recoverable(self, digest: bytes) -> bytes:
        """r || s || v over a digest of 32 bytes; v is 0 or 1 (up to 3 in cases that nobody will ever see)."""
        require_exactly(digest, (32,), "the digest")
        return self._key.sign_recoverable(digest, hasher=None)


def verify_ed25519(public_key: bytes, data: bytes, signature: bytes, hashed: bool) -> bool:
    """Whether it is a signature; INVALID when the key is none."""
    if hashed:
        raise no_digest("ed25519")
    require_exactly(public_key, (32,), "an Ed25519 public key")
    if public_key[:31] + bytes([public_key[31] & 0x7F]) in _SMALL_ORDER:
        raise CallError(Code.INVALID, "the Ed25519 public key is a point of small order: nobody's key")
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def verify_sr25519(public_key: bytes, data: bytes, signature: bytes, hashed: bool) -> bool:
    """Whether it is a signature (context "substrate"); INVALID when the key has a wrong size."""
    if hashed:
        raise no_digest("sr25519")
    require_exactly(public_key, (32,), "an sr25519 public key")
    if public_key == bytes(32):
        raise CallError(Code.INVALID, "the sr25519 public key is the identity: nobody's key")
    if len(signature) != 64:
        return False
    try:
        return bool(sr25519.verify(signature, data, public_key))
    except ValueError:  # bytes that are no point, or a signature without Schnorrkel's mark
        return False


def verify_ecdsa(algorithm: str, public_key: bytes, data: bytes, signature: bytes, hashed: bool) -> bool:
    """Whether r || s is a signature; INVALID when the key is no point of the curve."""
    curve = CURVES[algorithm]
    chosen = _hash(curve, data, hashed)
    size = curve.size
    require_exactly(public_key, (size + 1, 2 * size + 1), f"a {algorithm} public key (a point, compressed or not)")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, public_key)
    except ValueError:
        raise CallError(Code.INVALID, f"the public key is no point of {algorithm}") from None
    if len(signature) != 2 * size:
        return False
    der = encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
    try:
        key.verify(der, data, ec.ECDSA(chosen))
    except InvalidSignature:
        return False
    return True


def verify_secp256k1(public_key: bytes, data: bytes, signature: bytes, hashed: bool) -> bool:
    """Whether r || s is a signature with a low s (the other would be a second signature that anyone can make)."""
    digest = _digest_of(data, hashed)
    key = secp256k1_point(public_key)
    if len(signature) != 64:
        return False
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    return key.verify(der, digest, hasher=None)


def recover_secp256k1(digest: bytes, signature: bytes) -> bytes:
    """The compressed public key whose r || s || v this is. Raises INVALID, UNTRUSTED when there is none."""
    require_exactly(digest, (32,), "the digest")
    require_exactly(signature, (65,), "a recoverable signature (r || s || v)")
    # EVM's 27 and 28 are 0 and 1; a high s is refused as everywhere.
    v = signature[64] - 27 if signature[64] in (27, 28) else signature[64]
    if v > 3 or int.from_bytes(signature[32:64]) > SECP256K1_ORDER // 2:
        raise CallError(Code.UNTRUSTED, "no key makes this signature: v is 0 to 3 (or 27, 28) and s is low")
    try:
        point = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes([v]), digest, hasher=None)
    except ValueError:
        raise CallError(Code.UNTRUSTED, "no key makes this signature over this digest") from None
    return point.format(compressed=True)


def secp256k1_point(public_key: bytes) -> coincurve.PublicKey:
    """A point of secp256k1, compressed (33 bytes) or not (65). Raises INVALID."""
    require_exactly(public_key, (33, 65), "a secp256k1 public key (a point, compressed or not)")
    if public_key[0] not in ((2, 3) if len(public_key) == 33 else (4,)):
        raise CallError(Code.INVALID, "the public key is no point of secp256k1")  # hybrid encodings have two forms
    try:
        return coincurve.PublicKey(public_key)
    except ValueError:
        raise CallError(Code.INVALID, "the public key is no point of secp256k1") from None


def no_digest(algorithm: str) -> CallError:
    """The refusal to sign a digest in place of the data."""
    return CallError(Code.INVALID, f"{algorithm} signs data, not a digest of it: leave `hashed` False")


def _hash(curve: Curve, data: bytes, hashed: bool) -> Hash | Prehashed:
    chosen = curve.hash()
    if not hashed:
        return chosen
    require_exactly(data, (chosen.digest_size,), "the digest")
    return Prehashed(chosen)


def _digest_of(data: bytes, hashed: bool) -> bytes:
    if not hashed:
        return hashlib.sha256(data).digest()
    require_exactly(data, (32,), "the digest")
    return data
