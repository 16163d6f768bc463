"""The nodes of the layer-1 state tree as bytes: their format, their hashes, and proofs of others verified.

May not: do I/O, or believe a node before its hash. The tree itself is in `statetree`.
Rule: docs/architecture.md, "Remote attestation of layer-1 state" (design, section 9).

    empty   00
    leaf    01 | u32 length of the key | key | value
    inner   02 | u16 bitmap (bit n: child n is there) | 32-byte hashes of the children that are there, in order
    hash    SHA-256("tea.state.v1" 00 | node): the kind byte keeps leaves, inner nodes and the empty tree apart
    proof   for each node from the root towards the key: u32 length | node
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from .errors import TrustError

MAX_KEY: Final = 1024
"""Longest key, in bytes; the shortest has one."""
MAX_VALUE: Final = 64 * 1024
"""Longest value, in bytes. An empty value is a value: it is not absence."""
DEPTH: Final = 64
"""Nibbles of a place."""
MAX_NODE: Final = 5 + MAX_KEY + MAX_VALUE
"""Longest encoded node, in bytes."""
MAX_PROOF: Final = 128 * 1024
"""Longest proof, in bytes."""

DOMAIN: Final = b"tea.state.v1\x00"
EMPTY_NODE: Final = b"\x00"
LEAF: Final = 1
INNER: Final = 2
_LENGTH: Final = struct.Struct(">I")
LEAF_HEAD: Final = struct.Struct(">BI")
INNER_HEAD: Final = struct.Struct(">BH")


class StateCode(enum.StrEnum):
    """Why a node, a proof or a tree is refused."""

    MALFORMED = "malformed"
    """The bytes are no node, or no proof."""
    MISMATCH = "mismatch"
    """A node does not hash to what its parent, or the root, says."""
    INCOMPLETE = "incomplete"
    """A proof ends before it shows the key or its absence, or goes on after it."""
    NOT_CANONICAL = "not-canonical"
    """A tree that no set of entries has: a leaf in the wrong place, an inner node where one entry is."""
    TOO_LARGE = "too-large"
    """A key or a value over its bound."""
    NO_NODE = "no-node"
    """There is no node at this prefix."""


class StateTreeError(TrustError):
    """A state tree's node, proof or entry is not to be believed."""


def place_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def nibble_at(place: bytes, depth: int) -> int:
    byte = place[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def hash_node(encoded: bytes) -> bytes:
    return hashlib.sha256(DOMAIN + encoded).digest()


EMPTY_ROOT: Final = hash_node(EMPTY_NODE)
"""Root of the tree without entries."""


def encode_proof(nodes: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(node)) + node for node in nodes)


def _parse_proof(proof: bytes) -> list[bytes]:
    if len(proof) > MAX_PROOF:
        raise StateTreeError(StateCode.MALFORMED, f"a proof has at most {MAX_PROOF} bytes, this one {len(proof)}")
    nodes = []
    offset = 0
    while offset < len(proof):
        if offset + 4 > len(proof):
            raise StateTreeError(StateCode.MALFORMED, "the proof is cut off inside a length")
        (size,) = _LENGTH.unpack_from(proof, offset)
        offset += 4
        if offset + size > len(proof):
            raise StateTreeError(StateCode.MALFORMED, f"the proof announces a node of {size} bytes and is cut off")
        nodes.append(proof[offset : offset + size])
        offset += size
        if len(nodes) > DEPTH + 1:
            raise StateTreeError(StateCode.MALFORMED, f"a proof has at most {DEPTH + 1} nodes")
    return nodes


class RemoteLeaf(NamedTuple):
    key: bytes
    value: bytes


Remote = RemoteLeaf | list[bytes | None] | None
"""A decoded node: a leaf, an inner node's sixteen child hashes, or the empty tree."""


def decode_node(encoded: bytes, expected: bytes) -> Remote:
    """Verify, then parse, one node. Raises `StateTreeError`."""
    if len(encoded) > MAX_NODE or not encoded:
        raise StateTreeError(StateCode.MALFORMED, f"a node has 1 to {MAX_NODE} bytes, this one {len(encoded)}")
    found = hash_node(encoded)
    if found != expected:
        raise StateTreeError(StateCode.MISMATCH, f"a node hashes to {found.hex()}, expected {expected.hex()}")
    kind = encoded[0]
    if encoded == EMPTY_NODE:
        return None
    if kind == LEAF and len(encoded) >= LEAF_HEAD.size:
        (_, size) = LEAF_HEAD.unpack_from(encoded)
        start = LEAF_HEAD.size
        if 0 < size <= MAX_KEY and start + size <= len(encoded) and len(encoded) - start - size <= MAX_VALUE:
            return RemoteLeaf(encoded[start : start + size], encoded[start + size :])
    elif kind == INNER and len(encoded) >= INNER_HEAD.size:
        (_, bitmap) = INNER_HEAD.unpack_from(encoded)
        start = INNER_HEAD.size
        if bitmap and len(encoded) == start + 32 * bitmap.bit_count():
            children: list[bytes | None] = [None] * 16
            for n in range(16):
                if bitmap >> n & 1:
                    children[n] = encoded[start : start + 32]
                    start += 32
            return children
    raise StateTreeError(StateCode.MALFORMED, f"{len(encoded)} bytes of kind {kind} are no node")


def require_place(leaf: RemoteLeaf, prefix: bytes) -> None:
    place = place_of(leaf.key)
    if any(nibble_at(place, depth) != nibble for depth, nibble in enumerate(prefix)):
        raise StateTreeError(
            StateCode.NOT_CANONICAL, f"the leaf of {leaf.key[:80]!r} stands at {prefix.hex()}, which is not its place"
        )


def verify_proof(root: bytes, key: bytes, proof: bytes) -> bytes | None:
    """The key's value under this root, or None when the proof shows its absence.

    Raises `StateTreeError`: no argument that is wrong by one bit gives an answer. A root says nothing of who made it.
    """
    if not 0 < len(key) <= MAX_KEY:
        raise StateTreeError(StateCode.TOO_LARGE, f"a key has 1 to {MAX_KEY} bytes, this one {len(key)}")
    place = place_of(key)
    nodes = _parse_proof(proof)
    expected: bytes | None = root
    prefix = b""
    for number, encoded in enumerate(nodes):
        if expected is None:
            raise StateTreeError(StateCode.INCOMPLETE, "the proof goes on after it has shown the key's absence")
        node = decode_node(encoded, expected)
        if isinstance(node, list):
            if len(prefix) == DEPTH:
                raise StateTreeError(StateCode.NOT_CANONICAL, "an inner node stands below the last nibble")
            nibble = nibble_at(place, len(prefix))
            expected = node[nibble]
            prefix += bytes((nibble,))
            continue
        if number + 1 != len(nodes):
            raise StateTreeError(StateCode.INCOMPLETE, "the proof goes on after a leaf")
        if node is None:
            if number:
                raise StateTreeError(StateCode.NOT_CANONICAL, "an empty node stands below the root")
            return None
        require_place(node, prefix)
        return node.value if node.key == key else None
    if not nodes or expected is not None:
        raise StateTreeError(StateCode.INCOMPLETE, "the proof ends before it shows the key or its absence")
    return None
