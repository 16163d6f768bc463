"""The layer-1 state tree: a block of changes, its floor (the hashes that it cannot do without), bytes an entry.

May not: be imported by the project, or assert a time. Rule: docs/performance.md, "State tree".
`python -m bench.statetree [--json] [--entries N] [--changes N] [--rounds N]`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Mapping
from typing import Final

from tea.trust.statenode import INNER, INNER_HEAD, decode_node
from tea.trust.statetree import StateTree

KEY: Final = 32
VALUE: Final = 100
LEAF: Final = 13 + 5 + KEY + VALUE
"""Bytes that are hashed for a leaf: domain, head, key, value."""


def entries(count: int, chance: random.Random) -> dict[bytes, bytes]:
    """That many entries with keys of 32 and values of 100 bytes."""
    return {chance.randbytes(KEY): chance.randbytes(VALUE) for _ in range(count)}


def block(keys: list[bytes], count: int, chance: random.Random, kind: str) -> Mapping[bytes, bytes | None]:
    """One block: new values of entries that are there, or a mixture with new entries and deletions."""
    chosen = chance.sample(keys, count)
    if kind == "updates":
        return {key: chance.randbytes(VALUE) for key in chosen}
    changes: dict[bytes, bytes | None] = {}
    for number, key in enumerate(chosen):
        if number % 4 == 0:
            changes[chance.randbytes(KEY)] = chance.randbytes(VALUE)
        else:
            changes[key] = None if number % 4 == 1 else chance.randbytes(VALUE)
    return changes


def floor_ms(tree: StateTree, changes: Mapping[bytes, bytes | None]) -> tuple[int, float]:
    """(hashes, their time): each change's place and leaf once, and once each inner node above them."""
    prefixes: dict[bytes, int] = {}
    for key in changes:
        digits = hashlib.sha256(key).hexdigest()
        for depth in range(len(digits)):
            prefix = bytes(int(digit, 16) for digit in digits[:depth])
            if prefix in prefixes:
                continue
            try:
                node = tree.node(prefix)
            except Exception:  # noqa: BLE001 (there is none)
                break
            if node[0] != INNER:
                break
            prefixes[prefix] = len(node)
    inputs = [bytes(13 + size) for size in prefixes.values()]
    inputs += [bytes(LEAF)] * len(changes) + [bytes(KEY)] * len(changes)
    sha256, best = hashlib.sha256, float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for data in inputs:
            sha256(data).digest()
        best = min(best, time.perf_counter() - started)
    return len(inputs), best * 1000


def measure(count: int, changes: int, rounds: int) -> dict[str, object]:
    """All figures."""
    chance = random.Random(1)
    made = entries(count, chance)
    keys = list(made)
    gc.collect()
    started = time.perf_counter()
    tree = StateTree(made)
    built = time.perf_counter() - started
    assert decode_node(tree.node(b""), tree.root)
    assert INNER_HEAD.size == 3
    figures: dict[str, object] = {"entries": count, "changes": changes, "build_s": round(built, 2)}
    for kind in ("updates", "mixed"):
        times = []
        for _ in range(rounds):
            one = block(keys, changes, chance, kind)
            started = time.perf_counter()
            after = tree.apply(one)
            assert len(after.root) == 32
            times.append(time.perf_counter() - started)
        times.sort()
        hashes, floor = floor_ms(tree, one)
        figures[kind] = {
            "best_ms": round(times[0] * 1000, 2),
            "median_ms": round(times[len(times) // 2] * 1000, 2),
            "hashes": hashes,
            "hashes_ms": round(floor, 2),
            "over_hashes": round(times[0] * 1000 / floor, 2),
        }
    return figures


def overhead(count: int) -> float:
    """Bytes an entry beyond its key and value, when the tree alone keeps them."""
    chance = random.Random(2)
    made = {}
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    made = entries(count, chance)
    tree = StateTree(made)
    made.clear()
    del made
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tree) == count
    return (after - before) / count - KEY - VALUE


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="bench.statetree", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    figures = measure(arguments.entries, arguments.changes, arguments.rounds)
    figures["overhead_bytes"] = round(overhead(arguments.entries), 1)
    print(json.dumps(figures, indent=None if arguments.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
