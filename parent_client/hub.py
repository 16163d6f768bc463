"""The hub: relays messages between enclaves through their parents. It carries; it does not vouch.

May not: be believed: what arrives is verified inside, whatever the relay says of its sender. May not let one peer that
is dead or slow hold up the others: a message that cannot leave at once is counted lost, a request waits in bounds.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from tea.protocol.channels import Channel, Peers, PeersInbox
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint
from tea.protocol.transport.settings import Settings

from .operator import PeerStatus

REACH_SECONDS: Final = 2.0
"""How long a request waits for a peer that is not connected now."""
MAX_WAITING: Final = 16
"""Requests that wait for one such peer at a time."""
MIN_REQUEST_SECONDS: Final = 0.01
MAX_REQUEST_SECONDS: Final = 30.0
RELAY: Final = Settings(grace=2.0, backoff_max=1.0)
"""Peers are dialled for as long as the client runs: one that comes back is reached within about a second."""


class Relay:
    """PEERS between two runtime clients: one hands the other what its enclave sent."""

    @operation
    async def forward(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        """A message for the other's enclave (told)."""
        raise NotImplementedError

    @operation
    async def ask(self, sender: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        """A request for the other's enclave."""
        raise NotImplementedError


class _Peer:
    """One other client, dialled until it answers, and again when it is lost."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.endpoint: Endpoint | None = None
        self.dialling: asyncio.Task[Endpoint] | None = None
        self.waiting = 0
        self.sent = 0
        self.lost = 0

    @property
    def connected(self) -> bool:
        return self.endpoint is not None and self.endpoint.opened.is_set()

    def dial(self) -> None:
        def made(endpoint: Endpoint) -> None:
            self.endpoint = endpoint

        self.dialling = asyncio.get_running_loop().create_task(
            connect(self.address, on_endpoint=made, settings=RELAY, reconnect=True, timeout=None)
        )

    async def reached(self, seconds: float) -> Endpoint:
        """The connection, waited for in bounds. Raises `CallError(UNAVAILABLE)`."""
        if self.endpoint is not None and not self.connected and self.waiting < MAX_WAITING:
            self.waiting += 1
            try:
                await asyncio.wait_for(self.endpoint.opened.wait(), min(seconds, REACH_SECONDS))
            except TimeoutError:
                pass
            finally:
                self.waiting -= 1
        if self.endpoint is None or not self.connected:
            self.lost += 1
            raise CallError(Code.UNAVAILABLE, f"the runtime client of {self.name} does not answer", peer=self.name)
        return self.endpoint

    async def close(self) -> None:
        if self.dialling is not None:
            self.dialling.cancel()
            await asyncio.gather(self.dialling, return_exceptions=True)
        if self.endpoint is not None:
            await self.endpoint.close()


class Hub(Peers, Relay):
    """Answers PEERS for the enclave, and `Relay` for other clients."""

    def __init__(self, name: str, addresses: Mapping[str, Address]) -> None:
        self._name = name
        self._peers = {peer: _Peer(peer, address) for peer, address in addresses.items() if peer != name}
        self._enclave: Endpoint | None = None
        self.unknown = 0
        """Messages of the enclave to a peer that this client does not know."""
        self.undelivered = 0
        """Messages of other clients that the enclave could not take: it is not connected, or too slow."""

    def start(self) -> None:
        """Begin to dial the other clients."""
        for peer in self._peers.values():
            peer.dial()

    def attach(self, enclave: Endpoint | None) -> None:
        """The enclave's connection; None when it has none."""
        self._enclave = enclave

    def status(self) -> tuple[PeerStatus, ...]:
        """How relaying goes, by peer."""
        return tuple(PeerStatus(peer.name, peer.connected, peer.sent, peer.lost) for peer in self._peers.values())

    # -- PEERS, from our enclave -------------------------------------------------------------------------------

    async def send(self, to: str, actor: str, topic: str, body: bytes) -> None:
        peer = self._peers.get(to)
        if peer is None:
            self.unknown += 1
        elif peer.endpoint is not None and peer.endpoint.tell(
            Channel.PEERS, Relay, "forward", self._name, actor, topic, body
        ):
            peer.sent += 1
        else:
            peer.lost += 1

    async def request(self, to: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        peer = self._peers.get(to)
        if peer is None:
            self.unknown += 1
            known = ", ".join(self._peers) or "none"
            raise CallError(Code.NOT_FOUND, f"no peer {to[:64]!r}: this client knows {known}")
        seconds = _bounded(timeout)
        endpoint = await peer.reached(seconds)
        peer.sent += 1
        answer: bytes = await endpoint.call(
            Channel.PEERS, Relay, "ask", self._name, actor, topic, body, seconds, timeout=seconds + 1
        )
        return answer

    # -- Relay, from other clients -----------------------------------------------------------------------------

    async def forward(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        enclave = self._enclave
        if enclave is None or not enclave.tell(Channel.PEERS, PeersInbox, "deliver", sender, actor, topic, body):
            self.undelivered += 1

    async def ask(self, sender: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        if self._enclave is None:
            raise CallError(Code.UNAVAILABLE, f"the enclave of {self._name} is not connected", peer=self._name)
        answer: bytes = await self._enclave.call(
            Channel.PEERS, PeersInbox, "answer", sender, actor, topic, body, timeout=_bounded(timeout)
        )
        return answer

    async def close(self) -> None:
        """Close the connections to other clients."""
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))


def _bounded(seconds: float) -> float:
    """Seconds as a peer or the enclave gave them, within bounds; NaN, which compares false, is the least."""
    return min(seconds, MAX_REQUEST_SECONDS) if seconds > MIN_REQUEST_SECONDS else MIN_REQUEST_SECONDS
