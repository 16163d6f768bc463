"""Keepers' recovery keys as files: X25519, the private half with mode 0600 on the keeper's own machine.

May not: print a private half, or overwrite one. Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from tea.trust.recovery import recovery_key_text
from tea.trust.sealing import SealingKey

from .files import private_folder, write_new
from .keys import find_key, read_password, read_private_file
from .refusal import Refusal

SUFFIX: Final = ".recovery.pem"


def write_recovery_key(name: str, folder: Path, password: bytes | None) -> tuple[str, Path]:
    """Make NAME.recovery.pem (mode 0600); its public text and path. Raises `Refusal` when one is there already."""
    if not folder.is_dir():
        private_folder(folder)
    key = x25519.X25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path = folder / f"{name}{SUFFIX}"
    try:
        write_new(path, pem, 0o600)
    except FileExistsError:
        raise Refusal(f"{path} is there already: choose another name; backups may need this one") from None
    return recovery_key_text(SealingKey(key).public), path


def read_recovery_key(name: str, password_file: Path | None = None) -> SealingKey:
    """A keeper's private key by path or by name. Raises `Refusal`."""
    path = find_key(name, SUFFIX)
    pem = read_private_file(path)
    try:
        key = serialization.load_pem_private_key(pem, read_password(password_file))
    except (ValueError, TypeError):
        raise Refusal(
            f"{path} opens to no key: it is no PEM, its password is another, or one is missing (--password-file)"
        ) from None
    if not isinstance(key, x25519.X25519PrivateKey):
        raise Refusal(f"{path} holds another key than X25519: `teactl backup key` makes a recovery key")
    return SealingKey(key)
