"""Runtime clients on the test's loop, hosts for them that are fakes where a real one would only be in the way, and
`teactl` in a folder of its own. The real enclave is the one of `tests/runtime`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client import cli
from tea.parent_client.client import RuntimeClient, unix_config
from tea.parent_client.registry import EnclaveEntry, NetworkEntry, Registry
from tea.protocol.channels import (
    Activation,
    Attestation,
    Channel,
    Control,
    HostStatus,
    Logs,
    PeersInbox,
    SettingsOffer,
)
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint
from tea.runtime.settings_store import SettingsStore

_spec = importlib.util.spec_from_file_location("tea_tests_runtime", Path(__file__).parents[1] / "runtime/conftest.py")
assert _spec is not None
assert _spec.loader is not None
_runtime = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_runtime)
enclave = _runtime.enclave
"""A real host with a real zygote, and its runtime client."""


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a state that has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


class FakeHost(Control, PeersInbox):
    """What dials in as an enclave: answers as told, keeps real settings, runs nothing."""

    def __init__(self) -> None:
        self.store = SettingsStore()
        self.offers: list[SettingsOffer] = []
        self.chunks: list[int] = []
        self.delivered: list[tuple[str, str, str, bytes]] = []
        self.news = asyncio.Event()
        self.shut_down: list[float] = []
        self.endpoint: Endpoint | None = None
        self.refuse_chunk: Callable[[int], None] = lambda number: None

    async def dial(self, client: RuntimeClient) -> FakeHost:
        """Connect as the client's enclave."""

        def serve(endpoint: Endpoint) -> None:
            endpoint.serve(Channel.CONTROL, Control, self)
            endpoint.serve(Channel.PEERS, PeersInbox, self)

        self.endpoint = await connect(client.config.enclave, on_endpoint=serve)
        return self

    @property
    def connected(self) -> Endpoint:
        assert self.endpoint is not None
        return self.endpoint

    async def log(self, *records: Any) -> None:
        """Write records, and wait until the client has them."""
        await self.connected.call(Channel.LOGS, Logs, "record", records)

    async def status(self) -> HostStatus:
        return HostStatus("ready", "", "simulated", "i-1-enc1", "test", bytes(48), 1, None, 1.0, 0, 0, 0, 0, 0, (), ())

    async def offer(self, settings: SettingsOffer) -> tuple[bytes, ...]:
        self.offers.append(settings)
        return self.store.offer(settings)

    async def chunk(self, data: bytes) -> None:
        self.refuse_chunk(len(self.chunks))
        self.store.chunk(data)
        self.chunks.append(len(data))

    async def activate(self) -> Activation:
        offer, bundles = self.store.assemble()
        self.store.keep(bundles)
        return Activation(bytes(48), len(self.offers), tuple(str(len(offer.bundles))), (), Attestation(b"", b""))

    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        if actor == "mute":
            await asyncio.Event().wait()
        return arguments

    async def attest(self, nonce: bytes) -> Attestation:
        return Attestation(b"document", nonce)

    async def event_log(self) -> tuple[bytes, ...]:
        return (b"entry",)

    async def shutdown(self, drain: float) -> None:
        self.shut_down.append(drain)
        asyncio.get_running_loop().call_later(0.05, self.connected.close)

    async def deliver(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        self.delivered.append((sender, actor, topic, body))
        self.news.set()

    async def answer(self, sender: str, actor: str, topic: str, body: bytes) -> bytes:
        if topic == "refuse":
            raise CallError(Code.DENIED, "not for you")
        return b"%s to %s" % (body, sender.encode())


@pytest.fixture
async def make_client(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[RuntimeClient]]]:
    """Starts runtime clients in folders of their own, and closes them."""
    made: list[RuntimeClient] = []

    async def make(name: str = "e1", *peers: str, folder: Path | None = None, **more: Any) -> RuntimeClient:
        config = unix_config(name, folder or tmp_path / name, {peer: tmp_path / peer for peer in peers})
        client = RuntimeClient(config, **more)
        made.append(client)
        await client.start()
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def make_host() -> AsyncIterator[Callable[..., Awaitable[FakeHost]]]:
    """Dials clients as their enclaves would, and hangs up."""
    made: list[FakeHost] = []

    async def make(client: RuntimeClient, **operations: Any) -> FakeHost:
        """`operations` answer in the place of the fake's own."""
        host = FakeHost()
        for name, operation in operations.items():
            setattr(host, name, operation)
        made.append(await host.dial(client))
        return host

    yield make
    for host in made:
        await host.connected.close()


@dataclass
class Ran:
    """What a command line came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Teactl:
    """`teactl`, in a working folder that is empty at first, with its state below."""

    folder: Path
    capture: Any
    lines: list[list[str]] = field(default_factory=list)

    def __call__(self, *arguments: object) -> Ran:
        line = [str(one) for one in arguments]
        self.lines.append(line)
        self.capture.readouterr()
        status = cli.run(line)
        out, err = self.capture.readouterr()
        # Whatever it is given: a sentence, never a traceback, and never the last net.
        assert "Traceback" not in out + err, err
        assert "defect of teactl" not in out + err, out + err
        assert status in (0, 1, 2)
        if "--json" in line and line[0] != "logs":
            assert json.loads(out).get("ok", status == 0) is (status == 0)
        return Ran(status, out, err)

    async def beside(self, *arguments: object) -> Ran:
        """Run it while the test's own loop goes on."""
        return await asyncio.to_thread(self, *arguments)

    def register(self, *clients: RuntimeClient, network: str = "default") -> None:
        """Write a network of these clients down, as `sim up` does."""
        entries = tuple(
            EnclaveEntry(one.config.name, str(one.config.folder), os.getpid(), None, f"i-{one.config.name}")
            for one in clients
        )
        Registry(self.folder / ".tea").write(NetworkEntry(network, "test", None, entries))


@pytest.fixture
def teactl(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Teactl:
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TEA_HOME", str(folder / ".tea"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return Teactl(folder, capsys)
