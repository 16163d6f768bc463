"""The bounds of a member: what it keeps, how patient it is, and what each slot may cost it in a tick.

May not: be changed by a message. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds and patience. A tick is what the actor's timer makes it."""

    keep: int = 256
    """Heights kept, the newest."""
    ahead: int = 64
    """Heights beyond the own newest of which peers are heard."""
    patience: int = 4
    """Ticks after which a member attests without the contributions of silent slots."""
    asks_certified: int = 6
    """How often a certified round still asks its silent slots."""
    slowest_ask: int = 32
    """Ticks between two asks, at most; they double from 1."""
    answer: int = 8
    """Ticks to wait for an answer before another is asked."""
    opens: int = 16
    """Rounds opened a tick: a burst of old heights is worked off newest first."""
    attests: int = 16
    """Attestations a tick: an NSM that fails is not asked without end."""
    asks: int = 32
    """Rounds a tick in which the missing are asked again."""
    wants: int = 16
    """Certificates asked for a tick."""
    messages: int = 256
    """Messages a tick that are looked at from each slot."""
    verifications: int = 8
    """Documents a tick that are verified from each slot."""
    served: int = 64
    """Answers a tick (documents, certificates, nodes) to each slot."""


class Budget:
    """What is left of the tick's bounds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._used: Counter[tuple[str, str]] = Counter()

    def refill(self) -> None:
        """A new tick."""
        self._used.clear()

    def _take(self, what: str, slot: str, most: int) -> bool:
        self._used[what, slot] += 1
        return self._used[what, slot] <= most

    def hears(self, slot: str) -> bool:
        """One more message of a slot."""
        return self._take("message", slot, self._limits.messages)

    def verifies(self, slot: str) -> bool:
        """One more document of a slot."""
        return self._take("verification", slot, self._limits.verifications)

    def serves(self, slot: str) -> bool:
        """One more answer to a slot: small questions have large answers."""
        return self._take("answer", slot, self._limits.served)

    def opens(self) -> bool:
        """One more contribution of mine."""
        return self._take("open", "", self._limits.opens)

    def attests(self) -> bool:
        """One more attestation of mine."""
        return self._take("attest", "", self._limits.attests)

    def asks(self) -> bool:
        """One more round whose silent slots are asked."""
        return self._take("ask", "", self._limits.asks)

    def wants(self) -> bool:
        """One more certificate."""
        return self._take("want", "", self._limits.wants)
