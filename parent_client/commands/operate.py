"""`teactl push`, `call`, `status` and `logs`: work with running enclaves through their runtime clients.

May not: believe what comes back; `attest` is how to believe. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from tea.protocol.channels import Activation, LogRecord
from tea.protocol.errors import CallError
from tea.trust.approval import unverified_manifest

from ..building import bundles_by_digest
from ..console import Json, Refusal, emit, say, table
from ..operating import (
    DEFAULT_NETWORK,
    Enclave,
    Network,
    OperatorClient,
    arguments_from_json,
    ask,
    readable,
    with_client,
)
from ..operator import ClientStatus, LogPage, Push
from ..registry import default_registry


def register(root: typer.Typer) -> None:
    """Add the four commands to teactl."""
    root.command()(push)
    root.command()(call)
    root.command()(status)
    root.command()(logs)


def push(
    manifest: Annotated[Path, typer.Argument(help="An approved manifest.")],
    bundles: Annotated[Path, typer.Option(help="Folder with the bundles.")] = Path("build/bundles"),
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE, where the manifest allows it.")] = None,
    change: Annotated[list[Path] | None, typer.Option("--change", help="Approved changes of the approvers.")] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    all_enclaves: Annotated[bool, typer.Option("--all", help="Push to every enclave of the network.")] = False,
    as_json: Json = False,
) -> None:
    """Push an approved manifest and its bundles; answers when the new revision serves, or why it does not."""
    envelope = manifest.read_bytes()
    named = unverified_manifest(envelope)
    found = bundles_by_digest(bundles)
    paths: list[str] = []
    for name, actor in named.actors.items():
        if actor.bundle not in found:
            raise Refusal(f"actors.{name}: no file in {bundles} has the digest sha256:{actor.bundle.hex()}")
        paths.append(str(found[actor.bundle].absolute()))
    settings = Push(envelope, tuple(one.read_bytes() for one in change or ()), _environment(env or []), tuple(paths))
    names = (
        [one.name for one in default_registry().network(network).enclaves]
        if all_enclaves
        else [default_registry().enclave(network, enclave).name]
    )
    results: dict[str, Activation] = {}
    for name in names:
        results[name] = ask(network, name, lambda client: client.ask("push", settings, timeout=180.0))

    def text(console: Console) -> None:
        for name, one in results.items():
            say(console, f"{name}: {_activation(one)}")

    emit(
        {
            "ok": True,
            "enclaves": {
                name: {
                    "revision": one.revision,
                    "manifest_digest": f"sha384:{one.manifest_digest.hex()}",
                    "started": one.started,
                    "stopped": one.stopped,
                }
                for name, one in results.items()
            },
        },
        as_json,
        text,
    )


def _environment(pairs: list[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter("--env takes NAME=VALUE")
        environment[name] = value
    return environment


def _activation(one: Activation) -> str:
    parts = [f"revision {one.revision} serves"]
    if one.started:
        parts.append(f"started {', '.join(one.started)}")
    if one.stopped:
        parts.append(f"stopped {', '.join(one.stopped)}")
    return "; ".join(parts)


def call(
    actor: Annotated[str, typer.Argument(help="The actor.")],
    operation: Annotated[str, typer.Argument(help="Its operation.")],
    arguments: Annotated[
        str, typer.Argument(help='JSON: an object by name, or an array; {"$hex": ".."} is bytes.')
    ] = "{}",
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Call an actor over its link `from: parent`, and print what it answers as JSON."""
    body = arguments_from_json(arguments)
    answer = ask(network, enclave, lambda client: client.ask("call", actor, operation, body))
    value: Any = readable(msgspec.msgpack.decode(answer))

    def text(console: Console) -> None:
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            columns = list(value[0])
            console.print(table(None, columns, ([_cell(row.get(column)) for column in columns] for row in value)))
        else:
            say(console, json.dumps(value, indent=None if not isinstance(value, dict) else 2))

    emit({"ok": True, "result": value}, as_json, text)


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def status(
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Show runtime clients and their enclaves: phase, revision, actors, calls. Exit status 1 when one is not ready."""
    entries = default_registry().network(network).enclaves
    if enclave is not None:
        entries = (default_registry().enclave(network, enclave),)
    found: dict[str, ClientStatus | str] = {}
    for one in entries:
        try:
            found[one.name] = asyncio.run(with_client(Path(one.folder), lambda client: client.ask("status")))
        except (Refusal, CallError) as error:
            found[one.name] = str(error)

    def text(console: Console) -> None:
        rows = [_status_row(name, one) for name, one in found.items()]
        console.print(table(None, ("enclave", "phase", "revision", "actors", "calls", "errors", "detail"), rows))

    result = {
        name: msgspec.to_builtins(one, builtin_types=(bytes,)) if isinstance(one, ClientStatus) else {"problem": one}
        for name, one in found.items()
    }
    ready = all(
        isinstance(one, ClientStatus) and one.enclave is not None and one.enclave.phase == "ready"
        for one in found.values()
    )
    emit({"ok": ready, "enclaves": result}, as_json, text)
    if not ready:
        raise typer.Exit(1)


def _status_row(name: str, one: ClientStatus | str) -> tuple[object, ...]:
    if isinstance(one, str) or one.enclave is None:
        return (name, "-", "-", "-", "-", "-", one if isinstance(one, str) else one.problem)
    host = one.enclave
    actors = ", ".join(f"{actor.name} {actor.version} {actor.running}/{actor.replicas}" for actor in host.actors)
    return (name, host.phase, host.revision or "-", actors or "-", host.calls, host.errors, host.detail)


def logs(
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    seconds: Annotated[float | None, typer.Option(help="With --follow: end after this many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Print the enclave's log: a line a record; with --json one JSON object a line."""

    async def read(client: OperatorClient) -> None:
        start = 0
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            page: LogPage = await client.ask("logs", start, 1.0 if follow else 0.0)
            for record in page.records:
                _print_record(record, as_json)
            if not page.records and (not follow or (until is not None and time.monotonic() > until)):
                return
            start = page.next

    ask(network, enclave, read)


def _print_record(record: LogRecord, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(msgspec.structs.asdict(record)))
        return
    moment = time.strftime("%H:%M:%S", time.gmtime(record.time))
    fields = "".join(f" {key}={value}" for key, value in record.fields.items())
    typer.echo(f"{moment} {record.level:7} {record.source:22} {record.message}{fields}")
