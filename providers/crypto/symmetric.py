"""Symmetric keys: AES-256-GCM (SP 800-38D), ChaCha20-Poly1305 (RFC 8439), secrets for HKDF (RFC 5869) and HMAC; hashes.

May not: take a nonce from outside, or open anything without its tag. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from Crypto.Hash import keccak
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tea.protocol.errors import CallError, Code

from .keys import Key
from .limits import unknown

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
_LEFT: Final = 8
MAX_MESSAGES: Final = 1 << 32
"""Messages under one handle: with random nonces of 96 bits, SP 800-38D (8.3) allows no more."""
AEADS: Final[Mapping[str, type[AESGCM] | type[ChaCha20Poly1305]]] = {
    "aes-256-gcm": AESGCM,
    "chacha20-poly1305": ChaCha20Poly1305,
}
SECRET: Final = "hkdf-hmac"  # noqa: S105 (the name of an algorithm)


class AeadKey(Key):
    """A key that encrypts: nonce (12 bytes) || ciphertext || tag (16 bytes)."""

    __slots__ = ("_cipher", "_secret", "left")

    def __init__(self, algorithm: str, key: bytes) -> None:
        super().__init__(algorithm)
        self._cipher = AEADS[algorithm](key)
        self._secret = key
        self.left = MAX_MESSAGES
        """Messages that may still be encrypted under this key."""

    def export_secret(self) -> bytes:
        return self._secret

    @classmethod
    def from_secret(cls, algorithm: str, secret: bytes) -> AeadKey:
        """A key of 32 bytes; or what `share_secret` gave, the messages that are left to it behind. `ValueError`."""
        if len(secret) not in (KEY_SIZE, KEY_SIZE + _LEFT):
            raise ValueError("this is no key of an AEAD")
        key = cls(algorithm, secret[:KEY_SIZE])
        if len(secret) > KEY_SIZE:
            key.left = int.from_bytes(secret[KEY_SIZE:])
            if key.left > MAX_MESSAGES:
                raise ValueError("a key of an AEAD has not so many messages left")
        return key

    def share_secret(self) -> bytes:
        """The key and half of the messages that it may still encrypt, which are no longer this key's."""
        given = self.left // 2
        if not given:
            raise CallError(Code.EXHAUSTED, "this key has no messages left to share: make a new one")
        self.left -= given
        return self._secret + given.to_bytes(_LEFT)

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt under a nonce made here. Raises EXHAUSTED after 2**32 messages."""
        if self.left <= 0:
            raise CallError(Code.EXHAUSTED, f"this key has encrypted {MAX_MESSAGES} messages: make a new one")
        self.left -= 1
        # The kernel's generator, which the NSM seeds in an enclave: an NSM request each message would be too dear.
        nonce = secrets.token_bytes(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, plaintext, associated)

    def decrypt(self, sealed: bytes, associated: bytes) -> bytes:
        """The plaintext. Raises UNTRUSTED unless every bit, the associated data's too, is what was encrypted."""
        if len(sealed) >= NONCE_SIZE + TAG_SIZE:
            try:
                return self._cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], associated)
            except InvalidTag:
                pass
        raise CallError(Code.UNTRUSTED, "the ciphertext does not open with this key and this associated data")


class SecretKey(Key):
    """32 secret bytes to derive keys from and to authenticate with."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        super().__init__(SECRET)
        self._secret = secret

    def export_secret(self) -> bytes:
        return self._secret

    def derive(self, salt: bytes, info: bytes) -> bytes:
        """32 bytes: HKDF-SHA256."""
        return hkdf_sha256(self._secret, salt, info, KEY_SIZE)

    def authenticate(self, algorithm: str, data: bytes) -> bytes:
        """HMAC with one of `HMACS`."""
        if algorithm not in HMACS:
            raise unknown("HMAC hash", algorithm, HMACS)
        return hmac.digest(self._secret, data, algorithm)


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256, extract and expand (RFC 5869); an empty salt is the RFC's 32 zeros."""
    return HKDF(hashes.SHA256(), size, salt or None, info).derive(secret)


def _keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


HMACS: Final = ("sha256", "sha384", "sha512")
HASHES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha384": lambda data: hashlib.sha384(data).digest(),
    "sha512": lambda data: hashlib.sha512(data).digest(),
    "blake2b-256": lambda data: hashlib.blake2b(data, digest_size=32).digest(),
    "keccak-256": _keccak256,
}


def hash_of(algorithm: str) -> Callable[[bytes], bytes]:
    """A hash function by name. Raises INVALID on another name."""
    try:
        return HASHES[algorithm]
    except KeyError:
        raise unknown("hash", algorithm, tuple(HASHES)) from None
