"""Requests and kept messages under test without a host: the same rights by the same links, another harness as target.

Rule: docs/actors.md, "Testing".
"""

from __future__ import annotations

import pytest

from tea.protocol.errors import CallError, Code
from tea.sdk import Actor, Link, operation
from tea.sdk.testing import run_actor

TOPICS = {"intercom": {"topics": {"price": {"publish": ["board"], "subscribe": ["board"], "retain": True}}}}


class Worker(Actor):
    @operation
    def status(self, more: int) -> list[object]:
        return [self.caller, list(self.chain), more]

    @operation
    def broken(self) -> None:
        raise CallError(Code.CONFLICT, "not now")

    @operation
    def hidden(self) -> None:
        return None


class Foreman(Actor):
    intercom: Link

    @operation
    def one(self, name: str, arguments: list[object]) -> object:
        return self.intercom.request("worker", name, arguments)

    @operation
    def all(self, name: str, arguments: list[object]) -> object:
        return self.intercom.request_all("worker", name, arguments)


class Board(Actor):
    intercom: Link

    def on_start(self) -> None:
        self.heard: list[bytes] = []
        self.intercom.subscribe("price", "hear", replay=True)

    @operation(only_from=("provider:intercom",))
    def hear(self, topic: str, body: bytes) -> None:
        self.heard.append(body)

    @operation
    def say(self, text: bytes) -> list[bytes]:
        self.intercom.publish("price", text)
        return self.heard


def test_a_request_reaches_the_harness_of_the_other_actor_under_the_callers_name() -> None:
    links: dict[str, bool | list[str]] = {"intercom": True, "worker": ["status", "broken"]}
    with run_actor(Worker) as worker, run_actor(Foreman, links=links, providers={"worker": worker}) as foreman:
        assert foreman.as_caller("front").call("one", "status", [1]) == ["foreman", ["front"], 1]
        assert foreman.call("all", "status", [2]) == [
            {"replica": 0, "value": ["foreman", ["parent"], 2], "error": None, "sentence": None}
        ]
        with pytest.raises(CallError, match="not now"):
            foreman.call("one", "broken", [])
        assert foreman.call("all", "broken", [])[0]["error"] == "CONFLICT"


def test_a_request_without_a_link_that_grants_it_is_denied_as_in_the_host() -> None:
    links: dict[str, bool | list[str]] = {"intercom": True, "worker": ["status"]}
    with run_actor(Worker) as worker, run_actor(Foreman, links=links, providers={"worker": worker}) as foreman:
        for call in ("one", "all"):
            with pytest.raises(CallError) as refused:
                foreman.call(call, "hidden", [])
            assert refused.value.code is Code.DENIED
    with run_actor(Foreman, links={"intercom": True}) as foreman, pytest.raises(CallError) as refused:
        foreman.call("one", "status", [1])
    assert refused.value.code is Code.DENIED


def test_a_restarted_actor_hears_the_last_message_first() -> None:
    with run_actor(Board, links={"intercom": True}, config=TOPICS) as board:
        board.call("say", b"one")
        board.call("say", b"two")
        assert board.actor.heard == [b"one", b"two"]
        board.restart(crash=True)
        assert board.actor.heard == [b"two"]
