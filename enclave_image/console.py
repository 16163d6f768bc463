"""How the image's commands show a result: text for people, one JSON object on `--json`.

May not: import the parent's console (floors that stand beside each other do not): refusals reach `teactl` as
`TrustError`, and it gives them their exit status. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def emit(result: Mapping[str, object], as_json: bool, lines: Iterable[str]) -> None:
    """Show a result: `result` as it is on --json, else `lines`."""
    text = json.dumps(result, indent=2) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def say(line: str) -> None:
    """One line for people, on standard error: what is under way, or a warning."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
