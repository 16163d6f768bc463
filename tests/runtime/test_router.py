"""Rights and routing between actors: who is stamped as the caller, who stands behind, what is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

Enclave = Any

VAULT = """
from tea.sdk import Actor, operation

class Vault(Actor):
    def on_start(self) -> None:
        self.told: list[object] = []

    @operation
    def who(self) -> list[object]:
        return [self.caller, list(self.chain)]

    @operation
    def note(self, what: object) -> None:
        self.told.append([self.caller, list(self.chain), what])

    @operation
    def noted(self) -> list[object]:
        return self.told

    @operation(only_from=("front",))
    def for_front(self, *, unused: int = 0) -> str:
        return "yes"

    @operation
    def slow(self, seconds: float) -> str:
        import time
        time.sleep(seconds)
        return "done"

    @operation
    def named(self, first: int, second: int = 2) -> list[int]:
        return [first, second]
""".replace("self, *, unused: int = 0", "self")
DEPUTY = """
from tea.sdk import Actor, CallError, operation

class Deputy(Actor):
    @operation
    def ask(self) -> list[object]:
        return self.vault.who()

    @operation
    def denied(self) -> str:
        try:
            self.vault.noted()
        except CallError as error:
            return f"{error.code.name}: {error.sentence}"
        return "answered"

    @operation
    def by_name(self) -> list[int]:
        return self.vault.named(second=5, first=4)

    @operation
    def too_large(self) -> str:
        try:
            self.vault.note(bytes((1 << 20) - 100))
        except CallError as error:
            return error.code.name
        return "answered"
"""
FRONT = """
from tea.sdk import Actor, CallError, operation

class Front(Actor):
    @operation
    def through_deputy(self) -> list[object]:
        return self.deputy.ask()

    @operation
    def direct(self) -> str:
        return self.vault.for_front()
"""


def build(enclave: Enclave) -> None:
    enclave.bundle("vault", VAULT, "Vault")
    enclave.bundle("deputy", DEPUTY, "Deputy", capabilities={"vault": ("named", "note", "who")})
    enclave.bundle("front", FRONT, "Front", capabilities={"deputy": ("ask",), "vault": ("for_front",)})


LINKS = """
  - {from: parent, to: front, operations: [direct, through_deputy]}
  - {from: parent, to: deputy, operations: [ask, by_name, denied, too_large]}
  - {from: parent, to: vault, operations: [for_front, noted, slow, who]}
  - {from: front, to: deputy, operations: [ask]}
  - {from: front, to: vault, operations: [for_front]}
  - {from: deputy, to: vault, operations: [named, note, who]BEHIND}
"""


def links(behind: str = "") -> str:
    return LINKS.replace("BEHIND", behind)


async def test_the_router_stamps_caller_and_chain(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    assert await enclave.call("vault", "who") == ["parent", []]
    assert await enclave.call("deputy", "ask") == ["deputy", ["parent"]]
    assert await enclave.call("front", "through_deputy") == ["deputy", ["front", "parent"]]


async def test_calls_that_wait_side_by_side_keep_their_callers(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    slow = asyncio.create_task(enclave.call("vault", "slow", seconds=0.3))
    asked = [
        asyncio.create_task(enclave.call(*call))
        for _ in range(5)
        for call in (("vault", "who"), ("vault", "who"), ("deputy", "ask"), ("front", "through_deputy"))
    ]
    one_round = [["parent", []], ["parent", []], ["deputy", ["parent"]], ["deputy", ["front", "parent"]]]
    assert await asyncio.gather(*asked) == one_round * 5
    await slow


async def test_a_link_may_demand_who_stands_behind_the_call(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links(", behind: [front]")))
    assert await enclave.call("front", "through_deputy") == ["deputy", ["front", "parent"]]
    with pytest.raises(CallError, match="demands front behind the call") as refused:
        await enclave.call("deputy", "ask")
    assert refused.value.code is Code.DENIED


async def test_an_operation_may_refuse_by_its_caller(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    assert await enclave.call("front", "direct") == "yes"
    with pytest.raises(CallError) as refused:
        await enclave.call("vault", "for_front")
    assert refused.value.code is Code.DENIED


async def test_an_operation_that_the_link_does_not_grant_is_denied_with_those_it_does(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    answer = await enclave.call("deputy", "denied")
    assert answer.startswith("DENIED")
    assert "note" in answer


async def test_arguments_go_by_name_between_actors_too(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    assert await enclave.call("deputy", "by_name") == [4, 5]


async def test_a_message_that_is_told_carries_the_chain(enclave: Enclave, until: Any) -> None:
    enclave.bundle("vault", VAULT, "Vault")
    teller = """
