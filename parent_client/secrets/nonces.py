"""Nonces that are fresh and work once, without keeping those that were given: each proves itself by a MAC.

May not: grow without bound, or read a clock. Rule: docs/secrets.md, "The protocol".
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from typing import Final

from tea.trust.release import ReleaseCode, ReleaseError

SECONDS: Final = 60
MAX_SPENT: Final = 65_536
"""Nonces that were used and have not ended yet; beyond that none is taken."""
_RANDOM: Final = 16
_TIME: Final = 8
_MAC: Final = 16


class Nonces:
    """Gives nonces of 40 bytes and takes each back once, within 60 seconds. Those of another process are unknown."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._spent: OrderedDict[bytes, int] = OrderedDict()

    def give(self, now_ms: int) -> bytes:
        """A fresh one."""
        body = secrets.token_bytes(_RANDOM) + (now_ms + SECONDS * 1000).to_bytes(_TIME, "big")
        return body + self._mac(body)

    def spend(self, nonce: bytes, now_ms: int) -> None:
        """Raise `ReleaseError(NONCE)` unless it was given here, has not ended, and was not spent."""
        body, mac = nonce[:-_MAC], nonce[-_MAC:]
        if len(body) != _RANDOM + _TIME or not hmac.compare_digest(mac, self._mac(body)):
            raise _refuse("the nonce is not one that this service gave: ask for a challenge first")
        ends = int.from_bytes(body[_RANDOM:], "big")
        if now_ms > ends:
            raise _refuse(f"the nonce ended {(now_ms - ends) // 1000 + 1} s ago, expected one of the last {SECONDS} s")
        while self._spent and next(iter(self._spent.values())) < now_ms:
            self._spent.popitem(last=False)
        if nonce in self._spent:
            raise _refuse("the nonce was used already: each is for one request")
        if len(self._spent) >= MAX_SPENT:
            raise ReleaseError(ReleaseCode.TOO_MANY, "too many requests in a minute: ask again later")
        self._spent[nonce] = ends

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC]


def _refuse(sentence: str) -> ReleaseError:
    return ReleaseError(ReleaseCode.NONCE, sentence)
