"""Continuity as the host runs it: answers a successor, takes over from a predecessor, and stops serving in between.

May not: serve while its tenure does not, or give state to whom `trust.handover` has not verified.
Rule: docs/continuity.md. What the host lends is `ContinuityHost`; messages travel as peers' requests to `host`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from tea.protocol.errors import CallError, Code
from tea.trust import canonical
from tea.trust.attestation import ChainCache
from tea.trust.continuity import ContinuityCode, ContinuityError, Role, Tenure, Ticket, verify_ticket
from tea.trust.errors import TrustError
from tea.trust.handover import Approved, approved_policy
from tea.trust.handover_holder import HolderSide
from tea.trust.handover_messages import (
    MAX_MESSAGE,
    Abort,
    Fetch,
    Hello,
    Prepared,
    Request,
    pack_state,
    unpack_state,
)
from tea.trust.handover_receiver import ReceiverSide
from tea.trust.policy import Policy
from tea.trust.statement import Kind

from .continuity_lent import ContinuityHost

TOPIC: Final = "continuity"
ATTEMPTS: Final = 5
"""How often a request that got lost is sent anew."""
FIRST_PAUSE: Final = 0.1
"""Seconds before the second attempt; doubled, with jitter, for each further one."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Carries a message to the other enclave's host and brings the answer. Raises `CallError`."""
_random: Final = secrets.SystemRandom()


