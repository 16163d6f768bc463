"""`teactl network`: write down where the runtime clients of real enclaves are, so that every other command finds them.

May not: touch a simulated network (`teactl sim` does), or vouch for what answers there. Rule: docs/deploy-nitro.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from tea.trust import names

from ..console import Json, Refusal, emit, say
from ..files import require_private
from ..operating import DEFAULT_NETWORK, Network
from ..registry import EnclaveEntry, NetworkEntry, Registry, RegistryError, default_registry

app = typer.Typer(help="Write down where the runtime clients of real enclaves are.", no_args_is_help=True)

_INSTANCE: Final = re.compile(r"i-[0-9a-f]{8,17}")


def register(root: typer.Typer) -> None:
    """Add `network` to teactl."""
    root.add_typer(app, name="network")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The enclave's name: its slot, where it has one.")],
    folder: Annotated[
        Path, typer.Option(help="The folder of its runtime client: /var/lib/tea/e1 by the shipped unit.")
    ],
    deployment: Annotated[
        str | None, typer.Option(help="The deployment, as in the approvers' file; needed for a network's first.")
    ] = None,
    instance_id: Annotated[
        str | None, typer.Option(help="The parent's EC2 instance (i-...): PCR4 in `members: pin` comes from it.")
    ] = None,
    network: Network = DEFAULT_NETWORK,
    as_json: Json = False,
) -> None:
    """Register a real enclave: from then on every command finds its runtime client by this name."""
    if not names.is_name(name):
        raise typer.BadParameter(f"found {name[:80]!r}, expected {names.NAME_MEND}", param_hint="NAME")
    if instance_id is not None and not _INSTANCE.fullmatch(instance_id):
        raise typer.BadParameter(
            f"found {instance_id[:40]!r}, expected an EC2 instance's id: i- and 8 or 17 hex digits",
            param_hint="--instance-id",
        )
    where = folder.absolute()
    registry = default_registry()
    entry = _real(registry, network)
    if entry is None:
        if deployment is None or not names.DEPLOYMENT.fullmatch(deployment):
            raise typer.BadParameter(
                f"{network} is new: say its deployment, 1 to 63 small letters, digits and dashes",
                param_hint="--deployment",
            )
        entry = NetworkEntry(network, deployment, None, ())
    if deployment not in (None, entry.deployment):
        raise Refusal(f"the network {network} is of deployment {entry.deployment}, expected that, not {deployment}")
    for one in entry.enclaves:
        if one.name == name or one.folder == str(where):
            raise Refusal(
                f"{one.name} is registered in {network} already, with {one.folder}: "
                f"`teactl network remove {one.name}` first"
            )
    answers = _require_folder(where)
    added = EnclaveEntry(name, str(where), 0, None, instance_id)
    path = registry.write(msgspec.structs.replace(entry, enclaves=(*entry.enclaves, added)))

    def text(console: Console) -> None:
        say(console, f"{name} is in {network} ({entry.deployment}), asked at {where}; written to {path}")
        if not answers:
            say(console, "that folder is not there yet: start its runtime client")

    emit(
        {"ok": True, "path": str(path), "network": network, "deployment": entry.deployment, "folder_exists": answers},
        as_json,
        text,
    )


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The enclave.")], network: Network = DEFAULT_NETWORK, as_json: Json = False
) -> None:
    """Take a real enclave off the books. It runs on, and its client's files stay."""
    registry = default_registry()
    entry = _real(registry, network)
    if entry is None:
        entry = registry.network(network)  # refuses, and says which there are
    left = tuple(one for one in entry.enclaves if one.name != name)
    if len(left) == len(entry.enclaves):
        raise RegistryError(
            f"no enclave {name} in {network}: there are {', '.join(one.name for one in left) or 'none'}"
        )
    if left:
        registry.write(msgspec.structs.replace(entry, enclaves=left))
    else:
        registry.forget(network)
    emit(
        {"ok": True, "network": network, "enclaves": [one.name for one in left]},
        as_json,
        lambda console: say(console, f"{name} is off the books of {network}; nothing was ended"),
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show the networks that are written down, simulated ones included."""
    registry = default_registry()
    found = [registry.network(name) for name in registry.networks()]

    def text(console: Console) -> None:
        for network in found:
            kind = "real" if network.root is None else "simulated"
            say(console, f"{network.name}: {kind}, deployment {network.deployment}")
            for one in network.enclaves:
                say(console, f"  {one.name}  {one.folder}{'' if one.instance_id is None else '  ' + one.instance_id}")
        if not found:
            say(console, f"none below {registry.folder}: `teactl network add` or `teactl sim up` makes one")

    emit({"ok": True, "networks": [msgspec.to_builtins(one) for one in found]}, as_json, text)


def _real(registry: Registry, network: str) -> NetworkEntry | None:
    """A network of real enclaves; None: not there yet. Raises `RegistryError`, `Refusal` for a simulated one."""
    registry.network_folder(network)  # refuses what is no name
    if network not in registry.networks():
        return None
    entry = registry.network(network)
    if entry.root is not None:
        raise Refusal(f"the network {network} is simulated: `teactl sim` keeps it; name another with --network")
    return entry


def _require_folder(folder: Path) -> bool:
    """Whether the client's folder is there; refuses one in which others could answer in the client's place."""
    try:
        require_private(folder)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise Refusal(f"{folder}: {error.strerror}") from None
    return True
