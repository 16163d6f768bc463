"""What every `teactl` command shares: how a result is shown, how a refusal is told, which exit status it has.

May not: know any command. Exit status: 0 yes, 1 refused or failed, 2 wrong usage. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class Refusal(Exception):
    """The answer is no: exit status 1. `details` go into the JSON object beside `error`."""

    def __init__(self, sentence: str, **details: object) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.details = details


def plain(value: object) -> Any:
    """A value as JSON can say it: bytes as hex, mappings and sequences through and through."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def emit(result: Mapping[str, object], as_json: bool, text: Callable[[Console], None]) -> None:
    """Show a result: as one JSON object, or as `text` writes it."""
    if as_json:
        sys.stdout.write(json.dumps(plain(result), indent=2) + "\n")
    else:
        text(Console(highlight=False, soft_wrap=True))


def say(console: Console, line: str) -> None:
    """One line of text, shown as it is (no markup is read out of it)."""
    console.print(escape(line))


def table(title: str | None, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; cells are shown as they are."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made
