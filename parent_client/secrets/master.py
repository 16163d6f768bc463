"""The key that everything in a vault is encrypted under, and what wraps it: a file, a PKCS#11 token or AWS KMS.

May not: write the key anywhere unwrapped, or show it. Rule: docs/secrets.md, "At rest"; NIST SP 800-38D (AES-GCM).
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..refusal import Refusal

KEY_BYTES: Final = 32
_NONCE: Final = 12


class Wrap(Protocol):
    """What wraps a key, bound to a context."""

    def wrap(self, key: bytes, context: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes: ...


class FileWrap:
    """32 bytes in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path) -> FileWrap:
        """Make the file with fresh random bytes. Raises `FileExistsError`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        return cls(path)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        return encrypt(self._key(), key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        try:
            return decrypt(self._key(), wrapped, context)
        except InvalidTag:
            raise Refusal(f"{self._path} is not the key of this vault, or the vault was changed") from None

    def _key(self) -> bytes:
        if stat.S_IMODE(self._path.stat().st_mode) & 0o077:
            raise Refusal(f"{self._path} can be read by others: chmod 600 {self._path}")
        key = self._path.read_bytes()
        if len(key) != KEY_BYTES:
            raise Refusal(f"{self._path} has {len(key)} bytes, expected {KEY_BYTES}: it is no vault's key")
        return key


def open_wrap(spec: str, folder: Path) -> Wrap:
    """What a vault says wraps its key: `file:NAME` (in its folder, or absolute), `pkcs11:...`, `awskms:...`.

    Raises `Refusal`.
    """
    if spec.startswith("file:"):
        return FileWrap(folder / spec.removeprefix("file:"))
    if spec.startswith("pkcs11:"):
        from ..signers.token import TokenWrap

        return TokenWrap.open(spec)
    if spec.startswith("awskms:"):
        from ..signers.kms import KmsWrap

        return KmsWrap.open(spec)
    raise Refusal(f"{spec.partition(':')[0][:40]!r} wraps no keys here: use file:NAME, pkcs11:... or awskms:...")


def encrypt(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """AES-256-GCM: nonce (12 bytes, random), ciphertext, tag; bound to `context`."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def decrypt(key: bytes, data: bytes, context: bytes) -> bytes:
    """What `encrypt` made with this key and context. Raises `InvalidTag`."""
    if len(data) < _NONCE:
        raise InvalidTag
    return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], context)
