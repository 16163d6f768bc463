"""The layer-1 cache: follows, realigns, reloads, refuses what the parent makes up, and keeps evidence."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.channels import Adapter, BlockChanges, Channel, Head
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.layer1 import EvmTransaction, Layer1, StateAt
from tea.providers.layer1.history import History
from tea.providers.testing import InMemoryServices, invoke, start_provider
from tea.trust.statetree import DiffWalk, StateTree, verify_proof

RA = Call("ra", 0)


def block(height: int, parent: bytes, changes: dict[bytes, bytes | None], fork: str = "") -> BlockChanges:
    digest = hashlib.sha256(f"{fork}{height}".encode() + parent).digest()
    return BlockChanges(Head(height, digest, parent, hashlib.sha256(digest).digest(), 1000 + height), changes)


class Chain(Adapter):
    """An adapter over a list of blocks; its faults are attributes."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.all: list[BlockChanges] = []
        self.asked: list[tuple[int, int]] = []
        self.sent: list[bytes] = []
        self.at_most = 1000
        self.cut = 0
        self.parts_answer: Callable[[int, dict[bytes, bytes | None]], object] = lambda number, part: part
        self.parts_asked: list[int] = []
        self.answer: Callable[[tuple[BlockChanges, ...]], object] = lambda blocks: blocks
        self.down = False
        self.touched = asyncio.Event()

    def grow(self, count: int, fork: str = "") -> None:
        for _ in range(count):
            height = self.start + len(self.all)
            parent = self.all[-1].head.block_hash if self.all else bytes(32)
            changes: dict[bytes, bytes | None] = {
                b"account/%d" % (height % 5): f"{fork}{height}".encode(),
                b"block/%d" % height: b"x",
                b"block/%d" % (height - 3): None,
            }
            self.all.append(block(height, parent, changes, fork))

    def replace(self, depth: int, count: int, fork: str) -> None:
        del self.all[len(self.all) - depth :]
        self.grow(count, fork)

    def state(self, height: int) -> StateTree:
        tree = StateTree()
        for one in self.all[: height - self.start + 1]:
            tree = tree.apply(one.changes)
        return tree

    async def head(self) -> Head:
        self.touched.set()
        if self.down or not self.all:
            raise CallError(Code.UNAVAILABLE, "the node is down")
        return self.all[-1].head

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        self.touched.set()
        if self.down:
            raise CallError(Code.UNAVAILABLE, "the node is down")
        self.asked.append((start, count))
        place = max(0, start - self.start)
        found = tuple(self.all[place : place + min(count, self.at_most)])
        if self.cut:
            found = tuple(BlockChanges(one.head, parts[0], len(parts)) for one in found if (parts := self._parts(one)))
        return cast("tuple[BlockChanges, ...]", self.answer(found))

    def _parts(self, one: BlockChanges) -> list[dict[bytes, bytes | None]]:
        """A block's changes in parts of `cut` entries."""
        keys = sorted(one.changes)
        return [{key: one.changes[key] for key in keys[at : at + self.cut]} for at in range(0, len(keys), self.cut)]

    async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
        self.parts_asked.append(number)
        one = self.all[height - self.start]
        if one.head.block_hash != block_hash:
            raise CallError(Code.CONFLICT, "replaced")
        part = self.parts_answer(number, self._parts(one)[number])
        if isinstance(part, CallError):
            raise part
        return cast("dict[bytes, bytes | None]", part)

    async def send_transaction(self, raw: bytes) -> bytes:
        self.sent.append(raw)
        return bytes(32)

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        return 7, (10**24).to_bytes(32, "big"), 1337, 10**9


class Room:
    """A started provider with its adapter and services."""

    def __init__(self) -> None:
        self.services = InMemoryServices("layer1", actors=["ra", "other"])
        self.chain = Chain()
        self.provider: Layer1 = cast("Layer1", None)

    async def start(self, **config: object) -> None:
        self.services.parent.stand_in(Channel.ADAPTER, self.chain)
        self.provider = await start_provider(Layer1, self.services, {"poll": 0.01, **config})

    async def call(self, operation: str, *args: object, call: Call = RA) -> Any:
        return await invoke(self.provider, operation, *args, call=call)

    async def push(self) -> None:
        await self.services.parent.send(Channel.ADAPTER, "finalized", self.chain.all[-1].head)

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self.chain.touched.clear()
                await self.chain.touched.wait()

    @property
    def tip(self) -> Head | None:
        tip = self.provider._history.tip
        return None if tip is None else tip.head

    async def followed(self) -> None:
        await self.until(lambda: self.tip == self.chain.all[-1].head)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    yield made
    await made.services.close()
    assert made.services.failures == []


