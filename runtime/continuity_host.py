"""What the host lends its continuity, and what its continuity decides: whether this enclave serves its slot now.

May not: serve a slot that another holds, or let a provider's state change while it is handed over or awaited.
Rule: docs/continuity.md, "The handover" and "By hand".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final

from tea.protocol.channels import Attestation, BackupMade, Channel, Takeover
from tea.protocol.errors import CallError, Code
from tea.providers.vmh import Vmh
from tea.providers.vmh.inbox import HOST
from tea.trust.approval import Approvers
from tea.trust.continuity import Role
from tea.trust.errors import TrustError
from tea.trust.handover import Approved, holder_body
from tea.trust.manifest import Backups
from tea.trust.policy import Policy
from tea.trust.sealing import SealingKey
from tea.trust.statement import Kind

from .continuity import TOPIC, Ask, Continuity
from .continuity_backup import BackupService
from .router import NOT_READY

if TYPE_CHECKING:
    from .host import Host
    from .loader import LoadPlan

FREEZE_SECONDS: Final = 10.0
"""For calls in hand to end before state is exported; after that the handover fails, and the holder serves on."""
RESTART_SECONDS: Final = 30.0
"""For actors to come up anew over the state that was taken in."""
LOOK_SECONDS: Final = 0.01
EXPIRE_SECONDS: Final = 5.0
"""Between two looks at whether a receiver has had its time."""
ASK_SECONDS: Final = 30.0
"""For one message to the other enclave's host and back."""
MAX_SOURCE: Final = 64
_WHY: Final[Mapping[Role, str]] = {
    Role.EMPTY: "this enclave waits for the state of slot {}, and serves nothing before: have it take over",
    Role.RECEIVING: "this enclave is taking slot {} over just now",
    Role.PREPARED: "this enclave has the state of slot {} and no word of its holder yet: have it take over again",
    Role.STANDBY: "this enclave is a standby of slot {}: another holds it",
    Role.HANDING: "this enclave is handing slot {} over just now",
    Role.RETIRED: "this enclave has handed slot {} over and retired: call the enclave that took over",
}


