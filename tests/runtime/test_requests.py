"""Requests through the intercom: whose right they take, whose name they carry, what one or all replicas answer.

Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.providers.base import Call
from tea.runtime.requests import request

Enclave = Any

WORKER = """
import time
from tea.sdk import Actor, CallError, Code, operation

class Worker(Actor):
    @operation
    def status(self, more: int = 0) -> list[object]:
        return [self.replica, self.caller, list(self.chain), more]

    @operation
    def slow(self, seconds: float, replica: int) -> int:
        if self.replica == replica:
            time.sleep(seconds)
        return self.replica

    @operation
    def bulk(self, size: int, silent: int) -> bytes:
        if self.replica == silent:
            time.sleep(60)
        return bytes(size)

    @operation
    def picky(self) -> int:
        if self.replica == 1:
            raise CallError(Code.CONFLICT, "not this one")
        return self.replica

    @operation
    def secret(self) -> str:
        return "secret"

    @operation(only_from=("provider:intercom",))
    def for_intercom(self) -> str:
        return "lent"

    @operation
    def back(self) -> object:
        return self.desk.any("worker", "status", [])
"""
DESK = """
import msgspec
from tea.sdk import Actor, operation

class Desk(Actor):
    @operation
    def any(self, target: str, name: str, arguments: list[object], replica: int | None = None) -> object:
        return self.intercom.request(target, name, arguments, replica=replica)

    @operation
    def all(self, target: str, name: str, arguments: list[object], timeout: float = 10.0) -> object:
        return self.intercom.request_all(target, name, arguments, timeout=timeout)

    @operation
    def pid(self) -> int:
        return 0
"""
FRONT = """
from tea.sdk import Actor, operation

class Front(Actor):
    @operation
    def ask(self) -> object:
        return self.desk.any("worker", "status", [])
"""
LINKS = """
  - {from: parent, to: desk, operations: [any, all]}
  - {from: parent, to: front, operations: [ask]}
  - {from: front, to: desk, operations: [any]}
  - {from: desk, to: intercom, operations: [request, request_all]}
  - {from: desk, to: worker, operations: [status, slow, bulk, picky, for_intercom]}
"""
CIRCLE = """
  - {from: parent, to: worker, operations: [back]}
  - {from: worker, to: desk, operations: [any]}
