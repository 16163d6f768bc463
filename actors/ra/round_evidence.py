"""Evidence against members, and the walks that find in which key an accused's state differs.

May not: name anybody without signed documents that contradict each other, or for silence. Sans-IO.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".

The lowest certified slot walks at once, the next ones in their order when nothing was found meanwhile; whoever finds
the key tells the others, who check both proofs. An accused who does not answer leaves the evidence without its "what".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from round_commands import Command, Note, ReadNode, Send
from round_messages import Found, NodeFound, NodeWanted
from round_state import Heard, Round, Says

from tea.sdk.rounds import (
    Certificate,
    DifferingKey,
    Evidence,
    EvidenceKind,
    PairWalk,
    Side,
    StateTreeError,
    WantedNode,
    verify_proof,
)

MAX_EVIDENCE: Final = 32
"""Evidences kept against one slot, the first ones; more are only counted in the rounds."""
MAX_WALKS: Final = 4
"""Walks at a time."""
TURN: Final = 8
"""Ticks that each certified slot waits for the one before it to find the key."""
ANSWER: Final = 4
"""Ticks to wait for a node before it is asked for again."""
TRIES: Final = 5
"""How often a node is asked for before the walk is given up."""


@dataclass
class _Record:
    kind: EvidenceKind
    height: int
    documents: tuple[Heard, ...]
    certificate: Certificate | None
    difference: DifferingKey | None = None

    @property
    def accused(self) -> str:
        return self.documents[0].attestation.slot

    @property
    def root(self) -> bytes:
        """The state root that the accused attested."""
        return self.documents[0].says.state_root

    def evidence(self) -> Evidence:
        certificate = None if self.certificate is None else self.certificate.encode()
        attestations = tuple(heard.attestation for heard in self.documents)
        return Evidence(self.kind, self.accused, self.height, attestations, certificate, self.difference)


@dataclass
class _Walk:
    record: _Record
    start: int
    walk: PairWalk | None = None
    waiting: WantedNode | None = None
    asked: int = 0
    tries: int = 0


class EvidenceBook:
    """What is known against whom. Bounded by `MAX_EVIDENCE` a slot."""

    def __init__(self, slots: Sequence[str], own: str, out: deque[Command]) -> None:
        self._slots = slots
        self._own = own
        self._out = out
        self._records: dict[str, _Record] = {}
        self._walks: list[_Walk] = []
        self._now = 0

    @property
    def named(self) -> list[str]:
        """The slots against which there is evidence, ordered."""
        return sorted({record.accused for record in self._records.values()})

    def ids(self) -> list[str]:
        """The evidences' names, ordered by height."""
        return sorted(self._records, key=lambda name: (self._records[name].height, name))

    def get(self, name: str) -> Evidence | None:
        """One evidence."""
        record = self._records.get(name)
        return None if record is None else record.evidence()

    def forget(self, below: int) -> None:
        """Give up the walks of heights that are no longer kept; the evidence stays."""
        self._walks = [walk for walk in self._walks if walk.record.height > below]

    def equivocates(self, found: Round, first: Heard, second: Heard) -> None:
        """One boot gave one block two state roots."""
        self._add(_Record(EvidenceKind.EQUIVOCATION, found.height, (first, second), None))

    def dissents(self, found: Round, certificate: Certificate, certified: Says, heard: Heard, now: int) -> None:
        """A verified document contradicts the certificate."""
        same_block = heard.says.block_hash == certified.block_hash
        kind = EvidenceKind.DISSENT if same_block else EvidenceKind.OTHER_BLOCK
        record = _Record(kind, found.height, (heard,), certificate)
        # Only who has the certified state itself can walk it.
        if self._add(record) and same_block and found.view == (certified.block_hash, certified.state_root):
            agreeing = [attestation.slot for attestation in certificate.attestations]
            turn = agreeing.index(self._own) if self._own in agreeing else len(agreeing)
            self._walks.append(_Walk(record, now + turn * TURN))
            self.tick(now)

    def followed(self, slot: str, height: int) -> None:
        """It attests the certified block by now: that it knew another before is the chain's doing, not its own."""
        if self._records.pop(f"{EvidenceKind.OTHER_BLOCK.value}-{slot}-{height}", None) is not None:
            fields = {"slot": slot, "height": str(height)}
            self._out.append(Note("info", "a member followed the chain and is no longer named for its block", fields))

    def _add(self, record: _Record) -> bool:
        accused = record.accused
        name = f"{record.kind.value}-{accused}-{record.height}"
        held = sum(1 for known in self._records.values() if known.accused == accused)
        if accused == self._own or name in self._records or held >= MAX_EVIDENCE:
            return False
        self._records[name] = record
        fields = {"slot": accused, "height": str(record.height), "evidence": name}
        self._out.append(Note("warning", "a member is named", fields))
        return True

    # -- walks -----------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Start walks whose turn has come, repeat what was not answered, give up after `TRIES`."""
        self._now = now
        self._walks = [walk for walk in self._walks if walk.record.difference is None and walk.tries < TRIES]
        walking = {walk.record.accused for walk in self._walks if walk.walk is not None}
        for walk in list(self._walks):
            if walk.walk is None:
                # One walk at a time for each accused: it answers at its own pace.
                if walk.start <= now and len(walking) < MAX_WALKS and walk.record.accused not in walking:
                    walking.add(walk.record.accused)
                    self._begin(walk)
            elif walk.waiting is not None and now - walk.asked >= ANSWER:
                walk.tries += 1
                self._request(walk, walk.waiting)

    def _begin(self, walk: _Walk) -> None:
        certificate = walk.record.certificate
        if certificate is not None:
            walk.walk = PairWalk(certificate.state_root, walk.record.root)
            self._advance(walk, walk.walk)

    def _advance(self, walk: _Walk, pair: PairWalk) -> None:
        wanted = pair.wanted
        if wanted is not None:
            walk.tries = 0
            self._request(walk, wanted)
            return
        walk.waiting = None
        difference = pair.difference
        if difference is None or not self._complete(walk.record, difference):
            walk.tries = TRIES
            return
        record = walk.record
        self._out.append(
            Send(
                None,
                Found(
                    record.height,
                    record.accused,
                    record.root,
                    difference.key,
                    difference.certified,
                    difference.accused,
                ),
            )
        )

    def _request(self, walk: _Walk, wanted: WantedNode) -> None:
        walk.waiting = wanted
        walk.asked = self._now
        if wanted.side is Side.CERTIFIED:
            self._out.append(ReadNode(walk.record.height, wanted.prefix, None))
        else:
            self._out.append(Send(walk.record.accused, NodeWanted(walk.record.height, wanted.prefix)))

    def own_node(self, height: int, prefix: bytes, node: bytes | None) -> None:
        """My layer 1's node at a prefix, None when it has none."""
        for walk in list(self._walks):
            if walk.record.height == height and walk.waiting == WantedNode(Side.CERTIFIED, prefix):
                self._feed(walk, node)

    def answered(self, sender: str, message: NodeFound) -> None:
        """An accused's node at a prefix, None when it no longer keeps that state."""
        for walk in list(self._walks):
            if (
                walk.record.accused == sender
                and walk.record.height == message.height
                and walk.waiting == WantedNode(Side.ACCUSED, message.prefix)
            ):
                self._feed(walk, message.node)

    def _feed(self, walk: _Walk, node: bytes | None) -> None:
        if walk.walk is None:
            return
        try:
            if node is None:
                walk.tries = TRIES
                return
            walk.walk.feed(node)
        except StateTreeError:
            # Not the node that was attested: it answers from another state, or lies. No proof comes of that; a message
            # that only pretends to be the accused's must not end the walk, so it is asked again.
            walk.tries += 1
            return
        self._advance(walk, walk.walk)

    def found(self, message: Found) -> None:
        """A peer found the key: check both proofs, then complete my own evidence with it."""
        name = f"{EvidenceKind.DISSENT.value}-{message.accused}-{message.height}"
        record = self._records.get(name)
        if record is not None and record.difference is None and record.root == message.root:
            self._complete(record, DifferingKey(message.key, message.certified_proof, message.accused_proof))

    def _complete(self, record: _Record, difference: DifferingKey) -> bool:
        if record.certificate is None:
            return False
        try:
            certified = verify_proof(record.certificate.state_root, difference.key, difference.certified)
            accused = verify_proof(record.root, difference.key, difference.accused)
        except StateTreeError:
            return False
        if certified == accused:
            return False
        record.difference = difference
        return True
