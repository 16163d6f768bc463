"""An activation: the one path by which settings become running actors.

May not: start anything that was not verified and measured, or disturb the revision that serves before the next one is
up. Each step is a phase of `phases.py`; a failure names the step, the thing and the mend.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tea.protocol.channels import Activation, Attestation
from tea.protocol.errors import CallError, Code
from tea.providers.nitro.client import NsmError
from tea.trust.errors import TrustError

from .lanes import join
from .loader import LoadPlan, load
from .measure import AlreadyMeasured, Identity
from .phases import Phase
from .provider_set import ProviderError
from .supervisor import ActorPlan, ActorSupervisor, StartFailed
from .zygote_client import SpawnError

if TYPE_CHECKING:
    from .host import Host

HEALTH_SECONDS: Final = 10.0
"""How long a replica of a new revision may take for its health check."""


class Activator:
    """One host's activations, one at a time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._task: asyncio.Task[Activation] | None = None

    @property
    def busy(self) -> bool:
        """Whether an activation is under way."""
        return self._task is not None and not self._task.done()

    async def activate(self) -> Activation:
        """Verify and run what was offered. Raises `CallError`; what ran before runs on then."""
        if self.busy:
            raise CallError(Code.CONFLICT, "another activation is under way: wait for it")
        # A task of its own: whoever asked may give up or be gone, and half an activation may not stay behind.
        task = self._task = self._host.loop.create_task(self._activate())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(task)

    async def cancel(self) -> None:
        """End one that is under way; what it had started is stopped."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _activate(self) -> Activation:
        host = self._host
        if host.tracker.phase not in (Phase.AWAITING_SETTINGS, Phase.READY):
            raise CallError(Code.CONFLICT, f"the host is {host.tracker.phase.value}: it takes no settings now")
        offer, bundles = host.settings.assemble()
        host.step("settings are complete")
        try:
            plan = await load(host, offer, bundles)
            host.continuity.require(plan, host.slots.own_in(plan))
            activation = await self._switch_to(plan)
        except (TrustError, ProviderError, StartFailed, SpawnError, AlreadyMeasured, NsmError, CallError) as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            raise CallError(Code.UNAVAILABLE, "the host is shutting down") from None
        except Exception as defect:
            host.defect("an activation", defect)
            raise self._failed(CallError(Code.INTERNAL, "the host's log has the cause")) from defect
        host.settings.keep(bundles)
        return activation

    async def _switch_to(self, plan: LoadPlan) -> Activation:
        host, revisions, measurement = self._host, self._host.revisions, self._host.measurement
        if measurement.identity is None:  # nothing ran yet in this boot: what comes first is what it started as
            await host.loop.run_in_executor(host.executor, measurement.boot, plan.manifest_digest, plan.settings_digest)
        identity = Identity(plan.manifest_digest, plan.manifest.revision, plan.approvers.epoch, plan.speakers)
        host.step("measured")
        environment_before, host.environment = host.environment, plan.environment
        revisions.loading = plan
        started_providers: tuple[str, ...] = ()
        starting: dict[str, ActorSupervisor] = {}
        try:
            started_providers = await host.providers.start(plan.manifest.providers)
            host.step(f"providers: {', '.join(host.providers.running) or 'none'}")
            plan.bind_links(host.providers)
            await host.zygote.start()
            measurement.pending = identity
            actor_plans = plan.actor_plans(host)
            kept = revisions.kept(actor_plans)
            starting = {name: revisions.supervisor(actor) for name, actor in actor_plans.items() if name not in kept}
            revisions.starting = starting
            join(starting)
            for name, supervisor in kept.items():
                plan.declared[name] = supervisor.declared()
            for layer in plan.start_layers():
                await _start_all({name: starting[name] for name in layer if name in starting})
                plan.declared.update({name: starting[name].declared() for name in layer if name in starting})
            for supervisor in starting.values():
                supervisor.describe()  # actors that call each other in a circle can be told of each other only now
            for supervisor in starting.values():
                await supervisor.check_health(HEALTH_SECONDS)
            for supervisor in starting.values():
                supervisor.require_up()
        except BaseException:
            measurement.pending = None
            revisions.loading = None
            host.environment = environment_before
            await asyncio.gather(*(supervisor.stop(0) for supervisor in starting.values()))
            host.providers.abandon()
            await host.providers.stop(started_providers)
            raise
        finally:
            revisions.starting = {}
        return await self._go_live(plan, identity, kept, starting, actor_plans)

    async def _go_live(
        self,
        plan: LoadPlan,
        identity: Identity,
        kept: Mapping[str, ActorSupervisor],
        starting: Mapping[str, ActorSupervisor],
        actor_plans: Mapping[str, ActorPlan],
    ) -> Activation:
        host, revisions = self._host, self._host.revisions
        # From here to `serve` nothing awaits: every call sees the old revision or the new one, never a mixture.
        host.measurement.activated(identity)
        host.approvers = plan.approvers
        replaced = revisions.replace(plan, {**kept, **starting})
        reconfigured = self._reconfigure_providers()
        host.router.groups = {name: supervisor.group for name, supervisor in revisions.supervisors.items()}
        host.router.parent_grants = plan.parent_grants
        revisions.narrow(plan)
        for name, supervisor in kept.items():
            supervisor.adopt(actor_plans[name])
            # Its calls reach the new replicas from now on. Sooner it would call the old ones by the new descriptions,
            # and for good if this revision failed; and whatever is delivered to it later, it reads this before.
            supervisor.describe()
        for supervisor in revisions.supervisors.values():
            supervisor.serve()
        host.continuity.went_live(plan, host.slots.own)
        serves = "serves" if host.router.accepting else "is up, and does not serve"
        host.step(f"revision {plan.manifest.revision} {serves}")
        gone = tuple(name for name in replaced if name not in revisions.supervisors)
        revisions.retire(replaced, gone)
        document, statement = await host.measurement.attest("ready", b"")
        changes = {"started": ", ".join(starting), **reconfigured}
        host.log("info", "host", f"revision {plan.manifest.revision} {serves}", **changes)
        return Activation(
            manifest_digest=plan.manifest_digest,
            revision=plan.manifest.revision,
            started=tuple(starting),
            stopped=gone,
            attestation=Attestation(document, statement),
        )

    def _reconfigure_providers(self) -> dict[str, str]:
        outcome = self._host.providers.switch()
        for name, defect in outcome.items():
            if defect is not None:
                self._host.provider_failed(name, defect)
        return {"reconfigured": ", ".join(outcome)} if outcome else {}

    def _failed(self, error: Exception) -> CallError:
        host, refusal = self._host, _refusal(error)
        if host.tracker.phase in (Phase.DRAINING, Phase.STOPPED):
            return refusal
        step = host.tracker.phase.value
        host.log("error", "host", f"{step} failed: {refusal.sentence}")
        host.tracker.fail(f"{step} failed: {refusal.sentence}")
        refusal.details["step"] = step
        return refusal


def _refusal(error: Exception) -> CallError:
    """Why settings were not activated, as the parent is told."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, TrustError):
        return CallError(Code.UNTRUSTED, str(error), reason=error.code.value)
    if isinstance(error, AlreadyMeasured):
        return CallError(Code.CONFLICT, str(error))
    if isinstance(error, NsmError):
        return CallError(Code.INTERNAL, f"the NSM failed: {error}")
    return CallError(Code.INVALID, str(error))


async def _start_all(supervisors: Mapping[str, ActorSupervisor]) -> None:
    results = await asyncio.gather(*(supervisor.start() for supervisor in supervisors.values()), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