"""
ASKS = {"intercom": ("request", "request_all"), "worker": ("status", "slow", "bulk", "picky", "for_intercom")}


async def boot(enclave: Enclave, links: str = LINKS, replicas: int = 3) -> None:
    back = {"desk": ("any",)} if "from: worker" in links else {}
    enclave.bundle("worker", WORKER, "Worker", capabilities=back)
    enclave.bundle("desk", DESK, "Desk", capabilities=ASKS)
    enclave.bundle("front", FRONT, "Front", capabilities={"desk": ("any",)})
    actors = {"worker": f", replicas: {replicas}"}
    await enclave.push(
        enclave.manifest(links=links, providers="  intercom: {}", actors=actors, issuer_capabilities="intercom")
    )


async def refused(code: Code, enclave: Enclave, *args: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await enclave.call("desk", *args)
    assert caught.value.code is code
    return caught.value


async def test_the_one_who_is_asked_sees_who_really_asks_and_who_stands_behind(enclave: Enclave) -> None:
    await boot(enclave)
    _, caller, chain, more = await enclave.call("desk", "any", "worker", "status", [7])
    assert (caller, chain, more) == ("desk", ["parent"], 7)
    _, caller, chain, _ = await enclave.call("front", "ask")
    assert (caller, chain) == ("desk", ["front", "parent"])


async def test_a_request_to_all_is_answered_by_every_replica(enclave: Enclave) -> None:
    await boot(enclave)
    answers = await enclave.call("desk", "all", "worker", "status", [])
    assert [one["replica"] for one in answers] == [0, 1, 2]
    assert [one["value"] for one in answers] == [[replica, "desk", ["parent"], 0] for replica in range(3)]
    assert [one["error"] for one in answers] == [None] * 3


async def test_a_request_to_one_replica_is_answered_by_that_one(enclave: Enclave) -> None:
    await boot(enclave)
    for replica in (2, 0, 1):
        assert (await enclave.call("desk", "any", "worker", "status", [], replica))[0] == replica
    await refused(Code.UNAVAILABLE, enclave, "any", "worker", "status", [], 9)


async def test_a_replica_that_refuses_or_lets_the_time_pass_is_an_outcome_beside_the_others(enclave: Enclave) -> None:
    await boot(enclave)
    answers = await enclave.call("desk", "all", "worker", "picky", [])
    assert [(one["value"], one["error"]) for one in answers] == [(0, None), (None, "CONFLICT"), (2, None)]
    assert answers[1]["sentence"] == "not this one"
    answers = await enclave.call("desk", "all", "worker", "slow", [1.0, 2], 0.3)
    assert [(one["value"], one["error"]) for one in answers] == [(0, None), (1, None), (None, "DEADLINE")]


async def test_answers_that_fit_no_reply_are_not_kept_while_another_replica_is_silent(
    enclave: Enclave, until: Any
) -> None:
    await boot(enclave)
    body = msgspec.msgpack.encode([MAX_BODY * 2 // 3, 2])
    with pytest.raises(CallError) as caught:
        await request(enclave.host, Call("desk", 0), "worker", "bulk", body, timeout=60.0, replica=None, every=True)
    assert caught.value.code is Code.EXHAUSTED
    assert len(enclave.host.supervisors["worker"].port(2).delivered) == 1, "it has not answered yet"
    await until(lambda: enclave.host.router.in_flight == 0)
    os.kill(enclave.host.supervisors["worker"].pids[2], signal.SIGKILL)


async def test_a_replica_that_is_down_has_an_outcome_too(enclave: Enclave, until: Any) -> None:
    await boot(enclave)
    supervisor = enclave.host.supervisors["worker"]
    supervisor.plan = type(supervisor.plan)(**{**vars(supervisor.plan), "backoff": 30.0, "backoff_max": 60.0})
    os.kill(supervisor.pids[1], signal.SIGKILL)
    await until(lambda: supervisor.running == 2)
    answers = await enclave.call("desk", "all", "worker", "status", [])
    assert [one["error"] for one in answers].count("UNAVAILABLE") == 1
    assert len(answers) == 3


async def test_without_a_link_of_its_own_an_actor_asks_nobody(enclave: Enclave) -> None:
    await boot(enclave)
    error = await refused(Code.DENIED, enclave, "any", "worker", "secret", [])
    assert "desk" in error.sentence
    await refused(Code.DENIED, enclave, "all", "worker", "secret", [])
    await refused(Code.DENIED, enclave, "any", "front", "ask", [])
    await refused(Code.DENIED, enclave, "any", "nobody", "ask", [])
    await refused(Code.DENIED, enclave, "any", "intercom", "request", ["worker", "secret"])
    status = await enclave.client.status()
    [desk] = [one for one in status.enclave.actors if one.name == "desk"]
    assert sum(count for what, count in desk.refused.items() if "request" in what) == 5


async def test_the_provider_lends_nobody_its_own_name(enclave: Enclave) -> None:
    await boot(enclave)
    await refused(Code.DENIED, enclave, "any", "worker", "for_intercom", [])
    answers = await enclave.call("desk", "all", "worker", "for_intercom", [])
    assert [one["error"] for one in answers] == ["DENIED"] * 3


async def test_a_link_that_demands_somebody_behind_the_call_demands_it_of_a_request(enclave: Enclave) -> None:
    demanding = LINKS.replace("for_intercom]}", "for_intercom], behind: [front]}")
    await boot(enclave, demanding)
    error = await refused(Code.DENIED, enclave, "any", "worker", "status", [])
    assert "front" in error.sentence
    assert (await enclave.call("front", "ask"))[1:3] == ["desk", ["front", "parent"]]


async def test_a_request_to_one_who_waits_for_it_is_refused(enclave: Enclave) -> None:
    links = LINKS + CIRCLE
    await boot(enclave, links, replicas=1)
    with pytest.raises(CallError, match="waits for this very call") as caught:
        await enclave.call("worker", "back")
    assert caught.value.code is Code.CONFLICT


async def test_a_request_of_all_replicas_by_one_of_them_is_refused(enclave: Enclave) -> None:
    links = LINKS + CIRCLE
    await boot(enclave, links, replicas=2)
    assert (await enclave.call("worker", "back"))[1] == "desk"  # any other replica can answer
    call = Call("desk", 0, ("worker", "parent"))
    with pytest.raises(CallError) as caught:
        await request(enclave.host, call, "worker", "status", b"\x90", timeout=1.0, replica=None, every=True)
    assert caught.value.code is Code.CONFLICT


async def test_wrong_arguments_and_operations_that_are_not_there_are_refused_as_on_a_link(enclave: Enclave) -> None:
    await boot(enclave)
    await refused(Code.INVALID, enclave, "any", "worker", "status", ["many"])
    await refused(Code.DENIED, enclave, "any", "worker", "nothing", [])


async def test_arguments_that_do_not_fit_a_frame_when_they_are_encoded_again_are_refused(enclave: Enclave) -> None:
    await boot(enclave)
    call, large = Call("desk", 0, ("parent",)), b"\x91\xc6" + MAX_BODY.to_bytes(4) + bytes(MAX_BODY)
    with pytest.raises(CallError) as caught:
        await request(enclave.host, call, "worker", "status", large, timeout=1.0, replica=None, every=False)
    assert caught.value.code is Code.INVALID


async def test_nobody_asks_while_the_state_is_handed_over_or_for_a_replica_that_is_gone(enclave: Enclave) -> None:
    await boot(enclave)
    with pytest.raises(CallError) as caught:
        await request(
            enclave.host, Call("desk", 9), "worker", "status", b"\x90", timeout=1.0, replica=None, every=False
        )
    assert caught.value.code is Code.UNAVAILABLE
    enclave.host.router.frozen = True
    with pytest.raises(CallError) as caught:
        await request(enclave.host, Call("desk", 0), "worker", "status", b"\x90", timeout=1.0, replica=None, every=True)
    assert caught.value.code is Code.UNAVAILABLE


async def test_what_a_worker_asked_ends_with_it_and_every_call_is_answered_once(enclave: Enclave, until: Any) -> None:
    await boot(enclave)
    asked = asyncio.ensure_future(enclave.call("desk", "all", "worker", "slow", [1.0, 1], 20.0))
    router = enclave.host.router
    await until(lambda: router.in_flight >= 3)
    os.kill(enclave.host.supervisors["desk"].pids[0], signal.SIGKILL)
    with pytest.raises(CallError) as caught:
        await asked
    assert caught.value.code is Code.UNAVAILABLE
    await until(lambda: router.in_flight == 0)
    intercom = enclave.host.providers.get("intercom")
    await until(lambda: intercom.usage()["requests_waiting"] == 0)
    figures = router.figures
    assert figures.calls == figures.replies + figures.errors


READER = """
from tea.sdk import Actor, operation

