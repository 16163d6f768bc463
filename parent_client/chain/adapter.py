"""The adapter: serves a chain's blocks to the enclave, tells it finalized heads, and stays when the node goes.

May not: be believed by the enclave. A look at the head that fails is repeated after `poll` seconds, doubled with each
failure up to `MAX_BACKOFF`, with jitter, since many adapters may follow one node. Recent blocks' changes are kept, at
most `cache` of them, the lowest go first. A block that fits no frame goes out in parts, the same ones whenever it is
read, since its entries are sorted. Rule: docs/architecture.md, "Providers" (layer1).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from operator import itemgetter
from typing import Final

import msgspec

from tea.protocol.channels import Adapter, BlockChanges, Head
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY

from .source import ChainSource

MAX_COUNT: Final = 256
"""Blocks that one request gets at most."""
MAX_ANSWER: Final = MAX_BODY - (64 << 10)
"""Bytes of encoded blocks that one answer holds."""
MAX_BACKOFF: Final = 10.0
"""Longest wait after failures, in seconds."""
AT_ONCE: Final = 4
"""Blocks fetched side by side."""


_Part = dict[bytes, bytes | None]


class ChainAdapter(Adapter):
    """ADAPTER over a chain source. `run` pushes finalized heads to `on_finalized`."""

    def __init__(
        self,
        source: ChainSource,
        *,
        on_finalized: Callable[[Head], None] | None = None,
        log: Callable[[str, str], None] | None = None,
        poll: float = 0.5,
        cache: int = 512,
    ) -> None:
        """`poll` is seconds between looks at the node's head; `log` takes a level and a sentence."""
        self.source = source
        self.on_finalized = on_finalized
        self.failures = 0
        self.last_error: str | None = None
        self.reorganisations = 0
        self._log = log
        self._poll = poll
        self._bound = cache
        self._cache: dict[int, BlockChanges] = {}
        self._pushed: Head | None = None
        self._divided: tuple[bytes, list[_Part]] = (b"", [])
        """The block that was last divided into parts, by its hash."""

    async def run(self) -> None:
        """Watch the head until cancelled."""
        failed = 0
        while True:
            try:
                head = await self.head()
                failed = 0
            except CallError as error:
                failed += 1
                self.failures += 1
                self._note(str(error))
            else:
                self._note(None)
                if self._pushed is None or head.block_hash != self._pushed.block_hash:
                    self._pushed = head
                    if self.on_finalized is not None:
                        self.on_finalized(head)
            wait = min(self._poll * 2.0 ** min(failed, 10), max(MAX_BACKOFF, self._poll))
            await asyncio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - jitter

    def _note(self, error: str | None) -> None:
        if error == self.last_error:
            return  # one line a cause, not one a try
        self.last_error = error
        if self._log is not None:
            self._log(*(("info", "the chain node answers") if error is None else ("warning", error)))

    def push_again(self) -> None:
        """Push the head once more at the next look: the enclave has (re)connected."""
        self._pushed = None

    async def head(self) -> Head:
        head = await self.source.head()
        self._compare(head)
        return head

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        if start < self.source.start or count < 1:
            raise CallError(
                Code.INVALID,
                f"this adapter watches from height {self.source.start} on, {count} blocks from {start} were asked for: "
                "the layer1 provider's `start` and the adapter's must be the same",
            )
        head = await self.head()
        end = min(start + min(count, MAX_COUNT) - 1, head.height)
        for _ in range(2):
            try:
                return await self._read(start, end, head)
            except CallError as error:
                if error.code is not Code.CONFLICT:
                    raise
                # The chain changed under our hands: forget what was kept and read once more.
                self._forget()
                head = await self.head()
                end = min(end, head.height)
        raise CallError(Code.UNAVAILABLE, "the chain is being reorganised: ask again")

    async def send_transaction(self, raw: bytes) -> bytes:
        return await self.source.send_transaction(raw)

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        if len(address) != 20:
            raise CallError(Code.INVALID, f"an address has 20 bytes, this one {len(address)}")
        return await self.source.account(address)

    async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
        divided, parts = self._divided
        if divided != block_hash:
            if not self.source.start <= height <= (await self.head()).height:
                raise CallError(Code.INVALID, f"there is no height {height} here")
            (block,) = await self._several(height, height)
            if block.head.block_hash != block_hash:
                raise CallError(Code.CONFLICT, f"the block of height {height} was replaced: ask for it again")
            parts = await asyncio.to_thread(self._parts, block)
        if not 1 <= number < len(parts):
            raise CallError(Code.INVALID, f"the block of height {height} has parts 1 to {len(parts) - 1}, not {number}")
        return parts[number]

    # Reading and keeping.

    def _parts(self, block: BlockChanges) -> list[_Part]:
        parts: list[_Part] = [{}]
        size = 0
        for key, value in sorted(block.changes.items(), key=itemgetter(0)):
            more = len(msgspec.msgpack.encode((key, value)))
            if more > MAX_ANSWER:
                raise CallError(
                    Code.EXHAUSTED,
                    f"height {block.head.height} has an entry of {more} bytes, more than a frame holds: leave it out",
                    height=block.head.height,
                )
            if size + more > MAX_ANSWER and parts[-1]:
                parts.append({})
                size = 0
            parts[-1][key] = value
            size += more
        self._divided = (block.head.block_hash, parts)
        return parts

    async def _read(self, start: int, end: int, head: Head) -> tuple[BlockChanges, ...]:
        answer: list[BlockChanges] = []
        size = 0
        previous = self._cache.get(start - 1)
        for first in range(start, end + 1, AT_ONCE):
            for block in await self._several(first, min(first + AT_ONCE - 1, end)):
                if previous is not None and block.head.parent_hash != previous.head.block_hash:
                    raise CallError(Code.CONFLICT, f"height {block.head.height} is not linked to the one before")
                if block.head.height == head.height and block.head.block_hash != head.block_hash:
                    raise CallError(Code.CONFLICT, "the finalized head was replaced")
                previous = block
                size += len(msgspec.msgpack.encode(block))
                if size > MAX_ANSWER:
                    if answer:
                        return tuple(answer)
                    parts = await asyncio.to_thread(self._parts, block)
                    return (BlockChanges(block.head, parts[0], len(parts)),)
                answer.append(block)
        return tuple(answer)

    async def _several(self, first: int, last: int) -> list[BlockChanges]:
        heights = range(first, last + 1)
        missing = [height for height in heights if height not in self._cache]
        # gather would leave the others running when one fails; the group ends them.
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.source.changes(height)) for height in missing]
        except* CallError as errors:
            raise _first(errors) from None
        fresh = dict(zip(missing, (task.result() for task in tasks), strict=True))
        blocks = [fresh[height] if height in fresh else self._cache[height] for height in heights]
        self._cache.update(fresh)
        while len(self._cache) > self._bound:
            del self._cache[min(self._cache)]
        return blocks

    def _compare(self, head: Head) -> None:
        """Forget what is kept when the head shows that it is no longer on the chain."""
        kept = self._cache.get(head.height)
        below = self._cache.get(head.height - 1)
        replaced = kept is not None and kept.head.block_hash != head.block_hash
        if replaced or (below is not None and below.head.block_hash != head.parent_hash):
            self._forget()
            return
        for height in [height for height in self._cache if height > head.height]:
            del self._cache[height]

    def _forget(self) -> None:
        self.reorganisations += 1
        self._cache.clear()


def _first(errors: BaseExceptionGroup[CallError]) -> CallError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, CallError):
        raise error
    return error
