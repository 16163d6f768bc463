"""The vmh provider: tell, publish and request towards the same actor in other enclaves, through the parents.

May not: reach another actor's name, believe what the parents say of a sender, or hold more than its bounds whatever
comes in. Messages are neither secret nor authentic: actors attest and seal what must be.
Rule: docs/architecture.md, "Providers" and "The wire".
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.channels import Channel, Facade, PeersInbox
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import Call, Config, Provider, Services
from ..subscriptions import Subscription, Subscriptions, require_operation, require_size, require_topic
from .inbox import HostHandler, Inbox, NoFacade

MAX_TIMEOUT: Final = 120.0
"""Seconds that a request may wait."""


class VmhConfig(Config, frozen=True):
    """Bounds."""

    max_body: Annotated[int, msgspec.Meta(ge=1, le=900_000)] = 512 * 1024
    """Bytes of a message and of an answer, out and in."""
    subscriptions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    """Topics that each replica may be subscribed to."""
    requests: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    """Requests of one actor that may wait for an answer at a time."""
    answers: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    """Requests of other enclaves that may wait for each of this one's actors, and for the host, at a time."""
    answer_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 30.0
    """Seconds that an actor has for another enclave's request."""


class Vmh(Provider[VmhConfig]):
    """Messages between enclaves, named by their slots. `sender` is the parents' word: a hint, no proof."""

    name: ClassVar[str] = "vmh"
    config_type: ClassVar[type[Config]] = VmhConfig
    in_place: ClassVar[frozenset[str]] = frozenset(VmhConfig.__struct_fields__)

    def __init__(self, config: VmhConfig) -> None:
        super().__init__(config)
        self._subscriptions = Subscriptions(config.subscriptions)
        self._inbox: Inbox | None = None
        self._waiting: dict[str, int] = {}
        self._sent = 0

    async def start(self, services: Services) -> None:
        await super().start(services)
        config = self.config
        self._inbox = Inbox(services, self._subscriptions, config.max_body, config.answers, config.answer_seconds)
        services.parent.serve(Channel.PEERS, PeersInbox, self._inbox)
        services.parent.serve(Channel.FACADE, Facade, NoFacade())

    def serve_host(self, topic: str, handler: HostHandler) -> None:
        """Answer other enclaves' requests for the host itself on a topic; for the host alone, after `start`."""
        if self._inbox is None:
            raise RuntimeError("vmh is not started yet")
        self._inbox.serve_host(topic, handler)

    def reconfigure(self, config: VmhConfig) -> None:
        super().reconfigure(config)
        self._subscriptions.rebound(config.subscriptions)
        if self._inbox is not None:
            self._inbox.rebound(config.max_body, config.answers, config.answer_seconds)

    async def forget(self, actor: str) -> None:
        self._subscriptions.drop_actor(actor)

    async def replica_gone(self, actor: str, replica: int) -> None:
        self._subscriptions.drop_replica(actor, replica)

    def usage(self) -> dict[str, int]:
        figures = {
            "subscriptions": len(self._subscriptions),
            "sent": self._sent,
            "requests_waiting": sum(self._waiting.values()),
        }
        return figures if self._inbox is None else {**figures, **self._inbox.figures()}

    @operation
    async def members(self, call: Call) -> list[str]:
        """The slots of the deployment, sorted, this enclave's included; silent ones too."""
        return sorted(self.services.members)

    @operation
    async def own_slot(self, call: Call) -> str | None:
        """The slot that this enclave fills, or None."""
        return self.services.own_slot

    @operation
    async def tell(self, call: Call, peer: str, topic: str, body: bytes) -> None:
        """Send a message of at most 512 KiB to the same actor in the enclave of slot `peer`; may get lost silently.

        NOT_FOUND for no slot of the deployment, INVALID for the own slot, a bad topic or a body over the limit,
        UNAVAILABLE when this enclave fills no slot.
        """
        self._require_message(topic, body)
        self._require_peer(peer)
        self._send(peer, call.caller, topic, body)

    @operation
    async def publish(self, call: Call, topic: str, body: bytes) -> int:
        """`tell` to every other slot; answers how many messages were sent off (not: arrived)."""
        self._require_message(topic, body)
        own = self._require_own_slot()
        others = [peer for peer in sorted(self.services.members) if peer != own]
        for peer in others:
            self._send(peer, call.caller, topic, body)
        return len(others)

    @operation
    async def request(self, call: Call, peer: str, topic: str, body: bytes, timeout: float = 10.0) -> bytes:
        """Ask the same actor in the enclave of slot `peer`; its subscribed operation's answer, at most 512 KiB.

        `timeout` is over 0 and at most 120 seconds. As `tell` refuses; NOT_FOUND too when nobody there is subscribed;
        UNAVAILABLE or DEADLINE when no answer comes; EXHAUSTED when 64 requests of this actor wait already.
        """
        self._require_message(topic, body)
        self._require_peer(peer)
        if not (math.isfinite(timeout) and 0 < timeout <= MAX_TIMEOUT):
            raise CallError(Code.INVALID, f"a timeout is over 0 and at most {MAX_TIMEOUT:g} seconds, not {timeout:g}")
        if call.deadline is not None:
            timeout = min(timeout, max(call.deadline, 0.001))
        waiting = self._waiting.get(call.caller, 0)
        if waiting >= self.config.requests:
            limit = self.config.requests
            raise CallError(Code.EXHAUSTED, f"{limit} requests of {call.caller} wait already", limit=limit)
        self._waiting[call.caller] = waiting + 1
        try:
            answer = await self.services.parent.call(
                Channel.PEERS, "request", peer, call.caller, topic, body, timeout, timeout=timeout
            )
        except TimeoutError:
            raise CallError(Code.DEADLINE, f"{peer} gave no answer in {timeout:g} seconds") from None
        finally:
            self._waiting[call.caller] -= 1
            if not self._waiting[call.caller]:
                del self._waiting[call.caller]
        if not isinstance(answer, bytes) or len(answer) > self.config.max_body:
            limit = self.config.max_body
            raise CallError(Code.UNAVAILABLE, f"the answer relayed from {peer} is over {limit} bytes", limit=limit)
        self._sent += 1
        return answer

    @operation
    async def subscribe(self, call: Call, topic: str, operation: str) -> None:
        """Have the own `operation(sender: str, topic: str, body: bytes)` told, or asked, what others send on a topic.

        For a request it answers bytes. Replicas that subscribe share messages in turn. `sender` is a slot as the
        parents give it: a hint, no proof. A second subscription to the topic replaces the first; it ends with the
        replica. INVALID on a bad name, EXHAUSTED beyond 32 topics a replica.
        """
        subscription = Subscription(call.caller, call.replica, require_operation(operation), each=False)
        self._subscriptions.add(require_topic(topic), subscription)

    @operation
    async def unsubscribe(self, call: Call, topic: str) -> bool:
        """End the replica's subscription to a topic; False when there was none."""
        return self._subscriptions.remove(require_topic(topic), call.caller, call.replica)

    def _send(self, peer: str, actor: str, topic: str, body: bytes) -> None:
        self.services.parent.tell(Channel.PEERS, "send", peer, actor, topic, body)
        self._sent += 1

    def _require_message(self, topic: str, body: bytes) -> None:
        require_topic(topic)
        require_size("the message", body, self.config.max_body)

    def _require_own_slot(self) -> str:
        own = self.services.own_slot
        if own is None:
            raise CallError(
                Code.UNAVAILABLE, "this enclave fills no slot of ra.members in the manifest, so no peer would hear it"
            )
        return own

    def _require_peer(self, peer: str) -> None:
        own = self._require_own_slot()
        if peer not in self.services.members:
            raise CallError(Code.NOT_FOUND, f"the manifest's ra.members has no slot {peer[:64]!r}")
        if peer == own:
            raise CallError(Code.INVALID, f"{own} is this enclave itself: a peer is another slot")
