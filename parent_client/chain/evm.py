"""Follows any EVM node over JSON-RPC: finalized heads, and the watched state that each block touched.

May not: keep the state (a block's changes are a function of the block alone, so that asking twice answers the same).
Rules: Ethereum JSON-RPC specification (execution-apis); EIP-1898 (state by block hash); EIP-234 (logs by block hash).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from tea.protocol.channels import BlockChanges, Head
from tea.protocol.errors import CallError, Code

from .json_rpc import Json, JsonRpc, NodeError
from .watch import (
    TRANSFER_TOPIC,
    MappingWatch,
    Watch,
    account_key,
    account_value,
    mapping_slot,
    storage_key,
    storage_value,
)

LOG_SPAN: Final = 10_000
"""Blocks whose logs are asked for at once when the first watched height brings the whole state."""
_UNKNOWN_TAG: Final = (-32601, -32602)
"""JSON-RPC's "method not found" and "invalid params"."""
Call = tuple[str, tuple[object, ...]]


class EvmSource:
    """A `ChainSource` over one EVM node."""

    def __init__(
        self,
        url: str,
        watch: Watch,
        *,
        finality: Literal["finalized", "latest"] = "finalized",
        confirmations: int = 0,
        timeout: float = 20.0,
    ) -> None:
        """With finality `latest`, or a node that knows no `finalized`, a block is final `confirmations` blocks deep."""
        self._rpc = JsonRpc(url, timeout=timeout)
        self._watch = watch
        self._tag = finality
        self._confirmations = confirmations

    @property
    def start(self) -> int:
        return self._watch.start

    async def close(self) -> None:
        await self._rpc.close()

    async def head(self) -> Head:
        """The newest finalized block. UNAVAILABLE when the node does not answer or has none yet."""
        if self._tag == "latest":
            return await self._confirmed()
        try:
            block = await self._rpc.call("eth_getBlockByNumber", "finalized", False)
        except NodeError as error:
            if error.code not in _UNKNOWN_TAG:
                raise CallError(Code.UNAVAILABLE, f"the node refuses its finalized block: {error}") from None
            self._tag = "latest"  # a node that doesn't know the tag never will
            return await self._confirmed()
        if block is None:
            # Never silently take what is not final: which chains finalize nothing is for the operator to say.
            raise CallError(Code.UNAVAILABLE, "the node has finalized nothing yet: follow `latest` if it never will")
        return _head(block)

    async def _confirmed(self) -> Head:
        latest = await self._ask("eth_getBlockByNumber", "latest", False)
        if latest is None:
            raise _odd("the node has no latest block")
        head = _head(latest)
        if self._confirmations == 0:
            return head
        wanted = max(0, head.height - self._confirmations)
        block = await self._ask("eth_getBlockByNumber", hex(wanted), False)
        if block is None:
            raise _odd(f"the node has no block of height {wanted}")
        return _head(block)

    async def changes(self, height: int) -> BlockChanges:
        block = await self._ask("eth_getBlockByNumber", hex(height), True)
        if block is None:
            raise CallError(Code.NOT_FOUND, f"the node has no block of height {height}", height=height)
        head = _head(block)
        if head.height != height:
            raise _odd(f"the node answered height {head.height} for {height}")
        slots = await self._slots(head)
        return BlockChanges(head, await self._values(head, self._accounts(block), slots))

    async def send_transaction(self, raw: bytes) -> bytes:
        try:
            sent = await self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeError as error:
            code = Code.CONFLICT if "nonce" in error.message.lower() else Code.INVALID
            raise CallError(code, f"the node refuses the transaction: {error.message}") from None
        return _data(sent, "a transaction hash", 32)

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        who = "0x" + address.hex()
        nonce, balance, chain_id, gas_price = await self._all(
            [
                ("eth_getTransactionCount", (who, "pending")),
                ("eth_getBalance", (who, "latest")),
                ("eth_chainId", ()),
                ("eth_gasPrice", ()),
            ]
        )
        return (
            _number(nonce, "a nonce"),
            _word(_number(balance, "a balance")),
            _number(chain_id, "a chain id"),
            _number(gas_price, "a gas price"),
        )

    # What a block touched.

    def _accounts(self, block: Json) -> set[bytes]:
        if self._watch.accounts != "touched":
            return {bytes.fromhex(address[2:]) for address in self._watch.accounts}
        found = {_data(block.get("miner"), "a miner", 20)}
        for transaction in _objects(block.get("transactions"), "transactions"):
            found.add(_data(transaction.get("from"), "a sender", 20))
            if transaction.get("to") is not None:
                found.add(_data(transaction["to"], "a receiver", 20))
        for withdrawal in _objects(block.get("withdrawals") or [], "withdrawals"):
            found.add(_data(withdrawal.get("address"), "a withdrawal's address", 20))
        return found

    async def _slots(self, head: Head) -> dict[MappingWatch, set[bytes]]:
        """The slots that a block's events (at the first height: all events so far) name, by mapping."""
        asked: list[tuple[MappingWatch, Call]] = []
        for mapping in self._watch.mappings:
            about: dict[str, object] = {"address": mapping.contract, "topics": [TRANSFER_TOPIC]}
            if head.height == self._watch.start:
                asked += [
                    (mapping, ("eth_getLogs", ({**about, "fromBlock": hex(first), "toBlock": hex(last)},)))
                    for first, last in _spans(head.height)
                ]
            else:
                asked.append((mapping, ("eth_getLogs", ({**about, "blockHash": "0x" + head.block_hash.hex()},))))
        answers = await self._all([call for _, call in asked])
        found: dict[MappingWatch, set[bytes]] = {mapping: set() for mapping in self._watch.mappings}
        for (mapping, _), logs in zip(asked, answers, strict=True):
            for log in _objects(logs, "logs"):
                topics = log.get("topics")
                for topic in (topics if isinstance(topics, list) else [])[1:3]:
                    found[mapping].add(mapping_slot(mapping, _data(topic, "a topic", 32)[12:]))
        return found

    async def _values(
        self, head: Head, accounts: set[bytes], slots: dict[MappingWatch, set[bytes]]
    ) -> dict[bytes, bytes | None]:
        # By hash, not by height: a block that is replaced meanwhile is an error, never a mixture.
        at = {"blockHash": "0x" + head.block_hash.hex()}
        ordered = sorted(accounts)
        places = [(mapping.contract, slot) for mapping, found in slots.items() for slot in sorted(found)]
        calls: list[Call] = []
        for address in ordered:
            who = "0x" + address.hex()
            calls += [("eth_getBalance", (who, at)), ("eth_getTransactionCount", (who, at))]
        calls += [("eth_getStorageAt", (contract, "0x" + slot.hex(), at)) for contract, slot in places]
        answers = iter(await self._all(calls))
        changes: dict[bytes, bytes | None] = {}
        for address in ordered:
            balance, nonce = _number(next(answers), "a balance"), _number(next(answers), "a nonce")
            changes[account_key(address)] = account_value(balance, nonce)
        for contract, slot in places:
            word = _number(next(answers), "a storage word")
            changes[storage_key(contract, slot)] = storage_value(_word(word))
        return changes

    # Asking.

    async def _ask(self, method: str, *params: object) -> Json:
        (answer,) = await self._all([(method, params)])
        return answer

    async def _all(self, calls: list[Call]) -> list[Json]:
        answers = await self._rpc.batch(calls)
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, NodeError):
                # A block that was replaced answers so, and so does one whose state the node has pruned.
                raise CallError(Code.CONFLICT, f"the node refuses {method}: {answer}")
        return answers


