"""How an endpoint behaves: times, bounds and what to do with a service's defects.

May not: hold state. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tea.protocol.limits import Limits


@dataclass(frozen=True)
class Settings:
    """Times are seconds."""

    limits: Limits = field(default_factory=Limits)
    """Memory bounds of the session."""
    greeting: bytes = b""
    """What this end says in its HELLO, at most 64 KiB: for instance an attestation."""
    grace: float = 10.0
    """How long a session waits, without a connection, for the peer to come back before its calls fail."""
    heartbeat: float = 5.0
    """A peer that says nothing for this long is asked for a sign of life; after three times as long it is gone."""
    handshake: float = 5.0
    """How long a new connection may take until its HELLO is there."""
    handlers: int = 128
    """Requests of the peer that are served at once; others wait, within the session's window."""
    waiting: int = 4096
    """Calls that may wait for room; one more is answered EXHAUSTED."""
    waiting_bytes: int = 32 << 20
    """Bytes of their arguments."""
    backoff: float = 0.05
    """The first pause between two attempts to connect; it doubles, with jitter, up to `backoff_max`."""
    backoff_max: float = 2.0
    on_defect: Callable[[str, BaseException], None] | None = None
    """Told of every exception that a service should not have raised: (channel and operation, exception).

    None: the event loop's exception handler gets it. The peer sees INTERNAL and nothing of the cause.
    """
