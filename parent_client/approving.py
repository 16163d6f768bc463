"""What commands for approvers have in common: whose key signs, and who approves after a chain of changes.

May not: sign, or take an approver that no quorum before has approved. Rule: docs/architecture.md, "Trust".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tea.trust.approval import MAX_ENVELOPE, Approvers, parse_approvers, verify_changes

from .files import read_bytes, read_text

Key = Annotated[str, typer.Option("--key", help="The approver's key: a name, a path, pkcs11:... or awskms:...")]
Password = Annotated[Path | None, typer.Option(help="File with the key's password, or the token's PIN.")]
Changes = Annotated[
    list[Path] | None, typer.Option("--change", help="Approved changes of the approvers; repeat, in order.")
]


def read_approvers(path: Path) -> Approvers:
    """The approvers of a file. Raises `Refusal`, `TrustError`."""
    return parse_approvers(read_text(path, "approvers' file"), str(path))


def current_approvers(path: Path, changes: Iterable[Path] | None) -> Approvers:
    """The approvers of a file, after a chain of changes, each verified. Raises `Refusal`, `TrustError`."""
    initial = read_approvers(path)
    return verify_changes(initial, [read_bytes(one, "change of approvers", MAX_ENVELOPE) for one in changes or ()])
