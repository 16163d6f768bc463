"""Whose manifests an image runs: the approvers' file, or for experiments in a VM approvers that anybody can be.

May not: put the development approvers into an image that hardware would attest.
Rule: docs/architecture.md, "Approvers".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tea.trust.approval import Approvers, parse_approvers
from tea.trust.keys import PrivateKey

DEPLOYMENT: Final = "development"
_SEED: Final = b"tea-runtime development approver: everybody has this key, and it approves nothing of worth"


def insecure_development_key() -> PrivateKey:
    """A private key that is no secret: it is computed from a sentence in this file, the same on every machine.

    Images are reproducible only if everybody builds them with the same approvers; those of a VM's image are this key.
    """
    raw = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_SEED).digest())
    return PrivateKey.from_pem(raw.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def insecure_development_approvers() -> Approvers:
    """The approvers of an image for which none were given."""
    return Approvers(DEPLOYMENT, 1, 1, (insecure_development_key().public,))


def read_approvers(path: Path) -> Approvers:
    """An approvers' file. Raises `ManifestError` (a `TrustError`), `OSError`."""
    return parse_approvers(path.read_text(), str(path))


def is_insecure(approvers: Approvers) -> bool:
    """Whether the development key is among them."""
    return insecure_development_key().public in approvers.keys
