"""Files and folders of the operator's machine: read within bounds, written whole, kept from others.

May not: follow a state folder that others can write to: whoever can put a socket there can pass for the runtime client.
Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from .refusal import Refusal

MAX_TEXT: Final = 1 << 20
"""Bytes of a YAML file that is read: manifests, policies, approvers and bundle.yaml."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_FOLDER_MODE: Final = 0o700


def read_bytes(path: Path, what: str, limit: int) -> bytes:
    """The bytes of a file, at most `limit`. `what` it should be stands in the `Refusal`. Raises `OSError` as well."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refusal(f"{path} has more than {limit} bytes: it is no {what}")
    return data


def read_text(path: Path, what: str, limit: int = MAX_TEXT) -> str:
    """The text of a file. Raises `Refusal` when it is too large or no UTF-8, or `OSError` with the path."""
    try:
        return read_bytes(path, what, limit).decode()
    except UnicodeDecodeError as error:
        raise Refusal(
            f"{path}: found the byte {error.object[error.start]:#04x} at {error.start}, expected UTF-8 text: "
            f"it is no {what}"
        ) from None


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Put a file in its place at once: whoever reads sees the one before or this one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder: name a file", str(path))
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _create(temporary, raw, mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet, whole or not at all. Raises `FileExistsError`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _create(temporary, data, mode)
        # A link, unlike a rename, never takes the place of what is there.
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def private_folder(path: Path) -> Path:
    """A folder that nobody else can write to, made (with its parents, mode 0700) when it is missing.

    Raises `PermissionError` that says what is wrong with one that is there.
    """
    for folder in [*reversed(path.parents), path]:
        try:
            folder.mkdir(mode=_FOLDER_MODE)
        except OSError:
            # There already, or the root of a file system that is read-only: what counts is what is there in the end.
            if folder == path and not path.is_dir():
                raise
    require_private(path)
    return path


def require_private(path: Path) -> None:
    """Raise `PermissionError` when others own a folder or can write to it, `FileNotFoundError` when there is none."""
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "this is no folder", str(path))
    if found.st_uid != os.geteuid():
        raise PermissionError(
            errno.EACCES,
            f"the folder belongs to user {found.st_uid}, expected {os.geteuid()}: its owner could answer for an "
            "enclave's client; use a folder of your own",
            str(path),
        )
    if found.st_mode & _OTHERS_WRITE:
        raise PermissionError(
            errno.EACCES,
            f"others can write to the folder (mode {stat.S_IMODE(found.st_mode):04o}) and so answer for an enclave's "
            f"client: chmod go-w {path}",
            str(path),
        )
