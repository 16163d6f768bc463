"""Upgrade in place: what a higher revision changes takes effect at once, loses no call, and is rolled back whole.

Rule: docs/architecture.md, "Boot" and "Changing a provider in place".
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code

Enclave = Any

KEEPER = """
from tea.sdk import Actor, operation

class Keeper(Actor):
    @operation
    def put(self, key: str, value: bytes, namespace: str) -> None:
        self.kvp.set(key, value, namespace=namespace)

    @operation
    def get(self, key: str, namespace: str) -> bytes | None:
        return self.kvp.get(key, namespace=namespace)

    @operation
    def number(self) -> int:
        return self.replica
"""
LINKS = """
  - {from: parent, to: keeper, operations: [put, get, number]}
  - {from: keeper, to: kvp, operations: [get, set]}
"""
USES_KVP = {"kvp": ("get", "set")}
BOARD = "  kvp: {shared: {board: {read: [keeper], write: [keeper], bytes: 100000}}}"
BOARD_AND_WALL = BOARD.replace("100000}}}", "100000}, wall: {read: [keeper], write: [keeper]}}}")


def build(enclave: Enclave, source: str = KEEPER, version: str = "0.1.0") -> None:
    enclave.bundle("keeper", source, "Keeper", version=version, capabilities=USES_KVP)


async def under_load(
    enclave: Enclave, change: Callable[[], Awaitable[object]], actor: str, operation: str, *args: object
) -> list[object]:
    """The answers to calls that never stopped while the change was made; every one was answered, or this raises."""
    answers: list[object] = []
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            answers.append(await enclave.call(actor, operation, *args))

    callers = [asyncio.ensure_future(caller()) for _ in range(16)]
    while len(answers) < 16:
        await asyncio.sleep(0)
    try:
        await change()
        seen = len(answers)
        while len(answers) < seen + 64:
            await asyncio.sleep(0)
    finally:
        over.set()
    await asyncio.gather(*callers)
    return answers


async def refused(enclave: Enclave, code: Code, *args: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await enclave.call(*args)
    assert caught.value.code is code
    return caught.value


# -- the configuration of providers


async def test_a_changed_configuration_serves_at_once_loses_no_call_and_restarts_nobody(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=BOARD))
    await enclave.call("keeper", "put", "k", b"v", "board")
    pids = enclave.host.supervisors["keeper"].pids
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "wall")

    async def upgrade() -> None:
        activation = await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=BOARD_AND_WALL))
        assert activation.started == ()

    answers = await under_load(enclave, upgrade, "keeper", "get", "k", "board")
    assert set(answers) == {b"v"}
    assert enclave.host.supervisors["keeper"].pids == pids
    await enclave.call("keeper", "put", "k", b"w", "wall")
    assert await enclave.call("keeper", "get", "k", "board") == b"v"
    await enclave.logged("revision 2 serves")
    figures = enclave.host.router.figures
    assert figures.calls == figures.replies + figures.errors


async def test_the_same_configuration_in_other_words_is_no_change(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers="  kvp: {}\n  layer1: {}"))
    await enclave.push(enclave.manifest(revision=2, links=LINKS, providers="  kvp: {shared: {}}\n  layer1: {start: 0}"))
    assert await enclave.call("keeper", "number") == 0


async def test_what_a_configuration_no_longer_grants_stops_at_once(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=BOARD_AND_WALL))
    await enclave.call("keeper", "put", "k", b"v", "wall")
    less = BOARD.replace("write: [keeper]", "write: []")
    await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=less))
    await refused(enclave, Code.DENIED, "keeper", "get", "k", "wall")
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "board")
    assert await enclave.call("keeper", "get", "k", "board") is None
    await enclave.push(enclave.manifest(revision=3, links=LINKS, providers=BOARD_AND_WALL))
    assert await enclave.call("keeper", "get", "k", "wall") is None  # it went with the namespace


async def test_a_lower_quota_keeps_what_is_there_and_refuses_more(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=BOARD))
    await enclave.call("keeper", "put", "k", b"x" * 5000, "board")
    await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=BOARD.replace("100000", "1000")))
    assert await enclave.call("keeper", "get", "k", "board") == b"x" * 5000
    await refused(enclave, Code.EXHAUSTED, "keeper", "put", "l", b"y", "board")


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("  layer1: {start: 0}", "  layer1: {start: 5}", "start cannot change while it runs .*: a new boot is needed"),
        ("  layer1: {max_key: 64}", "  layer1: {max_key: 32}", "max_key cannot become less"),
        (
            "  nitro: {}",
            "  nitro: {kms: {region: eu-west-1, key_id: 'arn:aws:kms:x'}}",
            "kms cannot change .*: a new boot",
        ),
        ("  clock: {}", "  clock: {timers: 0}", "timers"),
        ("  clock: {}", "  clock: {tickers: 7}", "tickers"),
    ],
)
async def test_a_change_that_cannot_be_made_in_place_is_refused_before_anything_has_changed(
    enclave: Enclave, before: str, after: str, why: str
) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=f"{BOARD}\n{before}"))
    events = len(await enclave.client.event_log())
    provider = before.split(":")[0].strip()
    with pytest.raises(CallError, match=f"{provider}.*{why}") as caught:
        await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=f"{BOARD_AND_WALL}\n{after}"))
    assert caught.value.details["step"] == "verifying-manifest"
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "wall")
    assert (await enclave.client.status()).enclave.revision == 1
    assert len(await enclave.client.event_log()) == events
    assert enclave.host.tracker.phase.value == "ready"


UNWELL = KEEPER.replace(
    "    @operation\n    def put",
    """    def on_start(self) -> None:
        self.kvp.set("begun", b"yes", namespace="wall")

    @operation(only_from=("host",))
    def health(self) -> None:
        if self.kvp.get("begun", namespace="wall") != b"yes":
            raise ValueError("it does not see its own revision's namespaces")
        raise ValueError("not well")

    @operation
    def put""",
)


async def test_a_revision_that_fails_its_health_check_leaves_every_configuration_as_it_was(enclave: Enclave) -> None:
    build(enclave)
    providers = "{}\n  log: {{level: {}}}\n  clock: {{timers: {}}}\n  crypto: {{max_handles: {}}}"
    before = providers.format(BOARD, "info", 5, 6)
    await enclave.push(enclave.manifest(links=LINKS, providers=before))
    await enclave.call("keeper", "put", "k", b"v", "board")
    held = {name: one.provider.config for name, one in enclave.host.providers.running.items()}
    build(enclave, UNWELL, "0.2.0")

    async def fail() -> None:
        after = providers.format(BOARD_AND_WALL.replace("100000", "10"), "debug", 50, 60)
        with pytest.raises(CallError, match="failed its health check") as caught:
            await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=after, versions={"keeper": "0.2.0"}))
        assert caught.value.details["step"] == "starting-workers"

    answers = await under_load(enclave, fail, "keeper", "get", "k", "board")
    assert set(answers) == {b"v"}
    assert {name: one.provider.config for name, one in enclave.host.providers.running.items()} == held
    await refused(enclave, Code.DENIED, "keeper", "get", "begun", "wall")
    await enclave.call("keeper", "put", "k", b"x" * 1000, "board")
    assert enclave.host.providers.get("kvp").usage()["namespaces"] == 1
    # The next one may be the same again, and well.
    build(enclave, UNWELL.replace('raise ValueError("not well")', "return None"), "0.3.0")
    await enclave.push(
        enclave.manifest(revision=2, links=LINKS, providers=BOARD_AND_WALL, versions={"keeper": "0.3.0"})
    )
    assert await enclave.call("keeper", "get", "begun", "wall") == b"yes"


async def test_a_revision_whose_new_provider_does_not_start_changes_no_other_provider(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tea.providers.clock import Clock

    async def fails(self: Clock, services: object) -> None:
        raise OSError("no clock here")

    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=BOARD))
    monkeypatch.setattr(Clock, "start", fails)
    with pytest.raises(CallError, match="clock"):
        await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=f"{BOARD_AND_WALL}\n  clock: {{}}"))
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "wall")
    assert enclave.host.providers.get("kvp").usage()["namespaces"] == 1


async def test_an_old_replica_reads_its_own_environment_until_the_new_one_serves(enclave: Enclave, until: Any) -> None:
    source = """
        import time
        from tea.sdk import Actor, operation

        class Reader(Actor):
            def on_start(self) -> None:
                self.first = self.env.get("COLOUR")
                time.sleep(SECONDS)

            @operation
            def colour(self) -> list[str]:
                return [self.first, self.env.get("COLOUR")]
        """
    links = "  - {from: parent, to: reader, operations: [colour]}\n  - {from: reader, to: env, operations: [get]}"
    fixed = {"links": links, "providers": "  env: {}", "issuer_capabilities": "env"}

    def manifest(revision: int, colour: str) -> str:
        text: str = enclave.manifest(
            revision=revision,
            extra=f"environment:\n  COLOUR: {{value: {colour}}}",
            actors={"reader": ", environment: [COLOUR]"},
            versions={"reader": f"0.{revision}.0"},
            **fixed,
        )
        return text

    enclave.bundle("reader", source.replace("SECONDS", "0"), "Reader", version="0.1.0", capabilities={"env": ("get",)})
    await enclave.push(manifest(1, "red"))
    enclave.bundle(
        "reader", source.replace("SECONDS", "0.5"), "Reader", version="0.2.0", capabilities={"env": ("get",)}
    )
    pushing = asyncio.ensure_future(enclave.push(manifest(2, "blue")))
    await until(lambda: "reader" in enclave.host.revisions.starting)
    while not pushing.done():
        assert await enclave.call("reader", "colour") in (["red", "red"], ["blue", "blue"])
    await pushing
    assert await enclave.call("reader", "colour") == ["blue", "blue"]


# -- what else a revision changes


async def test_more_and_fewer_replicas_lose_no_call(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    for revision, replicas in ((2, 3), (3, 1)):
        manifest = enclave.manifest(revision=revision, links=LINKS, actors={"keeper": f", replicas: {replicas}"})
        await under_load(enclave, lambda text=manifest: enclave.push(text), "keeper", "number")  # type: ignore[misc]
        assert enclave.host.supervisors["keeper"].running == replicas
    await enclave.host.drained()
    figures = enclave.host.router.figures
    assert figures.calls == figures.replies + figures.errors


async def test_changed_limits_hold_at_once_and_lose_no_call(enclave: Enclave) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors={"keeper": ", limits: {kvp_bytes: 100000}"}))
    await enclave.call("keeper", "put", "k", b"x" * 5000, "")
    less = enclave.manifest(revision=2, links=LINKS, actors={"keeper": ", limits: {kvp_bytes: 1000, mailbox: 200}"})
    answers = await under_load(enclave, lambda: enclave.push(less), "keeper", "get", "k", "")
    assert set(answers) == {b"x" * 5000}
    await refused(enclave, Code.EXHAUSTED, "keeper", "put", "l", b"y", "")
    [port] = enclave.host.supervisors["keeper"].group.ports
    assert port.mailbox == 200


async def test_a_link_that_comes_and_one_that_goes_lose_no_call_of_the_others(enclave: Enclave) -> None:
    build(enclave)
    without = LINKS.replace("[put, get, number]", "[get, number]")
    await enclave.push(enclave.manifest(links=without))
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "")
    for revision, links in ((2, LINKS), (3, without)):
        manifest = enclave.manifest(revision=revision, links=links)
        pids = enclave.host.supervisors["keeper"].pids
        await under_load(enclave, lambda text=manifest: enclave.push(text), "keeper", "number")  # type: ignore[misc]
        assert enclave.host.supervisors["keeper"].pids == pids  # who may call it is not its own affair
        if revision == 2:
            await enclave.call("keeper", "put", "k", b"v", "")
    await refused(enclave, Code.DENIED, "keeper", "put", "k", b"v", "")


async def test_a_changed_restart_policy_holds_for_a_replica_that_was_kept(enclave: Enclave, until: Any) -> None:
    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    supervisor = enclave.host.supervisors["keeper"]
    await enclave.push(
        enclave.manifest(revision=2, links=LINKS, actors={"keeper": ", restart: {intensity: 0, backoff_ms: 1}"})
    )
    assert enclave.host.supervisors["keeper"] is supervisor
    os.kill(supervisor.pids[0], signal.SIGKILL)
    await until(lambda: supervisor.failed)
    assert supervisor.restarts == 0


WAITS = """
import time
from tea.sdk import Actor, CallError, operation

