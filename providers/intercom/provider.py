"""The intercom provider: topics between actors of one enclave, and requests to any or all replicas of an actor.

May not: keep a message (what cannot be delivered now is a dead letter, counted) but the last one of a topic whose
configuration says `retain`; show a topic to who has no grant; lend an actor a right that its own links do not give.
A plain call from actor to actor needs no provider: it goes by link. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import Undecoded, operation

from ..base import Call, Config, Provider
from ..subscriptions import Subscription, Subscriptions, require_operation, require_size, require_topic
from .requests import NONE, Outcome, Requests, outcomes
from .retained import Retained

_KEPT_LETTERS: Final = 64
Arguments = Annotated[msgspec.Raw, Undecoded("list[object] | None")]
"""Of another actor's operation: nothing that the host looks into."""


class TopicConfig(Config, frozen=True):
    """Who may do what with one topic: names of actors. Nobody by default."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    retain: bool = False
    """Whether the last message is kept for who subscribes later."""


class IntercomConfig(Config, frozen=True):
    """The topics of the deployment, and bounds."""

    topics: dict[str, TopicConfig] = {}
    max_body: Annotated[int, msgspec.Meta(ge=1, le=1 << 19)] = 256 * 1024
    """Bytes of a message."""
    subscriptions: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    """Topics that each replica may be subscribed to."""
    retained_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 4 << 20
    """Bytes that the last messages of all topics with `retain` may take together, 256 beside each."""
    requests: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    """Requests of one actor that may wait for an answer at a time."""

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
    retain: bool = False
    """Whether its last message is kept."""


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
    """Topics between actors, and requests to replicas. A message reaches a subscribed actor at most once a replica.

    A topic with `retain` keeps its last message, and no other does: who subscribes with `replay` is told it before any
    newer one. A request goes by the caller's own link to the actor that it asks: without one that grants the operation
    it is DENIED, and the actor sees who really asks.
    """

    name: ClassVar[str] = "intercom"
    config_type: ClassVar[type[Config]] = IntercomConfig
    in_place: ClassVar[frozenset[str]] = frozenset(IntercomConfig.__struct_fields__)

    def __init__(self, config: IntercomConfig) -> None:
        super().__init__(config)
        self._subscriptions = Subscriptions(config.subscriptions)
        self._retained = Retained(config.retained_bytes)
        self._owed: dict[tuple[str, str, int], None] = {}
        """(topic, actor, replica) that is to be told the last message as soon as it takes any."""
        self._requests = Requests()
        self._published = 0
        self._delivered = 0
        self._dead: dict[str, int] = {}
        self._letters: deque[DeadLetter] = deque(maxlen=_KEPT_LETTERS)

    def abandon(self) -> None:
        super().abandon()
        self._retained.drop_unless(lambda topic: _retains(self.config, topic))

    def reconfigure(self, config: IntercomConfig) -> None:
        super().reconfigure(config)
        self._subscriptions.rebound(config.subscriptions)
        self._retained.limit = config.retained_bytes
        self._retained.drop_unless(lambda topic: _retains(config, topic))
        self._subscriptions.drop_unless(lambda topic, actor: actor in _granted(config, topic, "subscribe"))
        self._owed = {owed: None for owed in self._owed if owed[1] in _granted(config, owed[0], "subscribe")}
        self._dead = {topic: count for topic, count in self._dead.items() if topic in config.topics}
        self._letters = deque((one for one in self._letters if one.topic in config.topics), maxlen=_KEPT_LETTERS)

    async def forget(self, actor: str) -> None:
        self._subscriptions.drop_actor(actor)
        self._owed = {owed: None for owed in self._owed if owed[1] != actor}

    async def replica_gone(self, actor: str, replica: int) -> None:
        self._subscriptions.drop_replica(actor, replica)
        self._owed = {owed: None for owed in self._owed if owed[1:] != (actor, replica)}

    def replica_serves(self, actor: str, replica: int) -> None:
        for owed in [owed for owed in self._owed if owed[1:] == (actor, replica)]:
            self._pay(*owed)

    def usage(self) -> dict[str, int]:
        return {
            "subscriptions": len(self._subscriptions),
            "published": self._published,
            "delivered": self._delivered,
            "dead_letters": sum(self._dead.values()),
            "retained": len(self._retained),
            "retained_bytes": self._retained.size,
            "requests": self._requests.made,
            "requests_waiting": self._requests.waiting,
        }

    @operation
    async def publish(self, call: Call, topic: str, body: bytes) -> int:
        """Publish a message of at most `max_body` bytes (256 KiB); answers how many actors it was delivered to.

        Delivered means put into a replica's mailbox. Where no replica of a subscribed actor had room, and where nobody
        is subscribed, it is a dead letter. On a topic with `retain` it is kept until the next one comes; an empty one
        is told like any, and leaves nothing kept. DENIED without a grant to publish to this topic, INVALID over the
        limit, EXHAUSTED when it cannot be kept: then nobody is told.
        """
        config = self.config_for(call)
        _require_grant(config, call.caller, topic, "publish")
        require_size("the message", body, config.max_body)
        retains = _retains(config, topic)
        if retains and body:
            self._retained.put(topic, body)
        elif retains:
            self._retained.drop(topic)
        self._published += 1
        actors = self._subscriptions.actors(topic)
        if not actors and not (retains and body):
            self._bury(call.caller, topic, None, body)
        reached = 0
        for actor in actors:
            if self._deliver(topic, actor, body):
                reached += 1
            else:
                self._bury(call.caller, topic, actor, body)
        self._delivered += reached
        for owed in [owed for owed in self._owed if owed[0] == topic]:
            self._pay(*owed)
        return reached

    @operation
    async def unpublish(self, call: Call, topic: str) -> bool:
        """Forget the message that a topic with `retain` keeps; False when there is none. DENIED as `publish`."""
        _require_grant(self.config_for(call), call.caller, topic, "publish")
        return self._retained.drop(topic)

    @operation
    async def subscribe(self, call: Call, topic: str, operation: str, each: bool = False, replay: bool = False) -> None:
        """Have the own `operation(topic: str, body: bytes)` told what is published on a topic.

        The replicas of an actor that subscribe share the messages in turn; with `each` the replica gets every message.
        With `replay` this replica is told the last message too, if the topic keeps one: before any newer one, and as
        soon as it takes messages, so after `on_start`. A second subscription to the topic replaces the first; it ends
        with the replica. DENIED without a grant, INVALID on a bad name, EXHAUSTED beyond the bound of subscriptions.
        """
        _require_grant(self.config_for(call), call.caller, topic, "subscribe")
        self._subscriptions.add(topic, Subscription(call.caller, call.replica, require_operation(operation), each))
        owed = (topic, call.caller, call.replica)
        self._owed.pop(owed, None)
        if replay:
            self._owed[owed] = None
            self._pay(*owed)

    @operation
    async def unsubscribe(self, call: Call, topic: str) -> bool:
        """End the replica's subscription; False when there was none."""
        self._owed.pop((require_topic(topic), call.caller, call.replica), None)
        return self._subscriptions.remove(topic, call.caller, call.replica)

    @operation
    async def topics(self, call: Call) -> list[Topic]:
        """The topics for which the caller has a grant, by name."""
        return [
            Topic(
                name,
                call.caller in grants.publish,
                call.caller in grants.subscribe,
                len(self._subscriptions.actors(name)),
                grants.retain,
            )
            for name, grants in sorted(self.config_for(call).topics.items())
            if call.caller in grants.publish or call.caller in grants.subscribe
        ]

    @operation
    async def dead_letters(self, call: Call) -> DeadLetters:
        """Figures of messages that nobody took, of the caller's topics; the latest 64 of all topics are kept."""
        mine = {topic.name for topic in await self.topics(call)}
        count = sum(number for topic, number in self._dead.items() if topic in mine)
        return DeadLetters(count, tuple(letter for letter in self._letters if letter.topic in mine))

    # -- requests

    @operation
    async def request(
        self,
        call: Call,
        target: str,
        operation: str,
        arguments: Arguments = NONE,
        timeout: float = 10.0,
        replica: int | None = None,
    ) -> object:
        """Call `operation` of the actor `target`, chosen while running, and answer its result.

        It goes by the caller's link to `target`, which must grant the operation, and as if called by it: the same
        caller and chain, the same refusals. `arguments` by place. The least loaded replica answers, or `replica`. At
        most `timeout` (over 0, at most 120) seconds. DENIED without such a link, UNAVAILABLE when no replica (not that
        one) runs, EXHAUSTED when 64 requests of this actor wait already; else what the operation raises.
        """
        limit = self.config_for(call).requests
        answers = await self._requests.ask(
            self.services, call, target, operation, arguments, timeout, limit=limit, replica=replica
        )
        outcome = answers[0].outcome
        if isinstance(outcome, CallError):
            raise outcome
        return msgspec.Raw(outcome)

    @operation
    async def request_all(
        self,
        call: Call,
        target: str,
        operation: str,
        arguments: Arguments = NONE,
        timeout: float = 10.0,
    ) -> list[Outcome]:
        """`request` to every replica of `target` at once: {replica, value, error, sentence} of each, in their order.

        A replica that is down, refuses or lets the time pass has an error and no value; the others' answers come all
        the same. Refused as a whole as `request`, CONFLICT when `target` waits for this very call, EXHAUSTED when the
        answers have more than 1 MiB together.
        """
        limit = self.config_for(call).requests
        return outcomes(
            await self._requests.ask(
                self.services, call, target, operation, arguments, timeout, limit=limit, every=True
            )
        )

    # -- inside

    def _deliver(self, topic: str, actor: str, body: bytes) -> bool:
        reached = False
        for one in self._subscriptions.each(topic, actor):
            reached = self._tell(one, topic, body) or reached
        # A replica with a full mailbox passes its turn to the next.
        return any(self._tell(one, topic, body) for one in self._subscriptions.in_turn(topic, actor)) or reached

    def _tell(self, one: Subscription, topic: str, body: bytes) -> bool:
        told = self.services.tell_actor(one.actor, one.operation, topic, body, replica=one.replica)
        if told:  # a newer message makes up for the last one that it was to be told
            self._owed.pop((topic, one.actor, one.replica), None)
        return told

    def _pay(self, topic: str, actor: str, replica: int) -> None:
        """Tell a replica the last message that it asked for; one that starts, or has no room now, stays owed."""
        if not self.services.takes_messages(actor, replica):
            return
        body, one = self._retained.get(topic), self._subscriptions.of(topic, actor, replica)
        if body is None or one is None:
            self._owed.pop((topic, actor, replica), None)
        elif self._tell(one, topic, body):
            self._delivered += 1

    def _bury(self, publisher: str, topic: str, subscriber: str | None, body: bytes) -> None:
        self._dead[topic] = self._dead.get(topic, 0) + 1
        self._letters.append(DeadLetter(topic, publisher, subscriber, len(body), self.services.now()))


def _granted(config: IntercomConfig, topic: str, right: str) -> tuple[str, ...]:
    grants = config.topics.get(topic)
    return () if grants is None else grants.publish if right == "publish" else grants.subscribe


def _require_grant(config: IntercomConfig, actor: str, topic: str, right: str) -> None:
    # One sentence for a topic that is not there and for one that is not granted: names are not to be probed.
    if actor not in _granted(config, require_topic(topic), right):
        raise CallError(
            Code.DENIED,
            f"{actor} may not {right} here: grant it under providers.intercom.topics.{topic}.{right}",
            topic=topic,
        )


def _retains(config: IntercomConfig, topic: str) -> bool:
    grants = config.topics.get(topic)
    return grants is not None and grants.retain
