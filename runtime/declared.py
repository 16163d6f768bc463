"""What a worker may declare of its operations: few enough, short enough, under names that can be printed.

May not: believe that the sdk wrote it. Callers, the status and the wire's operation numbers depend on these bounds.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

from typing import Final

from .worker.wire import Ready

MAX_OPERATIONS: Final = 1024
MAX_NAME: Final = 64
"""Characters of an operation's name."""
MAX_DECLARED: Final = 64 << 10
"""Bytes of one HELLO: names, parameters and texts of all operations."""


def undeclarable(ready: Ready, size: int) -> str | None:
    """What is wrong with a HELLO of `size` bytes; None when it can be taken."""
    if size > MAX_DECLARED:
        return f"{size} bytes, at most {MAX_DECLARED} are taken: shorten the operations' texts"
    names = [description.name for description in ready.operations]
    if len(names) > MAX_OPERATIONS:
        return f"{len(names)} operations, at most {MAX_OPERATIONS} are taken"
    for name in names:
        if len(name) > MAX_NAME or not name.isidentifier():
            return f"an operation {name[:MAX_NAME]!r}, which is no identifier of at most {MAX_NAME} characters"
    if len(set(names)) != len(names):
        return "one operation twice"
    return None
