"""crypto: keys that never leave the host, as operations on handles; and the public functions that go with them.

May not: answer with a secret, or take a key in that an actor could read. What computes for long leaves the host's loop.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.trust.sealing import SealError

from ..base import Call, Config, Provider
from . import addresses, curves, exchange, rsa, shamir
from .algorithms import OFF_LOOP, SEEDED, SLOW, VERIFIERS, derive, draw
from .exchange import X25519Key
from .keyring import MAX_HANDLE, Handle, KeyRing
from .keys import Key, SigningKey
from .limits import (
    MAX_CONTEXT,
    MAX_DATA,
    MAX_PUBLIC_KEY,
    MAX_RANDOM,
    THREAD_FROM,
    require_size,
    unknown,
)
from .state import export_rings, import_rings
from .symmetric import KEY_SIZE, AeadKey, SecretKey, hash_of

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Key)
_SPLIT_INLINE: Final = 25
"""Shares times threshold up to which splitting and joining stay on the loop."""


class CryptoConfig(Config, frozen=True):
    """`max_handles`: keys that one actor may have at once, 1 to 65,536."""

    max_handles: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.max_handles <= 65536:
            raise ValueError(f"max_handles is 1 to 65536, not {self.max_handles}")


class Ss58Address(msgspec.Struct, frozen=True):
    """An SS58 address taken apart: the network's prefix (0 to 16,383) and the account, 32 or 33 bytes."""

    prefix: int
    account: bytes


