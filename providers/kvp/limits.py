"""The limits of the key-value store, the price of what is kept, and the checks at its border.

May not: hold state. Every check raises `CallError(INVALID)` with what was found and what was expected.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import math
from typing import Final

from tea.protocol.errors import CallError, Code

MAX_KEY: Final = 512
"""Bytes of a key in UTF-8."""
MAX_VALUE: Final = 512 * 1024
"""Bytes of a value, a list's item, a set's member, a vector's value."""
MAX_TTL: Final = 10 * 365 * 86400.0
"""Seconds: ten years."""
MAX_PAGE: Final = 1000
"""Items of one answer."""
PAGE_BYTES: Final = 768 * 1024
"""Bytes of one answer, keys and values together: it must fit a frame. One item always fits."""
MAX_SETS: Final = 16
"""Sets of one union or intersection."""
MAX_EXAMINED: Final = 4096
"""Entries that one call looks at, swept or skipped ones included: what keeps the host's loop free."""
MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 63) - 1
"""Counters and vector indices are signed integers of 64 bits."""

# What is charged beyond the bytes that were handed in. Measured with tracemalloc on CPython 3.11 and rounded up, so
# that a quota bounds the host's memory and not only the payload.
VALUE_COST: Final = 256
"""Bytes for a key that holds a value, beside the key's own and the value's."""
LIST_COST: Final = 320
"""Bytes for a key that holds a list."""
SET_COST: Final = 512
"""Bytes for a key that holds a set."""
VECTOR_COST: Final = 640
"""Bytes for a key that holds a vector."""
LOCK_COST: Final = 384
"""Bytes for a lock, its time to live included."""
TTL_COST: Final = 128
"""Bytes for a time to live."""
ITEM_COST: Final = 48
"""Bytes for each item of a list or member of a set, beside its own."""
INDEX_COST: Final = 192
"""Bytes for each value of a vector and its index, beside its own."""


def key_size(key: str) -> int:
    """The bytes of a key; refuses one that is empty, too long, or no Unicode text."""
    size = len(key)
    if not key.isascii():
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise CallError(
                Code.INVALID, "a key must be text that UTF-8 can write; this one has lone surrogates"
            ) from None
    if 0 < size <= MAX_KEY:
        return size
    raise CallError(Code.INVALID, f"a key has 1 to {MAX_KEY} bytes in UTF-8, this one has {size}", size=size)


def require_value(value: bytes) -> None:
    """Refuse a value over `MAX_VALUE` bytes."""
    if len(value) > MAX_VALUE:
        raise CallError(
            Code.INVALID,
            f"a value has at most {MAX_VALUE} bytes, this one has {len(value)}: keep it in parts",
            size=len(value),
        )


def require_ttl(ttl: float) -> None:
    """Refuse a time to live that is not above 0 and at most `MAX_TTL` seconds."""
    if not (math.isfinite(ttl) and 0 < ttl <= MAX_TTL):
        raise CallError(Code.INVALID, f"a time to live is above 0 and at most {MAX_TTL:.0f} seconds, not {ttl}")


def require_limit(limit: int) -> None:
    """Refuse a page size outside 1 to `MAX_PAGE`."""
    if not 1 <= limit <= MAX_PAGE:
        raise CallError(Code.INVALID, f"a page has 1 to {MAX_PAGE} items, not {limit}: ask page by page")


def require_integer(value: int, what: str) -> None:
    """Refuse an integer that 64 signed bits do not hold."""
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise CallError(Code.INVALID, f"{what} must fit a signed integer of 64 bits")