# Following.


async def test_it_follows_from_the_start_and_serves_every_height(room: Room) -> None:
    room.chain.grow(20)
    await room.start(batch=3)
    await room.followed()
    assert await room.call("height") == 19
    for height in (0, 7, 19):
        expected = room.chain.state(height)
        found: StateAt = await room.call("state_hash", height)
        head = room.chain.all[height].head
        assert (found.state_root, found.block_hash, found.chain_root) == (
            expected.root,
            head.block_hash,
            head.state_root,
        )
        assert await room.call("get", b"account/1", height) == expected.get(b"account/1")
        proof = await room.call("proof", b"account/1", height)
        assert verify_proof(found.state_root, b"account/1", proof) == expected.get(b"account/1")
    assert await room.call("head") == await room.call("state_hash")
    assert await room.call("get", b"block/19") == b"x"
    assert await room.call("get", b"nothing") is None


async def test_a_pushed_head_is_followed_without_waiting_for_the_poll(room: Room) -> None:
    room.chain.grow(3)
    await room.start(poll=600)
    await room.followed()
    room.chain.grow(40)  # a gap: only the last head is pushed
    await room.push()
    await room.followed()


async def test_heads_that_nobody_pushes_are_found_by_the_poll(room: Room) -> None:
    room.chain.grow(1)
    await room.start()
    await room.followed()
    room.chain.grow(1)
    await room.followed()


async def test_a_start_above_zero_takes_the_first_watched_block_as_it_is(room: Room) -> None:
    room.chain.start = 100
    room.chain.grow(5)
    await room.start(start=100)
    await room.followed()
    assert room.chain.asked[0][0] == 100
    assert (await room.call("status")).oldest == 100


async def test_an_adapter_that_answers_few_blocks_at_once_is_asked_again(room: Room) -> None:
    room.chain.grow(9)
    room.chain.at_most = 2
    await room.start()
    await room.followed()


async def test_many_changes_are_hashed_too(room: Room) -> None:
    room.chain.all.append(block(0, bytes(32), {b"key/%d" % n: b"v" for n in range(1000)}))
    await room.start()
    await room.followed()
    assert (await room.call("status")).entries == 1000
    assert (await room.call("head")).state_root == room.chain.state(0).root


async def test_only_the_newest_heights_are_kept(room: Room) -> None:
    room.chain.grow(30)
    await room.start(keep=5)
    await room.followed()
    assert len(room.provider._history) == 5
    await room.call("get", b"block/29", 25)
    with pytest.raises(CallError) as refused:
        await room.call("get", b"block/29", 24)
    assert refused.value.code is Code.NOT_FOUND


async def test_a_height_that_has_not_come_is_unavailable(room: Room) -> None:
    await room.start()
    for operation, args in [("height", ()), ("head", ()), ("get", (b"k",)), ("state_hash", ()), ("node", (0, b""))]:
        with pytest.raises(CallError) as refused:
            await room.call(operation, *args)
        assert refused.value.code is Code.UNAVAILABLE
    room.chain.grow(2)
    await room.followed()
    with pytest.raises(CallError) as refused:
        await room.call("state_hash", 2)
    assert refused.value.code is Code.UNAVAILABLE


async def test_a_parent_that_comes_back_is_followed_again_and_logged_once(room: Room) -> None:
    room.chain.grow(2)
    room.chain.down = True
    await room.start()
    await room.until(lambda: room.provider._follower.failures >= 3)
    assert len([record for record in room.services.logs if "not followed" in record.message]) == 1
    room.chain.down = False
    await room.push()
    await room.followed()


@pytest.mark.parametrize(("key", "code"), [(b"", Code.INVALID), (b"k" * 1025, Code.INVALID)])
async def test_keys_out_of_bounds_are_refused(room: Room, key: bytes, code: Code) -> None:
    room.chain.grow(1)
    await room.start()
    await room.followed()
    for operation in ("get", "proof"):
        with pytest.raises(CallError) as refused:
            await room.call(operation, key)
        assert refused.value.code is code


