"""The intercom provider: publish and subscribe between actors of one enclave, topics granted by the manifest.

May not: keep a message (what cannot be delivered now is a dead letter, counted), or show a topic to who has no grant.
Calls from actor to actor need no provider: they go by link. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, ClassVar

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import Call, Config, Provider
from ..subscriptions import Subscription, Subscriptions, require_operation, require_size, require_topic

_KEPT_LETTERS = 64


class TopicConfig(Config, frozen=True):
    """Who may do what with one topic: names of actors. Nobody by default."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


class IntercomConfig(Config, frozen=True):
    """The topics of the deployment, and bounds."""

    topics: dict[str, TopicConfig] = {}
    max_body: Annotated[int, msgspec.Meta(ge=1, le=1 << 19)] = 256 * 1024
    """Bytes of a message."""
    subscriptions: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    """Topics that each replica may be subscribed to."""

    def __post_init__(self) -> None:
        for topic in self.topics:
            try:
                require_topic(topic)
            except CallError as error:
                raise ValueError(f"topics: {topic[:64]!r}: {error.sentence}") from None


class Topic(msgspec.Struct, frozen=True):
    """A topic as an actor with a grant sees it."""

    name: str
    publish: bool
    subscribe: bool
    subscribers: int
    """Actors (not replicas) that are subscribed now."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that nobody took. Its body is gone."""

    topic: str
    publisher: str
    subscriber: str | None
    """The actor that did not take it; None when nobody was subscribed."""
    size: int
    at: float
    """Seconds since the epoch."""


class DeadLetters(msgspec.Struct, frozen=True):
    """How many messages nobody took, of the topics that the caller has a grant for; and the latest of them."""

    count: int
    latest: tuple[DeadLetter, ...]


class Intercom(Provider[IntercomConfig]):
    """Topics between actors. A message reaches each subscribed actor at most once a replica."""

    name: ClassVar[str] = "intercom"
    config_type: ClassVar[type[Config]] = IntercomConfig

    def __init__(self, config: IntercomConfig) -> None:
        super().__init__(config)
        self._subscriptions = Subscriptions(config.subscriptions)
        self._published = 0
        self._delivered = 0
        self._dead: dict[str, int] = {}
        self._letters: deque[DeadLetter] = deque(maxlen=_KEPT_LETTERS)

    async def forget(self, actor: str) -> None:
        self._subscriptions.drop_actor(actor)

    async def replica_gone(self, actor: str, replica: int) -> None:
        self._subscriptions.drop_replica(actor, replica)

    def usage(self) -> dict[str, int]:
        return {
            "subscriptions": len(self._subscriptions),
            "published": self._published,
            "delivered": self._delivered,
            "dead_letters": sum(self._dead.values()),
        }

    @operation
    async def publish(self, call: Call, topic: str, body: bytes) -> int:
        """Publish a message of at most `max_body` bytes (256 KiB); answers how many actors it was delivered to.

        Delivered means put into a replica's mailbox. Where no replica of a subscribed actor had room, and where nobody
        is subscribed, it is a dead letter. DENIED without a grant to publish to this topic, INVALID over the limit.
        """
        self._require_grant(call.caller, topic, "publish")
        require_size("the message", body, self.config.max_body)
        self._published += 1
        actors = self._subscriptions.actors(topic)
        if not actors:
            self._bury(call.caller, topic, None, body)
        reached = 0
        for actor in actors:
            if self._deliver(topic, actor, body):
                reached += 1
            else:
                self._bury(call.caller, topic, actor, body)
        self._delivered += reached
        return reached

    @operation
    async def subscribe(self, call: Call, topic: str, operation: str, each: bool = False) -> None:
        """Have the own `operation(topic: str, body: bytes)` told what is published on a topic.

        The replicas of an actor that subscribe share the messages in turn; with `each` the replica gets every message.
        A second subscription to the topic replaces the first; it ends with the replica. DENIED without a grant,
        INVALID on a bad name, EXHAUSTED beyond the bound of subscriptions.
        """
        self._require_grant(call.caller, topic, "subscribe")
        self._subscriptions.add(topic, Subscription(call.caller, call.replica, require_operation(operation), each))

    @operation
    async def unsubscribe(self, call: Call, topic: str) -> bool:
        """End the replica's subscription; False when there was none."""
        return self._subscriptions.remove(require_topic(topic), call.caller, call.replica)

    @operation
    async def topics(self, call: Call) -> list[Topic]:
        """The topics for which the caller has a grant, by name."""
        return [
            Topic(
                name,
                call.caller in grants.publish,
                call.caller in grants.subscribe,
                len(self._subscriptions.actors(name)),
            )
            for name, grants in sorted(self.config.topics.items())
            if call.caller in grants.publish or call.caller in grants.subscribe
        ]

    @operation
    async def dead_letters(self, call: Call) -> DeadLetters:
        """Figures of messages that nobody took, of the caller's topics; the latest 64 of all topics are kept."""
        mine = {topic.name for topic in await self.topics(call)}
        count = sum(number for topic, number in self._dead.items() if topic in mine)
        return DeadLetters(count, tuple(letter for letter in self._letters if letter.topic in mine))

    def _require_grant(self, actor: str, topic: str, right: str) -> None:
        grants = self.config.topics.get(require_topic(topic))
        granted = () if grants is None else grants.publish if right == "publish" else grants.subscribe
        # One sentence for a topic that is not there and for one that is not granted: names are not to be probed.
        if actor not in granted:
            raise CallError(
                Code.DENIED,
                f"{actor} may not {right} here: grant it under providers.intercom.topics.{topic}.{right}",
                topic=topic,
            )

    def _deliver(self, topic: str, actor: str, body: bytes) -> bool:
        reached = False
        for one in self._subscriptions.each(topic, actor):
            reached = self._tell(one, topic, body) or reached
        # A replica with a full mailbox passes its turn to the next.
        return any(self._tell(one, topic, body) for one in self._subscriptions.in_turn(topic, actor)) or reached

    def _tell(self, one: Subscription, topic: str, body: bytes) -> bool:
        return self.services.tell_actor(one.actor, one.operation, topic, body, replica=one.replica)

    def _bury(self, publisher: str, topic: str, subscriber: str | None, body: bytes) -> None:
        self._dead[topic] = self._dead.get(topic, 0) + 1
        self._letters.append(DeadLetter(topic, publisher, subscriber, len(body), self.services.now()))
