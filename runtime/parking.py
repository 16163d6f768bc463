"""Parking: calls and messages that wait for a place in a full mailbox, in a line for each caller, served in turn.

May not: grow by what a caller does: a worker has parked what its windows let it have under way and no more, a caller
inside the host `HOST_LINE`. Whoever is over that is refused. Rule: docs/architecture.md, "Back-pressure".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Kind
from tea.protocol.sticky import KEY_BYTES, NO_KEY

from .in_flight import HostOrigin, Origin
from .replicas import Line, ReplicaGroup
from .rights import require_parent_link
from .worker.window import WINDOW_BYTES, cost_of, is_over

if TYPE_CHECKING:
    from .router import Router
    from .worker_port import WorkerPort

HOST_LINE: Final = 256
"""Calls and messages of one caller inside the host (the parent, a provider) that may wait for one actor."""


@dataclass(slots=True, eq=False)
class Parked:
    """One call or message that waits for a place in a mailbox."""

    parking: Parking = field(repr=False)
    group: ReplicaGroup = field(repr=False)
    kind: Kind
    origin: Origin | None
    correlation: int
    operation: str
    body: bytes
    caller: str
    chain: tuple[str, ...]
    cause: int
    deadline_at: float | None
    replica: int | None
    key: bytes
    sender: WorkerPort | None
    """The worker whose windows it counts against; None: the host."""
    link: int

    def withdraw(self) -> None:
        """See `UnderWay`."""
        self.parking.take_out(self)
        self.origin = None


class Parking:
    """All lines of a router. Nothing here runs while every mailbox has room."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.crowded: set[ReplicaGroup] = set()
        """Actors with a line."""

    def park(self, group: ReplicaGroup, one: Parked, mailbox: int) -> None:
        """Put it at the end of its caller's line. Raises `CallError(EXHAUSTED)` when that is over its window."""
        line = group.lines.get(one.caller)
        sender = one.sender
        if sender is not None:
            cost = cost_of(one.body, sender.unit)
            parked = sender.parked.get(one.link if one.kind is Kind.TELL else 0, 0)
            if is_over(parked, cost, sender.in_flight_limit):
                raise CallError(
                    Code.EXHAUSTED,
                    f"the mailbox of {group.name} is full, and {one.caller} has {parked} units waiting for a place: "
                    f"its window has {sender.in_flight_limit}",
                )
        elif line is not None and (
            len(line.waiting) >= min(mailbox, HOST_LINE) or line.size + len(one.body) > WINDOW_BYTES
        ):
            raise CallError(
                Code.EXHAUSTED,
                f"the mailbox of {group.name} is full, and {len(line.waiting)} of {one.caller} wait for a place",
            )
        if line is None:
            line = group.lines[one.caller] = Line()
        line.waiting.append(one)
        self.crowded.add(group)
        self._count(one, line, 1)
        for figures in (self._router.figures, group.figures):
            figures.waited += 1

    def serve(self, group: ReplicaGroup) -> None:
        """Give what waits the places that there are, one of each caller in turn."""
        lines = group.lines
        while lines:
            for line in lines.values():
                one = line.waiting[0]
                port = group.pick_by(one.key) if one.key != NO_KEY else group.pick(one.replica)
                if port is not None and has_room(port):
                    break
            else:
                return
            self._shorten(one, line)
            if one.caller in lines:
                lines[one.caller] = lines.pop(one.caller)  # to the end: the others come first
            self._deliver(port, one)
            self._settle(one)

    def take_out(self, one: Parked) -> None:
        """Out of its line: nobody waits for it."""
        line = one.group.lines.get(one.caller)
        if line is not None and one in line.waiting:
            self._shorten(one, line)
            self._settle(one)

    def sender_gone(self, port: WorkerPort) -> None:
        """A worker ended and its next life begins: its messages that wait are lost, or each life would leave some."""
        for group in list(self.crowded):
            line = group.lines.get(port.name)
            lost = [one for one in line.waiting if one.sender is port] if line is not None else []
            if line is None or not lost:
                continue
            line.waiting = deque(one for one in line.waiting if one.sender is not port)
            for one in lost:
                self._count(one, line, -1)
                self._router.dead_letter(group.name)
            self._end_if_empty(group, port.name, line)

    def leave(self, group: ReplicaGroup, why: str) -> None:
        """None of these replicas will take it: it goes to the actor's newer replicas, or is refused."""
        for one in list(self._all(group)):
            self._shorten(one, group.lines[one.caller])
            self._route_again(one, group, why)

    def expire(self, now: float) -> bool:
        """Answer calls whose time is over; whether any other has a deadline."""
        waiting = False
        for group in list(self.crowded):
            for one in list(self._all(group)):
                if one.deadline_at is None:
                    continue
                if one.deadline_at > now:
                    waiting = True
                    continue
                self.take_out(one)
                self._refuse(one, _too_late(group))
        return waiting

    def _deliver(self, port: WorkerPort, one: Parked) -> None:
        router = self._router
        deadline = 0
        try:
            if one.deadline_at is not None:
                deadline = int((one.deadline_at - router.loop.time()) * 1000)
                if deadline <= 0:
                    raise _too_late(one.group)
            number = port.number_of(one.operation, one.body)
        except CallError as error:
            self._refuse(one, error)
            return
        router.give(
            port, number, one.kind, one.origin, one.correlation, one.operation, one.body, one.caller, one.chain,
            deadline, one.cause,
        )  # fmt: skip

    def _route_again(self, one: Parked, left: ReplicaGroup, why: str) -> None:
        router = self._router
        settled = True
        try:
            if router.groups.get(left.name) is left:
                raise CallError(Code.UNAVAILABLE, f"no replica of {left.name} is running now ({why})", actor=left.name)
            self._require_right(one)
            deadline = 0
            if one.deadline_at is not None:
                deadline = max(1, int((one.deadline_at - router.loop.time()) * 1000))
            settled = router.deliver(
                one.kind, one.origin, one.correlation, left.name, one.operation, one.body, one.caller, one.chain,
                deadline, one.cause, None, one.key, one.sender, one.link,
            )  # fmt: skip
        except CallError as error:
            self._refuse(one, error)
        if settled:
            self._settle(one)

    def _require_right(self, one: Parked) -> None:
        """Raise `CallError(DENIED)` unless who sent it might send it now: a revision came since."""
        router, sender = self._router, one.sender
        if sender is not None:
            grant = sender.links.get(one.link)
            if sender.lost.done() or grant is None or grant.operations.index(one.operation) in grant.revoked:
                raise CallError(
                    Code.DENIED, f"the running manifest does not grant {one.caller} {one.group.name}.{one.operation}"
                )
        elif isinstance(one.origin, HostOrigin) and one.origin.require is not None:
            one.origin.require()
        elif one.caller == "parent":
            require_parent_link(router.parent_grants, router.groups, one.group.name, one.operation)

    def _refuse(self, one: Parked, error: CallError) -> None:
        if one.kind is Kind.TELL:
            self._router.dead_letter(one.group.name)
        elif one.origin is not None:
            self._router.finish(one.origin, one.correlation, Kind.ERROR, error.encode())

    @staticmethod
    def _all(group: ReplicaGroup) -> Iterator[Parked]:
        for line in group.lines.values():
            yield from line.waiting

    def _shorten(self, one: Parked, line: Line) -> None:
        line.waiting.remove(one)  # the first, but for one that is taken out
        self._count(one, line, -1)
        self._end_if_empty(one.group, one.caller, line)

    def _end_if_empty(self, group: ReplicaGroup, caller: str, line: Line) -> None:
        if not line.waiting:
            del group.lines[caller]
            if not group.lines:
                self.crowded.discard(group)

    def _count(self, one: Parked, line: Line, change: int) -> None:
        line.size += change * len(one.body)
        self._router.figures.parked += change
        one.group.figures.parked += change
        sender = one.sender
        if sender is not None:
            window = one.link if one.kind is Kind.TELL else 0
            sender.parked[window] = sender.parked.get(window, 0) + change * cost_of(one.body, sender.unit)

    @staticmethod
    def _settle(one: Parked) -> None:
        if one.sender is not None and one.kind is Kind.TELL:
            # By the size that its sender counted: on a sticky link a key stood in front.
            grant = one.sender.links.get(one.link)
            size = len(one.body) + (KEY_BYTES if grant is not None and grant.sticky else 0)
            one.sender.settle(one.link, size)


def _too_late(group: ReplicaGroup) -> CallError:
    return CallError(Code.DEADLINE, f"there was no place in the mailbox of {group.name} in time")


def has_room(port: WorkerPort) -> bool:
    """Whether a replica's mailbox takes one more."""
    delivered = port.delivered
    return not (len(delivered) >= port.mailbox or (delivered and port.unsent > port.unsent_limit))