class Crypto(Provider[CryptoConfig]):
    """Keys that are made in the host or come in sealed, and never leave it; an actor holds handles (24 characters).

    A handle works for the actor that made it (all its replicas) and ends with the host; another actor's is NOT_FOUND.
    An actor has at most `max_handles` (256 unless the manifest says otherwise), then EXHAUSTED. Algorithms: ed25519,
    sr25519, p-256, p-384, secp256k1, rsa-pss-2048, rsa-pss-3072 (sign); x25519 (agree, HPKE); rsa-oaep-2048,
    rsa-oaep-3072 (decrypt); aes-256-gcm, chacha20-poly1305 (encrypt); hkdf-hmac (derive, authenticate). A key does
    what its algorithm is for and nothing else.

    Keys are made of random bytes from the NSM, but RSA's, whose primes OpenSSL draws from its own generator. Data are
    at most 768 KiB, info, salt and associated data 4 KiB, public keys 1 KiB: else INVALID. What does not open, join
    or recover is UNTRUSTED, without a reason.
    """

    name: ClassVar[str] = "crypto"
    config_type: ClassVar[type[Config]] = CryptoConfig

    def __init__(self, config: CryptoConfig) -> None:
        super().__init__(config)
        self._rings: dict[str, KeyRing] = {}

    async def stop(self) -> None:
        self._rings.clear()

    async def export_state(self) -> bytes:
        return export_rings(self._rings)

    async def import_state(self, state: bytes) -> None:
        self._rings = import_rings(state, self.config.max_handles)

    async def forget(self, actor: str) -> None:
        self._rings.pop(actor, None)

    def usage(self) -> dict[str, int]:
        """Handles, and actors that have any."""
        sizes = [len(ring) for ring in self._rings.values()]
        return {"handles": sum(sizes), "actors": sum(1 for size in sizes if size)}

    # -- handles

    @operation
    async def generate(self, call: Call, algorithm: str) -> str:
        """Make a key; answers its handle. The class says which algorithms there are; another is INVALID.

        From the NSM's random: all but RSA, which takes a tenth of a second to seconds, one at a time for each actor,
        and comes from OpenSSL's generator. Raises EXHAUSTED when the actor has all its handles.
        """
        ring = self._ring(call)
        ring.require_room()
        make = SLOW.get(algorithm)
        if make is None:
            return ring.add(draw(algorithm, self.services.attester.random))
        async with ring.making:
            ring.require_room()
            key: Key = await self.services.run_in_thread(make)
        if self._rings.get(call.caller) is not ring:
            raise CallError(Code.UNAVAILABLE, f"{call.caller} left the manifest while its key was made")
        return ring.add(key)

    @operation
    async def import_sealed(self, call: Call, algorithm: str, sealed: bytes) -> str:
        """Take in a key of 32 bytes that `teactl secret seal --key ALGORITHM` sealed for this actor; its handle.

        The actor never sees the key. For ed25519, sr25519, x25519, the AEADs and hkdf-hmac. Raises UNTRUSTED when it
        was sealed for another enclave, actor, manifest or algorithm; INVALID on another algorithm or size; EXHAUSTED.
        """
        make = SEEDED.get(algorithm)
        if make is None:
            raise unknown("algorithm that can be imported,", algorithm, tuple(SEEDED))
        ring = self._ring(call)
        ring.require_room()
        try:
            seed = self.services.attester.open_sealed(
                sealed, purpose=f"key:{algorithm}", actor=call.caller, bundle=call.bundle
            )
        except SealError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=f"seal:{error.code.value}") from None
        if len(seed) != KEY_SIZE:
            raise CallError(Code.INVALID, f"a key of {algorithm} has {KEY_SIZE} bytes, the sealed one {len(seed)}")
        return ring.add(make(seed))

    @operation
    async def public_key(self, call: Call, handle: str, format: str = "native") -> bytes:
        """The public half of a key.

        `native` is what the other operations take: 32 bytes (ed25519, sr25519, x25519), the compressed point of 33 or
        49 bytes (secp256k1, p-256, p-384), SubjectPublicKeyInfo in DER (RSA). Others: `uncompressed` (points), `spki`
        and `pem` (all but sr25519). Raises NOT_FOUND; INVALID for a format that the key has not.
        """
        return self._key(call, handle, Key, "have a public half").public(format)

    @operation
    async def handles(self, call: Call) -> list[Handle]:
        """The actor's keys, oldest first: {handle, algorithm}."""
        return self._ring(call).handles()

    @operation
    async def forget_key(self, call: Call, handle: str) -> bool:
        """Drop a key for good; False when the handle has none."""
        return self._ring(call).forget(handle)

    # -- signatures

    @operation
    async def sign(self, call: Call, handle: str, data: bytes, hashed: bool = False) -> bytes:
        """Sign: Ed25519, sr25519 (64 bytes), ECDSA as r||s (64; P-384 96; secp256k1 with a low s), RSA-PSS (256, 384).

        The hash is SHA-256 (P-384: SHA-384); with `hashed`, data is that digest already (not for Ed25519, sr25519).
        Raises NOT_FOUND; INVALID for a key that does not sign, a wrong size.
        """
        key = self._key(call, handle, SigningKey, "sign")
        require_size(data, MAX_DATA, "what is signed")
        return await self._run(key.algorithm in OFF_LOOP or len(data) >= THREAD_FROM, key.sign, data, hashed)

    @operation
    async def verify(
        self, call: Call, algorithm: str, public_key: bytes, data: bytes, signature: bytes, hashed: bool = False
    ) -> bool:
        """Whether it is a signature by this public key (native form; points also uncompressed).

        A signature of wrong size is False, and so is one on secp256k1 with a high s. Raises INVALID when the public key
        is none of this algorithm.
        """
        check = VERIFIERS.get(algorithm)
        if check is None:
            raise unknown("signature algorithm", algorithm, tuple(VERIFIERS))
        require_size(data, MAX_DATA, "what was signed")
        require_size(public_key, MAX_PUBLIC_KEY, "a public key")
        heavy = algorithm in OFF_LOOP or len(data) >= THREAD_FROM
        return await self._run(heavy, check, public_key, data, signature, hashed)

    @operation
    async def sign_recoverable(self, call: Call, handle: str, digest: bytes) -> bytes:
        """Sign a digest of 32 bytes with a secp256k1 key as EVM chains want: r || s || v, v 0 or 1, s low; 65 bytes."""
        return self._key(call, handle, curves.Secp256k1Key, "sign recoverably").sign_recoverable(digest)

    @operation
    async def recover_public_key(self, call: Call, digest: bytes, signature: bytes) -> bytes:
        """The compressed secp256k1 key (33 bytes) that made r || s || v (v 0 to 3, or 27 and 28) over this digest.

        Raises UNTRUSTED when no key did, or s is high.
        """
        return curves.recover_secp256k1(digest, signature)

    # -- encryption

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

    # -- derivation and authentication

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

    # -- secret sharing

    @operation
    async def shamir_split(self, call: Call, secret: bytes, threshold: int, shares: int) -> list[bytes]:
        """Split a secret of 1 to 2,048 bytes into 2 to 255 shares, any `threshold` (at least 2) of which give it back.

        A share is 35 bytes longer than the secret; fewer than the threshold say nothing about it.
        """
        random = self._stretched()
        return await self._run(threshold * shares > _SPLIT_INLINE, shamir.split, secret, threshold, shares, random)

    @operation
    async def shamir_join(self, call: Call, shares: list[bytes]) -> bytes:
        """The secret from enough of its shares, in any order.

        The first `threshold` shares are used. Raises INVALID for shares too few or not of one secret, UNTRUSTED when
        one of those used is not genuine.
        """
        return await self._run(len(shares) ** 2 > _SPLIT_INLINE, shamir.join, shares)

    # -- addresses

    @operation
    async def ss58_encode(self, call: Call, account: bytes, prefix: int = 42) -> str:
        """The SS58 address of an account id (32 bytes) or ECDSA key (33) under a network's prefix (0 to 16,383)."""
        return addresses.encode_ss58(account, prefix)

    @operation
    async def ss58_decode(self, call: Call, address: str) -> Ss58Address:
        """An SS58 address taken apart: {prefix, account}. Raises INVALID on a wrong checksum or form."""
        return Ss58Address(*addresses.decode_ss58(address))

    @operation
    async def evm_address(self, call: Call, public_key: bytes) -> str:
        """The EVM address (0x and 40 digits, EIP-55) of a secp256k1 public key (33 or 65 bytes)."""
        return addresses.evm_address(public_key)

    @operation
    async def multisig_address(self, call: Call, signatories: list[bytes], threshold: int, prefix: int = 42) -> str:
        """The SS58 address of Substrate's multi-signature account, `threshold` of 2 to 100 account ids in any order."""
        return addresses.encode_ss58(addresses.multisig_account(signatories, threshold), prefix)

    # -- inside

    def _ring(self, call: Call) -> KeyRing:
        ring = self._rings.get(call.caller)
        if ring is None:
            ring = self._rings[call.caller] = KeyRing(self.config.max_handles)
        return ring

    def _key(self, call: Call, handle: str, kind: type[_K], use: str) -> _K:
        return self._ring(call).get(handle if len(handle) <= MAX_HANDLE else "", kind, use)

    async def _run(self, heavy: bool, function: Callable[..., _T], *args: object) -> _T:
        if not heavy:
            return function(*args)
        result: _T = await self.services.run_in_thread(function, *args)
        return result

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
