"""The roots of trust that a relying party pins: AWS's, shipped with this package, or a simulated network's, by digest.

May not: fetch anything, or trust a root because it came along with a document.
Rule: AWS, "Verifying the root of trust"; docs/architecture.md, "Modes" (a simulated root must be named).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

AWS_ROOT_G1: Final = bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")
"""SHA-256 of the DER of AWS's Nitro Enclaves root G1, valid from 2019-10-28 to 2049-10-28."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Pinned root certificates, each by the SHA-256 of its DER. Never empty."""

    digests: frozenset[bytes]

    def __post_init__(self) -> None:
        if not self.digests:
            raise ValueError("no root is pinned: nothing could be believed")
        for digest in self.digests:
            if len(digest) != 32:
                raise ValueError(f"a root is pinned by its SHA-256 (32 bytes), not by {len(digest)} bytes")

    @classmethod
    def from_digests(cls, digests: Iterable[bytes]) -> Roots:
        """Roots by the SHA-256 (32 bytes) of their DER. Raises `ValueError` on none or on another length."""
        return cls(frozenset(digests))

    @classmethod
    def from_certificates(cls, certificates: Iterable[bytes]) -> Roots:
        """Roots by their DER. Raises `ValueError` on none."""
        return cls(frozenset(digest_of(der) for der in certificates))

    def __contains__(self, digest: object) -> bool:
        return digest in self.digests

    def __or__(self, other: Roots) -> Roots:
        return Roots(self.digests | other.digests)

    def __str__(self) -> str:
        return ", ".join(sorted(f"sha256:{digest.hex()}" for digest in self.digests))


def digest_of(certificate: bytes) -> bytes:
    """What a root is pinned by: the SHA-256 of its DER."""
    return hashlib.sha256(certificate).digest()


def aws_root_certificate() -> bytes:
    """The DER of AWS's root G1 as it is shipped here."""
    pem = resources.files(__package__).joinpath("aws-nitro-root-g1.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def aws_roots() -> Roots:
    """AWS's root, by the digest that AWS publishes: a changed file in this package cannot change what is believed."""
    return Roots.from_digests([AWS_ROOT_G1])
