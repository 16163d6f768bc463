"""Keys in AWS KMS: sign with a P-384 key (ECDSA_SHA_384), wrap with a symmetric key.

May not: trust an answer it can check: a signature is verified with the public key before it is used.
Rule: AWS KMS API reference: GetPublicKey, Sign, Encrypt, Decrypt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tea.trust.keys import PublicKey, SigningError

from ..refusal import Refusal
from .aws import KmsKey

_ALGORITHM: Final = "ECDSA_SHA_384"
_HALF: Final = 48
_RAW: Final = 4096
"""Bytes of a message that KMS takes whole."""


class KmsSigner:
    """A P-384 key in KMS (key spec ECC_NIST_P384, usage SIGN_VERIFY)."""

    def __init__(self, key: KmsKey, public: PublicKey) -> None:
        self._key = key
        self._public = public

    @classmethod
    def open(cls, spec: str) -> KmsSigner:
        """Ask KMS for the public key. Raises `Refusal` when it is no key on P-384."""
        key = KmsKey.parse(spec)
        der = _bytes(key.ask("GetPublicKey", {}), "PublicKey")
        try:
            public = load_der_public_key(der)
        except (ValueError, UnsupportedAlgorithm):
            raise Refusal(f"KMS gives of {key.key} no public key that can be read") from None
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP384R1):
            raise Refusal(f"the KMS key {key.key} is not on P-384: make one with key spec ECC_NIST_P384")
        return cls(key, PublicKey(public))

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        """r then s, 96 bytes, verified. Raises `Refusal`."""
        # KMS hashes what is short itself; of what is long it takes the digest.
        raw = len(data) <= _RAW
        message = base64.b64encode(data if raw else hashlib.sha384(data).digest()).decode()
        asked = {"Message": message, "MessageType": "RAW" if raw else "DIGEST", "SigningAlgorithm": _ALGORITHM}
        try:
            r, s = decode_dss_signature(_bytes(self._key.ask("Sign", asked), "Signature"))
            signature = r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")
            self._public.verify(signature, data)
        except (ValueError, OverflowError, SigningError):
            raise Refusal(f"KMS answered with a signature that is not that of {self._public.text}") from None
        return signature

    def __repr__(self) -> str:
        return f"KmsSigner({self._public.text})"


class KmsWrap:
    """A symmetric key in KMS that wraps another key; the context is its encryption context, logged by AWS."""

    def __init__(self, key: KmsKey) -> None:
        self._key = key

    @classmethod
    def open(cls, spec: str) -> KmsWrap:
        """From `awskms:KEY?region=R`. Raises `Refusal`."""
        return cls(KmsKey.parse(spec))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """`key` encrypted by KMS, bound to `context`. Raises `Refusal`."""
        asked = {"Plaintext": base64.b64encode(key).decode(), "EncryptionContext": {"tea": context.hex()}}
        return _bytes(self._key.ask("Encrypt", asked), "CiphertextBlob")

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key. Raises `Refusal` when KMS does not decrypt it for this context."""
        asked = {"CiphertextBlob": base64.b64encode(wrapped).decode(), "EncryptionContext": {"tea": context.hex()}}
        return _bytes(self._key.ask("Decrypt", asked), "Plaintext")


def _bytes(answer: dict[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(str(answer[name]), validate=True)
    except (KeyError, binascii.Error, ValueError):
        raise Refusal(f"KMS answered without {name}") from None
