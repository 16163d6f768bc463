"""The layer-1 state as a canonical, persistent, 16-ary hash tree: roots, proofs, and the search for a difference.

May not: do I/O, know what keys mean, or depend on the order in which entries came. Keys and values are bytes.
Rule: docs/architecture.md, "Remote attestation of layer-1 state" (design, section 9).

An entry's place is the SHA-256 of its key, read as 64 nibbles. A subtree with one entry IS that entry's leaf; an inner
node stands exactly where two or more entries share a prefix. So one set of entries has one tree, whatever its history.
The bytes of nodes and proofs stand in `statenode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .statenode import (
    DEPTH,
    EMPTY_NODE,
    EMPTY_ROOT,
    INNER,
    INNER_HEAD,
    LEAF,
    LEAF_HEAD,
    MAX_KEY,
    MAX_NODE,
    MAX_PROOF,
    MAX_VALUE,
    RemoteLeaf,
    StateCode,
    StateTreeError,
    decode_node,
    encode_proof,
    hash_node,
    nibble_at,
    place_of,
    require_place,
    verify_proof,
)

__all__ = [
    "EMPTY_ROOT",
    "MAX_KEY",
    "MAX_NODE",
    "MAX_PROOF",
    "MAX_VALUE",
    "DiffWalk",
    "Difference",
    "StateCode",
    "StateTree",
    "StateTreeError",
    "verify_proof",
]


class _Leaf(NamedTuple):
    key: bytes
    value: bytes


class _Inner(NamedTuple):
    encoded: bytes
    """The node itself, with its children's hashes: a change splices 32 bytes in, and no child keeps its own hash."""
    children: tuple[_Leaf | _Inner, ...]
    """The children that are there, in order, as in the encoding."""


_Node = _Leaf | _Inner
_Change = tuple[bytes, bytes, bytes | None]
"""(place, key, new value or None)."""


def _encode(node: _Node | None) -> bytes:
    if node is None:
        return EMPTY_NODE
    return node.encoded if isinstance(node, _Inner) else LEAF_HEAD.pack(LEAF, len(node.key)) + node.key + node.value


def _child(node: _Inner, nibble: int) -> _Node | None:
    encoded, children = node
    bitmap = encoded[1] << 8 | encoded[2]
    bit = 1 << nibble
    return children[(bitmap & (bit - 1)).bit_count()] if bitmap & bit else None


def _spread(node: _Inner) -> tuple[list[_Node | None], list[bytes | None]]:
    """An inner node's children and their hashes in sixteen places each."""
    bitmap = node.encoded[1] << 8 | node.encoded[2]
    children: list[_Node | None] = [None] * 16
    hashes: list[bytes | None] = [None] * 16
    start = INNER_HEAD.size
    there = iter(node.children)
    for nibble in range(16):
        if bitmap >> nibble & 1:
            children[nibble] = next(there)
            hashes[nibble] = node.encoded[start : start + 32]
            start += 32
    return children, hashes


def _inner(children: list[_Node | None], hashes: list[bytes | None]) -> _Node | None:
    """The canonical node over these children: nothing, the lone leaf itself, or an inner node."""
    there = tuple([child for child in children if child is not None])
    if not there:
        return None
    if len(there) == 1 and isinstance(there[0], _Leaf):
        return there[0]
    bitmap = 0
    for nibble, child in enumerate(children):
        if child is not None:
            bitmap |= 1 << nibble
    return _Inner(INNER_HEAD.pack(INNER, bitmap) + b"".join([h for h in hashes if h is not None]), there)


def _build(leaves: list[tuple[bytes, _Leaf]], depth: int) -> _Node | None:
    if len(leaves) <= 1:
        return leaves[0][1] if leaves else None
    groups: dict[int, list[tuple[bytes, _Leaf]]] = {}
    for entry in leaves:
        groups.setdefault(nibble_at(entry[0], depth), []).append(entry)
    children: list[_Node | None] = [None] * 16
    hashes: list[bytes | None] = [None] * 16
    for nibble, group in groups.items():
        child = children[nibble] = _build(group, depth + 1)
        hashes[nibble] = hash_node(_encode(child))
    return _inner(children, hashes)


def _update(node: _Node | None, changes: list[_Change], depth: int, grown: list[int]) -> _Node | None:
    """The node after these changes; `grown[0]` sums by how many entries the tree grew."""
    if not isinstance(node, _Inner):
        return _merge(node, changes, depth, grown)
    if len(changes) == 1:
        return _update_one(node, changes, depth, grown)
    groups: dict[int, list[_Change]] = {}
    for change in changes:
        groups.setdefault(nibble_at(change[0], depth), []).append(change)
    children, hashes = _spread(node)
    same = True
    for nibble, group in groups.items():
        new = _update(children[nibble], group, depth + 1, grown)
        if new is not children[nibble]:
            children[nibble] = new
            hashes[nibble] = None if new is None else hash_node(_encode(new))
            same = False
    return node if same else _inner(children, hashes)


