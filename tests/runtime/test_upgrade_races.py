"""Upgrades that overlap: with a restart, with a drain that is still under way, with what old replicas may still say.

Rule: docs/architecture.md, "Boot", "Statements" and "Supervision".
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tea.protocol.errors import CallError
from tea.trust.sealing import SealError, seal

Enclave = Any
DIES_AND_RETURNS_SLOWLY = """
import os, time
from tea.sdk import Actor, operation

class Echo(Actor):
    def on_start(self) -> None:
        if self.kvp.incr("starts") > 1:
            print("comes back slowly")
            time.sleep(1.5)

    @operation
    def die(self) -> None:
        os._exit(3)
"""
PLAIN = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def die(self) -> None:
        return None
"""
LINKS = """
  - {from: parent, to: echo, operations: [die]}
  - {from: echo, to: kvp, operations: [incr]}
"""
PLAIN_LINKS = "  - {from: parent, to: echo, operations: [die]}"


async def test_a_replica_that_was_coming_back_when_its_revision_was_retired_does_not_live_on(enclave: Enclave) -> None:
    enclave.bundle("echo", DIES_AND_RETURNS_SLOWLY, "Echo", capabilities={"kvp": ("incr",)})
    await enclave.push(enclave.manifest(links=LINKS))
    old = enclave.host.supervisors["echo"]
    with pytest.raises(CallError):
        await enclave.call("echo", "die")
    await enclave.logged("comes back slowly")
    enclave.bundle("echo", PLAIN, "Echo", version="0.2.0")
    await enclave.push(enclave.manifest(revision=2, links=PLAIN_LINKS, versions={"echo": "0.2.0"}))
    async with asyncio.timeout(1.2):  # it is ended, not waited for
        await enclave.host.drained()
    assert old.pids == []
    assert old.group.ports == []


BUSY = """
import time
from tea.sdk import Actor, operation

class Busy(Actor):
    @operation
    def work(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.kvp.incr("worked")
"""
BUSY_LINKS = """
  - {from: parent, to: busy, operations: [work]}
  - {from: busy, to: kvp, operations: [incr]}
"""
ECHO_LINK = "  - {from: parent, to: echo, operations: [echo]}"


async def test_the_end_of_an_earlier_drain_takes_nothing_from_a_later_revision(
    enclave: Enclave, echo_source: str
) -> None:
    enclave.bundle("echo", echo_source, "Echo")
    enclave.bundle("busy", BUSY, "Busy", capabilities={"kvp": ("incr",)})
    await enclave.push(enclave.manifest(links=BUSY_LINKS))
    working = asyncio.ensure_future(enclave.call("busy", "work", 1.5))
    while not enclave.host.router.in_flight:
        await asyncio.sleep(0.005)
    # Revision 2 drops `busy`, which drains; revision 3 has it again, and one more provider, before the drain ends.
    busy = enclave.bundles.pop("busy")
    await enclave.push(enclave.manifest(revision=2, links=ECHO_LINK))
    enclave.bundles["busy"] = busy
    await enclave.push(enclave.manifest(revision=3, links=BUSY_LINKS, providers="  kvp: {}\n  clock: {}"))
    assert await enclave.call("busy", "work", 0.0) == 1
    assert await working == 2
    await enclave.host.drained()
    assert sorted(enclave.host.providers.running) == ["clock", "kvp"]
    assert await enclave.call("busy", "work", 0.0) == 3


async def test_a_replica_that_drains_speaks_as_its_own_revision_and_opens_nothing_of_the_next(
    enclave: Enclave, echo_source: str
) -> None:
    enclave.bundle("echo", echo_source, "Echo")
    first = await enclave.push(enclave.manifest(links=ECHO_LINK))
    measurement = enclave.host.measurement
    old = ("echo", enclave.host.revisions.bundle_digest("echo"))
    enclave.bundle("echo", echo_source + "# another\n", "Echo", version="0.2.0")
    second = await enclave.push(enclave.manifest(revision=2, links=ECHO_LINK, versions={"echo": "0.2.0"}))
    new = ("echo", enclave.host.revisions.bundle_digest("echo"))
    assert measurement.manifest_for(*new) == second.manifest_digest
    assert measurement.manifest_for(*old) == first.manifest_digest
    sealed = seal(
        measurement.sealing_public_key, b"secret", purpose="p", actor="echo", manifest_digest=second.manifest_digest
    )
    assert measurement.open_sealed(sealed, purpose="p", actor=new[0], bundle=new[1]) == b"secret"
    with pytest.raises(SealError):
        measurement.open_sealed(sealed, purpose="p", actor=old[0], bundle=old[1])


