"""`teactl policy`: say in words what a policy admits, make one from a manifest, and combine several.

May not: pin what it was not told: an image's PCRs come from whoever measured it. Rule: docs/secrets.md,
"Policies"; docs/verify.md, "Combined policies".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tea.trust.approval import MAX_ENVELOPE, unverified_manifest
from tea.trust.manifest import Manifest, parse_manifest
from tea.trust.policy import Accepts, Member, Policy, Rule, all_of, any_of, none_of, parse_rule
from tea.trust.roots import Roots, aws_roots

from ..console import Json, Refusal, emit, say
from ..files import read_bytes, read_text, write_whole
from ..registry import default_registry

app = typer.Typer(help="Write policies, and say what they admit.", no_args_is_help=True)
PCR_HEX = 96


def register(root: typer.Typer) -> None:
    """Add `policy` to teactl."""
    root.add_typer(app, name="policy")


@app.command()
def explain(path: Annotated[Path, typer.Argument(help="A policy (YAML).")], as_json: Json = False) -> None:
    """Say in words what a policy admits."""
    policy = _read(path)
    emit(
        {"ok": True, "admits": policy.explain(), "policy": policy.to_mapping()},
        as_json,
        lambda console: say(console, _words(path, policy)),
    )


@app.command()
def combine(
    paths: Annotated[list[Path], typer.Argument(help="Policies (YAML), combined ones too.")],
    out: Annotated[Path, typer.Option(help="The policy to write.")],
    every: Annotated[bool | None, typer.Option("--all/--any", help="All of them must hold, or one of them.")] = None,
    excluded: Annotated[
        list[Path] | None, typer.Option("--except", help="A policy; what it admits is refused; repeat.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the policy that admits what all, or any, of several policies admit, and nothing that is excepted."""
    if every is None and len(paths) > 1:
        raise typer.BadParameter("say whether --all of the policies must hold, or --any of them")
    rules: list[Rule] = [_read(path) for path in paths]
    exclusions = [_read(path) for path in excluded or []]
    policy: Accepts
    if every or (len(rules) == 1 and exclusions):
        policy = all_of(*rules, *([none_of(*exclusions)] if exclusions else []))
    else:
        policy = any_of(*rules)
        if exclusions:
            policy = all_of(policy, none_of(*exclusions))
    write_whole(out, policy.to_yaml())
    emit(
        {"ok": True, "path": str(out), "admits": policy.explain(), "policy": policy.to_mapping()},
        as_json,
        lambda console: say(console, _words(out, policy)),
    )


def _read(path: Path) -> Accepts:
    return parse_rule(read_text(path, "policy"), str(path))


def _words(path: Path, policy: Accepts) -> str:
    if isinstance(policy, Policy):
        lines = [f"- {line}" for line in policy.explain()]
        return "\n".join([f"{path} admits an enclave when all of this holds:", *lines])
    return "\n".join([f"{path} admits an enclave under these conditions.", *policy.explain()])


@app.command("from-manifest")
def from_manifest(
    path: Annotated[Path, typer.Argument(help="A manifest (YAML), or an approved one.")],
    out: Annotated[Path, typer.Option(help="The policy to write.")],
    pcr: Annotated[list[str] | None, typer.Option(help="INDEX=HEX of the image, as 0=9f...; repeat.")] = None,
    measurements: Annotated[
        Path | None, typer.Option(help='JSON of who measured the image: {"PCR0": "...", ...}, also under Measurements.')
    ] = None,
    network: Annotated[str | None, typer.Option(help="A simulated network: its root instead of AWS's.")] = None,
    root: Annotated[str | None, typer.Option(help="A simulated root instead of AWS's: sha256:HEX of its DER.")] = None,
    exactly: Annotated[
        bool, typer.Option("--exactly/--revision", help="This very manifest, or from its revision on.")
    ] = True,
    booted: Annotated[bool, typer.Option("--booted", help="It must have booted with this manifest (PCR16).")] = False,
    descends: Annotated[
        bool, typer.Option("--descends", help="With --booted: later approved revisions are accepted too.")
    ] = False,
    epoch: Annotated[int, typer.Option(min=0, help="The least epoch of the approvers.")] = 0,
    max_age: Annotated[int | None, typer.Option(min=1, help="Seconds that a document may be old.")] = None,
    as_json: Json = False,
) -> None:
    """Write the policy that admits enclaves which run a manifest, in an image that you name by its PCRs."""
    manifest = _manifest(path)
    digests = (manifest.digest,)
    policy = Policy(
        pinned=_roots(network, root),
        simulated=network is not None or root is not None,
        pcrs={**_measured(measurements), **_given(pcr or [])},
        deployment=manifest.deployment,
        manifests=digests if exactly and not descends else (),
        booted=digests if booted or descends else (),
        descends=descends,
        min_revision=manifest.revision,
        min_epoch=epoch,
        max_age=max_age,
        members=_members(manifest),
    )
    write_whole(out, policy.to_yaml())
    emit(
        {"ok": True, "path": str(out), "admits": policy.explain()},
        as_json,
        lambda console: say(console, _words(out, policy)),
    )


def _manifest(path: Path) -> Manifest:
    if path.suffix in (".yaml", ".yml"):
        return parse_manifest(read_text(path, "manifest"), str(path))
    # Who makes a policy says what to accept; approvals are the enclave's to check.
    return unverified_manifest(read_bytes(path, "approved manifest", MAX_ENVELOPE))


def _roots(network: str | None, root: str | None) -> Roots:
    if network is not None:
        if root is not None:
            raise typer.BadParameter("give --network or --root")
        root = default_registry().network(network).root
        if root is None:
            raise Refusal(f"the network {network} is not simulated: leave --network out")
    if root is None:
        return aws_roots()
    digest = root.removeprefix("sha256:")
    if len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise typer.BadParameter("--root takes sha256: and 64 hex digits")
    return Roots.from_digests([bytes.fromhex(digest)])


def _given(pcrs: list[str]) -> dict[int, tuple[bytes, ...]]:
    found: dict[int, tuple[bytes, ...]] = {}
    for one in pcrs:
        index, _, value = one.partition("=")
        if not index.isdigit() or int(index) > 31:
            raise typer.BadParameter(f"--pcr {one[:40]!r}: expected INDEX=HEX, as 0=9f...")
        found[int(index)] = (_pcr(value, f"--pcr {index}"),)
    return found


def _measured(path: Path | None) -> dict[int, tuple[bytes, ...]]:
    if path is None:
        return {}
    try:
        read = json.loads(read_text(path, "measurements"))
        read = read.get("Measurements", read)
        named = {int(key.removeprefix("PCR")): str(value) for key, value in read.items() if key[:3] == "PCR"}
    except (ValueError, AttributeError):
        raise Refusal(f'{path} holds no measurements: expected JSON like {{"PCR0": "96 hex digits", ...}}') from None
    return {index: (_pcr(value, f"{path}: PCR{index}"),) for index, value in named.items()}


def _pcr(text: str, where: str) -> bytes:
    value = text.lower()
    if len(value) != PCR_HEX or value.strip("0123456789abcdef"):
        raise Refusal(f"{where}: found {text[:20]!r}, expected {PCR_HEX} hex digits")
    return bytes.fromhex(value)


def _members(manifest: Manifest) -> dict[str, Member]:
    if manifest.ra is None:
        return {}
    return {
        slot: Member(int(name.removeprefix("pcr")), bytes.fromhex(value))
        for slot, binding in manifest.ra.slots().items()
        for name, value in binding.items()
    }
