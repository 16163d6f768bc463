"""`python -m bench`: every benchmark, one after the other, each its own process.

May not: run two at once: they would measure each other. Rule: docs/performance.md.
"""

from __future__ import annotations

import subprocess
import sys

BENCHES: tuple[tuple[str, list[str]], ...] = (
    ("actors", ["--rounds", "3000", "--repeats", "3"]),
    ("wasm", []),
    ("attestation", []),
    ("statetree", []),
    ("settings", []),
    ("image", []),
    ("chaos", ["--seconds", "20"]),
)


def main() -> int:
    worst = 0
    for name, arguments in BENCHES:
        print(f"== python -m bench.{name} {' '.join(arguments)}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
