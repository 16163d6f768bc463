"""Thespian inside an actor: children, wake-ups, dead letters, poison; and that nothing is delivered twice."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
import thespian.actors

from tea.protocol.operations import operation
from tea.sdk import Actor, ActorAddress, ActorExitRequest, CallError, Code
from tea.sdk.testing import run_actor


class Child(Actor):
    """Answers, fails, or ends, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def on_start(self) -> None:
        self.started += 1

    def on_message(self, message: Any, sender: ActorAddress) -> None:
        if message == "fail":
            self.send(sender, "trying")
            raise ValueError("no")
        if message == "end":
            self.send(self.myAddress, ActorExitRequest())
        self.send(sender, (message, self.name, self.started))

    def on_wakeup(self, payload: Any) -> None:
        raise AssertionError("not asked for")


class Unstartable(Child):
    def on_start(self) -> None:
        raise ValueError("no")


class Crude(thespian.actors.Actor):  # type: ignore[misc]
    """A plain Thespian actor: Thespian's own retry and poison rule holds for it."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, str):
            self.send(sender, "tried")
            raise ValueError(message)


class Parent(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.children: dict[str, ActorAddress] = {}

    def on_message(self, message: Any, sender: ActorAddress) -> None:
        self.events.append(message)

    def on_wakeup(self, payload: Any) -> None:
        self.events.append(("woken", payload, self.caller))

    def on_child_exited(self, child: ActorAddress) -> None:
        self.events.append(("exited", [name for name, address in self.children.items() if address == child]))

    def on_dead_letter(self, message: Any, addressee: str) -> None:
        self.events.append(("dead letter", message))

    def on_poison(self, message: Any, sender: ActorAddress) -> None:
        self.events.append(("poison", message))

    def on_stop(self) -> None:
        self.events.append("stopped")

    @operation
    def ask(self, kind: str, message: str) -> str:
        """Send a message to a child of a kind, made on first use; answers who called."""
        kinds = {"child": Child, "unstartable": Unstartable, "crude": Crude}
        if kind not in self.children:
            self.children[kind] = self.createActor(kinds[kind])
        self.send(self.children[kind], message)
        return self.caller

    @operation
    def listen_for_dead_letters(self) -> None:
        self.handleDeadLetters()

    @operation
    def remind(self, seconds: float, text: str) -> None:
        self.wakeupAfter(timedelta(seconds=seconds), text)

    @operation
    def exit(self) -> None:
        self.send(self.myAddress, ActorExitRequest())

    @operation
    def chatter(self) -> None:
        self.send(self.myAddress, "again")


class Silent(Actor):
    """Has no handlers at all."""

    @operation
    def provoke(self, what: str) -> None:
        if what == "message":
            self.send(self.myAddress, "hello")
        elif what == "wakeup":
            self.wakeupAfter(timedelta(seconds=0))
        elif what == "poison":
            self.send(self.createActor(Crude), "drop")


def test_a_child_actor_answers_and_was_started_before_its_first_message() -> None:
    with run_actor(Parent, name="boss") as harness:
        assert harness.call("ask", "child", "hello") == "parent"
        harness.call("ask", "child", "more")
        assert harness.actor.events == [("hello", "boss", 1), ("more", "boss", 1)]


def test_a_message_whose_handler_raises_is_delivered_exactly_once() -> None:
    with run_actor(Parent) as harness:
        harness.call("ask", "child", "fail")
        assert harness.actor.events == ["trying"]
        assert [type(failure) for failure in harness.failures] == [ValueError]


def test_a_plain_thespian_actor_keeps_thespians_retry_and_poison() -> None:
    with run_actor(Parent) as harness:
        harness.call("ask", "crude", "drop")
        assert harness.actor.events == ["tried", "tried", "tried", ("poison", "drop")]


def test_a_child_that_ends_is_reported_to_its_parent() -> None:
    with run_actor(Parent) as harness:
        harness.call("ask", "child", "end")
        assert harness.actor.events == [("end", "parent", 1), ("exited", ["child"])]


def test_a_child_whose_on_start_fails_gets_no_message_and_ends() -> None:
    with run_actor(Parent) as harness:
        harness.call("ask", "unstartable", "hello")
        assert harness.actor.events == [("exited", ["unstartable"])]
        assert len(harness.failures) == 1


def test_a_message_to_an_actor_that_is_gone_becomes_a_dead_letter() -> None:
    with run_actor(Parent) as harness:
        harness.call("listen_for_dead_letters")
        harness.call("ask", "child", "end")
        harness.call("ask", "child", "too late")
        assert harness.actor.events[-1] == ("dead letter", "too late")


def test_wakeups_come_when_their_time_is_there_and_in_order() -> None:
    with run_actor(Parent) as harness:
        harness.call("remind", 3600, "late")
        harness.call("remind", 1800, "early")
        harness.advance(1700)
        assert harness.actor.events == []
        harness.advance(2000)
        assert harness.actor.events == [("woken", "early", ""), ("woken", "late", "")]


def test_messages_that_an_operation_sends_are_delivered_after_it_in_the_name_of_nobody() -> None:
    with run_actor(Parent) as harness:
        harness.as_caller("someone").call("remind", 0.0, "now")
        assert harness.actor.events == [("woken", "now", "")]


def test_an_actor_can_end_itself_and_stops_once() -> None:
    with run_actor(Parent) as harness:
        actor = harness.actor
        harness.call("exit")
        assert actor.events == ["stopped"]
        assert not harness.alive
        with pytest.raises(CallError) as caught:
            harness.call("chatter")
        assert caught.value.code is Code.UNAVAILABLE
    assert actor.events == ["stopped"]


@pytest.mark.parametrize("what", ["message", "wakeup", "poison"])
def test_what_nobody_handles_is_a_failure_not_a_silence(what: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tea.actor"), run_actor(Silent) as harness:
        harness.call("provoke", what)
        assert harness.failures
    assert caplog.records


class Hooked(Actor):
    log: list[str] = []
    failing = ""

    def on_start(self) -> None:
        self.log.append("start")
        if self.failing == "start":
            raise ValueError("no start")

    def on_stop(self) -> None:
        self.log.append("stop")
        if self.failing == "stop":
            raise ValueError("no stop")

    def on_failure(self, exception: Exception) -> None:
        self.log.append(f"failure: {exception}")

    @operation
    def run(self) -> None:
        self.log.append("run")


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> type[Hooked]:
    monkeypatch.setattr(Hooked, "log", [])
    return Hooked


def test_hooks_run_around_the_operations(hooked: type[Hooked]) -> None:
    with run_actor(hooked) as harness:
        harness.call("run")
    assert hooked.log == ["start", "run", "stop"]


def test_on_stop_does_not_run_when_on_start_failed(hooked: type[Hooked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooked, "failing", "start")
    with pytest.raises(CallError) as caught, run_actor(hooked):
        raise AssertionError("the block must not be entered")
    assert caught.value.code is Code.INTERNAL
    assert "no start" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert hooked.log == ["start", "failure: no start"]


def test_a_failing_on_stop_ends_in_on_failure(hooked: type[Hooked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooked, "failing", "stop")
    with run_actor(hooked):
        pass
    assert hooked.log == ["start", "stop", "failure: no stop"]


def test_on_stop_does_not_run_after_a_crash(hooked: type[Hooked]) -> None:
    with run_actor(hooked) as harness:
        harness.restart(crash=True)
        assert hooked.log == ["start", "start"]
    assert hooked.log == ["start", "start", "stop"]
