"""`python -m bench.actors`: calls between actors and to providers, worker starts and memory, against peers.

May not: compare figures of different runs. Medians of several rounds, everything in one run on one machine; with
--core everything is pinned to one core, as talkers that alternate are best placed. Rule: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from tea.runtime import busy_loop
from tea.runtime.supervisor import ActorSupervisor
from tea.runtime.worker import busy_poll

from . import peers
from .enclave import BenchEnclave, enclave

ECHO = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def echo(self, value: bytes) -> bytes:
        return value
"""
CALLER = """
import time
from tea.sdk import Actor, operation, together

VALUE = b"x" * 64

class Caller(Actor):
    @operation
    def sequence(self, rounds: int) -> list[float]:
        return self.measure(self.echo.echo, VALUE, rounds)

    @operation
    def provider(self, rounds: int) -> list[float]:
        self.kvp.set("key", VALUE)
        return self.measure(self.kvp.get, "key", rounds)

    def measure(self, call, argument, rounds):
        times = []
        clock = time.perf_counter
        for _ in range(rounds):
            start = clock()
            call(argument)
            times.append(clock() - start)
        times.sort()
        return [times[rounds // 2], times[rounds * 99 // 100], sum(times)]

    @operation
    def pipelined(self, rounds: int, window: int) -> float:
        begin = self.echo.later.echo
        some = window // 4
        start = time.perf_counter()
        with together():
            pending = [begin(VALUE) for _ in range(window)]
        for _ in range((rounds - window) // some):
            for one in pending[:some]:
                one.result()
            with together():
                pending = pending[some:] + [begin(VALUE) for _ in range(some)]
        for one in pending:
            one.result()
        return rounds / (time.perf_counter() - start)
"""
LINKS = """
  - {from: parent, to: caller, operations: [pipelined, provider, sequence]}
  - {from: caller, to: echo, operations: [echo]}
  - {from: caller, to: kvp, operations: [get, set]}
  - {from: parent, to: near, operations: [pipelined, sequence]}
  - {from: near, to: beside, operations: [echo], as: echo, direct: true}
"""
ASKS = {"echo": ("echo",), "kvp": ("get", "set")}


def private_mib(pid: int) -> float:
    """Memory that only this process has, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Clean", "Private_Dirty"))
    )
    return kilobytes / 1024


def proportional_mib(pid: int) -> float:
    """Memory of this process with its share of what it shares, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:"))


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes so far."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


async def calls(rounds: int, repeats: int) -> dict[str, float]:
    """Routed calls, pipelined calls, provider calls, calls over a direct link."""
    async with enclave() as made:
        made.actor("echo", ECHO, "Echo")
        made.actor("caller", CALLER, "Caller", asks=ASKS)
        made.actor("beside", ECHO, "Echo")
        made.actor("near", CALLER, "Caller", asks={"beside": ("echo",)})
        await made.push(LINKS)
        gc.freeze()
        pids = [os.getpid(), *made.pids("echo"), *made.pids("caller")]
        routed, provider, pipelined, cpu = [], [], [], []
        direct, direct_pipelined = [], []
        await made.call("caller", "sequence", 500)
        await made.call("near", "sequence", 500)
        for _ in range(repeats):
            before = cpu_seconds(pids)
            routed.append((await made.call("caller", "sequence", rounds))[0] * 1e6)
            cpu.append((cpu_seconds(pids) - before) / rounds * 1e6)
            provider.append((await made.call("caller", "provider", rounds))[0] * 1e6)
            pipelined.append(await made.call("caller", "pipelined", rounds * 40, 64))
            direct.append((await made.call("near", "sequence", rounds))[0] * 1e6)
            direct_pipelined.append(await made.call("near", "pipelined", rounds * 40, 64))
        if made.host.router.figures_of("beside").calls:
            raise RuntimeError("a direct link was not used: its figures would be the host's")
        return {
            "routed_p50_us": statistics.median(routed),
            "provider_p50_us": statistics.median(provider),
            "pipelined_per_s": statistics.median(pipelined),
            "cpu_us_per_call": statistics.median(cpu),
            "direct_p50_us": statistics.median(direct),
            "direct_pipelined_per_s": statistics.median(direct_pipelined),
        }


