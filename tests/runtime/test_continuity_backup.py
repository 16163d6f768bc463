"""A backup of real kvp and crypto state goes out sealed to its keepers, and comes back by a quorum and k of them only.

May not: start processes; `tests/simulator/test_backup.py` does. Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tea.protocol.channels import BackupMade
from tea.protocol.errors import CallError, Code
from tea.providers.testing import invoke
from tea.runtime import continuity_backup
from tea.runtime.continuity import Continuity
from tea.runtime.continuity_backup import BackupService
from tea.trust.approval import Approvers
from tea.trust.backup import parse_backup, pass_share
from tea.trust.continuity import ContinuityCode, Role, Ticket, add_signature, sign_ticket
from tea.trust.handover_messages import PIECE_BYTES

from .continuity_hosts import COUNTER, KEEPERS, SLOT, A, B, C, OneHost, fresh, holding


@dataclass
class Kept:
    """A backup that was fetched, with what made it."""

    host: OneHost
    part: Continuity
    made: BackupMade
    data: bytes

    def ticket(self, host: OneHost, term: int = 2, backup: bytes | None = None) -> Ticket:
        return Ticket("d", SLOT, term, host.key.public, backup or self.made.digest)

    def passed(self, host: OneHost, ticket: Ticket, *names: str, manifest: bytes | None = None) -> tuple[bytes, ...]:
        """What these keepers pass to an enclave that they verified."""
        return tuple(
            pass_share(
                parse_backup(self.data),
                KEEPERS[name],
                ticket,
                enclave_key=host.key.public,
                manifest=manifest or host.manifest_digest,
                origin=(self.made.attestation.document, self.made.attestation.statement),
                policy=self.host.policy(),
            )
            for name in names or ("alice", "carol")
        )


def signed(ticket: Ticket) -> bytes:
    return add_signature(sign_ticket(ticket, A), B)


def fetched(service: BackupService, made: BackupMade) -> bytes:
    pieces = range(-(-made.size // PIECE_BYTES))
    return b"".join(service.piece(made.digest, index) for index in pieces)


async def kept(size: int = 400_000, **options: Any) -> Kept:
    """A holder with state and a key, and a backup of both."""
    host, part = await holding(**options)
    await invoke(host.providers["kvp"], "set", "k", b"v" * size, call=COUNTER)
    service = BackupService(host)
    made = await service.make(part)
    return Kept(host, part, made, fetched(service, made))


def sent(service: BackupService, part: Continuity, ticket: bytes, shares: Sequence[bytes], data: bytes) -> None:
    service.offer(part, ticket, tuple(shares), len(data))
    for index, start in enumerate(range(0, len(data), PIECE_BYTES)):
        service.take(index, data[start : start + PIECE_BYTES])


async def restored(host: OneHost, part: Continuity, ticket: bytes, shares: Sequence[bytes], data: bytes) -> None:
    service = BackupService(host)
    sent(service, part, ticket, shares, data)
    await service.restore(part)


async def refused(host: OneHost, part: Continuity, ticket: bytes, shares: Sequence[bytes], data: bytes) -> CallError:
    """The refusal of a restore, after which the enclave is as empty as before."""
    with pytest.raises(CallError) as caught:
        await restored(host, part, ticket, shares, data)
    assert part.tenure.role is Role.EMPTY and not part.serves
    assert await invoke(host.providers["kvp"], "get", "k", call=COUNTER) is None
    return caught.value


@pytest.mark.parametrize("revision", [1, 2])
async def test_two_of_three_keepers_bring_keys_and_state_back(revision: int) -> None:
    host, part = await holding()
    await invoke(host.providers["kvp"], "set", "k", b"v" * 500_000, call=COUNTER)
    handle = await invoke(host.providers["crypto"], "generate", "ed25519", call=COUNTER)
    public = await invoke(host.providers["crypto"], "public_key", handle, call=COUNTER)
    service = BackupService(host)
    made = await service.make(part)
    assert part.serves and not host.frozen
    assert (made.slot, made.term, made.threshold, made.keepers) == (SLOT, 1, 2, ("alice", "bob", "carol"))
    one = Kept(host, part, made, fetched(service, made))
    assert hashlib.sha384(one.data).digest() == made.digest and len(one.data) == made.size
    new_host, new = await fresh(revision=revision)
    ticket = one.ticket(new_host, 7)
    await restored(new_host, new, signed(ticket), one.passed(new_host, ticket, "carol", "bob"), one.data)
    assert new.serves and new.tenure.term == 7 and not new_host.frozen
    assert await invoke(new_host.providers["kvp"], "get", "k", call=COUNTER) == b"v" * 500_000
    assert await invoke(new_host.providers["crypto"], "public_key", handle, call=COUNTER) == public
    # The same ticket retires the holder before, should it still live; a third enclave has no use for it.
    await part.present(signed(ticket))
    assert not part.serves


async def test_nothing_of_the_state_is_in_the_file_or_the_log() -> None:
    one = await kept(100)
    await invoke(one.host.providers["kvp"], "set", "secret", b"TOP SECRET", call=COUNTER)
    service = BackupService(one.host)
    data = fetched(service, await service.make(one.part))
    assert b"SECRET" not in data
    assert "SECRET" not in "".join(one.host.logs)


async def test_fewer_keepers_than_the_threshold_restore_nothing() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    error = await refused(host, part, signed(ticket), one.passed(host, ticket, "bob"), one.data)
    assert (error.code, error.details["reason"]) == (Code.UNTRUSTED, ContinuityCode.APPROVAL)
    assert "1 of 3 keepers passed their share, expected 2 to 3" in error.sentence


async def test_one_keeper_s_share_counts_once_however_often_it_is_passed() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    shares = one.passed(host, ticket, "bob", "bob")
    assert shares[0] != shares[1]
    error = await refused(host, part, signed(ticket), shares, one.data)
    assert error.details["reason"] == ContinuityCode.APPROVAL
    assert "one keeper's share is there twice" in error.sentence


async def test_a_twisted_share_is_named_by_its_place() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    first, second = one.passed(host, ticket)
    error = await refused(host, part, signed(ticket), (first, second[:-1] + bytes([second[-1] ^ 1])), one.data)
    assert error.details["reason"] == ContinuityCode.DOES_NOT_OPEN
    assert "share 2 does not open" in error.sentence
    error = await refused(host, part, signed(ticket), (first, b"short"), one.data)
    assert "share 2 does not open" in error.sentence


async def test_a_share_of_another_backup_opens_nothing() -> None:
    one, other = await kept(), await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    # An accomplice passes the share of another backup under this ticket.
    from tea.trust.backup import _passing
    from tea.trust.sealing import seal

    (share,) = other.passed(host, other.ticket(host), "carol")
    raw = host.key.open(share, purpose=_passing(other.ticket(host)), actor=None, manifest_digest=host.manifest_digest)
    twisted = seal(host.key.public, raw, purpose=_passing(ticket), actor=None, manifest_digest=host.manifest_digest)
    error = await refused(host, part, signed(ticket), (*one.passed(host, ticket, "alice"), twisted), one.data)
    assert error.details["reason"] == ContinuityCode.DOES_NOT_OPEN


async def test_a_share_passed_for_another_manifest_does_not_open_here() -> None:
    one = await kept()
    host, part = await fresh(revision=2)
    ticket = one.ticket(host)
    shares = one.passed(host, ticket, manifest=one.host.manifest_digest)
    error = await refused(host, part, signed(ticket), shares, one.data)
    assert error.details["reason"] == ContinuityCode.DOES_NOT_OPEN
    assert "another manifest" in error.sentence


async def test_another_enclave_restores_nothing_from_a_ticket_and_shares_that_name_the_first() -> None:
    one = await kept()
    host, _ = await fresh()
    clone_host, clone = await fresh()
    ticket = one.ticket(host)
    error = await refused(clone_host, clone, signed(ticket), one.passed(host, ticket), one.data)
    assert error.details["reason"] == ContinuityCode.CLONE


async def test_an_older_backup_than_the_ticket_names_is_refused_unread() -> None:
    one = await kept()
    host, part = await fresh()
    later = await BackupService(one.host).make(one.part)
    ticket = one.ticket(host, backup=later.digest)
    error = await refused(host, part, signed(ticket), (b"share", b"share"), one.data)
    assert error.details["reason"] == ContinuityCode.APPROVAL
    assert "another backup than the one that the ticket names" in error.sentence


async def test_a_term_that_the_backup_has_seen_is_refused() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host, term=1)
    error = await refused(host, part, signed(ticket), one.passed(host, ticket), one.data)
    assert error.details["reason"] == ContinuityCode.TERM


async def test_a_ticket_of_another_slot_is_refused_before_anything_comes_in() -> None:
    one = await kept()
    host, part = await fresh()
    error = await refused(
        host, part, signed(Ticket("d", "e2", 2, host.key.public, one.made.digest)), (b"share",), one.data
    )
    assert error.details["reason"] == ContinuityCode.SLOT


async def test_a_ticket_that_too_few_or_the_approvers_of_yesterday_signed_is_refused() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    shares = one.passed(host, ticket)
    error = await refused(host, part, sign_ticket(ticket, A), shares, one.data)
    assert error.details["reason"] == ContinuityCode.APPROVAL
    host.quorum = Approvers("d", 2, 2, tuple(sorted((A.public, C.public), key=lambda key: key.text)))
    error = await refused(host, part, signed(ticket), shares, one.data)
    assert error.details["reason"] == ContinuityCode.APPROVAL
    await restored(host, part, add_signature(sign_ticket(ticket, A), C), shares, one.data)
    assert part.serves


@pytest.mark.parametrize("reason", [ContinuityCode.STATE, ContinuityCode.APPROVAL])
async def test_what_changed_since_the_offer_counts_when_the_backup_is_restored(reason: ContinuityCode) -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    service = BackupService(host)
    sent(service, part, signed(ticket), one.passed(host, ticket), one.data)
    if reason is ContinuityCode.STATE:
        part.tenure.role = Role.STANDBY  # a copy came in
    else:
        host.quorum = Approvers("d", 2, 2, tuple(sorted((A.public, C.public), key=lambda key: key.text)))
    with pytest.raises(CallError) as caught:
        await service.restore(part)
    assert caught.value.details["reason"] == reason
    assert not part.serves
    assert await invoke(host.providers["kvp"], "get", "k", call=COUNTER) is None


async def test_a_ticket_without_a_backup_restores_none() -> None:
    one = await kept()
    host, part = await fresh()
    error = await refused(host, part, signed(Ticket("d", SLOT, 2, host.key.public)), (b"share",), one.data)
    assert error.details["reason"] == ContinuityCode.APPROVAL


async def test_who_holds_the_slot_already_or_held_it_takes_no_backup() -> None:
    one = await kept()
    host, part = await holding()
    ticket = one.ticket(host)
    for role in (Role.ACTIVE, Role.RETIRED, Role.STANDBY):
        part.tenure.role = role
        with pytest.raises(CallError, match=f"is {role} for slot e1 already") as caught:
            BackupService(host).offer(part, signed(ticket), one.passed(host, ticket), len(one.data))
        assert caught.value.details["reason"] == ContinuityCode.STATE


async def test_a_restore_works_once() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    shares = one.passed(host, ticket)
    await restored(host, part, signed(ticket), shares, one.data)
    with pytest.raises(CallError) as caught:
        await restored(host, part, signed(ticket), shares, one.data)
    assert caught.value.details["reason"] == ContinuityCode.STATE
    assert part.serves


async def test_a_state_that_no_provider_takes_leaves_the_enclave_empty() -> None:
    one = await kept()
    host, part = await fresh()
    host.import_error = ValueError("kvp takes no such state")
    ticket = one.ticket(host)
    error = await refused(host, part, signed(ticket), one.passed(host, ticket), one.data)
    assert error.code is Code.CONFLICT
    host.import_error = None
    await restored(host, part, signed(ticket), one.passed(host, ticket), one.data)
    assert part.serves


async def test_a_changed_backup_is_not_the_one_that_the_ticket_names() -> None:
    one = await kept()
    host, part = await fresh()
    ticket = one.ticket(host)
    changed = one.data[:-1] + bytes([one.data[-1] ^ 1])
    error = await refused(host, part, signed(ticket), one.passed(host, ticket), changed)
    assert error.details["reason"] == ContinuityCode.APPROVAL
    garbage = b"no backup at all"
    ticket = one.ticket(host, backup=hashlib.sha384(garbage).digest())
    error = await refused(host, part, signed(ticket), (b"share", b"share"), garbage)
    assert error.details["reason"] == ContinuityCode.MALFORMED


async def test_only_a_holder_is_backed_up() -> None:
    host, part = await fresh()
    with pytest.raises(CallError, match="only its holder is backed up") as caught:
        await BackupService(host).make(part)
    assert caught.value.code is Code.CONFLICT
    host, part = await holding()
    part.tenure.role = Role.RETIRED
    with pytest.raises(CallError, match="retired"):
        await BackupService(host).make(part)


async def test_without_keepers_in_the_approved_manifest_no_backup_is_made() -> None:
    host, part = await holding(keepers=False)
    with pytest.raises(CallError, match="names no keepers") as caught:
        await BackupService(host).make(part)
    assert caught.value.code is Code.CONFLICT and part.serves


async def test_a_backup_over_which_another_revision_went_live_is_made_anew() -> None:
    host, part = await holding()
    attest = host.attest

    async def upgraded(*args: Any, **options: Any) -> tuple[bytes, bytes]:
        host.manifest = (await fresh(revision=2))[0].manifest
        return await attest(*args, **options)

    host.attest = upgraded  # type: ignore[method-assign]
    with pytest.raises(CallError, match="make the backup anew") as caught:
        await BackupService(host).make(part)
    assert caught.value.code is Code.CONFLICT and part.serves and not host.frozen


async def test_an_export_that_fails_leaves_the_holder_serving() -> None:
    host, part = await holding()

    async def failing() -> dict[str, bytes]:
        raise CallError(Code.CONFLICT, "actors were not done")

    host.export_states = failing  # type: ignore[method-assign]
    with pytest.raises(CallError, match="not done"):
        await BackupService(host).make(part)
    assert part.serves and not host.frozen


async def test_a_piece_is_of_the_backup_that_was_made_last(monkeypatch: pytest.MonkeyPatch) -> None:
    host, part = await holding()
    service = BackupService(host)
    first = await service.make(part)
    second = await service.make(part)
    with pytest.raises(CallError) as gone:
        service.piece(first.digest, 0)
    assert gone.value.code is Code.NOT_FOUND
    for index in (-1, 1, 1 << 40):
        with pytest.raises(CallError) as beyond:
            service.piece(second.digest, index)
        assert beyond.value.code is Code.INVALID
    monkeypatch.setattr(continuity_backup, "KEEP_SECONDS", 0.0)
    third = await service.make(part)
    service._forget(third.digest)
    with pytest.raises(CallError, match="kept for ten minutes"):
        service.piece(third.digest, 0)


def offered(service: BackupService, part: Continuity, one: Kept, host: OneHost) -> None:
    ticket = one.ticket(host)
    service.offer(part, signed(ticket), one.passed(host, ticket), len(one.data))


@pytest.mark.parametrize(
    "piece",
    [
        lambda data: (1, data[:PIECE_BYTES]),
        lambda data: (0, data[: PIECE_BYTES - 1]),
        lambda data: (0, data[: PIECE_BYTES + 1]),
        lambda data: (0, b""),
        lambda data: (-1, data[:PIECE_BYTES]),
    ],
)
async def test_a_piece_out_of_order_or_size_ends_the_restore(piece: Callable[[bytes], tuple[int, bytes]]) -> None:
    one = await kept()
    host, part = await fresh()
    service = BackupService(host)
    offered(service, part, one, host)
    with pytest.raises(CallError) as caught:
        service.take(*piece(one.data))
    assert caught.value.code is Code.INVALID
    with pytest.raises(CallError) as ended:
        service.take(0, one.data[:PIECE_BYTES])
    assert ended.value.code is Code.CONFLICT


async def test_a_restore_waits_for_all_its_pieces() -> None:
    one = await kept()
    host, part = await fresh()
    service = BackupService(host)
    for begun in (False, True):
        if begun:
            offered(service, part, one, host)
        with pytest.raises(CallError, match="no backup came in whole") as caught:
            await service.restore(part)
        assert caught.value.code is Code.CONFLICT


@pytest.mark.parametrize(
    ("shares", "size"), [((), 10), ((b"s",) * 33, 10), ((bytes(1025),), 10), ((b"s",), 0), ((b"s",), 1 << 40)]
)
async def test_what_is_offered_is_bounded(shares: tuple[bytes, ...], size: int) -> None:
    one = await kept(10)
    host, part = await fresh()
    with pytest.raises(CallError) as caught:
        BackupService(host).offer(part, signed(one.ticket(host)), shares, size)
    assert caught.value.code is Code.INVALID
