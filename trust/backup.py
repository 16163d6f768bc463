"""A backup of a slot's state that no single person opens: k of n approvers, and only into an attested enclave.

May not: give the state, or its key, to anyone but an enclave that a quorum verified; keep shares.
Rule: docs/continuity.md, "Backups"; RFC 9180 (HPKE). Shamir's sharing itself is handed in (`Split`, `Join`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import canonical
from .attestation import parse_document, verify_document
from .continuity import ContinuityCode, ContinuityError, Ticket
from .handover import Random
from .handover_messages import MAX_STATE, Message
from .policy import Accepts
from .recovery import MAX_KEEPERS
from .sealing import SealError, SealingKey, seal
from .statement import Kind, verify_statement

BACKUP_TAG: Final = "tea.backup.v1"
MAX_BACKUP: Final = MAX_STATE + 256 * 1024
_NONCE: Final = 12
_DIGEST: Final = 48
_SKEW_MS: Final = 300_000

Split = Callable[[bytes, int, int], list[bytes]]
"""(secret, threshold, number of shares) -> shares."""
Join = Callable[[Sequence[bytes]], bytes]
"""Shares, at least as many as the threshold -> the secret. Raises `ValueError` on shares that do not fit."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A sealed backup. It may lie anywhere: it opens with `threshold` keepers and an attested enclave alone."""

    deployment: str
    slot: str
    term: int
    manifest: bytes
    """SHA-384 of the manifest under which it was made."""
    made: int
    """Milliseconds since the epoch, by the enclave: a keeper sees how old it is."""
    threshold: int
    shares: tuple[tuple[bytes, bytes], ...]
    """(a keeper's public key, that keeper's share sealed to it)."""
    sealed: bytes
    """Nonce and AES-256-GCM of the state under the shared key, bound to all the other fields."""

    def _fields(self) -> dict[str, object]:
        return {
            "tea": BACKUP_TAG,
            "deployment": self.deployment,
            "slot": self.slot,
            "term": self.term,
            "manifest": self.manifest,
            "made": self.made,
            "threshold": self.threshold,
        }

    def _bound(self) -> bytes:
        return canonical.encode({**self._fields(), "keepers": [key for key, _ in self.shares]})

    def encode(self) -> bytes:
        """The backup's file."""
        shares = [list(share) for share in self.shares]
        return canonical.encode({**self._fields(), "shares": shares, "sealed": self.sealed})

    @property
    def digest(self) -> bytes:
        """SHA-384 of the file: what a ticket names."""
        return hashlib.sha384(self.encode()).digest()


def make_backup(
    state: bytes,
    *,
    deployment: str,
    slot: str,
    term: int,
    manifest: bytes,
    made: int,
    keepers: Sequence[bytes],
    threshold: int,
    split: Split,
    random: Random,
) -> Backup:
    """A backup for these keepers (X25519 keys of the approved manifest), `threshold` (at least 2) of whom restore it.

    The host attests `BackupBody(backup.digest)` (kind `attest`, no nonce) beside it: `verify_origin` wants that.
    """
    if not 2 <= threshold <= len(set(keepers)) == len(keepers) <= MAX_KEEPERS:
        raise ValueError(f"a backup has 2 to {MAX_KEEPERS} different keepers, and a threshold of 2 to their number")
    if len(state) > MAX_STATE:
        raise ContinuityError(ContinuityCode.MALFORMED, f"a state has at most {MAX_STATE} bytes, not {len(state)}")
    key, nonce = random(32), random(_NONCE)
    purpose = _purpose(deployment, slot, term, made)
    shares = tuple(
        (keeper, seal(keeper, share, purpose=purpose, actor=None, manifest_digest=manifest))
        for keeper, share in zip(keepers, split(key, threshold, len(keepers)), strict=True)
    )
    empty = Backup(deployment, slot, term, manifest, made, threshold, shares, b"")
    sealed = nonce + AESGCM(key).encrypt(nonce, state, empty._bound())
    return Backup(deployment, slot, term, manifest, made, threshold, shares, sealed)


def parse_backup(data: bytes) -> Backup:
    """Read a backup's file. Raises `ContinuityError(MALFORMED)`. Nothing in it is believed until it opens."""
    try:
        fields = canonical.decode_tagged(data, BACKUP_TAG, limit=MAX_BACKUP)
    except canonical.CanonicalError as error:
        raise ContinuityError(ContinuityCode.MALFORMED, f"this is no backup: {error}") from None
    kinds: dict[str, type] = {
        "deployment": str,
        "slot": str,
        "term": int,
        "manifest": bytes,
        "made": int,
        "threshold": int,
        "shares": list,
        "sealed": bytes,
    }
    if fields.keys() != kinds.keys() or any(type(fields[name]) is not kind for name, kind in kinds.items()):
        raise ContinuityError(ContinuityCode.MALFORMED, "a backup has other fields")
    shares = fields.pop("shares")
    assert isinstance(shares, list)
    pairs: list[tuple[bytes, bytes]] = []
    for pair in shares:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(item, bytes) for item in pair)):
            raise ContinuityError(ContinuityCode.MALFORMED, "a backup's shares are pairs of key and sealed share")
        pairs.append((pair[0], pair[1]))  # type: ignore[arg-type]
    backup = Backup(shares=tuple(pairs), **fields)  # type: ignore[arg-type]
    if not 2 <= backup.threshold <= len(pairs) <= MAX_KEEPERS or len(backup.manifest) != _DIGEST:
        raise ContinuityError(ContinuityCode.MALFORMED, "a backup's threshold, keepers or manifest do not fit")
    return backup


