"""X25519 (RFC 7748) agreement, and HPKE (RFC 9180) in base mode to the same keys.

May not: give out a shared secret: it becomes a key under a handle. HPKE's suite is DHKEM(X25519, HKDF-SHA256),
HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180, appendix A.2). Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from tea.protocol.errors import CallError, Code

from .keys import Key, encode_public
from .limits import require_exactly

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class X25519Key(Key):
    """A key that agrees with another party's public key, and opens what was sealed to its own (32 bytes)."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        super().__init__("x25519")
        self._key = X25519PrivateKey.from_private_bytes(seed)

    def public(self, format: str) -> bytes:
        if format == "native":
            return self._key.public_key().public_bytes_raw()
        return encode_public(self._key.public_key(), format) or super().public(format)

    def export_secret(self) -> bytes:
        return self._key.private_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """The shared secret of 32 bytes. Raises INVALID on a key of low order, which would make it all zeros."""
        try:
            return self._key.exchange(parse_public(peer))
        except ValueError:
            raise CallError(Code.INVALID, "the other party's public key is a point of low order") from None

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """The plaintext of an HPKE message. Raises UNTRUSTED unless it was sealed to this key with this info."""
        try:
            return SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise CallError(Code.UNTRUSTED, "the message does not open with this key and this info") from None


def seal(public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """An HPKE message: encapsulated key (32 bytes) || ciphertext || tag (16 bytes)."""
    peer = parse_public(public_key)
    try:
        return SUITE.encrypt(plaintext, peer, info)
    except ValueError:
        raise CallError(Code.INVALID, "the recipient's public key is a point of low order") from None


def parse_public(public_key: bytes) -> X25519PublicKey:
    """An X25519 public key of 32 bytes. Raises INVALID."""
    require_exactly(public_key, (32,), "an X25519 public key")
    return X25519PublicKey.from_public_bytes(public_key)
