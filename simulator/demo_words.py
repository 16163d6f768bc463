"""A demo in words: what differs in a state, what happened, and whether it is as it should be.

May not: say more than was proven. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tea.trust.rounds import EvidenceReport

from .demo_harvest import Harvest
from .demo_plan import DemoPlan
from .demo_state import DemoState

_STORAGE = re.compile(r"storage/(0x[0-9a-f]{40})/0x([0-9a-f]{64})")
_ACCOUNT = re.compile(r"account/(0x[0-9a-f]{40})")


def key_text(key: bytes) -> str:
    """A state's key as people read it."""
    return key.decode() if key.isascii() and key.decode().isprintable() else f"0x{key.hex()}"


def key_kind(key: bytes, token: str | None = None) -> str:
    """What a key stands for."""
    text = key_text(key)
    if found := _STORAGE.fullmatch(text):
        return "a token balance" if token is not None and found[1] == token.lower() else f"a storage slot of {found[1]}"
    if found := _ACCOUNT.fullmatch(text):
        return f"the account {found[1]}"
    return "an entry"


def value_text(key: bytes, value: bytes | None) -> str:
    """A value as people read it: numbers, an account's parts."""
    if value is None:
        return "absent"
    text = key_text(key)
    if _ACCOUNT.fullmatch(text) and len(value) == 40:
        return f"{int.from_bytes(value[:32], 'big'):,} wei, nonce {int.from_bytes(value[32:], 'big'):,}"
    if _STORAGE.fullmatch(text):
        return f"{int.from_bytes(value, 'big'):,}"
    return f"0x{value.hex()}"


def listed(names: Sequence[object]) -> str:
    """a, b and c."""
    texts = [str(name) for name in names]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts) or "nobody"


def evidence_sentence(report: EvidenceReport, token: str | None = None) -> str:
    """One piece of evidence in words."""
    text = (
        f"{report.accused} attested state {report.state_root.hex()[:12]}… for block {report.height}, where the "
        f"others certified {report.other_root.hex()[:12]}…"
    )
    found = report.difference
    if found is not None:
        text += (
            f": {key_kind(found.key, token)} ({key_text(found.key)}) is {value_text(found.key, found.certified)} in the "
            f"certified state, and {value_text(found.key, found.accused)} in that of {report.accused}"
        )
    return text + "."


def summary_sentences(plan: DemoPlan, state: DemoState, harvest: Harvest, token: str | None) -> list[str]:
    """The whole demo, a sentence each."""
    blocks = state.blocks
    first, last = (blocks[0].height, blocks[-1].height) if blocks else (0, 0)
    lines = [
        f"{plan.enclaves} enclaves certified {len(harvest.certificates)} of {plan.blocks} blocks (heights {first} to "
        f"{last}); a certificate takes {plan.quorum} of {plan.enclaves} that attest the same state."
    ]
    if plan.tampered:
        heights = [height for height in harvest.disputed if height in {one.height for one in blocks}]
        lines.append(
            f"From height {state.height_of(plan.lies_from)} on the parent of {listed(plan.tampered)} fed altered state: "
            f"{len(heights)} rounds were disputed, and {listed(harvest.named)} "
            f"{'is' if len(harvest.named) == 1 else 'are'} named by {len(harvest.evidence)} pieces of signed evidence."
        )
        for name in plan.tampered:
            best = harvest.best(name)
            if best is not None:
                lines.append(evidence_sentence(best[1], token))
    else:
        lines.append(f"No parent lied, and {listed(harvest.named)} was named.")
    if plan.killed is not None:
        lines.append(
            f"{plan.killed} was killed after height {state.height_of(plan.kill_after)} and came back as a fresh enclave "
            f"before height {state.height_of(plan.back_before)}; what it had missed was caught up."
        )
    unanswered = state.calls - state.calls_answered
    lines.append(
        f"{state.calls:,} calls went to the counters meanwhile: {unanswered or 'none'} stayed unanswered"
        f"{f', {state.calls_with_error:,} were answered with an error' if state.calls_with_error else ''}."
    )
    lines.append(f"{state.attestations:,} attestations were verified inside the enclaves.")
    return lines
