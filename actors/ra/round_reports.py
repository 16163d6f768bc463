"""What a member tells its parent, and whoever asks there, of the rounds. Not evidence: certificates and evidence are.

May not: change anything. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec
from round_book import RoundBook
from round_state import Round

RECENT: Final = 32
"""Heights of which `status` says how many agree."""


class RaStatus(msgspec.Struct, frozen=True):
    """Where a member stands."""

    slot: str | None
    """The own slot; None when the enclave fills none, and then all else is empty."""
    members: int
    height: int | None
    """The newest height of the own layer 1."""
    certified: int
    """Rounds certified, of those kept."""
    disputed: int
    """Rounds in which verified documents contradict each other."""
    open: int
    """Rounds that are neither certified nor given up."""
    attestations_verified: int
    refused: int
    """Documents that did not verify."""
    agreeing: dict[int, int]
    """For the newest heights: how many slots attest what most do."""
    named: list[str]
    """Slots against which there is evidence."""
    quarantined: bool
    """Whether the own state dissented and has not rejoined."""
    counters: dict[str, int]
    """Messages that were dropped, and why; and calls to providers that failed."""


class RoundSummary(msgspec.Struct, frozen=True):
    """One height."""

    height: int
    block_hash: bytes
    """Certified, else the own; empty when neither is known."""
    state_root: bytes
    """Likewise."""
    roots: dict[str, bytes]
    """The state root that each slot was heard to attest."""
    certified: bool
    disputed: bool
    silent: list[str]
    """Slots that were not heard: counted, never accused."""
    named: list[str]
    """Slots whose signed documents contradict the certificate, or themselves."""


def status_of(book: RoundBook | None, failures: int) -> RaStatus:
    """The status of a member, or of an enclave that is none."""
    if book is None:
        return RaStatus(None, 0, None, 0, 0, 0, 0, 0, {}, [], False, {"failures": failures})
    rounds = book.rounds.values()
    newest = sorted(book.rounds, reverse=True)[:RECENT]
    return RaStatus(
        slot=book.own,
        members=len(book.slots),
        height=book.newest,
        certified=sum(found.certificate is not None for found in rounds),
        disputed=sum(found.is_disputed() for found in rounds),
        open=sum(found.certificate is None for found in rounds),
        attestations_verified=book.counters["verified"],
        refused=book.counters["refused"],
        agreeing={height: _agreeing(book, book.rounds[height]) for height in reversed(newest)},
        named=book.evidence.named,
        quarantined=book.recovery.quarantined,
        counters={**book.counters, "failures": failures},
    )


def summary_of(book: RoundBook, found: Round) -> RoundSummary:
    """What a member knows of one height."""
    known = found.certified[1:] if found.certified is not None else found.view
    block_hash, state_root = known or (b"", b"")
    roots = found.roots()
    named = {heard.attestation.slot for heard in found.dissenting()}
    named |= {slot for slot in found.documents if found.equivocations(slot) is not None}
    return RoundSummary(
        height=found.height,
        block_hash=block_hash,
        state_root=state_root,
        roots=roots,
        certified=found.certificate is not None,
        disputed=found.is_disputed(),
        silent=[slot for slot in book.slots if slot not in roots],
        named=sorted(named),
    )


def _agreeing(book: RoundBook, found: Round) -> int:
    votes = Counter(vote.says for vote in found.votes(book.slots, book.boots).values())
    if found.certificate is not None:
        return max(len(found.certificate.attestations), max(votes.values(), default=0))
    return max(votes.values(), default=0)
