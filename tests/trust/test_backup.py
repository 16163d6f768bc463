"""A backup opens with k keepers and an attested enclave, and with nothing less.

May not: use keys of anybody. Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.protocol.errors import CallError
from tea.providers.crypto import shamir
from tea.trust.backup import (
    Backup,
    BackupBody,
    make_backup,
    parse_backup,
    pass_share,
    restore,
    verify_origin,
)
from tea.trust.continuity import ContinuityCode, ContinuityError, Ticket
from tea.trust.errors import TrustError
from tea.trust.sealing import SealingKey
from tea.trust.statement import Kind

from .continuity_enclaves import NOW_MS, SLOT, Enclave, holder

KEEPERS = [SealingKey.generate() for _ in range(3)]
STATE = b"keys and kvp"


def split(secret: bytes, threshold: int, shares: int) -> list[bytes]:
    return shamir.split(secret, threshold, shares, os.urandom)


def join(shares: Sequence[bytes]) -> bytes:
    try:
        return shamir.join(shares)
    except CallError as error:
        raise ValueError(error.sentence) from None


OLD, NEW = holder(STATE), Enclave()


def made(state: bytes = STATE, **changes: Any) -> Backup:
    given: dict[str, Any] = {
        "deployment": "d",
        "slot": SLOT,
        "term": 1,
        "manifest": OLD.manifest.digest,
        "made": NOW_MS,
        "keepers": [keeper.public for keeper in KEEPERS],
        "threshold": 2,
        "split": split,
        "random": os.urandom,
        **changes,
    }
    return make_backup(state, **given)


BACKUP = made()
ORIGIN = OLD.attest(Kind.ATTEST, BackupBody(BACKUP.digest).encode(), None)
TICKET = Ticket("d", SLOT, 2, NEW.key.public, BACKUP.digest)


def passed(keeper: SealingKey, backup: Backup = BACKUP, ticket: Ticket = TICKET) -> bytes:
    return pass_share(
        backup,
        keeper,
        ticket,
        enclave_key=NEW.key.public,
        manifest=NEW.manifest.digest,
        origin=ORIGIN,
        policy=OLD.policy(),
    )


def restored(shares: Sequence[bytes], backup: Backup = BACKUP, ticket: Ticket = TICKET) -> bytes:
    return restore(backup, ticket, shares, key=NEW.key, manifest=NEW.manifest.digest, join=join)


def code_of(work: Callable[[], object]) -> object:
    with pytest.raises(TrustError) as caught:
        work()
    return caught.value.code


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (2, 1)])
def test_any_two_of_three_keepers_restore_into_the_enclave_that_the_ticket_names(pair: tuple[int, int]) -> None:
    backup = parse_backup(BACKUP.encode())
    assert backup == BACKUP
    assert restored([passed(KEEPERS[index], backup) for index in pair], backup) == STATE


def test_fewer_keepers_restore_nothing() -> None:
    one = passed(KEEPERS[0])
    assert code_of(lambda: restored([one])) == ContinuityCode.APPROVAL
    assert code_of(lambda: restored([one, one])) == ContinuityCode.APPROVAL
    assert code_of(lambda: restored([one] * 4)) == ContinuityCode.APPROVAL


def test_a_share_that_does_not_open_is_named_by_its_place() -> None:
    first, second = (passed(keeper) for keeper in KEEPERS[:2])
    for wrong in (b"", second[:-1] + bytes([second[-1] ^ 1])):
        with pytest.raises(ContinuityError, match="share 2 does not open") as caught:
            restored([first, wrong])
        assert caught.value.code is ContinuityCode.DOES_NOT_OPEN


def test_a_stranger_keeps_no_share() -> None:
    assert code_of(lambda: passed(SealingKey.generate())) == ContinuityCode.APPROVAL


def test_a_share_is_passed_to_the_enclave_of_the_ticket_alone() -> None:
    other = dataclasses.replace(TICKET, holder=bytes(31) + b"\1")
    assert code_of(lambda: passed(KEEPERS[0], ticket=other)) == ContinuityCode.CLONE
    shares = [passed(keeper) for keeper in KEEPERS[:2]]
    thief = SealingKey.generate()
    assert (
        code_of(lambda: restore(BACKUP, TICKET, shares, key=thief, manifest=NEW.manifest.digest, join=join))
        == ContinuityCode.DOES_NOT_OPEN
    )
    assert (
        code_of(lambda: restore(BACKUP, TICKET, shares, key=NEW.key, manifest=bytes(48), join=join))
        == ContinuityCode.DOES_NOT_OPEN
    )


def test_a_share_passed_under_one_ticket_is_worth_nothing_under_another() -> None:
    shares = [passed(keeper) for keeper in KEEPERS[:2]]
    later = dataclasses.replace(TICKET, term=3)
    assert code_of(lambda: restored(shares, ticket=later)) == ContinuityCode.DOES_NOT_OPEN


@pytest.mark.parametrize("named", [None, bytes(48)])
def test_a_ticket_for_another_backup_is_refused(named: bytes | None) -> None:
    ticket = dataclasses.replace(TICKET, backup=named)
    assert code_of(lambda: passed(KEEPERS[0], ticket=ticket)) == ContinuityCode.APPROVAL
    assert code_of(lambda: restored([], ticket=ticket)) == ContinuityCode.APPROVAL


def test_a_ticket_of_another_slot_or_an_old_term_restores_nothing() -> None:
    assert code_of(lambda: restored([], ticket=dataclasses.replace(TICKET, slot="e2"))) == ContinuityCode.SLOT
    assert code_of(lambda: restored([], ticket=dataclasses.replace(TICKET, term=1))) == ContinuityCode.TERM


def test_a_backup_that_no_approved_enclave_made_is_refused_by_its_keepers() -> None:
    made_up = made(b"state of a thief")
    ticket = dataclasses.replace(TICKET, backup=made_up.digest)
    assert code_of(lambda: passed(KEEPERS[0], made_up, ticket)) == ContinuityCode.TRANSCRIPT
    outsider = Enclave(image={index: bytes([9]) * 48 for index in range(3)})
    evidence = outsider.attest(Kind.ATTEST, BackupBody(made_up.digest).encode(), None)
    with pytest.raises(TrustError):
        verify_origin(made_up, *evidence, OLD.policy())


@pytest.mark.parametrize("wrong", [{"made": NOW_MS - 301_000}, {"manifest": bytes(48)}, {"deployment": "other"}])
def test_a_backup_that_says_another_origin_than_its_evidence_is_refused(wrong: dict[str, Any]) -> None:
    backup = made(**wrong)
    evidence = OLD.attest(Kind.ATTEST, BackupBody(backup.digest).encode(), None)
    assert code_of(lambda: verify_origin(backup, *evidence, OLD.policy())) == ContinuityCode.TRANSCRIPT


def test_a_changed_backup_does_not_open() -> None:
    shares = [passed(keeper) for keeper in KEEPERS[:2]]
    changes: list[dict[str, Any]] = [
        {"sealed": BACKUP.sealed[:-1] + bytes([BACKUP.sealed[-1] ^ 1])},
        {"sealed": b""},
        {"made": BACKUP.made + 1},
    ]
    for change in changes:
        backup = dataclasses.replace(BACKUP, **change)
        ticket = dataclasses.replace(TICKET, backup=backup.digest)
        # The shares of the genuine one, sealed anew by an accomplice for this ticket.
        from tea.trust.backup import _passing
        from tea.trust.sealing import seal

        again = [
            seal(
                NEW.key.public,
                NEW.key.open(share, purpose=_passing(TICKET), actor=None, manifest_digest=NEW.manifest.digest),
                purpose=_passing(ticket),
                actor=None,
                manifest_digest=NEW.manifest.digest,
            )
            for share in shares
        ]
        assert code_of(partial(restored, again, backup, ticket)) == ContinuityCode.DOES_NOT_OPEN


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1}, {"threshold": 4}, {"keepers": [KEEPERS[0].public] * 3}, {"keepers": []}]
)
def test_a_backup_that_one_keeper_opens_is_our_own_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keepers"):
        made(**wrong)


def test_what_is_no_backup_is_refused() -> None:
    good = BACKUP.encode()
    for data in (b"", good[:-1], good + b"\0"):
        assert code_of(partial(parse_backup, data)) == ContinuityCode.MALFORMED
    changes: list[dict[str, Any]] = [
        {"threshold": 1},
        {"threshold": 4},
        {"manifest": b""},
        {"slot": 1},
        {"shares": ((b"a", 1),)},
    ]
    for change in changes:
        wrong = dataclasses.replace(BACKUP, **change)
        assert code_of(partial(parse_backup, wrong.encode())) == ContinuityCode.MALFORMED


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_backup_or_a_continuity_error(data: bytes) -> None:
    try:
        parse_backup(data)
    except ContinuityError:
        pass
