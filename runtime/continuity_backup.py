"""Backups as the host makes and restores them: one at a time each way, in pieces, sealed to keepers or to this boot.

May not: let a backup's key or state out in the clear, or take a state in before ticket, backup and shares fit together.
Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, NamedTuple

from tea.protocol.channels import Attestation, BackupMade
from tea.protocol.errors import CallError, Code
from tea.trust.backup import MAX_BACKUP, Backup, BackupBody, make_backup, parse_backup, restore
from tea.trust.continuity import ContinuityCode, ContinuityError, Ticket
from tea.trust.errors import TrustError
from tea.trust.handover_messages import PIECE_BYTES
from tea.trust.recovery import MAX_KEEPERS
from tea.trust.statement import Kind

from .continuity import Continuity, as_call_error
from .continuity_lent import ContinuityHost

KEEP_SECONDS: Final = 600.0
"""How long a backup that was made waits to be fetched."""
MAX_SHARE: Final = 1024
"""Bytes of a share that a keeper passed."""


class _Offer(NamedTuple):
    """A restore whose backup comes in."""

    envelope: bytes
    """Its ticket, with the signatures."""
    ticket: Ticket
    shares: tuple[bytes, ...]
    size: int
    data: bytearray


class BackupService:
    """One host's backup that waits to be fetched, and its restore that is under way."""

    def __init__(self, host: ContinuityHost) -> None:
        self._host = host
        self._made: tuple[bytes, bytes] | None = None
        """Digest and file."""
        self._offer: _Offer | None = None
        self._making = asyncio.Lock()

    # -- as holder ---------------------------------------------------------------------------------------------

    async def make(self, part: Continuity) -> BackupMade:
        """See `Control.backup`."""
        host, keepers = self._host, self._host.keepers
        if keepers is None:
            raise CallError(
                Code.CONFLICT,
                "the running manifest names no keepers, so nobody could restore: add `backup` and have it approved",
            )
        if self._making.locked():
            raise CallError(Code.CONFLICT, "another backup is being made: wait for it")
        async with self._making:
            manifest, tenure, made = host.manifest_digest, part.tenure, host.now_ms()
            term = tenure.term
            state = await part.exported()

            def sealed() -> tuple[bytes, bytes]:
                data = make_backup(
                    state,
                    deployment=tenure.deployment,
                    slot=tenure.slot,
                    term=term,
                    manifest=manifest,
                    made=made,
                    keepers=list(keepers.keepers.values()),
                    threshold=keepers.threshold,
                    split=self._split,
                    random=host.random,
                ).encode()
                return data, hashlib.sha384(data).digest()

            try:
                data, digest = await asyncio.to_thread(sealed)
            except TrustError as error:
                raise as_call_error(error) from None
            document, statement = await host.attest(Kind.ATTEST, BackupBody(digest).encode())
            if (host.manifest_digest, tenure.term) != (manifest, term):
                raise CallError(Code.CONFLICT, "another revision or term began meanwhile: make the backup anew")
            self._made = (digest, data)
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._forget, digest)
        host.log("info", "a backup was made for its keepers", term=term, bytes=len(data))
        return BackupMade(
            slot=tenure.slot,
            term=term,
            made=made,
            threshold=keepers.threshold,
            keepers=tuple(keepers.keepers),
            size=len(data),
            digest=digest,
            attestation=Attestation(document, statement),
        )

    def piece(self, digest: bytes, index: int) -> bytes:
        """See `Control.backup_piece`."""
        if self._made is None or not hmac.compare_digest(self._made[0], digest):
            raise CallError(Code.NOT_FOUND, "no such backup waits here: it is kept for ten minutes; make it anew")
        data = self._made[1]
        start = index * PIECE_BYTES
        if not 0 <= start < len(data):
            raise CallError(Code.INVALID, f"the backup of {len(data)} bytes has no piece {index}")
        return data[start : start + PIECE_BYTES]

    def _forget(self, digest: bytes) -> None:
        if self._made is not None and self._made[0] == digest:
            self._made = None

    def _split(self, secret: bytes, threshold: int, shares: int) -> list[bytes]:
        # Imported where it is needed: a manifest without backups does not load the crypto provider for it.
        from tea.providers.crypto import shamir

        return shamir.split(secret, threshold, shares, self._host.random)

    # -- as an empty standby -----------------------------------------------------------------------------------

    def offer(self, part: Continuity, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        """See `Control.restore_offer`."""
        self._offer = None
        try:
            verified = part.require_restorable(ticket)
        except TrustError as error:
            raise as_call_error(error) from None
        if not 1 <= size <= MAX_BACKUP:
            raise CallError(Code.INVALID, f"a backup has 1 to {MAX_BACKUP} bytes, not {size}")
        if not 1 <= len(shares) <= MAX_KEEPERS or max(map(len, shares)) > MAX_SHARE:
            raise CallError(Code.INVALID, f"a restore takes 1 to {MAX_KEEPERS} shares of at most {MAX_SHARE} bytes")
        self._offer = _Offer(ticket, verified, shares, size, bytearray())

    def take(self, index: int, data: bytes) -> None:
        """See `Control.restore_piece`."""
        offer = self._offer
        if offer is None:
            raise CallError(Code.CONFLICT, "no restore is under way: offer its ticket and shares first")
        expected = min(PIECE_BYTES, offer.size - len(offer.data))
        if index * PIECE_BYTES != len(offer.data) or len(data) != expected or not data:
            self._offer = None
            raise CallError(
                Code.INVALID, f"piece {index} of {len(data)} bytes, expected the next one of {expected}: begin anew"
            )
        offer.data.extend(data)

    async def restore(self, part: Continuity) -> None:
        """See `Control.restore`."""
        offer, self._offer = self._offer, None
        if offer is None or len(offer.data) < offer.size:
            raise CallError(Code.CONFLICT, "no backup came in whole: offer its ticket and shares, then all its pieces")
        try:
            # Once more: since the offer the approvers may be others, or a copy may have come in.
            part.require_restorable(offer.envelope)
            state = await asyncio.to_thread(self._opened, offer)
            await part.restored(offer.ticket, state)
        except (TrustError, ValueError) as error:
            refusal = as_call_error(error)
            self._host.log("warning", f"a restore was refused: {refusal.sentence}", term=offer.ticket.term)
            raise refusal from None

    def _opened(self, offer: _Offer) -> bytes:
        host, data = self._host, bytes(offer.data)
        named = offer.ticket.backup
        # The digest first: what the ticket does not name is not even parsed.
        if named is None or not hmac.compare_digest(hashlib.sha384(data).digest(), named):
            raise ContinuityError(ContinuityCode.APPROVAL, "this is another backup than the one that the ticket names")
        backup: Backup = parse_backup(data)
        return restore(
            backup, offer.ticket, offer.shares, key=host.sealing_key, manifest=host.manifest_digest, join=_join
        )


def _join(shares: Sequence[bytes]) -> bytes:
    from tea.providers.crypto import shamir

    try:
        return shamir.join(shares)
    except CallError as error:
        raise ValueError(error.sentence) from None
