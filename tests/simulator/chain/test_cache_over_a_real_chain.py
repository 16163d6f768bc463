"""From a real EVM to the enclave's cache: chain, JSON-RPC, follower, adapter, provider; honest and lied to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tea.parent_client.chain import ChainAdapter, EvmSource, MappingWatch, Watch
from tea.protocol.channels import Adapter, Channel
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.layer1 import Layer1, StateAt
from tea.providers.testing import InMemoryServices, invoke, start_provider
from tea.simulator.chain import ChainServer, EmbeddedChain
from tea.simulator.faults import LyingAdapter
from tea.trust.statetree import DiffWalk, verify_proof

START = 1
RA = Call("ra", 0)


class Enclave:
    """One layer-1 provider behind an adapter of its own."""

    def __init__(self, url: str, chain: EmbeddedChain, *, lie_from: int | None = None) -> None:
        mapping = MappingWatch("0x" + chain.token.hex(), chain.balance_slot, "vyper")
        self.source = EvmSource(url, Watch(mappings=(mapping,), start=START))
        self.adapter = ChainAdapter(self.source, on_finalized=self.push, poll=0.01)
        self.services = InMemoryServices("layer1", actors=["ra"])
        serving: Adapter = self.adapter if lie_from is None else LyingAdapter(self.adapter, lie_from, 1)
        self.services.parent.stand_in(Channel.ADAPTER, serving)
        self.tasks: set[asyncio.Task[object]] = set()

    def push(self, head: object) -> None:
        task: asyncio.Task[object] = asyncio.create_task(self.services.parent.send(Channel.ADAPTER, "finalized", head))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def start(self) -> None:
        self.layer1 = await start_provider(Layer1, self.services, {"start": START, "poll": 0.02})
        self.services.spawn(self.adapter.run())

    async def at(self, chain: EmbeddedChain, height: int) -> StateAt:
        """The state at a height, once this enclave has followed the chain to its tip."""
        async with asyncio.timeout(30):
            while True:
                head = self.layer1._history.tip
                if head is not None and head.head.block_hash == chain.tip.hash:
                    found: StateAt = await invoke(self.layer1, "state_hash", height, call=RA)
                    return found
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.services.close()
        await self.source.close()
        assert self.services.failures == []


@pytest.fixture
async def network() -> AsyncIterator[tuple[ChainServer, list[Enclave]]]:
    server = ChainServer(EmbeddedChain(seed=21, accounts=4, transfers_per_block=4))
    url = await server.start()
    enclaves = [Enclave(url, server.chain), Enclave(url, server.chain), Enclave(url, server.chain, lie_from=5)]
    for enclave in enclaves:
        await enclave.start()
    yield server, enclaves
    for enclave in enclaves:
        await enclave.close()
    await server.close()


async def test_honest_caches_agree_and_the_one_that_was_lied_to_differs_in_a_key_that_is_found(
    network: tuple[ChainServer, list[Enclave]],
) -> None:
    server, (first, second, liar) = network
    server.methods.mine(8)
    for height in range(START, server.chain.height + 1):
        roots = [(await enclave.at(server.chain, height)).state_root for enclave in (first, second, liar)]
        assert roots[0] == roots[1]
        assert (roots[2] == roots[0]) == (height < 5)
    honest = await first.at(server.chain, 6)
    lied = await liar.at(server.chain, 6)
    assert (honest.block_hash, honest.chain_root) == (lied.block_hash, lied.chain_root)
    version = first.layer1._history.at(6)
    assert version is not None
    walk = DiffWalk(version.tree, lied.state_root)
    while (prefix := walk.wanted) is not None:
        walk.feed(await invoke(liar.layer1, "node", 6, prefix, call=RA))
    assert walk.difference is not None
    found = walk.difference
    assert verify_proof(honest.state_root, found.key, found.my_proof) == found.mine
    assert verify_proof(lied.state_root, found.key, found.their_proof) == found.theirs
    assert found.mine != found.theirs
    with pytest.raises(CallError) as refused:
        await invoke(liar.layer1, "quarantine", 6, call=RA)
        await invoke(liar.layer1, "get", found.key, call=RA)
    assert refused.value.code is Code.UNTRUSTED


async def test_caches_agree_again_after_a_reorganisation_and_over_a_node_that_was_away(
    network: tuple[ChainServer, list[Enclave]],
) -> None:
    server, (first, second, _) = network
    server.methods.mine(3)
    before = (await first.at(server.chain, 4)).state_root
    server.chain.reorganise(2)
    server.methods.mine(4)
    after = [(await enclave.at(server.chain, 4)).state_root for enclave in (first, second)]
    assert after[0] == after[1] != before
    first.services.parent.cut = True
    server.methods.mine(2)
    await second.at(server.chain, 7)
    first.services.parent.cut = False
    assert (await first.at(server.chain, 8)).state_root == (await second.at(server.chain, 8)).state_root
