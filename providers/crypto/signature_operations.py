"""crypto's operations that sign and verify, Substrate's extrinsics included.

May not: sign with a key that another actor made, or for a use that its algorithm is not for. What computes for long
leaves the host's loop. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from tea.protocol.operations import operation

from ..base import Call
from . import curves
from .algorithms import OFF_LOOP, VERIFIERS
from .extrinsic import SignedExtrinsic, SubstrateTransaction, sign_extrinsic
from .keys import SigningKey
from .keystore import KeyStore
from .limits import MAX_DATA, MAX_PUBLIC_KEY, THREAD_FROM, require_size, unknown


class SignatureOperations(KeyStore):
    """Signatures over data and digests; transactions of Substrate chains."""

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

    @operation
    async def substrate_extrinsic(self, call: Call, handle: str, transaction: SubstrateTransaction) -> SignedExtrinsic:
        """Build and sign an extrinsic of a Substrate chain (format 4): {extrinsic, hash}, ready to be sent.

        `transaction`: {call, nonce, spec_version, transaction_version, genesis_hash, tip = 0, period = None, block = 0,
        block_hash = None, extra = b"", additional = b""}. `call` is the encoded call, opaque here. Without a `period`
        it is valid for good; with one (a power of two, 4 to 65,536) for that many blocks from `block` on, whose hash
        `block_hash` is. `extra` and `additional` are what extensions behind the tip add to the extrinsic and to what
        is signed: two zero bytes, one each, where the chain has CheckMetadataHash. The signer is MultiAddress Id of an
        ed25519, sr25519 or secp256k1 key. Raises NOT_FOUND; INVALID for another key, a wrong size or number.
        """
        key = self._key(call, handle, SigningKey, "sign")
        return await self._run(len(transaction.call) >= THREAD_FROM, sign_extrinsic, key, transaction)
