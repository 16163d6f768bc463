"""Networks that live in the background: started by one `teactl`, found and ended by another.

May not: signal a process that is not the very one that was written down. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tea.parent_client.console import Refusal
from tea.parent_client.registry import NetworkEntry, Registry, RegistryError, socket_folder
from tea.trust.approval import Approvers

from .network import NetworkPlan, SimulatedNetwork
from .processes import ProcessRecord, end_all

PROCESSES_FILE: Final = "processes.json"
DRAIN_SECONDS: Final = 10.0
END_SECONDS: Final = 5.0


@dataclass(frozen=True)
class UpPlan:
    """What `sim up` is to start."""

    name: str
    names: tuple[str, ...]
    approvers: Approvers
    chain: str | None
    """`embedded`, a URL, or none."""
    block_seconds: float


async def up(registry: Registry, plan: UpPlan) -> tuple[NetworkEntry, Path]:
    """Start a network that outlives this process, and write it down. Raises `Refusal` when one of that name runs."""
    folder = registry.network_folder(plan.name)
    _require_simulated(registry, plan.name)
    if any(one.is_running() for one in _read(folder)):
        raise Refusal(f"the network {plan.name} runs already: `teactl sim down --name {plan.name}` ends it")
    registry.forget(plan.name)
    shutil.rmtree(folder, ignore_errors=True)
    chain = None
    if plan.chain is not None:
        from .chain_feed import EMBEDDED, embedded, follow

        chain = await (
            embedded(folder, 1, tied=False, interval=plan.block_seconds)
            if plan.chain == EMBEDDED
            else follow(plan.chain)
        )
    try:
        feed = chain.feed if chain is not None else None
        network = SimulatedNetwork(NetworkPlan(folder, plan.names, plan.approvers, feed, tied=False))
        await network.start()
    except BaseException:
        if chain is not None:
            await chain.close()
        raise
    try:
        children = network.children()
        if chain is not None and chain.child is not None:
            children.append(chain.child)
        (folder / "policy.yaml").write_text(network.policy().to_yaml())
        (folder / PROCESSES_FILE).write_bytes(
            msgspec.json.format(msgspec.json.encode([one.record for one in children]))
        )
        entry = NetworkEntry(
            name=plan.name,
            deployment=plan.approvers.deployment,
            root=f"sha256:{network.root_digest.hex()}",
            enclaves=tuple(one.entry() for one in network.enclaves.values()),
        )
        registry.write(entry)
        await network.detach()
    except BaseException:
        network.end_now()
        if chain is not None:
            await chain.close()
        raise
    if chain is not None:
        await chain.detach()
    return entry, folder


def processes_of(registry: Registry, name: str) -> list[ProcessRecord]:
    """The processes of a network, as they were written down. Raises `RegistryError` when there is no such network."""
    registry.network(name)
    return _read(registry.network_folder(name))


def down(registry: Registry, name: str) -> tuple[int, list[str]]:
    """End a network: how many processes ended, and which had to be killed. Raises `RegistryError`."""
    folder = registry.network_folder(name)
    _require_simulated(registry, name)
    processes = [one for one in _read(folder) if one.is_running()]
    if not processes:
        registry.network(name)  # refuses a name that nobody knows
    hosts = [one for one in processes if one.name.endswith(" host")]
    killed = end_all(hosts, DRAIN_SECONDS)
    killed += end_all([one for one in processes if one not in hosts], END_SECONDS)
    for path in folder.glob("*/client.console"):
        sockets = socket_folder(path.parent)
        if sockets != path.parent.absolute():
            shutil.rmtree(sockets, ignore_errors=True)
    registry.forget(name)
    (folder / PROCESSES_FILE).unlink(missing_ok=True)
    return len(processes), killed


def _require_simulated(registry: Registry, name: str) -> None:
    """Raise `Refusal` for a network of real enclaves: its entry and folder are not ours to take away."""
    try:
        entry = registry.network(name)
    except RegistryError:
        return  # none, or one that cannot be read: to be made anew
    if entry.root is None:
        raise Refusal(f"{name} is a network of real enclaves (`teactl network` keeps it): name another with --name")


def _read(folder: Path) -> list[ProcessRecord]:
    path = folder / PROCESSES_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ProcessRecord])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise Refusal(f"{path} cannot be read: {error}; end its processes by hand, then remove it") from None
