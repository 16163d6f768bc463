"""The state tree: canonical roots, proofs that can't be bent, and the walk to a differing key."""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.trust import statebranch
from tea.trust.statetree import (
    EMPTY_ROOT,
    MAX_KEY,
    MAX_PROOF,
    MAX_VALUE,
    DiffWalk,
    StateCode,
    StateTree,
    StateTreeError,
    verify_proof,
)

KEYS = st.binary(min_size=1, max_size=3)
VALUES = st.binary(max_size=6)
ENTRIES = st.dictionaries(KEYS, VALUES, max_size=60)


def colliding(prefix_nibbles: int, count: int = 2) -> list[bytes]:
    """Keys whose places share their first nibbles: deep trees with few entries."""
    found: dict[str, list[bytes]] = {}
    number = 0
    while True:
        key = b"k%d" % number
        group = found.setdefault(hashlib.sha256(key).hexdigest()[:prefix_nibbles], [])
        group.append(key)
        if len(group) == count:
            return group
        number += 1


def walk(mine: StateTree, theirs: StateTree) -> DiffWalk:
    found = DiffWalk(mine, theirs.root)
    while (prefix := found.wanted) is not None:
        found.feed(theirs.node(prefix))
    return found


# The tree.


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_root_does_not_depend_on_the_order_of_insertion(entries: dict[bytes, bytes], rng: random.Random) -> None:
    whole = StateTree(entries)
    one_by_one = StateTree()
    keys = list(entries)
    rng.shuffle(keys)
    for key in keys:
        one_by_one = one_by_one.apply({key: entries[key]})
    assert one_by_one.root == whole.root
    assert dict(one_by_one.items()) == entries
    assert len(one_by_one) == len(whole) == len(entries)


@given(ENTRIES, ENTRIES)
def test_what_was_deleted_was_never_there(entries: dict[bytes, bytes], others: dict[bytes, bytes]) -> None:
    extra = {key: value for key, value in others.items() if key not in entries}
    tree = StateTree(entries)
    again = tree.apply(extra).apply(dict.fromkeys(extra))
    assert again.root == tree.root
    assert len(again) == len(entries)


@given(ENTRIES, st.lists(st.dictionaries(KEYS, st.none() | VALUES, max_size=20), max_size=6))
def test_it_is_a_mapping_and_every_version_stays_what_it_was(
    entries: dict[bytes, bytes], steps: list[dict[bytes, bytes | None]]
) -> None:
    model = dict(entries)
    tree = StateTree(entries)
    versions = [(tree, dict(model))]
    for changes in steps:
        tree = tree.apply(changes)
        for key, value in changes.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        versions.append((tree, dict(model)))
    for version, content in versions:
        assert dict(version.items()) == content
        assert len(version) == len(content)
        assert version.root == StateTree(content).root
        assert all(version.get(key) == value for key, value in content.items())


@given(ENTRIES, ENTRIES)
def test_other_entries_have_another_root(entries: dict[bytes, bytes], others: dict[bytes, bytes]) -> None:
    assert (StateTree(entries).root == StateTree(others).root) == (entries == others)


def test_changes_that_change_nothing_give_the_same_version() -> None:
    tree = StateTree({b"a": b"1", b"b": b"2"})
    assert tree.apply({}) is tree
    assert tree.apply({b"a": b"1"}) is tree
    assert tree.apply({b"c": None}) is tree


