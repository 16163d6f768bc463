"""What other enclaves sent, as the parent hands it in: checked, bounded, passed to subscribed actors.

May not: believe the sender, wake an actor that did not subscribe, or queue without a bound.
Rule: docs/architecture.md, "Providers"; `tea.protocol.channels.PeersInbox` is the interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tea.protocol.channels import Facade, PeersInbox
from tea.protocol.errors import CallError, Code

from ..base import Services
from ..subscriptions import Subscriptions, require_size, require_topic

HOST: Final = "host"
HostHandler = Callable[[str, bytes], Awaitable[bytes]]
"""(the sender by the parents' word, body) -> answer. Raises `CallError`."""


class Inbox(PeersInbox):
    """Serves PEERS. Everything here comes from the untrusted parent."""

    def __init__(
        self,
        services: Services,
        subscriptions: Subscriptions,
        max_body: int,
        max_answers: int,
        answer_seconds: float,
    ) -> None:
        self._services = services
        self._subscriptions = subscriptions
        self._max_body = max_body
        self._max_answers = max_answers
        self._answer_seconds = answer_seconds
        self._answering: Counter[str] = Counter()
        """Requests that wait, by actor: one that answers nobody takes no other's room."""
        self._delivered = 0
        self._answered = 0
        self._dead = 0
        self._refused = 0
        self._host: dict[str, HostHandler] = {}

    def rebound(self, max_body: int, max_answers: int, answer_seconds: float) -> None:
        """Go on within other bounds; what waits is not touched."""
        self._max_body = max_body
        self._max_answers = max_answers
        self._answer_seconds = answer_seconds

    def serve_host(self, topic: str, handler: HostHandler) -> None:
        """Let the host itself answer requests for `host` on a topic: no actor can have that name."""
        self._host[require_topic(topic)] = handler

    def figures(self) -> dict[str, int]:
        """Counts since the host started."""
        return {
            "delivered": self._delivered,
            "answered": self._answered,
            "answering": self._answering.total(),
            "dead_letters": self._dead,
            "refused": self._refused,
        }

    async def deliver(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        """Tell the next replica of a subscribed actor; what nobody takes is a dead letter, counted."""
        self._require_message(sender, topic, body)
        for one in self._subscriptions.in_turn(topic, actor):
            if self._services.tell_actor(actor, one.operation, sender, topic, body, replica=one.replica):
                self._delivered += 1
                return
        self._dead += 1

    async def answer(self, sender: str, actor: str, topic: str, body: bytes) -> bytes:
        """Ask a subscribed actor, or the host. NOT_FOUND when it is not subscribed, EXHAUSTED when too many wait."""
        if actor == HOST:
            return await self._answer_as_host(sender, topic, body)
        self._require_message(sender, topic, body)
        one = next(self._subscriptions.in_turn(topic, actor), None)
        if one is None:
            self._dead += 1
            raise CallError(Code.NOT_FOUND, "no such actor is subscribed to this topic here")
        self._begin(actor)
        try:
            result = await self._services.call_actor(
                actor, one.operation, sender, topic, body, timeout=self._answer_seconds
            )
        except TimeoutError:
            raise CallError(Code.DEADLINE, f"{actor} took longer than {self._answer_seconds:g} seconds") from None
        finally:
            self._end(actor)
        try:
            answer = msgspec.msgpack.decode(result, type=bytes)
        except msgspec.DecodeError:
            self._services.log("error", "an answer to another enclave must be bytes", actor=actor, topic=topic)
            raise CallError(Code.INTERNAL, "the actor answered something else than bytes") from None
        if len(answer) > self._max_body:
            limit = self._max_body
            self._services.log("error", "an answer to another enclave is too large", actor=actor, limit=limit)
            raise CallError(Code.INTERNAL, f"the actor answered more than {limit} bytes", limit=limit)
        self._answered += 1
        return answer

    async def _answer_as_host(self, sender: str, topic: str, body: bytes) -> bytes:
        # The sender may be a new enclave of this very slot: a name is no proof anyway, its attestation is.
        handler = self._host.get(topic)
        if handler is None:
            self._dead += 1
            raise CallError(Code.NOT_FOUND, "the host answers nothing on this topic here")
        require_size("the message", body, self._max_body)
        self._begin(HOST)
        try:
            answer = await handler(sender, body)
        finally:
            self._end(HOST)
        self._answered += 1
        return answer

    def _begin(self, actor: str) -> None:
        if self._answering[actor] >= self._max_answers:
            self._refused += 1
            raise CallError(Code.EXHAUSTED, "too many requests of other enclaves wait here", limit=self._max_answers)
        self._answering[actor] += 1

    def _end(self, actor: str) -> None:
        self._answering[actor] -= 1
        if not self._answering[actor]:
            del self._answering[actor]

    def _require_message(self, sender: str, topic: str, body: bytes) -> None:
        try:
            require_topic(topic)
            require_size("the message", body, self._max_body)
            # A hint only, but a name that no slot has would mislead whoever reads a log.
            if sender not in self._services.members or sender == self._services.own_slot:
                raise CallError(Code.INVALID, "the sender is no other slot of this deployment")
        except CallError:
            self._refused += 1
            raise


class NoFacade(Facade):
    """Serves FACADE until there is one."""

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """UNAVAILABLE, always."""
        raise CallError(Code.UNAVAILABLE, "this enclave serves no HTTP yet")
