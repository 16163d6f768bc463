"""`teactl secrets`: keep secrets, release them to attested enclaves, take them back, verify the audit log.

May not: show a secret, or take one on a command line. Rule: docs/secrets.md, "The release service".
"""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.trust.audit_log import verify_lines

from ..console import Json, Refusal, emit, say, table
from ..files import read_bytes, read_text
from .secret import read_secret

app = typer.Typer(help="Keep secrets and release them to attested enclaves.", no_args_is_help=True)
audit = typer.Typer(help="The audit log of releases.", no_args_is_help=True)
app.add_typer(audit, name="audit")

Folder = Annotated[Path, typer.Argument(help="The vault's folder.")]
MAX_LOG = 1 << 30
DIGEST_HEX = 96


def register(root: typer.Typer) -> None:
    """Add `secrets` to teactl."""
    root.add_typer(app, name="secrets")


@audit.callback()
def audit_group() -> None:
    """The audit log of releases."""


@app.command()
def init(
    vault: Folder,
    wrap: Annotated[
        str, typer.Option(help="What wraps the vault's key: file:NAME, pkcs11:... (an AES key), awskms:KEY?region=R.")
    ] = "file:master.key",
    as_json: Json = False,
) -> None:
    """Make a vault. The service's public key that it prints goes into manifests: providers.secrets.service."""
    from ..secrets.vault import Vault

    made = Vault.create(vault, wrap)
    key = made.service.public.text
    made.close()
    emit(
        {"ok": True, "vault": str(vault), "service": key},
        as_json,
        lambda console: say(console, f"{vault}: its service signs as\n{key}"),
    )


@app.command()
def put(
    vault: Folder,
    name: Annotated[str, typer.Argument(help="The secret's name, as actors ask for it.")],
    policy: Annotated[Path, typer.Option(help="The policy (YAML) that an enclave must meet.")],
    actor: Annotated[list[str], typer.Option(help="An actor that may have it; repeat.")],
    lease: Annotated[int, typer.Option(help="Seconds that it may be kept before it is asked for again.")] = 3600,
    value: Annotated[str, typer.Option("--in", help="File with the secret; - for standard input.")] = "-",
    as_json: Json = False,
) -> None:
    """Store a secret, or a new version of it."""
    from ..secrets.vault import Vault

    data = read_secret(value)
    opened = Vault.open(vault)
    try:
        record = opened.put(name, data, policy=read_text(policy, "policy"), actors=tuple(actor), lease=lease)
        admits = record.policy.explain()
    finally:
        opened.close()

    def text(console: Console) -> None:
        say(console, f"{name}, version {record.version}, for {', '.join(record.actors)}, {lease} s at a time, when:")
        for line in admits:
            say(console, f"  {line}")

    emit(
        {"ok": True, "secret": name, "version": record.version, "actors": list(record.actors), "admits": admits},
        as_json,
        text,
    )


@app.command("list")
def list_(vault: Folder, as_json: Json = False) -> None:
    """Show secrets (not their values), what is revoked, and leases that have not ended."""
    from ..secrets.vault import Vault

    opened = Vault.open(vault)
    try:
        records, leases, revoked = opened.records(), opened.leases(), opened.revocations()
        service, (lines, head) = opened.service.public.text, opened.head
    finally:
        opened.close()
    gone = [f"image {one.hex()}" for one in revoked.images]
    gone += [f"manifest sha384:{one.hex()}" for one in revoked.manifests]
    gone += [f"enclave {one}" for one in sorted(revoked.enclaves)]
    gone += [f"{name} below revision {least}" for name, least in revoked.least_revision.items()]
    gone += [f"{name} below epoch {least}" for name, least in revoked.least_epoch.items()]

    def text(console: Console) -> None:
        rows = [
            (one.name, one.version, "revoked" if one.revoked else f"{one.lease} s", ", ".join(one.actors))
            for one in records
        ]
        console.print(table("secrets", ("name", "version", "lease", "actors"), rows))
        if gone:
            console.print(table("revoked", ("what",), [(one,) for one in gone]))
        if leases:
            rows_of_leases = [
                (name, version, actor, where, _time(ends)) for name, version, actor, where, ends in leases
            ]
            console.print(table("leases", ("secret", "version", "actor", "enclave", "until"), rows_of_leases))
        say(console, f"audit log: {lines} lines, head {head.hex()}")

    result = {
        "service": service,
        "secrets": [
            {"name": one.name, "version": one.version, "revoked": one.revoked, "actors": one.actors, "lease": one.lease}
            for one in records
        ],
        "revoked": gone,
        "leases": [
            {"secret": name, "version": version, "actor": actor, "enclave": where, "until": _time(ends)}
            for name, version, actor, where, ends in leases
        ],
        "audit": {"lines": lines, "head": head},
    }
    emit(result, as_json, text)