class HostContinuity:
    """One host's continuity: none before a manifest gives this enclave a slot and `vmh`. A `ContinuityHost`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._part: Continuity | None = None
        self._tainted = False
        """Whether state of another holder came in here: from then on only a holder's word makes this one serve."""
        self._stale = False
        """Whether actors run that have not seen that state."""
        self._taking: asyncio.Task[Takeover] | None = None
        self._copying = False
        """Whether the holder is frozen for a copy or a backup: nothing but `thaw` opens the links again."""
        self._backups = BackupService(self)

    # -- what the host asks ------------------------------------------------------------------------------------

    @property
    def detail(self) -> str:
        """Why this enclave does not serve; empty when that is not for continuity's sake."""
        part = self._part
        return "" if part is None or part.serves else _WHY[part.tenure.role].format(part.tenure.slot)

    def require(self, plan: LoadPlan, slot: str | None) -> None:
        """Raise `CallError` when a revision cannot be activated in this role."""
        part = self._part
        if self._is_taking:
            raise CallError(Code.CONFLICT, "this enclave is taking its slot over: push when that has ended")
        if self._copying:
            raise CallError(Code.CONFLICT, "this enclave's state is being copied: push when that has ended")
        if plan.standby and (slot is None or Vmh.name not in plan.manifest.providers):
            raise CallError(
                Code.INVALID, "a standby needs a slot: give this enclave one in ra.members, and the provider vmh"
            )
        if part is None:
            return
        if plan.standby and part.serves:
            raise CallError(Code.CONFLICT, f"this enclave holds slot {part.tenure.slot} already: it is no standby")
        if not plan.standby and part.tenure.role is Role.EMPTY and self._tainted:
            raise CallError(
                Code.CONFLICT, "state of another holder came in here: take over, or start a new enclave as the first"
            )

    def went_live(self, plan: LoadPlan, slot: str | None) -> None:
        """A revision went live: begin or wait, and serve accordingly."""
        vmh = self._host.providers.running.get(Vmh.name)
        part = self._part
        if part is None or (part.serves and part.tenure.slot != slot):
            # A holder's state goes with it to its new slot. Whoever does not hold its slot stays what it is.
            part = None
            if slot is not None and vmh is not None:
                part = Continuity(self, plan.manifest.deployment, slot)
        if part is not None:
            if part.tenure.role is Role.EMPTY and not plan.standby:
                part.begin()
            if vmh is not None and isinstance(vmh.provider, Vmh):
                vmh.provider.serve_host(TOPIC, self._answer)
        self._part = part
        self._settle()

    async def take_over(self, source: str, copy: bool) -> Takeover:
        """See `Control.take_over`."""
        part = self._held
        if not 0 < len(source) <= MAX_SOURCE:
            raise CallError(Code.INVALID, f"a peer's name has 1 to {MAX_SOURCE} letters")
        if part.tenure.role not in (Role.EMPTY, Role.STANDBY, Role.PREPARED) or self._is_taking:
            role, slot = part.tenure.role, part.tenure.slot
            raise CallError(
                Code.CONFLICT, f"this enclave is {role} for slot {slot}: one that was pushed as a standby takes over"
            )
        if copy and part.tenure.role is Role.PREPARED:
            raise CallError(Code.CONFLICT, "this enclave has all the state already: take over without copy")
        ask = self._asking(source)

        async def taken() -> None:
            try:
                if part.tenure.role is Role.PREPARED:
                    await part.finish(ask)
                else:
                    await part.take_over(ask, copy=copy)
            except TrustError as error:
                raise CallError(Code.CONFLICT, error.sentence, reason=str(error.code)) from None
            finally:
                if part.serves:
                    await self.thaw()

        return await self._alone(part, taken())

    async def present(self, ticket: bytes) -> Takeover:
        """See `Control.present`."""
        part = self._held
        return await self._alone(part, part.present(ticket))

    async def _alone(self, part: Continuity, work: Coroutine[None, None, None]) -> Takeover:
        """Do what may change the role, with nothing else that may beside it."""
        if self._is_taking or self._host.activating:
            work.close()
            what = "a takeover, ticket or restore" if self._is_taking else "an activation"
            raise CallError(Code.CONFLICT, f"{what} is under way: try again when it has ended")

        async def done() -> Takeover:
            try:
                await work
            finally:
                self._settle()
            return Takeover(part.tenure.slot, part.tenure.term, part.serves)

        # A task of its own: whoever asked may give up or be gone, and half a takeover may not stay behind.
        task = self._taking = self._host.loop.create_task(done())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(task)

    async def tenancy(self, nonce: bytes) -> Attestation:
        """See `Control.tenancy`."""
        return Attestation(*await self.attest(Kind.ATTEST, holder_body(self._held.tenure), nonce=nonce))

    # -- backups -----------------------------------------------------------------------------------------------

    async def backup(self) -> BackupMade:
        """See `Control.backup`."""
        if self._host.activating:
            raise CallError(Code.CONFLICT, "an activation is under way: make a backup when it has ended")
        return await self._backups.make(self._held)

    def backup_piece(self, digest: bytes, index: int) -> bytes:
        """See `Control.backup_piece`."""
        return self._backups.piece(digest, index)

    def restore_offer(self, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        """See `Control.restore_offer`."""
        self._backups.offer(self._held, ticket, shares, size)

    def restore_piece(self, index: int, data: bytes) -> None:
        """See `Control.restore_piece`."""
        self._backups.take(index, data)

    async def restore(self) -> Takeover:
        """See `Control.restore`."""
        part = self._held
        return await self._alone(part, self._backups.restore(part))

    # -- messages ----------------------------------------------------------------------------------------------

    async def _answer(self, sender: str, message: bytes) -> bytes:
        part = self._held
        try:
            return await part.answer(sender, message)
        finally:
            if part.tenure.role is Role.RETIRED:
                self._settle()

    def _asking(self, source: str) -> Ask:
        link = self._host.parent_link

        async def ask(message: bytes) -> bytes:
            try:
                answer = await link.call(
                    Channel.PEERS, "request", source, HOST, TOPIC, message, ASK_SECONDS, timeout=ASK_SECONDS + 2
                )
            except TimeoutError:
                raise CallError(Code.DEADLINE, f"{source} gave no answer in {ASK_SECONDS:g} seconds") from None
            if not isinstance(answer, bytes):
                raise CallError(Code.UNAVAILABLE, f"the answer relayed from {source} is none")
            return answer

        return ask

    # -- ContinuityHost ----------------------------------------------------------------------------------------

    @property
    def approvers(self) -> Approvers:
        return self._host.image_approvers

    @property
    def quorum(self) -> Approvers:
        return self._plan.approvers

    @property
    def keepers(self) -> Backups | None:
        return self._plan.manifest.backup

    @property
    def approved(self) -> Approved:
        plan = self._plan
        return Approved(plan.approval, plan.approver_changes)

    @property
    def manifest_digest(self) -> bytes:
        return self._plan.manifest_digest

    @property
    def revision(self) -> int:
        return self._plan.manifest.revision

    @property
    def epoch(self) -> int:
        return self._plan.approvers.epoch

    @property
    def sealing_key(self) -> SealingKey:
        return self._host.measurement.sealing_key

    def policy(self) -> Policy:
        slot = self._held.tenure.slot
        try:
            return self._host.slots.policy_for(slot)
        except LookupError:
            raise CallError(Code.CONFLICT, f"the running manifest has no slot {slot} any more") from None

    async def attest(
        self, kind: str, body: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> tuple[bytes, bytes]:
        return await self._host.measurement.attest(kind, body, nonce=nonce, public_key=public_key)

    def random(self, size: int) -> bytes:
        return self._host.measurement.random(size)

    def now_ms(self) -> int:
        return int(self._host.now() * 1000)

    async def freeze(self) -> None:
        router = self._host.router
        self._copying = self._held.tenure.role is Role.ACTIVE
        router.accepting, router.quiet, router.closed = False, True, self.detail or "this enclave is being copied"
        await _until(
            lambda: not any(port.delivered for group in router.groups.values() for port in group.ports), FREEZE_SECONDS
        )
        # What actors had in hand has ended. Now not even a thread of theirs gets through to a provider.
        router.frozen = True
        await _until(lambda: router.in_flight == 0, FREEZE_SECONDS)
        if self._held.tenure.role is Role.HANDING:
            self._host.background(self._go_on_when_expired(self._held))

    async def thaw(self) -> None:
        self._copying = False
        router = self._host.router
        if self._stale:
            # Actors may have read the state in `on_start`: they start anew over the one that came in. What they say
            # at their end belongs to the one that is gone.
            supervisors = list(self._host.supervisors.values())
            for supervisor in supervisors:
                for port in supervisor.group.ports:
                    port.links = {}
            router.frozen = False
            try:
                await asyncio.gather(*(supervisor.replace(0) for supervisor in supervisors))
                await _until(
                    lambda: all(one.failed or one.running == one.plan.replicas for one in supervisors), RESTART_SECONDS
                )
            except CallError:
                self.log("warning", "not every actor came up over the state that was taken in: calls are taken anyway")
            self._stale = False
        self._settle()

    async def export_states(self) -> dict[str, bytes]:
        states = {}
        for name, running in self._host.providers.running.items():
            state = await running.provider.export_state()
            if state is not None:
                states[name] = state
        return states

    async def import_states(self, states: Mapping[str, bytes]) -> None:
        running = self._host.providers.running
        for name in states:
            if name not in running:
                raise ValueError(f"the state has a part of {name[:64]!r}, a provider that does not run here")
        router = self._host.router
        router.frozen = True
        await _until(lambda: router.in_flight == 0, FREEZE_SECONDS)
        self._tainted = self._stale = True
        for name, state in states.items():
            await running[name].provider.import_state(state)

    def log(self, level: str, message: str, **fields: object) -> None:
        self._host.log(level, "host", message, **fields)

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _is_taking(self) -> bool:
        return self._taking is not None and not self._taking.done()

    @property
    def _held(self) -> Continuity:
        if self._part is None:
            raise CallError(Code.CONFLICT, "no manifest runs that gives this enclave a slot and vmh: push one first")
        return self._part

    @property
    def _plan(self) -> LoadPlan:
        plan = self._host.plan
        if plan is None:
            raise CallError(Code.UNAVAILABLE, NOT_READY)
        return plan

    def _settle(self) -> None:
        """Open or close the links, as the role has it."""
        router, part, why = self._host.router, self._part, self.detail
        if self._host.plan is None or self._copying:
            return  # the host shuts down, and has closed them; or `thaw` will open them
        router.accepting, router.quiet = not why, bool(why)
        # Where nothing came in yet there is nothing to keep: actors may start, of a later revision too.
        router.frozen = bool(why) and part is not None and part.tenure.role is not Role.EMPTY
        router.closed = why or NOT_READY

    async def _go_on_when_expired(self, part: Continuity) -> None:
        while part.tenure.role is Role.HANDING:
            await asyncio.sleep(EXPIRE_SECONDS)
            await part.expire()


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait for a state that has no event. Raises `CallError(CONFLICT)`: nobody asks again by itself on that."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 (a drain may be coarse)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise CallError(Code.CONFLICT, f"actors were not done with what they had in hand in {seconds:g} s") from None
