"""Cancellation: calls whose deadline has passed, and calls whose caller is gone, with all that was called for them.

May not: interrupt an actor. What is not begun is skipped, a provider's task is cancelled; who is in the middle of a
call learns it when it calls on. Every call is answered once. Rule: docs/architecture.md, "Cancellation".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Kind

from .in_flight import Origin, Pending, nobody_waits

if TYPE_CHECKING:
    from .router import Router
    from .worker_port import WorkerPort

SWEEP_SECONDS: Final = 0.02
"""How late a passed deadline may be noticed."""


class Cancellation:
    """Ends what nobody waits for. One of each router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.timed: set[WorkerPort] = set()
        """Ports that have calls with a deadline in hand."""
        self.sweeping = False

    def caller_gone(self, origin: Origin) -> None:
        """A worker ended, or a caller in the host gave up: none of its calls has anybody who waits."""
        for correlation in list(origin.outgoing):
            self._cancel(origin, correlation)

    def _cancel(self, origin: Origin, correlation: int) -> None:
        one = origin.outgoing.get(correlation)
        if one is None:  # it was ended with another
            return
        one.withdraw()
        self._router.figures.cancelled += 1
        self._router.finish(origin, correlation, Kind.ERROR, nobody_waits().encode())
        if isinstance(one, Pending):
            one.target.group.figures.cancelled += 1
            self.called_for(one)

    def called_for(self, ended: Pending) -> None:
        """End what the callee of an ended call has called on its behalf, and so on down the chain."""
        callee = ended.target
        for correlation, one in list(callee.outgoing.items()):
            if one.cause == ended.number:
                self._cancel(callee, correlation)

    def sweep_later(self) -> None:
        """Look at the deadlines soon."""
        if not self.sweeping:
            self.sweeping = True
            self._router.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Answer for callees that let a deadline pass. Looks at what is in flight, which mailboxes bound."""
        self.sweeping = False
        now = self._router.loop.time()
        for port in list(self.timed):
            waiting = False
            for pending in list(port.delivered.values()):
                if pending.deadline_at is None or pending.origin is None:
                    continue
                if pending.deadline_at > now:
                    waiting = True
                else:
                    self._overdue(port, pending, pending.origin)
            if not waiting:
                self.timed.discard(port)
        if self._router.parking.expire(now) or self.timed:
            self.sweep_later()

    def _overdue(self, port: WorkerPort, pending: Pending, origin: Origin) -> None:
        pending.withdraw()
        port.refused("more time than a call's deadline")
        error = CallError(Code.DEADLINE, f"{port.name} did not answer in time")
        self._router.finish(origin, pending.correlation, Kind.ERROR, error.encode())
        self.called_for(pending)