def test_a_batch_hashes_each_place_leaf_and_node_above_a_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    entries = {chance.randbytes(8): chance.randbytes(20) for _ in range(3000)}
    tree = StateTree(entries)
    changes = {key: chance.randbytes(20) for key in chance.sample(sorted(entries), 300)}
    above = set()
    for key in changes:
        place = hashlib.sha256(key).hexdigest()
        for depth in range(64):
            prefix = bytes(int(digit, 16) for digit in place[:depth])
            if tree.node(prefix)[0] != 2:
                break
            above.add(prefix)
    hashed: list[bytes] = []

    def counting(data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr(statebranch, "_sha256", counting)
    after = tree.apply(changes)
    assert len(hashed) == len(set(hashed)) == 2 * len(changes) + len(above) - 1  # the root's is asked for apart
    monkeypatch.undo()
    assert after.root == StateTree(entries | changes).root


def test_an_empty_value_is_not_absence() -> None:
    tree = StateTree({b"a": b""})
    assert tree.get(b"a") == b""
    assert tree.root != StateTree().root == EMPTY_ROOT
    assert verify_proof(tree.root, b"a", tree.prove(b"a")) == b""


def test_where_key_ends_and_value_begins_is_part_of_the_hash() -> None:
    assert StateTree({b"ab": b"c"}).root != StateTree({b"a": b"bc"}).root


def test_the_format_is_pinned() -> None:
    tree = StateTree({b"alice": b"1", b"bob": b"2", b"carol": b"3"})
    assert EMPTY_ROOT.hex() == "350f9f392c8dd0808aa106b480b355b6c7a4ea10b192553b241846dab2e69ae3"
    assert tree.root.hex() == "d0f8e5212137fe5a857dc38be5f8ce29b618d4d991468ff937a17f92efdc560e"
    leaf = b"\x01" + struct.pack(">I", 5) + b"alice" + b"1"
    assert StateTree({b"alice": b"1"}).node(b"") == leaf
    assert StateTree({b"alice": b"1"}).root == hashlib.sha256(b"tea.state.v1\x00" + leaf).digest()


@pytest.mark.parametrize("changes", [{b"": b"x"}, {b"k" * (MAX_KEY + 1): b"x"}, {b"k": b"x" * (MAX_VALUE + 1)}])
def test_entries_out_of_bounds_are_refused_and_nothing_changes(changes: dict[bytes, bytes | None]) -> None:
    tree = StateTree({b"a": b"1"})
    with pytest.raises(StateTreeError) as refused:
        tree.apply({b"b": b"2", **changes})
    assert refused.value.code is StateCode.TOO_LARGE
    assert tree.get(b"b") is None


def test_entries_at_the_bounds_are_kept_and_proven() -> None:
    key = b"k" * MAX_KEY
    tree = StateTree({key: b"x" * MAX_VALUE, b"other": b""})
    assert verify_proof(tree.root, key, tree.prove(key)) == b"x" * MAX_VALUE


def test_a_prefix_without_a_node_is_refused() -> None:
    tree = StateTree({b"a": b"1"})
    for prefix in (b"\x00", b"\x10", b"\xff" * 100):
        with pytest.raises(StateTreeError) as refused:
            tree.node(prefix)
        assert refused.value.code is StateCode.NO_NODE


# Proofs.


@given(ENTRIES, KEYS)
def test_a_proof_shows_the_value_or_the_absence(entries: dict[bytes, bytes], absent: bytes) -> None:
    tree = StateTree(entries)
    for key in [absent, *list(entries)[:5]]:
        assert verify_proof(tree.root, key, tree.prove(key)) == entries.get(key)


@settings(max_examples=40)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=8), KEYS, st.integers(0, 255))
def test_no_bent_proof_is_believed(entries: dict[bytes, bytes], other: bytes, bit: int) -> None:
    tree = StateTree(entries)
    key = next(iter(entries))
    for asked in (key, other):
        proof = tree.prove(asked)
        for index in range(len(proof)):
            bent = bytearray(proof)
            bent[index] ^= bit or 1
            with pytest.raises(StateTreeError):
                verify_proof(tree.root, asked, bytes(bent))
        for cut in range(len(proof)):
            with pytest.raises(StateTreeError):
                verify_proof(tree.root, asked, proof[:cut])
        for tail in (b"\x00", b"\x00\x00\x00\x00", struct.pack(">I", 1) + b"\x00"):
            with pytest.raises(StateTreeError):
                verify_proof(tree.root, asked, proof + tail)
        with pytest.raises(StateTreeError):
            verify_proof(bytes(32), asked, proof)


@given(ENTRIES, KEYS, KEYS)
def test_a_proof_for_another_key_never_lies(entries: dict[bytes, bytes], one: bytes, other: bytes) -> None:
    tree = StateTree(entries)
    try:
        shown = verify_proof(tree.root, one, tree.prove(other))
    except StateTreeError:
        return
    assert shown == entries.get(one)


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_a_proof(garbage: bytes) -> None:
    with pytest.raises(StateTreeError):
        verify_proof(EMPTY_ROOT if garbage != b"\x00\x00\x00\x01\x00" else bytes(32), b"k", garbage)


def _hashed(node: bytes) -> bytes:
    return hashlib.sha256(b"tea.state.v1\x00" + node).digest()


