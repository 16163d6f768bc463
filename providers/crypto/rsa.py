"""RSA: PSS signatures and OAEP encryption (RFC 8017), both with SHA-256 and MGF1 over it.

May not: use one key for both, or PKCS#1 v1.5 for anything. OpenSSL draws the primes from its own generator, which it
seeds from the kernel's: RSA is the one algorithm whose keys do not come from the NSM directly.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from tea.protocol.errors import CallError, Code

from .keys import Key, SigningKey, encode_public
from .limits import MAX_PUBLIC_KEY, require_exactly, require_size

PSS_BITS: Final[Mapping[str, int]] = {"rsa-pss-2048": 2048, "rsa-pss-3072": 3072}
OAEP_BITS: Final[Mapping[str, int]] = {"rsa-oaep-2048": 2048, "rsa-oaep-3072": 3072}
_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)
_OAEP_OVERHEAD: Final = 2 * 32 + 2


class RsaPssKey(SigningKey):
    """RSA-PSS with SHA-256 and a salt of 32 bytes; the public half is a SubjectPublicKeyInfo in DER."""

    __slots__ = ("_key",)

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithm)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=PSS_BITS[algorithm])

    @classmethod
    def from_secret(cls, algorithm: str, secret: bytes) -> RsaPssKey:
        """The key that `export_secret` gave. Raises `ValueError`."""
        key = cls.__new__(cls)
        Key.__init__(key, algorithm)
        key._key = _restored(secret, PSS_BITS[algorithm])
        return key

    def export_secret(self) -> bytes:
        return _exported(self._key)

    def public(self, format: str) -> bytes:
        return _public(self._key, format) or super().public(format)

    def sign(self, data: bytes, hashed: bool) -> bytes:
        return self._key.sign(data, _PSS, _hash(data, hashed))


class RsaOaepKey(Key):
    """RSA-OAEP with SHA-256 and an empty label; the public half is a SubjectPublicKeyInfo in DER."""

    __slots__ = ("_key", "_size")

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithm)
        self._size = OAEP_BITS[algorithm] // 8
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=8 * self._size)

    @classmethod
    def from_secret(cls, algorithm: str, secret: bytes) -> RsaOaepKey:
        """The key that `export_secret` gave. Raises `ValueError`."""
        key = cls.__new__(cls)
        Key.__init__(key, algorithm)
        key._size = OAEP_BITS[algorithm] // 8
        key._key = _restored(secret, OAEP_BITS[algorithm])
        return key

    def export_secret(self) -> bytes:
        return _exported(self._key)

    def public(self, format: str) -> bytes:
        return _public(self._key, format) or super().public(format)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """The plaintext. One refusal, UNTRUSTED, whatever is wrong: a decryptor that tells more is an oracle."""
        require_exactly(ciphertext, (self._size,), "the ciphertext")
        try:
            return self._key.decrypt(ciphertext, _OAEP)
        except ValueError:
            raise CallError(Code.UNTRUSTED, "the ciphertext does not open with this key") from None


def verify_rsa_pss(algorithm: str, public_key: bytes, data: bytes, signature: bytes, hashed: bool) -> bool:
    """Whether it is a signature; INVALID when the key is no RSA key of the algorithm's size."""
    key = _parse(public_key)
    if key.key_size != PSS_BITS[algorithm]:
        raise CallError(Code.INVALID, f"{algorithm} is not for a key of {key.key_size} bits")
    chosen = _hash(data, hashed)
    try:
        key.verify(signature, data, _PSS, chosen)
    except InvalidSignature:
        return False
    return True


def encrypt(public_key: bytes, plaintext: bytes) -> bytes:
    """RSA-OAEP to a key of 2048, 3072 or 4096 bits; at most 66 bytes less than the key has."""
    key = _parse(public_key)
    if key.key_size not in (2048, 3072, 4096):
        raise CallError(Code.INVALID, f"an RSA key has 2048, 3072 or 4096 bits here, not {key.key_size}")
    require_size(plaintext, key.key_size // 8 - _OAEP_OVERHEAD, "a plaintext under this key")
    return key.encrypt(plaintext, _OAEP)


def _exported(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _restored(secret: bytes, bits: int) -> rsa.RSAPrivateKey:
    key = load_der_private_key(secret, None)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != bits:
        raise ValueError("this is no RSA key of the algorithm's size")
    return key


def _public(key: rsa.RSAPrivateKey, format: str) -> bytes | None:
    if format == "pkcs1":
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return encode_public(key.public_key(), "spki" if format == "native" else format)


def _parse(public_key: bytes) -> rsa.RSAPublicKey:
    require_size(public_key, MAX_PUBLIC_KEY, "an RSA public key")
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise CallError(Code.INVALID, "the public key is no RSA key in DER (SubjectPublicKeyInfo or PKCS#1)")
    return key


def _hash(data: bytes, hashed: bool) -> hashes.SHA256 | Prehashed:
    if not hashed:
        return hashes.SHA256()
    require_exactly(data, (32,), "the digest")
    return Prehashed(hashes.SHA256())
