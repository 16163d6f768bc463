"""The supervisor: keeps each actor's replicas running; restarts with back-off up to an intensity limit.

May not: know what an actor does. A crash answers the calls that the replica had in hand (the router does), then the
replica is started anew, until it crashed more than `intensity` times in `period`: then the actor stays down and
status says why. Rule: docs/architecture.md, "Supervision".
"""

from __future__ import annotations

import asyncio
import collections
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tea.protocol.errors import CallError
from tea.protocol.frame import Frame, FrameError, Kind
from tea.protocol.operations import OperationDescription
from tea.protocol.sticky import place_of
from tea.trust.manifest import Link

from .lanes import Lane, Way, cut_revoked
from .links import Grant
from .replicas import ReplicaGroup
from .revocation import narrowed
from .router import Router
from .worker.seccomp_policy import Profile
from .worker.wire import Welcome
from .worker_port import Note, WorkerPort
from .zygote_client import Process, SpawnError, Zygote

READY_SECONDS: Final = 30.0
"""How long a worker may take to load its bundle and run `on_start`."""
CLOSED_SECONDS: Final = 0.1
"""How long a worker whose socket is closed may take to be gone by itself."""
HEALTH: Final = "health"
"""The operation, without arguments, that an actor may declare: what it raises refuses an upgrade."""
EXIT_SECONDS: Final = 2.0
"""How long a worker may take to end after BYE."""


class StartFailed(Exception):
    """A replica did not come up; the sentence names the actor and why."""


