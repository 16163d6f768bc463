"""`python -m tea.simulator.parent`: a runtime client whose adapter lies from a height on.

May not: exist in production; the runtime client itself has no switch for lies. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import sys

from tea.parent_client.daemon import parser, run

from .faults import LyingAdapter


def main(argv: list[str] | None = None) -> int:
    """Run one lying client. Exit status 0, 1 when it could not start, 2 for wrong usage."""
    made = parser("python -m tea.simulator.parent")
    made.add_argument("--tamper-from", type=int, required=True, metavar="HEIGHT", help="the first height of the lie")
    made.add_argument("--seed", type=int, required=True, help="which entry is altered, and how")
    arguments = made.parse_args(argv)
    if arguments.chain is None:
        made.error("a lie needs a chain: give --chain")
    return run(arguments, lambda adapter: LyingAdapter(adapter, arguments.tamper_from, arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