class Continuity:
    """One host's part in who holds its slot. `serves` says whether actors may be called now."""

    def __init__(self, host: ContinuityHost, deployment: str, slot: str, *, oldest: int = 1) -> None:
        self.tenure: Final = Tenure(deployment, slot)
        self.oldest: Final = oldest
        """The least revision from which state is taken."""
        self._host = host
        self._side: HolderSide | None = None
        self._packed: tuple[bytes, bytes] | None = None
        self._receiver: ReceiverSide | None = None
        self._cache = ChainCache()
        self._busy = asyncio.Lock()

    @property
    def serves(self) -> bool:
        """Whether this enclave is the holder, and not handing over."""
        return self.tenure.serves

    def begin(self) -> None:
        """Be the first holder of a slot that never had one."""
        self.tenure.begin()

    # -- as holder ---------------------------------------------------------------------------------------------

    async def answer(self, sender: str, message: bytes) -> bytes:
        """Answer a message of another enclave's host. Raises `CallError`: UNTRUSTED with the rule as `reason`."""
        async with self._busy:
            await self._expire()
            try:
                return await self._answered(message)
            except TrustError as error:
                self._host.log("warning", "a handover was refused", sender=sender, reason=str(error.code))
                raise CallError(Code.UNTRUSTED, error.sentence, reason=str(error.code)) from None

    async def expire(self) -> None:
        """Go on when a receiver has had its time. The host calls it now and then while it is handing over."""
        async with self._busy:
            await self._expire()

    async def _expire(self) -> None:
        if self._side is not None and self._side.expired(self._host.now_ms()):
            self._side.resume()
            self._host.log("warning", "the receiver did not come back: this enclave goes on as the holder")
            await self._host.thaw()

    async def _answered(self, message: bytes) -> bytes:
        tag = _tag_of(message)
        if tag == Hello.tag:
            return await self._challenge(message)
        side = self._side
        if side is None:
            raise ContinuityError(ContinuityCode.STATE, "a handover begins with a hello")
        if tag == Request.tag:
            return await self._parcel(side, message)
        if tag == Fetch.tag:
            return side.piece(message)
        if tag == Prepared.tag:
            answer = side.prepared(message)
            if self.tenure.role is Role.RETIRED:
                self._host.log("info", "handed over: this enclave has retired", term=self.tenure.term)
            return answer
        if tag == Abort.tag:
            if side.aborted(message):
                self._host.log("warning", "the receiver gave up: this enclave goes on as the holder")
                await self._host.thaw()
            return b""
        raise ContinuityError(ContinuityCode.MALFORMED, "no such message is answered")

    async def _challenge(self, hello: bytes) -> bytes:
        if self.tenure.role is Role.HANDING:
            raise ContinuityError(ContinuityCode.STATE, "this enclave is handing over to another already")
        side = HolderSide(self.tenure, hello, self._host.random)
        document, statement = await self._host.attest(Kind.ATTEST, side.body(), nonce=side.asked_nonce)
        self._side, self._packed = side, None
        return side.challenge(document, statement, self._host.approved)

    async def _parcel(self, side: HolderSide, request: bytes) -> bytes:
        host = self._host
        if self._packed is not None and self._packed[0] == request:
            return self._packed[1]  # the answer got lost; it opens for the same receiver only
        least = host.revision + 1

        def policy(shown: Approved) -> Policy:
            return approved_policy(
                host.policy(), self.tenure.slot, shown, approvers=host.approvers, least=least, least_epoch=host.epoch
            )

        side.accept(request, policy, now_ms=host.now_ms(), cache=self._cache)
        try:
            await host.freeze()
            states = await host.export_states()
            parcel = side.parcel(pack_state(states))
        except BaseException:
            if not side.copy:
                side.resume()
            await host.thaw()
            raise
        if side.copy:
            await host.thaw()
        self._packed = (request, parcel)
        host.log("info", "state was packed for an attested enclave", copy=side.copy, term=self.tenure.term)
        return parcel

    # -- as receiver -------------------------------------------------------------------------------------------

    async def take_over(self, ask: Ask, *, copy: bool = False) -> bool:
        """Take the slot over from its holder, or a copy of its state; whether this enclave is the holder now.

        Raises `CallError` (UNAVAILABLE: nobody answers; UNTRUSTED: the other end is not to be believed, or refused),
        and this enclave is what it was before then. False after the holder went on by itself: a standby now. When the
        answer to the last step is lost, UNAVAILABLE is raised, the role is PREPARED, and `finish` asks again.
        """
        receiver = ReceiverSide(self.tenure, self._host.random, copy=copy)
        try:
            await self._receive(receiver, ask)
        except (TrustError, ValueError, CallError) as error:
            abort = receiver.failed()
            if abort is not None:
                await _told(ask, abort)
            raise as_call_error(error) from None
        except BaseException:
            receiver.failed()
            raise
        if copy:
            receiver.copied()
            return False
        self._receiver = receiver
        return await self.finish(ask)

    async def finish(self, ask: Ask) -> bool:
        """The last step again, after its answer was lost. Raises `CallError`."""
        receiver = self._receiver
        if receiver is None:
            raise CallError(Code.CONFLICT, "nothing was received that waits for a commit")
        message = receiver.prepared()
        committed = False
        for attempt in range(ATTEMPTS):
            try:
                committed = receiver.committed(await ask(message))
                break
            except (CallError, ContinuityError) as error:
                # A refusal is worth no more than silence here: the parents could have made it up.
                if attempt + 1 == ATTEMPTS:
                    raise as_call_error(error) from None
                await _pause(attempt)
        self._receiver = None
        said = "this enclave is the holder" if committed else "the holder went on by itself: this is a standby"
        self._host.log("info", said, term=self.tenure.term)
        return committed

    async def _receive(self, receiver: ReceiverSide, ask: Ask) -> None:
        host = self._host

        def policy(shown: Approved) -> Policy:
            return approved_policy(
                host.policy(),
                self.tenure.slot,
                shown,
                approvers=host.approvers,
                least=self.oldest,
                most=host.revision,
            )

        challenge = await _asked(ask, receiver.hello)
        receiver.challenged(challenge, policy, now_ms=host.now_ms(), cache=self._cache)
        document, statement = await host.attest(
            Kind.SEAL, receiver.body(), nonce=receiver.challenge_nonce, public_key=receiver.public_key
        )
        request = receiver.request(document, statement, host.manifest_digest, host.approved)
        for index in range(receiver.open(await _asked(ask, request))):
            receiver.piece(await _asked(ask, receiver.fetch(index)))
        # Taken in before anything is promised: what no provider understands must not retire the one who has it.
        await host.import_states(unpack_state(receiver.state()))

    # -- by ticket ---------------------------------------------------------------------------------------------

    async def present(self, ticket: bytes) -> None:
        """A ticket of the approvers: become the holder by it, or stop to be. Raises `CallError(UNTRUSTED)`."""
        own = self._host.sealing_key.public
        async with self._busy:
            try:
                verified = verify_ticket(ticket, self._host.quorum)
                if verified.holder == own:
                    if verified.backup is not None:
                        raise ContinuityError(ContinuityCode.STATE, "this ticket is for a backup: restore that")
                    if self.tenure.role is Role.EMPTY:
                        raise ContinuityError(
                            ContinuityCode.STATE, "this enclave has nothing of the slot: a ticket gives no state"
                        )
                    self.tenure.promote(verified, own)
                    self._receiver = None
                    await self._host.thaw()
                else:
                    self.tenure.fence(verified, own)
                    await self._fenced()
            except TrustError as error:
                raise as_call_error(error) from None
        self._host.log("info", f"a ticket made this enclave {self.tenure.role}", term=verified.term)

    async def _fenced(self) -> None:
        try:
            await self._host.freeze()
        except CallError as late:
            # It has retired all the same: what is still in hand gets through to no provider any more.
            self._host.log("warning", f"retired by a ticket over what was in hand: {late.sentence}")

    # -- backups -----------------------------------------------------------------------------------------------

    async def exported(self) -> bytes:
        """The holder's state for a backup; calls wait meanwhile. Raises `CallError(CONFLICT)` where it is no holder."""
        async with self._busy:
            await self._expire()
            if not self.serves:
                raise CallError(
                    Code.CONFLICT,
                    f"this enclave is {self.tenure.role} for slot {self.tenure.slot}: only its holder is backed up",
                )
            try:
                await self._host.freeze()
                states = await self._host.export_states()
                return await asyncio.to_thread(pack_state, states)
            finally:
                await self._host.thaw()

    def require_restorable(self, ticket: bytes) -> Ticket:
        """The ticket, when the approvers signed it for a backup in this enclave, and nothing is held here yet.

        Raises `TrustError`.
        """
        verified = verify_ticket(ticket, self._host.quorum)
        if verified.backup is None:
            raise ContinuityError(ContinuityCode.APPROVAL, "the ticket names no backup: present it instead")
        if self.tenure.role is not Role.EMPTY:
            raise ContinuityError(
                ContinuityCode.STATE,
                f"this enclave is {self.tenure.role} for slot {self.tenure.slot} already: a backup is restored into a "
                "new one, that was pushed as a standby",
            )
        self.tenure.require_promotion(verified, self._host.sealing_key.public)
        return verified

    async def restored(self, ticket: Ticket, state: bytes) -> None:
        """Take a backup's state in, and be the holder by its ticket. Raises `TrustError`, `ValueError`, `CallError`."""
        own = self._host.sealing_key.public
        async with self._busy:
            self.tenure.require_promotion(ticket, own)
            await self._host.import_states(await asyncio.to_thread(unpack_state, state))
            self.tenure.promote(ticket, own)
            await self._host.thaw()
        self._host.log("info", "a backup was restored: this enclave is the holder", term=ticket.term)


