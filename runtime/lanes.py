"""Lanes: socketpairs from worker to worker, for each pair of replicas that a direct link joins.

May not: read or write them. The host makes them, hands each end to its worker at the fork, and keeps a copy of the
caller's end, by which it can end a lane at any moment. Nothing is handed over later, so what a worker needs when a peer
of it is started anew it has from its birth: spares, whose other ends the host keeps for that peer.
Rule: docs/architecture.md, "Direct links".

    spare -> live -> cut      live: both workers were told to use it; a lane is live once
    spare -> cut              its link was revoked, or nobody has an end of it any more
"""

from __future__ import annotations

import collections
import contextlib
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final

from tea.trust.manifest_links import MAX_LANES as MOST_OF_THE_HOST

from .links import Grant
from .worker.wire import MAX_LANES, LaneEnd
from .zygote_client import SpawnError

if TYPE_CHECKING:
    from .supervisor import ActorPlan, ActorSupervisor
    from .worker_port import WorkerPort

SPARES: Final = 2
"""Lanes that each end has beside the one in use: so often a peer may come back before the link goes by the host."""
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
        self.live = False
        """Whether calls go by it, or did."""
        self.held: dict[str, int] = {}
        """The actors whose running worker has an end, and the descriptor that this is there."""
        self.retiring = False
        """Whether nothing more can be sent to the callee."""
        self._kept, self._handed = socket.socketpair()
        for end in (self._kept, self._handed):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def leads_to(self, actor: str) -> bool:
        """Whether this is where an actor's calls come in, not where they go out."""
        return self.grant.target == actor

    def hand_over(self, actor: str, descriptor: int) -> socket.socket:
        """The end of an actor's worker; whoever asks for it closes it after the fork. Raises `OSError`."""
        end = (self._handed if self.leads_to(actor) else self._kept).dup()
        self.held[actor] = descriptor
        return end

    def describe(self, actor: str, links: Mapping[int, Grant]) -> LaneEnd:
        """What an actor's worker, which has these links, is told of the end that it was handed."""
        grant, descriptor = self.grant, self.held[actor]
        if self.leads_to(actor):
            return LaneEnd(descriptor, grant.number, grant.source, self.caller, grant.operations)
        # A later revision that kept both actors has numbered the same link anew.
        (number,) = (own.number for own in links.values() if own.name == grant.name)
        return LaneEnd(descriptor, number, grant.target, self.callee)

    def go_live(self) -> None:
        """Both workers are told to use it."""
        self.live = True
        # Of the callee's end no copy is kept from now on: so the caller hears of its death from the kernel.
        self._handed.close()

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


class Way:
    """The lanes from one replica to another, whoever of them is started anew: one that is live, and spares.

    Raises `OSError` when there is none to be had.
    """

    def __init__(self, grant: Grant, caller: int, callee: int, most: int) -> None:
        """`most` are the lanes that either end has at once."""
        self._grant, self._caller, self._callee, self._most = grant, caller, callee, most
        self._lanes = [Lane(grant, caller, callee)]
        self._open: dict[str, WorkerPort] = {}
        self._closed = False

    def stock(self) -> list[Lane]:
        """The lanes of which a worker is handed an end at its birth. Raises `OSError`.

        Those that its peer has are for calls with that peer. New ones fill up, for when the peer is started anew.
        """
        self._lanes = [lane for lane in self._lanes if lane.alive]
        while not self._closed and len(self._lanes) < self._most:
            self._lanes.append(Lane(self._grant, self._caller, self._callee))
        return list(self._lanes)

    def opened(self, port: WorkerPort) -> None:
        """A worker may use its lanes: the first that its peer has too goes live, when the peer may use its as well."""
        self._open[port.name] = port
        ends = self._open.values()
        if self._closed or len(ends) < 2 or not all(end.open for end in ends):
            return
        shared = [lane for lane in self._lanes if lane.alive and len(lane.held) == len(ends)]
        if not shared:
            port.note(
                "info", f"no lane is left between {self}: calls go by the host until the other is started anew too"
            )
        elif not shared[0].live:
            shared[0].go_live()
            for end in ends:
                end.use(shared[0].held[end.name])

    def lost(self, actor: str) -> None:
        """A worker is gone, or did not come up: what was live ends; spares that its peer has wait for its successor."""
        self._open.pop(actor, None)
        for lane in self._lanes:
            lane.held.pop(actor, None)
            if lane.live or not lane.held:
                lane.cut()
        self._lanes = [lane for lane in self._lanes if lane.alive]

    def close(self) -> None:
        """Nobody is started anew any more: the spares end now, and what is live with its workers."""
        self._closed = True
        for lane in self._lanes:
            if not lane.live:
                lane.cut()

    def __str__(self) -> str:
        return f"{self._grant.source}#{self._caller} and {self._grant.target}#{self._callee}"


def cut_revoked(caller: str, lanes: Iterable[Lane], links: Mapping[int, Grant]) -> None:
    """End those whose link, as the caller has it now, lost an operation: the host cannot refuse single calls there."""
    by_name = {grant.name: grant for grant in links.values()}
    for lane in lanes:
        grant = by_name.get(lane.grant.name)
        if not lane.leads_to(caller) and (grant is None or grant.revoked):
            lane.cut()


def join(supervisors: Mapping[str, ActorSupervisor]) -> None:
    """Make the ways between replicas that are about to start. Raises `SpawnError`."""
    joined = [
        (source, grant, supervisors[grant.target], caller, callee)
        for source in supervisors.values()
        for grant in source.plan.links.values()
        if grant.direct and grant.target in supervisors
        for caller in source.numbers
        for callee in supervisors[grant.target].numbers
    ]
    ends = collections.Counter[tuple[str, int]]()
    for _source, grant, _target, caller, callee in joined:
        ends.update(((grant.source, caller), (grant.target, callee)))
    for source, grant, target, caller, callee in joined:
        busiest = max(ends[grant.source, caller], ends[grant.target, callee])
        try:
            way = Way(grant, caller, callee, 1 + spares(busiest, len(joined)))
        except OSError as error:
            raise SpawnError(
                f"no lane from {grant.source}#{caller} to {grant.target}#{callee} ({error.strerror}): give "
                "the host more descriptors, or make fewer links `direct`"
            ) from error
        source.ways.setdefault(caller, []).append(way)
        target.ways.setdefault(callee, []).append(way)


def spares(of_replica: int, of_host: int) -> int:
    """How many spares a way has, where so many ways end at one replica, and there are so many in all.

    Spares take what the bounds on descriptors leave: one of a worker for each lane, two of the host.
    """
    return max(0, min(SPARES, MAX_LANES // of_replica - 1, MOST_OF_THE_HOST // (2 * of_host) - 1))


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
