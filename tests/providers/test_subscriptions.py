"""Subscriptions: bounded, balanced, gone with the replica. Checked against a plain model too.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tea.protocol.errors import CallError, Code
from tea.providers.subscriptions import (
    Subscription,
    Subscriptions,
    require_operation,
    require_size,
    require_topic,
)


def shared(actor: str, replica: int) -> Subscription:
    return Subscription(actor, replica, "heard", False)


def test_replicas_take_turns() -> None:
    subscriptions = Subscriptions(4)
    for replica in range(3):
        subscriptions.add("t", shared("a", replica))
    turns = [[one.replica for one in subscriptions.in_turn("t", "a")] for _ in range(4)]
    assert turns == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_each_and_shared_replicas_are_kept_apart() -> None:
    subscriptions = Subscriptions(4)
    subscriptions.add("t", shared("a", 0))
    subscriptions.add("t", Subscription("a", 1, "heard", True))
    assert [one.replica for one in subscriptions.in_turn("t", "a")] == [0]
    assert [one.replica for one in subscriptions.each("t", "a")] == [1]


def test_a_replica_has_a_bound_and_a_repeated_subscription_does_not_count_twice() -> None:
    subscriptions = Subscriptions(2)
    subscriptions.add("one", shared("a", 0))
    subscriptions.add("one", shared("a", 0))
    subscriptions.add("two", shared("a", 0))
    with pytest.raises(CallError) as caught:
        subscriptions.add("three", shared("a", 0))
    assert caught.value.code is Code.EXHAUSTED
    subscriptions.add("three", shared("a", 1))
    assert subscriptions.remove("one", "a", 0)
    subscriptions.add("three", shared("a", 0))


def test_unsubscribing_from_what_is_not_subscribed_answers_false() -> None:
    assert not Subscriptions(1).remove("t", "a", 0)


@pytest.mark.parametrize("topic", ["", ".x", "a b", "ü", "x" * 129, "a\n", "a\x00"])
def test_a_bad_topic_is_invalid(topic: str) -> None:
    with pytest.raises(CallError) as caught:
        require_topic(topic)
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("topic", ["a", "orders.filled", "ra/1:x-y_z", "x" * 128])
def test_a_good_topic_passes(topic: str) -> None:
    assert require_topic(topic) == topic


@pytest.mark.parametrize("operation", ["", "_private", "a-b", "1a", "x" * 65, "a.b"])
def test_a_bad_operation_name_is_invalid(operation: str) -> None:
    with pytest.raises(CallError) as caught:
        require_operation(operation)
    assert caught.value.code is Code.INVALID


def test_a_size_over_the_limit_is_invalid_and_names_the_limit() -> None:
    assert require_size("x", b"12", 2) == b"12"
    with pytest.raises(CallError) as caught:
        require_size("x", b"123", 2)
    assert caught.value.details == {"limit": 2}


TOPICS = st.sampled_from(["t", "u", "v"])
ACTORS = st.sampled_from(["a", "b"])
REPLICAS = st.integers(0, 2)


class Model(RuleBasedStateMachine):
    """A set of triples says what should be there."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Subscriptions(2)
        self.model: dict[tuple[str, str, int], bool] = {}

    @rule(topic=TOPICS, actor=ACTORS, replica=REPLICAS, each=st.booleans())
    def add(self, topic: str, actor: str, replica: int, each: bool) -> None:
        held = sum(1 for _, a, r in self.model if (a, r) == (actor, replica))
        fits = (topic, actor, replica) in self.model or held < 2
        try:
            self.real.add(topic, Subscription(actor, replica, "heard", each))
            assert fits
            self.model[topic, actor, replica] = each
        except CallError:
            assert not fits

    @rule(topic=TOPICS, actor=ACTORS, replica=REPLICAS)
    def remove(self, topic: str, actor: str, replica: int) -> None:
        there = self.model.pop((topic, actor, replica), None) is not None
        assert self.real.remove(topic, actor, replica) == there

    @rule(actor=ACTORS, replica=REPLICAS)
    def drop_replica(self, actor: str, replica: int) -> None:
        self.real.drop_replica(actor, replica)
        self.model = {key: each for key, each in self.model.items() if key[1:] != (actor, replica)}

    @rule(actor=ACTORS)
    def drop_actor(self, actor: str) -> None:
        self.real.drop_actor(actor)
        self.model = {key: each for key, each in self.model.items() if key[1] != actor}

    @invariant()
    def agrees(self) -> None:
        assert len(self.real) == len(self.model)
        for topic in ("t", "u", "v"):
            assert set(self.real.actors(topic)) == {a for t, a, _ in self.model if t == topic}
            for actor in ("a", "b"):
                mine = {r: each for (t, a, r), each in self.model.items() if (t, a) == (topic, actor)}
                assert {one.replica for one in self.real.in_turn(topic, actor)} == {r for r, e in mine.items() if not e}
                assert {one.replica for one in self.real.each(topic, actor)} == {r for r, e in mine.items() if e}
        for actor in ("a", "b"):
            for replica in range(3):
                held = sorted(t for t, a, r in self.model if (a, r) == (actor, replica))
                assert self.real.topics_of(actor, replica) == held


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestModel = Model.TestCase
