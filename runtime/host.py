"""The host: everything that one enclave is, and the one path by which settings become running actors.

May not: run an actor's code, or start anything that was not verified and measured. Each step is a phase of
`phases.py`; a failure names the step, the thing and the mend, and leaves what runs running.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from tea.protocol.channels import (
    Activation,
    ActorStatus,
    Attestation,
    Channel,
    Control,
    Facade,
    HostStatus,
    LogRecord,
    ProviderStatus,
)
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint
from tea.providers.nitro.client import Nsm, NsmError
from tea.trust import pcr
from tea.trust.approval import Approvers
from tea.trust.attestation import parse_document
from tea.trust.errors import TrustError
from tea.trust.policy import Policy
from tea.trust.roots import Roots, digest_of

from .continuity_host import HostContinuity
from .control import ControlService
from .fair_threads import FairThreads
from .lent import HostParentLink, LentServices
from .loader import LoadPlan, load
from .measure import AlreadyMeasured, Identity, Measurement
from .phases import Phase, PhaseTracker
from .provider_set import ProviderError, ProviderSet, provider_class
from .router import Router
from .settings_store import SettingsStore
from .supervisor import ActorPlan, ActorSupervisor, StartFailed
from .worker.layers import SandboxReport
from .worker_port import WorkerPort
from .zygote_client import SpawnError, Zygote

DRAIN_SECONDS: Final = 10.0
"""How long replicas of an older revision may take for the calls that they have in hand."""
HEALTH_SECONDS: Final = 10.0
"""How long a replica of a new revision may take for its health check."""
THREADS: Final = 4


@dataclass
class _Running:
    """The revision that serves."""

    plan: LoadPlan
    supervisors: dict[str, ActorSupervisor] = field(default_factory=dict)


class FacadeClosed(Facade):
    """The facade's channel until there is a facade."""

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """Answers UNAVAILABLE."""
        raise CallError(Code.UNAVAILABLE, "this enclave has no facade")


