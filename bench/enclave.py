"""A real host with real workers, in this process, for benchmarks that drive actors.

May not: cut a corner that production does not: bundles are signed, verified and run in sandboxed workers.
Rule: docs/performance.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tea.parent_client.client import RuntimeClient, unix_config
from tea.parent_client.operator import Push
from tea.protocol.transport.address import Address
from tea.providers.nitro.authority import SimulatedCa
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.start import SimulatedStart
from tea.runtime.host import Host
from tea.simulator.identity import instance_id, module_id, simulated_pcrs
from tea.trust.approval import approve, parse_approvers
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest


class BenchEnclave:
    """One host, its client, and the actors that a benchmark builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = PrivateKey.generate()
        approvers = f"tea: approvers/1\ndeployment: bench\nepoch: 1\nthreshold: 1\nkeys: ['{self.key.public.text}']\n"
        instance = instance_id(b"bench", "e1")
        credential = SimulatedCa.create().issue_instance(instance)
        start = SimulatedStart(credential, module_id(instance), simulated_pcrs(approvers.encode()))
        self.client = RuntimeClient(unix_config("e1", folder))
        self.host = Host(
            mode="simulated",
            nsm=Nsm(start.nsm(time.time)),
            approvers=parse_approvers(approvers),
            loop=asyncio.get_running_loop(),
        )
        self.bundles: dict[str, tuple[bytes, str]] = {}
        """Actor -> its bundle file, and more fields of its manifest entry, each with a leading comma."""
        self._revision = 0

    def actor(
        self, name: str, source: str, entry: str, *, asks: Mapping[str, tuple[str, ...]] | None = None, fields: str = ""
    ) -> None:
        """Add an actor; `fields` are more fields of its manifest entry, each with a leading comma."""
        claims = ClaimsInput(
            name=name, version="0.1.0", entry=f"{name}:{entry}", issued_at=int(time.time()), capabilities=asks or {}
        )
        archive = build_archive({f"{name}.py": textwrap.dedent(source).encode()})
        self.bundles[name] = (build_bundle(archive, claims, self.key), fields)

    async def push(self, links: str) -> None:
        """Approve and run the actors under these links."""
        self._revision += 1
        names = ", ".join(self.bundles)
        actors, paths = [], []
        for name, (data, fields) in self.bundles.items():
            digest = hashlib.sha256(data).hexdigest()
            actors.append(f"  {name}: {{version: 0.1.0, bundle: 'sha256:{digest}', issuer: dev{fields}}}")
            path = self.folder / f"{name}.tea"
            path.write_bytes(data)
            paths.append(str(path))
        issuer = f"{{key: '{self.key.public.text}', actors: [{names}], capabilities: [kvp, intercom, {names}]}}"
        text = "\n".join(
            [
                "tea: manifest/1",
                "deployment: bench",
                f"revision: {self._revision}",
                "sandbox: prefer",
                f"issuers: {{dev: {issuer}}}",
                "providers: {kvp: {}, intercom: {}}",
                "actors:",
                *actors,
                "links:",
                links,
            ]
        )
        envelope = approve(parse_manifest(text).canonical(), self.key)
        await self.client.push(Push(envelope, (), {}, tuple(paths)))

    async def call(self, actor: str, operation: str, *args: object) -> Any:
        """Call as the parent, without a deadline of its own."""
        body = msgspec.msgpack.encode(args)
        return msgspec.msgpack.decode(await self.host.router.call("parent", actor, operation, body, timeout=None))

    def pids(self, actor: str) -> list[int]:
        """Process ids of an actor's replicas."""
        running = self.host.supervisors
        return running[actor].pids


@contextlib.asynccontextmanager
async def enclave() -> AsyncIterator[BenchEnclave]:
    """A booted enclave; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tea-bench-") as folder:
        made = BenchEnclave(Path(folder))
        await made.client.start()
        address = Address.parse(f"unix:{made.folder / 'enclave.sock'}")
        running = asyncio.get_running_loop().create_task(made.host.run(address))
        while made.host.tracker.phase.value != "awaiting-settings":  # noqa: ASYNC110 (a phase has no event)
            await asyncio.sleep(0.01)
        try:
            yield made
        finally:
            await made.host.shutdown(0.0)
            await running
            await made.client.close()
