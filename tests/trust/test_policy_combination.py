"""Combined policies: their truth, their files, and each way of writing one that would accept too much.

Rule: docs/verify.md, "Combined policies".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.attestation import AttestationDocument, Roots
from tea.trust.policy import (
    Accepts,
    AllOf,
    AnyOf,
    NoneOf,
    Policy,
    PolicyCode,
    PolicyError,
    Rule,
    all_of,
    any_of,
    none_of,
    parse_policy,
    parse_rule,
)
from tea.trust.statement import Statement

C = PolicyCode
NOW = 1_800_000_000_000
ROOT, OTHER_ROOT = b"\x0f" * 32, b"\x0e" * 32
YES, NO = b"\x01" * 48, b"\x02" * 48
STATEMENT = Statement(kind="attest", deployment="tutorial", manifest=YES, revision=1, epoch=0, log_head=bytes(48))


def policy(index: int = 0, value: bytes = YES, **changes: Any) -> Policy:
    made = Policy(pinned=Roots.from_digests([ROOT]), simulated=True, pcrs={index: (value,)})
    return dataclasses.replace(made, **changes)


def document(*truths: bool, **changes: Any) -> AttestationDocument:
    """A document of which the atom with number n holds as said."""
    made = AttestationDocument(
        module_id="i-0123456789abcdef0-enc01",
        digest="SHA384",
        timestamp=NOW - 10_000,
        pcrs={index: YES if truth else NO for index, truth in enumerate(truths)},
        certificate=b"",
        cabundle=(),
        public_key=None,
        user_data=None,
        nonce=None,
        root=ROOT,
    )
    return dataclasses.replace(made, **changes)


def accepts(rule: Rule, doc: AttestationDocument, said: Statement | None = None) -> bool:
    try:
        rule.require(doc, said, now_ms=NOW)
    except PolicyError:
        return False
    return True


def refusal(rule: Rule, doc: AttestationDocument, said: Statement | None = None, now_ms: int = NOW) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        rule.require(doc, said, now_ms=now_ms)
    return caught.value


def unreadable(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_rule(text, "p.yaml")
    return caught.value


# ---- truth

A, B, D = policy(0), policy(1), policy(2)
FALSE = policy(0, b"\x03" * 48)


def holds(rule: Rule, truths: Mapping[int, bool]) -> bool:
    """What a combination means, told without it: by Python's own all, any and not."""
    match rule:
        case AllOf(rules):
            return all(holds(one, truths) for one in rules)
        case AnyOf(rules):
            return any(holds(one, truths) for one in rules)
        case NoneOf(rules):
            return not any(holds(one, truths) for one in rules)
        case Policy():
            ((index, values),) = rule.pcrs.items()
            return values == (YES,) and truths[index]
    raise AssertionError(rule)


@pytest.mark.parametrize(
    ("rule", "table"),
    [
        # The documents in the order of binary numbers: (A, B) is FF, FT, TF, TT.
        (all_of(A, B), "...x"),
        (any_of(A, B), ".xxx"),
        (all_of(A, none_of(B)), "..x."),
        (all_of(any_of(A, B), none_of(all_of(A, B))), ".xx."),
        (any_of(all_of(A, none_of(B)), B), ".xxx"),
        (all_of(any_of(A, B), none_of(A, B)), "...."),
        (all_of(B, none_of(all_of(B, none_of(A)))), "...x"),
        (all_of(A), "..xx"),
        (any_of(B), ".x.x"),
        (any_of(FALSE, A), "..xx"),
        (all_of(FALSE, A), "...."),
        (all_of(A, none_of(FALSE)), "..xx"),
    ],
)
def test_the_table_of_truth(rule: Accepts, table: str) -> None:
    for read in (rule, parse_rule(rule.to_yaml())):
        found = [accepts(read, document(*truths)) for truths in itertools.product((False, True), repeat=2)]
        assert "".join("x" if one else "." for one in found) == table


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    every = st.tuples(some, st.none() | st.lists(inner, min_size=1, max_size=2)).map(
        lambda found: all_of(*found[0], *([none_of(*found[1])] if found[1] else []))
    )
    return some.map(lambda rules: any_of(*rules)) | every


