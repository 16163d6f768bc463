"""The hub: relays messages between enclaves through their parents. It carries; it does not vouch.

May not: be believed: what arrives is verified inside, whatever the relay says of its sender.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tea.protocol.channels import Channel, Peers, PeersInbox
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint

from .operator import PeerStatus

CONNECT_SECONDS: Final = 5.0
MAX_REQUEST_SECONDS: Final = 30.0


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


@dataclass
class _Peer:
    address: Address
    endpoint: Endpoint | None = None
    connecting: asyncio.Task[Endpoint] | None = None
    sent: int = 0
    lost: int = 0


class Hub(Peers, Relay):
    """Answers PEERS for the enclave, and `Relay` for other clients."""

    def __init__(self, name: str, addresses: Mapping[str, Address]) -> None:
        self._name = name
        self._peers = {peer: _Peer(address) for peer, address in addresses.items() if peer != name}
        self._enclave: Endpoint | None = None

    def attach(self, enclave: Endpoint | None) -> None:
        """The enclave's connection; None when it has none."""
        self._enclave = enclave

    def status(self) -> tuple[PeerStatus, ...]:
        """How relaying goes, by peer."""
        return tuple(
            PeerStatus(name, _is_open(peer.endpoint), peer.sent, peer.lost) for name, peer in self._peers.items()
        )

    # -- PEERS, from our enclave -------------------------------------------------------------------------------

    async def send(self, to: str, actor: str, topic: str, body: bytes) -> None:
        peer = self._peers.get(to)
        if peer is None:
            return
        try:
            endpoint = await self._reach(peer)
            endpoint.tell(Channel.PEERS, Relay, "forward", self._name, actor, topic, body)
            peer.sent += 1
        except (CallError, OSError, TimeoutError):
            peer.lost += 1

    async def request(self, to: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        peer = self._peers.get(to)
        if peer is None:
            raise CallError(Code.NOT_FOUND, f"no peer {to}: this client knows {', '.join(self._peers) or 'none'}")
        seconds = _bounded(timeout)
        try:
            endpoint = await self._reach(peer)
        except (OSError, TimeoutError):
            peer.lost += 1
            raise CallError(Code.UNAVAILABLE, f"the runtime client of {to} does not answer") from None
        peer.sent += 1
        answer: bytes = await endpoint.call(
            Channel.PEERS, Relay, "ask", self._name, actor, topic, body, seconds, timeout=seconds + 1
        )
        return answer

    async def _reach(self, peer: _Peer) -> Endpoint:
        if peer.endpoint is not None and _is_open(peer.endpoint):
            return peer.endpoint
        if peer.connecting is None or peer.connecting.done():
            peer.connecting = asyncio.get_running_loop().create_task(connect(peer.address, timeout=CONNECT_SECONDS))
        peer.endpoint = await asyncio.shield(peer.connecting)
        return peer.endpoint

    # -- Relay, from other clients -----------------------------------------------------------------------------

    async def forward(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        if self._enclave is not None:
            self._enclave.tell(Channel.PEERS, PeersInbox, "deliver", sender, actor, topic, body)

    async def ask(self, sender: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        if self._enclave is None:
            raise CallError(Code.UNAVAILABLE, f"the enclave of {self._name} is not connected")
        answer: bytes = await self._enclave.call(
            Channel.PEERS, PeersInbox, "answer", sender, actor, topic, body, timeout=_bounded(timeout)
        )
        return answer

    async def close(self) -> None:
        """Close the connections to other clients."""
        for peer in self._peers.values():
            if peer.connecting is not None:
                peer.connecting.cancel()
            if peer.endpoint is not None:
                await peer.endpoint.close()


def _is_open(endpoint: Endpoint | None) -> bool:
    return endpoint is not None and not endpoint.closed.is_set()


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.01), MAX_REQUEST_SECONDS)
