"""`teactl sim` and `teactl demo`."""

import typer


def register(root: typer.Typer) -> None: ...