# Reorganisations.


@pytest.mark.parametrize(("depth", "count"), [(1, 1), (1, 2), (3, 3), (3, 10), (9, 9)])
async def test_replaced_blocks_are_rewound_to_the_common_ancestor(room: Room, depth: int, count: int) -> None:
    room.chain.grow(10)
    await room.start(batch=2)
    await room.followed()
    room.chain.replace(depth, count, "fork")
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(10 - depth + count - 1).root
    assert (await room.call("status")).reorganisations == 1
    assert (await room.call("status")).reloads == 0


async def test_blocks_replaced_beyond_what_is_kept_are_loaded_anew(room: Room) -> None:
    room.chain.grow(20)
    await room.start(keep=4)
    await room.followed()
    room.chain.replace(15, 16, "fork")
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(20).root


async def test_a_chain_that_changes_with_every_answer_does_not_end_the_following(room: Room) -> None:
    room.chain.grow(5)
    await room.start()
    await room.followed()
    honest = room.chain.answer

    def restless(blocks: tuple[BlockChanges, ...]) -> object:
        return tuple(
            BlockChanges(msgspec.structs.replace(one.head, parent_hash=bytes(32)), one.changes) if n == 0 else one
            for n, one in enumerate(blocks)
        )

    room.chain.answer = restless
    room.chain.grow(3)
    await room.until(lambda: room.provider._follower.last_error)
    assert "changes with every answer" in str(room.provider._follower.last_error)
    room.chain.answer = honest
    await room.followed()


async def test_a_node_that_lags_behind_takes_nothing_away(room: Room) -> None:
    room.chain.grow(10)
    await room.start()
    await room.followed()
    later = room.chain.all[5:]
    del room.chain.all[5:]
    polls = len(room.chain.asked)
    await room.until(lambda: len(room.chain.asked) > polls + 2)
    assert await room.call("height") == 9
    room.chain.all += later
    room.chain.grow(1)
    await room.followed()
    assert (await room.call("status")).reorganisations == 0


async def test_a_reload_while_blocks_are_on_their_way_starts_anew(room: Room) -> None:
    room.chain.grow(10)
    await room.start(batch=3)
    await room.followed()
    left = 3

    def interrupted(blocks: tuple[BlockChanges, ...]) -> object:
        nonlocal left
        if left:
            left -= 1
            room.provider._follower.reload()
        return blocks

    room.chain.answer = interrupted
    room.chain.replace(2, 4, "fork")
    await room.followed()
    assert left == 0
    assert (await room.call("head")).state_root == room.chain.state(11).root


async def test_a_reload_while_a_block_is_hashed_starts_anew(room: Room) -> None:
    room.chain.all.append(block(0, bytes(32), {b"key/%d" % n: b"v" for n in range(500)}))
    room.chain.grow(3)
    on_a_thread = room.services.run_in_thread
    interrupted = False

    async def run_in_thread(function: Callable[..., Any], *args: object) -> Any:
        nonlocal interrupted
        result = await on_a_thread(function, *args)
        if not interrupted:
            interrupted = True
            room.provider._follower.reload()
        return result

    room.services.run_in_thread = run_in_thread  # type: ignore[method-assign]
    await room.start()
    await room.followed()
    assert interrupted
    assert (await room.call("head")).state_root == room.chain.state(3).root


# A parent that makes things up.


def _bent(**fields: object) -> Callable[[tuple[BlockChanges, ...]], object]:
    return lambda blocks: tuple(
        BlockChanges(msgspec.structs.replace(one.head, **fields), one.changes) for one in blocks
    )


