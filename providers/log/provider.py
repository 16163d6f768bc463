"""The log provider: an actor's records, checked, limited, batched, told to the parent over LOGS.

May not: hold up an actor (what is too much is dropped and counted), or believe that the parent keeps a record.
Everything logged leaves the enclave in the clear. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.channels import Channel, LogRecord
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import MANY, Call, Config, Provider
from .bucket import Bucket

MAX_MESSAGE: Final = 8192
"""Bytes (UTF-8) of a message."""
MAX_FIELDS: Final = 32
MAX_KEY: Final = 64
MAX_VALUE: Final = 1024
"""Bytes (UTF-8) of a field's key and value."""
_BATCH_BYTES: Final = 256 * 1024
"""Bytes of records in one frame: a quarter of what a frame takes."""
_FLUSH_SECONDS: Final = 0.05
_OWN: Final = "provider:log"
# Control characters could steer the terminal of whoever reads the log; a tab and a line end do no harm.
_CONTROLS: Final = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}

Fields = Annotated[dict[str, str], MANY] | None


class Level(enum.StrEnum):
    """Levels, least first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_ORDER: Final = {level: place for place, level in enumerate(Level)}


class LogConfig(Config, frozen=True):
    """What is kept and how much."""

    level: Level = Level.INFO
    """Records below it are dropped at once, uncounted."""
    rate: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 100.0
    """Records a second that each actor may write, in the long run."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    """Records that an actor may write at once."""
    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2048
    """Records that wait for the next batch, 50 ms apart; more are dropped."""
    queue_bytes: Annotated[int, msgspec.Meta(ge=65_536, le=1 << 28)] = 4 << 20
    """Bytes of records that wait for the next batch; more are dropped."""


class LogFigures(msgspec.Struct, frozen=True):
    """What became of an actor's records."""

    written: int
    dropped: int


