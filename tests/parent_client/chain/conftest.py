"""A real chain for the follower: the embedded one over HTTP in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tea.simulator.chain import ChainServer, EmbeddedChain


@pytest.fixture
async def server() -> AsyncIterator[ChainServer]:
    made = ChainServer(EmbeddedChain(seed=11, accounts=4, transfers_per_block=4))
    await made.start()
    yield made
    await made.close()
