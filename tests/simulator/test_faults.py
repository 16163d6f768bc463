"""The lying adapter: one entry, one lie, in every answer, whoever asks for what."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.channels import Adapter, BlockChanges, Head
from tea.simulator.faults import LyingAdapter
from tea.trust.statetree import DiffWalk, StateTree

HEIGHTS = 20


def _digest(height: int) -> bytes:
    return hashlib.sha256(b"%d" % height).digest()


class Honest(Adapter):
    def __init__(self) -> None:
        self.tip = HEIGHTS

    async def head(self) -> Head:
        return Head(self.tip, _digest(self.tip), _digest(self.tip - 1), bytes(32), self.tip)

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        return tuple(
            BlockChanges(
                Head(height, _digest(height), _digest(height - 1), bytes(32), height),
                # Some blocks change nothing; entries come again, change, and go.
                {}
                if height % 3 == 1
                else {
                    b"key/%d" % (height % 4): None if height % 7 == 0 else b"%08d" % height,
                    b"own/%d" % height: b"x",
                },
            )
            for height in range(start, min(start + count, self.tip + 1))
        )

    async def send_transaction(self, raw: bytes) -> bytes:
        return hashlib.sha256(raw).digest()

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        return 1, bytes(32), 2, 3


async def trees(adapter: Adapter, batch: int) -> list[StateTree]:
    found: list[StateTree] = []
    tree = StateTree()
    while len(found) <= HEIGHTS:
        for block in await adapter.blocks(len(found), batch):
            tree = tree.apply(block.changes)
            found.append(tree)
    return found


@given(st.integers(0, HEIGHTS), st.integers(0, 50), st.integers(1, 9))
async def test_the_states_agree_before_the_lie_and_differ_in_that_key_ever_after(
    from_height: int, seed: int, batch: int
) -> None:
    liar = LyingAdapter(Honest(), from_height, seed)
    lies, truth = await trees(liar, batch), await trees(Honest(), 5)
    assert liar.lie is not None or from_height >= HEIGHTS - 1
    for height in range(HEIGHTS + 1):
        if liar.lie is None or height < liar.lie.height:
            assert lies[height].root == truth[height].root
            continue
        walk = DiffWalk(truth[height], lies[height].root)
        while (prefix := walk.wanted) is not None:
            walk.feed(lies[height].node(prefix))
        assert walk.difference is not None
        assert walk.difference.key == liar.lie.key
    # Another such liar, asked otherwise, tells the very same lie.
    again = LyingAdapter(Honest(), from_height, seed)
    await again.blocks(HEIGHTS - 2, 3)
    assert [tree.root for tree in await trees(again, 7)] == [tree.root for tree in lies]


async def test_seeds_give_different_lies() -> None:
    lies = set()
    for seed in range(10):
        liar = LyingAdapter(Honest(), 8, seed)
        await liar.blocks(0, HEIGHTS)
        lies.add(liar.lie)
    assert len(lies) > 3


async def test_a_key_that_the_block_no_longer_changes_is_lied_about_all_the_same() -> None:
    honest = Honest()
    liar = LyingAdapter(honest, 8, 1)
    await liar.blocks(0, HEIGHTS)
    assert liar.lie is not None

    async def empty(start: int, count: int) -> tuple[BlockChanges, ...]:
        return tuple(BlockChanges(block.head, {}) for block in await Honest().blocks(start, count))

    honest.blocks = empty  # type: ignore[method-assign]
    changed = [block.head.height for block in await liar.blocks(0, HEIGHTS) if block.changes]
    assert changed == [liar.lie.height]


async def test_a_lie_about_a_block_in_parts_is_told_once() -> None:
    class Divided(Honest):
        async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
            (block,) = await super().blocks(start, 1)
            return (BlockChanges(block.head, dict(list(block.changes.items())[:1]), max(1, len(block.changes))),)

        async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
            (block,) = await Honest.blocks(self, height, 1)
            return dict([list(block.changes.items())[number]])

    liar = LyingAdapter(Divided(), 5, 1)
    for height in range(HEIGHTS):
        (first,) = await liar.blocks(height, 1)
        (true,) = await Honest().blocks(height, 1)
        others = [await liar.part(height, first.head.block_hash, number) for number in range(1, first.parts)]
        whole = {key: value for part in (first.changes, *others) for key, value in part.items()}
        assert len(whole) == sum(map(len, (first.changes, *others)))
        assert list(whole) == list(true.changes)
        differs = {key for key in whole if whole[key] != true.changes[key]}
        there = liar.lie is not None and height >= liar.lie.height and liar.lie.key in true.changes
        assert differs == ({liar.lie.key} if liar.lie is not None and there else set())
    assert liar.lie is not None


async def test_all_else_passes_through() -> None:
    liar = LyingAdapter(Honest(), 0, 1)
    assert await liar.head() == await Honest().head()
    assert await liar.account(bytes(20)) == (1, bytes(32), 2, 3)
    assert await liar.send_transaction(b"raw") == hashlib.sha256(b"raw").digest()
    assert await liar.blocks(99, 1) == ()