async def workers(count: int) -> dict[str, float]:
    """Starts, one at a time and then many; memory of idle ones."""
    async with enclave() as made:
        made.actor("echo", ECHO, "Echo")
        await made.push("  - {from: parent, to: echo, operations: [echo]}")
        (warm,) = made.pids("echo")
        starts = await _starts(made)
        private = private_mib(warm)
    async with enclave() as made:
        for number in range(0, count, 50):
            made.actor(f"echo{number}", ECHO, "Echo", fields=", replicas: 50")
        await made.push("  []")
        pids = [pid for supervisor in made.host.supervisors.values() for pid in supervisor.pids]
        total = sum(proportional_mib(pid) for pid in [*pids, os.getpid(), made.host.zygote.pid or 0] if pid)
        return {
            "worker_start_ms": statistics.median(starts),
            "worker_private_mib": private,
            "idle_workers": float(len(pids)),
            "idle_workers_total_mib": total,
        }


async def _starts(made: BenchEnclave, times: int = 15) -> list[float]:
    """Milliseconds from fork to the first reply, the bundle verified before."""
    found = []
    host = made.host
    plan = host.supervisors["echo"].plan
    group = host.router.groups["echo"]

    async def gone(actor: str, replica: int) -> None:
        return None

    for number in range(1, times + 1):
        supervisor = ActorSupervisor(plan, host.router, host.zygote, lambda port, level, text: None, gone, number)
        started = time.perf_counter()
        await supervisor.start()
        supervisor.serve()
        host.router.groups["echo"] = supervisor.group
        await made.call("echo", "echo", b"x")
        found.append((time.perf_counter() - started) * 1000)
        host.router.groups["echo"] = group
        await supervisor.stop(0)
    return found


def measure(rounds: int, repeats: int, core: int | None, *, with_peers: bool, looking: bool) -> dict[str, Any]:
    """All of it, as one JSON object."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    if not looking:
        busy_poll.has_cores = busy_loop.has_cores = lambda: False  # type: ignore[attr-defined]
    floor = peers.c_relay(rounds * 2, repeats)
    python = statistics.median(peers.python_socketpair(rounds) for _ in range(repeats))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours = runner.run(calls(rounds, repeats))
        ours |= runner.run(workers(200))
    result: dict[str, Any] = {
        "routed_p50_over_c_relay": ours["routed_p50_us"] / floor["routed"],
        "direct_p50_over_c_relay": ours["direct_p50_us"] / floor["routed"],
        "provider_call_over_socketpair": ours["provider_p50_us"] / python,
        **ours,
        "c_direct_p50_us": floor["direct"],
        "c_relay_p50_us": floor["routed"],
        "python_socketpair_p50_us": python,
        "core": core,
        "looking": busy_poll.has_cores(),
    }
    if with_peers:
        result |= _against_peers(ours, max(200, rounds // 10))
    return result


def _against_peers(ours: dict[str, float], rounds: int) -> dict[str, Any]:
    found = {
        "thespian_tcp": peers.attempt("Thespian TCP", lambda: peers.thespian("multiprocTCPBase", rounds)),
        "thespian_udp": peers.attempt("Thespian UDP", lambda: peers.thespian("multiprocUDPBase", rounds)),
        "pykka": peers.attempt("Pykka", lambda: peers.pykka(rounds)),
        "xoscar": peers.attempt("xoscar", lambda: peers.xoscar(rounds)),
        "pyzmq_routed": peers.attempt("pyzmq", lambda: peers.pyzmq(rounds)),
    }
    result: dict[str, Any] = {
        f"{name}_p50_us": figures[0] if figures is not None else None for name, figures in found.items()
    }
    result |= {f"{name}_per_s": figures[1] if figures is not None else None for name, figures in found.items()}
    tcp = found["thespian_tcp"]
    if tcp is not None:
        result["faster_than_thespian_tcp_p50"] = tcp[0] / ours["routed_p50_us"]
    rates = [figures[1] for name, figures in found.items() if name.startswith("thespian") and figures and figures[1]]
    if rates:
        result["pipelined_over_best_thespian"] = ours["pipelined_per_s"] / max(rates)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.actors", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--core", type=int, help="pin everything to one core")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-looking", action="store_true", help="who waits sleeps at once, as on one core")
    arguments = parser.parse_args()
    result = measure(
        arguments.rounds, arguments.repeats, arguments.core,
        with_peers=not arguments.no_peers, looking=not arguments.no_looking,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:32} {value:.2f}" if isinstance(value, float) else f"{name:32} {value}")


if __name__ == "__main__":
    main()
