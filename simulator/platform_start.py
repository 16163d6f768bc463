"""`python -m tea.simulator.platform_start`: a simulated platform for one machine: what its host is started with.

May not: write a secret anywhere but to standard output, which is its caller's pipe: {"module", "pcrs"} as JSON in, the
root's SHA-256 in hex, a newline and the encoded start out. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import json
import sys

from tea.providers.nitro.authority import NETWORK_LIFE, SimulatedCa
from tea.providers.nitro.start import SimulatedStart
from tea.trust.pcr import instance_of


def main() -> int:
    """0: written; 1: the request is none."""
    try:
        wanted = json.load(sys.stdin)
        module = str(wanted["module"])
        pcrs = {int(index): bytes.fromhex(value) for index, value in wanted["pcrs"].items()}
        authority = SimulatedCa.create()
        start = SimulatedStart(authority.issue_instance(instance_of(module), life=NETWORK_LIFE), module, pcrs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"no request for a platform: {error}\n")
        return 1
    sys.stdout.buffer.write(authority.root_digest.hex().encode() + b"\n" + start.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
