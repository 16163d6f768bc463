"""Signing keys as files on the operator's machine: made with mode 0600, found by name or path.

May not: print a private key, or overwrite one. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

import typer

from tea.trust.keys import PrivateKey, PublicKey

from .files import private_folder, read_text, write_new
from .refusal import Refusal
from .registry import default_registry

DEVELOPMENT: Final = "dev"
"""Name of the key that the shipped actors and manifests are signed with on this machine; made on first use."""
PRIVATE, PUBLIC = ".pem", ".pub"
MAX_KEY_FILE: Final = 64 << 10
_OTHERS: Final = 0o077
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


def key_folder() -> Path:
    """Where keys lie: `keys` below the registry's folder."""
    return default_registry().folder / "keys"


def require_key_name(name: str) -> None:
    """Raise `BadParameter` unless a key's file can have this name."""
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"found {name[:80]!r}, expected letters, digits, - and _, at most 64", param_hint="NAME"
        )


def write_key(name: str, key: PrivateKey, folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """Write NAME.pem (mode 0600) and NAME.pub; their paths. Raises `Refusal` when one is there already."""
    if not folder.is_dir():
        private_folder(folder)
    private, public = folder / f"{name}{PRIVATE}", folder / f"{name}{PUBLIC}"
    try:
        for path in (private, public):
            if os.path.lexists(path):
                raise FileExistsError(0, "", str(path))
        write_new(private, key.to_pem(password), 0o600)
        write_new(public, f"{key.public.text}\n".encode(), 0o644)
    except FileExistsError as error:
        raise Refusal(
            f"{error.filename2 or error.filename} is there already: choose another name, or remove it if nothing was "
            "signed with it"
        ) from None
    return private, public


def read_password(path: Path | None) -> bytes | None:
    """A key's password: the first line of a file. None: no file. Raises `Refusal` on an empty one or one that others
    can read.
    """
    if path is None:
        return None
    lines = read_private_file(path).splitlines()
    if not lines or not lines[0]:
        raise Refusal(f"{path}: found an empty first line, expected the key's password on it")
    return lines[0]


def read_private(name: str, password_file: Path | None = None) -> PrivateKey:
    """A private key by path or by name. Raises `Refusal`, or `SigningError` when the file holds no key of ours."""
    return PrivateKey.from_pem(read_private_file(find_key(name, PRIVATE)), read_password(password_file))


def read_public(name: str) -> PublicKey:
    """A public key: its text, or a .pub file by path or by name. Raises `Refusal` or `SigningError`."""
    if name.startswith(("ed25519:", "p384:")):
        return PublicKey.parse(name)
    return PublicKey.parse(read_text(find_key(name, PUBLIC), "public key (NAME.pub)", MAX_KEY_FILE).strip())


def development_key() -> PrivateKey:
    """This machine's development key, made on first use. It proves nothing to anybody else."""
    folder = key_folder()
    path = folder / f"{DEVELOPMENT}{PRIVATE}"
    if not path.is_file():
        try:
            write_key(DEVELOPMENT, PrivateKey.generate(), folder)
        except Refusal:
            if not path.is_file():
                raise  # else another process made it just now: use that one
    return read_private(str(path))


def find_key(name: str, suffix: str) -> Path:
    """The file of a key by path or by name. Raises `Refusal`."""
    # A bare name is a key's name first: a file that happens to lie in the working folder must not take its place.
    path = Path(name)
    named = key_folder() / f"{name}{suffix}"
    is_bare = path.name == name
    if is_bare and named.is_file():
        return named
    if path.is_file():
        return path
    made = f"; `teactl key new {name}` makes one" if is_bare else ""
    raise Refusal(f"no key {name}: found neither a file of that name nor {named}{made}")


def read_private_file(path: Path) -> bytes:
    """A private key's file, at most 64 KiB. Raises `Refusal` when others can read it."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & _OTHERS:
            raise Refusal(
                f"{path}: found mode {stat.S_IMODE(found.st_mode):04o}, which lets others read it, expected 0600: "
                f"chmod 600 {path}"
            )
        return file.read(MAX_KEY_FILE)
