"""What an endpoint counts.

May not: decide anything. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Figures:
    """Since the endpoint began."""

    calls: int = 0
    """Calls made."""
    overdue: int = 0
    """Calls whose time was over before an answer came."""
    late: int = 0
    """Answers that nobody waited for any more."""
    tells: int = 0
    tells_dropped: int = 0
    """Tells for which there was no room, or no peer."""
    requests: int = 0
    """Calls and tells of the peer."""
    refused: int = 0
    """Those that ended in an error."""
    defects: int = 0
    """Exceptions that a service should not have raised."""
    sessions: int = 0
    resumed: int = 0
    """How often a session went on over another connection."""