from tea.sdk import Actor, operation

class Teller(Actor):
    @operation
    def go(self, what: object) -> None:
        self.vault.tell.note(what)
"""
    enclave.bundle("teller", teller, "Teller", capabilities={"vault": ("note",)})
    await enclave.push(
        enclave.manifest(
            links="""
  - {from: parent, to: teller, operations: [go]}
  - {from: parent, to: vault, operations: [noted]}
  - {from: teller, to: vault, operations: [note]}
"""
        )
    )
    await enclave.call("teller", "go", what="hello")
    async with asyncio.timeout(5):
        while not (noted := await enclave.call("vault", "noted")):
            await asyncio.sleep(0.01)
    assert noted == [["teller", ["parent"], "hello"]]
    await until(lambda: all(not port.delivered for port in enclave.host.router.groups["vault"].ports))


async def test_arguments_that_do_not_fit_a_frame_are_refused(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    assert await enclave.call("deputy", "too_large") in ("INVALID", "EXHAUSTED")
    assert await enclave.call("deputy", "ask") == ["deputy", ["parent"]]


async def test_a_circle_of_calls_is_refused_instead_of_waiting_for_ever(enclave: Enclave) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        source = f"""
from tea.sdk import Actor, operation

class {name.title()}(Actor):
    @operation
    def go(self) -> str:
        return self.{other}.go()
"""
        enclave.bundle(name, source, name.title(), capabilities={other: ("go",)})
    await enclave.push(
        enclave.manifest(
            links="""
  - {from: parent, to: left, operations: [go]}
  - {from: left, to: right, operations: [go]}
  - {from: right, to: left, operations: [go]}
"""
        )
    )
    with pytest.raises(CallError, match="never end") as refused:
        await enclave.call("left", "go")
    assert refused.value.code is Code.CONFLICT


async def test_a_full_mailbox_refuses_and_every_call_is_answered(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links(), actors={"vault": ", limits: {mailbox: 2}"}))
    results = await asyncio.gather(
        *(enclave.call("vault", "slow", seconds=0.2) for _ in range(6)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, CallError)]
    assert [result for result in results if result == "done"]
    assert refused
    assert all(error.code is Code.EXHAUSTED for error in refused)
    status = enclave.host.status()
    assert status.calls == status.replies + status.errors
    assert status.in_flight == 0


async def test_calls_go_to_the_least_loaded_replica(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links(), actors={"vault": ", replicas: 3"}))
    slow = [asyncio.create_task(enclave.call("vault", "slow", seconds=0.5)) for _ in range(2)]
    group = enclave.host.router.groups["vault"]
    async with asyncio.timeout(5):
        while sum(bool(port.delivered) for port in group.ports) < 2:
            await asyncio.sleep(0.005)
    assert await enclave.call("vault", "who") == ["parent", []]  # the third is free, so this does not wait
    assert not any(task.done() for task in slow)
    await asyncio.gather(*slow)


async def test_a_call_before_the_host_is_ready_is_answered_unavailable(enclave: Enclave) -> None:
    with pytest.raises(CallError) as refused:
        await enclave.call("vault", "who")
    assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(CallError) as refused:
        await enclave.host.router.call("provider:x", "vault", "who", b"\x90", timeout=1.0)
    assert refused.value.code is Code.UNAVAILABLE


async def test_a_message_to_nobody_is_a_dead_letter(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=links()))
    before = enclave.host.router.figures.dead_letters
    assert enclave.host.router.tell("provider:x", "nobody", "who", b"\x90") is False
    assert enclave.host.router.tell("provider:x", "vault", "unknown", b"\x90") is False
    assert enclave.host.router.figures.dead_letters == before + 2