def _merge(node: _Leaf | None, changes: list[_Change], depth: int, grown: list[int]) -> _Node | None:
    """What stands where nothing or one leaf stood: built anew from it and the changes."""
    leaves: list[tuple[bytes, _Leaf]] = []
    untouched = node
    for place, key, value in changes:
        if node is not None and key == node.key:
            untouched = None
            if value == node.value:
                leaves.append((place, node))
                continue
        if value is not None:
            leaves.append((place, _Leaf(key, value)))
    if untouched is not None:
        if not leaves:
            return untouched
        leaves.append((place_of(untouched.key), untouched))
    grown[0] += len(leaves) - (node is not None)
    return _build(leaves, depth)


def _update_one(node: _Inner, changes: list[_Change], depth: int, grown: list[int]) -> _Node | None:
    # The hot path: below the first levels nearly every node has one change. Down without recursion, then up again.
    place = changes[0][0]
    trail: list[tuple[_Inner, int]] = []
    below: _Node | None = node
    while isinstance(below, _Inner):
        nibble = nibble_at(place, depth)
        trail.append((below, nibble))
        below = _child(below, nibble)
        depth += 1
    new = _merge(below, changes, depth, grown)
    if new is below:
        return node
    for parent, nibble in reversed(trail):
        new = _replace(parent, nibble, new)
    return new


def _replace(node: _Inner, nibble: int, new: _Node | None) -> _Node | None:
    """The canonical node with another child at one nibble."""
    encoded, children = node
    bitmap = encoded[1] << 8 | encoded[2]
    if new is not None and bitmap >> nibble & 1 and len(children) > 1:
        index = (bitmap & ((1 << nibble) - 1)).bit_count()
        start = INNER_HEAD.size + 32 * index
        return _Inner(
            encoded[:start] + hash_node(_encode(new)) + encoded[start + 32 :],
            (*children[:index], new, *children[index + 1 :]),
        )
    # The rare cases: a child that comes or goes, and an only child, which takes this node's place when it is a leaf.
    spread, hashes = _spread(node)
    spread[nibble] = new
    hashes[nibble] = None if new is None else hash_node(_encode(new))
    return _inner(spread, hashes)


class StateTree:
    """One version of the state. Persistent: `apply` gives a new version that shares what did not change.

    A version is immutable, so threads may read one while another is made.
    """

    __slots__ = ("_count", "_node", "_root")

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        """A tree of these entries; without any, the empty tree. Raises as `apply` does."""
        self._node: _Node | None = None
        self._count = 0
        self._root: bytes | None = None
        if entries:
            changed = self.apply(entries)
            self._node, self._count = changed._node, changed._count

    @property
    def root(self) -> bytes:
        """The root hash, 32 bytes."""
        if self._root is None:
            self._root = EMPTY_ROOT if self._node is None else hash_node(_encode(self._node))
        return self._root

    def __len__(self) -> int:
        """How many entries there are."""
        return self._count

    def __repr__(self) -> str:
        return f"StateTree({len(self)} entries, root {self.root.hex()})"

    def apply(self, changes: Mapping[bytes, bytes | None]) -> StateTree:
        """The version after these changes (key -> new value, None deletes); costs O(changes).

        Raises `StateTreeError(TOO_LARGE)` for a key or value out of bounds, and then changes nothing.
        """
        batch: list[_Change] = []
        for key, value in changes.items():
            if not 0 < len(key) <= MAX_KEY:
                raise StateTreeError(StateCode.TOO_LARGE, f"a key has 1 to {MAX_KEY} bytes, this one {len(key)}")
            if value is not None and len(value) > MAX_VALUE:
                raise StateTreeError(
                    StateCode.TOO_LARGE, f"a value has at most {MAX_VALUE} bytes, that of {key[:80]!r} {len(value)}"
                )
            batch.append((place_of(key), key, value))
        if not batch:
            return self
        grown = [0]
        node = _update(self._node, batch, 0, grown)
        if node is self._node:
            return self
        tree = StateTree()
        tree._node = node
        tree._count = self._count + grown[0]
        return tree

    def get(self, key: bytes) -> bytes | None:
        """The key's value, None when it is absent."""
        leaf = _find(self._node, place_of(key), key)
        return None if leaf is None else leaf.value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, in the order of their places."""
        return _items(self._node)

    def prove(self, key: bytes) -> bytes:
        """A proof of the key's value or of its absence, for `verify_proof`; O(log n) nodes of at most 515 bytes."""
        place = place_of(key)
        node = self._node
        nodes = [_encode(node)]
        depth = 0
        while isinstance(node, _Inner):
            node = _child(node, nibble_at(place, depth))
            if node is None:
                break
            nodes.append(_encode(node))
            depth += 1
        return encode_proof(nodes)

    def node(self, prefix: bytes) -> bytes:
        """The encoded node at a prefix of nibbles (one nibble, 0 to 15, a byte); the empty prefix is the root's.

        Raises `StateTreeError(NO_NODE)` where there is none.
        """
        node = self._node
        for nibble in prefix:
            node = _child(node, nibble) if isinstance(node, _Inner) and nibble < 16 else None
            if node is None:
                raise StateTreeError(StateCode.NO_NODE, f"there is no node at prefix {prefix[:DEPTH].hex()}")
        return _encode(node)


