"""The embedded chain over HTTP: what a node answers, what it refuses, and the process that serves it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tea.providers.layer1.evm import encode_rlp, keccak256
from tea.simulator.chain import ChainServer, EmbeddedChain
from tea.simulator.chain.__main__ import main


class Node:
    def __init__(self, server: ChainServer, url: str, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.url = url
        self.session = session

    async def post(self, body: object) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url, data=data) as response:
            return await response.json()

    async def ask(self, method: str, *params: object) -> Any:
        answer = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        assert "error" not in answer, answer
        return answer["result"]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    server = ChainServer(EmbeddedChain(2, 3, 2))
    url = await server.start()
    async with aiohttp.ClientSession() as session:
        yield Node(server, url, session)
    await server.close()


async def test_blocks_are_answered_by_number_by_tag_and_by_hash(node: Node) -> None:
    info = await node.ask("sim_mine", 2)
    assert info["height"] == 3 == int(await node.ask("eth_blockNumber"), 16)
    latest = await node.ask("eth_getBlockByNumber", "latest", False)
    assert latest == await node.ask("eth_getBlockByNumber", "finalized", False)
    assert latest == await node.ask("eth_getBlockByNumber", "0x3", False)
    assert latest == await node.ask("eth_getBlockByHash", info["hash"], False)
    assert len(latest["transactions"]) == 2
    full = await node.ask("eth_getBlockByNumber", "0x3", True)
    assert [one["hash"] for one in full["transactions"]] == latest["transactions"]
    assert (await node.ask("eth_getBlockByNumber", "earliest", False))["number"] == "0x0"
    assert await node.ask("eth_getBlockByNumber", "0x99", False) is None
    assert await node.ask("eth_getBlockByHash", "0x" + "00" * 32, False) is None


async def test_a_header_hashes_to_its_block_s_hash(node: Node) -> None:
    """The fields are all there and true: RLP over them in the header's order gives the hash."""
    await node.ask("sim_mine", 1)
    block = await node.ask("eth_getBlockByNumber", "latest", False)
    data = ["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom"]
    numbers = ["difficulty", "number", "gasLimit", "gasUsed", "timestamp"]
    fields = [bytes.fromhex(block[name][2:]) for name in data] + [int(block[name], 16) for name in numbers]
    fields += [bytes.fromhex(block[name][2:]) for name in ("extraData", "mixHash", "nonce")]
    fields += [int(block["baseFeePerGas"], 16), bytes.fromhex(block["withdrawalsRoot"][2:])]
    fields += [int(block["blobGasUsed"], 16), int(block["excessBlobGas"], 16)]
    fields += [bytes.fromhex(block[name][2:]) for name in ("parentBeaconBlockRoot", "requestsHash")]
    assert "0x" + keccak256(encode_rlp(fields)).hex() == block["hash"]


async def test_state_is_answered_at_a_height_and_at_a_hash(node: Node) -> None:
    chain = node.server.chain
    account = "0x" + chain.accounts[0].hex()
    await node.ask("sim_mine", 1)
    at = {"blockHash": "0x" + chain.tip.hash.hex()}
    for method in ("eth_getBalance", "eth_getTransactionCount", "eth_getCode"):
        assert await node.ask(method, account, at) == await node.ask(method, account, hex(chain.height))
        assert await node.ask(method, account) == await node.ask(method, account, "latest")
    assert await node.ask("eth_getBalance", account, "0x0") != await node.ask("eth_getBalance", account, "0x1")
    token = "0x" + chain.token.hex()
    assert int(await node.ask("eth_getStorageAt", token, "0x1", "latest"), 16) == 10**27
    supply = await node.ask("eth_call", {"to": token, "data": "0x18160ddd"}, "latest")
    assert int(supply, 16) == 10**27
    assert len(await node.ask("eth_getCode", token)) > 100
    assert await node.ask("eth_chainId") == hex(1337)
    assert await node.ask("net_version") == "1337"
    assert int(await node.ask("eth_gasPrice"), 16) > 0


