"""Who holds a slot's keys and state: one active holder, fenced by a term that only rises; and how that changes.

May not: move state (`handover.py` does), read a clock, or make two holders: every step that ends in ACTIVE needs the
one before it to have ended, or a quorum of approvers that says so.
Rule: docs/continuity.md, "One holder" and "Tickets".
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from . import canonical, cose, names
from .approval import Approvers
from .errors import TrustError
from .keys import Signer, SigningError

TICKET_TAG: Final = "tea.continuity-ticket.v1"
TICKET_CONTENT_TYPE: Final = "application/tea-continuity-ticket+cbor"
MAX_TICKET: Final = 64 * 1024
MAX_TERM: Final = 1 << 53
HOLDER_BYTES: Final = 32
"""Bytes of a holder's identity: the X25519 key of its boot, which its attestations carry."""


class ContinuityCode(enum.StrEnum):
    """Why a step is refused."""

    MALFORMED = "malformed"
    """Not a message of the handover, or over a limit."""
    STATE = "state"
    """A step that this role does not take."""
    SLOT = "slot"
    """For another deployment or slot."""
    TERM = "term"
    """A term that is not above every one seen."""
    CLONE = "clone"
    """Another holder claims the same term."""
    TRANSCRIPT = "transcript"
    """Evidence over other messages than those that were exchanged."""
    APPROVAL = "approval"
    """A manifest or ticket that the approvers did not approve, or a lower revision."""
    PROOF = "proof"
    """Not from the other end of this handover."""
    DOES_NOT_OPEN = "does-not-open"
    """Sealed for another, or changed on the way."""


class ContinuityError(TrustError):
    """A handover, ticket or backup is not accepted; `code` is a `ContinuityCode`."""

    def __init__(self, code: ContinuityCode, sentence: str) -> None:
        super().__init__(code, sentence)


class Role(enum.StrEnum):
    """What an enclave is to a slot."""

    EMPTY = "empty"
    """Has nothing of it."""
    RECEIVING = "receiving"
    PREPARED = "prepared"
    """Has all of it, and waits for the holder's commit. It does not serve, and cannot give up by itself."""
    STANDBY = "standby"
    """Has a copy, of a moment that is past. It does not serve."""
    ACTIVE = "active"
    """The holder. It alone serves."""
    HANDING = "handing"
    """The holder, frozen while another receives."""
    RETIRED = "retired"
    """Was the holder. It never serves again, unless a ticket says so."""


class Step(enum.StrEnum):
    """What happens to a role."""

    BEGIN = "begin"
    ASK = "ask"
    RECEIVED = "received"
    COPIED = "copied"
    FAILED = "failed"
    KEPT = "kept"
    """A standby whose fresh copy did not come: it has the one before."""
    COMMITTED = "committed"
    CANCELLED = "cancelled"
    HAND = "hand"
    RESUME = "resume"
    COMMIT = "commit"
    PROMOTE = "promote"
    FENCED = "fenced"


TRANSITIONS: Final[Mapping[tuple[Role, Step], Role]] = MappingProxyType(
    {
        (Role.EMPTY, Step.BEGIN): Role.ACTIVE,
        (Role.EMPTY, Step.ASK): Role.RECEIVING,
        (Role.EMPTY, Step.PROMOTE): Role.ACTIVE,  # with a backup
        (Role.RECEIVING, Step.RECEIVED): Role.PREPARED,
        (Role.RECEIVING, Step.COPIED): Role.STANDBY,
        (Role.RECEIVING, Step.FAILED): Role.EMPTY,
        (Role.RECEIVING, Step.KEPT): Role.STANDBY,
        (Role.PREPARED, Step.COMMITTED): Role.ACTIVE,
        (Role.PREPARED, Step.CANCELLED): Role.STANDBY,
        (Role.PREPARED, Step.PROMOTE): Role.ACTIVE,
        (Role.STANDBY, Step.ASK): Role.RECEIVING,
        (Role.STANDBY, Step.PROMOTE): Role.ACTIVE,
        (Role.ACTIVE, Step.HAND): Role.HANDING,
        (Role.ACTIVE, Step.FENCED): Role.RETIRED,
        (Role.HANDING, Step.RESUME): Role.ACTIVE,
        (Role.HANDING, Step.COMMIT): Role.RETIRED,
        (Role.HANDING, Step.FENCED): Role.RETIRED,
        (Role.RETIRED, Step.PROMOTE): Role.ACTIVE,
    }
)
"""Everything that may happen. ACTIVE has four ways in; each but the first needs another's evidence."""

