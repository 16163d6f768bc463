"""`teactl sim` and `teactl demo`: networks of simulated enclaves on this machine.

May not: end a process that is not one of the network's own, by pid, start time and boot.
Rule: docs/architecture.md, "Modes" and "The demo".
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from tea.parent_client.console import Json, Refusal, emit, say, table
from tea.parent_client.keys import development_key, read_public
from tea.parent_client.registry import default_registry
from tea.trust import names
from tea.trust.approval import Approvers

from .processes import ProcessError

T = TypeVar("T")
DEPLOYMENT = "development"
Name = Annotated[str, typer.Option("--name", help="Name of the network.")]

app = typer.Typer(help="Networks of simulated enclaves on this machine.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `sim` and `demo` to teactl."""
    root.add_typer(app, name="sim")
    root.command()(demo)


@app.command()
def up(
    enclaves: Annotated[int, typer.Option(min=1, max=64, help="How many; they are named e1, e2, ...")] = 1,
    name: Name = "default",
    approvers: Annotated[
        list[str] | None,
        typer.Option(help="Public keys that approve manifests (name, path or text); repeat. Default: development key."),
    ] = None,
    threshold: Annotated[int, typer.Option(min=1, help="How many of them it takes.")] = 1,
    deployment: Annotated[str, typer.Option(help="The deployment that their manifests name.")] = DEPLOYMENT,
    chain: Annotated[
        str | None, typer.Option(help="`embedded`, or the URL of an EVM node: what layer 1 is fed with. Default: none.")
    ] = None,
    block_seconds: Annotated[float, typer.Option(min=0.05, help="Seconds a block of the embedded chain.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Start a network in the background: enclaves that wait for settings, each with its runtime client."""
    from .networks import UpPlan
    from .networks import up as start_network

    _require_name("--name", name)
    if names.DEPLOYMENT.fullmatch(deployment) is None:
        raise typer.BadParameter(f"--deployment has 1 to 63 small letters, digits and dashes, not {deployment!r}")
    keys = [read_public(key) for key in approvers] if approvers else [development_key().public]
    unique = {key.text: key for key in keys}
    if threshold > len(unique):
        raise typer.BadParameter(f"--threshold {threshold} needs as many keys, there are {len(unique)}")
    trusted = Approvers(deployment, 1, threshold, tuple(unique[text] for text in sorted(unique)))
    plan = UpPlan(name, tuple(f"e{number}" for number in range(1, enclaves + 1)), trusted, chain, block_seconds)
    entry, folder = _run(start_network(default_registry(), plan))
    result = {
        "ok": True,
        "network": name,
        "deployment": deployment,
        "root": entry.root,
        "folder": str(folder),
        "policy": str(folder / "policy.yaml"),
        "approvers": str(folder / "approvers.yaml"),
        "enclaves": [
            {"name": one.name, "client_pid": one.client_pid, "host_pid": one.host_pid, "instance_id": one.instance_id}
            for one in entry.enclaves
        ],
    }

    def text(console: Console) -> None:
        count = f"{enclaves} enclave{'s wait' if enclaves > 1 else ' waits'}"
        say(console, f"{count} for settings: {', '.join(one.name for one in entry.enclaves)} (deployment {deployment})")
        say(console, f"policy for relying parties: {folder / 'policy.yaml'}")

    emit(result, as_json, text)


@app.command()
def status(
    name: Annotated[str | None, typer.Option("--name", help="Name of a network; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """Show which processes of the networks run. Exit status 1 when one is gone. `teactl status` asks the enclaves."""
    from .networks import processes_of

    registry = default_registry()
    found = {one: processes_of(registry, one) for one in ([name] if name else registry.networks())}

    def text(console: Console) -> None:
        if not found:
            say(console, "no network runs: `teactl sim up` starts one")
            return
        rows = [
            (network, one.name, one.pid, "runs" if one.is_running() else "gone", one.console)
            for network, processes in found.items()
            for one in processes
        ]
        console.print(table(None, ("network", "process", "pid", "", "console"), rows))

    running = all(one.is_running() for processes in found.values() for one in processes)
    result = {
        network: [{"name": one.name, "pid": one.pid, "running": one.is_running()} for one in processes]
        for network, processes in found.items()
    }
    emit({"ok": running, "networks": result}, as_json, text)
    if not running:
        raise typer.Exit(1)


@app.command()
def down(name: Name = "default", as_json: Json = False) -> None:
    """End a network: its enclaves drain, then its processes end. Its files stay until the next `sim up`."""
    from .networks import down as end_network

    ended, killed = end_network(default_registry(), name)

    def text(console: Console) -> None:
        say(console, f"{name}: {ended} processes ended" + (f"; killed: {', '.join(killed)}" if killed else ""))

    emit({"ok": True, "network": name, "ended": ended, "killed": killed}, as_json, text)


def demo(
    enclaves: Annotated[int, typer.Option(help="3 to 16.")] = 5,
    blocks: Annotated[int, typer.Option(help="5 to 200.")] = 20,
    tamper: Annotated[
        int | None, typer.Option(help="How many parents lie: 0 to (enclaves - 1) // 3; 1 by default, if they bear one.")
    ] = None,
    kill: Annotated[int, typer.Option(help="How many enclaves are killed on the way: 0 or 1.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Chooses who is lied to, about what, who is killed. Drawn.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for certificates, evidence, policy and report.")] = Path("demo-out"),
    chain: Annotated[str | None, typer.Option(help="URL of an EVM node; by default a chain is embedded.")] = None,
    as_json: Json = False,
) -> None:
    """Run a network of enclaves that certify a chain's state, name the one that is lied to, and bear a crash."""
    from .demo import run_demo
    from .demo_plan import DemoPlan
    from .demo_report import report
    from .demo_state import DemoState
    from .demo_summary import summary_sentences
    from .demo_view import DemoView

    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    liars = min(1, max(0, (enclaves - 1) // 3)) if tamper is None else tamper
    try:
        plan = DemoPlan(enclaves, blocks, liars, kill, chosen, out.absolute(), chain)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    state = DemoState(plan)
    # Standard output belongs to the JSON object where one is asked for.
    with DemoView(state, Console(stderr=as_json, force_terminal=False if as_json else None)).shown():
        result = _run(run_demo(plan, state))
    (plan.out / "report.html").write_text(report(result))

    def text(console: Console) -> None:
        say(console, "")
        for line in summary_sentences(result):
            say(console, line)
        say(console, "")
        folder = _short(plan.out)
        say(console, f"report        {folder / 'report.html'}")
        say(console, f"certificates  {folder / 'certificates'}")
        say(console, f"evidence      {folder / 'evidence'}")
        say(console, f"check them    teactl ra verify {folder}/*/*.cbor --policy {folder / 'policy.yaml'}")
        for problem in result.problems:
            say(console, f"not as it should be: {problem}")

    emit(result.to_json(), as_json, text)
    if not result.ok:
        raise typer.Exit(1)


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _require_name(option: str, name: str) -> None:
    if not names.is_name(name):
        raise typer.BadParameter(f"{option} {name!r}: {names.NAME_MEND}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; an interrupt or SIGTERM cancels it, and it cleans up before this raises `Refusal`."""

    async def cancellable() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise Refusal("interrupted: everything that was started has been ended") from None
        except ProcessError as error:
            raise Refusal(str(error)) from None

    return asyncio.run(cancellable())
