"""Arithmetic of platform configuration registers: what a PCR is when something known was extended into it.

May not: read a device. All values are 48 bytes (SHA-384).
Rule: AWS, "Cryptographic attestation" (PCR0 to PCR4, PCR8); docs/architecture.md, "Measured boot" (PCR16 to PCR18).
"""

from __future__ import annotations

import hashlib
from typing import Final

SIZE: Final = 48
"""Bytes of a PCR, and of every digest that is extended into one."""
COUNT: Final = 32
"""PCRs of an NSM: 0 to 15 belong to the platform and are locked at boot, 16 to 31 to the application."""
ZERO: Final = bytes(SIZE)
"""A PCR into which nothing was extended yet."""

IMAGE_PCRS: Final = (0, 1, 2)
"""PCRs of what runs: the image, kernel with boot ramdisk, application. All zero in debug mode."""
ROLE_PCR: Final = 3
INSTANCE_PCR: Final = 4
SIGNER_PCR: Final = 8
"""The certificate that signed the image; zero for an image that nobody signed."""
MANIFEST_PCR: Final = 16
"""Extended by the host with the digest of the manifest that it booted with."""
SETTINGS_PCR: Final = 17
"""Extended by the host with the digest of the settings that are not secret."""
OWNER_PCR: Final = 18
"""Left for the image's owner; locked with the other two."""


def extend(old: bytes, data: bytes) -> bytes:
    """The PCR after ExtendPCR: SHA-384(old || data). Raises `ValueError` when `old` is not 48 bytes."""
    if len(old) != SIZE:
        raise ValueError(f"a PCR has {SIZE} bytes, not {len(old)}")
    return hashlib.sha384(old + data).digest()


def image_pcr(content_digest: bytes) -> bytes:
    """PCR0, 1, 2 or 8 from the SHA-384 of what it measures. Raises `ValueError` on another length."""
    if len(content_digest) != SIZE:
        raise ValueError(f"an image's PCR is extended with a SHA-384 ({SIZE} bytes), not {len(content_digest)} bytes")
    return extend(ZERO, content_digest)


def pcr3(role_arn: str) -> bytes:
    """PCR3 of enclaves on instances with this IAM role: the ARN's ASCII is extended, without a hash of its own.

    Raises `ValueError` on what is not ASCII.
    """
    return extend(ZERO, role_arn.encode("ascii"))


def pcr4(instance_id: str) -> bytes:
    """PCR4 of enclaves on this instance (`i-...`), extended as `pcr3`. Raises `ValueError` on what is not ASCII."""
    return extend(ZERO, instance_id.encode("ascii"))


def instance_of(module_id: str) -> str:
    """The instance id in a module id (`i-0123-enc4567` -> `i-0123`); the whole of it where there is no `-enc`."""
    return module_id.partition("-enc")[0]
