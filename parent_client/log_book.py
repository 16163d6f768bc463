"""The enclave's log on the parent: a file of JSON lines, and the newest records in memory for whoever follows.

May not: be evidence; it is whatever the enclave chose to say and the parent chose to keep.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path
from typing import Final

import msgspec

from tea.protocol.channels import LogRecord, Logs

from .operator import LogPage

HELD: Final = 10_000
"""Records in memory."""
PAGE: Final = 500
MAX_WAIT: Final = 30.0
MAX_FILE: Final = 64 << 20
"""Bytes after which the file is turned over once (`log.jsonl.1`)."""


class LogBook(Logs):
    """Answers LOGS for the enclave; `page` serves the operator."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._records: collections.deque[LogRecord] = collections.deque(maxlen=HELD)
        self._next = 0
        self._news = asyncio.Event()

    async def record(self, records: tuple[LogRecord, ...]) -> None:
        for record in records:
            self._records.append(record)
            self._next += 1
            self._file.write(msgspec.json.encode(msgspec.structs.asdict(record)) + b"\n")
        self._file.flush()
        if self._file.tell() > MAX_FILE:
            self._turn_over()
        self._news.set()
        self._news = asyncio.Event()

    def _turn_over(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_suffix(".jsonl.1"))
        self._file = self._path.open("ab")

    async def page(self, start: int, wait: float) -> LogPage:
        """Records from number `start`; waits for the first one up to `wait` seconds."""
        if start >= self._next and wait > 0:
            try:
                await asyncio.wait_for(self._news.wait(), min(wait, MAX_WAIT))
            except TimeoutError:
                pass
        first = self._next - len(self._records)
        begin = max(start, first)
        records = tuple(self._records[number - first] for number in range(begin, min(self._next, begin + PAGE)))
        return LogPage(records, begin + len(records), max(0, first - start))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
