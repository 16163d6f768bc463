"""The search for a differing key between two trees that lie elsewhere: it ends, and cannot be misled.

Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.round_formats import DifferingKey
from tea.trust.round_walk import PairWalk, Side
from tea.trust.statenode import (
    EMPTY_NODE,
    INNER,
    INNER_HEAD,
    StateTreeError,
    hash_node,
    nibble_at,
    place_of,
    verify_proof,
)
from tea.trust.statetree import StateTree

KEYS = st.binary(min_size=1, max_size=2)
ENTRIES = st.dictionaries(KEYS, st.binary(max_size=2), max_size=40)


def walk(certified: StateTree, accused: StateTree) -> tuple[DifferingKey, int]:
    """The difference, and how many nodes it took."""
    pair = PairWalk(certified.root, accused.root)
    steps = 0
    while (wanted := pair.wanted) is not None:
        assert pair.difference is None
        pair.feed((certified if wanted.side is Side.CERTIFIED else accused).node(wanted.prefix))
        steps += 1
    found = pair.difference
    assert found is not None
    return found, steps


def holds(found: DifferingKey, certified: StateTree, accused: StateTree) -> bool:
    values = (
        verify_proof(certified.root, found.key, found.certified),
        verify_proof(accused.root, found.key, found.accused),
    )
    return values == (certified.get(found.key), accused.get(found.key)) and values[0] != values[1]


@given(ENTRIES, ENTRIES)
def test_two_different_trees_have_a_differing_key_that_both_proofs_show(
    first: dict[bytes, bytes], second: dict[bytes, bytes]
) -> None:
    certified, accused = StateTree(first), StateTree(second)
    if certified.root == accused.root:
        with pytest.raises(ValueError, match="nothing differs"):
            PairWalk(certified.root, accused.root)
    else:
        found, _ = walk(certified, accused)
        assert holds(found, certified, accused)


@given(st.dictionaries(KEYS, st.binary(max_size=2), min_size=1, max_size=300), st.data())
def test_one_change_among_many_is_found(entries: dict[bytes, bytes], data: st.DataObject) -> None:
    certified = StateTree(entries)
    key = data.draw(st.sampled_from(sorted(entries)) | KEYS)
    accused = certified.apply({key: data.draw(st.none() | st.just(b"another value"))})
    if certified.root != accused.root:
        for one, other in ((certified, accused), (accused, certified)):
            found, _ = walk(one, other)
            assert found.key == key and holds(found, one, other)


def test_the_steps_grow_with_the_logarithm() -> None:
    certified = StateTree({n.to_bytes(4, "big"): b"value" for n in range(20_000)})
    _, steps = walk(certified, certified.apply({(7).to_bytes(4, "big"): b"another"}))
    assert steps <= 2 * 8


def test_a_node_that_is_not_the_wanted_one_is_refused_and_the_walk_goes_on() -> None:
    certified, accused = StateTree({b"a": b"1", b"b": b"2"}), StateTree({b"a": b"1", b"b": b"3"})
    pair = PairWalk(certified.root, accused.root)
    for wrong in (b"", b"\x00", accused.node(b""), b"\x02\x00\x00"):
        with pytest.raises(StateTreeError):
            pair.feed(wrong)
    pair.feed(certified.node(b""))
    with pytest.raises(StateTreeError):
        pair.feed(certified.node(b""))
    while (wanted := pair.wanted) is not None:
        pair.feed((certified if wanted.side is Side.CERTIFIED else accused).node(wanted.prefix))
    assert pair.difference is not None and pair.difference.key == b"b"
    with pytest.raises(RuntimeError, match="over"):
        pair.feed(certified.node(b""))


def _inner(nibble: int, child: bytes) -> bytes:
    """A node that no tree has: one child only, whatever that is."""
    return INNER_HEAD.pack(INNER, 1 << nibble) + hash_node(child)


def test_trees_that_no_entries_have_end_the_walk() -> None:
    leaf = StateTree({b"k": b"v"}).node(b"")
    mine = nibble_at(place_of(b"k"), 0)
    for nibble, child in ((mine, leaf), (mine ^ 1, EMPTY_NODE), (mine ^ 1, leaf)):
        root = _inner(nibble, child)
        pair = PairWalk(hash_node(leaf), hash_node(root))
        pair.feed(leaf)
        pair.feed(root)
        with pytest.raises(StateTreeError):
            pair.feed(child)
        assert pair.difference is None


def test_a_tree_without_end_is_not_followed_for_ever() -> None:
    bottom = _inner(0, b"x")
    nodes = [bottom]
    for _ in range(70):
        nodes.append(_inner(0, nodes[-1]))
    pair = PairWalk(StateTree().root, hash_node(nodes[-1]))
    pair.feed(EMPTY_NODE)
    with pytest.raises(StateTreeError):
        for node in reversed(nodes):
            pair.feed(node)
    assert pair.wanted is not None and len(pair.wanted.prefix) == 64
