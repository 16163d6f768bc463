"""Signing keys as files on the operator's machine: made with mode 0600, found by name or path.

May not: print a private key, or overwrite one. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from tea.trust.keys import PrivateKey, PublicKey

from .console import Refusal
from .registry import default_registry

DEVELOPMENT: Final = "dev"
"""Name of the key that the shipped actors and manifests are signed with on this machine; made on first use."""


def key_folder() -> Path:
    """Where keys lie: `keys` below the registry's folder."""
    return default_registry().folder / "keys"


def write_key(name: str, key: PrivateKey, folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """Write NAME.pem (mode 0600) and NAME.pub; their paths. Raises `Refusal` when one is there already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    if private.exists() or public.exists():
        raise Refusal(f"{private} is there already: choose another name, or remove it if nothing was signed with it")
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.to_pem(password))
    public.write_text(key.public.text + "\n")
    return private, public


def _find(name: str, suffix: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    path = key_folder() / f"{name}{suffix}"
    if path.is_file():
        return path
    raise Refusal(f"no key {name}: neither a file of that name nor {path}; `teactl key new {name}` makes one")


def read_private(name: str, password_file: Path | None = None) -> PrivateKey:
    """A private key by path or by name. Raises `Refusal`, or `SigningError` when the file holds no key of ours."""
    path = _find(name, ".pem")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Refusal(f"{path} can be read by others: chmod 600 {path}")
    password = password_file.read_bytes().rstrip(b"\n") if password_file is not None else None
    return PrivateKey.from_pem(path.read_bytes(), password)


def read_public(name: str) -> PublicKey:
    """A public key: its text, or a .pub file by path or by name. Raises `Refusal` or `SigningError`."""
    if name.startswith(("ed25519:", "p384:")):
        return PublicKey.parse(name)
    return PublicKey.parse(_find(name, ".pub").read_text().strip())


def development_key() -> PrivateKey:
    """This machine's development key, made on first use. It proves nothing to anybody else."""
    folder = key_folder()
    if not (folder / f"{DEVELOPMENT}.pem").is_file():
        write_key(DEVELOPMENT, PrivateKey.generate(), folder)
    return read_private(str(folder / f"{DEVELOPMENT}.pem"))
