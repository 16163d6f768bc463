"""What came of a demo, as one object, and everything that is not as it should be.

May not: call a demo good for want of a check. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .demo_harvest import CERTIFICATES, EVIDENCE, Harvest
from .demo_state import DemoState
from .demo_words import listed


@dataclass
class DemoResult:
    """What came of it."""

    state: DemoState
    harvest: Harvest
    manifest_digest: str
    chain: str
    token: str | None
    policy: Path
    seconds: float
    problems: list[str] = field(default_factory=list)
    """Why it is not as it should be."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, object]:
        """The result as one object."""
        state, plan, harvest = self.state, self.state.plan, self.harvest
        return {
            "ok": self.ok,
            "problems": self.problems,
            "enclaves": plan.enclaves,
            "blocks": plan.blocks,
            "first_height": state.height_of(1),
            "rounds_certified": len(harvest.certificates),
            "rounds_disputed": len(disputed(state, harvest)),
            "tampered": list(plan.tampered),
            "named": harvest.named,
            "falsely_named": [name for name in harvest.named if name not in plan.tampered],
            "killed": [plan.killed] if plan.killed is not None else [],
            "attestations_verified": state.attestations,
            "calls": state.calls,
            "calls_unanswered": state.calls - state.calls_answered,
            "calls_answered_with_error": state.calls_with_error,
            "manifest_digest": self.manifest_digest,
            "certificates": str(plan.out / CERTIFICATES),
            "evidence": str(plan.out / EVIDENCE),
            "policy": str(self.policy),
            "report": str(plan.out / "report.html"),
            "chain": self.chain,
            "seed": plan.seed,
            "seconds": round(self.seconds, 1),
        }


def disputed(state: DemoState, harvest: Harvest) -> list[int]:
    """Heights of the demo's blocks that somebody disputed: as evidence proves, or enclaves say."""
    proven = set(harvest.disputed)
    return [one.height for one in state.blocks if one.disputed or one.height in proven]


def find_problems(result: DemoResult) -> list[str]:
    """Everything that is not as it should be, a sentence each."""
    state, plan, harvest = result.state, result.state.plan, result.harvest
    problems = list(harvest.refused)
    missing = [one.height for one in state.blocks if one.height not in harvest.certificates]
    if missing or len(harvest.certificates) != plan.blocks:
        problems.append(f"{len(harvest.certificates)} of {plan.blocks} rounds are certified; open: {listed(missing)}")
    if harvest.named != list(plan.tampered):
        problems.append(f"named: {listed(harvest.named)}; tampered with: {listed(plan.tampered)}")
    for name in plan.tampered:
        best = harvest.best(name)
        if best is not None and best[1].difference is None:
            problems.append(f"no evidence against {name} says what differs")
    if state.calls != state.calls_answered:
        problems.append(f"{state.calls - state.calls_answered} of {state.calls} calls were not answered")
    return problems
