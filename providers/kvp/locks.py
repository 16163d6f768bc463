"""Locks with expiry: one holder at a time, known by an unguessable token. One step each, so there is no race.

May not: wait for a lock, or change anything when it refuses. Locks have names of their own: no key operation touches
them. Who holds a lock past its expiry has lost it: check that `unlock` says True before relying on what was guarded.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from . import limits
from .entries import Lock
from .store import Namespace

_TOKEN: Final = 16


def lock(space: Namespace, name: str, ttl: float, token: bytes | None) -> bytes | None:
    """Take a lock, or renew it with its token; answers the token, or None when another holds it."""
    size = limits.key_size(name)
    limits.require_ttl(ttl)
    now = space.begin()
    held = space.locks.get(name)
    if held is not None and held.expires > now:
        if token is None or not hmac.compare_digest(token, held.token):
            return None
        # Renewed in place: the bytes are paid for.
        renewed = Lock(held.token, now + ttl, held.cost)
        space.release(name, held)
        space.bytes += renewed.cost
        space.hold(name, renewed)
        return renewed.token
    if token is not None:
        return None  # it expired: somebody else may have had it since, so a renewal must not pass for one
    if held is not None:
        space.release(name, held)
    cost = limits.LOCK_COST + size
    space.grow(cost, now)
    # From the kernel's generator: in an enclave the NSM seeds it, and a lock must not cost an NSM request.
    taken = Lock(secrets.token_bytes(_TOKEN), now + ttl, cost)
    space.hold(name, taken)
    return taken.token


def unlock(space: Namespace, name: str, token: bytes) -> bool:
    """Give a lock back; False when this token does not hold it (any more)."""
    limits.key_size(name)
    now = space.begin()
    held = space.locks.get(name)
    if held is None or held.expires <= now or not hmac.compare_digest(token, held.token):
        return False
    space.release(name, held)
    return True