def _spans(height: int) -> Iterable[tuple[int, int]]:
    return ((first, min(first + LOG_SPAN - 1, height)) for first in range(0, height + 1, LOG_SPAN))


def _head(block: Json) -> Head:
    if not isinstance(block, dict):
        raise _odd("the node answered with something that is no block")
    return Head(
        _number(block.get("number"), "a block's number"),
        _data(block.get("hash"), "a block's hash", 32),
        _data(block.get("parentHash"), "a block's parent hash", 32),
        _data(block.get("stateRoot"), "a block's state root", 32),
        _number(block.get("timestamp"), "a block's timestamp"),
    )


def _objects(value: Json, what: str) -> list[dict[str, Json]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _odd(f"the node's {what} are no list of objects")
    return value


def _number(value: Json, what: str) -> int:
    try:
        if isinstance(value, str) and value.startswith("0x") and len(value) <= 66:
            return int(value[2:], 16)
    except ValueError:
        pass
    raise _odd(f"{what} is not a 0x-prefixed number of at most 256 bits")


def _data(value: Json, what: str, size: int) -> bytes:
    try:
        if isinstance(value, str) and value.startswith("0x") and len(value) == 2 + 2 * size:
            return bytes.fromhex(value[2:])
    except ValueError:
        pass
    raise _odd(f"{what} is not 0x-prefixed hex of {size} bytes")


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _odd(sentence: str) -> CallError:
    return CallError(Code.UNAVAILABLE, f"the chain node answers oddly: {sentence}")
