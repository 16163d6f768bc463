"""One round as a member knows it, and what follows from what it heard: votes, agreement, dissent, equivocation.

May not: decide when to speak (round_book.py does), or count a document that was not verified.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tea.sdk.rounds import (
    Certificate,
    RoundClaim,
    SlotAttestation,
    TrustError,
    parse_claim,
    parse_statement,
    quorum,
)

MAX_VALUES: Final = 4
"""Contributions of one slot that a round takes: a restarted member has a new one."""
MAX_DOCUMENTS: Final = 4
"""Different things that one slot may attest in a round before it is no longer listened to."""
MAX_BOOTS: Final = 8
"""Boots of a slot that are remembered, the newest."""


class Says(NamedTuple):
    """What a member attests of a height. Only claims under one manifest can contradict each other."""

    manifest: bytes
    block_hash: bytes
    state_root: bytes


class Heard(NamedTuple):
    """A verified document of a slot."""

    attestation: SlotAttestation
    says: Says
    module_id: str
    timestamp: int
    """Milliseconds since the epoch, by the document."""
    live: bool
    """Whether my own contribution is in it; else it came in a certificate."""


class Boots:
    """Which enclaves (module ids) spoke for each slot, and when: a restart is legitimate, two at once are not.

    The rule: a new module id supersedes the older one. When a document of an older one is newer than one of a later
    one, both were alive at once: neither counts from then on, until a new boot takes the slot.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[str, tuple[int, int]]] = {}

    def speaks(self, slot: str, module_id: str, timestamp: int) -> None:
        """Note a verified document."""
        boots = self._slots.setdefault(slot, {})
        first, last = boots.get(module_id, (timestamp, timestamp))
        boots[module_id] = (min(first, timestamp), max(last, timestamp))
        if len(boots) > MAX_BOOTS:
            del boots[min(boots, key=lambda known: boots[known][1])]

    def slot_of(self, module_id: str) -> str | None:
        """The slot that an enclave spoke for."""
        return next((slot for slot, boots in self._slots.items() if module_id in boots), None)

    def is_void(self, slot: str, module_id: str) -> bool:
        """Whether another enclave of the slot was alive at the same time as this one."""
        boots = self._slots.get(slot, {})
        if module_id not in boots:
            return False
        first, last = boots[module_id]
        return any(other != module_id and first <= until and since <= last for other, (since, until) in boots.items())


@dataclass
class Round:
    """Everything that is known of one height. Times are in ticks."""

    height: int
    view: tuple[bytes, bytes] | None = None
    """(block hash, state root) of my own layer 1."""
    drawing: bool = False
    contribution: bytes | None = None
    opened: int | None = None
    """When I contributed."""
    values: dict[str, list[bytes]] = field(default_factory=dict)
    """Contributions by slot, my own included."""
    attesting: bool = False
    attested: dict[bytes, bytes] = field(default_factory=dict)
    """Block hash -> the one state root that I ever attest for it in this life."""
    own: SlotAttestation | None = None
    """My newest attestation."""
    included: frozenset[bytes] = frozenset()
    """The contributions in it."""
    again: bool = False
    """Somebody came too late for it, or my block was replaced: attest anew at the next tick."""
    again_for_all: bool = False
    """The attestation under way says something new, so all have to hear it."""
    blocks_said: int = 0
    """How many different blocks I attested at this height."""
    documents: dict[str, list[Heard]] = field(default_factory=dict)
    seen: set[tuple[str, bytes]] = field(default_factory=set)
    """Slots and digests of what holds, or is being verified."""
    certificate: Certificate | None = None
    certified: Says | None = None
    compared: tuple[bytes, bytes] | None = None
    """The view that was last compared with the certificate."""
    offers: list[str] = field(default_factory=list)
    """Who says it holds the certificate."""
    wanted: str | None = None
    wanted_at: int = 0
    asks: int = 0
    next_ask: int = 0
    next_look: int = 0

    def live(self, slot: str) -> list[Heard]:
        """What I heard of a slot with my own contribution in it."""
        return [heard for heard in self.documents.get(slot, ()) if heard.live]

    def lacking(self, slots: Iterable[str]) -> list[str]:
        """The slots that I have not heard."""
        return [slot for slot in slots if not self.live(slot)]

    def is_complete(self, slots: Iterable[str]) -> bool:
        """Certified, and everybody heard: nothing more is needed of anyone."""
        return self.certificate is not None and not self.lacking(slots)

    def strays(self, slot: str) -> bool:
        """Whether a slot attests other blocks than the certified one only: it may yet follow the chain to that."""
        certified, documents = self.certified, self.documents.get(slot, ())
        return certified is not None and all(heard.says.block_hash != certified.block_hash for heard in documents)

    def equivocations(self, slot: str) -> tuple[Heard, Heard] | None:
        """Two documents of one boot that give one block two state roots."""
        heard = self.documents.get(slot, [])
        for number, first in enumerate(heard):
            for second in heard[number + 1 :]:
                if (
                    first.module_id == second.module_id
                    and first.says[:2] == second.says[:2]
                    and first.says.state_root != second.says.state_root
                ):
                    return first, second
        return None

    def vote(self, slot: str, boots: Boots) -> Heard | None:
        """What a slot counts for: its newest live document, if nothing voids it."""
        if self.equivocations(slot) is not None:
            return None
        counted = [heard for heard in self.live(slot) if not boots.is_void(slot, heard.module_id)]
        return max(counted, key=lambda heard: heard.timestamp, default=None)

    def votes(self, slots: Iterable[str], boots: Boots) -> dict[str, Heard]:
        """Every slot's vote that counts."""
        found = ((slot, self.vote(slot, boots)) for slot in slots)
        return {slot: vote for slot, vote in found if vote is not None}

    def dissenting(self) -> list[Heard]:
        """Verified documents that contradict the certificate.

        Another root for the certified block always does. Another block does unless the slot attests the certified one
        too: then it followed a chain that replaced a block.
        """
        certified = self.certified
        if certified is None:
            return []
        return [
            heard
            for documents in self.documents.values()
            for heard in documents
            if heard.says.manifest == certified.manifest
            and heard.says != certified
            and (heard.says.block_hash == certified.block_hash or all(h.says != certified for h in documents))
        ]

    def roots(self) -> dict[str, bytes]:
        """The state root that each slot attested last."""
        return {
            slot: max(documents, key=lambda heard: heard.timestamp).says.state_root
            for slot, documents in self.documents.items()
            if documents
        }

    def is_disputed(self) -> bool:
        """Whether any two verified documents say different things."""
        return len({heard.says for documents in self.documents.values() for heard in documents}) > 1


def certify(height: int, votes: Mapping[str, Heard], members: int) -> tuple[Certificate, Says] | None:
    """The certificate that these votes make, or None when no more than two thirds of the members agree."""
    if not votes:
        return None
    says, count = Counter(vote.says for vote in votes.values()).most_common(1)[0]
    if count < quorum(members):
        return None
    agreeing = tuple(votes[slot].attestation for slot in sorted(votes) if votes[slot].says == says)
    return Certificate(height, says.block_hash, says.state_root, agreeing), says


def read_claim(attestation: SlotAttestation, height: int) -> tuple[RoundClaim, Says] | None:
    """What a document's statement claims of a height, if its document vouches for it; None when it is no such claim."""
    try:
        statement = parse_statement(attestation.statement)
        claim = parse_claim(statement.body)
    except TrustError:
        return None
    if statement.kind != "ra" or statement.manifest is None or claim.height != height:
        return None
    return claim, Says(statement.manifest, claim.block_hash, claim.state_root)
