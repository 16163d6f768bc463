"""Poison messages: what ended an actor's worker again and again is set aside, so that other calls get through.

May not: keep a message's bytes; its digest is the evidence, and its caller can find it. Bounded.
Rule: docs/architecture.md, "Supervision".
"""

from __future__ import annotations

import collections
import hashlib
from typing import Final

CRASHES: Final = 3
"""How often a message may have been in hand when the worker ended, unanswered in between, before it is set aside."""
REMEMBERED: Final = 256
"""Messages under suspicion, and messages set aside, that are remembered for an actor; the oldest go first."""


def fingerprint(operation: str, body: bytes) -> bytes:
    """What a message is known by: SHA-256 over its operation and its arguments."""
    return hashlib.sha256(operation.encode() + b"\0" + body).digest()


class PoisonBook:
    """The suspects of one actor, over all its replicas and restarts."""

    def __init__(self) -> None:
        self.suspects: collections.OrderedDict[bytes, int] = collections.OrderedDict()
        """Crashes by fingerprint. While there are any, `answered` is to be told."""
        self._shapes: set[tuple[str, int]] = set()
        """Operation and size of the suspects: what else is answered costs no digest."""
        self.set_aside: collections.OrderedDict[bytes, int] = collections.OrderedDict()
        """Likewise. While there are any, `refuses` is to be asked."""

    def __len__(self) -> int:
        """How many messages are set aside."""
        return len(self.set_aside)

    def ended_with(self, operation: str, body: bytes) -> bytes | None:
        """A worker ended with this message in hand: its fingerprint when that sets it aside, else None."""
        key = fingerprint(operation, body)
        crashes = self.suspects.pop(key, 0) + 1
        if crashes < CRASHES:
            self.suspects[key] = crashes
            self._shapes.add((operation, len(body)))
            _trim(self.suspects)
            return None
        self.set_aside[key] = crashes
        _trim(self.set_aside)
        return key

    def answered(self, operation: str, body: bytes) -> None:
        """It was answered: what ended the worker before was something else, so it starts anew."""
        if (operation, len(body)) in self._shapes:
            self.suspects.pop(fingerprint(operation, body), None)
            if not self.suspects:
                self._shapes.clear()

    def refuses(self, operation: str, body: bytes) -> bool:
        """Whether this message is set aside. Costs nothing while none is."""
        return bool(self.set_aside) and fingerprint(operation, body) in self.set_aside


def _trim(book: collections.OrderedDict[bytes, int]) -> None:
    while len(book) > REMEMBERED:
        book.popitem(last=False)