class Host:
    """One enclave's host. `run` dials the parent and serves until `shutdown`."""

    def __init__(self, *, mode: str, nsm: Nsm, approvers: Approvers, loop: asyncio.AbstractEventLoop) -> None:
        self.mode = mode
        self.approvers = approvers
        self.image_approvers = approvers
        self.loop = loop
        self.tracker = PhaseTracker()
        self.executor = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="tea")
        self.threads = FairThreads(loop, self.executor)
        self.measurement = Measurement(nsm, self.threads, approvers.deployment)
        self.router = Router(loop, self._defect)
        self.zygote = Zygote(loop, self._sandbox_found)
        self.parent_link = HostParentLink()
        self.settings = SettingsStore()
        self.providers = ProviderSet(self._lend)
        self.continuity = HostContinuity(self)
        self.environment: Mapping[str, str] = {}
        self._running: _Running | None = None
        self._loading: LoadPlan | None = None
        self._starting: dict[str, ActorSupervisor] = {}
        """What keeps the actors of the revision that is being started."""
        self._own_pcrs = {index: nsm.describe_pcr(index).data for index in (0, 1, 2, 3, 4)}
        self._root = b""
        self._started = time.monotonic()
        self._activation: asyncio.Task[Activation] | None = None
        self._replica_numbers: dict[str, int] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._retired: set[ActorSupervisor] = set()
        """What keeps the replicas of older revisions, which drain."""
        self._working: set[asyncio.Task[None]] = set()
        self.failure: str | None = None
        """Why the host ended by itself: an actor whose failure escalates."""
        self._provider_failures: dict[str, str] = {}
        self._ended = asyncio.Event()
        self._drift = 0.0

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self, address: Address) -> None:
        """Dial the runtime client, serve until `shutdown`. The connection is made anew when it breaks."""
        self._succeed("the NSM answers")
        await self._read_own_root()
        control = ControlService(self)

        def serve(endpoint: Endpoint) -> None:
            endpoint.serve(Channel.CONTROL, Control, control)
            endpoint.serve(Channel.FACADE, Facade, FacadeClosed())
            self.parent_link.attach(endpoint)

        endpoint = await connect(address, on_endpoint=serve, reconnect=True, timeout=None)
        self._succeed(f"connected to {address}")
        try:
            await self._ended.wait()
        finally:
            await endpoint.close()

    async def shutdown(self, drain: float) -> None:
        """Drain the actors for at most `drain` seconds, stop the providers, end `run`."""
        if self._ended.is_set() or self.tracker.phase in (Phase.DRAINING, Phase.STOPPED):
            return
        self.tracker.drain("shutting down")
        self.router.accepting = False
        if self._activation is not None and not self._activation.done():
            self._activation.cancel()
            await asyncio.wait({self._activation})
        running, self._running = self._running, None
        supervisors = list(running.supervisors.values()) if running else []
        self._retired.update(supervisors)
        await asyncio.gather(*(supervisor.stop(drain) for supervisor in supervisors))
        await self.drained()
        tasks = list(self.router.cancel_tasks())
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        await self.providers.stop_except({})
        self.zygote.stop()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.tracker.succeed("drained")
        self.loop.call_later(0.05, self._ended.set)  # after the answer to whoever asked for this has left

    async def drained(self) -> None:
        """Wait until the replicas of older revisions have ended."""
        if self._draining:
            await asyncio.wait(set(self._draining))

    async def _read_own_root(self) -> None:
        document, _statement = await self.measurement.attest("attest", b"")
        unverified = parse_document(document)
        self._root = digest_of(unverified.cabundle[0])
        self._drift = unverified.timestamp / 1000 - time.time()

    def now(self) -> float:
        """Seconds since the epoch by the NSM's clock: the system's, corrected by the drift seen at start."""
        return time.time() + self._drift

    # -- settings become actors --------------------------------------------------------------------------------

    async def activate(self) -> Activation:
        """Verify and run what was offered. Raises `CallError`; what ran before runs on then."""
        if self._activation is not None and not self._activation.done():
            raise CallError(Code.CONFLICT, "another activation is under way: wait for it")
        # A task of its own: whoever asked may give up or be gone, and half an activation may not stay behind.
        task = self._activation = self.loop.create_task(self._activate())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(task)

    async def _activate(self) -> Activation:
        if self.tracker.phase not in (Phase.AWAITING_SETTINGS, Phase.READY):
            raise CallError(Code.CONFLICT, f"the host is {self.tracker.phase.value}: it takes no settings now")
        offer, bundles = self.settings.assemble()
        self._succeed("settings are complete")
        try:
            plan = await load(self, offer, bundles)
            self.continuity.require(plan, self.slot_in(plan))
            activation = await self._switch_to(plan)
        except (TrustError, ProviderError, StartFailed, SpawnError, AlreadyMeasured, NsmError, CallError) as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            raise CallError(Code.UNAVAILABLE, "the host is shutting down") from None
        except Exception as defect:
            self._defect("an activation", defect)
            raise self._failed(CallError(Code.INTERNAL, "the host's log has the cause")) from defect
        self.settings.keep(bundles)
        return activation

    @property
    def activating(self) -> bool:
        """Whether an activation is under way."""
        return self._activation is not None and not self._activation.done()

    def step(self, detail: str) -> None:
        """The next phase of an activation (`loader.load` calls it)."""
        self._succeed(detail)

    async def _switch_to(self, plan: LoadPlan) -> Activation:
        before = self._running
        measurement = self.measurement
        if measurement.identity is None:  # nothing ran yet in this boot: what comes first is what it started as
            await self._in_thread(measurement.boot, plan.manifest_digest, plan.settings_digest)
        identity = Identity(plan.manifest_digest, plan.manifest.revision, plan.approvers.epoch, plan.speakers)
        self._succeed("measured")
        environment_before, self.environment = self.environment, plan.environment
        self._loading = plan
        started_providers: tuple[str, ...] = ()
        starting: dict[str, ActorSupervisor] = {}
        try:
            started_providers = await self.providers.start(plan.manifest.providers)
            self._succeed(f"providers: {', '.join(self.providers.running) or 'none'}")
            plan.bind_links(self.providers)
            await self.zygote.start()
            measurement.pending = identity
            actor_plans = plan.actor_plans(self)
            kept = self._kept(before, actor_plans)
            starting = {name: self._supervisor(actor) for name, actor in actor_plans.items() if name not in kept}
            self._starting = starting
            for name, supervisor in kept.items():
                plan.declared[name] = supervisor.declared()
            for layer in plan.start_layers():
                await self._start_all({name: starting[name] for name in layer if name in starting})
                plan.declared.update({name: starting[name].declared() for name in layer if name in starting})
            for supervisor in starting.values():
                await supervisor.check_health(HEALTH_SECONDS)
            for supervisor in starting.values():
                supervisor.require_up()
        except BaseException:
            measurement.pending = None
            self._loading = None
            self.environment = environment_before
            await asyncio.gather(*(supervisor.stop(0) for supervisor in starting.values()))
            self.providers.abandon()
            await self.providers.stop(started_providers)
            raise
        finally:
            self._starting = {}
        return await self._go_live(plan, identity, before, kept, starting, actor_plans)

    async def _go_live(
        self,
        plan: LoadPlan,
        identity: Identity,
        before: _Running | None,
        kept: dict[str, ActorSupervisor],
        starting: dict[str, ActorSupervisor],
        actor_plans: Mapping[str, ActorPlan],
    ) -> Activation:
        # From here to `serve` nothing awaits: every call sees the old revision or the new one, never a mixture.
        self.measurement.activated(identity)
        self.approvers = plan.approvers
        self._loading = None
        self._running = _Running(plan, {**kept, **starting})
        reconfigured = self._reconfigure_providers()
        self.router.groups = {name: supervisor.group for name, supervisor in self._running.supervisors.items()}
        self.router.parent_grants = plan.parent_grants
        old = before.supervisors if before is not None else {}
        retired = {name: supervisor for name, supervisor in old.items() if name not in kept}
        self._retired.update(retired.values())
        for supervisor in self._retired:  # they drain, and have no right that this revision does not give
            supervisor.narrow(plan.manifest.links_of(supervisor.plan.name))
        for name, supervisor in kept.items():
            supervisor.adopt(actor_plans[name])
        for supervisor in self._running.supervisors.values():
            supervisor.serve()
        self.continuity.went_live(plan, self.own_slot)
        serves = "serves" if self.router.accepting else "is up, and does not serve"
        self._succeed(f"revision {plan.manifest.revision} {serves}")
        gone = tuple(name for name in old if name not in self._running.supervisors)
        self._retire(retired, gone)
        document, statement = await self.measurement.attest("ready", b"")
        changes = {"started": ", ".join(starting), **reconfigured}
        self.log("info", "host", f"revision {plan.manifest.revision} {serves}", **changes)
        return Activation(
            manifest_digest=plan.manifest_digest,
            revision=plan.manifest.revision,
            started=tuple(starting),
            stopped=gone,
            attestation=Attestation(document, statement),
        )

    def _reconfigure_providers(self) -> dict[str, str]:
        outcome = self.providers.switch()
        for name, defect in outcome.items():
            if defect is not None:
                self.provider_failed(name, defect)
        return {"reconfigured": ", ".join(outcome)} if outcome else {}

    def _depends(self, actor: str) -> list[str]:
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

    def _actor_restarted(self, supervisor: ActorSupervisor) -> None:
        actor = supervisor.plan.name
        if self.supervisors.get(actor) is not supervisor or supervisor.plan.strategy != "rest-for-one":
            return
        dependants = self._depends(actor)

        async def replace() -> None:
            for name in dependants:
                if name in self.supervisors:
                    await self.supervisors[name].replace(DRAIN_SECONDS)

        if dependants:
            self.log("info", "host", f"{actor} was restarted: {', '.join(dependants)} follow")
            self.background(replace())

    def _actor_given_up(self, supervisor: ActorSupervisor) -> None:
        actor = supervisor.plan.name
        # One of a revision that is only starting fails that revision, not the one that serves.
        if self.supervisors.get(actor) is not supervisor or supervisor.plan.strategy != "escalate":
            return
        self.log("error", "host", f"{actor} stays down, and its failure is the host's: shutting down")
        self.failure = supervisor.last_error
        self.background(self.shutdown(DRAIN_SECONDS))

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this beside everything else, and keep it until it ends."""
        task = self.loop.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _kept(self, before: _Running | None, plans: Mapping[str, ActorPlan]) -> dict[str, ActorSupervisor]:
        if before is None:
            return {}
        return {
            name: before.supervisors[name]
            for name, plan in plans.items()
            if name in before.supervisors
            and not before.supervisors[name].failed
            and before.supervisors[name].plan.serves_as(plan)
        }

    def _supervisor(self, plan: ActorPlan) -> ActorSupervisor:
        first = self._replica_numbers.get(plan.name, 0)
        supervisor = ActorSupervisor(plan, self.router, self.zygote, self._note, self._replica_gone, first)
        self._replica_numbers[plan.name] = supervisor.next_number
        supervisor.on_restart = self._actor_restarted
        supervisor.on_given_up = self._actor_given_up
        supervisor.on_serves = self._replica_serves
        return supervisor

    @staticmethod
    async def _start_all(supervisors: Mapping[str, ActorSupervisor]) -> None:
        results = await asyncio.gather(
            *(supervisor.start() for supervisor in supervisors.values()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _retire(self, retired: Mapping[str, ActorSupervisor], gone: tuple[str, ...]) -> None:
        async def retire() -> None:
            await asyncio.gather(*(supervisor.stop(DRAIN_SECONDS) for supervisor in retired.values()))
            self._retired.difference_update(retired.values())
            # Later revisions may have come meanwhile: what they have again is theirs.
            for actor in gone:
                for running in list(self.providers.running.values()):
                    if actor not in self.supervisors and actor not in self._starting:
                        await running.provider.forget(actor)
            plans = [plan for plan in (self.plan, self._loading) if plan is not None]
            if plans:  # else the host shuts down, and stops them all itself
                await self.providers.stop_except({name: None for plan in plans for name in plan.manifest.providers})

        task = self.loop.create_task(retire())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _failed(self, error: Exception) -> CallError:
        if isinstance(error, CallError):
            refusal = error
        elif isinstance(error, TrustError):
            refusal = CallError(Code.UNTRUSTED, str(error), reason=error.code.value)
        elif isinstance(error, AlreadyMeasured):
            refusal = CallError(Code.CONFLICT, str(error))
        elif isinstance(error, NsmError):
            refusal = CallError(Code.INTERNAL, f"the NSM failed: {error}")
        else:
            refusal = CallError(Code.INVALID, str(error))
        step = self.tracker.phase.value
        if self.tracker.phase in (Phase.DRAINING, Phase.STOPPED):
            return refusal
        self.log("error", "host", f"{step} failed: {refusal.sentence}")
        self.tracker.fail(f"{step} failed: {refusal.sentence}")
        refusal.details["step"] = step
        return refusal

    # -- what others ask of it ---------------------------------------------------------------------------------

    @property
    def plan(self) -> LoadPlan | None:
        """The running revision's plan."""
        return self._running.plan if self._running is not None else None

    @property
    def supervisors(self) -> Mapping[str, ActorSupervisor]:
        """What keeps the running revision's actors running, by actor."""
        return self._running.supervisors if self._running is not None else {}

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """Slots of the rounds, from the manifest that runs or is being started."""
        plan = self._loading or self.plan
        return plan.members if plan is not None else {}

    @property
    def own_slot(self) -> str | None:
        """The slot whose PCR3 or PCR4 is this enclave's."""
        plan = self._loading or self.plan
        return self.slot_in(plan) if plan is not None else None

    def slot_in(self, plan: LoadPlan) -> str | None:
        """The slot that a plan gives this enclave."""
        for name, binding in plan.members.items():
            if binding and all(
                self._own_pcrs[int(key.removeprefix("pcr"))].hex() == value for key, value in binding.items()
            ):
                return name
        return None

    def policy_for(self, slot: str) -> Policy:
        """What an attestation of this slot must meet: our roots, our image, our manifest, the slot's PCR.

        Raises `LookupError` for a slot that the manifest does not have.
        """
        plan = self.plan or self._loading
        if plan is None or slot not in plan.members:
            raise LookupError(f"no member {slot} in the manifest")
        pcrs = {index: (self._own_pcrs[index],) for index in pcr.IMAGE_PCRS}
        for key, value in plan.members[slot].items():
            pcrs[int(key.removeprefix("pcr"))] = (bytes.fromhex(value),)
        return Policy(
            pinned=Roots.from_digests([self._root]),
            simulated=self.mode != "nitro",
            pcrs=pcrs,
            deployment=plan.manifest.deployment,
            manifests=(plan.manifest_digest,),
            min_revision=plan.manifest.revision,
            min_epoch=plan.approvers.epoch,
            # An enclave in debug mode accepts its like: its own zero PCRs are what the slots must match.
            debug=not any(any(self._own_pcrs[index]) for index in pcr.IMAGE_PCRS),
        )

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        """The approved variables that the manifest lets this actor read; of a replica, those of its own revision."""
        supervisor = self.supervisors.get(actor) if replica is None else self._supervisor_of(actor, replica)
        return supervisor.plan.welcome(0).identity.environment if supervisor is not None else {}

    def is_starting(self, actor: str, replica: int) -> bool:
        """Whether a replica is of the revision that is being started, and does not serve yet."""
        supervisor = self._starting.get(actor)
        return supervisor is not None and replica in supervisor.numbers

    def port_of(self, actor: str, replica: int) -> WorkerPort | None:
        """The port of a replica that runs, starts or drains."""
        supervisor = self._supervisor_of(actor, replica)
        return supervisor.port(replica) if supervisor is not None else None

    def _supervisor_of(self, actor: str, replica: int) -> ActorSupervisor | None:
        """What keeps a replica that runs, starts or drains: no two revisions use one number."""
        found = [self.supervisors.get(actor), self._starting.get(actor)]
        found += [supervisor for supervisor in self._retired if supervisor.plan.name == actor]
        return next((one for one in found if one is not None and replica in one.numbers), None)

    def bundle_digest(self, actor: str) -> bytes:
        """SHA-256 of the bundle that runs under this name. Raises `LookupError`."""
        if self.plan is None:
            raise LookupError(f"no actor {actor} runs")
        return self.plan.bundle_digests[actor]

    def provider_requires(self, name: str) -> tuple[str, ...]:
        """What a provider may ask for by name."""
        return provider_class(name).requires

    def status(self) -> HostStatus:
        """The host's own word on itself."""
        figures, identity, plan = self.router.figures, self.measurement.identity, self.plan
        return HostStatus(
            phase=self.tracker.phase.value,
            detail=self.continuity.detail or self.tracker.detail,
            mode=self.mode,
            module_id=self.measurement.description.module_id,
            deployment=self.approvers.deployment,
            manifest_digest=identity.manifest if identity else None,
            revision=identity.revision if identity else None,
            slot=self.own_slot,
            uptime=time.monotonic() - self._started,
            calls=figures.calls,
            replies=figures.replies,
            errors=figures.errors,
            in_flight=self.router.in_flight,
            dead_letters=figures.dead_letters,
            actors=tuple(self._actor_status(name, one, plan) for name, one in self.supervisors.items()),
            providers=tuple(
                ProviderStatus(name, self._provider_failures.get(name, one.state), one.provider.usage())
                for name, one in self.providers.running.items()
            ),
            sandbox=self.zygote.report.lines() if self.zygote.report is not None else (),
            parked=figures.parked,
            cancelled=figures.cancelled,
            late_answers=figures.late_answers,
        )

    def _actor_status(self, name: str, supervisor: ActorSupervisor, plan: LoadPlan | None) -> ActorStatus:
        figures = self.router.figures_of(name)
        ports = supervisor.group.ports
        return ActorStatus(
            name=name,
            version=supervisor.plan.version,
            replicas=supervisor.plan.replicas,
            running=supervisor.running,
            restarts=supervisor.restarts,
            calls=figures.calls,
            errors=figures.errors,
            in_flight=sum(len(port.delivered) for port in ports),
            operations=tuple(ports[0].operation_numbers) if ports else (),
            last_error=supervisor.last_error,
            refused=dict(supervisor.group.refusals.counts),
            parked=figures.parked,
            waited=figures.waited,
            cancelled=figures.cancelled,
            dead_letters=figures.dead_letters,
        )

    # -- logs and defects --------------------------------------------------------------------------------------

    def log(self, level: str, source: str, message: str, **fields: object) -> None:
        """A structured record towards the parent; never a secret."""
        record = LogRecord(time.time(), level, source, message, {key: str(value) for key, value in fields.items()})
        self.parent_link.tell(Channel.LOGS, "record", (record,))

    def _note(self, port: WorkerPort, level: str, text: str) -> None:
        self.log(level, f"actor:{port.name}#{port.replica}", text)

    def _defect(self, what: str, error: BaseException) -> None:
        self.log("error", "host", f"{what} failed: {type(error).__name__}: {error}")

    def provider_failed(self, name: str, error: BaseException) -> None:
        """A provider's background task ended by a defect."""
        self._provider_failures[name] = f"failed: {type(error).__name__}"
        self.log("error", f"provider:{name}", f"a background task failed: {type(error).__name__}: {error}")

    def _sandbox_found(self, report: SandboxReport) -> None:
        """The zygote says what the kernel grants: logged whole at the first start, and what lacks at every other."""
        for finding in report.findings:
            level = "info" if finding.held else "warning"
            if self.zygote.starts == 1 or not finding.held:
                state = "held" if finding.held else "lacking"
                mend = {"mend": finding.mend} if finding.mend else {}
                self.log(level, "host", f"sandbox: {finding.layer.value} {state}: {finding.why}", **mend)

    # -- small things ------------------------------------------------------------------------------------------

    def _succeed(self, detail: str) -> None:
        phase = self.tracker.succeed(detail)
        self.log("info", "host", f"phase {phase.value}: {detail}")

    def _lend(self, name: str) -> LentServices:
        return LentServices(self, name)

    def _replica_serves(self, actor: str, replica: int) -> None:
        for running in list(self.providers.running.values()):
            running.provider.replica_serves(actor, replica)

    async def _replica_gone(self, actor: str, replica: int) -> None:
        for running in list(self.providers.running.values()):
            await running.provider.replica_gone(actor, replica)

    async def _in_thread(self, function: object, *args: object) -> None:
        await self.loop.run_in_executor(self.executor, function, *args)  # type: ignore[arg-type]
