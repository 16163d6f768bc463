"""What a simulated enclave is started with: its instance's credential, module id and image measurements.

May not: reach a disk or an argument list: it holds a private key, and travels on an inherited pipe.
Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import cbor2

from .authority import InstanceCredential
from .simulated import SimulatedNsm

MAX_START: Final = 64 * 1024
_TAG: Final = "tea.simulated-start.v1"
_FIELDS: Final = frozenset({"tea", "credential", "module", "pcrs", "role", "debug"})


@dataclass(frozen=True)
class SimulatedStart:
    """The platform's side of one simulated enclave's boot."""

    credential: InstanceCredential = field(repr=False)
    module_id: str
    pcrs: dict[int, bytes]
    """What the image measures to: PCR0 to 2, and perhaps 8; 48 bytes each."""
    role_arn: str | None = None
    debug: bool = False

    def encode(self) -> bytes:
        """One canonical CBOR map; `decode` reads it back."""
        fields = {
            "tea": _TAG,
            "credential": self.credential.encode(),
            "module": self.module_id,
            "pcrs": self.pcrs,
            "role": self.role_arn,
            "debug": self.debug,
        }
        return cbor2.dumps(fields, canonical=True)

    @classmethod
    def decode(cls, data: bytes) -> SimulatedStart:
        """Read what `encode` made. Raises `ValueError` on anything else, without quoting it."""
        if len(data) > MAX_START:
            raise ValueError(f"a simulated start has at most {MAX_START} bytes, this one has {len(data)}")
        try:
            fields = cbor2.loads(data)
        except (cbor2.CBORDecodeError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError):
            raise ValueError("a simulated start is a CBOR map, this is not") from None
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or fields["tea"] != _TAG:
            raise ValueError(f"a simulated start is tagged {_TAG} and holds {', '.join(sorted(_FIELDS))}")
        credential, module, pcrs = fields["credential"], fields["module"], fields["pcrs"]
        role, debug = fields["role"], fields["debug"]
        if not (isinstance(credential, bytes) and isinstance(module, str) and isinstance(pcrs, dict)):
            raise ValueError("a simulated start's fields have other types than encode() gives them")
        if not all(isinstance(index, int) and isinstance(value, bytes) for index, value in pcrs.items()):
            raise ValueError("a simulated start's pcrs are numbers with bytes")
        if not (role is None or isinstance(role, str)) or not isinstance(debug, bool):
            raise ValueError("a simulated start's role is text or null, its debug true or false")
        return cls(InstanceCredential.decode(credential), module, pcrs, role, debug)

    def nsm(self, clock: Callable[[], float]) -> SimulatedNsm:
        """The NSM of this enclave. `clock` gives seconds since the epoch. Raises `ValueError`."""
        return SimulatedNsm(self.credential, self.module_id, self.pcrs, clock, role_arn=self.role_arn, debug=self.debug)
