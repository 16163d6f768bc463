"""Links as the router holds them: who may call what, by number. What has no link cannot be named.

May not: do I/O. Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tea.protocol.operations import Operation, OperationDescription
from tea.providers.base import Provider
from tea.sdk.binding import LinkDescription


@dataclass(frozen=True, slots=True)
class Grant:
    """One granted path from a source to a target: the operations by their number on this link."""

    number: int
    name: str
    source: str
    target: str
    operations: tuple[str, ...]
    provider: Provider | None = field(default=None, repr=False)  # type: ignore[type-arg]
    typed: tuple[Operation, ...] = field(default=(), repr=False)
    """The provider's operations, in the link's order; empty for an actor, whose worker checks its own."""
    methods: tuple[Callable[..., object], ...] = field(default=(), repr=False)
    """The provider's methods, in the link's order."""
    behind: frozenset[str] = frozenset()
    """All who must stand behind a call (the caller's own caller or further)."""
    revoked: frozenset[int] = frozenset()
    """Places in `operations` that a newer revision took away from a worker that drains."""
    sticky: str = ""
    """The parameter by whose value calls go to the same replica; empty: to the least loaded."""
    direct: bool = False
    """Whether its calls may go from worker to worker, by lanes (`lanes.py`). They may always go by the router too."""

    def describe(self, declared: Mapping[str, Mapping[str, OperationDescription]]) -> LinkDescription:
        """What the worker is told of it.

        `declared` has each started actor's operations. Of a target that is not started yet (actors that call each other
        in a circle) the caller knows names only, and its arguments are positional, until the circle is up: then it is
        told the rest, as it is when a later revision starts another target (`WorkerPort.describe`).
        """
        if self.provider is not None:
            descriptions = tuple(operation.description for operation in self.typed)
        else:
            known = declared.get(self.target, {})
            descriptions = tuple(
                known.get(name) or OperationDescription(name, (), "object", "") for name in self.operations
            )
        return LinkDescription(self.number, self.name, self.target, descriptions, self.sticky)


def number_links(grants: list[Grant]) -> dict[int, Grant]:
    """The grants of one actor by their numbers. Raises `ValueError` on a number given twice: a defect of the loader."""
    numbered: dict[int, Grant] = {}
    for grant in grants:
        if grant.number in numbered:
            raise ValueError(f"link {grant.number} is given twice")
        numbered[grant.number] = grant
    return numbered


_numbers = itertools.count(1)


def fresh_number() -> int:
    """A link number that this host never used before: a revoked link's number is never another's."""
    return next(_numbers)
