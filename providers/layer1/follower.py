"""Follows the finalized chain through the parent's adapter: pushed heads, a poll beside them, gaps and reorganisations.

May not: trust an answer's shape, order or links, or end because of one. A round that fails is tried again after
`poll` seconds, doubled with each failure up to `MAX_BACKOFF`; no jitter, since each enclave has a parent of its own.
Rule: docs/architecture.md, "Providers" (layer1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from tea.protocol.channels import BlockChanges, Head
from tea.protocol.errors import CallError, Code
from tea.trust.statetree import StateTree

from .answers import require_blocks, require_head
from .history import History, Version
from .parts import Ask, read_whole

MAX_BACKOFF: Final = 10.0
"""Longest wait after failures, in seconds."""
MIN_PAUSE: Final = 0.1
"""Shortest wait after a failure, in seconds, however often the parent pushes heads."""
MAX_REALIGNS: Final = 8
"""Reorganisations followed in one round; a chain that changes faster is left for the next."""
_MANY: Final = 100
"""Changes above which a block is hashed on a thread, so that the host's loop goes on."""


class Bounds(Protocol):
    """The provider's configuration, as far as following needs it."""

    @property
    def batch(self) -> int: ...
    @property
    def poll(self) -> float: ...
    @property
    def max_key(self) -> int: ...
    @property
    def max_value(self) -> int: ...
    @property
    def max_entries(self) -> int: ...
    @property
    def max_block(self) -> int: ...


class Follower:
    """Keeps a `History` at the finalized head. `on_version` is called for each new version, in order."""

    def __init__(
        self,
        history: History,
        ask: Ask,
        bounds: Bounds,
        *,
        on_version: Callable[[Version], None],
        log: Callable[[str, str], None],
        run_in_thread: Callable[..., Any],
    ) -> None:
        self.history = history
        self.reorganisations = 0
        self.reloads = 0
        self.failures = 0
        self.last_error: str | None = None
        self._ask = ask
        self._bounds = bounds
        self._on_version = on_version
        self._log = log
        self._run_in_thread = run_in_thread
        self._wake = asyncio.Event()

    def rebound(self, bounds: Bounds) -> None:
        """Follow within other bounds from now on."""
        self._bounds = bounds
        self.nudge()

    def nudge(self) -> None:
        """Look now: a head was pushed, or everything is to be loaded anew."""
        self._wake.set()

    def reload(self) -> None:
        """Forget the versions and load anew from the start."""
        self.reloads += 1
        self.history.clear()
        self.nudge()

    async def run(self) -> None:
        """Follow until cancelled."""
        failed = 0
        while True:
            self._wake.clear()
            try:
                await self.catch_up()
                failed = 0
                self.last_error = None
            except CallError as error:
                failed += 1
                self.failures += 1
                if str(error) != self.last_error:  # one line a cause, not one a try
                    self.last_error = str(error)
                    self._log("warning", f"layer 1 is not followed: {error}")
                await asyncio.sleep(MIN_PAUSE)
            wait = min(self._bounds.poll * 2.0 ** min(failed, 10), max(MAX_BACKOFF, self._bounds.poll))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def catch_up(self) -> None:
        """One round: extend the history to the adapter's finalized head. Raises `CallError`."""
        realigns = 0
        head = require_head(await self._ask("head"))
        known = self.history.at(head.height)
        if known is not None and known.head.block_hash != head.block_hash:
            # No taller block need come for this: a finalized block itself was replaced.
            realigns += 1
            await self._realign()
        while True:
            generation = self.history.generation
            blocks = await self._blocks(self.history.next_height, self._bounds.batch)
            if self.history.generation != generation:
                continue
            if not blocks:
                return
            if not self.history.follows(blocks[0].head):
                realigns += 1
                if realigns > MAX_REALIGNS:
                    raise CallError(Code.UNTRUSTED, "the adapter's finalized chain changes with every answer")
                await self._realign()
                continue
            for block in blocks:
                whole = await self._whole(block)
                if self.history.generation != generation or not await self._extend(whole, generation):
                    break

    async def _extend(self, block: BlockChanges, generation: int) -> bool:
        tip = self.history.tip
        tree = StateTree() if tip is None else tip.tree
        if len(block.changes) > _MANY:
            applied: _Applied = await self._run_in_thread(_apply, tree, block.changes)
            if self.history.generation != generation:
                return False
        else:
            applied = _apply(tree, block.changes)
        after, weighed = applied
        if len(after) > self._bounds.max_entries:
            raise CallError(
                Code.EXHAUSTED,
                f"height {block.head.height} would make {len(after)} entries, the manifest's max_entries is "
                f"{self._bounds.max_entries}: watch less or raise it",
            )
        self._on_version(self.history.extend(block.head, after, weighed))
        return True

    async def _whole(self, block: BlockChanges) -> BlockChanges:
        bounds = self._bounds
        return await read_whole(
            block, self._ask, max_block=bounds.max_block, max_key=bounds.max_key, max_value=bounds.max_value
        )

    async def _realign(self) -> None:
        """Rewind to the newest kept block that is still on the chain; without one, load anew from the start."""
        generation = self.history.generation
        tip = self.history.tip
        oldest = self.history.oldest
        top = tip.head.height if tip is not None else oldest - 1
        while top >= oldest:
            start = max(oldest, top - self._bounds.batch + 1)
            blocks = await self._blocks(start, top - start + 1)
            if self.history.generation != generation:
                return
            for block in reversed(blocks):
                mine = self.history.at(block.head.height)
                if mine is not None and mine.head.block_hash == block.head.block_hash:
                    self._reorganised(mine.head)
                    return
            top = start - 1
        self._reorganised(None)

    def _reorganised(self, ancestor: Head | None) -> None:
        self.reorganisations += 1
        if ancestor is not None:
            self._log("warning", f"finalized blocks were replaced: back to height {ancestor.height}")
            self.history.rewind(ancestor.height)
        else:
            self._log("warning", "finalized blocks were replaced beyond what is kept: loading anew")
            self.history.clear()

    async def _blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        answer = await self._ask("blocks", start, count)
        bounds = self._bounds
        return require_blocks(answer, start=start, count=count, max_key=bounds.max_key, max_value=bounds.max_value)


_Applied = tuple[StateTree, tuple[int, int]]


def _apply(tree: StateTree, changes: dict[bytes, bytes | None]) -> _Applied:
    """The tree after the changes, hashed and weighed: here, since this is the thread where there is one."""
    after = tree.apply(changes)
    _ = after.root
    return after, after.weighed(tree)