@app.command()
def revoke(
    vault: Folder,
    secret: Annotated[str | None, typer.Option(help="A secret: this version and all before.")] = None,
    image: Annotated[str | None, typer.Option(help="An image, by PCR0 (96 hex digits).")] = None,
    manifest: Annotated[str | None, typer.Option(help="A manifest, by digest (sha384:...).")] = None,
    enclave: Annotated[str | None, typer.Option(help="A module id, or an instance id for all its enclaves.")] = None,
    deployment: Annotated[str | None, typer.Option(help="With --least-revision, --least-epoch: whose.")] = None,
    least_revision: Annotated[int | None, typer.Option(min=1, help="What is below is revoked.")] = None,
    least_epoch: Annotated[int | None, typer.Option(min=1, help="What is below is revoked.")] = None,
    as_json: Json = False,
) -> None:
    """Release no more from now on. What was released is dropped when its lease ends."""
    from ..secrets.vault import Vault

    if (deployment is None) != (least_revision is None and least_epoch is None):
        raise typer.BadParameter("--deployment goes with --least-revision, --least-epoch, or both")
    if not any((secret, image, manifest, enclave, deployment)):
        raise typer.BadParameter("say what to revoke")
    image_hex = _digest(image, "--image") if image is not None else None
    manifest_hex = _digest(manifest.removeprefix("sha384:"), "--manifest") if manifest is not None else None
    opened = Vault.open(vault)
    try:
        if secret is not None:
            opened.revoke_secret(secret)
        if image_hex is not None:
            opened.revoke("image", image_hex)
        if manifest_hex is not None:
            opened.revoke("manifest", manifest_hex)
        if enclave is not None:
            opened.revoke("enclave", enclave)
        if deployment is not None and least_revision is not None:
            opened.revoke("revision", deployment, least_revision)
        if deployment is not None and least_epoch is not None:
            opened.revoke("epoch", deployment, least_epoch)
        held = opened.leases()
    finally:
        opened.close()
    last = max((ends for *_, ends in held), default=None)
    until = f"; the last lease ends {_time(last)}" if last is not None else "; no lease is out"
    emit(
        {"ok": True, "leases": len(held), "last_lease_ends": _time(last) if last is not None else None},
        as_json,
        lambda console: say(console, f"revoked{until}"),
    )


@app.command()
def serve(
    vault: Folder,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: any.")] = None,
    socket: Annotated[Path | None, typer.Option(help="Unix socket.")] = None,
) -> None:
    """Release secrets until SIGTERM. Prints one line of JSON when it listens."""
    asyncio.run(_serve(vault, port, socket))


async def _serve(folder: Path, port: int | None, socket: Path | None) -> None:
    from ..secrets.server import ReleaseServer
    from ..secrets.service import ReleaseService
    from ..secrets.vault import Vault

    vault = Vault.open(folder)
    vault.log("started", {})
    server = ReleaseServer(ReleaseService(vault))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await server.start(port=port, socket=socket)
        listening = {
            "port": server.port,
            "socket": str(socket) if socket else None,
            "service": vault.service.public.text,
        }
        sys.stdout.write(json.dumps(listening) + "\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await server.close()
        vault.close()


@audit.command("verify")
def audit_verify(
    path: Annotated[Path, typer.Argument(help="The vault's folder, or its audit log.")],
    head: Annotated[str | None, typer.Option(help="A head that you kept: the log must still hold it.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the entries.")] = False,
    as_json: Json = False,
) -> None:
    """Check the audit log's chain; a line that was changed, cut off or put in is named."""
    from ..secrets.vault import AUDIT, remembered_head

    kept = bytes.fromhex(_digest(head, "--head")) if head is not None else None
    file = path / AUDIT if path.is_dir() else path
    lines = read_bytes(file, "audit log", MAX_LOG).decode(errors="replace").splitlines()
    verdict = verify_lines(lines, head=kept)
    if path.is_dir():
        verify_lines(lines, head=remembered_head(path))

    def text(console: Console) -> None:
        for entry in verdict.entries if show else ():
            fields = ", ".join(f"{key} {value}" for key, value in entry.fields.items())
            say(console, f"{_time(entry.time)} {entry.event}: {fields}")
        say(console, f"{file}: {len(verdict.entries)} lines, whole; keep the head elsewhere:\n{verdict.head.hex()}")

    entries = [{"time": one.time, "event": one.event, **one.fields} for one in verdict.entries] if show else []
    result = {"ok": True, "lines": len(verdict.entries), "head": verdict.head}
    emit({**result, "entries": entries} if show else result, as_json, text)


def _digest(text: str, option: str) -> str:
    if len(text) != DIGEST_HEX or text.strip("0123456789abcdef"):
        raise typer.BadParameter(f"{option} takes {DIGEST_HEX} hex digits in small letters")
    return text


def _time(milliseconds: int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        raise Refusal(f"{milliseconds} is no time") from None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
