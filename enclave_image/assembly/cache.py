"""A folder of files by their SHA-256: what was fetched once is there when its source is not any more.

May not: hand out a file whose bytes are not those of its name. Rule: docs/architecture.md, "The enclave image".
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..eif.codes import ImageCode, ImageError


class Cache:
    """Files by hash, in `folder`. Nothing is ever evicted: `rm -r` is the eviction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, digest: str, name: str) -> Path | None:
        """A file by its SHA-256 in hex; None when it is not there. One that is damaged is dropped."""
        path = self.folder / digest / name
        if not path.is_file():
            return None
        if sha256(path) != digest:
            path.unlink()
            return None
        return path

    def keep(self, path: Path, digest: str) -> Path:
        """Move a fetched file in. Raises `ImageError(PACKAGE)` when its bytes are others."""
        found = sha256(path)
        if found != digest:
            raise ImageError(
                ImageCode.PACKAGE, f"{path.name} has SHA-256 {found}, the lock says {digest}: it is not the one meant"
            )
        kept = self.folder / digest / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, kept)  # noqa: PTH105 (both are on the cache's file system)
        return kept


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
