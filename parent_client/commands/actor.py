"""`teactl actor`: begin a new actor.

May not: run an actor's code. Rule: docs/teactl.md, "actor".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..console import Json, emit, say
from ..project import new_project

app = typer.Typer(help="Begin a new actor.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `actor` to teactl."""
    root.add_typer(app, name="actor")


@app.callback()
def group() -> None:
    """Begin a new actor."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The actor's name: small letters, digits and dashes.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to; by default a folder of its name.")] = None,
    as_json: Json = False,
) -> None:
    """Make a project for an actor: its class, tests that pass, bundle.yaml, a manifest, a README."""
    made = new_project(name, folder if folder is not None else Path(name))

    def text(console: Console) -> None:
        for path in made.files:
            say(console, str(path))
        say(console, f"next: pytest -p no:asyncio {made.folder}; teactl dev {made.folder}")

    emit(
        {"ok": True, "name": name, "folder": str(made.folder), "files": [str(path) for path in made.files]},
        as_json,
        text,
    )
