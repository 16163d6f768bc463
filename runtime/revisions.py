"""The revisions of one host: the one that serves, the one that is being started, and the replicas of older ones.

May not: verify anything, or open links: an activation does (`activation.py`), and what it has started stands here.
Rule: docs/architecture.md, "Boot" and "Supervision".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from .lanes import keep_together
from .loader import LoadPlan
from .supervisor import ActorPlan, ActorSupervisor
from .worker_port import WorkerPort

if TYPE_CHECKING:
    from .host import Host

DRAIN_SECONDS: Final = 10.0
"""How long replicas of an older revision may take for the calls that they have in hand."""


class Revisions:
    """Who keeps which replicas, in the three states that a revision has: starting, serving, draining."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.plan: LoadPlan | None = None
        """The plan of the revision that serves."""
        self.supervisors: Mapping[str, ActorSupervisor] = {}
        """What keeps its actors running, by actor."""
        self.loading: LoadPlan | None = None
        """The plan of the revision that is being started."""
        self.starting: Mapping[str, ActorSupervisor] = {}
        """What keeps its new actors; those that it takes over as they are stand in `supervisors`."""
        self._retired: set[ActorSupervisor] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._replica_numbers: dict[str, int] = {}

    # -- what is found here ------------------------------------------------------------------------------------

    def port_of(self, actor: str, replica: int) -> WorkerPort | None:
        """The port of a replica that runs, starts or drains."""
        supervisor = self._supervisor_of(actor, replica)
        return supervisor.port(replica) if supervisor is not None else None

    def is_starting(self, actor: str, replica: int) -> bool:
        """Whether a replica is of the revision that is being started, and does not serve yet."""
        supervisor = self.starting.get(actor)
        return supervisor is not None and replica in supervisor.numbers

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        """The approved variables that the manifest lets this actor read; of a replica, those of its own revision."""
        supervisor = self.supervisors.get(actor) if replica is None else self._supervisor_of(actor, replica)
        return supervisor.plan.welcome(0).identity.environment if supervisor is not None else {}

    def bundle_digest(self, actor: str) -> bytes:
        """SHA-256 of the bundle that runs under this name. Raises `LookupError`."""
        if self.plan is None:
            raise LookupError(f"no actor {actor} runs")
        return self.plan.bundle_digests[actor]

    def _supervisor_of(self, actor: str, replica: int) -> ActorSupervisor | None:
        """What keeps a replica that runs, starts or drains: no two revisions use one number."""
        return next((one for one in self._all_of(actor) if replica in one.numbers), None)

    def _all_of(self, actor: str) -> Iterator[ActorSupervisor]:
        for found in (self.supervisors.get(actor), self.starting.get(actor)):
            if found is not None:
                yield found
        yield from (supervisor for supervisor in self._retired if supervisor.plan.name == actor)

    # -- from one revision to the next -------------------------------------------------------------------------

    def kept(self, plans: Mapping[str, ActorPlan]) -> dict[str, ActorSupervisor]:
        """The actors that can serve the next revision as they are."""
        kept = {
            name: self.supervisors[name]
            for name, plan in plans.items()
            if name in self.supervisors
            and not self.supervisors[name].failed
            and self.supervisors[name].plan.serves_as(plan)
        }
        keep_together(kept, plans)
        return kept

    def supervisor(self, plan: ActorPlan) -> ActorSupervisor:
        """What is to keep an actor's replicas; it starts none yet."""
        host = self._host
        first = self._replica_numbers.get(plan.name, 0)
        supervisor = ActorSupervisor(plan, host.router, host.zygote, host.note, host.providers.replica_gone, first)
        self._replica_numbers[plan.name] = supervisor.next_number
        supervisor.on_restart = self._actor_restarted
        supervisor.on_given_up = self._actor_given_up
        supervisor.on_serves = host.providers.replica_serves
        return supervisor

    def replace(self, plan: LoadPlan, supervisors: Mapping[str, ActorSupervisor]) -> dict[str, ActorSupervisor]:
        """From now on this plan serves; what kept the replicas that it replaces, by actor: to be given to `retire`."""
        before, self.supervisors = self.supervisors, supervisors
        self.plan, self.loading = plan, None
        replaced = {name: one for name, one in before.items() if supervisors.get(name) is not one}
        self._retired.update(replaced.values())
        return replaced

    def narrow(self, plan: LoadPlan) -> None:
        """Replicas of older revisions drain, and have no right any more that this plan does not give."""
        for supervisor in self._retired:
            supervisor.narrow(plan.manifest.links_of(supervisor.plan.name), plan.declared)

    def retire(self, replaced: Mapping[str, ActorSupervisor], gone: tuple[str, ...]) -> None:
        """Drain replaced replicas in the background; then the providers forget the actors that are `gone`."""
        providers = self._host.providers

        async def retire() -> None:
            await asyncio.gather(*(supervisor.stop(DRAIN_SECONDS) for supervisor in replaced.values()))
            self._retired.difference_update(replaced.values())
            # Later revisions may have come meanwhile: what they have again is theirs.
            for actor in gone:
                for running in list(providers.running.values()):
                    if actor not in self.supervisors and actor not in self.starting:
                        await running.provider.forget(actor)
            plans = [plan for plan in (self.plan, self.loading) if plan is not None]
            if plans:  # else the host shuts down, and stops them all itself
                await providers.stop_except({name: None for plan in plans for name in plan.manifest.providers})

        task = self._host.loop.create_task(retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def stop(self, drain: float) -> None:
        """Nothing serves any more: drain all replicas for at most `drain` seconds."""
        supervisors = list(self.supervisors.values())
        self.plan, self.supervisors = None, {}
        self._retired.update(supervisors)
        await asyncio.gather(*(supervisor.stop(drain) for supervisor in supervisors))
        await self.drained()

    async def drained(self) -> None:
        """Wait until the replicas of older revisions have ended."""
        if self._retiring:
            await asyncio.wait(set(self._retiring))

    # -- what supervisors tell ---------------------------------------------------------------------------------

    def _actor_restarted(self, supervisor: ActorSupervisor) -> None:
        actor = supervisor.plan.name
        if self.supervisors.get(actor) is not supervisor or supervisor.plan.strategy != "rest-for-one":
            return
        dependants = self._dependants(actor)

        async def replace() -> None:
            for name in dependants:
                if name in self.supervisors:
                    await self.supervisors[name].replace(DRAIN_SECONDS)

        if dependants:
            self._host.log("info", "host", f"{actor} was restarted: {', '.join(dependants)} follow")
            self._host.background(replace())

    def _dependants(self, actor: str) -> list[str]:
        """Actors that call `actor`, directly or through others, in the order of their start."""
        plan = self.plan
        if plan is None:
            return []
        found = {actor}
        order = [name for layer in plan.start_layers() for name in layer]
        for name in order:
            if any(link.target in found for link in plan.manifest.links_of(name)):
                found.add(name)
        return [name for name in order if name in found and name != actor]

    def _actor_given_up(self, supervisor: ActorSupervisor) -> None:
        actor = supervisor.plan.name
        # One of a revision that is only starting fails that revision, not the one that serves.
        if self.supervisors.get(actor) is not supervisor or supervisor.plan.strategy != "escalate":
            return
        self._host.log("error", "host", f"{actor} stays down, and its failure is the host's: shutting down")
        self._host.failure = supervisor.last_error
        self._host.background(self._host.shutdown(DRAIN_SECONDS))
