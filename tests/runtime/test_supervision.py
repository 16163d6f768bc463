"""Supervision beyond one restart: poison messages, dependants, escalation, health checks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

Enclave = Any

BASE = """
import os
from tea.sdk import Actor, operation

class Base(Actor):
    @operation
    def work(self, how: str) -> str:
        if how == "die":
            os._exit(9)
        return how
"""
TOP = """
from tea.sdk import Actor, operation

class Top(Actor):
    @operation
    def work(self, how: str) -> str:
        return self.base.work(how)
"""
LINKS = """
  - {from: parent, to: base, operations: [work]}
  - {from: parent, to: top, operations: [work]}
  - {from: top, to: base, operations: [work]}
"""


def build(enclave: Enclave) -> None:
    enclave.bundle("base", BASE, "Base")
    enclave.bundle("top", TOP, "Top", capabilities={"base": ("work",)})


def restart(strategy: str, intensity: int = 50) -> dict[str, str]:
    fields = f"strategy: {strategy}, intensity: {intensity}, period_s: 60, backoff_ms: 1, backoff_max_ms: 10"
    return {"base": f", restart: {{{fields}}}"}


async def crash(enclave: Enclave, until: Any, times: int, how: str = "die") -> None:
    supervisor = enclave.host.supervisors["base"]
    for _ in range(times):
        before = supervisor.restarts
        with pytest.raises(CallError) as refused:
            await enclave.call("base", "work", how=how)
        assert refused.value.code is Code.UNAVAILABLE
        await until(lambda before=before: supervisor.restarts > before)


async def test_a_message_that_ends_its_worker_three_times_is_set_aside_with_its_digest(
    enclave: Enclave, until: Any
) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors=restart("one-for-one")))
    await crash(enclave, until, 3)
    with pytest.raises(CallError, match="set aside") as refused:
        await enclave.call("base", "work", how="die")
    assert refused.value.code is Code.INVALID
    assert "sha256:" in await enclave.logged("is set aside")
    assert await enclave.call("base", "work", how="live") == "live"
    assert enclave.host.supervisors["base"].restarts == 3


async def test_one_for_one_leaves_those_who_depend_on_it_alone(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors=restart("one-for-one")))
    before = enclave.host.supervisors["top"].pids
    await crash(enclave, until, 1)
    assert enclave.host.supervisors["top"].pids == before


async def test_rest_for_one_replaces_those_who_depend_on_it(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors=restart("rest-for-one")))
    before = enclave.host.supervisors["top"].pids
    await crash(enclave, until, 1)
    await until(lambda: enclave.host.supervisors["top"].pids not in (before, []))
    await until(lambda: enclave.host.supervisors["top"].running == 1)
    assert await enclave.call("top", "work", how="again") == "again"


async def test_escalate_ends_the_host_and_says_why(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors=restart("escalate", intensity=0)))
    with pytest.raises(CallError):
        await enclave.call("base", "work", how="die")
    await until(lambda: enclave.host.tracker.phase.value == "stopped")
    assert "base" in (enclave.host.failure or "")


HEALTHY = """
from tea.sdk import Actor, CallError, Code, operation

class Base(Actor):
    @operation(only_from=("host",))
    def health(self) -> None:
        HEALTH

    @operation
    def work(self, how: str) -> str:
        return "EDITION"
"""


async def test_an_upgrade_whose_health_check_fails_rolls_back_by_itself(enclave: Enclave) -> None:
    links = "  - {from: parent, to: base, operations: [work]}"
    enclave.bundle("base", HEALTHY.replace("HEALTH", "pass").replace("EDITION", "one"), "Base")
    await enclave.push(enclave.manifest(links=links))
    failing = HEALTHY.replace("HEALTH", "raise CallError(Code.UNAVAILABLE, 'no database')").replace("EDITION", "two")
    enclave.bundle("base", failing, "Base", version="0.2.0")
    with pytest.raises(CallError, match="no database") as refused:
        await enclave.push(enclave.manifest(revision=2, links=links, versions={"base": "0.2.0"}))
    assert refused.value.details["step"] == "starting-workers"
    assert await enclave.call("base", "work", how="x") == "one"
    assert enclave.host.status().revision == 1
    assert enclave.host.tracker.phase.value == "ready"


async def test_nobody_but_the_host_may_ask_for_health(enclave: Enclave) -> None:
    links = "  - {from: parent, to: base, operations: [health, work]}"
    enclave.bundle("base", HEALTHY.replace("HEALTH", "pass"), "Base")
    await enclave.push(enclave.manifest(links=links))
    with pytest.raises(CallError) as refused:
        await enclave.call("base", "health")
    assert refused.value.code is Code.DENIED


async def test_an_actor_that_waits_for_its_restart_is_stopped_at_once(enclave: Enclave, until: Any) -> None:
    build(enclave)
    fields = ", restart: {backoff_ms: 60000, backoff_max_ms: 60000}"
    await enclave.push(enclave.manifest(links=LINKS, actors={"base": fields}))
    with pytest.raises(CallError):
        await enclave.call("base", "work", how="die")
    supervisor = enclave.host.supervisors["base"]
    await until(lambda: bool(supervisor._crashes))
    async with asyncio.timeout(20):  # far below the delay, far above what a stop takes
        await supervisor.stop(0)
    assert supervisor.restarts == 0
