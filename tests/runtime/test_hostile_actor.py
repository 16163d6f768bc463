"""What a hostile actor may say of itself, and what it may keep: bounded, checked, and nobody else's harm.

Rule: docs/architecture.md, "Processes", "Rights" and "Supervision".
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind
from tea.protocol.operations import OperationDescription, operation
from tea.providers.base import Call, Config, Provider
from tea.runtime.declared import MAX_DECLARED
from tea.runtime.in_flight import KEPT_BODY
from tea.runtime.poison import CRASHES, PoisonBook
from tea.runtime.provider_calls import ProviderCall
from tea.runtime.refusals import MAX_WHAT, Refusals
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.router import Router
from tea.runtime.worker.wire import MAX_LOG_LINE, LogLine, Ready
from tea.runtime.worker_port import WorkerPort

Enclave = Any


class Port(WorkerPort):
    """A port without a socket: frames go in by `frame`, and what it noted is in `notes`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        router = Router(asyncio.get_running_loop(), lambda what, error: None)
        super().__init__(
            router,
            ReplicaGroup("hostile"),
            0,
            bundle_digest=bytes(32),
            links={},
            in_flight_limit=4,
            mailbox=4,
            kvp_bytes=0,
            note=lambda port, level, text: self.notes.append(text),
        )

    def frame(self, frame: Frame) -> None:
        self._take(iter([frame]))

    def hello(self, *operations: OperationDescription) -> None:
        self.frame(Frame(Kind.HELLO, body=msgspec.msgpack.encode(Ready(operations))))


def named(name: str, doc: str = "") -> OperationDescription:
    return OperationDescription(name, (), "None", doc)


@pytest.mark.parametrize(
    "operations",
    [
        [named(f"o{number}") for number in range(1025)],
        [named("twice"), named("twice")],
        [named("")],
        [named("o" * 65)],
        [named("two words")],
        [named("es\x1b[2Jcape")],
        [named("wordy", "w" * 70_000)],
    ],
    ids=["too many", "one name twice", "no name", "a long name", "words", "an escape sequence", "a long text"],
)
async def test_a_hello_that_says_too_much_ends_the_worker(operations: list[OperationDescription]) -> None:
    port = Port()
    port.hello(*operations)
    assert port.violated is not None
    assert port.operation_numbers == {}
    assert not port.ready.done() or port.ready.exception() is not None


async def test_a_hello_that_is_too_long_is_not_decoded() -> None:
    port = Port()
    port.frame(Frame(Kind.HELLO, body=b"\xc1" * (MAX_DECLARED + 1)))
    assert port.violated is not None
    assert f"with {MAX_DECLARED + 1} bytes" in port.violated


@pytest.mark.parametrize(
    "body", [b"\xc1", b"\x91\x91\x94\xa1\xff\x90\xa0\xa0", b"\x91" * 5000], ids=["bytes", "text", "depth"]
)
@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.TELL])
async def test_a_hello_or_a_log_line_that_is_none_ends_the_worker(kind: Kind, body: bytes) -> None:
    port = Port()
    port.frame(Frame(kind, body=body if kind is Kind.HELLO else body.replace(b"\x91\x91\x94", b"\x92")))
    assert port.violated is not None
    assert "that is none" in port.violated


async def test_a_hello_within_bounds_is_taken() -> None:
    port = Port()
    port.hello(named("one", "What it does."), named("two"))
    assert port.violated is None
    assert port.operation_numbers == {"one": 0, "two": 1}


async def test_a_log_line_is_cut_by_the_host_too() -> None:
    port = Port()
    port.frame(Frame(Kind.TELL, body=msgspec.msgpack.encode(LogLine("info", "x" * 500_000))))
    assert [len(note) for note in port.notes] == [MAX_LOG_LINE]


def test_a_message_that_was_answered_since_is_no_longer_under_suspicion() -> None:
    book = PoisonBook()
    for _ in range(3 * CRASHES):
        assert book.ended_with("value", b"\x90") is None
        book.answered("value", b"\x90")
    assert not book.refuses("value", b"\x90")
    assert not book.suspects


def test_an_answer_to_another_message_clears_nobody() -> None:
    book = PoisonBook()
    for _ in range(CRASHES - 1):
        book.ended_with("value", b"\x91\x01")
        book.answered("value", b"\x91\x02")
        book.answered("other", b"\x91\x01")
    assert book.ended_with("value", b"\x91\x01") is not None
    assert book.refuses("value", b"\x91\x01")


async def test_large_arguments_are_not_kept_by_the_host_while_they_are_in_hand() -> None:
    port = Port()
    port.hello(named("take"))
    router = port._router
    for size in (KEPT_BODY, KEPT_BODY + 1):
        router.give(port, 0, Kind.TELL, None, 0, "take", bytes(size), "x", (), 0, 0)
    assert [pending.body is not None for pending in port.delivered.values()] == [True, False]


HOLDER = """
import time
from tea.sdk import Actor, CallError, operation

class Holder(Actor):
    said = "none"

    @operation
    def hold(self) -> None:
        time.sleep(0.4)
        try:
            self.vault.open()
        except CallError as error:
            self.said = f"{error.code.name}: {error.sentence}"
        else:
            self.said = "opened"

    @operation
    def outcome(self) -> str:
        return self.said
"""
VAULT = """
from tea.sdk import Actor, operation

class Vault(Actor):
    @operation
    def open(self) -> str:
        return "open"
"""


async def test_nobody_is_called_for_a_caller_who_was_answered_with_a_deadline(enclave: Enclave) -> None:
    enclave.bundle("vault", VAULT, "Vault")
    enclave.bundle("holder", HOLDER, "Holder", capabilities={"vault": ("open",)})
    links = """
  - {from: parent, to: holder, operations: [hold, outcome]}
  - {from: holder, to: vault, operations: [open], behind: [parent]}
"""
    await enclave.push(enclave.manifest(links=links))
    with pytest.raises(CallError) as late:
        await enclave.host.router.call("parent", "holder", "hold", b"\x90", timeout=0.1)
    assert late.value.code is Code.DEADLINE
    assert (await enclave.call("holder", "outcome")).startswith("DEADLINE: nobody waits")
    await enclave.call("holder", "hold")
    assert await enclave.call("holder", "outcome") == "opened"


def test_what_was_refused_is_counted_under_short_names() -> None:
    refusals = Refusals()
    assert refusals.count("x" * 100_000)
    assert not refusals.count("x" * 100_000)
    assert [len(name) for name in refusals.counts] == [MAX_WHAT]


class Endless(Provider[Config]):
    """A provider that answers nobody."""

    name = "endless"

    @operation
    async def wait(self, call: Call) -> None:
        """Waits for ever."""


async def test_what_a_provider_does_for_a_worker_ends_with_the_worker() -> None:
    ended = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    port = Port()
    router = port._router
    call = ProviderCall(port, 7, 0)
    router.figures.calls += 1
    router.provider_calls.run(call, Endless.operations()["wait"], "endless.wait", None, never())
    await asyncio.sleep(0)
    port.connection_lost(None)
    async with asyncio.timeout(1):
        await ended.wait()
    await asyncio.sleep(0)
    assert router.in_flight == 0
