"""`python -m bench.wasm`: calls through a WASM actor and a Python actor that do the same, in one run.

May not: compare figures of different runs. Rule: docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import uvloop

from tea.parent_client.building import build

from .enclave import BenchEnclave, enclave

WASM = Path(__file__).resolve().parents[1] / "actors" / "wasm-counter"
COUNTER = """
from tea.sdk import Actor, CallError, Code, operation

class Counter(Actor):
    @operation
    def increment(self, by: int = 1) -> int:
        if by < 1:
            raise CallError(Code.INVALID, "a step is 1 or more")
        return self.kvp.incr("count", by)

    @operation
    def value(self) -> int:
        return int(self.kvp.get("count") or b"0")
"""
CALLER = """
import time
from tea.sdk import Actor, operation

class Caller(Actor):
    @operation
    def measure(self, wasm: bool, rounds: int) -> list[float]:
        call = (self.wasm if wasm else self.python).increment
        times = []
        clock = time.perf_counter
        for _ in range(rounds):
            start = clock()
            call(1)
            times.append(clock() - start)
        times.sort()
        return [times[rounds // 2], times[rounds * 99 // 100], rounds / sum(times)]
"""
LINKS = """
  - {from: parent, to: caller, operations: [measure]}
  - {from: caller, to: counter, as: python, operations: [increment]}
  - {from: caller, to: wasm-counter, as: wasm, operations: [increment]}
  - {from: counter, to: kvp, operations: [get, incr]}
  - {from: wasm-counter, to: kvp, operations: [get, incr]}
"""


async def measure(rounds: int, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` of the median call, the 99th percentile and calls a second, for both kinds."""
    async with enclave() as made:
        made.actor("caller", CALLER, "Caller", asks={"counter": ("increment",), "wasm-counter": ("increment",)})
        made.actor("counter", COUNTER, "Counter", asks={"kvp": ("get", "incr")})
        _add_wasm(made)
        await made.push(LINKS)
        results: dict[str, list[list[float]]] = {"python": [], "wasm": []}
        for kind in results:
            await made.call("caller", "measure", kind == "wasm", rounds // 10)
        for _ in range(repeats):
            for kind, found in results.items():
                found.append(await made.call("caller", "measure", kind == "wasm", rounds))
    figures: dict[str, Any] = {}
    for kind, found in results.items():
        p50, p99, rate = (statistics.median(values) for values in zip(*found, strict=True))
        figures |= {f"{kind}_p50_us": p50 * 1e6, f"{kind}_p99_us": p99 * 1e6, f"{kind}_per_s": rate}
    figures["wasm_over_python_p50"] = figures["wasm_p50_us"] / figures["python_p50_us"]
    return {name: round(value, 2) for name, value in figures.items()}


def _add_wasm(made: BenchEnclave) -> None:
    built = build(WASM / "bundle.yaml", made.key, made.folder / "built")
    made.bundles["wasm-counter"] = (built.path.read_bytes(), "")


def main() -> None:
    parser = argparse.ArgumentParser(description="calls through a WASM actor and a Python actor")
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = uvloop.run(measure(arguments.rounds, arguments.repeats))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
