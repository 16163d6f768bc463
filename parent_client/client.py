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
from typing import Any, Final

from tea.protocol.channels import (
    Activation,
    Adapter,
    AdapterFeed,
    Attestation,
    BackupMade,
    Channel,
    Control,
    Head,
    HostStatus,
    Logs,
    Peers,
    Release,
    RunningManifest,
    Takeover,
)
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.endpoint import Endpoint
from tea.protocol.transport.server import Server, listen

from .files import private_folder
from .hub import Hub, Relay
from .log_book import LogBook
from .operator import BACKUP_SECONDS, TAKEOVER_SECONDS, TICKET_SECONDS, ClientStatus, LogPage, Operator, Push
from .pushing import push
from .registry import OPERATOR_SOCKET, socket_folder
from .release_relay import NoRelease

STATUS_SECONDS: Final = 5.0
CALL_SECONDS: Final = 35.0
"""A little more than the host gives an actor, so that its answer, not ours, says what was late."""
MAX_DRAIN: Final = 60.0
STOP_SECONDS: Final = 10.0
"""For the enclave to end after its drain."""
ANSWER_SECONDS: Final = 0.1
"""For the answer to whoever asked for the end to leave."""


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
    """A configuration with all sockets in one folder, made when it is missing; `peers` are the other clients' folders.

    Raises `PermissionError` when others can write to the folder.
    """

    def at(where: Path, file: str) -> Address:
        return Address.parse(f"unix:{socket_folder(where) / file}")

    return ClientConfig(
        name=name,
        folder=private_folder(folder.absolute()),
        enclave=at(folder, "enclave.sock"),
        operator=at(folder, OPERATOR_SOCKET),
        relay=at(folder, "peer.sock"),
        peers={peer: at(path, "peer.sock") for peer, path in (peers or {}).items()},
        chain=chain,
    )


