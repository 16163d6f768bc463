"""How a keeper's recovery key is written: the X25519 key to which that keeper's share of a backup is sealed.

May not: hold private halves; those stay on the keepers' own machines. Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from .sealing import KEY_BYTES

PREFIX: Final = "x25519:"
MAX_KEEPERS: Final = 32


def parse_recovery_key(text: str) -> bytes:
    """A keeper's public key, `x25519:<base64 of 32 bytes>`, in its one spelling. Raises `ValueError`."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES or recovery_key_text(raw) != text:
        raise ValueError("a recovery key is written x25519:BASE64, of 32 bytes")
    return raw


def is_recovery_key(text: str) -> bool:
    """Whether `parse_recovery_key` reads it."""
    try:
        parse_recovery_key(text)
    except ValueError:
        return False
    return True


def recovery_key_text(raw: bytes) -> str:
    """The one spelling of a keeper's public key."""
    return PREFIX + base64.b64encode(raw).decode()
