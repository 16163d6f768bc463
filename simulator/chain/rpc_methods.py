"""The embedded chain's JSON-RPC methods: what an Ethereum node answers, as far as followers and wallets ask it.

May not: open sockets (`server` does). Beside the standard there are `sim_mine`, `sim_reorganise` and `sim_info`.
Rule: the Ethereum JSON-RPC specification (execution-apis); EIP-1898 for blocks by hash; EIP-234 for logs by hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from .embedded import CHAIN_ID, GAS_PRICE, EmbeddedChain, EmbeddedChainError, Mined

MAX_MINE: Final = 1000
"""Blocks that one `sim_mine` makes at most."""
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
NO_METHOD: Final = -32601
INVALID_PARAMS: Final = -32602
SERVER_ERROR: Final = -32000
NO_BLOCK: Final = -32001

Json = Any
"""What json.loads gives; checked by each method."""


class RpcError(Exception):
    """An error object of JSON-RPC 2.0."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _hex(number: int) -> str:
    return hex(number)


def _data(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(value: Json, name: str, size: int | None = None) -> bytes:
    try:
        if not isinstance(value, str) or not value.startswith("0x"):
            raise ValueError
        found = bytes.fromhex(value[2:])
    except ValueError:
        raise RpcError(INVALID_PARAMS, f"{name} is not 0x-prefixed hex") from None
    if size is not None and len(found) != size:
        raise RpcError(INVALID_PARAMS, f"{name} has {len(found)} bytes, expected {size}")
    return found


def _number(value: Json, name: str) -> int:
    try:
        if not isinstance(value, str) or not value.startswith("0x"):
            raise ValueError
        return int(value, 16)
    except ValueError:
        raise RpcError(INVALID_PARAMS, f"{name} is not a 0x-prefixed number") from None


class Methods:
    """The methods over one chain. `mined` is set (and replaced) with each new block."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self.chain = chain
        self.mined = asyncio.Event()
        self._table: Mapping[str, Callable[..., Json]] = {
            "eth_chainId": lambda: _hex(CHAIN_ID),
            "net_version": lambda: str(CHAIN_ID),
            "web3_clientVersion": lambda: "tea-simulator/py-evm",
            "eth_syncing": lambda: False,
            "eth_blockNumber": lambda: _hex(chain.height),
            "eth_gasPrice": lambda: _hex(GAS_PRICE),
            "eth_maxPriorityFeePerGas": lambda: _hex(GAS_PRICE),
            "eth_accounts": lambda: [_data(account) for account in chain.accounts],
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBalance": lambda address, at="latest": _hex(chain.balance(*self._account(address, at))),
            "eth_getTransactionCount": lambda address, at="latest": _hex(chain.nonce(*self._account(address, at))),
            "eth_getCode": lambda address, at="latest": _data(chain.code(*self._account(address, at))),
            "eth_getStorageAt": self._storage,
            "eth_getLogs": self._logs,
            "eth_call": self._call,
            "eth_sendRawTransaction": self._send,
            "sim_mine": self._mine,
            "sim_reorganise": self._reorganise,
            "sim_info": self._info,
        }

    def answer(self, method: str, params: Sequence[Json]) -> Json:
        """The result of a method. Raises `RpcError`."""
        function = self._table.get(method)
        if function is None:
            raise RpcError(NO_METHOD, f"the method {method[:80]} does not exist")
        try:
            return function(*params)
        except TypeError as error:
            raise RpcError(INVALID_PARAMS, f"{method}: {error}") from None
        except EmbeddedChainError as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    # Blocks.

    def _at(self, at: Json) -> Mined:
        block = self._find(at)
        if block is None:
            raise RpcError(NO_BLOCK, f"there is no block {at}")
        return block

    def _find(self, at: Json) -> Mined | None:
        if isinstance(at, dict):
            if "blockHash" in at:
                return self.chain.block_by_hash(_bytes(at["blockHash"], "blockHash", 32))
            at = at.get("blockNumber")
        if at in ("latest", "finalized", "safe", "pending"):
            return self.chain.tip
        return self.chain.block(0 if at == "earliest" else _number(at, "the block"))

    def _account(self, address: Json, at: Json) -> tuple[bytes, Mined]:
        return _bytes(address, "the address", 20), self._at(at)

    def _block_by_number(self, at: Json, full: Json = False) -> Json:
        block = self._find(at)
        return None if block is None else _block(block, bool(full))

    def _block_by_hash(self, block_hash: Json, full: Json = False) -> Json:
        block = self.chain.block_by_hash(_bytes(block_hash, "the hash", 32))
        return None if block is None else _block(block, bool(full))

    def _storage(self, address: Json, slot: Json, at: Json = "latest") -> Json:
        who, block = self._account(address, at)
        return _data(self.chain.storage(who, _number(slot, "the slot"), block).to_bytes(32, "big"))

    # Logs.

    def _logs(self, wanted: Json) -> Json:
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "the filter is not an object")
        if "blockHash" in wanted:
            blocks = [self._at({"blockHash": wanted["blockHash"]})]
        else:
            first = self._at(wanted.get("fromBlock", "latest")).header.block_number
            last = self._at(wanted.get("toBlock", "latest")).header.block_number
            blocks = [block for n in range(first, last + 1) if (block := self.chain.block(n)) is not None]
        addresses = wanted.get("address")
        topics = wanted.get("topics") or []
        listed = [addresses] if isinstance(addresses, str) else addresses
        accepted = None if listed is None else {_bytes(address, "address", 20) for address in listed}
        return [log for block in blocks for log in _logs_of(block, accepted, topics)]

    # Calls and transactions.

    def _call(self, request: Json, at: Json = "latest") -> Json:
        if not isinstance(request, dict):
            raise RpcError(INVALID_PARAMS, "the call is not an object")
        data = request.get("input", request.get("data", "0x"))
        sender = _bytes(request.get("from", "0x" + "00" * 20), "from", 20)
        to = _bytes(request.get("to"), "to", 20)
        return _data(self.chain.call(to, _bytes(data, "data"), self._at(at), sender))

    def _send(self, raw: Json) -> Json:
        return _data(self.chain.submit(_bytes(raw, "the transaction")))

    # The simulator's own.

    def mine(self, count: int = 1) -> None:
        """Mine blocks and tell whoever waits for `mined`."""
        for _ in range(count):
            self.chain.mine_block()
        self.mined.set()
        self.mined = asyncio.Event()

    def _mine(self, count: Json = 1) -> Json:
        if not isinstance(count, int) or not 0 < count <= MAX_MINE:
            raise RpcError(INVALID_PARAMS, f"1 to {MAX_MINE} blocks can be mined at once")
        self.mine(count)
        return self._info()

    def _reorganise(self, depth: Json) -> Json:
        if not isinstance(depth, int):
            raise RpcError(INVALID_PARAMS, "the depth is a number of blocks")
        self.chain.reorganise(depth)
        return self._info()

    def _info(self) -> Json:
        chain = self.chain
        return {
            "height": chain.height,
            "hash": _data(chain.tip.hash),
            "token": _data(chain.token),
            "balanceSlot": chain.balance_slot,
            "seed": chain.seed,
        }


def _block(mined: Mined, full: bool) -> Json:
    header = mined.header
    hashes = [_data(bytes(transaction.hash)) for transaction in mined.block.transactions]
    return {
        "number": _hex(header.block_number),
        "hash": _data(mined.hash),
        "parentHash": _data(header.parent_hash),
        "sha3Uncles": _data(header.uncles_hash),
        "miner": _data(header.coinbase),
        "stateRoot": _data(header.state_root),
        "transactionsRoot": _data(header.transaction_root),
        "receiptsRoot": _data(header.receipt_root),
        "logsBloom": _data(header.bloom.to_bytes(256, "big")),
        "difficulty": _hex(header.difficulty),
        "gasLimit": _hex(header.gas_limit),
        "gasUsed": _hex(header.gas_used),
        "timestamp": _hex(header.timestamp),
        "extraData": _data(header.extra_data),
        "mixHash": _data(header.mix_hash),
        "nonce": _data(header.nonce),
        "baseFeePerGas": _hex(header.base_fee_per_gas or 0),
        "withdrawalsRoot": _data(header.withdrawals_root or b""),
        "blobGasUsed": _hex(header.blob_gas_used),
        "excessBlobGas": _hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": _data(header.parent_beacon_block_root or b""),
        "requestsHash": _data(bytes(getattr(header, "requests_hash", b""))),
        "uncles": [],
        "withdrawals": [],
        "transactions": [_transaction(mined, n) for n in range(len(hashes))] if full else hashes,
    }


def _transaction(mined: Mined, index: int) -> Json:
    transaction = mined.block.transactions[index]
    return {
        "hash": _data(bytes(transaction.hash)),
        "blockHash": _data(mined.hash),
        "blockNumber": _hex(mined.header.block_number),
        "transactionIndex": _hex(index),
        "from": _data(bytes(transaction.sender)),
        "to": _data(bytes(transaction.to)) if transaction.to else None,
        "nonce": _hex(transaction.nonce),
        "value": _hex(transaction.value),
        "gas": _hex(transaction.gas),
        "gasPrice": _hex(transaction.max_fee_per_gas),
        "input": _data(transaction.data),
        "type": _hex(transaction.type_id or 0),
    }


def _logs_of(mined: Mined, addresses: set[bytes] | None, topics: Sequence[Json]) -> Iterator[Json]:
    number = 0
    for index, receipt in enumerate(mined.receipts):
        for log in receipt.logs:
            place, number = number, number + 1
            shown = [_data(topic.to_bytes(32, "big")) for topic in log.topics]
            if addresses is not None and bytes(log.address) not in addresses:
                continue
            if len(topics) > len(shown) or not all(
                wanted is None or have == wanted or (isinstance(wanted, list) and have in wanted)
                for wanted, have in zip(topics, shown, strict=False)
            ):
                continue
            yield {
                "address": _data(bytes(log.address)),
                "topics": shown,
                "data": _data(log.data),
                "blockHash": _data(mined.hash),
                "blockNumber": _hex(mined.header.block_number),
                "transactionHash": _data(bytes(mined.block.transactions[index].hash)),
                "transactionIndex": _hex(index),
                "logIndex": _hex(place),
                "removed": False,
            }