def _tag_of(message: bytes) -> object:
    """The tag, by which a message is sent to its parser; the parser decides."""
    try:
        value = canonical.decode(message, limit=MAX_MESSAGE)
    except canonical.CanonicalError as error:
        raise ContinuityError(ContinuityCode.MALFORMED, f"this is no message: {error}") from None
    return value.get("tea") if isinstance(value, dict) else None


def as_call_error(error: Exception) -> CallError:
    """What went wrong, as it crosses to the parent: UNTRUSTED with the rule as `reason`, or CONFLICT."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, TrustError):
        return CallError(Code.UNTRUSTED, error.sentence, reason=str(error.code))
    return CallError(Code.CONFLICT, f"the state cannot be taken in here: {error}")


async def _asked(ask: Ask, message: bytes) -> bytes:
    """The answer to a message that may be sent twice without harm."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return await ask(message)
        except CallError as error:
            if error.code not in (Code.UNAVAILABLE, Code.DEADLINE, Code.EXHAUSTED):
                raise
        await _pause(attempt)
    return await ask(message)


async def _told(ask: Ask, message: bytes) -> None:
    try:
        await ask(message)
    except CallError:
        pass  # the holder goes on by itself when its patience ends


async def _pause(attempt: int) -> None:
    await asyncio.sleep(FIRST_PAUSE * 2**attempt * (0.5 + _random.random() / 2))
