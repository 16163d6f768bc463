"""What a simulated enclave measures to, and who it is: instance ids, module ids, PCR0 to 2 without an image.

May not: be used where there is an image: then the image's own measurements are the PCRs.
Rule: docs/architecture.md, "Modes": without an image PCR0 to 2 are digests of the source tree and the approvers' file.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

import tea
from tea.trust import pcr

FLOORS: Final = ("protocol", "trust", "providers", "sdk", "runtime")
"""The floors that an image holds: what runs inside."""


def source_digest() -> bytes:
    """SHA-384 over the path and content of every Python file of the floors that run inside."""
    root = Path(next(iter(tea.__path__)))
    digest = hashlib.sha384(b"tea.source.v1")
    for floor in FLOORS:
        folder = (root / floor).resolve()
        for path in sorted(folder.rglob("*.py")):
            name = f"{floor}/{path.relative_to(folder).as_posix()}".encode()
            content = path.read_bytes()
            for piece in (name, content):
                digest.update(len(piece).to_bytes(8, "big"))
                digest.update(piece)
    return digest.digest()


def simulated_pcrs(approvers: bytes) -> dict[int, bytes]:
    """PCR0 (source and approvers), PCR1 (source) and PCR2 (approvers' file) of an enclave that has no image."""
    source, policy = source_digest(), hashlib.sha384(approvers).digest()
    return {
        0: pcr.image_pcr(hashlib.sha384(source + policy).digest()),
        1: pcr.image_pcr(source),
        2: pcr.image_pcr(policy),
    }


def instance_id(network: bytes, slot: str) -> str:
    """The instance of a slot: the same for every start of it, another in every network. Like `i-0fd3fdaad4e904e69`."""
    return "i-0" + hashlib.sha256(network + slot.encode()).hexdigest()[:16]


def module_id(instance: str) -> str:
    """A fresh enclave on an instance."""
    return f"{instance}-enc0{secrets.token_hex(8)[1:]}"
