"""log: one record a level, and the figures that count them.

May not: log more than a run needs. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, require

from tea.sdk import Code, Link


def check(log: Link, rows: Rows) -> None:
    """All operations of log."""
    rows.works("write", lambda: log.write("info", "selftest", {"by": "write"}))
    rows.refuses("write", Code.INVALID, lambda: log.write("shout", "selftest"))
    for level in ("debug", "info", "warning", "error"):
        rows.works(level, lambda level=level: log[level]("selftest", {"level": level}))  # type: ignore[misc]
    rows.refuses("info", Code.INVALID, lambda: log.info("x" * 10_000))
    rows.works("figures", lambda: require(log.figures()["written"] > 0, "nothing was written"))
