"""Lanes: socketpairs from worker to worker, one for each pair of replicas that a direct link joins.

May not: read or write them. The host makes them, hands each end to its worker at the fork, and keeps a copy of the
caller's end, by which it can end a lane at any moment. Rule: docs/architecture.md, "Direct links".
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final

from .links import Grant
from .worker.wire import LaneEnd
from .zygote_client import SpawnError

if TYPE_CHECKING:
    from .supervisor import ActorPlan, ActorSupervisor

SEND_BUFFER: Final = 208 << 10
"""Bytes asked of the kernel (which doubles it) for what is under way: over what a caller may send unanswered."""


class Lane:
    """One socketpair, from a replica of a caller to one of a callee. Raises `OSError` when there is none to be had."""

    def __init__(self, grant: Grant, caller: int, callee: int) -> None:
        self.grant = grant
        self.caller = caller
        """The replica that calls."""
        self.callee = callee
        """The replica that is called."""
        self.alive = True
        """Whether neither worker is gone and nobody cut it."""
        self.retiring = False
        """Whether nothing more can be sent to the callee."""
        self._kept, self._handed = socket.socketpair()
        for end in (self._kept, self._handed):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def leads_to(self, actor: str) -> bool:
        """Whether this is where an actor's calls come in, not where they go out."""
        return self.grant.target == actor

    def hand_over(self, actor: str) -> socket.socket:
        """The end of an actor's worker, once; whoever asks for it closes it after the fork. Raises `OSError`."""
        if not self.leads_to(actor):
            return self._kept.dup()
        # Of the callee's end no copy is kept: so the caller hears of its death from the kernel.
        end = self._handed.dup()
        self._handed.close()
        return end

    def describe(self, actor: str, descriptor: int) -> LaneEnd:
        """What an actor's worker is told of its end."""
        grant = self.grant
        if self.leads_to(actor):
            return LaneEnd(descriptor, grant.number, grant.source, self.caller, grant.operations)
        return LaneEnd(descriptor, grant.number, grant.target, self.callee)

    def retire(self) -> None:
        """The callee is to end: nothing more is sent to it, what was sent is still answered."""
        if self.alive:
            self.retiring = True
            with contextlib.suppress(OSError):
                self._kept.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End it now, both ways: what the callee has not begun it never does."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(OSError):
                self._kept.shutdown(socket.SHUT_RDWR)
            self._kept.close()
            self._handed.close()


def cut(lanes: Iterable[Lane]) -> None:
    """End all of these."""
    for lane in lanes:
        lane.cut()


def cut_revoked(caller: str, lanes: Iterable[Lane], links: Mapping[int, Grant]) -> None:
    """End those whose link, as the caller has it now, lost an operation: the host cannot refuse single calls there."""
    for lane in lanes:
        grant = links.get(lane.grant.number)
        if not lane.leads_to(caller) and (grant is None or grant.revoked):
            lane.cut()


def join(supervisors: Mapping[str, ActorSupervisor]) -> None:
    """Make the lanes between replicas that are about to start. Raises `SpawnError`."""
    for source in supervisors.values():
        for grant in source.plan.links.values():
            target = supervisors.get(grant.target) if grant.direct else None
            if target is None:
                continue
            for caller in source.numbers:
                for callee in target.numbers:
                    try:
                        lane = Lane(grant, caller, callee)
                    except OSError as error:
                        raise SpawnError(
                            f"no lane from {grant.source}#{caller} to {grant.target}#{callee} ({error.strerror}): give "
                            "the host more descriptors, or make fewer links `direct`"
                        ) from error
                    source.lanes.setdefault(caller, []).append(lane)
                    target.lanes.setdefault(callee, []).append(lane)


def keep_together(kept: MutableMapping[str, ActorSupervisor], plans: Mapping[str, ActorPlan]) -> None:
    """Take out of `kept` whoever has a direct link with somebody who starts anew: lanes are handed over at the fork."""
    pairs = [
        (name, grant.target) for name, plan in plans.items() for grant in plan.links.values() if grant.direct
    ]  # fmt: skip
    parted = True
    while parted:
        parted = False
        for pair in pairs:
            if (pair[0] in kept) != (pair[1] in kept):
                parted = True
                for name in pair:
                    kept.pop(name, None)