ATOMS = st.sampled_from([A, B, D, FALSE])
COMBINED: st.SearchStrategy[Accepts] = _combined(ATOMS | _combined(ATOMS))


@given(rule=COMBINED)
def test_a_combination_accepts_exactly_what_its_truth_says(rule: Accepts) -> None:
    for truths in itertools.product((False, True), repeat=3):
        assert accepts(rule, document(*truths)) == holds(rule, dict(enumerate(truths)))


@given(rule=COMBINED)
def test_a_combination_written_and_read_is_the_same(rule: Accepts) -> None:
    assert parse_rule(rule.to_yaml()) == rule


UNKNOWN = policy(0, deployment="tutorial")
"""Holds or not, by a statement that is withheld."""


def _replaced(rule: Any, by: Policy) -> Any:
    if isinstance(rule, Policy):
        return by if rule == UNKNOWN else rule
    return type(rule)(tuple(_replaced(one, by) for one in rule.rules))


@given(rule=_combined((ATOMS | st.just(UNKNOWN)) | _combined(ATOMS | st.just(UNKNOWN))))
def test_what_cannot_be_judged_is_accepted_only_where_it_does_not_matter(rule: Accepts) -> None:
    for truths in itertools.product((True,), (False, True), (False, True)):
        doc = document(*truths)
        if accepts(rule, doc):
            assert accepts(_replaced(rule, A), doc)
            assert accepts(_replaced(rule, FALSE), doc)


# ---- an exclusion has no way around it

EXCLUDING = all_of(policy(0), none_of(policy(1, max_age=60)))
BOTH = document(True, True)


def test_an_exclusion_does_not_lapse_when_the_document_grows_old_or_comes_early() -> None:
    assert refusal(EXCLUDING, BOTH).code is C.EXCLUDED
    assert refusal(EXCLUDING, BOTH, now_ms=NOW + 3_600_000).code is C.TOO_OLD
    assert refusal(EXCLUDING, BOTH, now_ms=NOW - 3_600_000).code is C.FUTURE
    EXCLUDING.require(document(True, False), now_ms=NOW + 3_600_000)


def test_an_exclusion_is_not_dodged_in_debug_mode() -> None:
    debug = document(False, False, False, pcrs={0: bytes(48), 1: bytes(48), 2: bytes(48), 8: YES, 9: YES})
    rule = all_of(policy(9, debug=True), none_of(policy(8)))
    assert refusal(rule, debug).code is C.DEBUG
    assert "exclusion number 1 cannot be judged" in refusal(rule, debug).sentence
    assert refusal(all_of(policy(9, debug=True), none_of(policy(8, debug=True))), debug).code is C.EXCLUDED


def test_an_alternative_within_an_exclusion_hides_nothing_that_was_not_judged() -> None:
    for code, rule in (
        (C.STATEMENT_MISSING, policy(0, deployment="tutorial")),
        (C.TOO_OLD, policy(0, max_age=1)),
    ):
        within = all_of(policy(0), none_of(any_of(FALSE, rule)))
        assert refusal(within, BOTH).code is code
    assert refusal(any_of(FALSE, policy(1, NO)), BOTH).code is C.NO_ALTERNATIVE


def test_a_statement_is_held_to_every_policy() -> None:
    rule = all_of(policy(0, deployment="tutorial"), none_of(policy(0, manifests=(YES,))))
    assert refusal(rule, BOTH, STATEMENT).code is C.EXCLUDED
    rule.require(BOTH, dataclasses.replace(STATEMENT, manifest=NO), now_ms=NOW)


