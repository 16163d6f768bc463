"""Collects round certificates and evidence into files, and checks every file offline against the policy file.

May not: believe an enclave or a parent: what counts is what `tea.trust.rounds` proves of a file, under the policy as it
stands on disk. Rule: docs/architecture.md, "Remote attestation".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tea.protocol.errors import CallError
from tea.trust.attestation import ChainCache
from tea.trust.policy import parse_policy
from tea.trust.rounds import CertificateReport, EvidenceReport, RoundError, verify_certificate, verify_evidence

from .demo_plan import slot_order
from .demo_state import DemoState
from .enclave import SimulatedEnclave
from .network import SimulatedNetwork

CERTIFICATES: Final = "certificates"
EVIDENCE: Final = "evidence"
ASK_SECONDS: Final = 10.0
DIFFERENCE_SECONDS: Final = 20.0
"""How long the first evidence against a liar may take to say what differs."""


@dataclass
class Harvest:
    """What was proven."""

    certificates: dict[int, CertificateReport] = field(default_factory=dict)
    evidence: dict[str, EvidenceReport] = field(default_factory=dict)
    """By file name."""
    refused: list[str] = field(default_factory=list)
    """Files that do not hold, and why: a defect, whatever it is."""

    @property
    def named(self) -> list[str]:
        """Who is named by evidence that holds."""
        return sorted({report.accused for report in self.evidence.values()}, key=slot_order)

    @property
    def disputed(self) -> list[int]:
        """The heights of which evidence says that somebody contradicted the certificate."""
        return sorted({report.height for report in self.evidence.values()})

    def best(self, accused: str) -> tuple[str, EvidenceReport] | None:
        """The evidence against somebody that says most: what differs, as early as possible."""
        found = [(name, report) for name, report in self.evidence.items() if report.accused == accused]
        return min(found, key=lambda one: (one[1].difference is None, one[1].height), default=None)


class Harvester:
    """Collects from one network into one folder."""

    def __init__(self, network: SimulatedNetwork, state: DemoState, out: Path, policy: Path) -> None:
        self._network = network
        self._state = state
        self._out = out
        self._policy = parse_policy(policy.read_text(), str(policy))
        self._cache = ChainCache()
        self.harvest = Harvest()

    async def collect(self) -> Harvest:
        """Ask for everything, write it, check it. Waits a bounded time for what differs in each named state."""
        (self._out / CERTIFICATES).mkdir(parents=True, exist_ok=True)
        (self._out / EVIDENCE).mkdir(parents=True, exist_ok=True)
        for round_ in self._state.blocks:
            await self._certificate(round_.height)
        until = self._state.now + DIFFERENCE_SECONDS
        while True:
            await self._evidence()
            open_ = [name for name in self._state.plan.tampered if not self._is_complete(name)]
            if not open_ or self._state.now > until:
                return self.harvest
            await asyncio.sleep(0.5)

    def _is_complete(self, name: str) -> bool:
        best = self.harvest.best(name)
        return best is not None and best[1].difference is not None

    async def _certificate(self, height: int) -> None:
        for enclave in self._living():
            data = await self._ask(enclave, "certificate", height)
            if not isinstance(data, bytes):
                continue
            path = self._out / CERTIFICATES / f"height-{height:06d}.cbor"
            path.write_bytes(data)
            try:
                report = await asyncio.to_thread(verify_certificate, data, self._policy, cache=self._cache)
            except RoundError as error:
                self.harvest.refused.append(f"{path.name} of {enclave.name}: {error}")
                continue
            self.harvest.certificates[height] = report
            return

    async def _evidence(self) -> None:
        for enclave in self._living():
            names = await self._ask(enclave, "evidence")
            for name in names if isinstance(names, list) else []:
                known = self.harvest.evidence.get(f"{name}.cbor")
                if known is not None and (known.difference is not None or self._is_complete(known.accused)):
                    continue
                data = await self._ask(enclave, "evidence_file", name)
                if isinstance(data, bytes):
                    await self._check(enclave, f"{Path(str(name)).name}.cbor", data)

    async def _check(self, enclave: SimulatedEnclave, name: str, data: bytes) -> None:
        try:
            report = await asyncio.to_thread(verify_evidence, data, self._policy, cache=self._cache)
        except RoundError as error:
            self.harvest.refused.append(f"{name} of {enclave.name}: {error}")
            return
        known = self.harvest.evidence.get(name)
        if known is None or known.difference is None:
            (self._out / EVIDENCE / name).write_bytes(data)
            self.harvest.evidence[name] = report

    def _living(self) -> list[SimulatedEnclave]:
        # Honest members first: what a dissenter holds is usually less.
        tampered = self._state.plan.tampered
        living = [one for name, one in self._network.enclaves.items() if self._state.enclaves[name].alive]
        return sorted(living, key=lambda one: one.name in tampered)

    @staticmethod
    async def _ask(enclave: SimulatedEnclave, operation: str, *args: object) -> object:
        try:
            answer: object = await enclave.call("ra", operation, *args, timeout=ASK_SECONDS)
        except CallError:
            return None  # another member may have it
        return answer
