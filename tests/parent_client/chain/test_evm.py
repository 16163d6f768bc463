"""The EVM follower against a real EVM, a node that answers nonsense, and anvil where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from eth_account import Account

from tea.parent_client.chain import EvmSource, MappingWatch, Watch
from tea.parent_client.chain.json_rpc import JsonRpc, NodeError
from tea.parent_client.chain.watch import account_key, mapping_slot, storage_key
from tea.protocol.errors import CallError, Code
from tea.providers.layer1.evm import EvmTransaction, encode_signed, keccak256, transaction_digest
from tea.simulator.chain import ChainServer
from tea.trust.statetree import StateTree

Answer = Callable[[str, list[Any]], Any]


def url_of(server: ChainServer) -> str:
    assert server._runner is not None
    return f"http://127.0.0.1:{server._runner.addresses[0][1]}"


def watch_of(server: ChainServer, start: int = 0) -> Watch:
    mapping = MappingWatch("0x" + server.chain.token.hex(), server.chain.balance_slot, "vyper")
    return Watch(mappings=(mapping,), start=start)


@pytest.fixture
async def source(server: ChainServer) -> AsyncIterator[EvmSource]:
    made = EvmSource(url_of(server), watch_of(server))
    yield made
    await made.close()


@asynccontextmanager
async def a_node(answer: Answer) -> AsyncIterator[str]:
    """A node that answers each call with what `answer` gives (an `Exception` becomes an error object)."""

    async def one(asked: dict[str, Any]) -> dict[str, Any]:
        result = answer(asked["method"], asked["params"])
        if isinstance(result, NodeError):
            return {"id": asked["id"], "error": {"code": result.code, "message": result.message}}
        return {"id": asked["id"], "result": result}

    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        return web.json_response([await one(each) for each in asked] if isinstance(asked, list) else await one(asked))

    async with serving(handle) as url:
        yield url


@asynccontextmanager
async def serving(handle: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


# A real chain.


async def test_heads_are_the_chain_s_own_headers(server: ChainServer, source: EvmSource) -> None:
    server.methods.mine(3)
    head = await source.head()
    header = server.chain.tip.header
    assert (head.height, head.block_hash, head.parent_hash) == (4, server.chain.tip.hash, bytes(header.parent_hash))
    assert (head.state_root, head.timestamp) == (bytes(header.state_root), header.timestamp)


async def test_what_blocks_change_adds_up_to_the_chain_s_state(server: ChainServer, source: EvmSource) -> None:
    server.methods.mine(6)
    chain = server.chain
    tree = StateTree()
    for height in range(chain.height + 1):
        tree = tree.apply((await source.changes(height)).changes)
    mapping = watch_of(server).mappings[0]
    for account in chain.accounts:
        slot = mapping_slot(mapping, account)
        stored = chain.storage(chain.token, int.from_bytes(slot, "big"), chain.tip).to_bytes(32, "big")
        assert tree.get(storage_key(mapping.contract, slot)) == stored
        value = tree.get(account_key(account)) or bytes(40)
        nonce = chain.nonce(account, chain.tip)
        if nonce:  # whoever sent something was touched
            assert value == chain.balance(account, chain.tip).to_bytes(32, "big") + nonce.to_bytes(8, "big")


async def test_a_block_s_changes_are_the_same_whenever_they_are_asked(server: ChainServer, source: EvmSource) -> None:
    server.methods.mine(2)
    before = await source.changes(2)
    server.methods.mine(2)
    assert await source.changes(2) == before


async def test_the_first_watched_height_brings_the_whole_known_state(server: ChainServer) -> None:
    server.methods.mine(5)
    late = EvmSource(url_of(server), watch_of(server, start=4))
    early = EvmSource(url_of(server), watch_of(server))
    tree = StateTree()
    for height in range(5):
        tree = tree.apply((await early.changes(height)).changes)
    found = (await late.changes(4)).changes
    storage = {key: value for key, value in tree.items() if key.startswith(b"storage/")}
    assert {key: value for key, value in found.items() if key.startswith(b"storage/") and value} == storage
    for source in (late, early):
        await source.close()


async def test_listed_accounts_are_read_at_every_block(server: ChainServer) -> None:
    quiet = "0x" + "ab" * 20
    known = "0x" + server.chain.accounts[0].hex()
    source = EvmSource(url_of(server), Watch(accounts=(quiet, known)))
    found = (await source.changes(1)).changes
    assert set(found) == {account_key(bytes.fromhex(quiet[2:])), account_key(bytes.fromhex(known[2:]))}
    assert found[account_key(bytes.fromhex(quiet[2:]))] == bytes(40)
    await source.close()


async def test_a_height_that_has_not_come_is_not_found(source: EvmSource) -> None:
    with pytest.raises(CallError) as refused:
        await source.changes(99)
    assert refused.value.code is Code.NOT_FOUND


async def test_latest_less_confirmations_is_final_when_asked_so(server: ChainServer) -> None:
    server.methods.mine(4)
    source = EvmSource(url_of(server), Watch(), finality="latest", confirmations=2)
    assert (await source.head()).height == 3
    deep = EvmSource(url_of(server), Watch(), finality="latest", confirmations=99)
    assert (await deep.head()).height == 0
    for one in (source, deep):
        await one.close()


async def test_a_transaction_signed_inside_is_broadcast_and_included(server: ChainServer, source: EvmSource) -> None:
    from coincurve import PrivateKey

    chain = server.chain
    nonce, balance, chain_id, gas_price = await source.account(chain.accounts[1])
    assert int.from_bytes(balance, "big") == chain.balance(chain.accounts[1], chain.tip)
    stranger = b"\x55" * 20
    transaction = EvmTransaction(chain_id, nonce, stranger, 21_000, gas_price, value=(10**20).to_bytes(32, "big"))
    key = PrivateKey(chain.private_key(1))
    raw = encode_signed(transaction, key.sign_recoverable(transaction_digest(transaction), hasher=None))
    sent = await source.send_transaction(raw)
    server.methods.mine()
    assert sent in [bytes(one.hash) for one in chain.tip.block.transactions]
    assert chain.balance(stranger, chain.tip) == 10**20
    with pytest.raises(CallError) as refused:
        await source.send_transaction(raw)
    assert refused.value.code is Code.CONFLICT  # the nonce is used up
    with pytest.raises(CallError) as refused:
        await source.send_transaction(b"\x02")
    assert refused.value.code is Code.INVALID


async def test_a_block_that_was_replaced_meanwhile_is_a_conflict(server: ChainServer) -> None:
    server.methods.mine(3)
    block = server.methods.answer("eth_getBlockByNumber", ["0x4", True])
    server.chain.reorganise(1)
    server.methods.mine(1)

    def answer(method: str, params: list[Any]) -> Any:
        if method == "eth_getBlockByNumber":
            return block
        from tea.simulator.chain.rpc_methods import RpcError

        try:
            return server.methods.answer(method, params)
        except RpcError as error:
            return NodeError(error.code, error.message)

    async with a_node(answer) as url:
        source = EvmSource(url, watch_of(server))
        with pytest.raises(CallError) as refused:
            await source.changes(4)
        assert refused.value.code is Code.CONFLICT
        await source.close()


# Finality.


def _block(**fields: object) -> dict[str, Any]:
    return {
        "number": "0x5",
        "hash": "0x" + "01" * 32,
        "parentHash": "0x" + "02" * 32,
        "stateRoot": "0x" + "03" * 32,
        "timestamp": "0x10",
        "miner": "0x" + "00" * 20,
        "transactions": [],
        **fields,
    }


async def test_a_node_that_does_not_know_the_tag_is_followed_by_confirmations() -> None:
    asked = []

    def answer(method: str, params: list[Any]) -> Any:
        asked.append(params[0])
        return NodeError(-32602, "invalid tag") if params[0] == "finalized" else _block()

    async with a_node(answer) as url:
        source = EvmSource(url, Watch())
        assert (await source.head()).height == 5
        assert (await source.head()).height == 5
        assert asked == ["finalized", "latest", "latest"]
        await source.close()


@pytest.mark.parametrize("finalized", [None, NodeError(-32000, "finalized block not found"), NodeError(-32005, "busy")])
async def test_what_is_not_final_is_never_silently_taken_for_final(finalized: object) -> None:
    async with a_node(lambda method, params: finalized if params[0] == "finalized" else _block()) as url:
        source = EvmSource(url, Watch())
        with pytest.raises(CallError) as refused:
            await source.head()
        assert refused.value.code is Code.UNAVAILABLE
        await source.close()


# Nodes that answer nonsense, or not at all.


@pytest.mark.parametrize(
    "block",
    [
        "block",
        [],
        {},
        _block(hash="0x01"),
        _block(parentHash=None),
        _block(stateRoot="0x" + "zz" * 32),
        _block(number="5"),
        _block(number="0x" + "1" * 99),
        _block(number="0x6"),
        _block(timestamp=5),
        _block(miner="0x"),
        _block(transactions={}),
        _block(transactions=["0x"]),
        _block(transactions=[{"from": "0x01"}]),
        _block(transactions=[{"from": "0x" + "00" * 20, "to": 5}]),
        _block(withdrawals=[{"address": None}]),
    ],
)
async def test_a_block_that_is_none_is_unavailable_and_no_crash(block: object) -> None:
    async with a_node(lambda method, params: block) as url:
        source = EvmSource(url, Watch())
        with pytest.raises(CallError) as refused:
            await source.changes(5)
        assert refused.value.code is Code.UNAVAILABLE
        await source.close()


@pytest.mark.parametrize(
    "answers",
    [
        {"eth_getBalance": None},
        {"eth_getBalance": "0xnothing"},
        {"eth_getTransactionCount": {}},
        {"eth_getStorageAt": 7},
        {"eth_getLogs": None},
        {"eth_getLogs": ["log"]},
        {"eth_getLogs": [{"topics": ["0x", "0x01"]}]},
    ],
)
async def test_state_that_is_none_is_unavailable(answers: Mapping[str, object]) -> None:
    good: dict[str, object] = {
        "eth_getBalance": "0x1",
        "eth_getTransactionCount": "0x1",
        "eth_getStorageAt": "0x1",
        "eth_getLogs": [{"topics": ["0x" + "01" * 32, "0x" + "02" * 32]}, {"topics": None}],
        "eth_getBlockByNumber": _block(),
    }
    watch = Watch(mappings=(MappingWatch("0x" + "09" * 20, 1),))
    async with a_node(lambda method, params: good[method]) as url:
        source = EvmSource(url, watch)
        assert len((await source.changes(5)).changes) == 2
        await source.close()
    async with a_node(lambda method, params: {**good, **answers}[method]) as url:
        source = EvmSource(url, watch)
        with pytest.raises(CallError) as refused:
            await source.changes(5)
        assert refused.value.code is Code.UNAVAILABLE
        await source.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"oops"),
        (200, b""),
        (200, b"7"),
        (200, b"[7]"),
        (200, b"[]"),
        (200, b'[{"id": []}]'),
        (200, b'{"id": 999, "result": "0x1"}'),
        (200, b"[" * 100_000),
        (429, b"<html>slow down</html>"),
    ],
)
async def test_an_answer_that_is_no_json_rpc_is_unavailable(status: int, body: bytes) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with serving(handle) as url:
        rpc = JsonRpc(url)
        for calls in ([("a", ())], [("a", ()), ("b", ())]):
            with pytest.raises(CallError) as refused:
                await rpc.batch(calls)
            assert refused.value.code is Code.UNAVAILABLE
        await rpc.close()


async def test_a_node_that_refuses_batches_says_so_and_an_error_without_id_is_its_own() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"id": None, "error": {"code": -32600, "message": "no batches"}}, status=400)

    async with serving(handle) as url:
        rpc = JsonRpc(url)
        with pytest.raises(CallError, match="no batches"):
            await rpc.batch([("a", ()), ("b", ())])
        with pytest.raises(NodeError, match="no batches"):
            await rpc.call("a")
        await rpc.close()


async def test_answers_come_back_in_the_order_of_the_calls_whatever_the_node_s() -> None:
    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        listed = asked if isinstance(asked, list) else [asked]
        answers = [{"id": one["id"], "result": one["params"][0]} for one in reversed(listed)]
        return web.json_response(answers if isinstance(asked, list) else answers[0])

    async with serving(handle) as url:
        rpc = JsonRpc(url)
        assert await rpc.batch([("echo", (n,)) for n in range(1201)]) == list(range(1201))
        await rpc.close()


async def test_a_dead_node_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = EvmSource(f"http://127.0.0.1:{port}", Watch())
    with pytest.raises(CallError) as refused:
        await source.head()
    assert refused.value.code is Code.UNAVAILABLE
    await source.close()


async def test_a_node_that_hangs_is_given_up() -> None:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handle) as url:
        source = EvmSource(url, Watch(), timeout=0.05)
        with pytest.raises(CallError) as refused:
            await source.head()
        assert refused.value.code is Code.UNAVAILABLE
        await source.close()


@pytest.mark.parametrize(
    "watch",
    [
        {"accounts": "all"},
        {"accounts": ["0x12"]},
        {"start": -1},
        {"mappings": [{"contract": "0x12", "slot": 0}]},
        {"mappings": [{"contract": "0x" + "00" * 20, "slot": 0, "layout": "fe"}]},
        {"what": 1},
    ],
)
def test_a_watch_out_of_range_is_refused(watch: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(watch, type=Watch)


def test_mapping_slots_are_hashed_in_each_compiler_s_order() -> None:
    """Solidity hashes key then slot, Vyper slot then key (which the embedded token, compiled by Vyper, confirms)."""
    address = bytes.fromhex("d8da6bf26964af9d7eed9e03e53415d37aa96045")
    key, place = bytes(12) + address, bytes(31) + b"\x09"
    contract = "0x" + "00" * 20
    assert mapping_slot(MappingWatch(contract, 9, "solidity"), address) == keccak256(key + place)
    assert mapping_slot(MappingWatch(contract, 9, "vyper"), address) == keccak256(place + key)


# anvil.


def _anvil() -> str | None:
    return os.environ.get("TEA_ANVIL") or shutil.which("anvil")


@asynccontextmanager
async def anvil(*extra: str) -> AsyncIterator[str]:
    binary = _anvil()
    assert binary is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(binary, "--host", "127.0.0.1", "--port", str(port), *extra),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while not (line := await process.stdout.readline()).startswith(b"Listening"):
                assert line, "anvil ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.anvil
@pytest.mark.skipif(
    _anvil() is None,
    reason="anvil is not there: `npm install --prefix /tmp/anvil @foundry-rs/anvil` and set TEA_ANVIL to the binary",
)
async def test_anvil_is_followed_with_its_state_its_finality_and_a_reorganisation() -> None:
    async with anvil("--slots-in-an-epoch", "1") as url:
        rpc = JsonRpc(url)
        source = EvmSource(url, Watch())
        sender = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")  # anvil's first
        receiver = "0x" + "77" * 20
        for nonce in range(4):
            signed = sender.sign_transaction(
                {"to": receiver, "value": 10**18, "gas": 21_000, "gasPrice": 10**10, "nonce": nonce, "chainId": 31337}
            )
            await source.send_transaction(bytes(signed.raw_transaction))
        head = await source.head()
        assert head.height == 2  # anvil finalizes two below its tip
        latest = EvmSource(url, Watch(), finality="latest")
        assert (await latest.head()).height == 4
        assert (await latest.head()).block_hash != head.block_hash
        values = [(await source.changes(height)).changes for height in range(5)]
        key = account_key(bytes.fromhex(receiver[2:]))
        assert [int.from_bytes((changes[key] or b"")[:32], "big") // 10**18 for changes in values[1:]] == [1, 2, 3, 4]
        nonce, _, chain_id, _ = await source.account(bytes.fromhex(sender.address[2:]))
        assert (nonce, chain_id) == (4, 31337)
        before = await source.changes(3)
        await rpc.call("anvil_reorg", 3, [])
        after = await source.changes(3)
        assert after.head.block_hash != before.head.block_hash
        assert key not in after.changes
        for one in (source, latest, rpc):
            await one.close()