@dataclass(frozen=True, slots=True)
class BackupBody(Message):
    """The body of the statement by which a holder vouches for a backup: else anyone could make one up."""

    tag = "tea.continuity-backup.v1"
    digest: bytes


def verify_origin(backup: Backup, document: bytes, statement: bytes, policy: Accepts) -> None:
    """Raise `TrustError` unless an enclave that `policy` accepts made this backup, as of the document's own time."""
    at = parse_document(document).timestamp
    genuine = verify_document(document, roots=policy.roots(), at=at)
    said = verify_statement(genuine, statement)
    policy.require(genuine, said, now_ms=at, kind=Kind.ATTEST)
    body = BackupBody.parse(said.body)
    if not hmac.compare_digest(body.digest, backup.digest):
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "genuine evidence, but of another backup than this one")
    if (said.deployment, said.manifest) != (backup.deployment, backup.manifest) or abs(at - backup.made) > _SKEW_MS:
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "the backup says another origin or time than its evidence")


def pass_share(
    backup: Backup,
    keeper: SealingKey,
    ticket: Ticket,
    *,
    enclave_key: bytes,
    manifest: bytes,
    origin: tuple[bytes, bytes],
    policy: Accepts,
) -> bytes:
    """A keeper's share, sealed anew to the enclave that is to restore: the keeper's own machine does this.

    The keeper has verified that enclave's attestation, whose public_key is `enclave_key` and whose statement names
    `manifest`, and signed `ticket` for it. `origin` is the backup's (document, statement), which `policy` must accept.
    Raises `TrustError`.
    """
    verify_origin(backup, *origin, policy)
    if ticket.backup is None or not hmac.compare_digest(ticket.backup, backup.digest):
        raise ContinuityError(ContinuityCode.APPROVAL, "the ticket is not for this backup")
    if not hmac.compare_digest(ticket.holder, enclave_key):
        raise ContinuityError(ContinuityCode.CLONE, "the ticket names another enclave than the one that was verified")
    mine = next((sealed for key, sealed in backup.shares if hmac.compare_digest(key, keeper.public)), None)
    if mine is None:
        raise ContinuityError(ContinuityCode.APPROVAL, "this key keeps no share of this backup")
    purpose = _purpose(backup.deployment, backup.slot, backup.term, backup.made)
    try:
        share = keeper.open(mine, purpose=purpose, actor=None, manifest_digest=backup.manifest)
        return seal(enclave_key, share, purpose=_passing(ticket), actor=None, manifest_digest=manifest)
    except SealError as error:
        raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, error.sentence) from None


def restore(
    backup: Backup, ticket: Ticket, passed: Sequence[bytes], *, key: SealingKey, manifest: bytes, join: Join
) -> bytes:
    """The state, from the shares that keepers passed to this enclave (`key` its own, `manifest` its active one).

    `ticket` was verified (`verify_ticket`); `Tenure.promote` with it makes this enclave the holder afterwards. Raises
    `ContinuityError`.
    """
    if ticket.backup is None or not hmac.compare_digest(ticket.backup, backup.digest):
        raise ContinuityError(ContinuityCode.APPROVAL, "the ticket is not for this backup")
    if (ticket.deployment, ticket.slot) != (backup.deployment, backup.slot):
        raise ContinuityError(ContinuityCode.SLOT, "the ticket and the backup are for different slots")
    if ticket.term <= backup.term:
        raise ContinuityError(
            ContinuityCode.TERM, f"the ticket's term is {ticket.term}, expected above the backup's {backup.term}"
        )
    require_shares(backup.threshold, len(passed), len(backup.shares))
    shares = [_opened(number, sealed, ticket, key, manifest) for number, sealed in enumerate(passed, 1)]
    if len(set(shares)) < len(shares):
        raise ContinuityError(
            ContinuityCode.APPROVAL,
            f"one keeper's share is there twice: {len(set(shares))} keepers passed theirs, expected each once and "
            f"{backup.threshold} of them at least",
        )
    try:
        shared = join(shares)
        nonce, ciphertext = backup.sealed[:_NONCE], backup.sealed[_NONCE:]
        return AESGCM(shared).decrypt(nonce, ciphertext, backup._bound())
    except (InvalidTag, ValueError):
        raise ContinuityError(
            ContinuityCode.DOES_NOT_OPEN, "the shares do not open this backup: it was changed, or they are of another"
        ) from None


def require_shares(threshold: int, passed: int, keepers: int) -> None:
    """Raise `ContinuityError(APPROVAL)` unless enough keepers passed a share, and no more than there are."""
    if not threshold <= passed <= keepers:
        raise ContinuityError(
            ContinuityCode.APPROVAL,
            f"{passed} of {keepers} keepers passed their share, expected {threshold} to {keepers}",
        )


def _opened(number: int, sealed: bytes, ticket: Ticket, key: SealingKey, manifest: bytes) -> bytes:
    try:
        return key.open(sealed, purpose=_passing(ticket), actor=None, manifest_digest=manifest)
    except SealError:
        raise ContinuityError(
            ContinuityCode.DOES_NOT_OPEN,
            f"share {number} does not open: it was changed, or passed to another enclave, for another manifest than "
            "the one that runs here, or under another ticket: have its keeper pass it anew",
        ) from None


def _purpose(deployment: str, slot: str, term: int, made: int) -> str:
    return f"backup-share:{deployment}/{slot}/{term}/{made}"


def _passing(ticket: Ticket) -> str:
    return f"backup-pass:{hashlib.sha384(ticket.encode()).hexdigest()}"