async def test_logs_are_found_by_range_by_hash_and_by_topic(node: Node) -> None:
    chain = node.server.chain
    await node.ask("sim_mine", 3)
    token = "0x" + chain.token.hex()
    everything = await node.ask("eth_getLogs", {"address": token, "fromBlock": "0x0", "toBlock": "latest"})
    topic = everything[0]["topics"][0]
    assert len(everything) >= 3  # the mint and the spread at least
    by_hash = []
    for height in range(chain.height + 1):
        block = chain.block(height)
        assert block is not None
        by_hash += await node.ask(
            "eth_getLogs", {"address": [token], "topics": [topic], "blockHash": "0x" + block.hash.hex()}
        )
    assert by_hash == everything
    query = {"fromBlock": "0x0", "toBlock": "latest"}
    assert await node.ask("eth_getLogs", query) == everything
    assert await node.ask("eth_getLogs", {**query, "topics": [["0x" + "00" * 32, topic]]}) == everything
    assert await node.ask("eth_getLogs", {**query, "topics": ["0x" + "00" * 32]}) == []
    assert await node.ask("eth_getLogs", {**query, "topics": [None, None, None, None]}) == []
    assert await node.ask("eth_getLogs", {**query, "address": "0x" + "00" * 20}) == []
    receiver = everything[0]["topics"][2]
    some = await node.ask("eth_getLogs", {**query, "topics": [None, None, receiver]})
    assert some == [log for log in everything if log["topics"][2] == receiver]


async def test_a_batch_is_answered_one_by_one(node: Node) -> None:
    answers = await node.post(
        [
            {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId"},
            {"jsonrpc": "2.0", "id": 8, "method": "nothing", "params": []},
            "no request",
        ]
    )
    assert answers[0]["result"] == hex(1337)
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32601, -32600]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[" * 100_000, -32700),
        ([], -32600),
        ([{}] * 2001, -32600),
        (7, -32600),
        ({"method": 7}, -32600),
        ({"method": "eth_chainId", "params": {}}, -32600),
        ({"method": "eth_chainId", "params": [1, 2]}, -32602),
        ({"method": "eth_getBalance", "params": ["0x12", "latest"]}, -32602),
        ({"method": "eth_getBalance", "params": ["nothing", "latest"]}, -32602),
        ({"method": "eth_getBalance", "params": ["0x" + "00" * 20, "0xzz"]}, -32602),
        ({"method": "eth_getBalance", "params": ["0x" + "00" * 20, {"blockHash": "0x" + "00" * 32}]}, -32001),
        ({"method": "eth_getBlockByNumber", "params": [None]}, -32602),
        ({"method": "eth_getLogs", "params": ["all"]}, -32602),
        ({"method": "eth_getLogs", "params": [{"blockHash": "0x" + "00" * 32}]}, -32001),
        ({"method": "eth_call", "params": ["call"]}, -32602),
        ({"method": "eth_call", "params": [{"to": None}]}, -32602),
        ({"method": "eth_sendRawTransaction", "params": ["0x00"]}, -32000),
        ({"method": "sim_mine", "params": [0]}, -32602),
        ({"method": "sim_mine", "params": ["many"]}, -32602),
        ({"method": "sim_reorganise", "params": [1000]}, -32000),
        ({"method": "sim_reorganise", "params": ["deep"]}, -32602),
    ],
)
async def test_a_request_that_is_none_gets_its_error_and_the_next_its_answer(
    node: Node, body: object, code: int
) -> None:
    assert (await node.post(body))["error"]["code"] == code
    assert await node.ask("eth_chainId") == hex(1337)


async def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        await ChainServer(EmbeddedChain(1, 2, 0)).start("0.0.0.0")


async def test_an_interval_mines_by_itself() -> None:
    server = ChainServer(EmbeddedChain(1, 2, 0))
    mined = server.methods.mined
    await server.start(interval=0.001)
    async with asyncio.timeout(10):
        await mined.wait()
    await server.close()
    assert server.chain.height >= 2


async def test_the_process_prints_its_url_and_ends_with_its_standard_input() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tea.simulator.chain", "--seed", "4", "--blocks", "2", "--accounts", "2"),
        "--until-eof",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
            assert ready["height"] == 3
            async with aiohttp.ClientSession() as session:
                node = Node(ChainServer(EmbeddedChain(1, 2, 0)), ready["url"], session)
                assert (await node.ask("sim_mine"))["height"] == 4
            process.stdin.close()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


@pytest.mark.parametrize("arguments", [["--listen", "0.0.0.0:0"], ["--accounts", "1"], ["--what"]])
def test_wrong_usage_ends_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
