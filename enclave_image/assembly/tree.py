"""What a ramdisk is to hold: paths with modes and contents, kept sorted; contents stay on disk until they are written.

May not: take anything from the file system but bytes: modes, owners and times are this module's.
Rule: reproducible-builds.org, "Archive metadata".
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..eif.codes import ImageCode, ImageError


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link; owner root, time zero."""

    mode: int
    """With the type's bits, as stat(2) has them."""
    content: bytes | Path = b""
    """A file's bytes or where they lie; a link's target."""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def read(self) -> bytes:
        """The content, whole."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


class Tree:
    """Paths (relative, normal, with slashes) to entries. Parents come of themselves, mode 0755."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add_file(self, path: str, content: bytes | Path, *, executable: bool = False, mode: int | None = None) -> None:
        """A file, mode 0644 or 0755 unless said otherwise."""
        self._add(path, Entry(stat.S_IFREG | (mode if mode is not None else 0o755 if executable else 0o644), content))

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """A folder; nothing when it is there."""
        if path not in self._entries:
            self._add(path, Entry(stat.S_IFDIR | mode))

    def remove(self, path: str) -> None:
        """Take one entry out."""
        del self._entries[path]

    def get(self, path: str) -> Entry | None:
        """The entry at a path."""
        return self._entries.get(path)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Every entry, by path in byte order: a folder before what is in it."""
        for path in sorted(self._entries, key=lambda one: one.encode()):
            yield path, self._entries[path]

    def _add(self, path: str, entry: Entry) -> None:
        if path != posixpath.normpath(path) or path.startswith(("/", "../")) or path in (".", ".."):
            raise ImageError(ImageCode.BUILD, f"{path!r} is no path inside an image")
        present = self._entries.get(path)
        if present is not None and (present.mode != entry.mode or present.read() != entry.read()):
            raise ImageError(ImageCode.BUILD, f"{path} comes twice, with different contents")
        folder = posixpath.dirname(path)
        if folder:
            self.add_folder(folder)
            if not stat.S_ISDIR(self._entries[folder].mode):
                raise ImageError(ImageCode.BUILD, f"{path} is to lie in {folder}, which is no folder")
        self._entries[path] = entry
