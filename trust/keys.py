"""Signing keys: Ed25519 and P-384, one algorithm and one text form a key, private halves that do not show themselves.

May not: pick an algorithm by what a message says, read or write files, print or pickle a secret.
Rule: RFC 8032 (Ed25519), FIPS 186-5 and RFC 6979 (ECDSA), RFC 9053 section 2 (COSE); docs/architecture.md, "Trust".
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import typing
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from .errors import TrustError

Algorithm = typing.Literal["ed25519", "p384"]
ED25519: Final = "ed25519"
P384: Final = "p384"

KEY_ID_BYTES: Final = 16
_HALF: Final = 48  # bytes of r, and of s, in a P-384 signature
_RAW_SIZE: Final = {ED25519: 32, P384: 49}
_SIGNATURE_SIZE: Final = {ED25519: 64, P384: 2 * _HALF}

_FIELD: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    # The y of Ed25519's eight points of small order: with such a "key" anybody makes signatures that hold.
    {
        0,
        1,
        _FIELD - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


class SigningCode(enum.StrEnum):
    """Why a key or a signature is not accepted."""

    BAD_KEY = "bad-key"
    BAD_PASSWORD = "bad-password"  # noqa: S105 - the code's name, not a password
    BAD_SIGNATURE = "bad-signature"
    UNKNOWN_KEY = "unknown-key"
    WRONG_ALGORITHM = "wrong-algorithm"
    WRONG_CONTENT_TYPE = "wrong-content-type"
    UNKNOWN_HEADER = "unknown-header"
    MALFORMED = "malformed"
    DUPLICATE_SIGNER = "duplicate-signer"
    QUORUM = "no-quorum"


class SigningError(TrustError):
    """A key cannot be used, or what it is said to have signed does not hold."""


class Signer(typing.Protocol):
    """What signs: a `PrivateKey`, or a token or service that keeps the key and signs when asked.

    `sign` answers COSE's form: 64 bytes for Ed25519, r then s (96 bytes) for P-384.
    """

    @property
    def public(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes: ...


class PublicKey:
    """A verification key that knows its one algorithm. Immutable; equal and hashed by its text."""

    __slots__ = ("_key", "_key_id", "_text")

    def __init__(self, key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> None:
        if isinstance(key, ed25519.Ed25519PublicKey):
            raw = key.public_bytes_raw()
            _require_strong(raw)
            algorithm = ED25519
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
            raw = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
            algorithm = P384
        else:
            raise SigningError(
                SigningCode.BAD_KEY, "the key is neither Ed25519 nor on the curve P-384: use one of these"
            )
        self._key = key
        self._text = f"{algorithm}:{base64.b64encode(raw).decode()}"
        self._key_id = hashlib.sha256(self._text.encode()).digest()[:KEY_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read `ed25519:<base64 of 32 bytes>` or `p384:<base64 of the 49-byte compressed point>`.

        Raises `SigningError(BAD_KEY)` on anything else, another spelling of the same key included.
        """
        name, colon, encoded = text.partition(":")
        if not colon or name not in _RAW_SIZE:
            raise SigningError(
                SigningCode.BAD_KEY, "a key is written ed25519:BASE64 or p384:BASE64, and this is neither"
            )
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise SigningError(SigningCode.BAD_KEY, f"what follows {name}: is not base64") from None
        if len(raw) != _RAW_SIZE[name]:
            raise SigningError(SigningCode.BAD_KEY, f"the {name} key has {len(raw)} bytes, expected {_RAW_SIZE[name]}")
        try:
            key = (
                cls(ed25519.Ed25519PublicKey.from_public_bytes(raw))
                if name == ED25519
                else cls(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw))
            )
        except ValueError:
            raise SigningError(SigningCode.BAD_KEY, f"the {name} key is no point of the curve") from None
        if key.text != text:
            raise SigningError(SigningCode.BAD_KEY, f"the key is not in its one spelling, which is {key.text}")
        return key

    @property
    def algorithm(self) -> Algorithm:
        return "ed25519" if isinstance(self._key, ed25519.Ed25519PublicKey) else "p384"

    @property
    def text(self) -> str:
        """The one spelling for people, YAML and canonical forms."""
        return self._text

    @property
    def key_id(self) -> bytes:
        """16 bytes: the start of the SHA-256 of the text."""
        return self._key_id

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `SigningError(BAD_SIGNATURE)` unless `signature` (64 bytes; r then s, 96, for P-384) is of `data`."""
        expected = _SIGNATURE_SIZE[self.algorithm]
        if len(signature) != expected:
            raise SigningError(
                SigningCode.BAD_SIGNATURE,
                f"a {self.algorithm} signature has {expected} bytes, this one {len(signature)}",
            )
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
                self._key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            raise SigningError(
                SigningCode.BAD_SIGNATURE, f"the signature does not hold for the key {self._text}"
            ) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"PublicKey({self._text})"

    def __reduce__(self) -> str:
        raise TypeError("a key is never pickled: send its text")


class PrivateKey:
    """A signing key. Its representation shows the public half only; it is neither pickled nor copied."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self._public = PublicKey(key.public_key())
        self._key = key

    @classmethod
    def generate(cls, algorithm: Algorithm = "ed25519") -> PrivateKey:
        """A new key. Raises `SigningError(WRONG_ALGORITHM)` on a name that is neither ed25519 nor p384."""
        if algorithm == ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate())
        if algorithm == P384:
            return cls(ec.generate_private_key(ec.SECP384R1()))
        raise SigningError(SigningCode.WRONG_ALGORITHM, f"no keys of {algorithm!r} are made: use ed25519 or p384")

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> PrivateKey:
        """Read PKCS#8 PEM. Raises `SigningError`: BAD_PASSWORD, or BAD_KEY when it is no key of ours."""
        try:
            key = serialization.load_pem_private_key(pem, password)
        except TypeError:
            found = "is encrypted: give its password" if password is None else "is not encrypted: give no password"
            raise SigningError(SigningCode.BAD_PASSWORD, f"the key {found}") from None
        except (ValueError, UnsupportedAlgorithm):
            if password is not None and b"ENCRYPTED" in pem:
                raise SigningError(
                    SigningCode.BAD_PASSWORD, "the key does not open: a wrong password, or a damaged file"
                ) from None
            raise SigningError(
                SigningCode.BAD_KEY, "this is no private key in PKCS#8 PEM (-----BEGIN PRIVATE KEY-----)"
            ) from None
        if not isinstance(key, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
            raise SigningError(
                SigningCode.BAD_KEY, "the key is neither Ed25519 nor on the curve P-384: use one of these"
            )
        return cls(key)

    def to_pem(self, password: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when a password is given. This is the secret: write it with mode 0600."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        """The signature in COSE's form: 64 bytes for Ed25519, r then s (96 bytes) for P-384; deterministic for both."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        # RFC 6979: the same bundle has the same bytes, and no bad random number gives the key away.
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA384(), deterministic_signing=True)))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")

    def __repr__(self) -> str:
        return f"PrivateKey(of {self._public.text})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is never pickled or copied")


def _require_strong(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _FIELD or y in _SMALL_ORDER:
        raise SigningError(SigningCode.BAD_KEY, "the ed25519 key is a weak point or not canonical: make a new key")
