"""Faults on demand: a parent's adapter that lies about one entry, consistently.

May not: be imported by anything that follows a chain for real. One seed gives one lie.
Rule: docs/architecture.md, "Remote attestation of layer-1 state": the liar is to be named, with the key.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from tea.protocol.channels import Adapter, BlockChanges, Head

_LOOK: Final = 16
"""Blocks asked for at once while a block to lie about is looked for."""


class Lie(NamedTuple):
    """From `height` on, `key`'s true values are XORed with `mask`."""

    height: int
    key: bytes
    mask: bytes


class LyingAdapter(Adapter):
    """Passes an adapter on, but from a height on one watched entry has another value, in every answer, for ever.

    The entry is one that the first block at or after `from_height` changes; `lie` says which, once it is known.
    """

    def __init__(self, adapter: Adapter, from_height: int, seed: int) -> None:
        self._adapter = adapter
        self._from = from_height
        self._seed = seed
        self.lie: Lie | None = None

    async def head(self) -> Head:
        return await self._adapter.head()

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        blocks = await self._adapter.blocks(start, count)
        if not blocks or blocks[-1].head.height < self._from:
            return blocks
        lie = self.lie or await self._choose(blocks)
        return blocks if lie is None else tuple(_altered(block, lie) for block in blocks)

    async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
        changes = await self._adapter.part(height, block_hash, number)
        lie = self.lie
        return changes if lie is None or height < lie.height or lie.key not in changes else _bent(changes, lie)

    async def send_transaction(self, raw: bytes) -> bytes:
        return await self._adapter.send_transaction(raw)

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        return await self._adapter.account(address)

    async def _choose(self, blocks: tuple[BlockChanges, ...]) -> Lie | None:
        # From `from_height` itself, wherever this request began: the lie does not depend on who asks for what.
        last = blocks[-1].head.height
        height = self._from
        while self.lie is None and height <= last:
            looked = await self._adapter.blocks(height, min(_LOOK, last - height + 1))
            if not looked:
                break
            for block in looked:
                there = sorted(key for key, value in block.changes.items() if value)
                if there:
                    draw = random.Random(f"{self._seed} {block.head.height}")  # noqa: S311 - a reproducible fault
                    key = draw.choice(there)
                    value = block.changes[key] or b"\x00"
                    mask = bytes(len(value) - 1) + bytes((draw.randrange(1, 256),))
                    self.lie = Lie(block.head.height, key, mask)
                    break
            height = looked[-1].head.height + 1
        return self.lie


def _altered(block: BlockChanges, lie: Lie) -> BlockChanges:
    if block.head.height < lie.height:
        return block
    if (block.head.height > lie.height or block.parts > 1) and lie.key not in block.changes:
        return block
    # At the lie's own height the entry is there even when a reorganisation took it out of the true block.
    return BlockChanges(block.head, _bent(block.changes, lie), block.parts)


def _bent(changes: dict[bytes, bytes | None], lie: Lie) -> dict[bytes, bytes | None]:
    true = changes.get(lie.key) or b""
    width = max(len(true), len(lie.mask))
    bent = bytes(a ^ b for a, b in zip(true.rjust(width, b"\x00"), lie.mask.rjust(width, b"\x00"), strict=True))
    return {**changes, lie.key: bent}
