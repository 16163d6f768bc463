"""A real enclave for tests: a host on the test's loop, a simulated NSM, a runtime client on a Unix socket, workers
forked by a real zygote. Only the process boundary between host and test is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tea.parent_client.client import RuntimeClient, unix_config
from tea.parent_client.operator import Push
from tea.protocol.channels import Activation
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

ECHO = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def echo(self, value: object) -> object:
        return value

    @operation
    def who(self) -> list[object]:
        return [self.caller, list(self.chain)]
"""


class Enclave:
    """One enclave, its parent, and a developer who builds and approves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = PrivateKey.generate()
        self.other_key = PrivateKey.generate()
        self.approvers_text = (
            f"tea: approvers/1\ndeployment: test\nepoch: 1\nthreshold: 1\nkeys: ['{self.key.public.text}']\n"
        )
        ca = SimulatedCa.create()
        instance = instance_id(b"test", "e1")
        self.start = SimulatedStart(
            ca.issue_instance(instance), module_id(instance), simulated_pcrs(self.approvers_text.encode())
        )
        self.root = ca.root_digest
        self.bundles: dict[str, bytes] = {}
        self.capabilities: dict[str, dict[str, tuple[str, ...]]] = {}
        self.client = RuntimeClient(unix_config("e1", folder))
        self.host = Host(
            mode="simulated",
            nsm=Nsm(self.start.nsm(time.time)),
            approvers=parse_approvers(self.approvers_text),
            loop=asyncio.get_running_loop(),
        )
        self._running: asyncio.Task[None] | None = None

    async def boot(self) -> None:
        """Start client and host; returns when the host awaits settings."""
        await self.client.start()
        address = Address.parse(f"unix:{self.folder / 'enclave.sock'}")
        self._running = asyncio.get_running_loop().create_task(self.host.run(address))
        await until(lambda: self.host.tracker.phase.value == "awaiting-settings")

    async def end(self) -> None:
        await self.host.shutdown(0.0)
        if self._running is not None:
            await asyncio.wait_for(self._running, 10)
        await self.client.close()

    def bundle(
        self,
        name: str,
        source: str,
        entry: str,
        *,
        version: str = "0.1.0",
        capabilities: Mapping[str, tuple[str, ...]] | None = None,
        key: PrivateKey | None = None,
    ) -> bytes:
        """Build an actor; it is pushed with every later push."""
        asked = dict(capabilities or {})
        claims = ClaimsInput(
            name=name, version=version, entry=f"{name}:{entry}", issued_at=int(time.time()), capabilities=asked
        )
        archive = build_archive({f"{name}.py": textwrap.dedent(source).encode()})
        data = build_bundle(archive, claims, key or self.key)
        self.bundles[name] = data
        self.capabilities[name] = asked
        return data

    def manifest(
        self,
        *,
        revision: int = 1,
        links: str = "",
        providers: str = "  kvp: {}",
        actors: Mapping[str, str] | None = None,
        issuer_capabilities: str = "kvp, echo, crypto, clock, log",
        versions: Mapping[str, str] | None = None,
        extra: str = "",
    ) -> str:
        """A manifest over the bundles that were built. `actors` adds fields (replicas, limits, ...) by actor."""
        lines = []
        for name, data in self.bundles.items():
            more = (actors or {}).get(name, "")
            version = (versions or {}).get(name, "0.1.0")
            digest = hashlib.sha256(data).hexdigest()
            lines.append(f"  {name}: {{version: {version}, bundle: 'sha256:{digest}', issuer: dev{more}}}")
        return "\n".join(
            [
                "tea: manifest/1",
                "deployment: test",
                f"revision: {revision}",
                "sandbox: prefer",
                "issuers:",
                f"  dev: {{key: '{self.key.public.text}', actors: [{', '.join(self.bundles)}],"
                f" capabilities: [{', '.join({*issuer_capabilities.split(', '), *self.bundles})}]}}",
                "providers:",
                providers,
                "actors:",
                *lines,
                "links:",
                links,
                extra,
            ]
        )

    async def push(self, manifest: str, *, key: PrivateKey | None = None, raw: bytes | None = None) -> Activation:
        """Approve and push; raises `CallError` as the host refused."""
        envelope = raw or approve(parse_manifest(manifest).canonical(), key or self.key)
        paths = []
        for name, data in self.bundles.items():
            path = self.folder / f"{name}.tea"
            path.write_bytes(data)
            paths.append(str(path))
        return await self.client.push(Push(envelope, (), {}, tuple(paths)))

    async def call(self, actor: str, operation: str, *args: object, **kwargs: object) -> Any:
        """Call as the parent."""
        body = msgspec.msgpack.encode(kwargs or args)
        return msgspec.msgpack.decode(await self.client.call(actor, operation, body))

    async def logged(self, text: str) -> str:
        """Wait for a log record that contains `text`; the record's message."""
        start = 0
        async with asyncio.timeout(10):
            while True:
                page = await self.client.logs(start, 5.0)
                for record in page.records:
                    if text in record.message:
                        return record.message
                start = page.next


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for a state that has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture
def echo_source() -> str:
    return ECHO


@pytest.fixture
async def enclave(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Enclave]:
    """A booted enclave that awaits settings."""
    made = Enclave(tmp_path_factory.mktemp("e"))
    await made.boot()
    try:
        yield made
    finally:
        await made.end()
