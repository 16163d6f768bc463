"""`python -m tea.parent_client`: one runtime client for one enclave.

May not: import typer or rich: those are `teactl`'s. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import sys

from .daemon import parser, run


def main(argv: list[str] | None = None) -> int:
    """Run one client. Exit status 0, 1 when it could not start, 2 for wrong usage."""
    return run(parser("python -m tea.parent_client").parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