_COPIES: Final = frozenset({Step.COPIED, Step.CANCELLED})
"""Steps after which the term is that of a copy, which need not rise."""
SERVING: Final = frozenset({Role.ACTIVE})


class Tenure:
    """One enclave's role for one slot, and the term it knows. Steps out of the table are refused."""

    __slots__ = ("deployment", "role", "slot", "term", "yielded")

    def __init__(self, deployment: str, slot: str) -> None:
        self.deployment: Final = deployment
        self.slot: Final = slot
        self.role = Role.EMPTY
        self.term = 0
        """As ACTIVE, HANDING or RETIRED: its own. As STANDBY: that of its copy."""
        self.yielded = 0
        """The highest term that it retired for: another's, so that no ticket of this or an older term wakes it."""

    @property
    def serves(self) -> bool:
        """Whether this enclave may serve the slot's state now."""
        return self.role in SERVING

    def step(self, step: Step, term: int | None = None) -> None:
        """Take a step; `term` is the new one where it changes. Raises `ContinuityError(STATE)` (TERM when it falls)."""
        self.role = self._after(step, term)
        if term is not None:
            self.term = term

    def _after(self, step: Step, term: int | None) -> Role:
        after = TRANSITIONS.get((self.role, step))
        if after is None:
            raise ContinuityError(
                ContinuityCode.STATE, f"an enclave that is {self.role} for slot {self.slot} takes no step {step}"
            )
        least = self.term if step in _COPIES else max(self.term, self.yielded) + 1
        if term is not None and not least <= term < MAX_TERM:
            raise ContinuityError(
                ContinuityCode.TERM, f"the term is {term}, expected at least {least} for slot {self.slot}"
            )
        return after

    def begin(self) -> None:
        """Be the first holder: there is no state yet, so none can be doubled."""
        self.step(Step.BEGIN, 1)

    def require_promotion(self, ticket: Ticket, holder: bytes) -> None:
        """Raise as `promote` would, and change nothing."""
        _require_for(ticket, self)
        if not hmac.compare_digest(ticket.holder, holder):
            raise ContinuityError(ContinuityCode.CLONE, "the ticket names another enclave as holder")
        self._after(Step.PROMOTE, ticket.term)

    def promote(self, ticket: Ticket, holder: bytes) -> None:
        """Become the holder by a verified ticket that names this enclave. Raises `ContinuityError`."""
        self.require_promotion(ticket, holder)
        self.step(Step.PROMOTE, ticket.term)

    def fence(self, ticket: Ticket, holder: bytes) -> None:
        """Stop to be the holder, because a verified ticket names another for a higher term."""
        _require_for(ticket, self)
        if ticket.term <= self.term or hmac.compare_digest(ticket.holder, holder):
            raise ContinuityError(ContinuityCode.TERM, f"the ticket is for term {ticket.term}, and fences nothing here")
        self.retire(Step.FENCED, ticket.term)

    def retire(self, step: Step, term: int) -> None:
        """Stop to be the holder, by COMMIT or FENCED, for another whose term is `term`. Raises `ContinuityError`."""
        self.step(step)
        self.yielded = term


def _require_for(ticket: Ticket, tenure: Tenure) -> None:
    if (ticket.deployment, ticket.slot) != (tenure.deployment, tenure.slot):
        raise ContinuityError(
            ContinuityCode.SLOT,
            f"the ticket is for {ticket.deployment}/{ticket.slot}, expected {tenure.deployment}/{tenure.slot}",
        )


