"""What the state machine of the rounds asks of the actor around it. Each is done once, in order.

May not: do anything. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from typing import NamedTuple

from round_messages import Message

from tea.sdk.rounds import Certificate, RoundClaim, SlotAttestation


class Send(NamedTuple):
    """Send a message to a slot, or to all others."""

    to: str | None
    message: Message


class Draw(NamedTuple):
    """Draw 32 bytes from the NSM and hand them to `RoundBook.contributed`."""

    height: int


class Attest(NamedTuple):
    """Attest this claim; then `RoundBook.attested`, or `RoundBook.attesting_failed`."""

    claim: RoundClaim


class Verify(NamedTuple):
    """Verify a document for its slot; then `RoundBook.verified`, or `RoundBook.refused`."""

    attestation: SlotAttestation
    claim: RoundClaim
    """What the statement says, if the document vouches for it; the document's nonce has to be `claim.nonce`."""
    within: Certificate | None
    """The certificate that holds it: verify it at its own time. None: it is live, and has to be fresh."""


class Look(NamedTuple):
    """Look whether layer 1 has this height; if so, `RoundBook.head`."""

    height: int


class Quarantine(NamedTuple):
    """The own state dissents at this height."""

    height: int


class Reload(NamedTuple):
    """Load the layer-1 state anew."""


class Rejoin(NamedTuple):
    """Try to end the quarantine with the certified root of a height; then `RoundBook.rejoined`."""

    height: int
    state_root: bytes


class ReadNode(NamedTuple):
    """Read the own state's node; then send it to `answer_to`, or `RoundBook.node` when that is None."""

    height: int
    prefix: bytes
    answer_to: str | None


class Note(NamedTuple):
    """Log this."""

    level: str
    text: str
    fields: dict[str, str]


Command = Send | Draw | Attest | Verify | Look | Quarantine | Reload | Rejoin | ReadNode | Note
