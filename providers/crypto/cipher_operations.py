"""crypto's operations that encrypt, open and share secrets.

May not: take a nonce from an actor, say why something does not open, or answer with a key. What computes for long
leaves the host's loop. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Annotated, Final

from tea.protocol.operations import operation

from ..base import MANY, Call
from . import exchange, rsa, shamir
from .exchange import X25519Key
from .keystore import KeyStore
from .limits import MAX_CONTEXT, MAX_DATA, THREAD_FROM, require_size
from .symmetric import AeadKey

_SPLIT_INLINE: Final = 25
"""Shares times threshold up to which splitting and joining stay on the loop."""


class CipherOperations(KeyStore):
    """AEADs, RSA-OAEP, HPKE, secret sharing."""

    @operation
    async def aead_encrypt(self, call: Call, handle: str, plaintext: bytes, associated: bytes = b"") -> bytes:
        """Encrypt with aes-256-gcm or chacha20-poly1305: nonce (12 bytes, made here) || ciphertext || tag (16).

        `associated` is authenticated, not hidden, and not part of the result. Raises EXHAUSTED after 2**32 messages.
        """
        key = self._key(call, handle, AeadKey, "encrypt")
        require_size(plaintext, MAX_DATA, "a plaintext")
        require_size(associated, MAX_CONTEXT, "associated data")
        return await self._run(len(plaintext) >= THREAD_FROM, key.encrypt, plaintext, associated)

    @operation
    async def aead_decrypt(self, call: Call, handle: str, sealed: bytes, associated: bytes = b"") -> bytes:
        """The plaintext of what `aead_encrypt` gave. Raises UNTRUSTED when a bit of it or of `associated` differs."""
        key = self._key(call, handle, AeadKey, "decrypt")
        require_size(sealed, MAX_DATA + 28, "a ciphertext")
        require_size(associated, MAX_CONTEXT, "associated data")
        return await self._run(len(sealed) >= THREAD_FROM, key.decrypt, sealed, associated)

    @operation
    async def rsa_oaep_encrypt(self, call: Call, public_key: bytes, plaintext: bytes) -> bytes:
        """Encrypt with RSA-OAEP (SHA-256, empty label) to a SubjectPublicKeyInfo of 2048, 3072 or 4096 bits.

        The plaintext has at most 66 bytes less than the key: 190 for 2048 bits.
        """
        return rsa.encrypt(public_key, plaintext)

    @operation
    async def rsa_oaep_decrypt(self, call: Call, handle: str, ciphertext: bytes) -> bytes:
        """The plaintext of an RSA-OAEP ciphertext (256 or 384 bytes). Raises UNTRUSTED when it does not open."""
        key = self._key(call, handle, rsa.RsaOaepKey, "decrypt with OAEP")
        return await self._run(True, key.decrypt, ciphertext)

    @operation
    async def hpke_seal(self, call: Call, public_key: bytes, plaintext: bytes, info: bytes = b"") -> bytes:
        """Seal to an X25519 public key (HPKE base mode, HKDF-SHA256, ChaCha20-Poly1305): 48 bytes longer.

        Whoever holds the public key can do this: who sealed is not proven.
        """
        require_size(plaintext, MAX_DATA, "a plaintext")
        require_size(info, MAX_CONTEXT, "the info")
        return await self._run(len(plaintext) >= THREAD_FROM, exchange.seal, public_key, plaintext, info)

    @operation
    async def hpke_open(self, call: Call, handle: str, sealed: bytes, info: bytes = b"") -> bytes:
        """Open what was sealed to an x25519 key with the same info. Raises UNTRUSTED when it does not open."""
        key = self._key(call, handle, X25519Key, "open HPKE messages")
        require_size(sealed, MAX_DATA + 48, "a sealed message")
        require_size(info, MAX_CONTEXT, "the info")
        return await self._run(len(sealed) >= THREAD_FROM, key.open, sealed, info)

    @operation
    async def shamir_split(self, call: Call, secret: bytes, threshold: int, shares: int) -> list[bytes]:
        """Split a secret of 1 to 2,048 bytes into 2 to 255 shares, any `threshold` (at least 2) of which give it back.

        A share is 35 bytes longer than the secret; fewer than the threshold say nothing about it.
        """
        random = self._stretched()
        return await self._run(threshold * shares > _SPLIT_INLINE, shamir.split, secret, threshold, shares, random)

    @operation
    async def shamir_join(self, call: Call, shares: Annotated[list[bytes], MANY]) -> bytes:
        """The secret from enough of its shares, in any order.

        The first `threshold` shares are used. Raises INVALID for shares too few or not of one secret, UNTRUSTED when
        one of those used is not genuine.
        """
        return await self._run(len(shares) ** 2 > _SPLIT_INLINE, shamir.join, shares)

    def _stretched(self) -> Callable[[int], bytes]:
        """Much random at once: SHAKE-256 over 64 bytes of the NSM and 64 of the kernel.

        Coefficients of many shares would be thousands of NSM requests.
        """
        seed = self.services.attester.random(64) + secrets.token_bytes(64)
        drawn = 0

        def random(size: int) -> bytes:
            nonlocal drawn
            drawn += 1
            return hashlib.shake_256(drawn.to_bytes(8) + seed).digest(size)

        return random
