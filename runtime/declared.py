"""What a worker may declare of its operations: few enough, short enough, under names that can be printed.

May not: believe that the sdk wrote it. Callers, the status and the wire's operation numbers depend on these bounds.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

from typing import Final

import msgspec

from .worker.wire import Ready

MAX_OPERATIONS: Final = 1024
MAX_NAME: Final = 64
"""Characters of an operation's name."""
MAX_DECLARED: Final = 64 << 10
"""Bytes of one HELLO: names, parameters and texts of all operations."""


def declared(body: bytes) -> Ready:
    """A HELLO's body. Raises `ValueError` on one that is none, or says too much: that one was not even decoded."""
    if len(body) > MAX_DECLARED:
        raise ValueError(f"with {len(body)} bytes, at most {MAX_DECLARED} are taken: shorten the operations' texts")
    try:
        ready = msgspec.msgpack.decode(body, type=Ready)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"that is none: {error}") from None
    wrong = _undeclarable(ready)
    if wrong is not None:
        raise ValueError(f"with {wrong}")
    return ready


def _undeclarable(ready: Ready) -> str | None:
    names = [description.name for description in ready.operations]
    if len(names) > MAX_OPERATIONS:
        return f"{len(names)} operations, at most {MAX_OPERATIONS} are taken"
    for name in names:
        if len(name) > MAX_NAME or not name.isidentifier():
            return f"an operation {name[:MAX_NAME]!r}, which is no identifier of at most {MAX_NAME} characters"
    if len(set(names)) != len(names):
        return "one operation twice"
    return None
