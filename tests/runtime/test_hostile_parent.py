"""What a hostile parent may try with CONTROL: memory stays bounded, no phase gets stuck, shutdown always ends.

Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from tea.protocol.channels import BundleOffer, SettingsOffer
from tea.protocol.errors import CallError, Code
from tea.runtime.settings_store import MAX_CHUNK, SettingsStore

Enclave = Any
LINK = "  - {from: parent, to: echo, operations: [echo]}"
SLOW = """
import time
from tea.sdk import Actor, operation

class Echo(Actor):
    def on_start(self) -> None:
        print("starting slowly")
        time.sleep(1.0)

    @operation
    def echo(self, value: object) -> object:
        return value
"""


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def offer_of(*bundles: BundleOffer) -> SettingsOffer:
    return SettingsOffer(b"manifest", (), {}, bundles)


def test_chunks_of_an_offer_that_was_replaced_are_forgotten() -> None:
    store = SettingsStore()
    for number in range(3):
        data = number.to_bytes(4, "big") * 1024
        store.offer(offer_of(BundleOffer(digest(data), size=len(data), chunks=(digest(data),))))
        store.chunk(data)
    assert store.held == 4096


def test_a_chunk_that_the_next_offer_names_too_is_kept() -> None:
    store = SettingsStore()
    data = bytes(4096)
    offer = offer_of(BundleOffer(digest(data), size=len(data), chunks=(digest(data),)))
    store.offer(offer)
    store.chunk(data)
    assert store.offer(offer) == ()
    assert store.assemble()[1] == {digest(data): data}


def test_chunks_have_no_more_bytes_together_than_the_bundles_were_said_to_have() -> None:
    store = SettingsStore()
    first, second = bytes(MAX_CHUNK), b"\1" * MAX_CHUNK
    store.offer(offer_of(BundleOffer(digest(b"x"), size=4096, chunks=(digest(first), digest(second)))))
    with pytest.raises(CallError) as refused:
        store.chunk(first)
    assert refused.value.code is Code.INVALID
    assert store.held == 0


def test_one_chunk_named_many_times_is_not_joined_before_its_size_is_held_against_what_was_said() -> None:
    store = SettingsStore()
    chunk = bytes(MAX_CHUNK)
    many = 60_000  # 30 GB, were it joined
    store.offer(offer_of(BundleOffer(digest(b"x"), size=64 << 20, chunks=(digest(chunk),) * many)))
    store.chunk(chunk)
    with pytest.raises(CallError, match="bytes came"):
        store.assemble()


async def test_an_activation_goes_on_when_whoever_asked_gives_up(enclave: Enclave, until: Any) -> None:
    enclave.bundle("echo", SLOW, "Echo")
    pushing = asyncio.ensure_future(enclave.push(enclave.manifest(links=LINK)))
    await until(lambda: enclave.host.tracker.phase.value == "starting-workers")
    # A hostile parent gives its call a deadline that ends in the middle.
    with pytest.raises((TimeoutError, CallError)):
        async with asyncio.timeout(0.01):
            await enclave.host.activate()
    await pushing
    assert await enclave.call("echo", "echo", value=1) == 1


async def test_an_activation_whose_caller_is_gone_ends_and_leaves_no_phase_stuck(enclave: Enclave, until: Any) -> None:
    enclave.bundle("echo", SLOW, "Echo")
    activate = enclave.host.activate
    started = asyncio.Event()

    async def impatient() -> Any:
        started.set()
        async with asyncio.timeout(0.2):
            return await activate()

    enclave.host.activate = impatient
    with pytest.raises(CallError):
        await enclave.push(enclave.manifest(links=LINK))
    enclave.host.activate = activate
    await until(lambda: enclave.host.tracker.phase.value == "ready")
    assert await enclave.call("echo", "echo", value=1) == 1


async def test_a_defect_in_an_activation_does_not_leave_its_phase_stuck(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_args: object) -> None:
        raise KeyError("a defect")

    enclave.bundle("echo", SLOW.replace("time.sleep(1.0)", "pass"), "Echo")
    with monkeypatch.context() as patched:
        patched.setattr("tea.runtime.loader.resolve_environment", defect)
        with pytest.raises(CallError) as refused:
            await enclave.push(enclave.manifest(links=LINK))
    assert refused.value.code is Code.INTERNAL
    assert enclave.host.tracker.phase.value == "awaiting-settings"
    await enclave.push(enclave.manifest(links=LINK))
    assert await enclave.call("echo", "echo", value=1) == 1


async def test_a_shutdown_during_an_activation_ends_the_host_and_every_worker(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = enclave.host.zygote.spawn
    processes = []

    async def noted(*args: Any, **kwargs: Any) -> Any:
        process, connection = await spawn(*args, **kwargs)
        processes.append(process)
        return process, connection

    monkeypatch.setattr(enclave.host.zygote, "spawn", noted)
    enclave.bundle("echo", SLOW, "Echo")
    pushing = asyncio.ensure_future(enclave.push(enclave.manifest(links=LINK)))
    await enclave.logged("starting slowly")
    await asyncio.gather(enclave.host.shutdown(0.0), enclave.host.shutdown(0.0))
    with pytest.raises(CallError):
        await pushing
    assert enclave.host.tracker.phase.value == "stopped"
    assert not enclave.host.router.accepting
    assert len(processes) == 1
    async with asyncio.timeout(5):
        await processes[0].ended
