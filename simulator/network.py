"""A whole network of enclaves on one machine: parents, hosts, their certificate authority, and what ends them all.

May not: leave a process behind, or let the authority's key out of this process's memory. Every parent and every host
is an OS process of its own. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tea.parent_client.registry import socket_folder
from tea.providers.nitro.authority import NETWORK_LIFE, SimulatedCa
from tea.providers.nitro.start import SimulatedStart
from tea.trust import pcr
from tea.trust.approval import Approvers
from tea.trust.policy import Member, Policy
from tea.trust.roots import Roots

from .enclave import SimulatedEnclave
from .identity import instance_id, simulated_pcrs
from .processes import Child

if TYPE_CHECKING:  # a network without a chain does not pay for an HTTP client's import
    from tea.parent_client.chain.watch import Watch

AT_ONCE: Final = (os.cpu_count() or 1) + 1
"""Hosts that start side by side: a start is computing, and more of them only make each slower."""


@dataclass(frozen=True)
class Tampering:
    """What a lying parent does: from a height on it alters one entry, which the seed chooses."""

    from_height: int
    seed: int


@dataclass(frozen=True)
class ChainFeed:
    """What the parents' adapters follow."""

    url: str
    watch: Watch
    finality: str = "finalized"
    poll: float = 0.5


@dataclass(frozen=True)
class NetworkPlan:
    """What a network is to be."""

    folder: Path
    names: tuple[str, ...]
    approvers: Approvers
    """Who approves its manifests; its deployment is the network's."""
    feed: ChainFeed | None = None
    tampering: Mapping[str, Tampering] = field(default_factory=dict)
    release: str | None = None
    """Address of a release service for secrets, to which the parents relay."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Enclaves that run on another's instance: name -> that one's. They have its PCR4, so they fill its slot."""
    tied: bool = True
    """Whether the processes end with this one, however it ends."""


