"""A bundle that was written against plain Thespian runs in a real worker with only its entry named."""

from __future__ import annotations

from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

PLAIN = """
from datetime import timedelta
from thespian.actors import ActorTypeDispatcher, ActorExitRequest, ChildActorExited
from thespian.troupe import troupe

class Child(ActorTypeDispatcher):
    def receiveMsg_tuple(self, message, sender):
        asker, text = message
        self.send(asker, "child: " + text)

@troupe(max_count=2)
class Bees(ActorTypeDispatcher):
    def receiveMsg_tuple(self, message, sender):
        self.send(message[0], message[1] * 2)

class Plain(ActorTypeDispatcher):
    def receiveMsg_str(self, message, sender):
        if message == "fail":
            raise RuntimeError("what only the author may read")
        if message == "wake":
            self.wakeupAfter(timedelta(milliseconds=20), sender)
        elif message == "exit":
            self.send(self.myAddress, ActorExitRequest())
        elif message == "dead":
            self.handleDeadLetters()
            self.asker = sender
            child = self.createActor(Child)
            self.send(child, ActorExitRequest())
            self.send(self.myAddress, child)
        else:
            self.send(self.createActor(Child), (sender, message))

    def receiveMsg_ActorAddress(self, child, sender):
        self.send(child, "into the void")

    def receiveMsg_DeadEnvelope(self, message, sender):
        self.send(self.asker, "dead letter: " + message.deadMessage)

    def receiveMsg_ChildActorExited(self, message, sender):
        self.send(self.myAddress, message.childAddress)
        self.send(self.asker, "child exited")

    def receiveMsg_int(self, message, sender):
        bees = self.createActor(Bees)
        for number in range(1, message + 1):
            self.send(bees, (sender, number))

    def receiveMsg_WakeupMessage(self, message, sender):
        self.send(message.payload, "awake")
"""
ASKS = """
from tea.sdk import Actor, operation

class Asker(Actor):
    @operation
    def ask(self, body: object) -> list[object]:
        return self.plain.message(body)
"""
LINKS = "  - {from: parent, to: plain, operations: [message]}"


@pytest.fixture
async def plain(enclave: Any) -> Any:
    enclave.bundle("plain", PLAIN, "Plain")
    await enclave.push(enclave.manifest(links=LINKS))
    return enclave


async def test_the_outside_talks_to_it_by_message(plain: Any) -> None:
    assert await plain.call("plain", "message", "hello") == ["child: hello"]
    assert await plain.call("plain", "message", body="hello", wait=0.5) == ["child: hello"]


async def test_wakeups_troupes_exits_and_dead_letters_are_thespians(plain: Any) -> None:
    assert await plain.call("plain", "message", "wake", 5.0) == ["awake"]
    assert sorted(await plain.call("plain", "message", 6)) == [2, 4, 6, 8, 10, 12]
    said = await plain.call("plain", "message", "dead")
    assert said[0] == "child exited"


async def test_its_failure_is_told_to_the_caller_without_and_to_the_log_with_the_cause(plain: Any) -> None:
    with pytest.raises(CallError) as refusal:
        await plain.call("plain", "message", "fail")
    assert refusal.value.code is Code.INTERNAL
    assert "author" not in str(refusal.value)
    logged = await plain.logged("what only the author may read")
    assert "Traceback" in logged
    assert "plain.py" in logged


async def test_outside_of_simulated_mode_the_log_has_no_traceback(enclave: Any) -> None:
    enclave.host.mode = "nitro"
    enclave.bundle("plain", PLAIN, "Plain")
    await enclave.push(enclave.manifest(links=LINKS))
    with pytest.raises(CallError):
        await enclave.call("plain", "message", "fail")
    logged = await enclave.logged("RuntimeError")
    assert "author" not in logged
    assert "Traceback" not in logged


async def test_it_exits_when_it_wants_and_comes_back(plain: Any, until: Any) -> None:
    with pytest.raises(CallError) as refusal:
        await plain.call("plain", "message", "exit")
    assert refusal.value.code is Code.UNAVAILABLE
    await until(lambda: plain.host.status().actors[0].restarts == 1)
    assert await plain.call("plain", "message", "again") == ["child: again"]


async def test_another_actor_asks_it_over_a_link(enclave: Any) -> None:
    enclave.bundle("plain", PLAIN, "Plain")
    enclave.bundle("asker", ASKS, "Asker", capabilities={"plain": ("message",)})
    links = "  - {from: parent, to: asker, operations: [ask]}\n  - {from: asker, to: plain, operations: [message]}"
    await enclave.push(enclave.manifest(links=links))
    assert await enclave.call("asker", "ask", "hello") == ["child: hello"]
