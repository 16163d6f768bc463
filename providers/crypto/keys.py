"""What a handle stands for: a key that signs, agrees, opens or encrypts, and never shows its secret.

May not: let secret bytes into a repr, an error, a pickle or a comparison. Python can't wipe memory: a forgotten key's
bytes lie in the host's heap until they are reused, which is why only the host, inside the enclave, holds any.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tea.protocol.errors import CallError, Code

from .limits import unknown

Random = Callable[[int], bytes]
"""Gives that many random bytes; the host's is the NSM."""

FORMATS: Final = ("native", "uncompressed", "spki", "pem", "pkcs1")


class Key:
    """A key under its algorithm's name. Without a public half unless a subclass has one."""

    __slots__ = ("algorithm", "exportable")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.exportable = False
        """Whether its actor may move it to another enclave, where the manifest lets it."""

    def public(self, format: str) -> bytes:
        """The public half. Raises INVALID on a format that this key has not, or when there is no public half."""
        if format not in FORMATS:
            raise unknown("format", format, FORMATS)
        raise CallError(Code.INVALID, f"a key of {self.algorithm} has no public half in the format {format}")

    def export_secret(self) -> bytes:
        """The bytes that make the same key again: for a sealed handover to another enclave, and nothing else."""
        raise NotImplementedError

    def share_secret(self) -> bytes:
        """The same for an enclave beside this one, while this key goes on here."""
        return self.export_secret()

    def __repr__(self) -> str:
        return f"<key of {self.algorithm}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key never leaves the host")


class SigningKey(Key):
    """A key that signs."""

    __slots__ = ()

    def sign(self, data: bytes, hashed: bool) -> bytes:
        """A signature over `data`, or over the digest that `data` is when `hashed`."""
        raise NotImplementedError


def encode_public(key: PublicKeyTypes, format: str) -> bytes | None:
    """The formats that every key of `cryptography` has; None for another."""
    if format == "spki":
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if format == "pem":
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return None


def scalar(random: Random, order: int) -> int:
    """A uniform secret scalar from 1 to `order` - 1: 64 bits more than it needs, reduced (FIPS 186-5, A.2.1)."""
    wide = random((order.bit_length() + 7) // 8 + 8)
    return int.from_bytes(wide) % (order - 1) + 1
