"""`teactl push`, `call`, `status` (and `logs`, beside): work with running enclaves through their runtime clients.

May not: believe what comes back; `attest` is how to believe. Rule: docs/teactl.md, "push", "call", "status".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from tea.protocol.channels import Activation
from tea.protocol.errors import CallError
from tea.trust.approval import MAX_ENVELOPE, unverified_manifest

from ..building import bundles_by_digest
from ..console import Json, Refusal, emit, say, table
from ..files import read_bytes
from ..operating import (
    DEFAULT_NETWORK,
    Enclave,
    Network,
    arguments_from_json,
    ask,
    result_from_msgpack,
    with_client,
)
from ..operator import ClientStatus, Push
from ..registry import EnclaveEntry, default_registry
from .logs import register as register_logs

PUSH_SECONDS = 180.0
MAX_CHANGE = 1 << 20


def register(root: typer.Typer) -> None:
    """Add the four commands to teactl."""
    root.command()(push)
    root.command()(call)
    root.command()(status)
    register_logs(root)


# ---- push ------------------------------------------------------------------------------------------------------------


def push(
    manifest: Annotated[Path, typer.Argument(help="An approved manifest.")],
    bundles: Annotated[Path, typer.Option(help="Folder with the bundles.")] = Path("build/bundles"),
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE, where the manifest allows it.")] = None,
    change: Annotated[list[Path] | None, typer.Option("--change", help="Approved changes of the approvers.")] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait for `takeover`: serve nothing, and do not begin as the first.")
    ] = False,
    all_enclaves: Annotated[bool, typer.Option("--all", help="Push to every enclave of the network.")] = False,
    as_json: Json = False,
) -> None:
    """Push an approved manifest and its bundles; answers when the new revision serves, or why it does not."""
    if all_enclaves and enclave is not None:
        raise typer.BadParameter("give one of the two: --enclave, or --all", param_hint="--all")
    if all_enclaves and standby:
        raise typer.BadParameter("give one of the two: --standby is for one enclave", param_hint="--standby")
    settings = _settings(manifest, bundles, _environment(env or []), change or [])
    settings = msgspec.structs.replace(settings, standby=standby)
    registry = default_registry()
    if not all_enclaves:
        name = registry.enclave(network, enclave).name
        results: dict[str, Activation | CallError] = {name: _push(network, name, settings)}
    else:
        results = {}
        # One after the other: what one refuses is known before the last has it, and the others serve meanwhile.
        for one in registry.network(network).enclaves:
            try:
                results[one.name] = _push(network, one.name, settings)
            except CallError as error:
                results[one.name] = error

    def text(console: Console) -> None:
        for name, one in results.items():
            say(console, f"{name}: {_activation(one, standby=standby)}")

    pushed = not any(isinstance(one, CallError) for one in results.values())
    emit({"ok": pushed, "enclaves": {name: _pushed(one) for name, one in results.items()}}, as_json, text)
    if not pushed:
        raise typer.Exit(1)


def _settings(manifest: Path, bundles: Path, environment: dict[str, str], changes: Iterable[Path]) -> Push:
    envelope = read_bytes(manifest, "approved manifest", MAX_ENVELOPE)
    found = bundles_by_digest(bundles)
    paths: list[str] = []
    for name, actor in unverified_manifest(envelope).actors.items():
        if actor.bundle not in found:
            raise Refusal(
                f"actors.{name}: found no file in {bundles} with the digest sha256:{actor.bundle.hex()}, expected one: "
                "build the bundle again, name its folder with --bundles, or pin and approve the manifest anew"
            )
        paths.append(str(found[actor.bundle].absolute()))
    approved = tuple(read_bytes(one, "change of the approvers", MAX_CHANGE) for one in changes)
    return Push(envelope, approved, environment, tuple(paths))


def _push(network: str, enclave: str, settings: Push) -> Activation:
    activation: Activation = ask(network, enclave, lambda client: client.ask("push", settings, timeout=PUSH_SECONDS))
    return activation


def _environment(pairs: list[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"found {pair[:40]!r}, expected NAME=VALUE", param_hint="--env")
        if name in environment:
            raise typer.BadParameter(f"found {name[:40]} twice, expected it once", param_hint="--env")
        environment[name] = value
    return environment


def _activation(one: Activation | CallError, *, standby: bool = False) -> str:
    if isinstance(one, CallError):
        return f"refused: {one}"
    parts = [f"revision {one.revision} {'waits for a takeover' if standby else 'serves'}"]
    if one.started:
        parts.append(f"started {', '.join(one.started)}")
    if one.stopped:
        parts.append(f"stopped {', '.join(one.stopped)}")
    return "; ".join(parts)


def _pushed(one: Activation | CallError) -> dict[str, object]:
    if isinstance(one, CallError):
        return {"error": one.sentence, "code": one.code.name, "details": one.details}
    return {
        "revision": one.revision,
        "manifest_digest": f"sha384:{one.manifest_digest.hex()}",
        "started": one.started,
        "stopped": one.stopped,
    }


# ---- call ------------------------------------------------------------------------------------------------------------


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
    answer: bytes = ask(network, enclave, lambda client: client.ask("call", actor, operation, body))
    value = result_from_msgpack(answer)
    emit({"ok": True, "result": value}, as_json, lambda console: _show(value, console))


def _show(value: Any, console: Console) -> None:
    if isinstance(value, list) and value and all(isinstance(row, dict) and row for row in value):
        columns = list(dict.fromkeys(column for row in value for column in row))
        rows = ([_cell(row.get(column, "")) for column in columns] for row in value)
        console.print(table(None, columns, rows))
    else:
        say(console, json.dumps(value, indent=2 if isinstance(value, dict) else None))


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ---- status ----------------------------------------------------------------------------------------------------------


def status(
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    usage: Annotated[bool, typer.Option("--usage", help="What each provider holds and has done, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show runtime clients and their enclaves: phase, revision, actors, calls. Exit status 1 when one is not ready."""
    registry = default_registry()
    entries = registry.network(network).enclaves if enclave is None else (registry.enclave(network, enclave),)
    found = asyncio.run(_ask_all(entries))

    def text(console: Console) -> None:
        rows = [_status_row(name, one) for name, one in found.items()]
        columns = ("enclave", "phase", "revision", "actors", "calls", "errors", "detail")
        console.print(table(None, columns, rows))
        if usage:
            figures = [row for name, one in found.items() for row in _usage_rows(name, one)]
            console.print(table(None, ("enclave", "provider", "state", "figure", "value"), figures))

    ready = all(_is_ready(one) for one in found.values())
    result = {name: {"problem": one} if isinstance(one, str) else one for name, one in found.items()}
    emit({"ok": ready, "enclaves": result}, as_json, text)
    if not ready:
        raise typer.Exit(1)