def _proof(*nodes: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(node)) + node for node in nodes)


def test_trees_that_no_entries_have_are_refused() -> None:
    nibble = hashlib.sha256(b"k").digest()[0] >> 4
    elsewhere = next(key for key in (b"x%d" % n for n in range(99)) if hashlib.sha256(key).digest()[0] >> 4 != nibble)
    stray = b"\x01" + struct.pack(">I", len(elsewhere)) + elsewhere
    inner = struct.pack(">BH", 2, 1 << nibble) + _hashed(stray)
    with pytest.raises(StateTreeError) as refused:
        verify_proof(_hashed(inner), b"k", _proof(inner, stray))
    assert refused.value.code is StateCode.NOT_CANONICAL
    hollow = struct.pack(">BH", 2, 1 << nibble) + _hashed(b"\x00")
    with pytest.raises(StateTreeError) as refused:
        verify_proof(_hashed(hollow), b"k", _proof(hollow, b"\x00"))
    assert refused.value.code is StateCode.NOT_CANONICAL


@pytest.mark.parametrize(
    "node",
    [
        b"\x03",
        b"\x00\x00",
        b"\x01",
        b"\x01" + struct.pack(">I", 0) + b"v",
        b"\x01" + struct.pack(">I", 9) + b"k",
        b"\x01" + struct.pack(">I", 0xFFFFFFFF) + b"k",
        b"\x02",
        b"\x02\x00\x00",
        b"\x02\x00\x01" + bytes(31),
        b"\x02\x00\x01" + bytes(33),
        b"\x02\x00\x03" + bytes(32),
    ],
)
def test_bytes_that_are_no_node_are_refused_even_when_the_hash_fits(node: bytes) -> None:
    with pytest.raises(StateTreeError) as refused:
        verify_proof(_hashed(node), b"k", _proof(node))
    assert refused.value.code is StateCode.MALFORMED


def test_a_proof_deeper_than_the_last_nibble_is_refused() -> None:
    place = hashlib.sha256(b"k").digest()
    node = b"\x01" + struct.pack(">I", 1) + b"k"
    nodes = [node]
    for depth in reversed(range(65)):
        nibble = place[(depth % 64) >> 1] & 15 if depth & 1 else place[(depth % 64) >> 1] >> 4
        node = struct.pack(">BH", 2, 1 << nibble) + _hashed(node)
        nodes.insert(0, node)
    with pytest.raises(StateTreeError):
        verify_proof(_hashed(node), b"k", _proof(*nodes))
    with pytest.raises(StateTreeError) as refused:
        verify_proof(_hashed(node), b"k", _proof(*nodes[:65]))
    assert refused.value.code is StateCode.NOT_CANONICAL


def test_an_oversized_proof_and_key_are_refused_before_they_are_read() -> None:
    with pytest.raises(StateTreeError) as refused:
        verify_proof(EMPTY_ROOT, b"k", bytes(MAX_PROOF + 1))
    assert refused.value.code is StateCode.MALFORMED
    for key in (b"", b"k" * (MAX_KEY + 1)):
        with pytest.raises(StateTreeError):
            verify_proof(EMPTY_ROOT, key, StateTree().prove(b"k"))


# The walk to a difference.


@settings(max_examples=200)
@given(ENTRIES, ENTRIES, st.booleans())
def test_the_walk_finds_a_key_that_differs_and_proves_both_values(
    entries: dict[bytes, bytes], others: dict[bytes, bytes], near: bool
) -> None:
    if near:  # most differences are small
        others = {**entries, **dict(list(others.items())[:2])}
    mine, theirs = StateTree(entries), StateTree(others)
    if entries == others:
        with pytest.raises(ValueError, match="nothing differs"):
            DiffWalk(mine, theirs.root)
        return
    found = walk(mine, theirs).difference
    assert found is not None
    assert found.mine == entries.get(found.key)
    assert found.theirs == others.get(found.key)
    assert found.mine != found.theirs
    assert verify_proof(mine.root, found.key, found.my_proof) == found.mine
    assert verify_proof(theirs.root, found.key, found.their_proof) == found.theirs


