"""Structured logs of actors, out through the parent, bounded and rate-limited.

May not: hold up an actor, or grow without a bound. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from .provider import Log, LogConfig, LogFigures

__all__ = ["Log", "LogConfig", "LogFigures"]
