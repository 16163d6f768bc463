"""What a key can hold: a value, a list, a set, or a vector; plain data with its price in bytes.

May not: check or decide anything: the store does. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import math
from typing import ClassVar

from . import limits
from .ordered import Ordered


class Entry:
    """A key's content: `cost` in bytes against the quota, `expires` on the store's clock (infinite: never)."""

    __slots__ = ("cost", "expires")
    kind: ClassVar[str]
    overhead: ClassVar[int]
    """Bytes that a key of this kind is charged beside its own and what it holds."""

    def __init__(self) -> None:
        self.cost = 0
        self.expires = math.inf


class Value(Entry):
    """Bytes."""

    __slots__ = ("data",)
    kind = "value"
    overhead = limits.VALUE_COST

    def __init__(self, data: bytes = b"") -> None:
        super().__init__()
        self.data = data


class List(Entry):
    """Items in the order in which they were pushed."""

    __slots__ = ("items",)
    kind = "list"
    overhead = limits.LIST_COST

    def __init__(self) -> None:
        super().__init__()
        self.items: list[bytes] = []


class Set(Entry):
    """Distinct members, in byte order."""

    __slots__ = ("members",)
    kind = "set"
    overhead = limits.SET_COST

    def __init__(self) -> None:
        super().__init__()
        self.members: Ordered[bytes] = Ordered()


class Vector(Entry):
    """Values under integers, in the integers' order."""

    __slots__ = ("indices", "values")
    kind = "vector"
    overhead = limits.VECTOR_COST

    def __init__(self) -> None:
        super().__init__()
        self.indices: Ordered[int] = Ordered()
        self.values: dict[int, bytes] = {}


class Lock:
    """A held lock: who knows the token holds it until it expires."""

    __slots__ = ("cost", "expires", "token")

    def __init__(self, token: bytes, expires: float, cost: int) -> None:
        self.token = token
        self.expires = expires
        self.cost = cost

    def __repr__(self) -> str:
        return f"Lock(expires={self.expires})"  # never the token
