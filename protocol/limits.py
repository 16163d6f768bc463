"""The bounds of one end of a session.

May not: hold state. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """How much one end keeps, and how much it lets the other end ask for."""

    retained_frames: int = 4096
    """Frames that this end keeps until they are acknowledged."""
    retained_bytes: int = 8 << 20
    """Bytes of such frames; one frame is always kept, whatever its size."""
    window_frames: int = 1024
    """Requests that the other end may have sent without their being consumed."""
    window_bytes: int = 8 << 20
    """Bytes of such requests; one request is always accepted, whatever its size."""
