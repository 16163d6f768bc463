"""crypto's operations that derive keys, authenticate, hash and draw random bytes.

May not: answer with a derived key: it stays under a handle. What computes for long leaves the host's loop.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hmac

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import Call
from .algorithms import derive
from .exchange import X25519Key
from .keystore import KeyStore
from .limits import MAX_CONTEXT, MAX_DATA, MAX_RANDOM, THREAD_FROM, require_size
from .symmetric import SecretKey, hash_of


class DerivationOperations(KeyStore):
    """X25519, HKDF, HMAC, hashes, random."""

    @operation
    async def x25519_agree(
        self,
        call: Call,
        handle: str,
        public_key: bytes,
        info: bytes = b"",
        salt: bytes = b"",
        algorithm: str = "aes-256-gcm",
    ) -> str:
        """Agree with another X25519 public key; answers the handle of a key that both sides can derive.

        Its 32 bytes are HKDF-SHA256(shared secret, salt, "tea.crypto.v1" 0 algorithm 0 lower-key higher-key info), the
        two public keys in byte order. `algorithm` is aes-256-gcm, chacha20-poly1305, hkdf-hmac, ed25519, sr25519 or
        x25519. Raises INVALID on a point of low order; EXHAUSTED.
        """
        key = self._key(call, handle, X25519Key, "agree")
        require_size(info, MAX_CONTEXT, "the info")
        require_size(salt, MAX_CONTEXT, "the salt")
        shared = SecretKey(key.agree(public_key))
        pair = sorted((key.public("native"), public_key))
        return self._ring(call).add(derive(algorithm, lambda tagged: shared.derive(salt, tagged), *pair, info))

    @operation
    async def hkdf(
        self, call: Call, handle: str, info: bytes, salt: bytes = b"", algorithm: str = "aes-256-gcm"
    ) -> str:
        """Derive a key from a hkdf-hmac key; answers its handle. The same inputs give the same key.

        Its 32 bytes are HKDF-SHA256(secret, salt, "tea.crypto.v1" 0 algorithm 0 info); algorithms as `x25519_agree`.
        """
        key = self._key(call, handle, SecretKey, "derive keys")
        require_size(info, MAX_CONTEXT, "the info")
        require_size(salt, MAX_CONTEXT, "the salt")
        return self._ring(call).add(derive(algorithm, lambda tagged: key.derive(salt, tagged), info))

    @operation
    async def hmac(self, call: Call, handle: str, data: bytes, algorithm: str = "sha256") -> bytes:
        """HMAC with a hkdf-hmac key and sha256, sha384 or sha512."""
        key = self._key(call, handle, SecretKey, "authenticate")
        require_size(data, MAX_DATA, "what is authenticated")
        return await self._run(len(data) >= THREAD_FROM, key.authenticate, algorithm, data)

    @operation
    async def hmac_verify(self, call: Call, handle: str, data: bytes, tag: bytes, algorithm: str = "sha256") -> bool:
        """Whether `tag` is the whole HMAC of the data, compared in constant time."""
        key = self._key(call, handle, SecretKey, "authenticate")
        require_size(data, MAX_DATA, "what is authenticated")
        expected = await self._run(len(data) >= THREAD_FROM, key.authenticate, algorithm, data)
        return hmac.compare_digest(expected, tag)

    @operation
    async def hash(self, call: Call, algorithm: str, data: bytes) -> bytes:
        """A digest: sha256, sha384, sha512, blake2b-256 or keccak-256 (the EVM's, not SHA-3)."""
        function = hash_of(algorithm)
        require_size(data, MAX_DATA, "what is hashed")
        return await self._run(len(data) >= THREAD_FROM, function, data)

    @operation
    async def random(self, call: Call, size: int) -> bytes:
        """1 to 4,096 random bytes from the NSM."""
        if not 1 <= size <= MAX_RANDOM:
            raise CallError(Code.INVALID, f"1 to {MAX_RANDOM} random bytes a call, not {size}")
        return self.services.attester.random(size)