def test_an_exclusion_that_could_exclude_nothing_is_refused() -> None:
    elsewhere = policy(pinned=Roots.from_digests([OTHER_ROOT]))
    with pytest.raises(PolicyError, match="exclude nothing") as caught:
        all_of(policy(), none_of(policy(1), elsewhere))
    assert caught.value.code is C.NOTHING


def test_what_excludes_from_excluding_is_refused() -> None:
    with pytest.raises(PolicyError, match="none_of within none_of") as caught:
        none_of(none_of(A))
    assert caught.value.code is C.VALUE


def test_depth_and_number_are_bounded() -> None:
    deep: Accepts = A
    for _ in range(4):
        deep = all_of(deep)
    assert parse_rule(deep.to_yaml()) == deep
    with pytest.raises(PolicyError, match="at most 4") as caught:
        any_of(deep)
    assert caught.value.code is C.VALUE
    many = any_of(*[A] * 64)
    assert parse_rule(many.to_yaml()) == many
    for make in (lambda: any_of(*[A] * 65), lambda: all_of(many, A), lambda: all_of(A, none_of(*[B] * 64))):
        with pytest.raises(PolicyError, match="at most 64"):
            make()


# ---- as text

IN = f"simulated: {{root: sha256:{ROOT.hex()}}}, pcrs"
P0, P1 = f"{{{IN}: {{0: {YES.hex()}}}}}", f"{{{IN}: {{1: {YES.hex()}}}}}"
HEAD = "tea: policy/1\n"


def test_all_any_and_not_are_read() -> None:
    read = parse_rule(f"{HEAD}all:\n  - any: [{P0}, {P1}]\n  - not: {P1}\n")
    assert read == all_of(any_of(A, B), none_of(B))
    assert parse_rule(f"{HEAD}all: [{P0}, not: [{P0}, {P1}]]\n") == all_of(A, none_of(A, B))
    assert parse_rule(f"{HEAD}any: [{P0}]\n") == any_of(A)
    assert parse_rule(A.to_yaml()) == A


