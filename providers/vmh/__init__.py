"""The vsock message hub, as actors see it: messages to the actor of the same name in other enclaves.

May not: prove who sent a message; only an attestation does. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from .provider import Vmh, VmhConfig

__all__ = ["Vmh", "VmhConfig"]
