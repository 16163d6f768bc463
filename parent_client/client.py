"""The runtime client: one process on the parent for one enclave. It carries settings in, chain state in, messages
across and logs out; nothing that it says is believed inside without proof.

May not: import the host. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tea.protocol.channels import (
    Activation,
    Adapter,
    AdapterFeed,
    Attestation,
    Channel,
    Control,
    Head,
    HostStatus,
    Logs,
    Peers,
)
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.endpoint import Endpoint
from tea.protocol.transport.server import Server, listen

from .hub import Hub, Relay
from .log_book import LogBook
from .operator import ClientStatus, LogPage, Operator, Push
from .pushing import push
from .registry import socket_folder

STATUS_SECONDS: Final = 5.0
CALL_SECONDS: Final = 35.0


@dataclass(frozen=True)
class ClientConfig:
    """Where one runtime client listens and what it feeds its enclave with."""

    name: str
    folder: Path
    """State: log.jsonl, and the sockets unless addresses say otherwise."""
    enclave: Address
    """Where the enclave dials in."""
    operator: Address
    relay: Address
    """Where other runtime clients dial in."""
    peers: Mapping[str, Address] = field(default_factory=dict)
    """Other enclaves' names to their clients' relay addresses."""
    chain: str | None = None
    """What the adapter follows, for status."""


def unix_config(
    name: str, folder: Path, peers: Mapping[str, Path] | None = None, chain: str | None = None
) -> ClientConfig:
    """A configuration with all sockets in one folder; `peers` are the other clients' folders."""

    def at(where: Path, file: str) -> Address:
        sockets = socket_folder(where)
        sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Address.parse(f"unix:{sockets / file}")

    return ClientConfig(
        name=name,
        folder=folder,
        enclave=at(folder, "enclave.sock"),
        operator=at(folder, "operator.sock"),
        relay=at(folder, "peer.sock"),
        peers={peer: at(path, "peer.sock") for peer, path in (peers or {}).items()},
        chain=chain,
    )


class RuntimeClient(Operator):
    """One enclave's runtime client. `adapter` answers ADAPTER; None: the enclave gets no chain state."""

    def __init__(self, config: ClientConfig, adapter: Adapter | None = None) -> None:
        self.config = config
        self._adapter = adapter
        self._hub = Hub(config.name, config.peers)
        self._logs = LogBook(config.folder / "log.jsonl")
        self._enclave: Endpoint | None = None
        self._servers: list[Server] = []
        self._height: int | None = None
        self._pushed = (0, 0.0)
        self._stopped = asyncio.Event()

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for the enclave, the operator and other clients."""
        self._servers = [
            await listen(self.config.enclave, self._enclave_came, exclusive=True),
            await listen(self.config.operator, self._operator_came),
            await listen(self.config.relay, self._relay_came),
        ]

    async def run(self) -> None:
        """Serve until `stop`."""
        await self.start()
        try:
            await self._stopped.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        for server in self._servers:
            await server.close()
        await self._hub.close()
        if self._enclave is not None:
            await self._enclave.close()
        self._logs.close()

    def request_stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _enclave_came(self, endpoint: Endpoint) -> None:
        # One enclave a client: the listener is exclusive, so a new one has replaced the one before.
        self._enclave = endpoint
        endpoint.serve(Channel.LOGS, Logs, self._logs)
        endpoint.serve(Channel.PEERS, Peers, self._hub)
        if self._adapter is not None:
            endpoint.serve(Channel.ADAPTER, Adapter, self._adapter)
        self._hub.attach(endpoint)

    def _operator_came(self, endpoint: Endpoint) -> None:
        endpoint.serve(Channel.OPERATOR, Operator, self)

    def _relay_came(self, endpoint: Endpoint) -> None:
        endpoint.serve(Channel.PEERS, Relay, self._hub)

    def finalized(self, head: Head) -> None:
        """The adapter saw a new finalized head: tell the enclave."""
        self._height = head.height
        if self._enclave is not None and not self._enclave.closed.is_set():
            try:
                self._enclave.tell(Channel.ADAPTER, AdapterFeed, "finalized", head)
            except CallError:
                pass  # the enclave polls as well; a push that does not fit is not worth a queue

    # -- OPERATOR ----------------------------------------------------------------------------------------------

    async def status(self) -> ClientStatus:
        enclave: HostStatus | None = None
        problem: str | None = None
        try:
            enclave = await self._connected().call(Channel.CONTROL, Control, "status", timeout=STATUS_SECONDS)
        except CallError as error:
            problem = str(error)
        return ClientStatus(
            name=self.config.name,
            pid=os.getpid(),
            connected=enclave is not None,
            enclave=enclave,
            problem=problem,
            chain=self.config.chain,
            height=self._height,
            peers=self._hub.status(),
            pushed_bytes=self._pushed[0],
            pushed_seconds=self._pushed[1],
        )

    async def push(self, settings: Push) -> Activation:
        pushed = await push(
            self._connected(),
            settings.manifest,
            settings.approver_changes,
            settings.environment,
            [Path(path) for path in settings.bundles],
        )
        self._pushed = (pushed.sent_bytes, pushed.seconds)
        return pushed.activation

    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        result: bytes = await self._connected().call(
            Channel.CONTROL, Control, "call", actor, operation, arguments, timeout=CALL_SECONDS
        )
        return result

    async def attest(self, nonce: bytes) -> Attestation:
        attestation: Attestation = await self._connected().call(Channel.CONTROL, Control, "attest", nonce)
        return attestation

    async def event_log(self) -> tuple[bytes, ...]:
        entries: tuple[bytes, ...] = await self._connected().call(Channel.CONTROL, Control, "event_log")
        return entries

    async def logs(self, start: int, wait: float) -> LogPage:
        return await self._logs.page(start, wait)

    async def stop(self, drain: float) -> None:
        if self._enclave is not None and not self._enclave.closed.is_set():
            try:
                await self._enclave.call(Channel.CONTROL, Control, "shutdown", drain, timeout=STATUS_SECONDS)
            except CallError:
                pass  # it is gone or going: what was asked for
        asyncio.get_running_loop().call_later(0.1, self.request_stop)

    def _connected(self) -> Endpoint:
        if self._enclave is None or self._enclave.closed.is_set():
            raise CallError(
                Code.UNAVAILABLE,
                f"the enclave of {self.config.name} is not connected: start it, or look at its console",
                enclave=self.config.name,
            )
        return self._enclave