SUBSCRIBES_AND_FAILS = """
from tea.sdk import Actor, operation

class Echo(Actor):
    def on_start(self) -> None:
        self.clock.every(60.0, "tick", "t")
        raise ValueError("no start")

    @operation
    def tick(self, token: str) -> None:
        return None
"""


async def test_a_replica_that_did_not_start_leaves_no_timer_behind(enclave: Enclave) -> None:
    links = "  - {from: parent, to: echo, operations: [tick]}\n  - {from: echo, to: clock, operations: [every]}"
    providers = "  clock: {}"
    starts = SUBSCRIBES_AND_FAILS.replace('raise ValueError("no start")', "pass")
    enclave.bundle("echo", starts, "Echo", capabilities={"clock": ("every",)})
    await enclave.push(enclave.manifest(links=links, providers=providers))
    clock = enclave.host.providers.get("clock")
    before = clock.usage()
    enclave.bundle("echo", SUBSCRIBES_AND_FAILS, "Echo", version="0.2.0", capabilities={"clock": ("every",)})
    with pytest.raises(CallError, match="did not start"):
        await enclave.push(enclave.manifest(revision=2, links=links, providers=providers, versions={"echo": "0.2.0"}))
    assert clock.usage() == before


LIVES = """
from tea.sdk import Actor, operation

class Base(Actor):
    @operation
    def work(self) -> str:
        return "one"
"""
SLOW_TOP = """
import time
from tea.sdk import Actor, operation

class Top(Actor):
    def on_start(self) -> None:
        time.sleep(0.6)

    @operation
    def work(self) -> str:
        return self.base.work()
"""
TOP_LINKS = """
  - {from: parent, to: base, operations: [work]}
  - {from: top, to: base, operations: [work]}
"""
ESCALATES = {"base": ", restart: {strategy: escalate, intensity: 0}"}


async def test_an_actor_that_ends_for_good_while_its_revision_starts_refuses_that_revision_and_harms_no_other(
    enclave: Enclave, until: Any
) -> None:
    enclave.bundle("base", LIVES, "Base")
    enclave.bundle("top", SLOW_TOP.replace("0.6", "0"), "Top", capabilities={"base": ("work",)})
    await enclave.push(enclave.manifest(links=TOP_LINKS, actors=ESCALATES))
    enclave.bundle("base", LIVES.replace("one", "two"), "Base", version="0.2.0")
    enclave.bundle("top", SLOW_TOP, "Top", version="0.2.0", capabilities={"base": ("work",)})
    versions = {"base": "0.2.0", "top": "0.2.0"}
    manifest = enclave.manifest(revision=2, links=TOP_LINKS, actors=ESCALATES, versions=versions)
    pushing = asyncio.ensure_future(enclave.push(manifest))
    await until(lambda: "base" in enclave.host.revisions.starting and enclave.host.revisions.starting["base"].pids)
    starting = enclave.host.revisions.starting["base"]
    os.kill(starting.pids[0], signal.SIGKILL)  # it was ready; the one that calls it still starts
    with pytest.raises(CallError, match="base") as refused:
        await pushing
    assert refused.value.details["step"] == "starting-workers"
    assert starting.failed
    assert enclave.host.tracker.phase.value == "ready"
    assert enclave.host.failure is None
    assert await enclave.call("base", "work") == "one"


FRONT = """
import time
from tea.sdk import Actor, operation

class Front(Actor):
    @operation
    def through(self, seconds: float) -> object:
        time.sleep(seconds)
        return self.echo.echo("through")
"""
FRONT_LINKS = """
  - {from: parent, to: front, operations: [through]}
  - {from: front, to: echo, operations: [echo]}
"""


async def test_a_replica_that_outlived_an_upgrade_keeps_its_links_while_it_drains_in_the_next(
    enclave: Enclave, echo_source: str
) -> None:
    asks = {"echo": ("echo",)}
    enclave.bundle("echo", echo_source, "Echo")
    enclave.bundle("front", FRONT, "Front", capabilities=asks)
    await enclave.push(enclave.manifest(links=FRONT_LINKS))
    enclave.bundle("echo", echo_source, "Echo", version="0.2.0")
    await enclave.push(enclave.manifest(revision=2, links=FRONT_LINKS, versions={"echo": "0.2.0"}))
    waiting = asyncio.ensure_future(enclave.call("front", "through", 1.0))
    while not enclave.host.router.in_flight:
        await asyncio.sleep(0.005)
    enclave.bundle("front", FRONT, "Front", version="0.2.0", capabilities=asks)
    versions = {"echo": "0.2.0", "front": "0.2.0"}
    await enclave.push(enclave.manifest(revision=3, links=FRONT_LINKS, versions=versions))
    assert await waiting == "through"
