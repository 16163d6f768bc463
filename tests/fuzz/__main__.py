"""`python tests/fuzz --seconds 60`: every target in a process of its own, two at a time; says executions a second.

May not: hide a crash: its input is left in build/fuzz and named; put it into tests/fuzz/corpus/TARGET and mend the
decoder, and the test of the corpus keeps it mended. Rule: docs/security.md, "Fuzzing".
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
SLACK = 90
"""Seconds for a target to start, to be instrumented and to end."""


class Outcome(NamedTuple):
    """What fuzzing one target gave."""

    name: str
    executions: int
    seconds: float
    status: int
    said: str


def fuzz(name: str, seconds: int) -> Outcome:
    """One target in a process of its own."""
    started = time.monotonic()
    command = [sys.executable, str(HERE / "fuzz_one.py"), name, str(seconds)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + SLACK, check=False
        )
        said, status = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        said, status = (late.stdout or b"").decode(errors="replace") + "\nit did not end", 1
    found = EXECUTED.search(said)
    return Outcome(name, int(found[1]) if found else 0, time.monotonic() - started, status, said)


def main() -> int:
    """0: clean; 1: a target crashed, or did not run."""
    names = sorted(path.name for path in (HERE / "corpus").iterdir() if path.is_dir())
    parser = argparse.ArgumentParser(prog="fuzz", description="fuzz every decoder of what strangers send")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", action="append", choices=names, help="only this one; repeat")
    arguments = parser.parse_args()
    chosen = arguments.target or names
    at_once = min(2, os.cpu_count() or 1, len(chosen))
    each = max(1, arguments.seconds * at_once // len(chosen))
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, each), chosen))
    failed = [one for one in outcomes if one.status != 0 or one.executions == 0]
    for one in outcomes:
        verdict = "CRASHED" if one in failed else "clean"
        print(f"{one.name:20} {one.executions:>10,} executions  {one.executions / each:>10,.0f} a second  {verdict}")
    total = sum(one.executions for one in outcomes)
    print(f"{'all':20} {total:>10,} executions  {total / (each * len(chosen)):>10,.0f} a second on one core")
    for one in failed:
        print(f"\n{one.name} ended with status {one.status}:\n{one.said[-4000:]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
