"""The audit log's file: appended to, synced, and never shorter than what the vault remembers of it.

May not: write while another process does (the vault's transaction is the lock), or go on over a file that was cut.
Rule: docs/secrets.md, "The audit log".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tea.trust.audit_log import ZERO, AuditCode, AuditEntry, AuditError, parse_line

_TAIL: Final = 64 << 10


class AuditFile:
    """One file of lines. `append` is called within the vault's transaction, which keeps (count, head)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self, known: tuple[int, bytes], time: int, event: str, fields: Mapping[str, str | int]
    ) -> tuple[int, bytes]:
        """Write one entry after the last and sync it; (count, head) after it. `known` is what the vault remembers.

        A line that was written and not remembered (the machine stopped in between) is taken over, one at most.
        Raises `AuditError` when the file is not what is remembered, `OSError` when it cannot be written.
        """
        count, head = self._end(known)
        entry = AuditEntry(count, time, event, fields, head)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            data = (entry.line() + "\n").encode()
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "the audit log's disk is full", str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return count + 1, entry.digest

    def _end(self, known: tuple[int, bytes]) -> tuple[int, bytes]:
        last = self._last_line()
        if last is None:
            if known == (0, ZERO):
                return known
            raise self._cut(known)
        entry = parse_line(last, known[0])
        found = (entry.index + 1, entry.digest)
        if found == known:
            return known
        if found[0] == known[0] + 1 and entry.previous == known[1]:
            return found
        raise self._cut(known)

    def _last_line(self) -> str | None:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                tail = file.read()
        except FileNotFoundError:
            return None
        if not tail:
            return None
        if not tail.endswith(b"\n"):
            raise AuditError(
                AuditCode.LINE, f"{self.path} ends within a line: its disk was full, or it was cut; keep it and look"
            )
        return tail[:-1].rpartition(b"\n")[2].decode(errors="replace")

    def _cut(self, known: tuple[int, bytes]) -> AuditError:
        return AuditError(
            AuditCode.HEAD,
            f"{self.path} does not end in line {known[0]} with the digest {known[1].hex()}, which the vault remembers: "
            "lines were cut off or added; nothing is released over such a log",
        )
