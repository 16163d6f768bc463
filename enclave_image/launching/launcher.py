"""What every launcher answers: the interface, and an enclave as nitro-cli describes one.

May not: know a platform. Rule: AWS, Nitro Enclaves user guide, "nitro-cli describe-enclaves".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class LaunchPlan:
    """What is to be started."""

    image: Path
    name: str
    memory_mib: int
    cpus: int
    cid: int | None = None
    debug: bool = False
    """Nitro: with a console, and all PCRs zero."""
    parent: Path | None = None
    """QEMU: the runtime client's socket that the enclave dials."""


@dataclass(frozen=True)
class Enclave:
    """An enclave on this machine; fields as nitro-cli names them."""

    name: str
    enclave_id: str
    process_id: int
    cid: int
    cpus: int
    memory_mib: int
    state: str
    """`RUNNING`, `TERMINATING` or `EMPTY` on Nitro; in QEMU `RUNNING` or how it ended."""
    details: tuple[tuple[str, object], ...] = ()
    """What a launcher says beyond that."""

    def to_json(self) -> dict[str, object]:
        """nitro-cli's field names."""
        return {
            "EnclaveName": self.name,
            "EnclaveID": self.enclave_id,
            "ProcessID": self.process_id,
            "EnclaveCID": self.cid,
            "NumberOfCPUs": self.cpus,
            "MemoryMiB": self.memory_mib,
            "State": self.state,
            **dict(self.details),
        }


class Launcher(Protocol):
    """One way of running enclaves. Everything raises `ImageError`."""

    def run(self, plan: LaunchPlan) -> Enclave:
        """Start an enclave."""

    def enclaves(self) -> tuple[Enclave, ...]:
        """Those that were started here."""

    def console(self, name: str, follow: bool) -> None:
        """Write an enclave's console to standard output."""

    def terminate(self, name: str) -> Enclave:
        """End an enclave, by name or id."""
