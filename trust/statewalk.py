"""The search for one key in which two layer-1 state trees differ, with proofs of both values; sans-IO.

May not: do I/O, or believe a remote node before its hash. Rule: docs/architecture.md, "Remote attestation of layer-1
state" (design, section 9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .statebranch import Leaf, Node, hash_of, key_of, leaves, spread
from .statenode import (
    DEPTH,
    RemoteLeaf,
    StateCode,
    StateTreeError,
    decode_node,
    encode_proof,
    nibble_at,
    place_of,
    require_place,
    verify_proof,
)

if TYPE_CHECKING:
    from .statetree import StateTree


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
        self._mine: Node | None = mine._node
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
                self._end(key_of(_first(children[nibble])))
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
            return key_of(_first(self._mine))
        if self._tree.get(theirs.key) != theirs.value:
            return theirs.key
        # The same entry is on both sides, so what differs is another entry of mine.
        for leaf in leaves(self._mine):
            if key_of(leaf) != theirs.key:
                return key_of(leaf)
        raise AssertionError("equal leaves have equal hashes")

    def _end(self, key: bytes) -> None:
        their_proof = encode_proof(self._nodes)
        theirs = verify_proof(self.their_root, key, their_proof)
        self.difference = Difference(key, self._tree.get(key), theirs, self._tree.prove(key), their_proof)


def _virtual(node: Node | None, depth: int) -> tuple[list[Node | None], list[bytes | None]]:
    """My children and hashes at a depth; a lone leaf counts as the only child of an inner node that I don't have."""
    if isinstance(node, tuple):
        return spread(node)
    children: list[Node | None] = [None] * 16
    hashes: list[bytes | None] = [None] * 16
    if node is not None:
        nibble = nibble_at(place_of(key_of(node)), depth)
        children[nibble] = node
        hashes[nibble] = hash_of(node)
    return children, hashes


def _first(node: Node | None) -> Leaf:
    for leaf in leaves(node):
        return leaf
    raise AssertionError("a subtree that differs from nothing has an entry")
