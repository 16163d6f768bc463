"""`teactl key`: make signing keys.

May not: show a private key. Rule: docs/teactl.md, "key".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tea.trust.keys import PrivateKey

from ..console import Json, emit, say
from ..keys import key_folder, read_password, require_key_name, write_key

app = typer.Typer(help="Make signing keys.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `key` to teactl."""
    root.add_typer(app, name="key")


@app.callback()
def group() -> None:
    """Make signing keys."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the key; its files are NAME.pem and NAME.pub.")],
    algorithm: Annotated[str, typer.Option(help="ed25519 or p384.")] = "ed25519",
    out: Annotated[Path | None, typer.Option(help="Folder; default: keys below .tea.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Encrypt the private key with the first line of this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key pair: the private half with mode 0600, the public half to hand out."""
    if algorithm not in ("ed25519", "p384"):
        raise typer.BadParameter(f"found {algorithm[:40]!r}, expected ed25519 or p384", param_hint="--algorithm")
    require_key_name(name)
    password = read_password(password_file)
    key = PrivateKey.generate("ed25519" if algorithm == "ed25519" else "p384")
    private, public = write_key(name, key, out or key_folder(), password)
    result = {
        "ok": True,
        "name": name,
        "public_key": key.public.text,
        "key_id": key.public.key_id,
        "private": str(private),
    }
    emit(
        {**result, "public": str(public)},
        as_json,
        lambda console: say(console, f"{key.public.text}\nprivate half: {private} (keep it)"),
    )