class Fence:
    """What a third party remembers (a peer, a release service): the highest term of each slot, and whose it is.

    It is as good as its memory: whoever keeps it across restarts fences across restarts. At most `size` slots.
    """

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._highest: dict[tuple[str, str], tuple[int, bytes]] = {}

    def admit(self, deployment: str, slot: str, term: int, holder: bytes) -> None:
        """Accept a holder that was verified. Raises `ContinuityError`: TERM (a holder of the past), CLONE."""
        place = (deployment, slot)
        known, whose = self._highest.get(place, (0, holder))
        if term < known or not 1 <= term < MAX_TERM:
            raise ContinuityError(
                ContinuityCode.TERM, f"the holder of slot {slot} is of term {term}, and term {known} was seen already"
            )
        if term == known and not hmac.compare_digest(whose, holder):
            raise ContinuityError(
                ContinuityCode.CLONE, f"two enclaves claim term {term} of slot {slot}: one is a clone, trust neither"
            )
        if place not in self._highest and len(self._highest) >= self._size:
            raise ContinuityError(ContinuityCode.STATE, f"{self._size} slots are remembered already")
        self._highest[place] = (term, holder)


# ---- tickets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ticket:
    """The approvers' word that this enclave is the holder from this term on, though the one before cannot say so."""

    deployment: str
    slot: str
    term: int
    holder: bytes
    """The X25519 key (32 bytes) in the attestations of the enclave that is to be the holder."""
    backup: bytes | None = None
    """SHA-384 of the backup to restore; None: what the enclave has."""

    def __post_init__(self) -> None:
        fits = (
            isinstance(self.deployment, str)
            and names.DEPLOYMENT.fullmatch(self.deployment)
            and isinstance(self.slot, str)
            and names.is_name(self.slot)
            and type(self.term) is int
            and 1 <= self.term < MAX_TERM
            and isinstance(self.holder, bytes)
            and len(self.holder) == HOLDER_BYTES
            and (self.backup is None or (isinstance(self.backup, bytes) and len(self.backup) == 48))
        )
        if not fits:
            raise ContinuityError(
                ContinuityCode.MALFORMED, "a ticket names deployment, slot, term and a key of 32 bytes"
            )

    def encode(self) -> bytes:
        """What the approvers sign."""
        return canonical.encode(
            {
                "tea": TICKET_TAG,
                "deployment": self.deployment,
                "slot": self.slot,
                "term": self.term,
                "holder": self.holder,
                "backup": self.backup,
            }
        )


def sign_ticket(ticket: Ticket, key: Signer) -> bytes:
    """A ticket with its first signature. Verify the enclave's attestation before: the key in it becomes the holder."""
    return cose.sign(ticket.encode(), key, content_type=TICKET_CONTENT_TYPE)


def add_signature(ticket: bytes, key: Signer) -> bytes:
    """One more signature of the same ticket. Raises `ContinuityError(APPROVAL)`, twice by one key included."""
    try:
        return cose.add_signature(ticket, key)
    except SigningError as error:
        raise ContinuityError(ContinuityCode.APPROVAL, f"the ticket cannot be signed: {error.sentence}") from None


def verify_ticket(data: bytes, approvers: Approvers) -> Ticket:
    """The ticket that a quorum of these approvers signed, for their deployment. Raises `ContinuityError`."""
    try:
        payload = cose.verify_quorum(
            data, approvers.by_id(), approvers.threshold, content_type=TICKET_CONTENT_TYPE, limit=MAX_TICKET
        ).payload
    except SigningError as error:
        raise ContinuityError(ContinuityCode.APPROVAL, f"the ticket is not approved: {error.sentence}") from None
    ticket = _parse(payload)
    if ticket.deployment != approvers.deployment:
        raise ContinuityError(
            ContinuityCode.SLOT, f"the ticket is for {ticket.deployment!r}, expected {approvers.deployment!r}"
        )
    return ticket


def unverified_ticket(data: bytes) -> Ticket:
    """The ticket whose signatures NOBODY has checked: to show to a person who may sign it. Raises `ContinuityError`."""
    try:
        return _parse(cose.unverified_payload(data, limit=MAX_TICKET))
    except SigningError as error:
        raise ContinuityError(ContinuityCode.MALFORMED, f"this is no signed ticket: {error.sentence}") from None


def _parse(payload: bytes) -> Ticket:
    try:
        fields = canonical.decode_tagged(payload, TICKET_TAG, limit=MAX_TICKET)
        return Ticket(**fields)  # type: ignore[arg-type]  # __post_init__ checks what the annotations say
    except (canonical.CanonicalError, TypeError):
        raise ContinuityError(ContinuityCode.MALFORMED, "what was signed is no ticket") from None