def test_a_combination_says_itself_in_words() -> None:
    lines = parse_rule(f"{HEAD}all:\n  - any: [{P0}, {P1}]\n  - not: {P1}\n").explain()
    assert lines[0] == "All of these hold:"
    assert lines[1] == "- At least one of these holds:"
    assert lines[2].startswith("  - The root is a simulated network's")
    assert lines[3] == f"    PCR0 is {YES.hex()}."
    assert "- None of these holds:" in lines
    assert lines[-1] == f"    PCR1 is {YES.hex()}."


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (f"{HEAD}all: []\n", C.NOTHING, "p.yaml:2: all: found a combination of nothing"),
        (f"{HEAD}any: []\n", C.NOTHING, "name at least one policy"),
        (f"{HEAD}any:\n", C.NOTHING, "p.yaml:2"),
        (f"{HEAD}all: [{P0}, any: []]\n", C.NOTHING, "p.yaml:2: all[1].any"),
        (f"{HEAD}all:\n - {P0}\n - not: []\n", C.NOTHING, "p.yaml:4: all[1].not"),
        (f"{HEAD}all: {{}}\n", C.VALUE, "in brackets"),
        (f"{HEAD}all: {P0}\n", C.VALUE, "in brackets"),
        (f"{HEAD}all: [text]\n", C.VALUE, "p.yaml:2: all[0]"),
        (f"{HEAD}not: {P0}\n", C.NOTHING, "put it into an `all`"),
        (f"{HEAD}not: [{P0}]\n", C.NOTHING, "put it into an `all`"),
        (f"{HEAD}any:\n - {P0}\n - not: {P0}\n", C.NOTHING, "p.yaml:4: any[1]: found a `not`"),
        (f"{HEAD}all:\n - not: {P0}\n", C.NOTHING, "p.yaml:3: all: all_of excludes only"),
        (f"{HEAD}all:\n - {P0}\n - not: {{not: {P0}}}\n", C.NOTHING, "p.yaml:4: all[1].not: found a `not`"),
        (f"{HEAD}all:\n - {P0}\n - any:\n   - all: [not: {P0}]\n", C.NOTHING, "p.yaml:5: all[1].any[0]"),
        (f"{HEAD}all:\n - {P0}\ndebug: true\n", C.VALUE, "p.yaml:4: found the key 'debug' beside `all`"),
        (f"{HEAD}all:\n - {P0}\nany:\n - {P0}\n", C.VALUE, "p.yaml:4: found the key 'any' beside `all`"),
        (f"{HEAD}all:\n - any: [{P0}]\n   max_age: 5\n", C.VALUE, "p.yaml:4: all[0]: found the key 'max_age'"),
        (f"{HEAD}all:\n - {P0}\nall:\n - {P0}\n", C.SYNTAX, "'all' again"),
        (f"{HEAD}all:\n - any: [{P0}]\n   any: [{P0}]\n", C.SYNTAX, "p.yaml:4: found the key 'any' again"),
        (f"{HEAD}anyof:\n - {P0}\n", C.UNKNOWN_KEY, "did you mean 'any'"),
        (f"{HEAD}all:\n - tea: policy/1\n   pcrs: {{}}\n", C.UNKNOWN_KEY, "p.yaml:3: all[0]: found `tea` again"),
        (f"{HEAD}all:\n - tea: policy/1\n   any: [{P0}]\n", C.VALUE, "p.yaml:3: all[0]: found the key 'tea'"),
        (f"all: [{P0}]\n", C.VALUE, "no key 'tea'"),
        (f"tea: policy/2\nall: [{P0}]\n", C.VERSION, "policy/1"),
        (f"{HEAD}all: [{{{IN}: {{0: any}}}}]\n", C.NOTHING, "p.yaml:2: all[0]: the policy pins no PCR"),
        (f"{HEAD}all: [{{pcrs: {{0: {YES.hex()}}}}}]\n", C.VALUE, "p.yaml:2: all[0]: found no root"),
        (
            f"{HEAD}all: [{P0}, {P0.replace(ROOT.hex(), OTHER_ROOT.hex())}]\n",
            C.NOTHING,
            "p.yaml:2: all: the policies of",
        ),
        (f"{HEAD}all: [{P0}, not: {P1.replace(ROOT.hex(), OTHER_ROOT.hex())}]\n", C.NOTHING, "exclude nothing"),
        (f"{HEAD}any: [{', '.join([P0] * 65)}]\n", C.SYNTAX, "at most 64"),
        (f"{HEAD}any: [any: [{', '.join([P0] * 40)}], any: [{', '.join([P0] * 40)}]]\n", C.VALUE, "at most 64"),
        (f"{HEAD}any: [any: [any: [any: [any: [{P0}]]]]]\n", C.SYNTAX, "over 12 levels"),
        (f"{HEAD}any: [any: [any: [all: [{P0}, not: {P0}]]]]\n", C.VALUE, "at most 4"),
        (f"{HEAD}any: [&a {P0}, *a]\n", C.SYNTAX, "anchor"),
    ],
)
def test_a_combination_that_is_written_wrongly_says_where_and_how_to_mend_it(
    text: str, code: PolicyCode, says: str
) -> None:
    error = unreadable(text)
    assert says in error.sentence
    assert error.code is code


def test_who_needs_one_policy_by_itself_refuses_a_combination() -> None:
    for text in (f"{HEAD}all: [{P0}]\n", f"{HEAD}any: [{P0}]\n", f"{HEAD}not: {P0}\n"):
        with pytest.raises(PolicyError, match="one policy by itself") as caught:
            parse_policy(text, "p.yaml")
        assert caught.value.code is C.VALUE
    assert parse_policy(A.to_yaml()) == A
