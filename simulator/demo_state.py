"""What a demo knows of its network at a moment: enclaves, rounds, events, figures. Views and reports read it.

May not: be evidence (what enclaves say of themselves); certificates and evidence files are, and `demo_harvest` checks
them. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .demo_plan import DemoPlan, slot_order


@dataclass
class EnclaveView:
    """One enclave."""

    name: str
    phase: str = "starting"
    module_id: str = ""
    boots: int = 0
    height: int | None = None
    certified: int = 0
    verified_before: int = 0
    """Attestations that its earlier boots verified."""
    verified: int = 0
    quarantined: bool = False
    calls: int = 0
    errors: int = 0
    recent: list[float] = field(default_factory=list)
    """Moments of the newest answers."""

    @property
    def alive(self) -> bool:
        """Whether it takes part."""
        return self.phase == "ready"

    @property
    def attestations(self) -> int:
        """Attestations that it verified, in all boots."""
        return self.verified_before + self.verified


@dataclass
class RoundView:
    """One height."""

    height: int
    number: int
    """Which block of the demo; 0 is the one before the first."""
    mined: float
    """Seconds after the demo's start."""
    roots: dict[str, bytes] = field(default_factory=dict)
    """What each slot attested, as anybody heard it."""
    heard: dict[str, float] = field(default_factory=dict)
    """When that was first seen."""
    certified_root: bytes | None = None
    certified_at: float | None = None
    holders: set[str] = field(default_factory=set)
    """Who holds its certificate."""
    disputed: bool = False

    def agreeing(self) -> list[str]:
        """Slots that attested what is certified, or else what most did."""
        root = self.certified_root
        if root is None and self.roots:
            roots = list(self.roots.values())
            root = max(roots, key=roots.count)
        return [name for name, own in self.roots.items() if own == root]

    def differing(self) -> list[str]:
        """Slots that attested something else."""
        agreeing = self.agreeing()
        return sorted((name for name in self.roots if name not in agreeing), key=slot_order)


@dataclass(frozen=True)
class Event:
    """Something that happened, in words."""

    at: float
    kind: str
    """step, block, fault, finding or good."""
    text: str
    height: int | None = None


class DemoState:
    """Everything that is shown. `on_event` hears each event as it comes."""

    def __init__(self, plan: DemoPlan, on_event: Callable[[Event], None] | None = None) -> None:
        self.plan = plan
        self.enclaves = {name: EnclaveView(name) for name in plan.names}
        self.rounds: dict[int, RoundView] = {}
        self.events: list[Event] = []
        self.base: int | None = None
        """The height before the first block."""
        self.calls = 0
        self.calls_answered = 0
        self.calls_with_error = 0
        self.on_event = on_event
        self._started = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the demo's start."""
        return time.monotonic() - self._started

    def event(self, kind: str, text: str, height: int | None = None) -> None:
        """Something happened."""
        event = Event(self.now, kind, text, height)
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def mined(self, height: int) -> RoundView:
        """There is a new final block."""
        number = height - (self.base if self.base is not None else height)
        return self.rounds.setdefault(height, RoundView(height, number, self.now))

    @property
    def blocks(self) -> list[RoundView]:
        """The rounds of the demo's blocks, by height."""
        return [one for _, one in sorted(self.rounds.items()) if one.number > 0]

    @property
    def attestations(self) -> int:
        """Attestations that all enclaves verified."""
        return sum(one.attestations for one in self.enclaves.values())

    def height_of(self, number: int) -> int:
        """The height of a block by its number."""
        return (self.base or 0) + number
