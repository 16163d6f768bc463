"""The layer-1 state as a canonical, persistent, 16-ary hash tree: roots, proofs, and the search for a difference.

May not: do I/O, know what keys mean, or depend on the order in which entries came. Keys and values are bytes.
Rule: docs/architecture.md, "Remote attestation of layer-1 state" (design, section 9).

An entry's place is the SHA-256 of its key, read as 64 nibbles. A subtree with one entry IS that entry's leaf; an inner
node stands exactly where two or more entries share a prefix. So one set of entries has one tree, whatever its history.
The bytes of nodes and proofs stand in `statenode`, how they lie in memory in `statebranch`, the search in `statewalk`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from . import statebranch
from .statebranch import Node, child_at, encoded, key_of, value_of
from .statenode import (
    DEPTH,
    EMPTY_ROOT,
    MAX_KEY,
    MAX_NODE,
    MAX_PROOF,
    MAX_VALUE,
    StateCode,
    StateTreeError,
    encode_proof,
    nibble_at,
    place_of,
    verify_proof,
)
from .statewalk import Difference, DiffWalk

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


class StateTree:
    """One version of the state. Persistent: `apply` gives a new version that shares what did not change.

    A version is immutable, so threads may read one while another is made.
    """

    __slots__ = ("_count", "_node", "_root")

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        """A tree of these entries; without any, the empty tree. Raises as `apply` does."""
        self._node: Node | None = None
        self._count = 0
        self._root: bytes | None = None
        if entries:
            changed = self.apply(entries)
            self._node, self._count = changed._node, changed._count

    @property
    def root(self) -> bytes:
        """The root hash, 32 bytes."""
        if self._root is None:
            self._root = EMPTY_ROOT if self._node is None else statebranch.hash_of(self._node)
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
        batch = statebranch.Batch(changes)
        node = statebranch.applied(self._node, batch)
        if node is self._node:
            return self
        tree = StateTree()
        tree._node = node
        tree._count = self._count + batch.grown
        return tree

    def weighed(self, before: StateTree) -> tuple[int, int]:
        """(bytes of memory that this version has alone, bytes that the one before has alone); the rest is shared."""
        return statebranch.weighed(before._node, self._node)

    def get(self, key: bytes) -> bytes | None:
        """The key's value, None when it is absent."""
        leaf = statebranch.find(self._node, statebranch.digits_of(key))
        return None if leaf is None or key_of(leaf) != key else value_of(leaf)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, in the order of their places."""
        return ((key_of(leaf), value_of(leaf)) for leaf in statebranch.leaves(self._node))

    def prove(self, key: bytes) -> bytes:
        """A proof of the key's value or of its absence, for `verify_proof`; O(log n) nodes of at most 515 bytes."""
        place = place_of(key)
        node = self._node
        nodes = [encoded(node)]
        depth = 0
        while isinstance(node, tuple):
            node = child_at(node, nibble_at(place, depth))
            if node is None:
                break
            nodes.append(encoded(node))
            depth += 1
        return encode_proof(nodes)

    def node(self, prefix: bytes) -> bytes:
        """The encoded node at a prefix of nibbles (one nibble, 0 to 15, a byte); the empty prefix is the root's.

        Raises `StateTreeError(NO_NODE)` where there is none.
        """
        node = self._node
        for nibble in prefix:
            node = child_at(node, nibble) if isinstance(node, tuple) and nibble < 16 else None
            if node is None:
                raise StateTreeError(StateCode.NO_NODE, f"there is no node at prefix {prefix[:DEPTH].hex()}")
        return encoded(node)
