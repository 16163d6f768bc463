"""The host: everything that one enclave is, from the first word to its parent to the last.

May not: run an actor's code, or do itself what a room of its own does: settings become actors in `activation.py`, who
runs stands in `revisions.py`, slots in `slots.py`, status in `status.py`.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tea.protocol.channels import Activation, Channel, Control, Facade, HostStatus, LogRecord
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint
from tea.providers.nitro.client import Nsm
from tea.trust.approval import Approvers
from tea.trust.attestation import parse_document
from tea.trust.roots import digest_of

from .activation import Activator
from .continuity_host import HostContinuity
from .control import ControlService
from .fair_threads import FairThreads
from .lent import HostParentLink, LentServices
from .loader import LoadPlan
from .measure import Measurement
from .phases import Phase, PhaseTracker
from .provider_set import ProviderSet
from .revisions import DRAIN_SECONDS, Revisions
from .router import Router
from .settings_store import SettingsStore
from .slots import PLATFORM_PCRS, Slots
from .status import host_status
from .supervisor import ActorSupervisor
from .worker.layers import SandboxReport
from .worker_port import WorkerPort
from .zygote_client import Zygote

THREADS: Final = 4


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
        self.router = Router(loop, self.defect)
        self.router.busy.others = self.threads.at_work
        self.zygote = Zygote(loop, self._sandbox_found)
        self.parent_link = HostParentLink()
        self.settings = SettingsStore()
        self.providers = ProviderSet(self._lend)
        self.continuity = HostContinuity(self)
        self.revisions = Revisions(self)
        own_pcrs = {index: nsm.describe_pcr(index).data for index in PLATFORM_PCRS}
        self.slots = Slots(self.revisions, own_pcrs, simulated=mode != "nitro")
        self.environment: Mapping[str, str] = {}
        self.failure: str | None = None
        """Why the host ended by itself: an actor whose failure escalates."""
        self.provider_failures: dict[str, str] = {}
        """Providers of which a part has failed, and how."""
        self._activator = Activator(self)
        self._working: set[asyncio.Task[None]] = set()
        self._started = time.monotonic()
        self._ended = asyncio.Event()
        self._drift = 0.0

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self, address: Address) -> None:
        """Dial the runtime client, serve until `shutdown`. The connection is made anew when it breaks."""
        self.step("the NSM answers")
        await self._read_own_root()
        control = ControlService(self)

        def serve(endpoint: Endpoint) -> None:
            endpoint.serve(Channel.CONTROL, Control, control)
            endpoint.serve(Channel.FACADE, Facade, FacadeClosed())
            self.parent_link.attach(endpoint)

        endpoint = await connect(address, on_endpoint=serve, reconnect=True, timeout=None)
        self.step(f"connected to {address}")
        try:
            await self._ended.wait()
        finally:
            await endpoint.close()

    async def activate(self) -> Activation:
        """Verify and run what was offered. Raises `CallError`; what ran before runs on then."""
        return await self._activator.activate()

    async def shutdown(self, drain: float) -> None:
        """Drain the actors for at most `drain` seconds, stop the providers, end `run`."""
        if self._ended.is_set() or self.tracker.phase in (Phase.DRAINING, Phase.STOPPED):
            return
        self.tracker.drain("shutting down")
        self.router.accepting = False
        await self._activator.cancel()
        await self.revisions.stop(drain)
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
        await self.revisions.drained()

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this beside everything else, and keep it until it ends."""
        task = self.loop.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _read_own_root(self) -> None:
        document, _statement = await self.measurement.attest("attest", b"")
        unverified = parse_document(document)
        self.slots.root = digest_of(unverified.cabundle[0])
        self._drift = unverified.timestamp / 1000 - time.time()

    # -- what others ask of it ---------------------------------------------------------------------------------

    @property
    def plan(self) -> LoadPlan | None:
        """The running revision's plan."""
        return self.revisions.plan

    @property
    def supervisors(self) -> Mapping[str, ActorSupervisor]:
        """What keeps the running revision's actors running, by actor."""
        return self.revisions.supervisors

    @property
    def activating(self) -> bool:
        """Whether an activation is under way."""
        return self._activator.busy

    @property
    def uptime(self) -> float:
        """Seconds since the host began."""
        return time.monotonic() - self._started

    def now(self) -> float:
        """Seconds since the epoch by the NSM's clock: the system's, corrected by the drift seen at start."""
        return time.time() + self._drift

    def status(self) -> HostStatus:
        """The host's own word on itself."""
        return host_status(self)

    # -- logs and defects --------------------------------------------------------------------------------------

    def log(self, level: str, source: str, message: str, **fields: object) -> None:
        """A structured record towards the parent; never a secret."""
        record = LogRecord(time.time(), level, source, message, {key: str(value) for key, value in fields.items()})
        self.parent_link.tell(Channel.LOGS, "record", (record,))

    def step(self, detail: str) -> None:
        """A phase is done: on to the next."""
        phase = self.tracker.succeed(detail)
        self.log("info", "host", f"phase {phase.value}: {detail}")

    def note(self, port: WorkerPort, level: str, text: str) -> None:
        """What is to be said of a worker."""
        self.log(level, f"actor:{port.name}#{port.replica}", text)

    def defect(self, what: str, error: BaseException) -> None:
        """What should not happen, of the host's own."""
        self.log("error", "host", f"{what} failed: {type(error).__name__}: {error}")

    def provider_failed(self, name: str, error: BaseException) -> None:
        """A provider's background task ended by a defect."""
        self.provider_failures[name] = f"failed: {type(error).__name__}"
        self.log("error", f"provider:{name}", f"a background task failed: {type(error).__name__}: {error}")

    def _sandbox_found(self, report: SandboxReport) -> None:
        """The zygote says what the kernel grants: logged whole at the first start, and what lacks at every other."""
        for finding in report.findings:
            level = "info" if finding.held else "warning"
            if self.zygote.starts == 1 or not finding.held:
                state = "held" if finding.held else "lacking"
                mend = {"mend": finding.mend} if finding.mend else {}
                self.log(level, "host", f"sandbox: {finding.layer.value} {state}: {finding.why}", **mend)

    def _lend(self, name: str) -> LentServices:
        return LentServices(self, name)
