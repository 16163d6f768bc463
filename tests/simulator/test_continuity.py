"""A slot moves from one enclave to another: what was counted is there, and only one of the two serves.

May not: sleep; every process is a real one. Rule: docs/continuity.md, "By hand".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.registry import NetworkEntry, Registry
from tea.protocol.channels import Takeover
from tea.protocol.errors import CallError, Code
from tea.simulator.network import NetworkPlan, running
from tea.simulator.shipped import prepare, shipped
from tea.trust.approval import Approvers, approve
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest

KEY = PrivateKey.generate()


def manifest(pcr4: str, revision: int = 1) -> str:
    """The counter, in a slot that is an instance's."""
    text = shipped("manifests/counter.yaml").read_text().replace("revision: 1", f"revision: {revision}")
    return text.replace("  kvp: {}\n", "  kvp: {}\n  vmh: {}\n") + f"ra: {{members: {{e1: {{pcr4: '{pcr4}'}}}}}}\n"


async def teactl(home: Path, *arguments: str) -> Any:
    """What the command prints with --json."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tea.parent_client.cli", *arguments),
        env={**os.environ, "TEA_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return json.loads(out)


async def test_a_count_moves_to_a_new_enclave_and_the_old_one_serves_no_more(tmp_path: Path) -> None:
    names, approvers = ("e1", "e2", "e3"), Approvers("development", 1, 1, (KEY.public,))
    plan = NetworkPlan(tmp_path / "net", names, approvers, beside={"e2": "e1", "e3": "e1"})
    async with running(plan) as network:
        old, new, third = (network[name] for name in names)
        first, later = (
            prepare(manifest(network.members["e1"], revision), "counter.yaml", KEY, tmp_path / f"bundles{revision}")
            for revision in (1, 2)
        )
        await old.push(first.envelope, first.bundles)
        assert await old.call("counter", "increment", 41) == 41
        assert await old.call("counter", "increment", 1) == 42

        # One that waits serves nothing, says why, and is no holder that another could ask.
        await new.push(first.envelope, first.bundles, standby=True)
        with pytest.raises(CallError, match="waits for the state of slot e1") as waiting:
            await new.call("counter", "value")
        assert waiting.value.code is Code.UNAVAILABLE
        with pytest.raises(CallError) as unknown:
            await new.ask("take_over", "e9")
        assert unknown.value.code is Code.NOT_FOUND
        with pytest.raises(CallError) as no_standby:
            await old.push(later.envelope, later.bundles, standby=True)
        assert no_standby.value.code is Code.CONFLICT
        with pytest.raises(CallError) as holder:
            await old.ask("take_over", "e2")
        assert holder.value.code is Code.CONFLICT
        assert await old.call("counter", "value") == 42

        Registry(tmp_path / "home").write(
            NetworkEntry("default", "development", None, tuple(one.entry() for one in network.enclaves.values()))
        )
        assert await teactl(tmp_path / "home", "takeover", "--from", "e1", "-e", "e2", "--json") == {
            "ok": True,
            "slot": "e1",
            "term": 2,
        }
        assert await new.call("counter", "value") == 42
        assert await new.call("counter", "increment", 1) == 43

        # The old one has retired: calls are refused, a push does not wake it, and nobody takes over from it again.
        with pytest.raises(CallError, match="has handed slot e1 over and retired") as retired:
            await old.call("counter", "increment", 1)
        assert retired.value.code is Code.UNAVAILABLE
        await old.push(later.envelope, later.bundles)
        with pytest.raises(CallError, match="retired"):
            await old.call("counter", "value")
        status = (await old.status()).enclave
        assert status is not None and "retired" in status.detail
        await third.push(later.envelope, later.bundles, standby=True)
        with pytest.raises(CallError, match="retired") as refused:
            await third.ask("take_over", "e1")
        assert refused.value.code is Code.UNTRUSTED
        assert (await teactl(tmp_path / "home", "takeover", "--from", "e1", "-e", "e2", "--json"))["code"] == "CONFLICT"

        # An upgrade takes the state along, by a successor of a later revision.
        assert await third.ask("take_over", "e2") == Takeover("e1", 3, holder=True)
        assert await third.call("counter", "value") == 43
        with pytest.raises(CallError, match="retired"):
            await new.call("counter", "value")


async def test_a_take_over_under_load_loses_no_call_and_answers_none_twice(tmp_path: Path) -> None:
    """Callers turn to the new holder when the old one refuses, and never ask again what may have taken effect.

    The first who would take over cannot take the state in: the holder goes on, and loses nothing by it.
    """
    names, approvers = ("e1", "e2", "e3"), Approvers("development", 1, 1, (KEY.public,))
    plan = NetworkPlan(tmp_path / "net", names, approvers, beside={"e2": "e1", "e3": "e1"})
    async with running(plan) as network:
        old, new, unable = (network[name] for name in names)
        without_kvp = parse_manifest(
            "tea: manifest/1\ndeployment: development\nrevision: 2\nsandbox: prefer\nproviders: {vmh: {}}\n"
            f"ra: {{members: {{e1: {{pcr4: '{network.members['e1']}'}}}}}}\n"
        )
        await unable.push(approve(without_kvp.canonical(), KEY), (), standby=True)
        approved = prepare(manifest(network.members["e1"]), "counter.yaml", KEY, tmp_path / "bundles")
        await old.push(approved.envelope, approved.bundles)
        await new.push(approved.envelope, approved.bundles, standby=True)

        answers: list[int] = []
        refused: list[CallError] = []
        first, enough = asyncio.Event(), asyncio.Event()

        async def caller(each: int) -> None:
            at = old
            for _ in range(each):
                while True:
                    try:
                        answers.append(await at.call("counter", "increment", 1))
                        break
                    except CallError as error:
                        # Refused before anything was done: it may be asked again, of whoever serves.
                        assert error.code is Code.UNAVAILABLE, error
                        refused.append(error)
                        at = new if at is old else old
                first.set()
                if at is new:
                    enough.set()

        async def move() -> Takeover:
            await first.wait()
            with pytest.raises(CallError, match="a provider that does not run here") as refusal:
                await unable.ask("take_over", "e1")
            assert refusal.value.code is Code.CONFLICT
            taken: Takeover = await new.ask("take_over", "e1")
            return taken

        moved = asyncio.create_task(move())
        load = [asyncio.create_task(endless(caller, enough)) for _ in range(8)]
        assert await moved == Takeover("e1", 2, holder=True)
        await enough.wait()
        done = sum(await asyncio.gather(*load))

        # Every call was answered once, in one sequence over both holders, and the state has each of them once.
        assert sorted(answers) == list(range(1, done + 1))
        assert await new.call("counter", "value") == done
        assert refused
        with pytest.raises(CallError, match="has handed slot e1 over and retired") as fenced:
            await old.call("counter", "increment", 1)
        assert fenced.value.code is Code.UNAVAILABLE
        assert await new.call("counter", "increment", 1) == done + 1


async def endless(caller: Callable[[int], Awaitable[None]], enough: asyncio.Event) -> int:
    """Call until others have seen enough, and ten times more; how often."""
    count = 0
    while not enough.is_set():
        await caller(1)
        count += 1
    await caller(10)
    return count + 10


async def test_a_standby_without_a_slot_is_refused(tmp_path: Path) -> None:
    plan = NetworkPlan(tmp_path / "net", ("e1",), Approvers("development", 1, 1, (KEY.public,)))
    async with running(plan) as network:
        one = network["e1"]
        text = shipped("manifests/counter.yaml").read_text()
        approved = prepare(text, "counter.yaml", KEY, tmp_path / "bundles")
        with pytest.raises(CallError, match="a standby needs a slot") as refused:
            await one.push(approved.envelope, approved.bundles, standby=True)
        assert refused.value.code is Code.INVALID
        await one.push(approved.envelope, approved.bundles)
        assert await one.call("counter", "value") == 0
        with pytest.raises(CallError) as slotless:
            await one.ask("take_over", "e2")
        assert slotless.value.code is Code.CONFLICT