@pytest.mark.parametrize(
    "answer",
    [
        lambda blocks: (*blocks, *blocks),
        lambda blocks: blocks[::-1],
        lambda blocks: blocks[1:],
        lambda blocks: blocks[:1] + blocks[2:],
        lambda blocks: blocks * 1000,
        _bent(block_hash=b"short"),
        _bent(parent_hash=b""),
        _bent(state_root=bytes(33)),
        _bent(height=-1),
        _bent(timestamp=-1),
        _bent(height=2**63),
        lambda blocks: tuple(BlockChanges(one.head, {b"": b"v"}) for one in blocks),
        lambda blocks: tuple(BlockChanges(one.head, {b"k" * 300: b"v"}) for one in blocks),
        lambda blocks: tuple(BlockChanges(one.head, {b"k": b"v" * 2000}) for one in blocks),
        lambda blocks: tuple(BlockChanges(one.head, {b"key/%d" % n: b"v" for n in range(60)}) for one in blocks),
        lambda blocks: "no blocks",
        lambda blocks: None,
        lambda blocks: (1, 2),
        lambda blocks: [["head", {}]],
    ],
)
async def test_a_made_up_answer_changes_nothing_and_the_true_chain_is_followed_after_it(
    room: Room, answer: Callable[[tuple[BlockChanges, ...]], object]
) -> None:
    room.chain.grow(4)
    room.chain.answer = answer
    await room.start(max_entries=50)
    await room.until(lambda: room.provider._follower.failures)
    assert room.tip is None
    room.chain.answer = lambda blocks: blocks
    await room.push()
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(3).root


@pytest.mark.parametrize("answer", [None, 7, "head", [], ("x",) * 5])
async def test_a_head_that_is_none_is_refused_also_without_a_wire_between(room: Room, answer: object) -> None:
    room.chain.grow(1)
    await room.start()
    await room.followed()

    async def made_up(channel: int, operation: str, *args: object, timeout: float = 10.0) -> object:
        return answer

    room.services.parent.call = made_up  # type: ignore[method-assign]
    with pytest.raises(CallError) as refused:
        await room.provider._follower.catch_up()
    assert refused.value.code is Code.UNTRUSTED
    with pytest.raises(CallError) as refused:
        await room.call("account", bytes(20))
    assert refused.value.code is Code.UNTRUSTED


# Being told.


def told(room: Room, actor: str = "ra") -> list[tuple[object, ...]]:
    return [one.args for one in room.services.tells if one.actor == actor]


async def test_a_subscriber_is_told_each_block_once_in_order(room: Room) -> None:
    await room.start()
    await room.call("subscribe", "finalized")
    room.chain.grow(5)
    await room.followed()
    assert told(room) == [(h, room.chain.all[h].head.block_hash, room.chain.state(h).root) for h in range(5)]
    assert {(one.operation, one.replica) for one in room.services.tells} == {("finalized", 0)}


async def test_after_a_reorganisation_the_new_blocks_are_told_and_after_a_reload_none(room: Room) -> None:
    room.chain.grow(5)
    await room.start()
    await room.call("subscribe", "finalized")
    await room.followed()
    room.services.tells.clear()
    room.chain.replace(2, 3, "fork")
    await room.followed()
    assert [args[0] for args in told(room)] == [3, 4, 5]
    room.services.tells.clear()
    await room.call("reload")
    await room.followed()
    assert told(room) == []


async def test_a_reload_longer_than_what_is_kept_tells_nothing_old(room: Room) -> None:
    room.chain.grow(30)
    await room.start(keep=5)
    await room.followed()
    await room.call("subscribe", "finalized")
    await room.call("reload")
    await room.followed()
    assert told(room) == []


async def test_subscriptions_end_with_the_replica_the_actor_or_by_wish(room: Room) -> None:
    await room.start()
    for call in (Call("ra", 0), Call("ra", 1), Call("other", 0)):
        await room.call("subscribe", "finalized", call=call)
    await room.provider.replica_gone("ra", 1)
    await room.provider.forget("other")
    room.chain.grow(1)
    await room.followed()
    assert [(one.actor, one.replica) for one in room.services.tells] == [("ra", 0)]
    await room.call("unsubscribe")
    with pytest.raises(CallError) as refused:
        await room.call("unsubscribe")
    assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(CallError) as refused:
        await room.call("subscribe", "not an operation")
    assert refused.value.code is Code.INVALID


async def test_what_a_full_mailbox_drops_is_counted(room: Room) -> None:
    await room.start()
    await room.call("subscribe", "finalized")
    room.services.full.add("ra")
    room.chain.grow(3)
    await room.followed()
    assert room.provider.usage()["dead_letters"] == 3


# Quarantine.


def lie(blocks: tuple[BlockChanges, ...]) -> tuple[BlockChanges, ...]:
    return tuple(
        BlockChanges(one.head, {**one.changes, b"account/1": b"lie"}) if one.head.height >= 5 else one for one in blocks
    )