@pytest.mark.parametrize("shared", [0, 1, 2, 3, 4])
def test_the_walk_goes_down_to_keys_that_share_a_prefix(shared: int) -> None:
    one, other = colliding(shared)
    for a, b in [({one: b"1"}, {other: b"1"}), ({one: b"1"}, {one: b"1", other: b"2"}), ({one: b"1"}, {one: b"2"})]:
        for mine, theirs in [(a, b), (b, a)]:
            found = walk(StateTree(mine), StateTree(theirs)).difference
            assert found is not None
            assert mine.get(found.key) != theirs.get(found.key)


def test_the_walk_takes_logarithmically_many_answers() -> None:
    entries = {b"key%d" % n: b"v" for n in range(5000)}
    mine = StateTree(entries)
    theirs = mine.apply({b"key4321": b"lie"})
    found = DiffWalk(mine, theirs.root)
    answers = 0
    while (prefix := found.wanted) is not None:
        found.feed(theirs.node(prefix))
        answers += 1
    assert found.difference is not None
    assert found.difference.key == b"key4321"
    assert answers <= 7


def test_a_remote_that_answers_with_another_node_is_refused_and_may_answer_again() -> None:
    mine = StateTree({b"key%d" % n: b"v" for n in range(50)})
    theirs = mine.apply({b"key7": b"lie"})
    found = DiffWalk(mine, theirs.root)
    for wrong in (b"", b"\x00", mine.node(b""), theirs.node(b"")[:-1], bytes(70_000)):
        with pytest.raises(StateTreeError):
            found.feed(wrong)
        assert found.wanted == b""
    found.feed(theirs.node(b""))
    assert found.wanted != b""
    while (prefix := found.wanted) is not None:
        found.feed(theirs.node(prefix))
    assert found.difference is not None
    assert found.difference.key == b"key7"
    with pytest.raises(RuntimeError):
        found.feed(theirs.node(b""))


def test_a_remote_tree_with_my_entries_built_otherwise_is_refused() -> None:
    mine = StateTree({b"k": b"v"})
    leaf = mine.node(b"")
    inner = struct.pack(">BH", 2, 1 << (hashlib.sha256(b"k").digest()[0] >> 4)) + _hashed(leaf)
    found = DiffWalk(mine, _hashed(inner))
    with pytest.raises(StateTreeError) as refused:
        found.feed(inner)
    assert refused.value.code is StateCode.NOT_CANONICAL


def test_a_remote_tree_with_a_hollow_or_stray_node_is_refused() -> None:
    mine = StateTree()
    for node in (b"\x00", b"\x01" + struct.pack(">I", 1) + b"k"):
        for nibble in (0, 15):
            if node != b"\x00" and hashlib.sha256(b"k").digest()[0] >> 4 == nibble:
                continue
            inner = struct.pack(">BH", 2, 1 << nibble) + _hashed(node)
            found = DiffWalk(mine, _hashed(inner))
            found.feed(inner)
            with pytest.raises(StateTreeError) as refused:
                found.feed(node)
            assert refused.value.code is StateCode.NOT_CANONICAL


def test_a_remote_tree_without_a_bottom_is_refused() -> None:
    node = b"\x01" + struct.pack(">I", 1) + b"k"
    nodes: list[bytes] = []
    for _ in range(70):
        node = struct.pack(">BH", 2, 1) + _hashed(node)
        nodes.insert(0, node)
    found = DiffWalk(StateTree(), _hashed(node))
    with pytest.raises(StateTreeError) as refused:
        for encoded in nodes:
            found.feed(encoded)
    assert refused.value.code is StateCode.NOT_CANONICAL


def test_the_repr_is_short() -> None:
    assert repr(StateTree({b"a": b"secret?"})).startswith("StateTree(1 entries, root ")


def test_a_proof_of_another_tree_and_one_cut_short_or_grown_say_so() -> None:
    tree = StateTree().apply({b"k%d" % number: b"v" for number in range(20)})
    proof, root = tree.prove(b"k1"), tree.root
    size = 4 + struct.unpack(">I", proof[:4])[0]
    for wrong_root, wrong_proof, code in (
        (bytes(32), proof, StateCode.MISMATCH),
        (root, proof[:size], StateCode.INCOMPLETE),
        (root, proof + _proof(b"\x00"), StateCode.INCOMPLETE),
    ):
        with pytest.raises(StateTreeError) as refused:
            verify_proof(wrong_root, b"k1", wrong_proof)
        assert refused.value.code is code
