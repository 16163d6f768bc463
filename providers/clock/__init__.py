"""Time for actors: the attested time of day, its drift, timers and random ticks.

May not: let a timer outlive its replica. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from .provider import Clock, ClockConfig, TimerInfo

__all__ = ["Clock", "ClockConfig", "TimerInfo"]
