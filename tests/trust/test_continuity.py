"""One holder a slot: the table of roles, fences, tickets.

May not: use keys of anybody. Rule: docs/continuity.md, "One holder", "Tickets".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.trust import cose
from tea.trust.continuity import (
    MAX_TERM,
    SERVING,
    TICKET_CONTENT_TYPE,
    TRANSITIONS,
    ContinuityCode,
    ContinuityError,
    Fence,
    Role,
    Step,
    Tenure,
    Ticket,
    add_signature,
    sign_ticket,
    unverified_ticket,
    verify_ticket,
)

from .continuity_enclaves import APPROVERS, SLOT, A, B, C, approvers_of

KEY, OTHER = b"k" * 32, b"o" * 32
TICKET = Ticket("d", SLOT, 7, KEY)


def code_of(work: Callable[[], object]) -> ContinuityCode:
    with pytest.raises(ContinuityError) as caught:
        work()
    return ContinuityCode(caught.value.code)


def tenure_at(role: Role, term: int = 3) -> Tenure:
    tenure = Tenure("d", SLOT)
    tenure.role, tenure.term = role, term
    return tenure


def test_every_step_is_in_the_table_or_refused() -> None:
    for role, step in itertools.product(Role, Step):
        tenure = tenure_at(role)
        expected = TRANSITIONS.get((role, step))
        if expected is None:
            assert code_of(partial(tenure.step, step)) is ContinuityCode.STATE
            assert tenure.role is role
        else:
            tenure.step(step)
            assert tenure.role is expected


def test_only_the_holder_serves() -> None:
    assert frozenset({Role.ACTIVE}) == SERVING
    assert [role for role in Role if tenure_at(role).serves] == [Role.ACTIVE]


def test_every_way_to_be_the_holder_needs_another_to_have_ended_but_the_first() -> None:
    ways = {step for (_, step), after in TRANSITIONS.items() if after is Role.ACTIVE}
    assert ways == {Step.BEGIN, Step.COMMITTED, Step.RESUME, Step.PROMOTE}


def test_who_retired_serves_again_by_a_ticket_alone() -> None:
    assert {step for role, step in TRANSITIONS if role is Role.RETIRED} == {Step.PROMOTE}


@pytest.mark.parametrize("term", [0, 3, MAX_TERM])
def test_a_term_only_rises(term: int) -> None:
    tenure = tenure_at(Role.PREPARED)
    assert code_of(lambda: tenure.step(Step.COMMITTED, term)) is ContinuityCode.TERM
    assert tenure.role is Role.PREPARED


def test_a_copys_term_may_stay_and_not_fall() -> None:
    tenure = tenure_at(Role.RECEIVING)
    assert code_of(lambda: tenure.step(Step.COPIED, 2)) is ContinuityCode.TERM
    tenure.step(Step.COPIED, 3)
    assert tenure.role is Role.STANDBY


# ---- fences


def test_a_fence_refuses_the_past_and_two_of_one_term() -> None:
    fence = Fence()
    fence.admit("d", SLOT, 2, KEY)
    fence.admit("d", SLOT, 2, KEY)
    assert code_of(lambda: fence.admit("d", SLOT, 2, OTHER)) is ContinuityCode.CLONE
    assert code_of(lambda: fence.admit("d", SLOT, 1, KEY)) is ContinuityCode.TERM
    fence.admit("d", SLOT, 3, OTHER)
    assert code_of(lambda: fence.admit("d", SLOT, 2, KEY)) is ContinuityCode.TERM
    fence.admit("d", "e2", 1, KEY)
    fence.admit("other", SLOT, 1, KEY)


@pytest.mark.parametrize("term", [0, -1, MAX_TERM])
def test_a_fence_refuses_what_is_no_term(term: int) -> None:
    assert code_of(lambda: Fence().admit("d", SLOT, term, KEY)) is ContinuityCode.TERM


def test_a_fence_is_bounded() -> None:
    fence = Fence(size=1)
    fence.admit("d", SLOT, 1, KEY)
    assert code_of(lambda: fence.admit("d", "e2", 1, KEY)) is ContinuityCode.STATE
    fence.admit("d", SLOT, 2, KEY)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([KEY, OTHER])), max_size=20))
def test_a_fence_admits_one_holder_a_term_in_rising_order(claims: list[tuple[int, bytes]]) -> None:
    fence = Fence()
    admitted: list[tuple[int, bytes]] = []
    for term, key in claims:
        try:
            fence.admit("d", SLOT, term, key)
        except ContinuityError:
            continue
        admitted.append((term, key))
    assert [term for term, _ in admitted] == sorted(term for term, _ in admitted)
    assert len(set(admitted)) == len({term for term, _ in admitted})


# ---- tickets


def signed(ticket: Ticket = TICKET) -> bytes:
    return add_signature(sign_ticket(ticket, A), B)


def test_a_quorums_ticket_makes_a_standby_the_holder_and_fences_the_old_one() -> None:
    ticket = verify_ticket(signed(), APPROVERS)
    assert ticket == TICKET
    standby, old = tenure_at(Role.STANDBY), tenure_at(Role.ACTIVE)
    standby.promote(ticket, KEY)
    old.fence(ticket, OTHER)
    assert standby.serves and standby.term == 7
    assert old.role is Role.RETIRED


def test_a_ticket_makes_only_the_enclave_that_it_names_the_holder() -> None:
    assert code_of(lambda: tenure_at(Role.STANDBY).promote(TICKET, OTHER)) is ContinuityCode.CLONE


@pytest.mark.parametrize("wrong", [{"slot": "e2"}, {"deployment": "other"}])
def test_a_ticket_for_another_slot_changes_nothing(wrong: dict[str, Any]) -> None:
    ticket = dataclasses.replace(TICKET, **wrong)
    assert code_of(lambda: tenure_at(Role.STANDBY).promote(ticket, KEY)) is ContinuityCode.SLOT
    assert code_of(lambda: tenure_at(Role.ACTIVE).fence(ticket, OTHER)) is ContinuityCode.SLOT


def test_what_a_promotion_would_refuse_is_known_before_and_changes_nothing() -> None:
    tenure = Tenure("d", "e1")
    ticket = Ticket("d", "e1", 5, bytes(32))
    tenure.require_promotion(ticket, bytes(32))
    assert (tenure.role, tenure.term) == (Role.EMPTY, 0)
    wrong = [
        (Ticket("d", "e2", 5, bytes(32)), ContinuityCode.SLOT),
        (Ticket("d", "e1", 5, bytes(31) + b"x"), ContinuityCode.CLONE),
    ]
    for other, code in wrong:
        with pytest.raises(ContinuityError) as caught:
            tenure.require_promotion(other, bytes(32))
        assert caught.value.code is code
    tenure.promote(ticket, bytes(32))
    with pytest.raises(ContinuityError) as held:
        tenure.require_promotion(Ticket("d", "e1", 6, bytes(32)), bytes(32))
    assert held.value.code is ContinuityCode.STATE
    tenure.role = Role.RETIRED
    with pytest.raises(ContinuityError) as seen:
        tenure.require_promotion(ticket, bytes(32))
    assert seen.value.code is ContinuityCode.TERM


def test_a_ticket_is_shown_before_anybody_believes_it() -> None:
    ticket = Ticket("d", "e1", 5, bytes(32), bytes(48))
    assert unverified_ticket(sign_ticket(ticket, A)) == ticket
    for data in (b"", b"\xa0", cose.sign(b"no ticket", A, content_type=TICKET_CONTENT_TYPE)):
        with pytest.raises(ContinuityError) as caught:
            unverified_ticket(data)
        assert caught.value.code is ContinuityCode.MALFORMED


def test_a_ticket_of_the_past_changes_nothing() -> None:
    assert code_of(lambda: tenure_at(Role.STANDBY, 7).promote(TICKET, KEY)) is ContinuityCode.TERM
    assert code_of(lambda: tenure_at(Role.ACTIVE, 7).fence(TICKET, OTHER)) is ContinuityCode.TERM
    assert code_of(lambda: tenure_at(Role.ACTIVE).fence(TICKET, KEY)) is ContinuityCode.TERM


@pytest.mark.parametrize(("term", "wakes"), [(6, False), (7, False), (8, True)])
def test_a_ticket_that_was_held_back_wakes_nobody_who_retired_for_a_later_term(term: int, wakes: bool) -> None:
    old = tenure_at(Role.ACTIVE)
    old.fence(dataclasses.replace(TICKET, term=7), OTHER)
    held_back = Ticket("d", SLOT, term, OTHER)
    if wakes:
        old.promote(held_back, OTHER)
        assert (old.role, old.term) == (Role.ACTIVE, term)
    else:
        assert code_of(lambda: old.promote(held_back, OTHER)) is ContinuityCode.TERM
        assert old.role is Role.RETIRED


def test_a_ticket_without_a_quorum_is_refused() -> None:
    assert code_of(lambda: verify_ticket(sign_ticket(TICKET, A), APPROVERS)) is ContinuityCode.APPROVAL
    assert code_of(lambda: verify_ticket(signed()[:-1], APPROVERS)) is ContinuityCode.APPROVAL
    assert code_of(lambda: verify_ticket(b"", APPROVERS)) is ContinuityCode.APPROVAL
    assert code_of(lambda: add_signature(sign_ticket(TICKET, A), A)) is ContinuityCode.APPROVAL
    assert code_of(lambda: verify_ticket(signed(), approvers_of(2, (A, C)))) is ContinuityCode.APPROVAL


def test_a_ticket_for_another_deployment_is_refused() -> None:
    other = dataclasses.replace(TICKET, deployment="other")
    assert code_of(lambda: verify_ticket(signed(other), APPROVERS)) is ContinuityCode.SLOT


@pytest.mark.parametrize(
    "payload", [b"", b"\xa0", dataclasses.replace(TICKET, term=8).encode()[:-1], TICKET.encode() + b"\0"]
)
def test_what_is_signed_and_no_ticket_is_refused(payload: bytes) -> None:
    envelope = cose.add_signature(cose.sign(payload, A, content_type=TICKET_CONTENT_TYPE), B)
    assert code_of(lambda: verify_ticket(envelope, APPROVERS)) is ContinuityCode.MALFORMED


@pytest.mark.parametrize(
    "wrong",
    [
        {"deployment": "Not A Name"},
        {"slot": ""},
        {"term": 0},
        {"term": True},
        {"term": MAX_TERM},
        {"holder": b"short"},
        {"backup": b"short"},
        {"deployment": 1},
    ],
)
def test_a_ticket_of_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    assert code_of(lambda: dataclasses.replace(TICKET, **wrong)) is ContinuityCode.MALFORMED