class SimulatedNetwork:
    """One network. `running` starts it and ends it whatever happens; `sim up` calls `start` and lets it run."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.folder = plan.folder
        self._authority = SimulatedCa.create()
        self._identity = secrets.token_bytes(16)
        self.folder.mkdir(0o755, parents=True, exist_ok=True)  # nobody else writes there, whatever the umask
        self.approvers_file = self.folder / "approvers.yaml"
        self.approvers_file.write_text(plan.approvers.to_yaml())
        self.pcrs = simulated_pcrs(self.approvers_file.read_bytes())
        self._watch_file: Path | None = None
        if plan.feed is not None:
            self._watch_file = self.folder / "watch.json"
            self._watch_file.write_bytes(msgspec.json.format(msgspec.json.encode(plan.feed.watch)))
        self.enclaves = {name: self._enclave(name) for name in plan.names}
        self._starting = asyncio.Semaphore(AT_ONCE)

    def __getitem__(self, name: str) -> SimulatedEnclave:
        return self.enclaves[name]

    # -- who it is -------------------------------------------------------------------------------------------------

    @property
    def root_digest(self) -> bytes:
        """SHA-256 of the authority's root certificate: what a policy names to accept this network."""
        return self._authority.root_digest

    @property
    def members(self) -> dict[str, str]:
        """Slots to their PCR4 in hex: what `members: pin` in a manifest takes."""
        return {name: pcr.pcr4(one.instance_id).hex() for name, one in self.enclaves.items()}

    def policy(self, manifests: Sequence[bytes] = ()) -> Policy:
        """What a relying party accepts of this network: root, image, members; perhaps only some manifests' digests."""
        return Policy(
            pinned=Roots.from_digests([self.root_digest]),
            simulated=True,
            pcrs={index: (value,) for index, value in self.pcrs.items()},
            deployment=self.plan.approvers.deployment,
            manifests=tuple(manifests),
            members={name: Member(pcr.INSTANCE_PCR, bytes.fromhex(value)) for name, value in self.members.items()},
        )

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every client and host; returns when all enclaves wait for settings. Raises `ProcessError`.

        What was started is ended again on an error, and when this is cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for one in self.enclaves.values():
                    group.create_task(self._start(one))
        except BaseException as error:
            self.end_now()
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _start(self, one: SimulatedEnclave) -> None:
        async with self._starting:
            one.start_host()  # it dials until its client answers
            await one.start_client()
            await one.awaits_settings()

    async def restart_host(self, name: str) -> None:
        """A fresh enclave on the instance, whose host must have ended; returns when it waits for settings."""
        self.enclaves[name].start_host()
        await self.enclaves[name].awaits_settings()

    async def push(self, envelope: bytes, bundles: Sequence[Path], names: Iterable[str] | None = None) -> None:
        """Push an approved manifest to enclaves (all by default), as many at once as may start. Raises `CallError`."""

        async def one(enclave: SimulatedEnclave) -> None:
            async with self._starting:
                await enclave.push(envelope, bundles)

        results = await asyncio.gather(
            *(one(self.enclaves[name]) for name in names or self.enclaves), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def end(self) -> None:
        """End every process: enclaves drain, then their clients go."""
        await asyncio.gather(*(one.end_host() for one in self.enclaves.values()), return_exceptions=True)
        await asyncio.gather(*(one.end_client() for one in self.enclaves.values()), return_exceptions=True)
        self.end_now()

    async def detach(self) -> None:
        """Let go of the runtime clients and let everything run on."""
        await asyncio.gather(*(one.detach() for one in self.enclaves.values()))

    def end_now(self) -> None:
        """SIGKILL to whatever still runs, and the sockets' folders away."""
        for child in self.children():
            child.end_now()
        self.remove_sockets()

    def remove_sockets(self) -> None:
        """Take away socket folders that lie elsewhere because the enclaves' own paths are too long for sockets."""
        for one in self.enclaves.values():
            sockets = socket_folder(one.folder)
            if sockets != one.folder.absolute():
                shutil.rmtree(sockets, ignore_errors=True)

    def children(self) -> list[Child]:
        """The processes that run, enclaves before their clients."""
        return [child for one in self.enclaves.values() for child in one.children()]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _enclave(self, name: str) -> SimulatedEnclave:
        folder = self.folder / name
        folder.mkdir(0o755, parents=True, exist_ok=True)
        instance = instance_id(self._identity, self.plan.beside.get(name, name))

        def platform(module: str) -> SimulatedStart:
            return SimulatedStart(self._authority.issue_instance(instance, life=NETWORK_LIFE), module, self.pcrs)

        return SimulatedEnclave(
            name,
            folder,
            instance,
            approvers=self.approvers_file,
            client_arguments=self._client_arguments(name, folder),
            platform=platform,
            tied=self.plan.tied,
        )

    def _client_arguments(self, name: str, folder: Path) -> list[str]:
        tampering = self.plan.tampering.get(name)
        module = "tea.parent_client" if tampering is None else "tea.simulator.parent"
        arguments = ["-m", module, "--name", name, "--folder", str(folder)]
        for peer in self.plan.names:
            if peer != name:
                arguments += ["--peer", f"{peer}={self.folder / peer}"]
        feed = self.plan.feed
        if feed is not None:
            arguments += ["--chain", feed.url, "--watch", str(self._watch_file)]
            arguments += ["--finality", feed.finality, "--poll", str(feed.poll)]
        if self.plan.release is not None:
            arguments += ["--release", self.plan.release]
        if tampering is not None:
            arguments += ["--tamper-from", str(tampering.from_height), "--seed", str(tampering.seed)]
        return arguments


@asynccontextmanager
async def running(plan: NetworkPlan) -> AsyncIterator[SimulatedNetwork]:
    """A network for as long as the block lasts."""
    network = SimulatedNetwork(plan)
    await network.start()
    try:
        yield network
    finally:
        try:
            await network.end()
        finally:
            network.end_now()