async def test_a_quarantined_state_is_not_read_but_goes_on_as_evidence(room: Room) -> None:
    room.chain.grow(10)
    room.chain.answer = lie
    await room.start()
    await room.followed()
    attested = await room.call("state_hash", 6)
    await room.call("quarantine", 6)
    for height in (None, 3, 6):
        with pytest.raises(CallError) as refused:
            await room.call("get", b"account/1", height)
        assert refused.value.code is Code.UNTRUSTED
    room.chain.answer = lambda blocks: blocks
    await room.call("reload")
    with pytest.raises(CallError) as refused:
        await room.call("rejoin", 6, attested.state_root)
    assert refused.value.code in (Code.UNAVAILABLE, Code.CONFLICT)
    await room.followed()
    # Others still find, at the height that was attested, the very key that differs.
    assert await room.call("state_hash", 6) == attested
    truth = room.chain.state(6)
    walk = DiffWalk(truth, attested.state_root)
    while (prefix := walk.wanted) is not None:
        walk.feed(await room.call("node", 6, prefix))
    assert walk.difference is not None
    assert (walk.difference.key, walk.difference.theirs) == (b"account/1", b"lie")
    assert await room.call("proof", b"account/1", 6) == walk.difference.their_proof


async def test_reads_come_back_only_at_a_root_that_others_certified(room: Room) -> None:
    room.chain.grow(10)
    room.chain.answer = lie
    await room.start()
    await room.followed()
    await room.call("quarantine", 6)
    truth = room.chain.state(9).root
    with pytest.raises(CallError) as refused:
        await room.call("rejoin", 9, truth)
    assert refused.value.code is Code.CONFLICT
    room.chain.answer = lambda blocks: blocks
    await room.call("reload")
    await room.followed()
    with pytest.raises(CallError) as refused:
        await room.call("get", b"account/1")
    assert refused.value.code is Code.UNTRUSTED
    await room.call("rejoin", 9, truth)
    assert await room.call("get", b"account/1") == room.chain.state(9).get(b"account/1")
    assert (await room.call("status")).quarantined_from is None
    await room.call("rejoin", 9, truth)  # twice is once


async def test_heights_that_have_not_come_can_not_be_quarantined_or_rejoined(room: Room) -> None:
    room.chain.grow(3)
    await room.start()
    await room.followed()
    for height in (-1, 3):
        with pytest.raises(CallError) as refused:
            await room.call("quarantine", height)
        assert refused.value.code is Code.CONFLICT
    with pytest.raises(CallError) as refused:
        await room.call("rejoin", 3, bytes(32))
    assert refused.value.code is Code.UNAVAILABLE
    with pytest.raises(CallError) as refused:
        await room.call("node", 1, b"\x00" * 64)
    assert refused.value.code is Code.NOT_FOUND


def test_evidence_is_bounded_and_what_was_set_apart_first_stays() -> None:
    history = History(0, 3, 1 << 30)
    chain = Chain()
    chain.grow(9)
    tree = StateTree()
    for one in chain.all:
        tree = tree.apply(one.changes)
        history.extend(one.head, tree)
    history.quarantine(7)
    history.clear()
    assert [history.attested(height) is not None for height in (6, 7, 8)] == [False, True, True]
    for one in chain.all:
        history.extend(one.head, StateTree())
    history.quarantine(6)
    assert len(history) == 6
    version = history.attested(8)
    assert version is not None
    assert version.tree.root == tree.root
    assert history.at(8) != version
    with pytest.raises(ValueError, match="does not follow"):
        history.extend(chain.all[0].head, tree)


# Blocks in parts.


async def test_blocks_that_come_in_parts_are_followed_whole(room: Room) -> None:
    room.chain.all.append(block(0, bytes(32), {b"key/%d" % n: b"v" for n in range(500)}))
    room.chain.grow(6)
    room.chain.cut = 2
    await room.start()
    await room.followed()
    assert room.chain.parts_asked[:249] == list(range(1, 250))
    for height in range(7):
        assert (await room.call("state_hash", height)).state_root == room.chain.state(height).root
    room.chain.replace(2, 4, "fork")
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(8).root


def unwired(room: Room) -> None:
    """Let the chain answer without a wire between, which would refuse some answers before."""

    async def call(channel: int, operation: str, *args: object, timeout: float = 10.0) -> object:
        return await getattr(room.chain, operation)(*args)

    room.services.parent.call = call  # type: ignore[method-assign]


