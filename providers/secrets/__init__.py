"""Secrets for actors: released by their owner's service to this attested enclave, or sealed to it by hand.

May not: give one actor another's. Rule: docs/secrets.md; docs/architecture.md, "Secrets".
"""

from __future__ import annotations

from .provider import Secret, Secrets, SecretsConfig

__all__ = ["Secret", "Secrets", "SecretsConfig"]
