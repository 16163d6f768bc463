"""The chain that a network's parents follow: the embedded one as a process, or any EVM node by its URL.

May not: need the node to be a development one; where it mines on demand it is asked to, else its own blocks are waited
for. Rule: docs/architecture.md, "Modes"; `evm_mine` is that of development nodes (anvil, hardhat).
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
from pathlib import Path
from typing import Any, Final

from tea.parent_client.chain.evm import EvmSource
from tea.parent_client.chain.json_rpc import JsonRpc, NodeError
from tea.parent_client.chain.watch import MappingWatch, Watch
from tea.protocol.errors import CallError, Code

from .network import ChainFeed
from .processes import Child, ProcessError, start

EMBEDDED: Final = "embedded"
_NEVER_FINAL: Final = 150
"""Blocks after which a development node has finalized something: two epochs of 32 slots, and some."""
_LIVE_SECONDS: Final = 120.0
"""For the next block of a node that does not mine on demand."""
_LIVE_LOOK: Final = 0.5
_TRANSFERS: Final = 4


class Mining(enum.Enum):
    """How the next block comes."""

    EMBEDDED = "sim_mine"
    DEVELOPMENT = "evm_mine"
    LIVE = "its own pace"


class FollowedChain:
    """One chain. `feed` is what the parents' adapters get; `advance` makes (or awaits) the next final block."""

    def __init__(self, url: str, mining: Mining, child: Child | None = None) -> None:
        self.url = url
        self.mining = mining
        self.child = child
        self.token: str | None = None
        self._rpc = JsonRpc(url)
        self._finality = "finalized"
        self._watch = Watch()
        self._source = EvmSource(url, self._watch)
        self._mined = 0

    @property
    def feed(self) -> ChainFeed:
        """What adapters follow."""
        return ChainFeed(self.url, self._watch, self._finality, poll=0.2)

    @property
    def start(self) -> int:
        """The first watched height."""
        return self._watch.start

    async def height(self) -> int:
        """The newest final height. Raises `CallError(UNAVAILABLE)`."""
        return (await self._source.head()).height

    async def advance(self) -> int:
        """The next final block: its height. Raises `CallError` when the node has none for long."""
        before = await self.height()
        if self.mining is Mining.LIVE:
            for _ in range(int(_LIVE_SECONDS / _LIVE_LOOK)):
                if (now := await self.height()) != before:
                    return now
                await asyncio.sleep(_LIVE_LOOK)
            raise CallError(Code.UNAVAILABLE, f"{self.url} has finalized no block for {_LIVE_SECONDS:g} s")
        await self._mine()
        return await self.height()

    async def detach(self) -> None:
        """Close the connections; the chain runs on."""
        await self._source.close()
        await self._rpc.close()

    async def close(self) -> None:
        """Close the connections; end the embedded chain."""
        await self.detach()
        if self.child is not None:
            await self.child.end()

    async def _begin(self, mappings: tuple[MappingWatch, ...] = ()) -> None:
        if self.mining is Mining.DEVELOPMENT:
            await self._until_final()
        elif self.mining is Mining.LIVE:
            try:
                await self.height()
            except CallError:
                # A node that finalizes nothing (yet): its newest block is all there is to follow.
                self._finality = "latest"
                await self._source.close()
                self._source = EvmSource(self.url, self._watch, finality="latest")
        self._watch = Watch(mappings=mappings, start=await self.height())

    async def _until_final(self) -> None:
        for _ in range(_NEVER_FINAL):
            try:
                if await self.height() > 0:
                    return
            except CallError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
            await self._rpc.call("evm_mine")
        raise CallError(Code.UNAVAILABLE, f"{self.url} finalizes nothing: start it with short epochs")

    async def _mine(self) -> None:
        if self.mining is Mining.EMBEDDED:
            await self._rpc.call("sim_mine", 1)
            return
        self._mined += 1
        # Something for the state to change by, where the node signs for its own accounts.
        accounts = await self._rpc.call("eth_accounts")
        for number in range(_TRANSFERS if isinstance(accounts, list) and len(accounts) > 1 else 0):
            to = accounts[(self._mined + number) % (len(accounts) - 1) + 1]
            payment = {"from": accounts[0], "to": to, "value": hex(10**15 * (self._mined + number))}
            await self._rpc.call("eth_sendTransaction", payment)
        await self._rpc.call("evm_mine")


async def embedded(folder: Path, seed: int, *, tied: bool, interval: float | None = None) -> FollowedChain:
    """Start the embedded chain as a process; with `interval` it mines every so many seconds. Raises `ProcessError`."""
    arguments = ["-m", "tea.simulator.chain", "--seed", str(seed), "--listen", "127.0.0.1:0"]
    if interval is not None:
        arguments += ["--interval", str(interval)]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as said:
        try:
            child = start("chain", arguments, folder / "chain.console", tied=tied, stdout=writing)
        finally:
            os.close(writing)
        try:
            ready: Any = json.loads(await asyncio.to_thread(said.readline) or b"null")
            if not isinstance(ready, dict):
                raise ProcessError(f"the chain did not start: {child.last_words()}")
            chain = FollowedChain(str(ready["url"]), Mining.EMBEDDED, child)
            chain.token = str(ready["token"])
            balances = MappingWatch(chain.token, int(ready["balanceSlot"]), layout="vyper")
            await chain._begin((balances,))
        except BaseException:
            child.end_now()
            raise
    return chain


async def follow(url: str) -> FollowedChain:
    """Follow a node that runs already. Raises `CallError(UNAVAILABLE)` when it does not answer as one."""
    rpc = JsonRpc(url)
    try:
        await rpc.call("eth_chainId")
        try:
            await rpc.call("evm_mine")
            mining = Mining.DEVELOPMENT
        except NodeError:
            mining = Mining.LIVE
    except NodeError as error:
        raise CallError(Code.UNAVAILABLE, f"{url} is no EVM node: {error}") from None
    finally:
        await rpc.close()
    chain = FollowedChain(url, mining)
    try:
        await chain._begin()
    except BaseException:
        await chain.close()
        raise
    return chain