class Waits(Actor):
    @operation
    def work(self, seconds: float) -> list[object]:
        time.sleep(seconds)
        said: list[object] = []
        for name in ("get", "set"):
            try:
                self.kvp["get"]("k") if name == "get" else self.kvp["set"]("k", b"v")
                said.append("done")
            except CallError as error:
                said.append(error.code.name)
        try:
            said.append(self.echo.echo("e"))
        except CallError as error:
            said.append(error.code.name)
        return said
"""
WAITS_LINKS = """
  - {from: parent, to: waits, operations: [work]}
  - {from: waits, to: kvp, operations: [get, set]}
  - {from: waits, to: echo, operations: [echo]}
"""


async def test_a_worker_that_drains_keeps_no_right_that_the_running_revision_does_not_give(
    enclave: Enclave, echo_source: str
) -> None:
    asks = {"kvp": ("get", "set"), "echo": ("echo",)}
    enclave.bundle("waits", WAITS, "Waits", capabilities=asks)
    enclave.bundle("echo", echo_source, "Echo")
    await enclave.push(enclave.manifest(links=WAITS_LINKS))
    assert await enclave.call("waits", "work", 0.0) == ["done", "done", "e"]
    draining = asyncio.ensure_future(enclave.call("waits", "work", 1.0))
    while not enclave.host.router.in_flight:
        await asyncio.sleep(0)
    enclave.bundle("waits", WAITS + "# less\n", "Waits", version="0.2.0", capabilities={"kvp": ("get",)})
    less = """
  - {from: parent, to: waits, operations: [work]}
  - {from: waits, to: kvp, operations: [get]}
"""
    await enclave.push(enclave.manifest(revision=2, links=less, versions={"waits": "0.2.0"}))
    assert not draining.done()
    assert await draining == ["done", "DENIED", "DENIED"]  # the call itself is answered, and not by a lost worker


async def test_a_provider_that_fails_at_the_switch_is_named_and_the_revision_serves(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tea.providers.clock import Clock

    def fails(self: Clock, config: object) -> None:
        raise OSError("a defect")

    build(enclave)
    await enclave.push(enclave.manifest(links=LINKS, providers=f"{BOARD}\n  clock: {{}}"))
    monkeypatch.setattr(Clock, "reconfigure", fails)
    await enclave.push(enclave.manifest(revision=2, links=LINKS, providers=f"{BOARD_AND_WALL}\n  clock: {{timers: 3}}"))
    await enclave.call("keeper", "put", "k", b"v", "wall")
    states = {one.name: one.state for one in (await enclave.client.status()).enclave.providers}
    assert states == {"kvp": "running", "clock": "failed: OSError"}
