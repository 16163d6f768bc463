"""The layer-1 state tree in memory: how a subtree lies there, is built, and becomes another by a batch of changes.

May not: do I/O, change a node that is there (versions share them), or hash a node twice for one batch.
Rule: docs/architecture.md, "Remote attestation of layer-1 state" (design, section 9).

A leaf is its hashed bytes: domain, head, key, value. An inner node is a tuple: its hashed bytes, its bitmap, then the
children that are there, in order. Plain bytes and tuples of them cost least to make, and the garbage collector lets
them be.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .statenode import (
    DOMAIN,
    EMPTY_NODE,
    INNER,
    INNER_HEAD,
    LEAF,
    LEAF_HEAD,
    MAX_KEY,
    MAX_VALUE,
    StateCode,
    StateTreeError,
)

Leaf = bytes
Inner = tuple[Any, ...]
"""(hashed bytes, bitmap, child, child, ...); a child is a `Node`, and there is at least one."""
Node = Leaf | Inner

_SKIP: Final = len(DOMAIN)
_KEY: Final = _SKIP + LEAF_HEAD.size
"""Where a leaf's key begins."""
_HASHES: Final = _SKIP + INNER_HEAD.size
"""Where an inner node's hashes begin."""
_FIRST: Final = 2
"""Index of an inner node's first child."""
_BEFORE: Final = _HASHES - 32 * _FIRST
"""The hash of the child at an index begins 32 times the index behind this."""
_sha256: Final = hashlib.sha256
_BIT: Final = {digit: 1 << int(digit, 16) for digit in "0123456789abcdef"}
_HEADS: Final = tuple(DOMAIN + LEAF_HEAD.pack(LEAF, size) for size in range(MAX_KEY + 1))
"""What stands before a key, by its length."""


