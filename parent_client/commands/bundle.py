"""`teactl bundle`: build, verify and inspect bundles.

May not: run an actor's code. Rule: docs/teactl.md, "bundle".
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.sdk.version import SDK_VERSION
from tea.trust.bundle import Issuer, inspect_bundle, verify_bundle
from tea.trust.claims import Claims

from ..building import Built, read_bundle_file
from ..building import build as build_bundle
from ..console import Json, emit, say
from ..files import write_whole
from ..keys import development_key, read_private, read_public
from ..stubs import stubs_of

app = typer.Typer(help="Build, verify and inspect bundles.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `bundle` to teactl."""
    root.add_typer(app, name="bundle")


@app.command()
def build(
    descriptions: Annotated[list[Path], typer.Argument(help="bundle.yaml files.", exists=True, dir_okay=False)],
    key: Annotated[str | None, typer.Option(help="The issuer's private key: a name or a path.")] = None,
    development: Annotated[
        bool, typer.Option("--development", help="Sign with this machine's development key (made on first use).")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for NAME-VERSION.tea.")] = Path("build/bundles"),
    password_file: Annotated[Path | None, typer.Option(help="File with the key's password.")] = None,
    as_json: Json = False,
) -> None:
    """Build and sign bundles; the same source and key give the same bytes."""
    if (key is None) == (not development):
        raise typer.BadParameter("give one of the two: a key's name, or --development", param_hint="--key")
    private = development_key() if key is None else read_private(key, password_file)
    built = [build_bundle(path, private, out) for path in descriptions]

    def text(console: Console) -> None:
        for one in built:
            say(console, f"{one.path}  sha256:{one.digest.hex()}  {one.size} bytes")

    emit({"ok": True, "bundles": [_built(one) for one in built], "issuer": private.public.text}, as_json, text)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A bundle file.")],
    issuer: Annotated[str, typer.Option(help="The issuer's public key: its text, a name or a path.")],
    as_json: Json = False,
) -> None:
    """Check signature, claims and digest against an issuer's key."""
    key = read_public(issuer)
    data = read_bundle_file(path)
    # The issuer may sign for whatever it signed here: what it may in a deployment, the manifest says.
    claims = inspect_bundle(data).claims
    trusted = {key.key_id: Issuer(key, (claims.name,), tuple(claims.capabilities))}
    bundle = verify_bundle(data, trusted, now=datetime.datetime.now(datetime.UTC), sdk_version=SDK_VERSION)
    emit(
        {"ok": True, "verified": True, "digest": f"sha256:{bundle.digest.hex()}", **_claims(bundle.claims)},
        as_json,
        lambda console: say(console, f"signed by {key.text}\n{_describe(bundle.claims, bundle.digest)}"),
    )


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="A bundle file.")], as_json: Json = False) -> None:
    """Show what a bundle says of itself. Nothing is verified: use `bundle verify` to believe it."""
    bundle = inspect_bundle(read_bundle_file(path))
    result = {
        "ok": True,
        "verified": False,
        "digest": f"sha256:{bundle.digest.hex()}",
        "archive_size": bundle.archive_size,
        "archive_matches": bundle.archive_matches,
    }
    emit(
        {**result, **_claims(bundle.claims)},
        as_json,
        lambda console: say(console, f"NOT verified\n{_describe(bundle.claims, bundle.digest)}"),
    )


@app.command()
def stubs(
    path: Annotated[Path, typer.Argument(help="A bundle file, or an actor's project (a folder with bundle.yaml).")],
    out: Annotated[Path, typer.Option(help="The Python file to write.")],
    as_json: Json = False,
) -> None:
    """Write typed Python clients of an actor, for other actors and for the parent. Its code is read, not run."""
    text = stubs_of(path)
    write_whole(out, text)
    emit({"ok": True, "path": str(out)}, as_json, lambda console: say(console, str(out)))


def _built(one: Built) -> dict[str, object]:
    return {
        "name": one.source.name,
        "version": one.source.version,
        "path": str(one.path),
        "digest": f"sha256:{one.digest.hex()}",
        "size": one.size,
    }


def _claims(claims: Claims) -> dict[str, object]:
    return {
        "name": claims.name,
        "version": claims.version,
        "entry": claims.entry,
        "kind": claims.kind,
        "issuer": claims.issuer,
        "capabilities": claims.capabilities,
        "sdk": claims.sdk,
        "issued_at": claims.issued_at,
        "not_after": claims.not_after,
        "archive": f"sha256:{claims.archive.hex()}",
    }


def _describe(claims: Claims, digest: bytes) -> str:
    asked = "; ".join(f"{target}: {', '.join(operations)}" for target, operations in claims.capabilities.items())
    return (
        f"{claims.name} {claims.version}, entry {claims.entry}, sdk {claims.sdk}\n"
        f"asks for {asked or 'nothing'}\nsha256:{digest.hex()}"
    )
