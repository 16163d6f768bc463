"""Who is subscribed to what: topics, actors and their replicas, bounded, dropped with the replica, balanced.

May not: deliver anything (the provider does), or keep a body. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tea.protocol.errors import CallError, Code

MAX_TOPIC: Final = 128
"""Characters of a topic."""
_TOPIC: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_OPERATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class Subscription(NamedTuple):
    """One replica's wish: tell me by this operation."""

    actor: str
    replica: int
    operation: str
    each: bool
    """True: every such replica is told; False: one replica of the actor is, in turn."""


def require_topic(topic: str) -> str:
    """The topic, or `CallError(INVALID)`: 1 to 128 of letters, digits and `. _ / : -`, a letter or digit first."""
    if _TOPIC.fullmatch(topic) is None:
        raise CallError(
            Code.INVALID,
            f"a topic is 1 to {MAX_TOPIC} ASCII letters, digits and '._/:-', starting with a letter or digit",
        )
    return topic


def require_operation(operation: str) -> str:
    """The name of an actor's operation, or `CallError(INVALID)`: 1 to 64 of letters, digits, `_`; a letter first."""
    if _OPERATION.fullmatch(operation) is None:
        raise CallError(
            Code.INVALID, "an operation is named by 1 to 64 ASCII letters, digits and '_', starting with a letter"
        )
    return operation


def require_size(what: str, body: bytes, limit: int) -> bytes:
    """The body, or `CallError(INVALID)` that names the limit in bytes."""
    if len(body) > limit:
        raise CallError(Code.INVALID, f"{what} has {len(body)} bytes, at most {limit} are taken", limit=limit)
    return body


class Subscriptions:
    """Subscriptions by topic. Bounded: each replica has at most `per_replica`."""

    def __init__(self, per_replica: int) -> None:
        self._per_replica = per_replica
        self._topics: dict[str, dict[tuple[str, int], Subscription]] = {}
        self._turns: dict[tuple[str, str], int] = {}
        self._held: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return sum(self._held.values())

    def add(self, topic: str, subscription: Subscription) -> None:
        """Subscribe; a second time replaces the first. Raises `CallError(EXHAUSTED)` over the bound."""
        who = (subscription.actor, subscription.replica)
        held = self._held.get(who, 0)
        replicas = self._topics.get(topic, {})
        if who not in replicas:
            if held >= self._per_replica:
                raise CallError(
                    Code.EXHAUSTED,
                    f"a replica may hold {self._per_replica} subscriptions: unsubscribe from one first",
                    limit=self._per_replica,
                )
            self._held[who] = held + 1
        self._topics.setdefault(topic, {})[who] = subscription

    def remove(self, topic: str, actor: str, replica: int) -> bool:
        """Unsubscribe a replica; False when it was not subscribed."""
        replicas = self._topics.get(topic)
        if replicas is None or replicas.pop((actor, replica), None) is None:
            return False
        left = self._held[actor, replica] - 1
        if left:
            self._held[actor, replica] = left
        else:
            del self._held[actor, replica]
        if not any(who[0] == actor for who in replicas):
            self._turns.pop((topic, actor), None)
        if not replicas:
            del self._topics[topic]
        return True

    def drop_replica(self, actor: str, replica: int) -> None:
        """Forget everything that one replica subscribed to."""
        for topic in list(self._topics):
            self.remove(topic, actor, replica)

    def drop_actor(self, actor: str) -> None:
        """Forget everything that an actor's replicas subscribed to."""
        for who in [who for who in self._held if who[0] == actor]:
            self.drop_replica(*who)

    def drop_unless(self, keep: Callable[[str, str], bool]) -> None:
        """Forget what `keep(topic, actor)` says no to: a right to it was taken away."""
        for topic, replicas in list(self._topics.items()):
            for actor, replica in list(replicas):
                if not keep(topic, actor):
                    self.remove(topic, actor, replica)

    def rebound(self, per_replica: int) -> None:
        """Set the bound anew; who holds more keeps them, and gets no further one."""
        self._per_replica = per_replica

    def of(self, topic: str, actor: str, replica: int) -> Subscription | None:
        """A replica's subscription to a topic, or None."""
        return self._topics.get(topic, {}).get((actor, replica))

    def actors(self, topic: str) -> list[str]:
        """The actors subscribed to a topic, in the order of their first subscription."""
        return list(dict.fromkeys(who[0] for who in self._topics.get(topic, {})))

    def topics_of(self, actor: str, replica: int) -> list[str]:
        """What one replica is subscribed to, sorted."""
        return sorted(topic for topic, replicas in self._topics.items() if (actor, replica) in replicas)

    def each(self, topic: str, actor: str) -> list[Subscription]:
        """The replicas of an actor that all want every message."""
        return [s for who, s in self._topics.get(topic, {}).items() if who[0] == actor and s.each]

    def in_turn(self, topic: str, actor: str) -> Iterator[Subscription]:
        """The replicas of an actor that share messages, whose turn it is first; the turn moves on with each call."""
        shared = [s for who, s in self._topics.get(topic, {}).items() if who[0] == actor and not s.each]
        if not shared:
            return iter(())
        turn = self._turns.get((topic, actor), 0) % len(shared)
        self._turns[topic, actor] = turn + 1
        return iter(shared[turn:] + shared[:turn])