def _parts_of(count: object) -> Callable[[tuple[BlockChanges, ...]], object]:
    return lambda blocks: tuple(msgspec.structs.replace(one, parts=count) for one in blocks)


@pytest.mark.parametrize("count", [0, -1, 1025, True, None, "2", 2.0])
async def test_a_number_of_parts_that_cannot_be_is_refused(room: Room, count: object) -> None:
    room.chain.grow(3)
    room.chain.answer = _parts_of(count)
    await room.start()
    unwired(room)
    room.provider._follower.nudge()
    await room.until(lambda: "has not 1 to 1024 parts" in str(room.provider._follower.last_error))
    assert room.tip is None
    room.chain.answer = lambda blocks: blocks
    await room.followed()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda number, part: None, "NoneType came where changes of height 0 were expected"),
        (lambda number, part: [], "list came where changes"),
        (lambda number, part: {}, "part 1 of height 0 is empty"),
        (lambda number, part: {"text": b"v"}, "a key that is not"),
        (lambda number, part: {b"k" * 300: b"v"}, "a key that is not"),
        (lambda number, part: {b"key": b"v" * 2000}, "a value that is not"),
        (lambda number, part: {**part, b"key/0": None}, "part 1 of height 0 has an entry of an earlier part"),
        (lambda number, part: CallError(Code.CONFLICT, "replaced"), "replaced"),
        (
            lambda number, part: {bytes([number % 256, at % 256, at // 256]): b"v" * 1000 for at in range(1100)},
            "max_block",
        ),
    ],
)
async def test_a_part_that_cannot_be_is_refused_and_nothing_of_its_block_stays(
    room: Room, wrong: Callable[[int, dict[bytes, bytes | None]], object], says: str
) -> None:
    room.chain.all.append(block(0, bytes(32), {b"key/%d" % n: b"v" for n in range(20)}))
    room.chain.cut = 4
    room.chain.parts_answer = wrong
    await room.start(max_block=1 << 20)
    unwired(room)
    room.provider._follower.nudge()
    await room.until(lambda: says in str(room.provider._follower.last_error))
    assert room.tip is None
    room.chain.parts_answer = lambda number, part: part
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(0).root


async def test_a_block_of_one_part_with_none_in_it_is_a_block_without_changes(room: Room) -> None:
    room.chain.all.append(block(0, bytes(32), {}))
    await room.start()
    await room.followed()
    assert (await room.call("status")).entries == 0


async def test_a_reload_while_parts_are_on_their_way_starts_anew(room: Room) -> None:
    room.chain.grow(4)
    room.chain.cut = 1
    left = 2

    def interrupted(number: int, part: dict[bytes, bytes | None]) -> object:
        nonlocal left
        if left:
            left -= 1
            room.provider._follower.reload()
        return part

    room.chain.parts_answer = interrupted
    await room.start()
    await room.followed()
    assert left == 0
    assert (await room.call("head")).state_root == room.chain.state(3).root


# Bytes.


def taken(trees: Iterable[StateTree]) -> int:
    """Bytes of memory that trees take together, each node once."""
    nodes: dict[int, int] = {}
    for tree in trees:
        left: list[Any] = [] if tree._node is None else [tree._node]
        while left:
            node = left.pop()
            if isinstance(node, tuple):
                left += node[2:]
            nodes[id(node)] = sys.getsizeof(node) + (sys.getsizeof(node[0]) if isinstance(node, tuple) else 0)
    return sum(nodes.values())


CHANGES = st.dictionaries(st.binary(min_size=1, max_size=1), st.none() | st.binary(max_size=40), max_size=30)


@given(st.lists(CHANGES, min_size=1, max_size=8), st.integers(0, 8))
def test_a_history_says_exactly_what_its_versions_take(batches: list[dict[bytes, bytes | None]], back: int) -> None:
    history, tree = History(0, 100, 1 << 30), StateTree()
    trees: list[StateTree] = []
    for height, changes in enumerate([*batches, *batches]):
        if height == len(batches):
            history.rewind(max(0, height - 1 - back))
            del trees[history.next_height :]
            tree = trees[-1]
        tree = tree.apply(changes)
        head = block(history.next_height, b"" if history.tip is None else history.tip.head.block_hash, {}).head
        history.extend(head, tree)
        trees.append(tree)
        assert history.size == taken([tree])
        assert history.size + history.older_bytes == taken(trees)


def grown(history: History, count: int, value: int = 400) -> None:
    """Blocks that each replace the same entry by another of so many bytes."""
    tree = StateTree() if history.tip is None else history.tip.tree
    parent = bytes(32) if history.tip is None else history.tip.head.block_hash
    for _ in range(count):
        height = history.next_height
        tree = tree.apply({b"entry": height.to_bytes(4) + bytes(value - 4)})
        head = block(height, parent, {}).head
        history.extend(head, tree)
        parent = head.block_hash


def test_bytes_drop_the_oldest_heights_first_and_never_the_newest() -> None:
    history = History(0, 100, 2000)
    grown(history, 20)
    assert history.older_bytes <= 2000
    assert (history.oldest, history.next_height, history.dropped_for_bytes) == (15, 20, 15)
    history.rebound(100, 1000)
    assert (history.oldest, history.dropped_for_bytes) == (17, 17)
    history.rebound(100, 0)
    assert (history.oldest, history.older_bytes, len(history)) == (19, 0, 1)
    history.rebound(100, 2000)
    grown(history, 3)
    assert history.oldest == 19
    history.rewind(20)
    assert history.next_height == 21
    grown(history, 1, value=60_000)
    grown(history, 1)
    assert history.oldest == 22  # the large one alone is over the bound


def test_bytes_bound_the_evidence_of_many_reloads() -> None:
    history = History(0, 100, 1500)
    grown(history, 4)
    history.quarantine(0)
    history.clear()
    kept = len(history)
    assert (kept, history.dropped_for_bytes) == (3, 1)
    assert taken([found.tree for height in range(4) if (found := history.attested(height))]) == history.evidence_bytes
    for more in range(1, 6):
        grown(history, 4 + more)
        history.clear()
        assert history.evidence_bytes <= 1500
        assert history.attested(3 + more) is not None  # what was attested last
        assert history.attested(0) is None
    history.rebound(1, 1500)
    assert len(history) == 1
    history.rebound(1, 0)
    assert len(history) == 1  # one stays, however large: else there would be no evidence


async def test_the_manifests_keep_bytes_bounds_heights_and_usage_shows_it(room: Room) -> None:
    room.chain.grow(40)
    await room.start(keep_bytes=3000)
    await room.followed()
    usage = room.provider.usage()
    assert 0 < usage["older_bytes"] <= 3000
    assert usage["versions"] + usage["dropped_for_bytes"] == 40
    assert usage["bytes"] == taken([room.chain.state(39)])
    assert usage["evidence_bytes"] == 0
    with pytest.raises(CallError) as refused:
        await room.call("state_hash", 0)
    assert refused.value.code is Code.NOT_FOUND
    room.provider.reconfigure(msgspec.structs.replace(room.provider.config, keep_bytes=0))
    assert room.provider.usage()["versions"] == 1
    room.chain.replace(2, 3, "fork")  # nothing is left to rewind to: it loads anew
    await room.followed()
    assert (await room.call("head")).state_root == room.chain.state(40).root


# Transactions.


async def test_a_transaction_is_digested_encoded_and_broadcast(room: Room) -> None:
    await room.start()
    account = await room.call("account", bytes(20))
    assert (account.nonce, int.from_bytes(account.balance, "big"), account.chain_id) == (7, 10**24, 1337)
    transaction = EvmTransaction(account.chain_id, account.nonce, bytes(20), 21_000, account.gas_price)
    assert len(await room.call("transaction_digest", transaction)) == 32
    raw = await room.call("encode_signed", transaction, b"\x01" * 65)
    sent = await room.call("send_transaction", raw)
    assert room.chain.sent == [raw]
    assert sent != bytes(32)  # the hash is our own, not the parent's word


async def test_malformed_requests_about_transactions_are_refused(room: Room) -> None:
    await room.start()
    for operation, arg in [("account", b"short"), ("send_transaction", b""), ("send_transaction", bytes(200_000))]:
        with pytest.raises(CallError) as refused:
            await room.call(operation, arg)
        assert refused.value.code is Code.INVALID
    assert room.chain.sent == []


@pytest.mark.parametrize(
    "config",
    [{"keep": 0}, {"keep_bytes": -1}, {"max_block": 7}, {"batch": 1000}, {"poll": 0}, {"start": -1}, {"what": 1}],
)
async def test_a_config_out_of_range_is_refused(room: Room, config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Layer1, room.services, config)
