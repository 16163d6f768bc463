"""The rounds as one member runs them: events in, commands out. Sans-IO, so that a test can be the whole network.

May not: believe a message (only verified documents count), block, keep more than its bounds, or attest two state roots
for one block. Rule: docs/architecture.md, "Remote attestation of layer-1 state".

    head -> Draw -> contributed -> (all contributed, or patience is over) -> Attest -> attested -> Send
    Attestation -> Verify -> verified -> votes -> certificate -> whoever contradicts it is named

Everything that can get lost is said again: a member that lacks another's document repeats its contribution to it, which
makes the other repeat its document, attest anew if the contribution came too late, or offer the certificate.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence

from round_catchup import CatchUp
from round_commands import Attest, Command, Draw, Look, Note, ReadNode, Send, Verify
from round_evidence import EvidenceBook
from round_limits import Budget, Limits
from round_messages import (
    Attestation,
    Certified,
    Contribution,
    Found,
    Message,
    NodeFound,
    NodeWanted,
    Offer,
    Want,
)
from round_recovery import Recovery
from round_state import MAX_DOCUMENTS, MAX_VALUES, Boots, Heard, Round, Says, certify, read_claim

from tea.sdk.rounds import MAX_CONTRIBUTIONS, Certificate, RoundClaim, SlotAttestation


class RoundBook:
    """The state machine of one member. Feed it events; after each, do what `commands` yields."""

    def __init__(self, slots: Sequence[str], own: str, limits: Limits | None = None) -> None:
        """`slots` are all members of the manifest, `own` included. Raises `ValueError` when it is not."""
        self.slots = tuple(sorted(set(slots)))
        if own not in self.slots:
            raise ValueError(f"the own slot {own} is none of {', '.join(self.slots)}")
        self.own = own
        self.limits = limits or Limits()
        self.rounds: dict[int, Round] = {}
        self.newest: int | None = None
        """My layer 1's newest height."""
        self.counters: Counter[str] = Counter()
        """What was counted: verified, refused, malformed, stale, repeated, late, flooded, unknown, foreign."""
        self.boots = Boots()
        self._out: deque[Command] = deque()
        self._budget = Budget(self.limits)
        self.evidence = EvidenceBook(self.slots, own, self._out)
        self.recovery = Recovery(self._out)
        self._catch_up = CatchUp(self.slots, self.limits, self._budget, self.counters, self._out)
        self._now = 0

    def commands(self) -> Iterator[Command]:
        """What is to be done now, in order; doing one may add more."""
        while self._out:
            yield self._out.popleft()

    # -- my layer 1 and my NSM -------------------------------------------------------------------------------------

    def head(self, height: int, block_hash: bytes, state_root: bytes) -> None:
        """Layer 1 has a finalized block: the newest, an old one that is caught up, or one that replaces another."""
        # A height far below is that of a layer 1 that was loaded anew, after its parent had shown it another chain.
        if self.newest is None or not self.newest - self.limits.keep < height <= self.newest:
            self.newest = height
            for old in [known for known in self.rounds if not self._in_window(known)]:
                del self.rounds[old]
            self.evidence.forget(self.newest - self.limits.keep)
        current = self._round(height)
        if current is None:
            return
        changed = current.view is not None and current.view[0] != block_hash
        current.view = (block_hash, state_root)
        current.again |= changed and current.own is not None
        self._compare(current)
        if current.certificate is None or len(current.values) > 0:
            self._open(current)
        self._consider(current)

    def contributed(self, height: int, value: bytes) -> None:
        """My NSM drew 32 bytes for a round."""
        current = self.rounds.get(height)
        if current is None or current.contribution is not None:
            return
        current.drawing = False
        current.contribution = value
        current.values[self.own] = [value]
        current.opened = self._now
        current.next_ask = self._now + self.limits.patience + 2
        self._out.append(Send(None, self._contribution(current)))
        self._consider(current)

    def contributing_failed(self, height: int) -> None:
        """It did not; the next tick tries again."""
        current = self.rounds.get(height)
        if current is not None:
            current.drawing = False

    def attested(self, claim: RoundClaim, document: bytes, statement: bytes) -> None:
        """My host attested what `Attest` asked for."""
        current = self.rounds.get(claim.height)
        if current is None:
            return
        # All who hear it for the first time, or all if it says something new.
        before, known = current.included, current.own is not None
        everybody = not known or current.again_for_all
        current.attesting = current.again = current.again_for_all = False
        current.included = frozenset(claim.contributions)
        current.own = SlotAttestation(self.own, document, statement)
        message = Attestation(claim.height, document, statement)
        if everybody:
            self._out.append(Send(None, message))
        else:
            for slot, values in current.values.items():
                if slot != self.own and any(v in current.included and v not in before for v in values):
                    self._out.append(Send(slot, message))
        self._take(current, current.own)

    def attesting_failed(self, height: int) -> None:
        """It did not; the next tick tries again."""
        current = self.rounds.get(height)
        if current is not None:
            current.attesting = False

    # -- peers -----------------------------------------------------------------------------------------------------

    def message(self, sender: str, message: Message) -> None:
        """A peer's message. `sender` is a hint: a document counts only if it verifies for that slot."""
        if sender not in self.slots or sender == self.own:
            self.counters["foreign"] += 1
            return
        if not self._budget.hears(sender):
            self.counters["flooded"] += 1
            return
        current = self._round(message.height)
        if current is None:
            self.counters["unknown"] += 1
            return
        match message:
            case Contribution():
                self._on_contribution(sender, current, message)
            case Attestation():
                self._take(current, SlotAttestation(sender, message.document, message.statement))
            case Offer():
                self._catch_up.offered(sender, current)
            case Want():
                if current.certificate is not None and self._budget.serves(sender):
                    self._out.append(Send(sender, Certified(current.height, current.certificate.encode())))
            case Certified():
                self._adopt(current, self._catch_up.received(sender, current, message))
            case NodeWanted():
                if self._budget.serves(sender):
                    self._out.append(ReadNode(message.height, message.prefix, sender))
            case NodeFound():
                self.evidence.answered(sender, message)
            case Found():
                self.evidence.found(message)

    def _on_contribution(self, sender: str, current: Round, message: Contribution) -> None:
        values = current.values.setdefault(sender, [])
        is_new = message.value not in values
        if is_new and len(values) < MAX_VALUES:
            values.append(message.value)
        if current.view is None:
            self._look(current)
        late = current.opened is None or self._now - current.opened >= self.limits.patience
        offered = current.certificate is not None and not message.certified and late
        if offered:
            self._out.append(Send(sender, Offer(current.height)))
        if current.own is not None and message.value in current.included:
            # It asks again for what must have got lost.
            if self._budget.serves(sender):
                self._out.append(Send(sender, Attestation(current.height, current.own.document, current.own.statement)))
        elif current.own is not None and message.value in values and not offered:
            current.again = True
        if current.contribution is None:
            self._open(current)
        elif is_new and late and not (offered and current.live(sender)):
            self._out.append(Send(sender, self._contribution(current)))
        self._consider(current)

    def _take(self, current: Round, attestation: SlotAttestation) -> None:
        """A document that came live: drop it if it can't matter, else have it verified."""
        slot = attestation.slot
        if current.contribution is None:
            self.counters["stale"] += 1
            return
        if current.is_complete(self.slots) and not current.strays(slot):
            self.counters["late"] += 1
            return
        read = read_claim(attestation, current.height)
        if read is None:
            self.counters["malformed"] += 1
            return
        claim, says = read
        if current.contribution not in claim.contributions:
            # Made before it heard me: not fresh to me. Asking makes it attest again.
            self.counters["stale"] += 1
            current.next_ask = min(current.next_ask, self._now + 1)
            return
        if any(heard.says == says for heard in current.live(slot)):
            self.counters["repeated"] += 1
            return
        known = (slot, attestation.digest)
        if known in current.seen or len(current.documents.get(slot, ())) >= MAX_DOCUMENTS:
            self.counters["repeated"] += 1
            return
        if slot != self.own and not self._budget.verifies(slot):
            self.counters["flooded"] += 1
            return
        current.seen.add(known)
        self._out.append(Verify(attestation, claim, None))

    # -- verdicts --------------------------------------------------------------------------------------------------

    def verified(self, command: Verify, module_id: str, timestamp: int) -> None:
        """A document holds for its slot: chain, statement, policy, nonce. `timestamp` is its own, in milliseconds."""
        attestation = command.attestation
        self.counters["verified"] += 1
        current = self.rounds.get(command.claim.height)
        if current is None:
            return
        read = read_claim(attestation, current.height)
        documents = current.documents.setdefault(attestation.slot, [])
        # One enclave for two slots: its first slot keeps it.
        foreign = self.boots.slot_of(module_id) not in (None, attestation.slot)
        if read is None or foreign or len(documents) >= 2 * MAX_DOCUMENTS:
            self.counters["refused"] += 1
            return
        self.boots.speaks(attestation.slot, module_id, timestamp)
        documents.append(Heard(attestation, read[1], module_id, timestamp, command.within is None))
        if command.within is not None:
            self._adopt(current, self._catch_up.check(current, command.within))
        self._decide(current)

    def refused(self, command: Verify) -> None:
        """A document does not hold; with it falls the certificate that it came in."""
        self.counters["refused"] += 1
        current = self.rounds.get(command.claim.height)
        if current is not None:
            # Not remembered: there is no end of documents that do not hold. The tick's budget bounds them.
            current.seen.discard((command.attestation.slot, command.attestation.digest))

    def node(self, height: int, prefix: bytes, node: bytes | None) -> None:
        """What `ReadNode` without an addressee read; None when layer 1 has no such node."""
        self.evidence.own_node(height, prefix, node)

    def _adopt(self, current: Round, learned: tuple[Certificate, Says] | None) -> None:
        """Take a peer's certificate, once all of it is verified."""
        if learned is not None:
            # Whoever comes so late that it fetches a certificate does not ask everybody to attest anew.
            current.asks = self.limits.asks_certified
            self._certified(current, *learned)

    def _decide(self, current: Round) -> None:
        if current.certificate is None:
            made = certify(current.height, current.votes(self.slots, self.boots), len(self.slots))
            if made is not None:
                self._certified(current, *made)
        for slot in current.documents:
            twice = current.equivocations(slot)
            if twice is not None:
                self.evidence.equivocates(current, *twice)
        if current.certified is not None and current.certificate is not None:
            for heard in current.dissenting():
                self.evidence.dissents(current, current.certificate, current.certified, heard, self._now)
            for slot in current.documents:
                if not current.strays(slot):
                    self.evidence.followed(slot, current.height)

    def _certified(self, current: Round, certificate: Certificate, says: Says) -> None:
        current.certificate = certificate
        current.certified = says
        current.offers.clear()
        current.wanted = None
        self._compare(current)
        fields = {"height": str(current.height), "slots": ",".join(a.slot for a in certificate.attestations)}
        self._out.append(Note("info", "round certified", fields))

    def _compare(self, current: Round) -> None:
        if current.certified is None or current.view is None or current.compared == current.view:
            return
        current.compared = current.view
        if current.view == (current.certified.block_hash, current.certified.state_root):
            self.recovery.agrees(current.height, current.view[1])
        else:
            self.recovery.dissents(current.height, current.certified.state_root)

    def rejoined(self, outcome: str) -> None:
        """What `Rejoin` came to: `agrees`, `differs`, or `later` (not loaded yet)."""
        self.recovery.rejoined(outcome)

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Time passes: attest without the silent, ask again for what is missing, fetch certificates."""
        self._now += 1
        self._budget.refill()
        for height in sorted(self.rounds, reverse=True):
            current = self.rounds[height]
            if current.is_complete(self.slots) and not current.again:
                continue
            if current.view is None:
                self._look(current)
            elif current.certificate is None and current.contribution is None:
                self._open(current)
            self._consider(current, ticked=True)
            self._catch_up.tick(current, self._now)
            self._ask(current)
        self.evidence.tick(self._now)
        self.recovery.tick(self._now)

    def _ask(self, current: Round) -> None:
        """Say my contribution again to those whose document I lack."""
        if current.contribution is None or self._now < current.next_ask:
            return
        if current.certificate is not None and current.asks >= self.limits.asks_certified:
            return
        if self._budget.asks():
            for slot in current.lacking(self.slots):
                if slot != self.own:
                    self._out.append(Send(slot, self._contribution(current)))
            current.next_ask = self._now + min(1 << current.asks, self.limits.slowest_ask)
            current.asks = min(current.asks + 1, 30)

    # -- small steps -----------------------------------------------------------------------------------------------

    def _in_window(self, height: int) -> bool:
        if self.newest is None:
            return True
        return self.newest - self.limits.keep < height <= self.newest + self.limits.ahead

    def _round(self, height: int) -> Round | None:
        """The round of a height, made if it is within bounds."""
        found = self.rounds.get(height)
        if found is None and self._in_window(height):
            if self.newest is None and len(self.rounds) >= self.limits.ahead:
                return None
            found = self.rounds[height] = Round(height)
        return found

    def _look(self, current: Round) -> None:
        if self._now >= current.next_look and (self.newest is None or current.height <= self.newest):
            current.next_look = self._now + self.limits.answer
            self._out.append(Look(current.height))

    def _open(self, current: Round) -> None:
        """Contribute, if my layer 1 has the height and the tick's budget allows."""
        if current.contribution is not None or current.drawing or current.view is None:
            return
        if self._budget.opens():
            current.drawing = True
            self._out.append(Draw(current.height))

    def _contribution(self, current: Round) -> Contribution:
        if current.contribution is None:
            raise RuntimeError("a round is opened before its contribution is sent")
        return Contribution(current.height, current.contribution, current.certificate is not None)

    def _consider(self, current: Round, *, ticked: bool = False) -> None:
        """Attest, if it is time."""
        if current.view is None or current.contribution is None or current.opened is None or current.attesting:
            return
        if current.own is not None:
            # Those who came late are answered together, once a tick.
            if current.again and ticked:
                self._attest(current)
            return
        waited = self._now - current.opened
        everybody = len(current.values) == len(self.slots)
        # Where a certificate is on offer, nobody needs my attestation yet.
        patience = 4 * self.limits.patience if current.offers else 0 if everybody else self.limits.patience
        if waited >= patience and (everybody or len(current.values) > 1):
            self._attest(current)

    def _attest(self, current: Round) -> None:
        if current.view is None or not self._budget.attests():
            return
        block_hash, state_root = current.view
        # What was attested for a block stays attested: after a reload another root for it would be an equivocation.
        root = current.attested.setdefault(block_hash, state_root)
        current.again_for_all = current.own is not None and len(current.attested) > current.blocks_said
        current.blocks_said = len(current.attested)
        values = sorted({value for heard in current.values.values() for value in heard})
        mine = current.contribution
        if len(values) > MAX_CONTRIBUTIONS and mine is not None:
            values = sorted({mine, *values[: MAX_CONTRIBUTIONS - 1]})
        current.attesting = True
        self._out.append(Attest(RoundClaim(current.height, block_hash, root, tuple(values))))
