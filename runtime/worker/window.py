"""The windows of a worker, as both ends count them: what it may have under way before it waits.

May not: hold a socket. The host announces them in `Welcome`; a worker that keeps within them is never refused for
them, and the host holds everybody to them. Rule: docs/architecture.md, "Back-pressure".

    calls     one window for the worker; each answer gives its call's room back
    messages  one window for each link; CREDIT(link, correlation = units) gives room back
    unit      a call or message, and each further `unit` bytes of its arguments
"""

from __future__ import annotations

from typing import Final

WINDOW_BYTES: Final = 2 << 20
"""Bytes of arguments that a whole window holds, about: what large arguments cost beyond one unit."""
LEAST_UNIT: Final = 256


def unit_of(window: int) -> int:
    """Bytes of arguments that are one unit of a window of this many units."""
    return max(LEAST_UNIT, WINDOW_BYTES // window)


def cost_of(body: bytes, unit: int) -> int:
    """Units that these arguments take."""
    return 1 + len(body) // unit


def is_over(under_way: int, cost: int, window: int) -> bool:
    """Whether this much more has to wait. What costs more than is ever free may go once a quarter is left in use."""
    return under_way + cost > window and under_way * 4 >= window


def is_due(owed: int, window: int) -> bool:
    """Whether room is given back now: a quarter at a time, so that what is held back never keeps a worker waiting."""
    return owed * 4 >= window
