"""One actor's long computations do not keep another's off the threads. Rule: docs/architecture.md, "Processes"."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code
from tea.runtime.fair_threads import AT_ONCE, CALLER, FairThreads

Enclave = Any


class Floor:
    """Four threads, and work that goes on until it is let go."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(4)
        self.threads = FairThreads(asyncio.get_running_loop(), self.executor)
        self.gate = threading.Event()
        self.started: list[str] = []

    def start(self, caller: str) -> asyncio.Task[Any]:
        async def run() -> None:
            CALLER.set(caller)
            await self.threads.run(self.work, caller)

        return asyncio.get_running_loop().create_task(run())

    def work(self, caller: str) -> None:
        self.started.append(caller)
        self.gate.wait(10)


@pytest.fixture
async def floor() -> AsyncIterator[Floor]:
    made = Floor()
    yield made
    made.gate.set()
    made.executor.shutdown()


async def test_an_actor_that_floods_the_threads_leaves_room_for_another(
    floor: Floor, until: Callable[..., Any]
) -> None:
    flood = [floor.start("hostile") for _ in range(50)]
    await until(lambda: len(floor.started) == AT_ONCE)
    other = floor.start("other")
    await until(lambda: "other" in floor.started)
    assert floor.started.count("hostile") == AT_ONCE
    floor.gate.set()
    await asyncio.gather(other, *flood)
    assert floor.started.count("hostile") == 50


async def test_work_whose_caller_gave_up_keeps_its_place_until_it_ends(floor: Floor, until: Callable[..., Any]) -> None:
    for _ in range(3):
        impatient = [floor.start("hostile") for _ in range(10)]
        await until(lambda: len(floor.started) == AT_ONCE)
        for one in impatient:
            one.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
    assert floor.started == ["hostile"] * AT_ONCE
    floor.gate.set()
    await floor.start("hostile")


VERIFIER = """
from tea.sdk import Actor, CallError, operation

class Verifier(Actor):
    @operation
    def verify(self) -> str:
        try:
            self.nitro.verify(b"", policy="tea: policy/1")
        except CallError as error:
            return error.code.name
        return "verified"
"""


async def test_what_a_provider_computes_is_counted_for_the_actor_that_called(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run = enclave.host.threads.run

    async def noted(function: Callable[..., Any], *args: object) -> Any:
        seen.append(CALLER.get())
        return await run(function, *args)

    monkeypatch.setattr(enclave.host.threads, "run", noted)
    enclave.bundle("verifier", VERIFIER, "Verifier", capabilities={"nitro": ("verify",)})
    links = (
        "  - {from: parent, to: verifier, operations: [verify]}\n  - {from: verifier, to: nitro, operations: [verify]}"
    )
    await enclave.push(enclave.manifest(links=links, providers="  nitro: {}", issuer_capabilities="nitro"))
    seen.clear()
    with pytest.raises(CallError) as refused:
        await enclave.call("verifier", "nothing")
    assert refused.value.code is Code.DENIED
    await enclave.call("verifier", "verify")
    assert seen == ["verifier"]
