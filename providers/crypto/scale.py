"""SCALE, as much of it as is signed here: compact integers, fixed integers, and the era of a transaction.

May not: know any type of a chain. Written in: Substrate's "SCALE codec"; `sp_runtime::generic::Era`.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Final

from tea.protocol.errors import CallError, Code

MAX_COMPACT: Final = (1 << 128) - 1
"""The largest compact integer that is written here: a balance has 128 bits."""
MIN_PERIOD: Final = 4
MAX_PERIOD: Final = 1 << 16
IMMORTAL: Final = b"\0"


def compact(number: int) -> bytes:
    """A compact integer from 0 to 2**128 - 1, in its one shortest form."""
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    if number < 1 << 30:
        return (number << 2 | 2).to_bytes(4, "little")
    size = (number.bit_length() + 7) // 8
    return bytes([size - 4 << 2 | 3]) + number.to_bytes(size, "little")


def u32(number: int) -> bytes:
    """An unsigned integer of 32 bits."""
    return number.to_bytes(4, "little")


def mortal_era(period: int, block: int) -> bytes:
    """The two bytes of an era of `period` blocks (a power of two, 4 to 65,536) that begins at `block`.

    Periods over 4,096 begin at every second to sixteenth block only. Raises INVALID, with a block that would do.
    """
    if not MIN_PERIOD <= period <= MAX_PERIOD or period & (period - 1):
        raise CallError(Code.INVALID, f"a period is a power of two from 4 to {MAX_PERIOD}, not {period}")
    step = max(1, period >> 12)
    if block % step:
        raise CallError(
            Code.INVALID, f"an era of {period} blocks begins at a multiple of {step}: at {block - block % step}"
        )
    phase = block % period // step
    return (period.bit_length() - 2 | phase << 4).to_bytes(2, "little")
