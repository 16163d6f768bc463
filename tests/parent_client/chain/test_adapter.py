"""The adapter over a real chain: batches, caching, frames, reorganisations, a node that goes and comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import msgspec
import pytest

from tea.parent_client.chain import ChainAdapter, EvmSource, MappingWatch, Watch
from tea.protocol.channels import Adapter, BlockChanges, Head
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operations_of
from tea.simulator.chain import ChainServer
from tea.simulator.faults import LyingAdapter
from tea.trust.statetree import DiffWalk, StateTree


class Counting:
    """A source that counts what is asked of it; its faults are attributes."""

    def __init__(self, source: EvmSource) -> None:
        self.source = source
        self.read: list[int] = []
        self.down = False
        self.swell = 0
        self.conflicts = 0
        self.looked = asyncio.Event()

    @property
    def start(self) -> int:
        return self.source.start

    async def head(self) -> Head:
        self.looked.set()
        if self.down:
            raise CallError(Code.UNAVAILABLE, "the node is down")
        return await self.source.head()

    async def changes(self, height: int) -> BlockChanges:
        self.read.append(height)
        if self.conflicts:
            self.conflicts -= 1
            raise CallError(Code.CONFLICT, "replaced")
        found = await self.source.changes(height)
        if self.swell:
            return BlockChanges(found.head, {b"key/%d" % n: bytes(1000) for n in range(self.swell)})
        return found

    async def send_transaction(self, raw: bytes) -> bytes:
        return await self.source.send_transaction(raw)

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        return await self.source.account(address)

    async def close(self) -> None:
        await self.source.close()


@pytest.fixture
async def source(server: ChainServer) -> AsyncIterator[Counting]:
    assert server._runner is not None
    mapping = MappingWatch("0x" + server.chain.token.hex(), server.chain.balance_slot, "vyper")
    url = f"http://127.0.0.1:{server._runner.addresses[0][1]}"
    made = Counting(EvmSource(url, Watch(mappings=(mapping,))))
    yield made
    await made.close()


def heights(blocks: tuple[BlockChanges, ...]) -> list[int]:
    return [block.head.height for block in blocks]


async def test_blocks_come_in_order_up_to_the_head_and_no_further(server: ChainServer, source: Counting) -> None:
    server.methods.mine(9)
    adapter = ChainAdapter(source)
    assert heights(await adapter.blocks(0, 5)) == [0, 1, 2, 3, 4]
    assert heights(await adapter.blocks(5, 100)) == [5, 6, 7, 8, 9, 10]
    assert await adapter.blocks(11, 5) == ()
    assert (await adapter.head()).height == 10


async def test_several_requests_read_a_block_once(server: ChainServer, source: Counting) -> None:
    server.methods.mine(5)
    adapter = ChainAdapter(source)
    first = await adapter.blocks(0, 6)
    assert await adapter.blocks(0, 6) == first
    assert sorted(source.read) == [0, 1, 2, 3, 4, 5]


async def test_what_is_kept_is_bounded(server: ChainServer, source: Counting) -> None:
    server.methods.mine(9)
    adapter = ChainAdapter(source, cache=3)
    await adapter.blocks(0, 11)
    assert sorted(adapter._cache) == [8, 9, 10]


async def test_as_many_blocks_as_fit_a_frame_are_answered(server: ChainServer, source: Counting) -> None:
    server.methods.mine(4)
    source.swell = 400
    answer = await ChainAdapter(source).blocks(0, 6)
    assert heights(answer) == [0, 1]
    assert len(msgspec.msgpack.encode(answer)) < 1 << 20


async def test_a_block_that_fits_no_frame_comes_in_parts(server: ChainServer, source: Counting) -> None:
    server.methods.mine(2)
    source.swell = 2000
    adapter = ChainAdapter(source)
    (first,) = await adapter.blocks(1, 6)
    assert (first.head.height, first.parts) == (1, 3)
    others = [await adapter.part(1, first.head.block_hash, number) for number in (1, 2)]
    sizes = [len(msgspec.msgpack.encode(first)), *(len(msgspec.msgpack.encode(part)) for part in others)]
    assert max(sizes) < 1 << 20
    whole = {key: value for part in (first.changes, *others) for key, value in part.items()}
    assert len(whole) == sum(map(len, (first.changes, *others)))
    assert whole == {b"key/%d" % n: bytes(1000) for n in range(2000)}
    # Another adapter, which was not asked for the block before, divides it alike.
    assert await ChainAdapter(source).part(1, first.head.block_hash, 2) == others[1]


async def test_a_part_that_is_not_there_is_refused(server: ChainServer, source: Counting) -> None:
    server.methods.mine(2)
    source.swell = 2000
    adapter = ChainAdapter(source)
    (first,) = await adapter.blocks(0, 1)
    for height, digest, number, code in (
        (0, first.head.block_hash, 0, Code.INVALID),
        (0, first.head.block_hash, 3, Code.INVALID),
        (0, first.head.block_hash, -1, Code.INVALID),
        (0, bytes(32), 1, Code.CONFLICT),
        (1, first.head.block_hash + b"x", 1, Code.CONFLICT),
        (-1, bytes(32), 1, Code.INVALID),
        (99, bytes(32), 1, Code.INVALID),
    ):
        with pytest.raises(CallError) as refused:
            await adapter.part(height, digest, number)
        assert refused.value.code is code


async def test_an_entry_that_fits_no_frame_is_refused_by_its_height(
    server: ChainServer, source: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def changes(height: int) -> BlockChanges:
        return BlockChanges((await source.source.changes(height)).head, {b"key": bytes(1 << 20)})

    monkeypatch.setattr(source, "changes", changes)
    with pytest.raises(CallError, match="leave it out") as refused:
        await ChainAdapter(source).blocks(0, 1)
    assert refused.value.code is Code.EXHAUSTED


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 0), (0, -5)])
async def test_a_request_before_the_first_watched_height_is_refused(source: Counting, start: int, count: int) -> None:
    with pytest.raises(CallError) as refused:
        await ChainAdapter(source).blocks(start, count)
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize("ahead", [0, 1, 5])
async def test_after_a_reorganisation_only_the_new_chain_is_served(
    server: ChainServer, source: Counting, ahead: int
) -> None:
    server.methods.mine(7)
    adapter = ChainAdapter(source)
    old = await adapter.blocks(0, 9)
    server.chain.reorganise(3)
    server.methods.mine(3 + ahead)
    # Asked from anywhere, an answer is linked; what follows the fork shows it, and asked again it is the new chain.
    await adapter.blocks(9, 50)
    blocks = await adapter.blocks(0, 50)
    assert heights(blocks) == list(range(9 + ahead))
    assert [new.head == kept.head for new, kept in zip(blocks, old, strict=False)] == [True] * 6 + [False] * 3
    for parent, child in itertools.pairwise(blocks):
        assert child.head.parent_hash == parent.head.block_hash
    assert adapter.reorganisations == 1


async def test_a_chain_that_shrank_is_served_as_it_is(server: ChainServer, source: Counting) -> None:
    server.methods.mine(7)
    adapter = ChainAdapter(source)
    await adapter.blocks(0, 9)
    server.chain.reorganise(3)
    assert heights(await adapter.blocks(0, 50)) == list(range(6))


async def test_a_block_replaced_while_it_is_read_is_read_again_and_then_given_up(
    server: ChainServer, source: Counting
) -> None:
    server.methods.mine(2)
    adapter = ChainAdapter(source)
    source.conflicts = 1
    assert heights(await adapter.blocks(0, 4)) == [0, 1, 2, 3]
    source.conflicts = 100
    with pytest.raises(CallError) as refused:
        await ChainAdapter(source).blocks(0, 4)
    assert refused.value.code is Code.UNAVAILABLE


async def test_finalized_heads_are_pushed_once_and_again_when_wished(server: ChainServer, source: Counting) -> None:
    heads: asyncio.Queue[Head] = asyncio.Queue()
    adapter = ChainAdapter(source, on_finalized=heads.put_nowait, poll=0.005)
    running = asyncio.create_task(adapter.run())
    async with asyncio.timeout(20):
        assert (await heads.get()).height == 1
        server.methods.mine(2)
        while (await heads.get()).height != 3:
            pass
        for _ in range(3):
            source.looked.clear()
            await source.looked.wait()
        assert heads.empty()
        adapter.push_again()
        assert (await heads.get()).height == 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_node_that_goes_is_unavailable_and_followed_again_when_it_comes(
    server: ChainServer, source: Counting
) -> None:
    heads: asyncio.Queue[Head] = asyncio.Queue()
    lines: list[tuple[str, str]] = []
    adapter = ChainAdapter(
        source, on_finalized=heads.put_nowait, log=lambda level, line: lines.append((level, line)), poll=0.005
    )
    source.down = True
    running = asyncio.create_task(adapter.run())
    async with asyncio.timeout(20):
        for _ in range(3):
            source.looked.clear()
            await source.looked.wait()
        with pytest.raises(CallError) as refused:
            await adapter.blocks(0, 1)
        assert refused.value.code is Code.UNAVAILABLE
        source.down = False
        assert (await heads.get()).height == 1
    assert [level for level, _ in lines] == ["warning", "info"]
    assert adapter.failures >= 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_accounts_and_transactions_pass_through(server: ChainServer, source: Counting) -> None:
    adapter = ChainAdapter(source)
    assert (await adapter.account(server.chain.accounts[0]))[2] == 1337
    for refused_call in (adapter.account(b"short"), adapter.send_transaction(b"none")):
        with pytest.raises(CallError) as refused:
            await refused_call
        assert refused.value.code is Code.INVALID


def test_it_answers_every_operation_of_the_channel() -> None:
    assert operations_of(ChainAdapter).keys() == operations_of(Adapter).keys() == operations_of(LyingAdapter).keys()


async def test_a_lie_over_a_real_chain_is_found_with_its_key(server: ChainServer, source: Counting) -> None:
    server.methods.mine(6)
    adapter = ChainAdapter(source)
    liar = LyingAdapter(adapter, 4, 1)
    states = []
    for one in (adapter, liar):
        tree = StateTree()
        for block in await one.blocks(0, 100):
            tree = tree.apply(block.changes)
        states.append(tree)
    walk = DiffWalk(states[0], states[1].root)
    while (prefix := walk.wanted) is not None:
        walk.feed(states[1].node(prefix))
    assert liar.lie is not None
    assert walk.difference is not None
    assert walk.difference.key == liar.lie.key