class Batch:
    """Changes (key -> new value, None deletes) by place, and by how many entries the tree grew through them."""

    __slots__ = ("changes", "grown", "keys", "places")

    def __init__(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Raises `StateTreeError(TOO_LARGE)` for a key or value out of bounds."""
        for key, value in changes.items():
            if not 0 < len(key) <= MAX_KEY:
                raise StateTreeError(StateCode.TOO_LARGE, f"a key has 1 to {MAX_KEY} bytes, this one {len(key)}")
            if value is not None and len(value) > MAX_VALUE:
                raise StateTreeError(
                    StateCode.TOO_LARGE, f"a value has at most {MAX_VALUE} bytes, that of {key[:80]!r} {len(value)}"
                )
        self.changes = changes
        self.keys = {_sha256(key).hexdigest(): key for key in changes}
        self.places = sorted(self.keys)
        """In order, as 64 hexadecimal digits each: a nibble is a character, which costs least to get at."""
        self.grown = 0

    def leaf(self, place: str) -> tuple[bytes, Leaf | None]:
        """(the first bytes of any leaf of the key at a place, the new leaf); no leaf: the entry goes.

        Leaves are made when they are put into the tree, so that neighbours there are neighbours in memory.
        """
        key = self.keys[place]
        value = self.changes[key]
        head = _HEADS[len(key)] + key
        return head, None if value is None else head + value


def digits_of(key: bytes) -> str:
    """A key's place, as 64 hexadecimal digits."""
    return _sha256(key).hexdigest()


def encoded(node: Node | None) -> bytes:
    """The node as `statenode` describes it."""
    if node is None:
        return EMPTY_NODE
    hashed: bytes = node[0] if isinstance(node, tuple) else node
    return hashed[_SKIP:]


def hash_of(node: Node) -> bytes:
    """The node's hash."""
    return _sha256(node[0] if isinstance(node, tuple) else node).digest()


def key_of(leaf: Leaf) -> bytes:
    """A leaf's key."""
    return leaf[_KEY : _KEY + int.from_bytes(leaf[_KEY - 4 : _KEY])]


def value_of(leaf: Leaf) -> bytes:
    """A leaf's value."""
    return leaf[_KEY + int.from_bytes(leaf[_KEY - 4 : _KEY]) :]


def child_at(node: Inner, nibble: int) -> Node | None:
    """An inner node's child at a nibble."""
    bitmap, bit = node[1], 1 << nibble
    found: Node | None = node[_FIRST + (bitmap & (bit - 1)).bit_count()] if bitmap & bit else None
    return found


def spread(node: Inner) -> tuple[list[Node | None], list[bytes | None]]:
    """An inner node's children and their hashes in sixteen places each."""
    children: list[Node | None] = [None] * 16
    hashes: list[bytes | None] = [None] * 16
    index = _FIRST
    for nibble in range(16):
        if node[1] >> nibble & 1:
            at = _BEFORE + 32 * index
            children[nibble], hashes[nibble] = node[index], node[0][at : at + 32]
            index += 1
    return children, hashes


def find(node: Node | None, place: str) -> Leaf | None:
    """The one leaf that can be at a place; its key may be another."""
    depth = 0
    while isinstance(node, tuple):
        node = child_at(node, int(place[depth], 16))
        depth += 1
    return node


def leaves(node: Node | None) -> Iterator[Leaf]:
    """All leaves, in the order of their places."""
    if isinstance(node, tuple):
        for child in node[_FIRST:]:
            yield from leaves(child)
    elif node is not None:
        yield node


def weighed(old: Node | None, new: Node | None) -> tuple[int, int]:
    """(bytes of memory that the new subtree has alone, bytes that the old one has alone): what versions do not share.

    Visits what differs, so it takes about as long as the batch between the two did.
    """
    if old is new:
        return 0, 0
    if isinstance(old, tuple) and isinstance(new, tuple):
        added = gone = _lone(new)
        pairs: Iterator[tuple[Node | None, Node | None]]
        if old[1] == new[1]:  # so both are of one size
            pairs = zip(old[_FIRST:], new[_FIRST:], strict=True)
        else:
            gone = _lone(old)
            pairs = ((child_at(old, nibble), child_at(new, nibble)) for nibble in range(16))
        for before, after in pairs:
            if before is not after:
                more, less = weighed(before, after)
                added += more
                gone += less
        return added, gone
    if isinstance(old, tuple):
        gone, added = weighed(new, old)
        return added, gone
    # At most one entry became what it is now: it may still be there, deeper.
    added = _whole(new)
    if old is None:
        return added, 0
    if any(leaf is old for leaf in leaves(new)):
        return added - sys.getsizeof(old), 0
    return added, sys.getsizeof(old)


def _lone(node: Inner) -> int:
    return sys.getsizeof(node) + sys.getsizeof(node[0])


def _whole(node: Node | None) -> int:
    if not isinstance(node, tuple):
        return 0 if node is None else sys.getsizeof(node)
    return _lone(node) + sum(map(_whole, node[_FIRST:]))


def build(entries: list[tuple[str, Leaf]], low: int, high: int, depth: int) -> Node | None:
    """The canonical subtree of the entries from `low` to before `high`: (digits of its place, leaf), in their order."""
    if high - low <= 1:
        return entries[low][1] if low < high else None
    bitmap = 0
    hashes, children = [b""], list[Any]([None, 0])
    while low < high:
        digit = entries[low][0][depth]
        end = low + 1
        while end < high and entries[end][0][depth] == digit:
            end += 1
        child = build(entries, low, end, depth + 1)
        assert child is not None
        hashes.append(hash_of(child))
        children.append(child)
        bitmap |= _BIT[digit]
        low = end
    hashes[0] = DOMAIN + INNER_HEAD.pack(INNER, bitmap)
    children[0], children[1] = b"".join(hashes), bitmap
    return tuple(children)


def applied(node: Node | None, batch: Batch) -> Node | None:
    """The subtree after a batch of changes; the very same node when nothing changed.

    Each inner node above a change is made, and hashed, once.
    """
    if not batch.places:
        return node
    if not isinstance(node, tuple):
        return _merged(node, batch.places, 0, batch)
    return _changed(node, 0, len(batch.places), 0, batch)


def _changed(node: Inner, low: int, high: int, depth: int, batch: Batch) -> Node | None:
    """An inner node after the changes from `low` to before `high`, two or more, all of which lie below it."""
    places = batch.places
    parts, raw = list[Any](node), bytearray(node[0])
    same = True
    while low < high:
        digit = places[low][depth]
        end = low + 1
        while end < high and places[end][depth] == digit:
            end += 1
        bitmap, bit = parts[1], _BIT[digit]
        index = _FIRST + (bitmap & (bit - 1)).bit_count()
        old: Node | None = parts[index] if bitmap & bit else None
        new: Node | None
        if not isinstance(old, tuple):
            new = _merged(old, places[low:end], depth + 1, batch)
        elif end - low == 1:
            new = _changed_once(old, places[low], depth + 1, batch)
        else:
            new = _changed(old, low, end, depth + 1, batch)
        if new is not old:
            same = False
            if old is None or new is None:
                _put(parts, raw, index, bit, old, new)
            else:
                at = _BEFORE + 32 * index
                parts[index] = new
                raw[at : at + 32] = _sha256(new[0] if isinstance(new, tuple) else new).digest()
        low = end
    return node if same else _canonical(parts, raw)


def _changed_once(node: Inner, place: str, depth: int, batch: Batch) -> Node | None:
    """An inner node after one change below it: what nearly every node below the first levels has, so it is short."""
    bit = _BIT[place[depth]]
    hashed, bitmap = node[0], node[1]
    index = _FIRST + (bitmap & bit - 1).bit_count()
    old = node[index] if bitmap & bit else None
    if isinstance(old, tuple):
        new = _changed_once(old, place, depth + 1, batch)
        if new is old:
            return node
        if not isinstance(new, tuple):
            return _rebuilt(node, index, bit, old, new)
        below: bytes = new[0]
    else:
        key = batch.keys[place]
        value = batch.changes[key]
        head = _HEADS[len(key)] + key
        if old is None or value is None or not old.startswith(head):
            new = _merged(old, [place], depth + 1, batch)
            return node if new is old else _rebuilt(node, index, bit, old, new)
        # A new value for an entry that is there: the leaf changes, and nothing of the tree's shape.
        new = below = head + value
        if new == old:
            return node
    at = _BEFORE + 32 * index
    parts = [*node]
    parts[0] = hashed[:at] + _sha256(below).digest() + hashed[at + 32 :]
    parts[index] = new
    return tuple(parts)


def _rebuilt(node: Inner, index: int, bit: int, old: Node | None, new: Node | None) -> Node | None:
    """An inner node with another child, when it may lose its place by that."""
    parts, raw = list[Any](node), bytearray(node[0])
    _put(parts, raw, index, bit, old, new)
    return _canonical(parts, raw)


def _put(parts: list[Any], raw: bytearray, index: int, bit: int, old: Node | None, new: Node | None) -> None:
    """Another child at one nibble, in the children and in the hashed bytes."""
    at = _BEFORE + 32 * index
    if new is None:
        del parts[index], raw[at : at + 32]
        parts[1] ^= bit
    elif old is None:
        parts.insert(index, new)
        raw[at:at] = hash_of(new)
        parts[1] ^= bit
    else:
        parts[index] = new
        raw[at : at + 32] = hash_of(new)


def _canonical(parts: list[Any], raw: bytearray) -> Node | None:
    """The node over these children: nothing, the lone leaf itself, or an inner node."""
    if len(parts) == _FIRST:
        return None
    if len(parts) == _FIRST + 1 and isinstance(parts[_FIRST], bytes):
        return parts[_FIRST]
    raw[_SKIP:_HASHES] = INNER_HEAD.pack(INNER, parts[1])
    parts[0] = bytes(raw)
    return tuple(parts)


def _merged(leaf: Leaf | None, places: list[str], depth: int, batch: Batch) -> Node | None:
    """What stands where nothing or one leaf stood: built anew from it and the changes."""
    entries: list[tuple[str, Leaf]] = []
    untouched = leaf
    for place in places:
        head, new = batch.leaf(place)
        if leaf is not None and leaf.startswith(head):
            untouched = None
            if new == leaf:
                new = leaf  # the one that is there: so an unchanged subtree is known by its identity
        if new is not None:
            entries.append((place, new))
    if untouched is not None:
        if not entries:
            return untouched
        entries.append((digits_of(key_of(untouched)), untouched))
        entries.sort()
    batch.grown += len(entries) - (leaf is not None)
    return build(entries, 0, len(entries), depth)
