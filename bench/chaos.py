"""`python -m bench.chaos`: kill, pause and upgrade under load; every call must end in exactly one answer.

May not: forgive: a call without an answer, one with two, a process or a descriptor left over is a failure, exit 1.
Rule: docs/architecture.md, "Supervision"; the seed is printed, so that a run can be had again.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Kind
from tea.runtime.in_flight import UnderWay

from .enclave import BenchEnclave, enclave

IN_FLIGHT = 64
ECHO = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def echo(self, value: int) -> int:
        return value + self.kvp.incr("calls", 0) * 0

    @operation
    def edition(self) -> int:
        return EDITION
"""
FRONT = """
from tea.sdk import Actor, operation

class Front(Actor):
    @operation
    def through(self, value: int) -> int:
        return self.echo.echo(value)
"""
LINKS = """
  - {from: parent, to: echo, operations: [echo, edition]}
  - {from: parent, to: front, operations: [through]}
  - {from: front, to: echo, operations: [echo]}
  - {from: echo, to: kvp, operations: [incr]}
"""
DIRECT = LINKS.replace("to: echo, operations: [echo]}", "to: echo, operations: [echo], direct: true}")
"""The same, where calls from front to echo go from worker to worker."""
EXPECTED = {Code.UNAVAILABLE, Code.DEADLINE, Code.EXHAUSTED}


class Ledger:
    """Every call by its number, and how often it was answered. Is the calls' origin."""

    name = "parent"

    def __init__(self) -> None:
        self.answers = bytearray(1)
        self.outgoing: dict[int, UnderWay] = {}
        self.sent = 0
        self.answered = 0
        self.wrong = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.room = asyncio.Semaphore(IN_FLIGHT)

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        """Called by the router."""
        self.outgoing.pop(correlation, None)
        self.answers[correlation] = min(255, self.answers[correlation] + 1)
        if self.answers[correlation] > 1:
            return
        self.answered += 1
        self.room.release()
        if kind is Kind.ERROR:
            self.errors[CallError.decode(body).code.name] += 1
        elif msgspec.msgpack.decode(body) != correlation:
            self.wrong += 1


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    """Living children of this process."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in text.split()}


def build(made: BenchEnclave, edition: int) -> None:
    """The two actors; another edition of echo is another bundle."""
    quick = ", replicas: 3, restart: {intensity: 1000, period_s: 1, backoff_ms: 5, backoff_max_ms: 50}"
    made.actor("echo", ECHO.replace("EDITION", str(edition)), "Echo", asks={"kvp": ("incr",)}, fields=quick)
    made.actor("front", FRONT, "Front", asks={"echo": ("echo",)}, fields=quick)


async def load(made: BenchEnclave, ledger: Ledger, until: float) -> None:
    """Keep 64 calls in flight."""
    router = made.host.router
    while time.monotonic() < until:
        await ledger.room.acquire()
        ledger.sent += 1
        ledger.answers.append(0)
        actor, operation = ("echo", "echo") if ledger.sent % 2 else ("front", "through")
        body = msgspec.msgpack.encode([ledger.sent])
        router.submit(ledger, ledger.sent, "parent", actor, operation, body, timeout=5.0)
        if ledger.sent % 16 == 0:
            await asyncio.sleep(0)


async def trouble(
    made: BenchEnclave, links: str, chance: random.Random, until: float, did: collections.Counter[str]
) -> None:
    """One mischief after another."""
    edition = 1
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        pids = [pid for supervisor in made.host.supervisors.values() for pid in supervisor.pids]
        what = chance.choices(["kill", "pause", "zygote", "upgrade"], [8, 4, 1, 1])[0]
        if what == "kill" and pids:
            _signal(chance.choice(pids), signal.SIGKILL)
        elif what == "pause" and pids:
            pid = chance.choice(pids)
            if _signal(pid, signal.SIGSTOP):
                await asyncio.sleep(chance.uniform(0.01, 0.2))
                _signal(pid, signal.SIGCONT)
        elif what == "zygote" and made.host.zygote.pid:
            _signal(made.host.zygote.pid, signal.SIGKILL)
        elif what == "upgrade":
            edition += 1
            build(made, edition)
            try:
                await made.push(links)
            except CallError as error:
                did[f"upgrade refused: {error.code.name}"] += 1
                continue
        did[what] += 1


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def run(seconds: float, seed: int, links: str = LINKS) -> dict[str, Any]:
    """The whole; figures as one JSON object."""
    chance = random.Random(seed)
    did: collections.Counter[str] = collections.Counter()
    before_children = children()
    async with enclave() as made:
        build(made, 1)
        await made.push(links)
        ledger = Ledger()
        await asyncio.wait_for(load(made, ledger, time.monotonic() + 2), 30)  # warm: caches and pools are filled
        gc.collect()
        before, open_before = resident_mib(), descriptors()
        until = time.monotonic() + seconds
        await asyncio.gather(load(made, ledger, until), trouble(made, links, chance, until, did))
        async with asyncio.timeout(30):
            while ledger.answered < ledger.sent:  # noqa: ASYNC110 (each has a deadline of 5 s)
                await asyncio.sleep(0.05)
        await _settle(made)
        # Workers that were started anew have other spare lanes than the first ones had: these are as those were.
        build(made, 0)
        await made.push(links)
        await _settle(made)
        gc.collect()
        after, open_after = resident_mib(), descriptors()
        figures = made.host.router.figures
        balanced = figures.calls == figures.replies + figures.errors
    expected = sum(count for name, count in ledger.errors.items() if Code[name] in EXPECTED)
    return {
        "seed": seed,
        "seconds": seconds,
        "calls": ledger.sent,
        "answered": ledger.answered,
        "errors_expected": expected,
        "errors_unexpected": sum(ledger.errors.values()) - expected,
        "wrong_answers": ledger.wrong,
        "lost": ledger.sent - ledger.answered,
        "answered_twice": sum(count > 1 for count in ledger.answers),
        "router_balanced": balanced,
        "leaked_descriptors": max(0, open_after - open_before),
        "leaked_processes": len(children() - before_children),
        "rss_growth_mib": round(after - before, 1),
        "did": dict(did),
    }


async def _settle(made: BenchEnclave) -> None:
    """Until every replica is back and old revisions are drained."""
    async with asyncio.timeout(60):
        while not all(one.running == one.plan.replicas for one in made.host.supervisors.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await made.host.drained()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--direct", action="store_true", help="the link between the actors is direct")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(arguments.seconds, arguments.seed, DIRECT if arguments.direct else LINKS))
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")
    zero = ("lost", "answered_twice", "errors_unexpected", "wrong_answers", "leaked_descriptors", "leaked_processes")
    held = all(result[name] == 0 for name in zero) and result["router_balanced"] and result["rss_growth_mib"] < 10
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