def _find(node: _Node | None, place: bytes, key: bytes) -> _Leaf | None:
    depth = 0
    while isinstance(node, _Inner):
        node = _child(node, nibble_at(place, depth))
        depth += 1
    return node if node is not None and node.key == key else None


def _items(node: _Node | None) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(node, _Leaf):
        yield node.key, node.value
    elif node is not None:
        for child in node.children:
            yield from _items(child)


class Difference(NamedTuple):
    """One key in which two trees differ, with both proofs; at least one of the values is there."""

    key: bytes
    mine: bytes | None
    theirs: bytes | None
    my_proof: bytes
    their_proof: bytes


class DiffWalk:
    """Finds one key in which my tree differs from a remote one, given the remote root; sans-IO.

    While `wanted` is a prefix, ask the remote for `node(prefix)` and `feed` the answer; then read `difference`.
    Every answer is verified against the root, so a remote can refuse to answer, but not mislead. At most 65 answers.
    """

    def __init__(self, mine: StateTree, their_root: bytes) -> None:
        """Raises `ValueError` when the roots are equal: there is nothing to find."""
        if mine.root == their_root:
            raise ValueError("the roots are equal: nothing differs")
        self.their_root = their_root
        self.difference: Difference | None = None
        self._tree = mine
        self._mine: _Node | None = mine._node
        self._expected = their_root
        self._prefix = b""
        self._nodes: list[bytes] = []

    @property
    def wanted(self) -> bytes | None:
        """The prefix of the node that is needed next; None when the difference is found."""
        return None if self.difference is not None else self._prefix

    def feed(self, encoded: bytes) -> None:
        """Take the remote's node at `wanted`. Raises `StateTreeError` when it isn't that node; the walk stays put."""
        if self.difference is not None:
            raise RuntimeError("the walk is over")
        node = decode_node(encoded, self._expected)
        if node is None and self._prefix:
            raise StateTreeError(StateCode.NOT_CANONICAL, "an empty node stands below the root")
        if isinstance(node, list):
            self._inner(encoded, node)
            return
        if node is not None:
            require_place(node, self._prefix)
        self._nodes.append(encoded)
        self._end(self._key_beside(node))

    def _inner(self, encoded: bytes, theirs: list[bytes | None]) -> None:
        depth = len(self._prefix)
        if depth == DEPTH:
            raise StateTreeError(StateCode.NOT_CANONICAL, "an inner node stands below the last nibble")
        children, hashes = _virtual(self._mine, depth)
        for nibble in range(16):
            hashed = theirs[nibble]
            if hashed == hashes[nibble]:
                continue
            self._nodes.append(encoded)
            if hashed is None:
                self._end(_first(children[nibble]).key)
            else:
                self._mine, self._expected = children[nibble], hashed
                self._prefix += bytes((nibble,))
            return
        raise StateTreeError(
            StateCode.NOT_CANONICAL, f"the node at {self._prefix.hex()} has the same entries but is built otherwise"
        )

    def _key_beside(self, theirs: RemoteLeaf | None) -> bytes:
        """A key that differs between my subtree and their single leaf (or nothing)."""
        if theirs is None:
            return _first(self._mine).key
        if self._tree.get(theirs.key) != theirs.value:
            return theirs.key
        # The same entry is on both sides, so what differs is another entry of mine.
        for key, _ in _items(self._mine):
            if key != theirs.key:
                return key
        raise AssertionError("equal leaves have equal hashes")

    def _end(self, key: bytes) -> None:
        their_proof = encode_proof(self._nodes)
        theirs = verify_proof(self.their_root, key, their_proof)
        self.difference = Difference(key, self._tree.get(key), theirs, self._tree.prove(key), their_proof)


def _virtual(node: _Node | None, depth: int) -> tuple[list[_Node | None], list[bytes | None]]:
    """My children and hashes at a depth; a lone leaf counts as the only child of an inner node that I don't have."""
    if isinstance(node, _Inner):
        return _spread(node)
    children: list[_Node | None] = [None] * 16
    hashes: list[bytes | None] = [None] * 16
    if node is not None:
        nibble = nibble_at(place_of(node.key), depth)
        children[nibble] = node
        hashes[nibble] = hash_node(_encode(node))
    return children, hashes


def _first(node: _Node | None) -> _Leaf:
    while isinstance(node, _Inner):
        node = node.children[0]
    if node is None:
        raise AssertionError("a subtree that differs from nothing has an entry")
    return node
