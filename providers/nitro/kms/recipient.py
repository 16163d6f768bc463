"""The attested recipient: an RSA-2048 key made in the enclave, and a fresh document that carries its public half.

May not: show, pickle or copy the private half, or use the key for anything but opening what KMS wrapped for it.
Rule: AWS KMS, "RecipientInfo" (AttestationDocument, KeyEncryptionAlgorithm); docs/architecture.md, "Secrets".
"""

from __future__ import annotations

import hashlib
from typing import Final, NoReturn, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import cms

KEY_ENCRYPTION_ALGORITHM: Final = "RSAES_OAEP_SHA_256"
KEY_BITS: Final = 2048


class Attest(Protocol):
    """Makes an attestation document. `Nsm.attestation` is one; the host's composes a statement of kind `kms` too."""

    def __call__(self, *, public_key: bytes, nonce: bytes) -> bytes:
        """A document over this public key (SubjectPublicKeyInfo, DER) and nonce (32 bytes)."""
        ...


class RecipientKey:
    """The RSA key to which KMS wraps its answers. It lives in memory only, and ends with the enclave."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        if key.key_size != KEY_BITS:
            raise ValueError(f"KMS wraps for RSA keys of {KEY_BITS} bits here, not {key.key_size}")
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def generate(cls) -> RecipientKey:
        """A new key. The primes come from OpenSSL's generator: mix the NSM's random into the kernel's pool first."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS))

    @property
    def public(self) -> bytes:
        """SubjectPublicKeyInfo in DER, 294 bytes: the `public_key` of the document."""
        return self._public

    def open(self, ciphertext_for_recipient: bytes) -> bytes:
        """What KMS wrapped for this key. Raises `CmsError`."""
        return cms.open_envelope(self._key, ciphertext_for_recipient)

    def __repr__(self) -> str:
        return f"RecipientKey(sha256:{hashlib.sha256(self._public).hexdigest()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a recipient key is never pickled or copied")
