"""Sealing: a secret for one actor (or the host) of one manifest, to the X25519 key that an attestation carries.

May not: open under another purpose, actor or manifest than it was sealed for; keep a secret after use; show a key.
Rule: RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; docs/architecture.md, "Secrets".
"""

from __future__ import annotations

import enum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from . import canonical
from .errors import TrustError

SEAL_TAG: Final = "tea.seal.v1"
KEY_BYTES: Final = 32
MAX_PLAINTEXT: Final = 1 << 20
"""Bytes of a secret."""
OVERHEAD: Final = 32 + 16
"""Bytes that sealing adds: the encapsulated key before, the tag behind."""
_MANIFEST_DIGEST: Final = 48


class SealCode(enum.StrEnum):
    """Why something is not sealed or does not open."""

    BAD_KEY = "bad-key"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    NOT_FOR_THIS = "not-for-this"


class SealError(TrustError):
    """A secret cannot be sealed to this key, or does not open here."""


class SealingKey:
    """The private half: made at boot, kept in memory only. It is neither shown, nor pickled, nor copied."""

    __slots__ = ("_key",)

    def __init__(self, key: x25519.X25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> SealingKey:
        return cls(x25519.X25519PrivateKey.generate())

    @classmethod
    def from_raw(cls, raw: bytes) -> SealingKey:
        """From 32 secret bytes (those of the NSM's random generator). Raises `SealError(BAD_KEY)`."""
        if len(raw) != KEY_BYTES:
            raise SealError(SealCode.BAD_KEY, f"a sealing key has {KEY_BYTES} bytes, found {len(raw)}")
        return cls(x25519.X25519PrivateKey.from_private_bytes(raw))

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes: the `public_key` of the host's attestations."""
        return self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SealingKey(of {self.public.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("a sealing key is never pickled or copied")

    def open(self, sealed: bytes, *, purpose: str, actor: str | None, manifest_digest: bytes) -> bytes:
        """See `open_sealed`."""
        return open_sealed(self, sealed, purpose=purpose, actor=actor, manifest_digest=manifest_digest)

    def _decrypt(self, sealed: bytes, info: bytes) -> bytes:
        return _suite().decrypt(sealed, self._key, info)


def seal(public_key: bytes, plaintext: bytes, *, purpose: str, actor: str | None, manifest_digest: bytes) -> bytes:
    """`plaintext` (at most 1 MiB) sealed to a raw X25519 key of 32 bytes: 48 bytes longer, new at every call.

    It opens only for the same purpose, actor (None: the host itself) and manifest digest (48 bytes). Verify the
    attestation that the key comes from first. Raises `SealError`: BAD_KEY, TOO_LARGE.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise SealError(SealCode.TOO_LARGE, f"a secret of {len(plaintext)} bytes, at most {MAX_PLAINTEXT} are sealed")
    if len(public_key) != KEY_BYTES:
        raise SealError(SealCode.BAD_KEY, f"a key to seal to has {KEY_BYTES} bytes, found {len(public_key)}")
    info = _info(purpose, actor, manifest_digest)
    try:
        return _suite().encrypt(plaintext, x25519.X25519PublicKey.from_public_bytes(public_key), info)
    except ValueError:
        raise SealError(SealCode.BAD_KEY, "the key to seal to is a weak point: take it from an attestation") from None


def open_sealed(key: SealingKey, sealed: bytes, *, purpose: str, actor: str | None, manifest_digest: bytes) -> bytes:
    """What was sealed to this key for this purpose, actor (None: the host) and manifest digest (48 bytes).

    Raises `SealError`: MALFORMED (too short), TOO_LARGE, NOT_FOR_THIS (another key, purpose, actor or manifest, or
    changed on the way: which of them cannot be told).
    """
    if len(sealed) < OVERHEAD:
        raise SealError(SealCode.MALFORMED, f"{len(sealed)} bytes are too few: a sealed secret has at least {OVERHEAD}")
    if len(sealed) > MAX_PLAINTEXT + OVERHEAD:
        raise SealError(
            SealCode.TOO_LARGE, f"a sealed secret of {len(sealed)} bytes, at most {MAX_PLAINTEXT + OVERHEAD}"
        )
    try:
        return key._decrypt(sealed, _info(purpose, actor, manifest_digest))
    except (InvalidTag, ValueError):
        raise SealError(
            SealCode.NOT_FOR_THIS,
            "it does not open: sealed for another key, purpose, actor or manifest, or changed: seal it anew",
        ) from None


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _info(purpose: str, actor: str | None, manifest_digest: bytes) -> bytes:
    if len(manifest_digest) != _MANIFEST_DIGEST:
        raise ValueError(f"a manifest's digest has {_MANIFEST_DIGEST} bytes")
    return canonical.encode({"tea": SEAL_TAG, "purpose": purpose, "actor": actor, "manifest": manifest_digest})
