"""A block whose changes do not fit one frame: its parts, asked for one by one and put together, bounded.

May not: take more than `max_block` bytes of one block, or let a part say an entry anew. That a part is missing or made
up shows in the state root, as any lie of the parent's does. Rule: docs/architecture.md, "Providers" (layer1).
"""

from __future__ import annotations

from typing import Final, Protocol

from tea.protocol.channels import BlockChanges
from tea.protocol.errors import CallError, Code

from .answers import require_changes

ENTRY_BYTES: Final = 64
"""What an entry counts beside its key and value: about what a dict needs for it."""


class Ask(Protocol):
    """Asks the adapter. Raises `CallError`."""

    async def __call__(self, operation: str, *args: object) -> object: ...


async def read_whole(block: BlockChanges, ask: Ask, *, max_block: int, max_key: int, max_value: int) -> BlockChanges:
    """The block with the changes of all its parts; one of a single part as it is.

    Raises `CallError`: EXHAUSTED over `max_block` bytes, UNTRUSTED for parts that can't be, CONFLICT when the block was
    replaced meanwhile (the adapter says so), and what asking raises. Nothing is kept of a block that is not whole.
    """
    if block.parts == 1:
        return block
    height = block.head.height
    changes: dict[bytes, bytes | None] = {}
    size = 0
    for number in range(block.parts):
        if number:
            answer = await ask("part", height, block.head.block_hash, number)
            part = require_changes(answer, height=height, max_key=max_key, max_value=max_value)
        else:
            part = block.changes
        if not part:
            raise CallError(
                Code.UNTRUSTED,
                f"the parent's layer-1 adapter: part {number} of height {height} is empty",
                height=height,
            )
        size += sum(len(key) + len(value or b"") + ENTRY_BYTES for key, value in part.items())
        if size > max_block:
            raise CallError(
                Code.EXHAUSTED,
                f"height {height} changes more than the manifest's max_block of {max_block} bytes: watch less, or "
                "raise it",
                height=height,
            )
        before = len(changes)
        changes.update(part)
        if len(changes) != before + len(part):
            raise CallError(
                Code.UNTRUSTED,
                f"the parent's layer-1 adapter: part {number} of height {height} has an entry of an earlier part",
                height=height,
            )
    return BlockChanges(block.head, changes)
