"""The Nitro Secure Module: its device (real and simulated), its client, and the provider that lends it to actors.

May not: let an actor choose what an attestation says, extend or lock. Rule: docs/architecture.md, "Measured boot".
"""

from __future__ import annotations

from .client import Description, ErrorCode, Nsm, NsmError, Pcr
from .device import Device, NsmDevice
from .provider import Attested, Module, Nitro, NitroConfig, PcrValue
from .verification import Verdict

__all__ = [
    "Attested",
    "Description",
    "Device",
    "ErrorCode",
    "Module",
    "Nitro",
    "NitroConfig",
    "Nsm",
    "NsmDevice",
    "NsmError",
    "Pcr",
    "PcrValue",
    "Verdict",
]
