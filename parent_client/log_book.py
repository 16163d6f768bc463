"""The enclave's log on the parent: a file of JSON lines, and the newest records in memory for whoever follows.

May not: be evidence; it is whatever the enclave chose to say and the parent chose to keep. May not grow without bound,
however an enclave floods. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
import collections
import errno
import os
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tea.protocol.channels import LogRecord, Logs

from .operator import LogPage

HELD: Final = 10_000
"""Records in memory."""
HELD_BYTES: Final = 16 << 20
"""Bytes of them, as JSON."""
PAGE: Final = 500
PAGE_BYTES: Final = 384 << 10
"""Bytes of a page's records as JSON; with the largest record on top a page still fits a frame."""
MAX_BATCH: Final = 4096
"""Records of one message that are kept."""
MAX_WAIT: Final = 30.0
MAX_FILE: Final = 64 << 20
"""Bytes after which the file is turned over once (`log.jsonl.1`)."""
OWN: Final = "client"
"""Source of the records that the runtime client itself writes."""

_MAX_LEVEL: Final = 16
_MAX_SOURCE: Final = 128
_MAX_MESSAGE: Final = 8192
_MAX_FIELDS: Final = 8192
_LAST_SECOND: Final = 253_402_300_799
# 9999-12-31T23:59:59Z: no calendar here goes on after that.


class LogBook(Logs):
    """Answers LOGS for the enclave; `page` serves the operator."""

    def __init__(self, path: Path, *, max_file: int = MAX_FILE) -> None:
        self._path = path
        self._max_file = max_file
        self._file, self._size = self._open()
        self._records: collections.deque[tuple[LogRecord, int]] = collections.deque()
        self._held = 0
        self._next = 0
        self._news = asyncio.Event()
        self.lost = 0
        """Records that the file does not have: over the bound of a message, or the disk was full."""

    async def record(self, records: tuple[LogRecord, ...]) -> None:
        self.lost += max(0, len(records) - MAX_BATCH)
        self._keep([_bounded(record) for record in records[:MAX_BATCH]])

    def note(self, level: str, message: str) -> None:
        """A record of the runtime client's own."""
        self._keep([_bounded(LogRecord(time.time(), level, OWN, message, {}))])

    async def page(self, start: int, wait: float) -> LogPage:
        """Records from number `start`, a negative one counted from the end; waits up to `wait` seconds for one."""
        if start < 0:
            start = max(0, self._next + start)
        if start >= self._next and wait > 0:
            try:
                await asyncio.wait_for(self._news.wait(), min(wait, MAX_WAIT))
            except TimeoutError:
                pass
        first = self._next - len(self._records)
        begin = min(max(start, first), self._next)
        page: list[LogRecord] = []
        size = 0
        for number in range(begin, min(self._next, begin + PAGE)):
            record, length = self._records[number - first]
            page.append(record)
            size += length
            if size > PAGE_BYTES:
                break
        return LogPage(tuple(page), begin + len(page), max(0, first - start))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- inside --------------------------------------------------------------------------------------------------

    def _keep(self, records: list[LogRecord]) -> None:
        lines = [msgspec.json.encode(msgspec.structs.asdict(record)) + b"\n" for record in records]
        for record, line in zip(records, lines, strict=True):
            self._records.append((record, len(line)))
            self._held += len(line)
        while len(self._records) > HELD or self._held > HELD_BYTES:
            self._held -= self._records.popleft()[1]
        self._next += len(records)
        try:
            self._write(b"".join(lines))
        except OSError:
            self.lost += len(records)  # a full disk must not take the log in memory away as well
        self._news.set()
        self._news = asyncio.Event()

    def _write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_file:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            full = self._file
            self._file, self._size = self._open()
            full.close()
        written = self._file.write(data)
        if written < len(data):
            os.ftruncate(self._file.fileno(), self._size)  # half a line would spoil the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += written

    def _open(self) -> tuple[BinaryIO, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(self._path, flags, 0o600), "ab", buffering=0)
        return file, os.fstat(file.fileno()).st_size


def _bounded(record: LogRecord) -> LogRecord:
    """The record within bounds: an enclave is not to be believed in sizes and times either."""
    moment = record.time if 0 <= record.time <= _LAST_SECOND else time.time()  # NaN compares false
    fields: dict[str, str] = {}
    room = _MAX_FIELDS
    for key, value in record.fields.items():
        room -= len(key) + len(value)
        if room < 0:
            fields["..."] = f"{len(record.fields) - len(fields)} fields are too long and were left out"
            break
        fields[key] = value
    level, source = _cut(record.level, _MAX_LEVEL), _cut(record.source, _MAX_SOURCE)
    return LogRecord(moment, level, source, _cut(record.message, _MAX_MESSAGE), fields)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
