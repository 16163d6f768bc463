"""The links of an actor under test: what `sdk.binding.Caller` is over a socket in a worker, in memory.

May not: grant an operation that the test did not list. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from tea.protocol.errors import CallError, Code

from .. import binding
from .services import Call, bundle_digest
from .targets import ActorTarget, Target

Grants = Mapping[str, "bool | Iterable[str]"]
"""Link name -> the granted operations, or True for all that the target has."""

_LOG: Final = logging.getLogger("tea.actor")


class MemoryLinks:
    """Numbers links from 1 and carries calls to their targets."""

    def __init__(self, identity: binding.Identity, kvp_bytes: int) -> None:
        self._identity = identity
        self._kvp_bytes = kvp_bytes
        self._ends: list[tuple[Target, tuple[str, ...]]] = []
        self._names: list[str] = []
        self.behind: tuple[str, ...] = ()
        """Who stands behind what the actor does now: the harness sets it while an operation runs."""

    def add(self, name: str, target: Target, granted: bool | Iterable[str]) -> binding.LinkDescription:
        """A new link. Raises `ValueError` when the target lacks an operation that is granted."""
        described = target.describe()
        wanted = tuple(sorted(described)) if isinstance(granted, bool) else tuple(sorted({*_listed(granted)}))
        if unknown := [operation for operation in wanted if operation not in described]:
            raise ValueError(f"{name} has no operation {unknown[0]!r}; it has {', '.join(sorted(described))}")
        self._ends.append((target, wanted))
        self._names.append(name)
        return binding.LinkDescription(len(self._ends), name, name, tuple(described[one] for one in wanted))

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """`binding.Caller.call`."""
        target, granted = self._ends[link - 1]
        who = self._identity
        context = Call(who.name, who.replica, self.behind, bundle_digest(who.name), self._kvp_bytes, timeout)
        return target.call(granted[operation], body, context)

    def ask(self, call: Call, actor: str, operation: str, body: bytes) -> bytes:
        """Call another actor as a provider does for this one: over its own link, or DENIED."""
        for name, (target, granted) in zip(self._names, self._ends, strict=True):
            if name == actor and isinstance(target, ActorTarget) and operation in granted:
                return target.call(operation, body, call)
        raise CallError(
            Code.DENIED,
            f"no link from {call.caller} to {actor} grants {operation}: a request goes by the caller's own",
            link=actor,
        )

    def tell(self, link: int, operation: int, body: bytes) -> None:
        """`binding.Caller.tell`: done at once, and a refusal is only logged, as in a worker."""
        try:
            self.call(link, operation, body, None)
        except CallError as refusal:
            _LOG.warning("%s: a message was refused: %s", self._identity.name, refusal)


def _listed(granted: Iterable[str]) -> Iterable[str]:
    if isinstance(granted, str):
        raise TypeError(f"operations are a list of names, or True for all; got the one string {granted!r}")
    return granted
