"""What every `teactl` command shares: how a result is shown, how a refusal is told, which exit status it has.

May not: know any command, or let what came from elsewhere steer the terminal.
Exit status: 0 yes, 1 refused or failed, 2 wrong usage. Rule: docs/teactl.md.
"""

from __future__ import annotations

import datetime
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .refusal import Refusal

__all__ = ["Json", "Refusal", "emit", "plain", "say", "table", "visible"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

_PIPE_WIDTH: Final = 1000
# Columns where nobody looks on: lines are for a program then, and are not folded.


def plain(value: object) -> Any:
    """A value as JSON can say it: bytes as hex, mappings and sequences through and through, no NaN."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return value


def emit(result: Mapping[str, object], as_json: bool, text: Callable[[Console], None]) -> None:
    """Show a result: as one JSON object, or as `text` writes it."""
    if as_json:
        sys.stdout.write(json.dumps(plain(result), indent=2) + "\n")
    else:
        text(console())


def console() -> Console:
    """Standard output as text; not folded unless it is a terminal."""
    made = Console(highlight=False, soft_wrap=True)
    return made if made.is_terminal else Console(highlight=False, soft_wrap=True, width=_PIPE_WIDTH)


def visible(text: str, *, keep: str = "") -> str:
    """The text with everything that a terminal would obey, or not show, written out as an escape.

    `keep` are characters that pass nevertheless.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def say(console: Console, line: str) -> None:
    """Text, shown as it is: no markup is read out of it, and no control character but the line end passes."""
    console.print(escape(visible(line, keep="\n")))


def table(title: str | None, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; cells are shown as they are."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(escape(visible(column)), overflow="fold")
    for row in rows:
        made.add_row(*(escape(visible(str(cell))) for cell in row))
    return made
