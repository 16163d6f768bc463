"""`teactl manifest`: check, pin, approve and verify manifests.

May not: approve what it has not shown. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.trust.approval import add_approval, parse_approvers, unverified_manifest, verify_approval
from tea.trust.approval import approve as approve_manifest
from tea.trust.manifest import Manifest, parse_manifest
from tea.trust.manifest_diff import diff, explain_reach

from ..console import Json, Refusal, emit, say
from ..keys import development_key, read_private, read_public
from ..pinning import pin as pin_manifest
from ..registry import default_registry

app = typer.Typer(help="Check, pin, approve and verify manifests.", no_args_is_help=True)

ManifestFile = Annotated[Path, typer.Argument(help="A manifest (YAML).")]


def register(root: typer.Typer) -> None:
    """Add `manifest` to teactl."""
    root.add_typer(app, name="manifest")


@app.command()
def check(
    path: ManifestFile,
    explain: Annotated[bool, typer.Option("--explain", help="Say who can in effect reach what.")] = False,
    as_json: Json = False,
) -> None:
    """Check a manifest against the schema; errors name file, line and the mend."""
    manifest = parse_manifest(path.read_text(), str(path))
    reach = explain_reach(manifest)

    def text(console: Console) -> None:
        say(console, _describe(manifest))
        for line in reach if explain else []:
            say(console, line)

    emit({"ok": True, **_summary(manifest), "reach": reach}, as_json, text)


@app.command()
def pin(
    path: ManifestFile,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    bundles: Annotated[Path, typer.Option(help="Folder with the bundles.")] = Path("build/bundles"),
    issuer: Annotated[str | None, typer.Option(help="The issuer's public key; default: the development key.")] = None,
    network: Annotated[str | None, typer.Option(help="A simulated network whose slots go into `members: pin`.")] = None,
    as_json: Json = False,
) -> None:
    """Fill in `pin`: the issuer's key, the bundles' digests, the network's slots."""
    key = development_key().public if issuer is None else read_public(issuer)
    members = None
    if network is not None:
        from tea.trust import pcr

        entries = default_registry().network(network).enclaves
        members = {one.name: pcr.pcr4(one.instance_id).hex() for one in entries if one.instance_id}
    text = pin_manifest(path.read_text(), str(path), issuer=key, bundles=bundles, members=members)
    manifest = parse_manifest(text, str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    emit(
        {"ok": True, "path": str(out), **_summary(manifest)},
        as_json,
        lambda console: say(console, f"{out}: {_describe(manifest)}"),
    )


@app.command()
def approve(
    path: Annotated[Path, typer.Argument(help="A manifest (YAML), or an approved one that needs more signatures.")],
    out: Annotated[Path, typer.Option(help="The approved manifest to write.")],
    key: Annotated[str | None, typer.Option(help="The approver's private key: a name or a path.")] = None,
    development: Annotated[
        bool, typer.Option("--development", help="Sign with this machine's development key.")
    ] = False,
    running: Annotated[
        Path | None, typer.Option(help="The approved manifest that runs now: the difference is shown.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the key's password.")] = None,
    as_json: Json = False,
) -> None:
    """Sign a manifest, after showing what it is and how it differs from the running one."""
    if (key is None) == (not development):
        raise typer.BadParameter("give either --key NAME or --development")
    private = development_key() if key is None else read_private(key, password_file)
    data = path.read_bytes()
    if path.suffix in (".yaml", ".yml"):
        manifest = parse_manifest(data.decode(), str(path))
        envelope = approve_manifest(manifest.canonical(), private)
    else:
        manifest = unverified_manifest(data)
        envelope = add_approval(data, private)
    changes = diff(unverified_manifest(running.read_bytes()), manifest) if running is not None else []
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(envelope)

    def text(console: Console) -> None:
        say(console, _describe(manifest))
        for line in changes:
            say(console, f"  {line}")
        say(console, f"approved by {private.public.text}: {out}")

    result = {"ok": True, "path": str(out), "approver": private.public.text, "changes": changes}
    emit({**result, **_summary(manifest)}, as_json, text)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="An approved manifest.")],
    approvers: Annotated[Path, typer.Option(help="The approvers' file.")],
    as_json: Json = False,
) -> None:
    """Check that enough approvers signed a manifest."""
    trusted = parse_approvers(approvers.read_text(), str(approvers))
    manifest = verify_approval(path.read_bytes(), trusted)
    emit(
        {"ok": True, "threshold": trusted.threshold, "epoch": trusted.epoch, **_summary(manifest)},
        as_json,
        lambda console: say(
            console, f"approved by {trusted.threshold} of {len(trusted.keys)} or more: {_describe(manifest)}"
        ),
    )


@app.command()
def approvers(
    deployment: Annotated[str, typer.Argument(help="The deployment that they approve for.")],
    keys: Annotated[list[str], typer.Option("--key", help="A public key: its text, a name or a path; repeat.")],
    out: Annotated[Path, typer.Option(help="The file to write; it goes into the image.")],
    threshold: Annotated[int, typer.Option(help="How many of them it takes.")] = 1,
    as_json: Json = False,
) -> None:
    """Write an approvers' file: who approves manifests, and how many of them it takes."""
    texts = sorted({read_public(key).text for key in keys})
    if not 1 <= threshold <= len(texts):
        raise Refusal(f"a threshold of {threshold} does not fit {len(texts)} keys: choose 1 to {len(texts)}")
    lines = ["tea: approvers/1", f"deployment: {deployment}", "epoch: 1", f"threshold: {threshold}", "keys:"]
    text = "\n".join([*lines, *(f'  - "{one}"' for one in texts)]) + "\n"
    parse_approvers(text, str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    emit(
        {"ok": True, "path": str(out), "deployment": deployment, "threshold": threshold, "keys": texts},
        as_json,
        lambda console: say(console, f"{out}: {threshold} of {len(texts)} approve for {deployment}"),
    )


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "deployment": manifest.deployment,
        "revision": manifest.revision,
        "digest": f"sha384:{manifest.digest.hex()}",
        "actors": {name: actor.version for name, actor in manifest.actors.items()},
        "providers": list(manifest.providers),
        "links": len(manifest.links),
    }


def _describe(manifest: Manifest) -> str:
    actors = ", ".join(f"{name} {actor.version}" for name, actor in manifest.actors.items())
    return (
        f"{manifest.deployment} revision {manifest.revision}, sha384:{manifest.digest.hex()[:16]}...\n"
        f"actors: {actors or 'none'}; providers: {', '.join(manifest.providers) or 'none'}; "
        f"links: {len(manifest.links)}"
    )
