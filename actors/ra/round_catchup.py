"""Learning from others' certificates what was certified without me: offered, asked for, verified document by document.

May not: take a certificate on anybody's word, or ask for one that nobody offered. Sans-IO.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from round_commands import Command, Send, Verify
from round_limits import Budget, Limits
from round_messages import Certified, Want
from round_state import Round, Says, read_claim

from tea.sdk.rounds import Certificate, TrustError, parse_certificate, quorum


class CatchUp:
    """Fetches certificates. A round's `offers` are the peers that say they hold its certificate."""

    def __init__(
        self, slots: Sequence[str], limits: Limits, budget: Budget, counters: Counter[str], out: deque[Command]
    ) -> None:
        self._slots = frozenset(slots)
        self._limits = limits
        self._budget = budget
        self._counters = counters
        self._out = out

    def offered(self, sender: str, current: Round) -> None:
        """A peer says that it holds the certificate."""
        if current.certificate is None and sender not in current.offers:
            current.offers.append(sender)

    def tick(self, current: Round, now: int) -> None:
        """Ask for the certificate; ask another peer when one did not answer in time."""
        if current.certificate is not None or not current.offers:
            return
        if current.wanted is not None:
            if now - current.wanted_at < self._limits.answer:
                return
            self._drop(current, current.wanted)
        if current.offers and self._budget.wants():
            # Different heights ask different peers.
            current.wanted = current.offers[current.height % len(current.offers)]
            current.wanted_at = now
            self._out.append(Send(current.wanted, Want(current.height)))

    def received(self, sender: str, current: Round, message: Certified) -> tuple[Certificate, Says] | None:
        """A peer's certificate; what it says when all of it is verified already, else `check` is called again."""
        if current.wanted != sender or current.certificate is not None:
            self._counters["late"] += 1
            return None
        # Whatever comes of it, this offer is used up; asking again brings new ones.
        self._drop(current, sender)
        try:
            certificate = parse_certificate(message.certificate)
        except TrustError:
            self._counters["malformed"] += 1
            return None
        slots = {attestation.slot for attestation in certificate.attestations}
        if (
            certificate.height != current.height
            or len(slots) != len(certificate.attestations)
            or not slots <= self._slots
            or len(slots) < quorum(len(self._slots))
        ):
            self._counters["refused"] += 1
            return None
        return self.check(current, certificate)

    def check(self, current: Round, certificate: Certificate) -> tuple[Certificate, Says] | None:
        """Have the next unverified document verified; after the last, the certificate and what it says."""
        if current.certificate is not None:
            return None
        says: set[Says] = set()
        enclaves: set[str] = set()
        for attestation in certificate.attestations:
            heard = current.documents.get(attestation.slot, ())
            known = next((one for one in heard if one.attestation == attestation), None)
            if known is None:
                read = read_claim(attestation, current.height)
                if read is None:
                    self._counters["malformed"] += 1
                else:
                    self._out.append(Verify(attestation, read[0], certificate))
                return None
            says.add(known.says)
            enclaves.add(known.module_id)
        agreed = says.pop()
        stated = (certificate.block_hash, certificate.state_root)
        if says or len(enclaves) != len(certificate.attestations) or agreed[1:] != stated:
            self._counters["refused"] += 1
            return None
        return certificate, agreed

    @staticmethod
    def _drop(current: Round, sender: str) -> None:
        current.offers = [slot for slot in current.offers if slot != sender]
        current.wanted = None
