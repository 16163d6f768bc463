"""The embedded chain: a real EVM, one seed one chain, state at every height, reorganisations, what is submitted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from Crypto.Hash import keccak
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tea.simulator.chain.embedded import CHAIN_ID, EmbeddedChain, EmbeddedChainError
from tea.simulator.chain.token import transfer


def balance_slot(chain: EmbeddedChain, address: bytes) -> int:
    preimage = chain.balance_slot.to_bytes(32, "big") + address.rjust(32, b"\x00")
    return int.from_bytes(keccak.new(digest_bits=256, data=preimage).digest(), "big")


def balance_of(chain: EmbeddedChain, address: bytes) -> int:
    return int.from_bytes(chain.call(chain.token, bytes.fromhex("70a08231") + address.rjust(32, b"\x00"), chain.tip))


@pytest.fixture
def chain() -> EmbeddedChain:
    return EmbeddedChain(seed=3, accounts=4, transfers_per_block=3)


def test_one_seed_gives_one_chain_hash_for_hash() -> None:
    chains = [EmbeddedChain(seed, 3, 2) for seed in (5, 5, 6)]
    for chain in chains:
        for _ in range(3):
            chain.mine_block()
    assert chains[0].tip.hash == chains[1].tip.hash != chains[2].tip.hash


def test_blocks_are_linked_and_each_has_its_own_state_root(chain: EmbeddedChain) -> None:
    for _ in range(4):
        chain.mine_block()
    blocks = [chain.block(height) for height in range(chain.height + 1)]
    found = [block for block in blocks if block is not None]
    assert len(found) == 6
    for parent, child in itertools.pairwise(found):
        assert child.header.parent_hash == parent.hash
    assert len({block.header.state_root for block in found}) == 6
    assert chain.left_out == 0


def test_storage_at_every_height_is_what_the_contract_said_then(chain: EmbeddedChain) -> None:
    said = {}
    for _ in range(4):
        block = chain.mine_block()
        said[chain.height] = [balance_of(chain, account) for account in chain.accounts]
        assert len(block.block.transactions) == 3
    for height, balances in said.items():
        at = chain.block(height)
        assert at is not None
        stored = [chain.storage(chain.token, balance_slot(chain, account), at) for account in chain.accounts]
        assert stored == balances
    assert len({tuple(balances) for balances in said.values()}) > 1


def test_a_submitted_transaction_is_in_the_next_block(chain: EmbeddedChain) -> None:
    stranger = b"\x99" * 20
    key: LocalAccount = Account.from_key(chain.private_key(1))
    raw = signed(chain, key, to=stranger, value=12345)
    digest = chain.submit(raw)
    block = chain.mine_block()
    assert bytes(block.block.transactions[0].hash) == digest
    assert chain.balance(stranger, block) == 12345
    before = chain.block(chain.height - 1)
    assert before is not None
    assert chain.balance(stranger, before) == 0


def signed(chain: EmbeddedChain, key: LocalAccount, **fields: object) -> bytes:
    address = bytes.fromhex(key.address[2:])
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": CHAIN_ID,
        "nonce": chain.nonce(address, chain.tip),
        "gas": 100_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 1,
        "value": 0,
        **fields,
    }
    return bytes(key.sign_transaction(transaction).raw_transaction)


def test_a_token_transfer_from_outside_moves_tokens(chain: EmbeddedChain) -> None:
    key: LocalAccount = Account.from_key(chain.private_key(0))
    chain.submit(signed(chain, key, to=chain.token, data=transfer(b"\x77" * 20, 5)))
    chain.mine_block()
    assert balance_of(chain, b"\x77" * 20) == 5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"nonce": 99}, "nonce"), ({"value": 10**30}, "balance"), ({"chainId": 1}, "chain 1")],
)
def test_a_transaction_that_can_not_be_included_is_refused(
    chain: EmbeddedChain, fields: dict[str, object], reason: str
) -> None:
    key: LocalAccount = Account.from_key(chain.private_key(0))
    with pytest.raises(EmbeddedChainError, match=reason):
        chain.submit(signed(chain, key, to=b"\x01" * 20, **fields))


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\xff" * 100, b"\xc0", b"\x02\xf8\x6f" + bytes(111)])
def test_bytes_that_are_no_transaction_are_refused(chain: EmbeddedChain, raw: bytes) -> None:
    with pytest.raises(EmbeddedChainError):
        chain.submit(raw)


def test_a_reorganisation_replaces_blocks_by_others(chain: EmbeddedChain) -> None:
    for _ in range(4):
        chain.mine_block()
    old = [chain.block(height) for height in range(chain.height + 1)]
    chain.reorganise(2)
    assert chain.height == 3
    for _ in range(3):
        chain.mine_block()
    assert chain.height == 6
    assert chain.block(3) == old[3]
    for gone in old[4:]:
        assert gone is not None
        assert chain.block_by_hash(gone.hash) is None
    assert len(chain.tip.block.transactions) == 3


@pytest.mark.parametrize("depth", [0, -1, 1, 50])
def test_genesis_and_the_token_stay(depth: int) -> None:
    with pytest.raises(EmbeddedChainError):
        EmbeddedChain(1, 2, 0).reorganise(depth)


def test_a_call_that_reverts_says_so(chain: EmbeddedChain) -> None:
    with pytest.raises(EmbeddedChainError, match="reverted"):
        chain.call(chain.token, transfer(b"\x01" * 20, 1), chain.tip, sender=b"\x02" * 20)


@pytest.mark.parametrize("arguments", [(1, 1, 1), (1, 4, -1)])
def test_sizes_that_make_no_chain_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="2 accounts"):
        EmbeddedChain(*arguments)
