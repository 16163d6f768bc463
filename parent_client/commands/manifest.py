"""`teactl manifest`: check, pin, approve and verify manifests.

May not: approve what it has not shown. Rule: docs/teactl.md, "manifest".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.trust import pcr
from tea.trust.approval import (
    MAX_ENVELOPE,
    Approvers,
    add_approval,
    parse_approvers,
    unverified_manifest,
    verify_approval,
)
from tea.trust.approval import approve as approve_manifest
from tea.trust.manifest import Manifest, parse_manifest, require_revision
from tea.trust.manifest_diff import diff, explain_reach
from tea.trust.policy import parse_rule

from ..approving import Password, read_approvers
from ..attesting import Running, find_running
from ..console import Json, emit, say
from ..console import console as terminal
from ..files import read_bytes, read_text, write_whole
from ..keys import development_key, read_public
from ..operating import DEFAULT_NETWORK, Enclave, Network
from ..pinning import pin as pin_manifest
from ..registry import default_registry
from ..signers import open_signer

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
    manifest = parse_manifest(read_text(path, "manifest"), str(path))
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
        entries = default_registry().network(network).enclaves
        members = {one.name: pcr.pcr4(one.instance_id).hex() for one in entries if one.instance_id}
    text = pin_manifest(read_text(path, "manifest"), str(path), issuer=key, bundles=bundles, members=members)
    manifest = parse_manifest(text, str(out))
    write_whole(out, text)
    emit(
        {"ok": True, "path": str(out), **_summary(manifest)},
        as_json,
        lambda console: say(console, f"{out}: {_describe(manifest)}"),
    )


@app.command()
def approve(
    path: Annotated[Path, typer.Argument(help="A manifest (YAML), or an approved one that needs more signatures.")],
    out: Annotated[Path, typer.Option(help="The approved manifest to write.")],
    key: Annotated[
        str | None, typer.Option(help="The approver's key: a name or path, pkcs11:... or awskms:...")
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="Sign with this machine's development key.")
    ] = False,
    running: Annotated[
        Path | None, typer.Option(help="The approved manifest that runs now: the difference is shown.")
    ] = None,
    enclave: Annotated[
        str | None, typer.Option("--enclave", "-e", help="Or ask this enclave what runs in it, with --approvers.")
    ] = None,
    approvers: Annotated[
        Path | None, typer.Option(help="The approvers' file of the image: what comes must be approved by them.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="The policy (YAML) that the enclave must meet.")] = None,
    network: Network = DEFAULT_NETWORK,
    password_file: Password = None,
    as_json: Json = False,
) -> None:
    """Sign a manifest, after showing what it is and how it differs from the running one."""
    if (key is None) == (not development):
        raise typer.BadParameter("give one of the two: a key's name, or --development", param_hint="--key")
    if running is not None and enclave is not None:
        raise typer.BadParameter("give one of the two: a file, or --enclave", param_hint="--running")
    if (enclave is None) != (approvers is None) or (enclave is None and policy is not None):
        raise typer.BadParameter("--enclave goes with --approvers, and --policy with both", param_hint="--enclave")
    private = development_key() if key is None else open_signer(key, password_file)
    if path.suffix in (".yaml", ".yml"):
        before = None
        manifest = parse_manifest(read_text(path, "manifest"), str(path))
    else:
        before = _envelope(path)
        manifest = unverified_manifest(before)
    shown = [_describe(manifest)]
    result: dict[str, object] = {"ok": True, "path": str(out)}
    changes: list[str] = []
    if running is not None:
        changes = _changes(unverified_manifest(_envelope(running)), manifest)
    elif approvers is not None:
        current = _running(network, enclave, approvers, policy)
        changes = _changes(current.manifest, manifest)
        result["running"] = {
            **_summary(current.manifest),
            "epoch": current.approvers.epoch,
            "image": policy is not None,
        }
        shown.append(_of_running(current, policy))
    if not as_json:  # shown before it is signed
        say(terminal(), "\n".join([*shown, *(f"  {line}" for line in changes)]))
    envelope = approve_manifest(manifest.canonical(), private) if before is None else add_approval(before, private)
    write_whole(out, envelope)
    emit(
        {**result, "approver": private.public.text, "changes": changes, **_summary(manifest)},
        as_json,
        lambda console: say(console, f"approved by {private.public.text}: {out}"),
    )


def _changes(running: Manifest, manifest: Manifest) -> list[str]:
    require_revision((running.revision, running.digest), manifest)  # what the enclave would refuse is not signed
    return diff(running, manifest)


def _envelope(path: Path) -> bytes:
    return read_bytes(path, "approved manifest", MAX_ENVELOPE)


@app.command()
def running(
    approvers: Annotated[Path, typer.Option(help="The approvers' file of the image.")],
    policy: Annotated[Path | None, typer.Option(help="The policy (YAML) that the enclave must meet.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the approved manifest, as `push` takes it.")] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Fetch the manifest that runs in an enclave: attested now and approved by the quorum, whatever its parent says."""
    current = _running(network, enclave, approvers, policy)
    if out is not None:
        write_whole(out, current.envelope)
    lines = [_describe(current.manifest), _of_running(current, policy), *([] if out is None else [str(out)])]
    emit(
        {
            "ok": True,
            "path": None if out is None else str(out),
            "epoch": current.approvers.epoch,
            "image": policy is not None,
            **_summary(current.manifest),
        },
        as_json,
        lambda console: say(console, "\n".join(lines)),
    )


def _running(network: str, enclave: str | None, approvers: Path, policy: Path | None) -> Running:
    trusted = read_approvers(approvers)
    rules = None if policy is None else parse_rule(read_text(policy, "policy"), str(policy))
    return find_running(network, enclave, trusted, rules)


def _of_running(current: Running, policy: Path | None) -> str:
    image = (
        "in an image that the policy accepts" if policy is not None else "in an image that nobody judged: --policy does"
    )
    return (
        f"revision {current.manifest.revision} runs, approved by the quorum of epoch {current.approvers.epoch}, "
        f"attested just now, {image}"
    )


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="An approved manifest.")],
    approvers: Annotated[Path, typer.Option(help="The approvers' file.")],
    as_json: Json = False,
) -> None:
    """Check that enough approvers signed a manifest."""
    trusted = read_approvers(approvers)
    manifest = verify_approval(_envelope(path), trusted)
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
    given = sorted({read_public(key) for key in keys}, key=lambda key: key.text)
    texts = [key.text for key in given]
    if not 1 <= threshold <= len(texts):
        raise typer.BadParameter(
            f"found {threshold} for {len(texts)} different keys, expected 1 to {len(texts)}", param_hint="--threshold"
        )
    text = Approvers(deployment, 1, threshold, tuple(given)).to_yaml()
    parse_approvers(text, str(out))
    write_whole(out, text)
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
