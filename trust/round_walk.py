"""The search for a key in which two attested states differ, when both trees lie elsewhere and answer node by node.

May not: ask anybody (sans-IO: it says which node it wants, its caller brings it) or believe a node before its hash.
Rule: docs/architecture.md, "Remote attestation of layer-1 state"; the nodes are those of `statenode`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .round_formats import DifferingKey
from .statenode import (
    DEPTH,
    Remote,
    RemoteLeaf,
    StateCode,
    StateTreeError,
    decode_node,
    encode_proof,
    nibble_at,
    place_of,
    require_place,
)


class Side(enum.Enum):
    """Whose tree."""

    CERTIFIED = "certified"
    ACCUSED = "accused"


class WantedNode(NamedTuple):
    """The node that a walk needs next: whose, and at which prefix of nibbles (one a byte)."""

    side: Side
    prefix: bytes


@dataclass
class _Tree:
    expected: bytes | None
    """Hash of the node that stands at the walk's prefix; None: the path is complete, nothing more is wanted."""
    path: list[bytes] = field(default_factory=list)
    """The nodes from the root down: the proof of whatever lies, or lies not, below."""
    node: Remote = None
    fed: bool = False


class PairWalk:
    """Finds one differing key of two trees, given their roots.

    While `wanted` is not None, ask that side for `node(prefix)` and `feed` the answer; then read `difference`. Both
    sides' answers are verified: a side can refuse to answer, but not mislead. At most 65 answers a side.
    """

    def __init__(self, certified_root: bytes, accused_root: bytes) -> None:
        """Raises `ValueError` when the roots are equal: there is nothing to find."""
        if certified_root == accused_root:
            raise ValueError("the roots are equal: nothing differs")
        self._trees: Final = {Side.CERTIFIED: _Tree(certified_root), Side.ACCUSED: _Tree(accused_root)}
        self._prefix = b""
        self._avoid: RemoteLeaf | None = None
        self._key: bytes | None = None

    @property
    def wanted(self) -> WantedNode | None:
        """The node that is needed next; None when the key is found."""
        if self._key is None:
            for side, tree in self._trees.items():
                if tree.expected is not None and not tree.fed:
                    return WantedNode(side, self._prefix)
        return None

    @property
    def difference(self) -> DifferingKey | None:
        """The key with both proofs, once it is found."""
        if self._key is None:
            return None
        certified, accused = (encode_proof(self._trees[side].path) for side in Side)
        return DifferingKey(self._key, certified, accused)

    def feed(self, encoded: bytes) -> None:
        """Take the node at `wanted`. Raises `StateTreeError` when it is not that node; the walk stays where it is."""
        wanted = self.wanted
        if wanted is None:
            raise RuntimeError("the walk is over")
        tree = self._trees[wanted.side]
        node = decode_node(encoded, tree.expected or b"")
        if isinstance(node, RemoteLeaf):
            require_place(node, self._prefix)
        elif (node is None and self._prefix) or (node is not None and len(self._prefix) == DEPTH):
            raise StateTreeError(StateCode.NOT_CANONICAL, f"no such node can stand at prefix {self._prefix.hex()}")
        tree.path.append(encoded)
        tree.node = node
        tree.fed = True
        if self.wanted is None:
            self._step()

    def _step(self) -> None:
        """Every side that still has a node here has given it: go on to where they differ."""
        certified, accused = self._trees[Side.CERTIFIED], self._trees[Side.ACCUSED]
        if certified.expected is None or accused.expected is None:
            self._descend(certified if accused.expected is None else accused)
        elif isinstance(certified.node, list) and isinstance(accused.node, list):
            self._fork(certified, certified.node, accused, accused.node)
        elif isinstance(certified.node, list) or isinstance(accused.node, list):
            # One side has many entries here, the other at most one, whose leaf also shows that all else is absent.
            many, one = (certified, accused) if isinstance(certified.node, list) else (accused, certified)
            self._avoid = one.node if isinstance(one.node, RemoteLeaf) else None
            one.expected = None
            self._descend(many)
        else:
            # A leaf of one side shows the other side's leaf absent; of two with one key, the values differ.
            self._key = next(t.node.key for t in (accused, certified) if isinstance(t.node, RemoteLeaf))

    def _fork(self, certified: _Tree, mine: list[bytes | None], accused: _Tree, theirs: list[bytes | None]) -> None:
        # Nodes with different hashes have different children.
        nibble = next(n for n in range(16) if mine[n] != theirs[n])
        self._go(nibble, certified, mine[nibble])
        self._go(None, accused, theirs[nibble])

    def _descend(self, tree: _Tree) -> None:
        """Down one side alone, to an entry that the other side does not have."""
        if not isinstance(tree.node, list):
            if tree.node is None or tree.node == self._avoid:
                raise StateTreeError(StateCode.NOT_CANONICAL, "an inner node stands where one entry is, or none")
            self._key = tree.node.key
            return
        children = [nibble for nibble in range(16) if tree.node[nibble] is not None]
        chosen = children[0]
        if self._avoid is not None:
            shared = nibble_at(place_of(self._avoid.key), len(self._prefix))
            chosen = next((nibble for nibble in children if nibble != shared), shared)
            if chosen != shared:
                self._avoid = None
        self._go(chosen, tree, tree.node[chosen])

    def _go(self, nibble: int | None, tree: _Tree, expected: bytes | None) -> None:
        if nibble is not None:
            self._prefix += bytes((nibble,))
        tree.expected = expected
        tree.fed = False
