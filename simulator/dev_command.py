"""`teactl dev`: an author's loop: save, and a simulated enclave runs it; its log is on the terminal.

May not: end a network that it did not start. Rule: docs/teactl.md, "dev".
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from tea.parent_client.building import DESCRIPTION
from tea.parent_client.console import Refusal, console, say, visible
from tea.parent_client.keys import development_key
from tea.parent_client.operating import OperatorClient, with_client
from tea.parent_client.operator import LogPage
from tea.parent_client.project import MANIFEST
from tea.parent_client.registry import EnclaveEntry, NetworkEntry, Registry, default_registry
from tea.protocol.channels import LogRecord
from tea.protocol.errors import CallError
from tea.trust.approval import Approvers
from tea.trust.errors import TrustError

from .dev import Upgrade, Workshop

NETWORK: Final = "dev"
LOG_SECONDS: Final = 5.0
"""How long one question for news of the log waits."""
AGAIN_SECONDS: Final = 0.5


def register(root: typer.Typer) -> None:
    """Add `dev` to teactl."""
    root.command()(dev)


def dev(
    folder: Annotated[Path, typer.Argument(help="The actor's project: a folder with bundle.yaml and manifest.yaml.")],
    manifest: Annotated[Path | None, typer.Option(help="Another manifest than the folder's.")] = None,
    bundles: Annotated[Path, typer.Option(help="Folder for bundles; the manifest's other actors lie there.")] = Path(
        "build/bundles"
    ),
    name: Annotated[
        str, typer.Option("--name", help="The network; it is started when none of that name runs.")
    ] = NETWORK,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE, where the manifest allows it.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let a network that was started here run on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Run an actor's project in a simulated enclave and upgrade it on every save; until interrupted."""
    description = folder / DESCRIPTION
    if not description.is_file():
        raise Refusal(f"{folder}: found no {DESCRIPTION}, expected an actor's project: `teactl actor new` makes one")
    pairs = dict(pair.partition("=")[::2] for pair in env or ())
    if not all(pairs) or any("=" not in pair for pair in env or ()):
        raise typer.BadParameter("expected NAME=VALUE", param_hint="--env")
    workshop = Workshop(folder, manifest or folder / MANIFEST, bundles, development_key(), pairs)
    asyncio.run(_dev(workshop, name, keep, _Terminal(as_json)))


class _Terminal:
    """What an author sees: text, or a JSON object a line."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = console()

    def event(self, kind: str, text: str, **fields: object) -> None:
        if self._as_json:
            typer.echo(json.dumps({"event": kind, "text": text, **fields}))
        else:
            say(self._console, text)

    def refused(self, error: Exception) -> None:
        self.event("refused", f"not upgraded: {error}; what ran before runs on")

    def upgraded(self, one: Upgrade) -> None:
        self.event(
            "upgraded",
            f"{', '.join(one.enclaves)}: revision {one.revision} serves {one.actor} {one.version}, {one.total:.3f} s "
            f"after the save (seen {one.seen:.3f}, built and signed {one.built:.3f}, upgraded {one.served:.3f})",
            revision=one.revision,
            seconds=round(one.total, 4),
        )

    def logged(self, enclave: str, record: LogRecord) -> None:
        moment = time.strftime("%H:%M:%S", time.gmtime(record.time))
        fields = "".join(f" {key}={value}" for key, value in record.fields.items())
        message = visible(record.message + fields, keep="\n\t")  # a traceback is read in lines
        text = f"{moment} {visible(record.level):7} {enclave} {visible(record.source)}: {message}"
        self.event("log", text, level=record.level, source=record.source, message=record.message)


async def _dev(workshop: Workshop, name: str, keep: bool, terminal: _Terminal) -> None:
    registry = default_registry()
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    deployment = workshop.deployment()
    network, started = await _network(registry, name, deployment, workshop)
    try:
        enclaves = ", ".join(one.name for one in network.enclaves)
        terminal.event(
            "ready",
            f"{'started' if started else 'found'} the network {name} ({enclaves}; deployment {deployment}); saves in "
            f"{workshop.folder} upgrade it, Ctrl-C ends",
            network=name,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_upgrade_on_save(workshop, network, terminal))]
            tasks += [group.create_task(_follow(enclave, terminal)) for enclave in network.enclaves]
            await ending.wait()
            for task in tasks:
                task.cancel()
    finally:
        if started and not keep:
            from .networks import down

            ended, _ = down(registry, name)
            terminal.event("ended", f"ended the network {name}: {ended} processes")


async def _network(registry: Registry, name: str, deployment: str, workshop: Workshop) -> tuple[NetworkEntry, bool]:
    """The network that runs, or a new one; whether it was started. Raises `Refusal` when it is another deployment's."""
    from .networks import UpPlan, processes_of, up

    processes = processes_of(registry, name) if name in registry.networks() else []
    if processes and all(one.is_running() for one in processes):
        network = registry.network(name)
        if network.root is None:
            raise Refusal(f"{name} is no simulated network: the development key has no business there")
        if network.deployment != deployment:
            raise Refusal(
                f"the network {name} is of the deployment {network.deployment}, the manifest of {deployment}: choose "
                f"another with --name, or end it with `teactl sim down --name {name}`"
            )
        return network, False
    trusted = Approvers(deployment, 1, 1, (workshop.key.public,))
    network, _ = await up(registry, UpPlan(name, ("e1",), trusted, None, 2.0))
    return network, True


async def _upgrade_on_save(workshop: Workshop, network: NetworkEntry, terminal: _Terminal) -> None:
    files, saved = workshop.snapshot(), time.time()
    while True:
        try:
            terminal.upgraded(await workshop.upgrade(network, saved))
        except (Refusal, TrustError, CallError, OSError) as error:
            terminal.refused(error)
        files, saved = await workshop.saved(files)


async def _follow(enclave: EnclaveEntry, terminal: _Terminal) -> None:
    """Show what the actors say, and what the enclave warns of; from now on, however often the connection breaks."""
    start = 1 << 62

    async def read(client: OperatorClient) -> None:
        nonlocal start
        while True:
            page: LogPage = await client.ask("logs", start, LOG_SECONDS)
            start = page.next
            for record in page.records:
                if record.level in ("warning", "error", "critical") or "#" in record.source:
                    terminal.logged(enclave.name, record)

    while True:
        try:
            await with_client(Path(enclave.folder), read)
        except (CallError, OSError) as error:
            terminal.event("problem", f"{enclave.name}: the log cannot be read: {error}")
        await asyncio.sleep(AGAIN_SECONDS)
