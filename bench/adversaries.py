"""`python -m bench.adversaries`: how much slower a neighbour gets while another actor misbehaves.

May not: judge; it prints the p99 of a neighbour's calls under each attack over its p99 in peace, in the same run. The
tests (`tests/runtime/test_adversaries.py`) hold that each attack is contained. Rule: docs/sandbox.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec
import uvloop
from tests.runtime.adversary import ENTRY, NAME, OPERATIONS, SOURCE

from tea.protocol.errors import CallError
from tea.protocol.frame import Frame, Kind, encode_frame

from .enclave import BenchEnclave, enclave

NEIGHBOUR = """
from tea.sdk import Actor, operation

class Neighbour(Actor):
    @operation
    def echo(self, value: int) -> int:
        return value

    @operation
    def who(self) -> str:
        return self.caller
"""
FIELDS = ", limits: {memory_mib: 64, in_flight: 64, mailbox: 64}"
LINKS = f"""
  - {{from: parent, to: neighbour, operations: [echo]}}
  - {{from: parent, to: victim, operations: [echo]}}
  - {{from: parent, to: {NAME}, operations: [{", ".join(OPERATIONS)}]}}
  - {{from: {NAME}, to: victim, operations: [echo, who]}}
  - {{from: {NAME}, to: kvp, operations: [get, set_add, set_contains, set_intersection, set_union]}}
  - {{from: {NAME}, to: intercom, operations: [request]}}
"""
ASKS = {
    "victim": ("echo", "who"),
    "kvp": ("get", "set_add", "set_contains", "set_intersection", "set_union"),
    "intercom": ("request",),
}
# One round of an attack; it is begun anew until the measurement is over.
Attack = Callable[[BenchEnclave], Awaitable[object]]


def operation(name: str, *arguments: object) -> Attack:
    return lambda made: made.call(NAME, name, *arguments)


ROUND_SECONDS = 0.5


def repeated(name: str, *arguments: object) -> Attack:
    """An attack that goes on within its worker, so that what is measured is not the harness's own calls."""
    return operation("repeat", ROUND_SECONDS, name, arguments)


GUESSES = b"".join(encode_frame(Frame(Kind.CALL, 0, 0, 1 << 20, 1000 + n, 0, 0, b"\x90")) for n in range(64))
REQUEST = b"\x93" + msgspec.msgpack.encode("victim") + msgspec.msgpack.encode("echo")
ATTACKS: dict[str, Attack] = {
    "refused system calls": repeated("call", "socket", [40, 1, 0]),
    "fatal system calls": operation("call", "ptrace", [16, 1, 0, 0]),
    "spins": operation("spin"),
    "eats memory": repeated("churn"),
    "floods its log": repeated("flood_log", 64),
    "floods another with calls": repeated("flood_calls", "victim", 640),
    "floods a provider": repeated("flood_calls", "kvp", 640),
    "nested lists": repeated("flood_bodies", "intercom", "request", 4, REQUEST, 1000),
    "lists of tiny texts": repeated("flood_bodies", "kvp", "set_union", 4, b"\x91", 1000, 0xA0),
    "joins large sets": repeated("join_sets", 4096, 64),
    "joins small sets": repeated("join_sets", 300, 64),
    "joins tiny sets": repeated("join_sets", 50, 64),
    "floods another with messages": repeated("flood_messages", "victim", 640),
    "guesses links": repeated("raw", GUESSES),
    "malformed frames": operation("raw", b"\xff" * 4096),
    "closes its socket": operation("close_socket"),
    "answers everything": operation("answer_everything"),
}


async def keep_attacking(made: BenchEnclave, attack: Attack) -> None:
    while True:
        try:
            await attack(made)
        except CallError:
            await asyncio.sleep(0.01)  # it is down, or was refused: again when it is back


async def p99(made: BenchEnclave, seconds: float) -> float:
    """Microseconds that all but one in a hundred of the neighbour's calls stay under."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        await made.call("neighbour", "echo", 1)
        taken.append(time.perf_counter() - start)
    return statistics.quantiles(taken, n=100)[98] * 1e6


async def measure(rounds: int, seconds: float, only: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, attack in ATTACKS.items():
        if only not in name:
            continue
        async with enclave() as made:
            made.actor("neighbour", NEIGHBOUR, "Neighbour")
            made.actor("victim", NEIGHBOUR, "Neighbour")
            made.actor(NAME, SOURCE, ENTRY, asks=ASKS, fields=FIELDS)
            await made.push(LINKS)
            await p99(made, 0.2)
            peace, war = [], []
            for _ in range(rounds):
                peace.append(await p99(made, seconds))
                attacking = asyncio.get_running_loop().create_task(keep_attacking(made, attack))
                await asyncio.sleep(0.05)
                war.append(await p99(made, seconds))
                attacking.cancel()
                # An attack that is under way goes on in its worker: a fresh one starts the next round in peace.
                for port in list(made.host.supervisors[NAME].group.ports):
                    port.abort()
                await asyncio.sleep(0.2)
        quiet, loud = statistics.median(peace), statistics.median(war)
        found[name] = {"p99_us_in_peace": quiet, "p99_us_under_attack": loud, "ratio": loud / quiet}
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the ratios; 1 when one is over 2."""
    parser = argparse.ArgumentParser(prog="python -m bench.adversaries", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(arguments.rounds, arguments.seconds, arguments.only))
    worst = max(one["ratio"] for one in found.values())
    if arguments.json:
        print(json.dumps({"attacks": found, "worst_ratio": worst}, indent=2))
    else:
        for name, one in found.items():
            quiet, loud = one["p99_us_in_peace"], one["p99_us_under_attack"]
            print(f"{name:<30} {quiet:8.0f} us -> {loud:8.0f} us  {one['ratio']:6.2f}x")
        print(f"worst: {worst:.2f}x")
    return 0 if worst <= 2 else 1


if __name__ == "__main__":
    sys.exit(main())
