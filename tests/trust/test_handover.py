"""A handover gives state to an attested, approved enclave alone, and never makes two holders, whatever parents do.

May not: mock an attestation. Rule: docs/continuity.md, "The handover".
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.trust import pcr
from tea.trust.attestation import AttestationCode, AttestationError
from tea.trust.continuity import ContinuityCode, ContinuityError, Role, Step, Tenure, Ticket
from tea.trust.errors import TrustError
from tea.trust.handover import Approved, holder_body, verify_tenancy
from tea.trust.handover_holder import HANDING_MS, HolderSide
from tea.trust.handover_messages import (
    PIECE_BYTES,
    Abort,
    Cancelled,
    Challenge,
    Commit,
    Contents,
    Fetch,
    Hello,
    HolderBody,
    Message,
    Parcel,
    Prepared,
    ReceiverBody,
    Request,
    pack_state,
    unpack_state,
)
from tea.trust.handover_receiver import ReceiverSide
from tea.trust.manifest import parse_manifest
from tea.trust.policy import PolicyCode, PolicyError
from tea.trust.sealing import SealingKey
from tea.trust.statement import Kind

from .continuity_enclaves import (
    NOW_MS,
    OTHER_INSTANCE,
    SLOT,
    A,
    B,
    C,
    Enclave,
    Exchange,
    approved,
    approvers_of,
    change_of_approvers,
    holder,
    manifest_of,
)


def code_of(work: Callable[[], object]) -> object:
    with pytest.raises(TrustError) as caught:
        work()
    return caught.value.code


# ---- what works


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES - 1])
def test_a_new_enclave_takes_the_state_over_and_the_old_one_retires(size: int) -> None:
    state = os.urandom(size)
    old, new = holder(state), Enclave()
    assert Exchange(old, new).run()
    assert new.state == state
    assert (old.tenure.role, old.tenure.term) == (Role.RETIRED, 1)
    assert (new.tenure.role, new.tenure.term) == (Role.ACTIVE, 2)


def test_a_newly_approved_manifest_receives_even_on_another_instance() -> None:
    old, new = holder(), Enclave(manifest=manifest_of(2, OTHER_INSTANCE), instance=OTHER_INSTANCE)
    assert Exchange(old, new).run()
    assert new.state == old.state


def test_a_manifest_of_new_approvers_receives_when_the_old_quorum_changed_them() -> None:
    change = change_of_approvers(approvers_of(2, (B, C)))
    manifest = manifest_of(2)
    new = Enclave(manifest=manifest, epoch=2, shown=approved(manifest, B, C, changes=(change,)))
    assert Exchange(holder(), new).run()


def test_a_standby_has_a_copy_and_does_not_serve() -> None:
    old, standby = holder(b"first"), Enclave()
    exchange = Exchange(old, standby, copy=True)
    exchange.take(exchange.parcel(exchange.request(exchange.challenge())))
    exchange.receiver.copied()
    assert standby.state == b"first"
    assert old.tenure.serves and not standby.tenure.serves
    assert (standby.tenure.role, standby.tenure.term) == (Role.STANDBY, 1)
    old.state = b"second"
    again = Exchange(old, standby, copy=True)
    again.take(again.parcel(again.request(again.challenge())))
    again.receiver.copied()
    assert standby.state == b"second"


def test_a_standby_whose_fresh_copy_fails_keeps_the_one_before() -> None:
    old, standby = holder(), Enclave()
    exchange = Exchange(old, standby, copy=True)
    exchange.take(exchange.parcel(exchange.request(exchange.challenge())))
    exchange.receiver.copied()
    ReceiverSide(standby.tenure, os.urandom, copy=True).failed()
    assert standby.tenure.role is Role.STANDBY
    fresh = Enclave()
    ReceiverSide(fresh.tenure, os.urandom).failed()
    assert fresh.tenure.role is Role.EMPTY


def test_a_commit_that_was_lost_is_said_again() -> None:
    exchange = Exchange(holder(), Enclave())
    prepared = exchange.until_prepared()
    assert exchange.holder is not None
    assert exchange.holder.prepared(prepared) == exchange.holder.prepared(exchange.receiver.prepared())
    assert exchange.receiver.committed(exchange.holder.prepared(prepared))


def test_a_holder_goes_on_when_the_receiver_stays_away_and_the_late_one_becomes_a_standby() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    prepared = exchange.until_prepared()
    side = exchange.holder
    assert side is not None
    assert not old.tenure.serves
    assert not side.expired(NOW_MS + HANDING_MS - 1)
    assert side.expired(NOW_MS + HANDING_MS)
    side.resume()
    assert old.tenure.serves and not side.expired(NOW_MS + HANDING_MS)
    assert exchange.receiver.committed(side.prepared(prepared)) is False
    assert new.tenure.role is Role.STANDBY
    assert old.tenure.serves


def test_a_receiver_that_cannot_take_it_in_lets_the_holder_go_on_at_once() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    exchange.take(exchange.parcel(exchange.request(exchange.challenge())))
    side = exchange.holder
    assert side is not None and not old.tenure.serves
    assert code_of(lambda: side.aborted(Abort(bytes(32)).encode())) == ContinuityCode.PROOF
    abort = exchange.receiver.failed()
    assert abort is not None
    assert side.aborted(abort) and old.tenure.serves
    assert not side.aborted(abort)
    assert new.tenure.role is Role.EMPTY
    assert code_of(exchange.receiver.prepared) == ContinuityCode.STATE


def test_a_holder_that_a_ticket_retired_commits_to_nobody() -> None:
    old = holder()
    exchange = Exchange(old, Enclave())
    prepared = exchange.until_prepared()
    old.tenure.step(Step.FENCED)
    assert exchange.holder is not None
    assert exchange.receiver.committed(exchange.holder.prepared(prepared)) is False


def test_a_ticket_that_was_held_back_wakes_no_holder_for_the_term_that_it_gave_away() -> None:
    old, new = holder(), Enclave()
    assert Exchange(old, new).run()
    key = bytes(32)
    held_back = Ticket(old.tenure.deployment, SLOT, new.tenure.term, key)
    assert code_of(lambda: old.tenure.promote(held_back, key)) is ContinuityCode.TERM
    assert (old.tenure.role, new.tenure.role) == (Role.RETIRED, Role.ACTIVE)


def test_anyone_can_ask_who_holds_a_slot() -> None:
    old = holder()
    document, statement = old.attest(Kind.ATTEST, holder_body(old.tenure), b"mine")
    tenancy = verify_tenancy(document, statement, old.policy(), nonce=b"mine", now_ms=NOW_MS)
    assert tenancy == ("d", SLOT, 1, Role.ACTIVE, old.key.public)


# ---- who gets nothing


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"image": {0: bytes([9]) * 48, 1: bytes([9]) * 48, 2: bytes([9]) * 48}}, PolicyCode.PCR),
        ({"debug": True}, PolicyCode.DEBUG),
        ({"instance": OTHER_INSTANCE}, PolicyCode.PCR),
        ({"manifest": manifest_of(2), "shown": approved(manifest_of(2), A)}, ContinuityCode.APPROVAL),
        ({"manifest": manifest_of(2), "shown": Approved(b"")}, ContinuityCode.APPROVAL),
        ({"manifest": manifest_of(2), "shown": approved(manifest_of(3))}, PolicyCode.MANIFEST),
        ({"manifest": manifest_of(1, OTHER_INSTANCE), "instance": OTHER_INSTANCE}, ContinuityCode.APPROVAL),
        ({"epoch": 0}, PolicyCode.EPOCH),
    ],
    ids=[
        "another image",
        "debug mode",
        "another instance",
        "too few approvals",
        "no approval",
        "another manifest's approval",
        "another manifest of the same revision",
        "an older approvers' epoch",
    ],
)
def test_an_enclave_that_is_not_approved_gets_nothing_and_the_holder_serves_on(
    changes: dict[str, Any], code: object
) -> None:
    old, new = holder(), Enclave(**changes)
    exchange = Exchange(old, new)
    exchange.receiver.challenged = lambda *_args, **_kwargs: None  # type: ignore[assignment,method-assign]
    challenge = exchange.challenge()
    # The receiver is a liar: it takes any holder.
    exchange.receiver._challenge, exchange.receiver._term = challenge, 1
    body = HolderBody.parse(_statement_body(Challenge.parse(challenge).statement))
    exchange.receiver.challenge_nonce = body.nonce
    request = exchange.request(challenge)
    assert code_of(lambda: exchange.parcel(request)) == code
    assert old.tenure.serves


def _statement_body(statement: bytes) -> bytes:
    from tea.trust.statement import parse_statement

    return parse_statement(statement).body


def test_an_enclave_of_an_older_revision_gets_nothing() -> None:
    old, new = holder(manifest=manifest_of(2)), Enclave(manifest=manifest_of(1))
    exchange = Exchange(old, new)
    assert code_of(lambda: exchange.request(exchange.challenge())) == ContinuityCode.APPROVAL
    assert code_of(lambda: old.of_receiver(new.approved)) == ContinuityCode.APPROVAL


def test_a_new_manifest_may_bind_the_slot_otherwise_and_only_to_that() -> None:
    old = holder()
    role = parse_manifest(
        f"tea: manifest/1\ndeployment: d\nrevision: 2\nra: {{members: {{{SLOT}: {{pcr3: '{'03' * 48}'}}}}}}\n"
    )
    policy = old.of_receiver(approved(role))
    assert policy.pcrs[3] == (b"\3" * 48,) and 4 not in policy.pcrs
    assert all(policy.pcrs[index] == old.policy().pcrs[index] for index in range(3))
    nowhere = parse_manifest("tea: manifest/1\ndeployment: d\nrevision: 2\n")
    assert old.of_receiver(approved(nowhere)).pcrs == old.policy().pcrs


def test_an_enclave_of_older_approvers_gets_nothing() -> None:
    change = change_of_approvers(approvers_of(2, (B, C)))
    manifest = manifest_of(1)
    old = holder(manifest=manifest, epoch=2, shown=approved(manifest, B, C, changes=(change,)))
    assert code_of(lambda: old.of_receiver(approved(manifest_of(7)))) == ContinuityCode.APPROVAL


def test_a_receiver_takes_nothing_from_a_manifest_that_is_too_old_or_newer() -> None:
    new = Enclave(manifest=manifest_of(5))
    assert code_of(lambda: new.of_holder(approved(manifest_of(3)), oldest=4)) == ContinuityCode.APPROVAL
    assert code_of(lambda: new.of_holder(approved(manifest_of(6)))) == ContinuityCode.APPROVAL
    assert new.of_holder(approved(manifest_of(4)), oldest=4).manifests == (manifest_of(4).digest,)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"image": {0: bytes([9]) * 48, 1: bytes([9]) * 48, 2: bytes([9]) * 48}}, PolicyCode.PCR),
        ({"debug": True}, PolicyCode.DEBUG),
        ({"instance": OTHER_INSTANCE}, PolicyCode.PCR),
    ],
)
def test_a_receiver_takes_nothing_from_an_enclave_that_is_not_approved(changes: dict[str, Any], code: object) -> None:
    exchange = Exchange(holder(**changes), Enclave())
    assert code_of(lambda: exchange.request(exchange.challenge())) == code


def test_a_receiver_takes_nothing_from_one_that_does_not_serve() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    challenge_of = exchange.challenge

    class Liar(Tenure):
        pass

    liar = Liar("d", SLOT)
    liar.role, liar.term = Role.ACTIVE, 1
    old.tenure = liar
    side = HolderSide(liar, exchange.receiver.hello, os.urandom)
    liar.role = Role.STANDBY
    document, statement = old.attest(Kind.ATTEST, side.body(), side.asked_nonce)
    challenge = side.challenge(document, statement, old.approved)
    assert code_of(lambda: exchange.request(challenge)) == ContinuityCode.TERM
    assert code_of(challenge_of) == ContinuityCode.STATE


def test_a_receiver_that_knows_a_higher_term_takes_nothing_from_the_past() -> None:
    old, new = holder(), Enclave()
    new.tenure.role, new.tenure.term = Role.STANDBY, 5
    exchange = Exchange(old, new)
    assert code_of(lambda: exchange.request(exchange.challenge())) == ContinuityCode.TERM


# ---- what parents may try


def exchanges() -> tuple[Exchange, Exchange]:
    return Exchange(holder(), Enclave()), Exchange(holder(), Enclave())


def test_a_recorded_challenge_is_worth_nothing_to_another_receiver() -> None:
    first, second = exchanges()
    assert code_of(lambda: second.request(first.challenge())) == AttestationCode.NONCE


def test_a_recorded_request_is_worth_nothing_to_another_holder() -> None:
    first, second = exchanges()
    request = first.request(first.challenge())
    second.challenge()
    assert code_of(lambda: second.parcel(request)) == AttestationCode.NONCE


def test_evidence_of_another_exchange_is_found_out_even_with_the_right_nonce() -> None:
    """The nonce alone is not enough: the body binds every message before it."""
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    challenge = exchange.challenge()
    exchange.receiver.challenged(challenge, new.of_holder, now_ms=NOW_MS)
    body = ReceiverBody(SLOT, 1, bytes(48)).encode()
    evidence = new.attest(Kind.SEAL, body, exchange.receiver.challenge_nonce, exchange.receiver.public_key)
    request = Request(*evidence, *new.approved).encode()
    assert code_of(lambda: exchange.parcel(request)) == ContinuityCode.TRANSCRIPT
    side = exchange.holder
    assert side is not None
    other = HolderBody(SLOT, 1, "active", bytes(32), bytes(48)).encode()
    hello = Hello.parse(exchange.receiver.hello)
    forged = Challenge(*old.attest(Kind.ATTEST, other, hello.nonce), *old.approved).encode()
    assert code_of(lambda: exchange.request(forged)) == ContinuityCode.TRANSCRIPT


@pytest.mark.parametrize("kind", [Kind.ATTEST, Kind.READY, Kind.KMS])
def test_evidence_of_another_kind_is_refused(kind: Kind) -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    exchange.receiver.challenged(exchange.challenge(), new.of_holder, now_ms=NOW_MS)
    receiver = exchange.receiver
    evidence = new.attest(kind, receiver.body(), receiver.challenge_nonce, receiver.public_key)
    request = Request(*evidence, *new.approved).encode()
    assert code_of(lambda: exchange.parcel(request)) == PolicyCode.KIND


def test_a_parcel_opens_for_its_receiver_alone() -> None:
    first, second = exchanges()
    parcel = first.parcel(first.request(first.challenge()))
    second.request(second.challenge())
    assert code_of(lambda: second.receiver.open(parcel)) == ContinuityCode.DOES_NOT_OPEN


def test_pieces_changed_swapped_or_of_another_do_not_open() -> None:
    old, new = holder(os.urandom(2 * PIECE_BYTES)), Enclave()
    exchange = Exchange(old, new)
    receiver = exchange.receiver
    assert receiver.open(exchange.parcel(exchange.request(exchange.challenge()))) == 2
    side = exchange.holder
    assert side is not None
    first, second = (side.piece(Fetch(index).encode()) for index in range(2))
    for wrong in (second, first[:-1], first[:-1] + bytes([first[-1] ^ 1]), b"", os.urandom(100)):
        assert code_of(partial(receiver.piece, wrong)) == ContinuityCode.DOES_NOT_OPEN
    receiver.piece(first)
    assert code_of(receiver.state) == ContinuityCode.STATE
    assert code_of(lambda: receiver.piece(first)) == ContinuityCode.DOES_NOT_OPEN
    receiver.piece(second)
    assert receiver.state() == old.state
    assert code_of(lambda: side.piece(Fetch(2).encode())) == ContinuityCode.MALFORMED


def test_a_forged_prepared_or_commit_changes_nothing() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    exchange.take(exchange.parcel(exchange.request(exchange.challenge())))
    side, receiver = exchange.holder, exchange.receiver
    assert side is not None
    forged = Prepared(bytes(32)).encode()
    assert code_of(lambda: side.prepared(forged)) == ContinuityCode.PROOF
    assert old.tenure.role is Role.HANDING
    prepared = receiver.prepared()
    for answer in (Commit(bytes(32)).encode(), Cancelled(bytes(32)).encode()):
        assert code_of(partial(receiver.committed, answer)) == ContinuityCode.PROOF
    commit = side.prepared(prepared)
    # A commit passed off as a cancellation, and what no message is.
    assert code_of(lambda: receiver.committed(Cancelled(Commit.parse(commit).proof).encode())) == ContinuityCode.PROOF
    assert code_of(lambda: receiver.committed(b"")) == ContinuityCode.MALFORMED
    assert receiver.committed(commit)


def test_a_hello_for_another_slot_or_deployment_is_refused() -> None:
    old = holder()
    for hello in (Hello("d", "e2", False, bytes(32)), Hello("other", SLOT, False, bytes(32))):
        assert code_of(partial(HolderSide, old.tenure, hello.encode(), os.urandom)) == ContinuityCode.SLOT
    short = Hello("d", SLOT, False, bytes(8)).encode()
    assert code_of(lambda: HolderSide(old.tenure, short, os.urandom)) == ContinuityCode.MALFORMED


def test_what_comes_out_of_order_is_refused() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    receiver = exchange.receiver
    refused = ContinuityCode.STATE
    assert code_of(lambda: receiver.piece(b"")) == refused
    assert code_of(receiver.state) == refused
    assert code_of(receiver.prepared) == refused
    assert code_of(receiver.copied) == refused
    assert code_of(lambda: receiver.committed(b"")) == refused
    side = HolderSide(old.tenure, receiver.hello, os.urandom)
    assert code_of(lambda: side.accept(b"", old.of_receiver, now_ms=NOW_MS)) == refused
    assert code_of(lambda: side.parcel(b"")) == refused
    assert code_of(lambda: side.prepared(b"")) == refused
    assert code_of(lambda: side.aborted(b"")) == refused
    assert code_of(side.resume) == refused


CARRIED = ["hello", "challenge", "request", "parcel", "piece", "prepared", "commit"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(CARRIED), st.integers(0, 9999), st.integers(1, 255))
def test_no_changed_message_makes_two_holders_or_loses_the_state(name: str, place: int, mask: int) -> None:
    def tamper(which: str, message: bytes) -> bytes:
        if which != name:
            return message
        at = place * len(message) // 10_000
        return message[:at] + bytes([message[at] ^ mask]) + message[at + 1 :]

    old, new = holder(b"precious"), Enclave()
    try:
        Exchange(old, new, tamper=tamper).run()
    except TrustError:
        pass
    assert not (old.tenure.serves and new.tenure.serves)
    if new.tenure.serves:
        assert new.state == b"precious"
    else:
        assert old.state == b"precious"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["prepared", "answer", "expire", "replay"]), max_size=12))
def test_no_order_of_losses_and_repetitions_makes_two_holders(events: list[str]) -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    exchange.until_prepared()
    side, receiver = exchange.holder, exchange.receiver
    assert side is not None
    answers: list[bytes] = []
    for event in events:
        try:
            if event == "prepared":
                answers.append(side.prepared(receiver.prepared()))
            elif event == "expire":
                side.resume()
            elif answers:
                receiver.committed(answers[-1] if event == "answer" else answers[0])
        except ContinuityError as error:
            assert error.code is ContinuityCode.STATE
        assert not (old.tenure.serves and new.tenure.serves)


# ---- formats


MESSAGES: list[Message] = [
    Hello("d", SLOT, True, bytes(32)),
    HolderBody(SLOT, 3, "active", bytes(32), bytes(48)),
    Challenge(b"d", b"s", b"a", (b"1", b"2")),
    ReceiverBody(SLOT, 3, bytes(48)),
    Request(b"d", b"s", b"a", ()),
    Parcel(b"sealed"),
    Contents(bytes(32), 2, 10, 1, bytes(48)),
    Fetch(4),
    Prepared(bytes(32)),
    Abort(bytes(32)),
    Commit(bytes(32)),
    Cancelled(bytes(32)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_reads_back_and_no_other_is_read_as_it(message: Message) -> None:
    kind = type(message)
    assert kind.parse(message.encode()) == message
    for other in MESSAGES:
        if type(other) is not kind:
            assert code_of(partial(kind.parse, other.encode())) == ContinuityCode.MALFORMED
    wrong = dataclasses.replace(message, **{dataclasses.fields(message)[-1].name: None})
    assert code_of(lambda: kind.parse(wrong.encode())) == ContinuityCode.MALFORMED


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_continuity_error(data: bytes) -> None:
    for message in MESSAGES:
        try:
            type(message).parse(data)
        except ContinuityError:
            pass


def test_contents_show_no_secret() -> None:
    secret = os.urandom(32)
    assert secret.hex() not in repr(Contents(secret, 1, 0, 0, bytes(48)))
    assert str(secret) not in repr(Contents(secret, 1, 0, 0, bytes(48)))


def test_a_packed_state_unpacks_and_nothing_else_does() -> None:
    states = {"kvp": b"k", "crypto": b""}
    assert unpack_state(pack_state(states)) == states
    from tea.trust.canonical import encode

    for wrong in (
        b"",
        encode({"tea": "tea.other.v1", "providers": {}}),
        encode({"tea": "tea.continuity-state.v1"}),
        encode({"tea": "tea.continuity-state.v1", "providers": [], "more": 1}),
        encode({"tea": "tea.continuity-state.v1", "providers": []}),
        encode({"tea": "tea.continuity-state.v1", "providers": {"kvp": "text"}}),
        encode({"tea": "tea.continuity-state.v1", "providers": {1: b""}}),
        encode({"tea": "tea.continuity-state.v1", "providers": {str(n): b"" for n in range(65)}}),
    ):
        assert code_of(partial(unpack_state, wrong)) == ContinuityCode.MALFORMED


def test_a_holder_without_a_key_or_with_an_unknown_role_is_no_holder() -> None:
    old = holder()
    for body, key in ((HolderBody(SLOT, 1, "king", bytes(32), bytes(48)), None), (holder_body(old.tenure), b"short")):
        raw = body if isinstance(body, bytes) else body.encode()
        evidence = old.attest(Kind.ATTEST, raw, b"n", key)
        with pytest.raises(ContinuityError):
            verify_tenancy(*evidence, old.policy(), nonce=b"n", now_ms=NOW_MS)


def test_a_receiver_with_a_weak_key_gets_nothing() -> None:
    old, new = holder(), Enclave()
    exchange = Exchange(old, new)
    exchange.receiver.challenged(exchange.challenge(), new.of_holder, now_ms=NOW_MS)
    receiver = exchange.receiver
    for key in (b"k", bytes(32)):
        if old.tenure.role is Role.HANDING:
            old.tenure.step(Step.RESUME)
        again = Exchange(old, Enclave())
        again.receiver.challenged(again.challenge(), again.taker.of_holder, now_ms=NOW_MS)
        receiver = again.receiver
        evidence = again.taker.attest(Kind.SEAL, receiver.body(), receiver.challenge_nonce, key)
        request = receiver.request(*evidence, again.taker.manifest.digest, again.taker.approved)
        assert code_of(partial(again.parcel, request)) == ContinuityCode.DOES_NOT_OPEN


def test_an_old_document_is_refused_where_the_policy_says_so() -> None:
    old = holder()
    evidence = old.attest(Kind.ATTEST, holder_body(old.tenure), b"n")
    policy = dataclasses.replace(old.policy(), max_age=60)
    with pytest.raises((PolicyError, AttestationError)):
        verify_tenancy(*evidence, policy, nonce=b"n", now_ms=NOW_MS + 3600_000)


def test_the_keys_of_a_receiver_are_made_for_each_handover() -> None:
    new = Enclave()
    first = ReceiverSide(new.tenure, os.urandom)
    first.failed()
    second = ReceiverSide(new.tenure, os.urandom)
    assert first.public_key != second.public_key != SealingKey.from_raw(bytes(31) + b"\1").public
    assert pcr.SIZE == 48