class RuntimeClient(Operator):
    """One enclave's runtime client. `adapter` answers ADAPTER; None: the enclave gets no chain state."""

    def __init__(self, config: ClientConfig, adapter: Adapter | None = None, release: Release | None = None) -> None:
        self.config = config
        self._adapter = adapter
        self._release = release or NoRelease()
        self._hub = Hub(config.name, config.peers)
        self._logs = LogBook(config.folder / "log.jsonl")
        self._enclave: Endpoint | None = None
        self._connections = 0
        self._servers: list[Server] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._height: int | None = None
        self._pushing = asyncio.Lock()
        self._pushed = (0, 0.0)
        self._stopped = asyncio.Event()

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for the enclave, the operator and other clients, and dial these. Raises `OSError`."""
        try:
            # The operator's socket first: a second client of the same folder ends here, before it takes the enclave.
            self._servers.append(await listen(self.config.operator, self._operator_came))
            self._servers.append(await listen(self.config.relay, self._relay_came))
            self._servers.append(await listen(self.config.enclave, self._enclave_came, exclusive=True))
        except BaseException:
            await self.close()
            raise
        self._hub.start()

    async def run(self) -> None:
        """Serve until `stop`."""
        await self.start()
        try:
            await self._stopped.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        await asyncio.gather(*(server.close() for server in self._servers))
        await self._hub.close()
        if self._watching:
            await asyncio.wait(self._watching)
        self._logs.close()

    def request_stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _enclave_came(self, endpoint: Endpoint) -> None:
        # One enclave a client: the listener is exclusive, so a new one has replaced the one before.
        self._enclave = endpoint
        self._connections += 1
        endpoint.serve(Channel.LOGS, Logs, self._logs)
        endpoint.serve(Channel.PEERS, Peers, self._hub)
        endpoint.serve(Channel.RELEASE, Release, self._release)
        if self._adapter is not None:
            endpoint.serve(Channel.ADAPTER, Adapter, self._adapter)
        self._hub.attach(endpoint)
        task = asyncio.get_running_loop().create_task(self._watch(endpoint))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _watch(self, endpoint: Endpoint) -> None:
        self._logs.note("info", "the enclave has connected")
        await endpoint.closed.wait()
        why = "" if endpoint.reason is None else f": {endpoint.reason.sentence}"
        self._logs.note("warning", f"the enclave is gone{why}")
        if self._enclave is endpoint:
            self._enclave = None
            self._hub.attach(None)

    def _operator_came(self, endpoint: Endpoint) -> None:
        endpoint.serve(Channel.OPERATOR, Operator, self)

    def _relay_came(self, endpoint: Endpoint) -> None:
        endpoint.serve(Channel.PEERS, Relay, self._hub)

    def finalized(self, head: Head) -> None:
        """The adapter saw a new finalized head: tell the enclave."""
        self._height = head.height
        if self._enclave is not None:
            # Not waited for: the enclave polls as well, and a head that does not fit is not worth a queue.
            self._enclave.tell(Channel.ADAPTER, AdapterFeed, "finalized", head)

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
            connections=self._connections,
            unknown_peer=self._hub.unknown,
            undelivered=self._hub.undelivered,
            log_lost=self._logs.lost,
        )

    async def push(self, settings: Push) -> Activation:
        paths = [Path(path) for path in settings.bundles]
        for path in paths:
            if not path.is_absolute():
                raise CallError(Code.INVALID, f"the bundle's path {path} is relative, expected an absolute one")
        if self._pushing.locked():
            raise CallError(Code.CONFLICT, "another push to this enclave is under way: wait for it")
        async with self._pushing:
            pushed = await push(
                self._connected(),
                settings.manifest,
                settings.approver_changes,
                settings.environment,
                paths,
                standby=settings.standby,
            )
        self._pushed = (pushed.sent_bytes, pushed.seconds)
        return pushed.activation

    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        result: bytes = await self._connected().call(
            Channel.CONTROL, Control, "call", actor, operation, arguments, timeout=CALL_SECONDS
        )
        return result

    async def take_over(self, source: str, copy: bool = False) -> Takeover:
        taken: Takeover = await self._control("take_over", source, copy, timeout=TAKEOVER_SECONDS)
        return taken

    async def running_manifest(self, nonce: bytes) -> RunningManifest:
        running: RunningManifest = await self._control("running_manifest", nonce)
        return running

    async def tenancy(self, nonce: bytes) -> Attestation:
        attestation: Attestation = await self._control("tenancy", nonce)
        return attestation

    async def present(self, ticket: bytes) -> Takeover:
        taken: Takeover = await self._control("present", ticket, timeout=TICKET_SECONDS)
        return taken

    async def backup(self) -> BackupMade:
        made: BackupMade = await self._control("backup", timeout=BACKUP_SECONDS)
        return made

    async def backup_piece(self, digest: bytes, index: int) -> bytes:
        piece: bytes = await self._control("backup_piece", digest, index)
        return piece

    async def restore_offer(self, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        await self._control("restore_offer", ticket, shares, size)

    async def restore_piece(self, index: int, data: bytes) -> None:
        await self._control("restore_piece", index, data)

    async def restore(self) -> Takeover:
        taken: Takeover = await self._control("restore", timeout=BACKUP_SECONDS)
        return taken

    async def attest(self, nonce: bytes) -> Attestation:
        attestation: Attestation = await self._connected().call(Channel.CONTROL, Control, "attest", nonce)
        return attestation

    async def event_log(self) -> tuple[bytes, ...]:
        entries: tuple[bytes, ...] = await self._connected().call(Channel.CONTROL, Control, "event_log")
        return entries

    async def logs(self, start: int, wait: float) -> LogPage:
        return await self._logs.page(start, wait)

    async def stop(self, drain: float) -> None:
        if not 0 <= drain <= MAX_DRAIN:
            raise CallError(Code.INVALID, f"a drain takes 0 to {MAX_DRAIN:g} seconds, not {drain:g}")
        try:
            enclave = self._enclave
            if enclave is not None:
                await enclave.call(Channel.CONTROL, Control, "shutdown", drain, timeout=STATUS_SECONDS)
                # The actors that drain still need their parent: it goes last.
                await asyncio.wait_for(enclave.closed.wait(), drain + STOP_SECONDS)
        except (CallError, TimeoutError):
            pass  # it is gone or going: what was asked for
        finally:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self.request_stop)

    async def _control(self, name: str, *args: object, timeout: float = 60.0) -> Any:
        return await self._connected().call(Channel.CONTROL, Control, name, *args, timeout=timeout)

    def _connected(self) -> Endpoint:
        if self._enclave is None:
            raise CallError(
                Code.UNAVAILABLE,
                f"the enclave of {self.config.name} is not connected: start it, or look at its console",
                enclave=self.config.name,
            )
        return self._enclave
