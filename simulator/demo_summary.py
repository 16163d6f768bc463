"""A whole demo in words, for the terminal and the report.

May not: say more than was proven. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

from collections.abc import Sequence

from .demo_result import DemoResult
from .demo_words import contradiction_sentence, difference_sentence, listed


def summary_sentences(result: DemoResult, *, evidence: bool = True) -> list[str]:
    """The whole demo, a sentence each; `evidence`: with what differs, of the first evidence against each."""
    state, plan, harvest = result.state, result.state.plan, result.harvest
    blocks = state.blocks
    first, last = (blocks[0].height, blocks[-1].height) if blocks else (0, 0)
    lines = [
        f"{plan.enclaves} enclaves certified {len(harvest.certificates)} of {plan.blocks} blocks (heights {first} to "
        f"{last}); a certificate takes {plan.quorum} of {plan.enclaves} that attest the same state."
    ]
    if plan.tampered:
        heights = [height for height in harvest.disputed if height in {one.height for one in blocks}]
        lines.append(
            f"From height {state.height_of(plan.lies_from)} on the {_parents(plan.tampered)} fed altered state: "
            f"{len(heights)} rounds were disputed, and {listed(harvest.named)} "
            f"{'is' if len(harvest.named) == 1 else 'are'} named by {len(harvest.evidence)} pieces of signed evidence."
        )
        for name in plan.tampered if evidence else ():
            best = harvest.best(name)
            if best is not None:
                lines.append(f"{contradiction_sentence(best[1])} {difference_sentence(best[1], result.token)}".rstrip())
    else:
        lines.append(f"No parent lied, and {listed(harvest.named)} was named.")
    if plan.killed is not None:
        lines.append(
            f"{plan.killed} was killed after height {state.height_of(plan.kill_after)} and came back as a fresh "
            f"enclave before height {state.height_of(plan.back_before)}; what it had missed was caught up."
        )
    unanswered = state.calls - state.calls_answered
    lines.append(
        f"{state.calls:,} calls went to the counters meanwhile: {unanswered or 'none'} stayed unanswered"
        f"{f', {state.calls_with_error:,} were answered with an error' if state.calls_with_error else ''}."
    )
    lines.append(f"{state.attestations:,} attestations were verified inside the enclaves.")
    return lines


def _parents(names: Sequence[str]) -> str:
    return f"parent{'s' if len(names) > 1 else ''} of {listed(names)}"