class Log(Provider[LogConfig]):
    """Structured log records out of the enclave. Never log a secret: the parent reads everything."""

    name: ClassVar[str] = "log"
    config_type: ClassVar[type[Config]] = LogConfig
    in_place: ClassVar[frozenset[str]] = frozenset(LogConfig.__struct_fields__)

    def __init__(self, config: LogConfig) -> None:
        super().__init__(config)
        self._queue: deque[tuple[LogRecord, int]] = deque()
        self._queued_bytes = 0
        self._buckets: dict[str, Bucket] = {}
        self._written: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._unreported: dict[str, int] = {}
        self._flush: asyncio.TimerHandle | None = None

    async def stop(self) -> None:
        self._flush_now()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def reconfigure(self, config: LogConfig) -> None:
        super().reconfigure(config)
        for bucket in self._buckets.values():
            bucket.retune(config.rate, config.burst)

    async def forget(self, actor: str) -> None:
        for figures in (self._written, self._dropped, self._unreported):
            figures.pop(actor, None)
        self._buckets.pop(actor, None)

    def usage(self) -> dict[str, int]:
        return {
            "queued": len(self._queue),
            "queued_bytes": self._queued_bytes,
            "written": sum(self._written.values()),
            "dropped": sum(self._dropped.values()),
        }

    @operation
    async def write(self, call: Call, level: str, message: str, fields: Fields = None) -> bool:
        """Write a record of level debug, info, warning or error; False when it was dropped.

        At most 8192 bytes of message and 32 fields of 64 and 1024 bytes (UTF-8): INVALID beyond. Control characters
        but tab and line end are replaced. Dropped are records below the configured level, beyond the actor's rate, or
        beyond what waits for the next batch; the last two are counted, and the count is logged when there is room.
        """
        try:
            typed = Level(level)
        except ValueError:
            raise CallError(Code.INVALID, f"a level is one of {', '.join(Level)}, not {level[:32]!r}") from None
        return self._accept(call, typed, message, fields or {})

    @operation
    async def debug(self, call: Call, message: str, fields: Fields = None) -> bool:
        """`write` at level debug."""
        return self._accept(call, Level.DEBUG, message, fields or {})

    @operation
    async def info(self, call: Call, message: str, fields: Fields = None) -> bool:
        """`write` at level info."""
        return self._accept(call, Level.INFO, message, fields or {})

    @operation
    async def warning(self, call: Call, message: str, fields: Fields = None) -> bool:
        """`write` at level warning."""
        return self._accept(call, Level.WARNING, message, fields or {})

    @operation
    async def error(self, call: Call, message: str, fields: Fields = None) -> bool:
        """`write` at level error."""
        return self._accept(call, Level.ERROR, message, fields or {})

    @operation
    async def figures(self, call: Call) -> LogFigures:
        """How many records of the calling actor were written and how many dropped since the host started."""
        return LogFigures(self._written.get(call.caller, 0), self._dropped.get(call.caller, 0))

    def _accept(self, call: Call, level: Level, message: str, fields: Mapping[str, str]) -> bool:
        _require("a message", message, MAX_MESSAGE)
        if len(fields) > MAX_FIELDS:
            raise CallError(Code.INVALID, f"a record has at most {MAX_FIELDS} fields, not {len(fields)}")
        for key, value in fields.items():
            _require("a field's key", key, MAX_KEY)
            _require("a field's value", value, MAX_VALUE)
        if _ORDER[level] < _ORDER[self.config_for(call).level]:
            return False
        bucket = self._buckets.get(call.caller)
        if bucket is None:
            bucket = self._buckets[call.caller] = Bucket(self.config.rate, self.config.burst, self.services.monotonic())
        if not bucket.take(self.services.monotonic()):
            return self._drop(call.caller)
        self._report_drops(call.caller)
        clean = {key.translate(_CONTROLS): value.translate(_CONTROLS) for key, value in fields.items()}
        source = f"actor:{call.caller}#{call.replica}"
        record = LogRecord(self.services.now(), str(level), source, message.translate(_CONTROLS), clean)
        if not self._enqueue(record):
            return self._drop(call.caller)
        self._written[call.caller] = self._written.get(call.caller, 0) + 1
        return True

    def _drop(self, actor: str) -> bool:
        self._dropped[actor] = self._dropped.get(actor, 0) + 1
        self._unreported[actor] = self._unreported.get(actor, 0) + 1
        return False

    def _report_drops(self, actor: str) -> None:
        """Say in the log itself how many records are missing, as soon as there is room again."""
        count = self._unreported.get(actor, 0)
        if not count:
            return
        fields = {"actor": actor, "dropped": str(count)}
        text = f"{count} log records of {actor} were dropped: beyond its rate, or the queue was full"
        if self._enqueue(LogRecord(self.services.now(), str(Level.WARNING), _OWN, text, fields)):
            del self._unreported[actor]

    def _enqueue(self, record: LogRecord) -> bool:
        size = len(msgspec.msgpack.encode(record))
        if len(self._queue) >= self.config.queue or self._queued_bytes + size > self.config.queue_bytes:
            return False
        self._queue.append((record, size))
        self._queued_bytes += size
        if self._queued_bytes >= _BATCH_BYTES:
            self._flush_now()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush_due)
        return True

    def _flush_due(self) -> None:
        self._flush = None
        self._flush_now()

    def _flush_now(self) -> None:
        """Tell the parent what waits, in frames of at most 256 KiB."""
        while self._queue:
            batch: list[LogRecord] = []
            size = 0
            while self._queue and (not batch or size + self._queue[0][1] <= _BATCH_BYTES):
                record, bytes_of_it = self._queue.popleft()
                batch.append(record)
                size += bytes_of_it
            self._queued_bytes -= size
            self.services.parent.tell(Channel.LOGS, "record", tuple(batch))


def _require(what: str, text: str, limit: int) -> None:
    # A character has at most 4 bytes: only what could be over is encoded.
    if len(text) * 4 <= limit:
        return
    if len(text) > limit or len(text.encode("utf-8", "replace")) > limit:
        raise CallError(Code.INVALID, f"{what} has at most {limit} bytes in UTF-8", limit=limit)
