"""A chain on py-evm: genesis, a token, blocks of seeded transfers, state at every height, reorganisations on demand.

May not: read a clock or draw random numbers of its own: one seed gives one chain, hash for hash. Blocks are final at
once. Rule: docs/architecture.md, "Modes"; the EVM is py-evm's (Prague rules).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from eth._utils.address import generate_contract_address
from eth.abc import BlockAPI, BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI, StateAPI
from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.atomic import AtomicDB
from eth.exceptions import PyEVMError
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_keys.datatypes import PrivateKey
from eth_typing import Address, BlockNumber
from eth_utils.exceptions import ValidationError

from .token import compile_token, constructor, transfer

CHAIN_ID: Final = 1337
GENESIS_TIME: Final = 1_700_000_000
BLOCK_TIME: Final = 12
"""Seconds between blocks, in the chain's own time."""
SUPPLY: Final = 10**27
GAS_PRICE: Final = 10**10
_GAS_LIMIT: Final = 30_000_000
_DEPLOY_GAS: Final = 1_000_000
_TRANSFER_GAS: Final = 100_000
_CALL_GAS: Final = 1_000_000
_SUCCESS: Final = b"\x01"
_RICH: Final = 10**24
_MAX_PENDING: Final = 1000


class EmbeddedChainError(Exception):
    """A transaction or a request that the chain refuses; the sentence is for people."""


class Mined(NamedTuple):
    """A block with its receipts."""

    block: BlockAPI
    receipts: tuple[ReceiptAPI, ...]

    @property
    def header(self) -> BlockHeaderAPI:
        return self.block.header

    @property
    def hash(self) -> bytes:
        return bytes(self.block.header.hash)


class _Chain(MiningChain):
    chain_id = CHAIN_ID
    vm_configuration = ((BlockNumber(0), PragueVM),)