async def _ask_all(entries: Iterable[EnclaveEntry]) -> dict[str, ClientStatus | str]:
    async def one(entry: EnclaveEntry) -> ClientStatus | str:
        try:
            status: ClientStatus = await with_client(Path(entry.folder), lambda client: client.ask("status"))
        except CallError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return status

    # At once: each that does not answer takes its whole time.
    listed = list(entries)
    return dict(zip([entry.name for entry in listed], await asyncio.gather(*map(one, listed)), strict=True))


def _is_ready(one: ClientStatus | str) -> bool:
    return isinstance(one, ClientStatus) and one.enclave is not None and one.enclave.phase == "ready"


def _status_row(name: str, one: ClientStatus | str) -> tuple[object, ...]:
    if isinstance(one, str):
        return (name, "no client", "-", "-", "-", "-", one)
    if one.enclave is None:
        return (name, "no enclave", "-", "-", "-", "-", one.problem)
    host = one.enclave
    actors = ", ".join(f"{actor.name} {actor.version} {actor.running}/{actor.replicas}" for actor in host.actors)
    return (name, host.phase, host.revision or "-", actors or "-", host.calls, host.errors, host.detail)


def _usage_rows(name: str, one: ClientStatus | str) -> Iterable[tuple[object, ...]]:
    if isinstance(one, str) or one.enclave is None:
        return
    for provider in one.enclave.providers:
        for figure, value in provider.usage.items() or (("-", "-"),):
            yield (name, provider.name, provider.state, figure, value)
