"""`teactl enclave`: run, list, see and end enclaves on this machine.

May not: push settings: that is `teactl push`. Rule: docs/architecture.md, "teactl"; docs/deploy-nitro.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from .console import Json, emit, say
from .launching.launcher import Enclave, Launcher, LaunchPlan
from .launching.nitro_cli import PROGRAM, NitroCli
from .launching.qemu import QemuLauncher

app = typer.Typer(help="Run enclaves: by nitro-cli where it is, in QEMU where it is not.", no_args_is_help=True)
Qemu = Annotated[bool, typer.Option("--qemu", help="In QEMU, even where nitro-cli is.")]
Name = Annotated[str, typer.Argument(help="An enclave's name or id.")]
FOLDER: Final = Path(".tea/enclaves")


def register(root: typer.Typer) -> None:
    """Add `enclave` to teactl."""
    root.add_typer(app, name="enclave")


@app.command()
def run(
    image: Annotated[Path, typer.Option(help="An image file.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="What it is called here.")] = "tea",
    memory: Annotated[int, typer.Option(help="MiB.", min=64)] = 1024,
    cpus: Annotated[int, typer.Option(help="CPUs.", min=1)] = 2,
    cid: Annotated[int | None, typer.Option(help="Context id; chosen when it is not given.", min=4)] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Nitro: with a console. Its PCRs are all zero then.")] = False,
    parent: Annotated[
        Path | None, typer.Option(help="QEMU: the socket enclave.sock of its runtime client.", exists=True)
    ] = None,
    qemu: Qemu = False,
    as_json: Json = False,
) -> None:
    """Start an enclave of an image."""
    if debug:
        say("WARNING: an enclave in debug mode attests zeros, and its parent reads its console: for experiments only.")
    _show(_launcher(qemu).run(LaunchPlan(image, name, memory, cpus, cid, debug, parent)), as_json)


@app.command(name="list")
def list_(qemu: Qemu = False, as_json: Json = False) -> None:
    """Show the enclaves that were started here."""
    found = _launcher(qemu).enclaves()
    lines = [_line(one) for one in found] or ["no enclaves"]
    emit({"enclaves": [one.to_json() for one in found]}, as_json, lines)


@app.command()
def console(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
    qemu: Qemu = False,
) -> None:
    """Show an enclave's console; on Nitro it needs one that was run with --debug."""
    _launcher(qemu).console(name, follow)


@app.command()
def terminate(name: Name, qemu: Qemu = False, as_json: Json = False) -> None:
    """End an enclave at once; its memory is gone. To let it drain first: `teactl stop`."""
    _show(_launcher(qemu).terminate(name), as_json)


def _launcher(qemu: bool) -> Launcher:
    return QemuLauncher(FOLDER.absolute()) if qemu or shutil.which(PROGRAM) is None else NitroCli()


def _show(one: Enclave, as_json: bool) -> None:
    emit(one.to_json(), as_json, [_line(one)])


def _line(one: Enclave) -> str:
    shown = f"{one.name}  {one.enclave_id}  cid {one.cid}  {one.memory_mib} MiB  {one.cpus} CPUs  {one.state}"
    return shown + "".join(f"  {key} {value}" for key, value in one.details if isinstance(value, str | int))
