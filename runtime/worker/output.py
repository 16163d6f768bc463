"""What an actor prints and logs, line by line to the host's log: standard output and `logging` of a worker.

May not: write anywhere else. Tracebacks leave in simulated mode only. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from typing import Final

from tea.sdk import source_lines

from .wire import MAX_LOG_LINE

Log = Callable[[str, str], None]
"""Takes a level and a line."""


class LogHandler(logging.Handler):
    """The actor's `logging` records, as log lines. Tracebacks leave in simulated mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.log: Log | None = None
        """Where lines go; None: nowhere."""
        self.tracebacks = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.log is None:
            return
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            source_lines.remember(record.exc_info[1])  # Thespian formats it as well
            if self.tracebacks:
                text += "\n" + source_lines.shown(record.exc_info[1])
            else:
                text += f" ({type(record.exc_info[1]).__name__})"
        self.log(record.levelname.lower(), text)


_HANDLER: Final = LogHandler()


def install_logging() -> None:
    """Make `logging` of this process a worker's: in the zygote, so that its workers have only to open it."""
    if _HANDLER not in logging.root.handlers:
        logging.getLogger("Thespian").setLevel(logging.WARNING)
        logging.basicConfig(level=logging.INFO, handlers=[_HANDLER], force=True)


def open_logging(log: Log | None, *, tracebacks: bool) -> None:
    """From now on records go to `log`; None: nowhere."""
    _HANDLER.log, _HANDLER.tracebacks = log, tracebacks


class Printed(io.TextIOBase):
    """Standard output of an actor: whole lines become log lines."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log("info", line)
        if len(self._line) > MAX_LOG_LINE:
            self._log("info", self._line)
            self._line = ""
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)
