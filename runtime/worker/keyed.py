"""A caller for workers that have sticky links: puts the key of a call in front of its arguments, where a link asks.

May not: be in the way of a worker that has no such link. Rule: docs/architecture.md, "Sticky keys".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tea.protocol.operations import OperationDescription, Parameter
from tea.protocol.sticky import NO_KEY, key_of, place_of
from tea.sdk.binding import LinkDescription

if TYPE_CHECKING:
    from .loop import WorkerLoop


class Keyed:
    """What a worker's links call through when one of them is sticky (`sdk.binding.Caller`)."""

    def __init__(self, loop: WorkerLoop, links: tuple[LinkDescription, ...]) -> None:
        self._loop = loop
        self._sticky = {link.number: link.sticky for link in links if link.sticky}
        self._places: dict[tuple[int, int], tuple[int, tuple[Parameter, ...]]] = {}
        for link in links:
            self.learn(link.number, link.operations)
        self.log = loop.log
        self.together = loop.together

    def learn(self, link: int, operations: Sequence[OperationDescription]) -> None:
        """What the operations of a link take, as its target declares them now."""
        parameter = self._sticky.get(link)
        if parameter is None:
            return
        for number, operation in enumerate(operations):
            place = place_of(operation, parameter)
            if place is not None:
                self._places[link, number] = place, operation.parameters
            else:
                self._places.pop((link, number), None)

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """See `WorkerLoop.call`."""
        return self._loop.call(link, operation, self._with_key(link, operation, body), timeout)

    def begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> Callable[[], bytes]:
        """See `WorkerLoop.begin`."""
        return self._loop.begin(link, operation, self._with_key(link, operation, body), timeout)

    def tell(self, link: int, operation: int, body: bytes) -> None:
        """See `WorkerLoop.tell`."""
        self._loop.tell(link, operation, self._with_key(link, operation, body))

    def _with_key(self, link: int, operation: int, body: bytes) -> bytes:
        if link not in self._sticky:
            return body
        found = self._places.get((link, operation))
        return (NO_KEY if found is None else key_of(body, *found)) + body


def caller_of(loop: WorkerLoop, links: tuple[LinkDescription, ...]) -> WorkerLoop | Keyed:
    """What the links of a worker call through: the loop itself where none is sticky."""
    return Keyed(loop, links) if any(link.sticky for link in links) else loop