@dataclass(frozen=True)
class ActorPlan:
    """All that starting one actor's replicas takes; made by the loader from verified things only."""

    name: str
    version: str
    replicas: int
    bundle: bytes = field(repr=False)
    bundle_digest: bytes
    links: dict[int, Grant]
    memory_bytes: int
    cpu_seconds: int
    in_flight: int
    mailbox: int
    kvp_bytes: int
    intensity: int
    period: float
    backoff: float
    backoff_max: float
    strategy: str
    """one-for-one, rest-for-one or escalate."""
    welcome: Callable[[int], Welcome]
    """Replica number -> what that replica is told."""
    profile: Profile = Profile.PYTHON
    """What kind of code its workers run."""
    fuel: int = 0
    """Instructions that one call may take where these are counted (wasm); 0: as many as it takes by default."""
    sticky: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Links to it that are sticky: from whom, by which parameter, of which operations."""
    declared: Mapping[str, Mapping[str, OperationDescription]] = field(default_factory=dict, repr=False)
    """What the actors of its revision declare, by name; those that have not started yet are not in it."""

    def serves_as(self, other: ActorPlan) -> bool:
        """Whether workers that were started by this plan can serve `other` without being replaced."""

        def shape(plan: ActorPlan) -> tuple[object, ...]:
            links = sorted(
                (g.name, g.target, g.operations, sorted(g.behind), g.sticky, g.direct) for g in plan.links.values()
            )
            limits = (plan.memory_bytes, plan.cpu_seconds, plan.in_flight, plan.mailbox, plan.kvp_bytes, plan.fuel)
            return (plan.bundle_digest, plan.replicas, links, limits, plan.welcome(0).identity.environment)

        return shape(self) == shape(other)


@dataclass
class Replica:
    """One running replica."""

    port: WorkerPort
    process: Process


class ActorSupervisor:
    """Runs one actor's replicas under one plan."""

    def __init__(
        self,
        plan: ActorPlan,
        router: Router,
        zygote: Zygote,
        note: Note,
        replica_gone: Callable[[str, int], Awaitable[None]],
        first_number: int = 0,
    ) -> None:
        self.plan = plan
        self.group = ReplicaGroup(plan.name, router.figures_of(plan.name))
        self.restarts = 0
        self.last_error: str | None = None
        self.failed = False
        """Whether it ended too often and stays down."""
        self.on_restart: Callable[[ActorSupervisor], None] | None = None
        """Told of each restart: the host restarts who depends on it, where the manifest says so."""
        self.on_given_up: Callable[[ActorSupervisor], None] | None = None
        """Told when it stays down."""
        self.on_serves: Callable[[str, int], None] | None = None
        """Told of each replica that takes calls from now on."""
        self._router = router
        self._zygote = zygote
        self._note = note
        self._replica_gone = replica_gone
        self._replicas: dict[int, Replica] = {}
        self._crashes: collections.deque[float] = collections.deque()
        self._stopping = False
        self._stop_asked: asyncio.Future[None] = router.loop.create_future()
        """Ends the delay before a restart."""
        self._starting: set[WorkerPort] = set()
        self.ways: dict[int, list[Way]] = {}
        """By replica: its direct ways to and from replicas of others."""
        self._replacing: set[int] = set()
        # Replicas of a later revision have other numbers: what is kept for an old one is not the new one's.
        self._numbers = range(first_number, first_number + plan.replicas)
        self._keepers: set[asyncio.Task[None]] = set()
        self._declared: dict[str, OperationDescription] = {}

    @property
    def running(self) -> int:
        """Replicas that are open for calls."""
        return sum(port.open for port in self.group.ports)

    @property
    def numbers(self) -> range:
        """The numbers of its replicas, those that are down included."""
        return self._numbers

    def port(self, replica: int) -> WorkerPort | None:
        """The port of a replica, one that is still starting included; None when it does not run."""
        if replica in self._replicas:
            return self._replicas[replica].port
        return next((port for port in self._starting if port.replica == replica), None)

    @property
    def next_number(self) -> int:
        """The first replica number that a later revision may use."""
        return self._numbers.stop

    @property
    def pids(self) -> list[int]:
        return [replica.process.pid for replica in self._replicas.values()]

    async def start(self) -> None:
        """Start all replicas. Raises `StartFailed` when one does not come up; the others are ended then."""
        results = await asyncio.gather(*(self._start_one(n) for n in self._numbers), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            await self.stop(drain=0)
            raise failures[0]
        try:
            self._require_sticky()
        except StartFailed:
            await self.stop(drain=0)
            raise

    def _require_sticky(self) -> None:
        declared = self.declared()
        for source, parameter, operations in self.plan.sticky:
            for operation in operations:
                known = declared.get(operation)
                if known is not None and place_of(known, parameter) is None:
                    has = ", ".join(one.name for one in known.parameters) or "none"
                    raise StartFailed(
                        f"the link from {source} to {self.plan.name} is sticky by {parameter!r}, and {operation} has "
                        f"no such parameter: it has {has}"
                    )

    def declared(self) -> dict[str, OperationDescription]:
        """The operations that the running replicas declare; while none runs, those that were declared before."""
        for port in self.group.ports[:1]:
            self._declared = {description.name: description for description in port.descriptions}
        return self._declared

    def describe(self) -> None:
        """Tell its replicas what the actors of its revision declare, where they were told something else."""
        for replica in self._replicas.values():
            replica.port.describe(self.plan.declared)

    def serve(self) -> None:
        """Open the replicas that are up for calls."""
        for replica in self._replicas.values():
            self._open(replica.port)
        self._router.parking.serve(self.group)

    def _open(self, port: WorkerPort, *, lanes_after: float = 0.0) -> None:
        if not port.open:
            port.open = True
            if lanes_after and port.lanes:
                timer = self._router.loop.call_later(lanes_after, self._join, port)
                port.lost.add_done_callback(lambda _: timer.cancel())
            else:
                self._join(port)
            if self.on_serves is not None:
                self.on_serves(self.plan.name, port.replica)

    def _join(self, port: WorkerPort) -> None:
        for way in self.ways.get(port.replica, ()):
            way.opened(port)

    def adopt(self, plan: ActorPlan) -> None:
        """Go on under a later revision's plan, for which its workers can serve: replicas that restart are its."""
        self.plan = plan

    def narrow(self, links: Sequence[Link], declared: Mapping[str, Mapping[str, OperationDescription]]) -> None:
        """Take from its replicas, which drain, what the running manifest's links of this actor no longer grant.

        `declared` is what the actors declare whom its calls reach from now on: by the host. By its lanes it calls those
        on with whom it started.
        """
        for replica in self._replicas.values():
            replica.port.links = narrowed(replica.port.links, links)
            cut_revoked(self.plan.name, replica.port.lanes, replica.port.links)
            replica.port.describe(declared, direct=False)

    async def _start_one(self, number: int, *, opened: bool = False, lanes_after: float = 0.0) -> None:
        try:
            await self._start_replica(number, opened, lanes_after)
        except BaseException:
            self._lost(number)
            raise

    def _lost(self, number: int) -> None:
        for way in self.ways.get(number, ()):
            way.lost(self.plan.name)

    async def _start_replica(self, number: int, opened: bool, lanes_after: float) -> None:
        plan = self.plan
        lanes: list[Lane] = []
        ends: list[socket.socket] = []
        try:
            lanes.extend(lane for way in self.ways.get(number, ()) for lane in way.stock())
            ends.extend(lane.hand_over(plan.name, 1 + place) for place, lane in enumerate(lanes))
            process, connection = await self._zygote.spawn(
                plan.name,
                memory_bytes=plan.memory_bytes,
                cpu_seconds=plan.cpu_seconds,
                profile=plan.profile,
                lanes=ends,
            )
        except (SpawnError, OSError) as error:
            raise StartFailed(str(error)) from error
        finally:
            for end in ends:
                end.close()
        if self._stopping:
            connection.close()
            process.kill()
            await process.ended
            raise StartFailed(f"{plan.name}#{number} was not needed any more")
        port = WorkerPort(
            self._router,
            self.group,
            number,
            bundle_digest=plan.bundle_digest,
            links=plan.links,
            in_flight_limit=plan.in_flight,
            mailbox=plan.mailbox,
            kvp_bytes=plan.kvp_bytes,
            note=self._note,
            lanes=lanes,
            prompt=self.group.prompt,
        )
        if process.listener is not None:
            process.listener.tell(port.refused)
        connection.setblocking(False)
        self._starting.add(port)
        try:
            await self._router.loop.connect_accepted_socket(lambda: port, connection)
            told = tuple(lane.describe(plan.name, plan.links) for lane in lanes)
            looks = self._router.busy.on and not plan.cpu_seconds
            welcome = msgspec.structs.replace(plan.welcome(number), lanes=told, looks=looks, prompt=port.prompt)
            port.welcome(welcome, plan.bundle)
            await asyncio.wait_for(asyncio.shield(port.ready), READY_SECONDS)
            if self._stopping:
                raise ConnectionError("it was not needed any more")
        except (CallError, ConnectionError, FrameError, TimeoutError) as error:
            port.abort()
            process.kill()
            how = await process.ended
            # What it subscribed to in `on_start` goes with it.
            await self._replica_gone(plan.name, number)
            why = "it was not ready in time" if isinstance(error, TimeoutError) else str(error)
            self.last_error = f"{plan.name}#{number} did not start: {why} ({how})"
            raise StartFailed(self.last_error) from error
        except BaseException:
            port.abort()
            process.kill()
            raise
        finally:
            self._starting.discard(port)
        self._replicas[number] = Replica(port, process)
        self.group.ports.append(port)
        # A revision may have gone live since its welcome was written.
        port.describe(self.plan.declared)
        if opened:
            self._open(port, lanes_after=lanes_after)
            self._router.parking.serve(self.group)
        keeper = self._router.loop.create_task(self._keep(number, port, process))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, number: int, port: WorkerPort, process: Process) -> None:
        """Wait for a replica's end; start it anew unless it was meant to end."""
        ends: set[asyncio.Future[Any]] = {port.lost, process.ended}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        port.abort()
        self._lost(number)
        if port.violated is None and not self._stopping:
            # A process that ends closes its socket a moment before; one that lives on has closed it itself.
            await asyncio.wait({process.ended}, timeout=CLOSED_SECONDS)
        closed = not process.ended.done()
        process.kill()
        how = await process.ended
        if closed:
            how = "closed its socket, and was killed"
        await port.lost
        self._replicas.pop(number, None)
        await self._replica_gone(self.plan.name, number)
        if self._stopping:
            return
        if number in self._replacing:
            self._replacing.discard(number)
            await self._restart(number, port, crashed=False)
        else:
            self.last_error = f"{self.plan.name}#{number} {port.violated or how}"
            self._note(port, "error", self.last_error)
            await self._restart(number, port, crashed=True)

    async def _restart(self, number: int, port: WorkerPort, *, crashed: bool) -> None:
        loop = self._router.loop
        delay = self.plan.backoff
        while not self._stopping:
            now = loop.time()
            if crashed:
                self._crashes.append(now)
            while self._crashes and self._crashes[0] < now - self.plan.period:
                self._crashes.popleft()
            if len(self._crashes) > self.plan.intensity:
                self.failed = True
                self.last_error = (
                    f"{self.plan.name} ended {len(self._crashes)} times in {self.plan.period:g} s, more than its limit "
                    f"of {self.plan.intensity}: it stays down until a new revision is pushed; last: {self.last_error}"
                )
                self._note(port, "error", self.last_error)
                if self.on_given_up is not None:
                    self.on_given_up(self)
                return
            # Jitter keeps replicas that died together from coming back together.
            await asyncio.wait({self._stop_asked}, timeout=delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, self.plan.backoff_max)
            if self._stopping:
                return
            try:
                # What by a lane ends a worker is not known, and blamed on nobody: who has just crashed goes without
                # until its crash does not count any more. A message that ends it again and again is found meanwhile.
                await self._start_one(number, opened=True, lanes_after=self.plan.period if crashed else 0.0)
            except StartFailed as error:
                self._note(port, "error", str(error))
                crashed = True
                continue
            self.restarts += 1
            if crashed and self.on_restart is not None:
                self.on_restart(self)
            return

    def require_up(self) -> None:
        """Raise `StartFailed` unless every replica is up: one may have ended since it was ready."""
        if len(self._replicas) < self.plan.replicas:
            ended = self.last_error or f"a replica of {self.plan.name} ended"
            raise StartFailed(f"{ended}, before its revision served")

    async def check_health(self, seconds: float) -> None:
        """Call each replica's operation `health`, where it declares one. Raises `StartFailed` when one refuses."""
        for replica in list(self._replicas.values()):
            if HEALTH not in replica.port.operation_numbers:
                return
            try:
                await self._router.call_port(replica.port, "host", HEALTH, b"\x90", timeout=seconds)
            except CallError as error:
                self.last_error = f"{self.plan.name}#{replica.port.replica} failed its health check: {error}"
                raise StartFailed(self.last_error) from error

    async def replace(self, drain: float) -> None:
        """Replace every replica by a fresh one, one after the other: an actor that it builds upon was restarted."""
        for number, replica in list(self._replicas.items()):
            if self._stopping or number not in self._replicas:
                return
            replica.port.open = False
            replica.port.retiring = True
            self._replacing.add(number)
            await self._stop_one(replica, drain)
            await replica.port.lost

    async def stop(self, drain: float) -> None:
        """Drain: no new calls, at most `drain` seconds for those in hand, then BYE, then SIGKILL. Never raises."""
        self._stopping = True
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)
        for ways in self.ways.values():
            for way in ways:
                way.close()
        for port in list(self._starting):  # one that was coming back is not needed any more
            port.abort()
        replicas = list(self._replicas.values())
        for replica in replicas:
            replica.port.open = False
            replica.port.retiring = True
        self._router.parking.leave(self.group, "it is stopped")
        await asyncio.gather(*(self._stop_one(replica, drain) for replica in replicas))
        if self._keepers:
            await asyncio.wait(set(self._keepers))

    async def _stop_one(self, replica: Replica, drain: float) -> None:
        loop = self._router.loop
        port, process = replica.port, replica.process
        until = loop.time() + drain
        incoming = [lane for lane in port.lanes if lane.live and lane.leads_to(port.name)]
        for lane in incoming:
            lane.retire()
        while port.delivered and not process.ended.done() and loop.time() < until:  # noqa: ASYNC110 (a drain may be coarse)
            await asyncio.sleep(0.005)
        port.send(Frame(Kind.BYE))
        seconds = EXIT_SECONDS if drain > 0 else 0.2
        if incoming:  # what is under way there only the worker knows: it finishes that after BYE
            seconds = max(seconds, until - loop.time())
        await asyncio.wait({process.ended}, timeout=seconds)
        if not process.ended.done() and drain > 0:
            self.last_error = f"{self.plan.name}#{port.replica} ignored its drain and was killed"
            self._note(port, "warning", self.last_error)
        process.kill()
        port.abort()
        await process.ended