class EmbeddedChain:
    """A real EVM in this process. Height 0 is the genesis; block 1 deploys the token and spreads it."""

    def __init__(self, seed: int = 1, accounts: int = 16, transfers_per_block: int = 8) -> None:
        """`accounts` own ether and tokens from the start; each block moves some between them and to new ones."""
        if accounts < 2 or transfers_per_block < 0:
            raise ValueError("a chain needs 2 accounts or more, and 0 transfers a block or more")
        self.seed = seed
        self.transfers_per_block = transfers_per_block
        self._keys = [
            PrivateKey(hashlib.sha256(b"tea.simulator.chain %d %d" % (seed, n)).digest()) for n in range(accounts)
        ]
        self.accounts = [bytes(key.public_key.to_canonical_address()) for key in self._keys]
        self._random = random.Random(seed)  # noqa: S311 - a reproducible stream is the point
        self._pending: list[SignedTransactionAPI] = []
        self._chain = _genesis(self.accounts)
        genesis = self._chain.get_canonical_block_by_number(BlockNumber(0))
        self._blocks: list[Mined] = [Mined(genesis, ())]
        self._by_hash: dict[bytes, Mined] = {self._blocks[0].hash: self._blocks[0]}
        self._fork = 0
        self.left_out = 0
        self.balance_slot = compile_token().balance_slot
        self.token = self._deploy()

    def private_key(self, number: int) -> bytes:
        """The secp256k1 key (32 bytes) of one of `accounts`: everyone who knows the seed knows it."""
        return bytes(self._keys[number].to_bytes())

    # Making blocks.

    def mine_block(self) -> Mined:
        """The next block: what was submitted, then the seeded transfers."""
        submitted, self._pending = self._pending, []
        for transaction in submitted:
            self._include(transaction)
        for _ in range(self.transfers_per_block):
            self._transfer()
        return self._seal()

    def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction into the next block; its hash. Raises `EmbeddedChainError`."""
        if len(self._pending) >= _MAX_PENDING:
            raise EmbeddedChainError(f"{_MAX_PENDING} transactions wait for the next block already")
        try:
            builder = cast("Any", self._chain.get_vm(self._chain.header).get_transaction_builder())
            transaction = cast("SignedTransactionAPI", builder.decode(raw))
            transaction.validate()
            sender = bytes(transaction.sender)
        except Exception as error:  # noqa: BLE001 - RLP, curve and EVM errors have no common base
            raise EmbeddedChainError(f"this is no signed transaction: {error}") from None
        if getattr(transaction, "chain_id", CHAIN_ID) not in (CHAIN_ID, None):
            raise EmbeddedChainError(f"the transaction is for chain {transaction.chain_id}, this is {CHAIN_ID}")
        waiting = sum(1 for other in self._pending if other.sender == transaction.sender)
        expected = self.nonce(sender, self.tip) + waiting
        if transaction.nonce != expected:
            raise EmbeddedChainError(f"nonce {transaction.nonce}, expected {expected}")
        if self.balance(sender, self.tip) < transaction.value + transaction.gas * transaction.max_fee_per_gas:
            raise EmbeddedChainError("the balance does not pay for value and gas")
        self._pending.append(transaction)
        return bytes(transaction.hash)

    def reorganise(self, depth: int) -> None:
        """Take the newest `depth` blocks away; what is mined then differs. Raises `EmbeddedChainError`."""
        if not 0 < depth < len(self._blocks) - 1:
            raise EmbeddedChainError(f"1 to {len(self._blocks) - 2} blocks can be taken away, not {depth}")
        for gone in self._blocks[-depth:]:
            del self._by_hash[gone.hash]
        del self._blocks[-depth:]
        self._fork += 1
        self._pending.clear()
        self._chain.header = self._chain.create_header_from_parent(self.tip.header)

    # Reading.

    @property
    def tip(self) -> Mined:
        """The newest block; it is final."""
        return self._blocks[-1]

    @property
    def height(self) -> int:
        return len(self._blocks) - 1

    def block(self, height: int) -> Mined | None:
        return self._blocks[height] if 0 <= height < len(self._blocks) else None

    def block_by_hash(self, block_hash: bytes) -> Mined | None:
        """A block of the chain; None for one that a reorganisation took away."""
        return self._by_hash.get(block_hash)

    def balance(self, address: bytes, at: Mined) -> int:
        """Wei."""
        return int(self._state(at).get_balance(Address(address)))

    def nonce(self, address: bytes, at: Mined) -> int:
        return int(self._state(at).get_nonce(Address(address)))

    def code(self, address: bytes, at: Mined) -> bytes:
        return bytes(self._state(at).get_code(Address(address)))

    def storage(self, address: bytes, slot: int, at: Mined) -> int:
        return int(self._state(at).get_storage(Address(address), slot))

    def call(self, to: bytes, data: bytes, at: Mined, sender: bytes = bytes(20)) -> bytes:
        """The output of a read-only call. Raises `EmbeddedChainError` when it reverts."""
        plain = self._chain.create_unsigned_transaction(
            nonce=0, gas_price=0, gas=_CALL_GAS, to=Address(to), value=0, data=data
        )
        try:
            spoofed = cast("SignedTransactionAPI", SpoofTransaction(plain, from_=sender))
            return bytes(self._chain.get_transaction_result(spoofed, at.header))
        except (PyEVMError, RecursionError) as error:
            raise EmbeddedChainError(f"execution reverted: {error}") from None

    # Inside.

    def _state(self, at: Mined) -> StateAPI:
        return self._chain.get_vm(at.header).state

    def _deploy(self) -> bytes:
        """Block 1: the token and its spread over the accounts; the token's address."""
        self._send(self._keys[0], b"", constructor(compile_token(), SUPPLY), _DEPLOY_GAS)
        address = bytes(generate_contract_address(Address(self.accounts[0]), 0))
        share = SUPPLY // (2 * len(self.accounts))
        for receiver in self.accounts[1:]:
            self._send(self._keys[0], address, transfer(receiver, share), _TRANSFER_GAS)
        block = self._seal()
        if not all(receipt.state_root == _SUCCESS for receipt in block.receipts):
            raise EmbeddedChainError("the token could not be deployed: a defect of token.vy")
        return address

    def _transfer(self) -> None:
        draw = self._random
        key = draw.choice(self._keys)
        receiver = draw.choice(self.accounts) if draw.random() < 0.8 else draw.randbytes(20)
        if draw.random() < 0.85:
            self._send(key, self.token, transfer(receiver, draw.randrange(1, 10**18)), _TRANSFER_GAS)
        else:
            self._send(key, receiver, b"", 21_000, value=draw.randrange(1, 10**18))

    def _send(self, key: PrivateKey, to: bytes, data: bytes, gas: int, value: int = 0) -> None:
        sender = Address(bytes(key.public_key.to_canonical_address()))
        nonce = self._chain.get_vm(self._chain.header).state.get_nonce(sender)
        plain = self._chain.create_unsigned_transaction(
            nonce=nonce, gas_price=GAS_PRICE, gas=gas, to=Address(to), value=value, data=data
        )
        self._include(plain.as_signed_transaction(key, chain_id=CHAIN_ID))

    def _include(self, transaction: SignedTransactionAPI) -> None:
        try:
            self._chain.apply_transaction(transaction)
        except (PyEVMError, ValidationError, RecursionError):
            self.left_out += 1  # as a block producer does with what can't be included

    def _seal(self) -> Mined:
        parent = self.tip.header
        seal = hashlib.sha256(b"%d %d %d" % (self.seed, self._fork, parent.block_number + 1)).digest()
        block = self._chain.mine_block(
            timestamp=parent.timestamp + BLOCK_TIME, mix_hash=seal, extra_data=b"%d" % self._fork
        )
        mined = Mined(block, tuple(block.get_receipts(self._chain.chaindb)))
        self._blocks.append(mined)
        self._by_hash[mined.hash] = mined
        return mined


def _genesis(accounts: Sequence[bytes]) -> _Chain:
    return cast(
        "_Chain",
        _Chain.from_genesis(
            AtomicDB(),
            {
                "difficulty": POST_MERGE_DIFFICULTY,
                "mix_hash": POST_MERGE_MIX_HASH,
                "nonce": POST_MERGE_NONCE,
                "gas_limit": _GAS_LIMIT,
                "timestamp": GENESIS_TIME,
                "extra_data": b"",
            },
            {Address(account): {"balance": _RICH, "nonce": 0, "code": b"", "storage": {}} for account in accounts},
        ),
    )
