"""The approved environment, as far as the manifest lets an actor read it.

May not: look into the process's own environment. Rule: docs/architecture.md, "Measured boot".
"""

from __future__ import annotations

from .provider import About, Env, EnvConfig

__all__ = ["About", "Env", "EnvConfig"]
