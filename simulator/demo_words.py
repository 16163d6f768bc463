"""States and evidence in words: what a key stands for, what a value is, who attested what.

May not: say more than was proven. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tea.trust.rounds import EvidenceKind, EvidenceReport

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
    if _ACCOUNT.fullmatch(text):
        return "an account"
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


def contradiction_sentence(report: EvidenceReport) -> str:
    """What somebody attested, against what; states by the first digits of their roots."""
    own, other = report.state_root.hex()[:12], report.other_root.hex()[:12]
    if report.kind is EvidenceKind.EQUIVOCATION:
        return f"For block {report.height} {report.accused} attested state {own} and, in the same life, state {other}."
    if report.kind is EvidenceKind.OTHER_BLOCK:
        return f"At height {report.height} {report.accused} attested another block than the one that was certified."
    return f"For block {report.height} {report.accused} attested state {own}, while state {other} was certified."


def difference_sentence(report: EvidenceReport, token: str | None) -> str:
    """In which key the states differ, with both values; empty when that is not known."""
    found = report.difference
    if found is None:
        return ""
    return (
        f"{key_kind(found.key, token).capitalize()} ({key_text(found.key)}) is "
        f"{value_text(found.key, found.certified)} in the certified state, and "
        f"{value_text(found.key, found.accused)} in that of {report.accused}."
    )