class Reader(Actor):
    def on_start(self) -> None:
        self.heard: list[str] = []
        self.intercom.subscribe("price", "hear", replay=True)

    @operation(only_from=("provider:intercom",))
    def hear(self, topic: str, body: bytes) -> None:
        self.heard.append(body.decode())

    @operation
    def said(self) -> list[str]:
        return self.heard
"""
FEED = """
from tea.sdk import Actor, operation

class Feed(Actor):
    @operation
    def say(self, text: str) -> int:
        return self.intercom.publish("price", text.encode())
"""
NEWS = """
  - {from: parent, to: reader, operations: [said]}
  - {from: parent, to: feed, operations: [say]}
  - {from: reader, to: intercom, operations: [subscribe]}
  - {from: feed, to: intercom, operations: [publish]}
"""
RETAINS = "  intercom: {topics: {price: {publish: [feed], subscribe: [reader], retain: true}}}"


async def test_a_replica_that_comes_back_and_one_of_a_new_revision_hear_the_last_message_first(
    enclave: Enclave, until: Any
) -> None:
    enclave.bundle("reader", READER, "Reader", capabilities={"intercom": ("subscribe",)})
    enclave.bundle("feed", FEED, "Feed", capabilities={"intercom": ("publish",)})
    news = {"links": NEWS, "providers": RETAINS, "issuer_capabilities": "intercom"}
    await enclave.push(enclave.manifest(**news))
    for text in ("one", "two"):
        assert await enclave.call("feed", "say", text) == 1
    assert await enclave.call("reader", "said") == ["one", "two"]
    supervisor = enclave.host.supervisors["reader"]
    os.kill(supervisor.pids[0], signal.SIGKILL)
    await until(lambda: supervisor.restarts == 1)
    await enclave.call("feed", "say", "three")
    assert await enclave.call("reader", "said") == ["two", "three"]
    enclave.bundle(
        "reader", READER + "# changed\n", "Reader", version="0.2.0", capabilities={"intercom": ("subscribe",)}
    )
    await enclave.push(enclave.manifest(revision=2, versions={"reader": "0.2.0"}, **news))
    await enclave.call("feed", "say", "four")
    assert await enclave.call("reader", "said") == ["three", "four"]
