"""Actors that were written against plain Thespian: no import of the kit, nothing but messages."""

# mypy: disable-error-code=misc

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from thespian.actors import Actor, ActorExitRequest, ActorTypeDispatcher, ChildActorExited, PoisonMessage
from thespian.troupe import troupe

from tea.sdk import CallError, Code
from tea.sdk.mailbox import MAX_DELIVERIES, MAX_HELD
from tea.sdk.testing import Harness, run_actor


class Greeter(Actor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if isinstance(message, str):
            self.seen.append(message)
            self.send(sender, f"Greetings, {message}.")


class Many(ActorTypeDispatcher):
    def receiveMsg_int(self, message: int, sender: Any) -> None:
        for number in range(message):
            self.send(sender, number)

    def receiveMsg_bytes(self, message: bytes, sender: Any) -> None:
        self.send(sender, {"bytes": message, "nested": [1, None, {"a": 1.5}]})

    def receiveMsg_str(self, message: str, sender: Any) -> None:
        if message == "fail":
            raise RuntimeError("the secret of the actor")
        if message == "exit":
            self.send(self.myAddress, ActorExitRequest())
        if message == "loop":
            self.send(self.myAddress, "loop")

    def receiveMsg_list(self, message: list[Any], sender: Any) -> None:
        self.send(sender, object())


class Later(ActorTypeDispatcher):
    def receiveMsg_float(self, message: float, sender: Any) -> None:
        self.wakeupAfter(datetime.timedelta(seconds=message), sender)

    def receiveMsg_WakeupMessage(self, message: Any, sender: Any) -> None:
        self.send(message.payload, "awake")


class Child(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:
        if message == "die":
            raise RuntimeError("a child's failure")
        if not isinstance(message, ActorExitRequest):
            self.send(sender, ("child says", message))


class Parent(ActorTypeDispatcher):
    child: Any = None
    asker: Any = None

    def receiveMsg_str(self, message: str, sender: Any) -> None:
        self.asker = sender
        if self.child is None:
            self.child = self.createActor(Child)
        self.send(self.child, ActorExitRequest() if message == "end" else message)

    def receiveMsg_tuple(self, message: Any, sender: Any) -> None:
        self.send(self.asker, list(message))

    def receiveMsg_ChildActorExited(self, message: ChildActorExited, sender: Any) -> None:
        self.child = None
        self.send(self.asker, "the child is gone")

    def receiveMsg_PoisonMessage(self, message: PoisonMessage, sender: Any) -> None:
        self.send(self.asker, f"poison: {message.poisonMessage}")


@troupe(max_count=3)
class Hive(ActorTypeDispatcher):
    def receiveMsg_int(self, message: int, sender: Any) -> None:
        self.send(sender, message * 2)


class Broken(Actor):
    def __init__(self) -> None:
        raise ValueError("not today")


@pytest.fixture
def many() -> Iterator[Harness]:
    with run_actor(Many) as harness:
        yield harness


def test_what_the_actor_sends_back_is_the_answer() -> None:
    with run_actor(Greeter) as greeter:
        assert greeter.call("message", "Yorick") == ["Greetings, Yorick."]
        assert greeter.call("message", 5) == []


def test_all_answers_come_in_their_order(many: Harness) -> None:
    assert many.call("message", 4) == [0, 1, 2, 3]
    assert many.call("message", b"\x00") == [{"bytes": b"\x00", "nested": [1, None, {"a": 1.5}]}]


def test_it_has_one_operation_and_says_so(many: Harness) -> None:
    assert [one.name for one in many.describe().values()] == ["message"]


def test_a_failing_message_is_tried_three_times_and_then_the_caller_is_told_without_the_cause(many: Harness) -> None:
    with pytest.raises(CallError) as refusal:
        many.call("message", "fail")
    assert refusal.value.code is Code.INTERNAL
    assert "secret" not in str(refusal.value)
    assert many.call("message", 1) == [0]


def test_an_answer_that_cannot_travel_is_internal(many: Harness) -> None:
    with pytest.raises(CallError) as refusal:
        many.call("message", [])
    assert refusal.value.code is Code.INTERNAL


def test_an_actor_that_exits_at_the_message_is_unavailable(many: Harness) -> None:
    with pytest.raises(CallError) as refusal:
        many.call("message", "exit")
    assert refusal.value.code is Code.UNAVAILABLE
    assert not many.alive


def test_one_caller_does_not_get_what_belongs_to_another() -> None:
    with run_actor(Later) as later:
        assert later.as_caller("alice").call("message", 5.0) == []
        later.advance(6)
        assert later.as_caller("bob").call("message", 60.0) == []
        assert later.as_caller("alice").call("message", 60.0) == ["awake"]


def test_with_wait_the_answer_of_a_wakeup_is_waited_for() -> None:
    with run_actor(Later) as later:
        assert later.call("message", 0.01, wait=5) == ["awake"]
        assert later.call("message", 60.0, wait=0.01) == []


@pytest.mark.parametrize("wait", [-1.0, 26.0, float("nan")])
def test_a_wait_out_of_bounds_is_refused(wait: float) -> None:
    with run_actor(Later) as later:
        with pytest.raises(CallError) as refusal:
            later.call("message", 1.0, wait=wait)
        assert refusal.value.code is Code.INVALID


def test_late_answers_are_held_up_to_a_bound() -> None:
    with run_actor(Later) as later:
        for _ in range(MAX_HELD + 10):
            assert later.call("message", 5.0) == []
        later.advance(6)
        assert len(later.call("message", 60.0)) == MAX_HELD


def test_an_actor_that_never_stops_sending_to_itself_still_answers() -> None:
    class Restless(Actor):
        count = 0

        def receiveMessage(self, message: Any, sender: Any) -> None:
            self.count += 1
            if self.count <= 2 * MAX_DELIVERIES:
                self.send(self.myAddress, message)
            if sender != self.myAddress:
                self.send(sender, "begun")

    with run_actor(Restless) as restless:
        assert restless.call("message", "go") == ["begun"]


def test_children_their_end_and_poison_are_thespians() -> None:
    with run_actor(Parent) as parent:
        assert parent.call("message", "hello") == [["child says", "hello"]]
        assert parent.call("message", "die") == ["poison: die"]
        assert parent.call("message", "end") == ["the child is gone"]


def test_a_troupe_answers() -> None:
    with run_actor(Hive) as hive:
        assert [hive.call("message", number) for number in range(1, 6)] == [[2], [4], [6], [8], [10]]


def test_a_class_that_cannot_be_made_says_why() -> None:
    with pytest.raises(Exception, match="not today"), run_actor(Broken):
        pass
