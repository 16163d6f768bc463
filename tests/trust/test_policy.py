"""Policies: each check by breaking one thing of evidence that is accepted; each way of writing one wrongly."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import pcr
from tea.trust.attestation import AttestationDocument, Roots, aws_roots
from tea.trust.eventlog import ACTIVATED, EventLog
from tea.trust.policy import (
    Member,
    Policy,
    PolicyCode,
    PolicyError,
    Rule,
    all_of,
    any_of,
    none_of,
    parse_policy,
    policy_from_mapping,
)
from tea.trust.statement import Kind, Speaker, Statement

C = PolicyCode
NOW = 1_800_000_000_000
ROOT = b"\x0f" * 32
M1, M2, SETTINGS = b"\x01" * 48, b"\x02" * 48, b"\x03" * 48
IMAGE, OTHER = b"\x0a" * 48, b"\x0b" * 48
INSTANCE = "i-0123456789abcdef0"
LOG = EventLog().append(ACTIVATED, manifest=M1, revision=1, epoch=0, time=1)
UPGRADED = LOG.append(ACTIVATED, manifest=M2, revision=2, epoch=0, time=2)

DOCUMENT = AttestationDocument(
    module_id=f"{INSTANCE}-enc01",
    digest="SHA384",
    timestamp=NOW - 10_000,
    pcrs={
        0: IMAGE,
        1: b"\x0c" * 48,
        2: b"\x0d" * 48,
        3: pcr.pcr3("arn:aws:iam::1:role/r"),
        4: pcr.pcr4(INSTANCE),
        8: bytes(48),
        16: pcr.extend(pcr.ZERO, M1),
        17: pcr.extend(pcr.ZERO, SETTINGS),
    },
    certificate=b"",
    cabundle=(),
    public_key=None,
    user_data=None,
    nonce=None,
    root=ROOT,
)
STATEMENT = Statement(kind="attest", deployment="tutorial", manifest=M1, revision=1, epoch=0, log_head=LOG.head)
AWS: dict[str, Any] = {"pinned": aws_roots(), "simulated": False}
FULL = f"""
tea: policy/1
simulated: {{root: sha256:{ROOT.hex()}}}
pcrs:
  0: {IMAGE.hex()}
  1: [{OTHER.hex()}, {"0c" * 48}]
  8: any
deployment: tutorial
manifests: ["sha384:{M1.hex()}"]
booted: sha384:{M1.hex()}
settings: [sha384:{SETTINGS.hex()}]
min_revision: 1
min_epoch: 0
max_age: 300
instance_id: {INSTANCE}
members:
  e1: {{pcr4: "{pcr.pcr4(INSTANCE).hex()}"}}
  e2: {{pcr4: "{OTHER.hex()}"}}
"""


def policy(**changes: Any) -> Policy:
    simulated = Policy(pinned=Roots.from_digests([ROOT]), simulated=True, pcrs={0: (IMAGE,)})
    return dataclasses.replace(simulated, **changes)


def document(**changes: Any) -> AttestationDocument:
    return dataclasses.replace(DOCUMENT, **changes)


def with_pcr(index: int, value: bytes | None) -> AttestationDocument:
    pcrs = {i: v for i, v in DOCUMENT.pcrs.items() if i != index}
    return document(pcrs=pcrs if value is None else {**pcrs, index: value})


def statement(**changes: Any) -> Statement:
    return dataclasses.replace(STATEMENT, **changes)


def refusal(
    rule: Rule, doc: AttestationDocument = DOCUMENT, said: Statement | None = STATEMENT, **arguments: Any
) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        rule.require(doc, said, **{"now_ms": NOW, **arguments})
    assert isinstance(caught.value.code, PolicyCode)
    assert "expected" in caught.value.sentence or "excluded" in caught.value.sentence
    return caught.value


def unreadable(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "p.yaml")
    assert caught.value.sentence.startswith("p.yaml")
    return caught.value


# ---- the checks, in their order


def test_a_full_policy_accepts_what_it_describes() -> None:
    parse_policy(FULL).require(DOCUMENT, STATEMENT, now_ms=NOW, event_log=LOG.entries, kind=Kind.ATTEST)


def test_a_policy_of_an_image_alone_needs_no_statement() -> None:
    policy().require(DOCUMENT, now_ms=NOW)
    policy(booted=(M1,), settings=(SETTINGS,)).require(DOCUMENT, now_ms=NOW)


def test_a_document_of_another_root_is_refused() -> None:
    assert refusal(policy(), document(root=bytes(32))).code is C.ROOT
    assert refusal(policy(**AWS)).code is C.ROOT


def test_debug_mode_is_refused_unless_the_policy_says_so() -> None:
    debug = document(pcrs={**DOCUMENT.pcrs, 0: bytes(48), 1: bytes(48), 2: bytes(48)})
    assert refusal(policy(pcrs={0: (IMAGE, bytes(48))}), debug).code is C.DEBUG
    policy(pcrs={0: (bytes(48),)}, debug=True).require(debug, now_ms=NOW)
    assert refusal(policy(debug=True), debug).code is C.PCR


def test_a_pcr_of_another_value_or_a_missing_one_is_refused() -> None:
    error = refusal(policy(), with_pcr(0, OTHER))
    assert error.code is C.PCR
    assert IMAGE.hex() in error.sentence
    assert OTHER.hex() in error.sentence
    assert refusal(policy(), with_pcr(0, None)).code is C.PCR


def test_any_accepts_every_value_but_not_a_missing_pcr() -> None:
    rule = policy(pcrs={0: (IMAGE,), 4: ()})
    rule.require(with_pcr(4, OTHER), now_ms=NOW)
    assert refusal(rule, with_pcr(4, None)).code is C.PCR


def test_one_of_several_values_is_accepted() -> None:
    rule = policy(pcrs={0: (OTHER, IMAGE)})
    rule.require(DOCUMENT, now_ms=NOW)
    rule.require(with_pcr(0, OTHER), now_ms=NOW)
    assert refusal(rule, with_pcr(0, M1)).code is C.PCR


def test_another_instance_is_refused_by_module_id_and_by_pcr4() -> None:
    rule = policy(instance_id=INSTANCE)
    rule.require(DOCUMENT, now_ms=NOW)
    assert refusal(rule, document(module_id="i-0other-enc01")).code is C.INSTANCE
    assert refusal(rule, with_pcr(4, OTHER)).code is C.INSTANCE
    assert refusal(rule, with_pcr(4, None)).code is C.INSTANCE


def test_an_enclave_that_booted_with_another_manifest_is_refused() -> None:
    assert refusal(policy(booted=(M2,))).code is C.BOOTED
    assert refusal(policy(booted=(M1,)), with_pcr(16, None)).code is C.BOOTED
    assert refusal(policy(booted=(M1,)), with_pcr(16, bytes(48))).code is C.BOOTED


def test_an_enclave_that_booted_with_other_settings_is_refused() -> None:
    assert refusal(policy(settings=(M2,))).code is C.SETTINGS
    assert refusal(policy(settings=(SETTINGS,)), with_pcr(17, None)).code is C.SETTINGS


def test_an_upgraded_enclave_is_accepted_only_where_descendants_are() -> None:
    upgraded = statement(manifest=M2, revision=2, log_head=UPGRADED.head)
    assert refusal(policy(booted=(M1,)), said=upgraded).code is C.MANIFEST
    policy(booted=(M1,), descends=True).require(DOCUMENT, upgraded, now_ms=NOW, event_log=UPGRADED.entries)
    policy(booted=(M1,), descends=True, manifests=(M2,)).require(DOCUMENT, upgraded, now_ms=NOW)
    assert refusal(policy(booted=(M1,), descends=True, manifests=(M1,)), said=upgraded).code is C.MANIFEST


def test_an_enclave_without_an_active_manifest_is_not_booted_exactly() -> None:
    nothing = statement(manifest=None, revision=0)
    assert refusal(policy(booted=(M1,)), said=nothing).code is C.MANIFEST


def test_age_is_judged_by_the_documents_time_and_the_given_now() -> None:
    rule = policy(max_age=300)
    made = DOCUMENT.timestamp
    rule.require(DOCUMENT, now_ms=made + 300_000)
    rule.require(DOCUMENT, now_ms=made + 300_000 + 5_000)
    assert refusal(rule, now_ms=made + 300_000 + 5_001).code is C.TOO_OLD
    assert refusal(rule, now_ms=made + 300_001, skew_ms=0).code is C.TOO_OLD
    rule.require(DOCUMENT, now_ms=made - 5_000)
    assert refusal(rule, now_ms=made - 5_001).code is C.FUTURE
    assert refusal(rule, now_ms=made - 1, skew_ms=0).code is C.FUTURE
    policy().require(DOCUMENT, now_ms=0)


def test_a_maximum_age_of_zero_is_a_maximum_age() -> None:
    assert refusal(policy(max_age=0), now_ms=DOCUMENT.timestamp + 5_001).code is C.TOO_OLD
    assert policy_from_mapping(policy(max_age=0).to_mapping()).max_age == 0


@pytest.mark.parametrize(
    "changes", [{"deployment": "tutorial"}, {"manifests": (M1,)}, {"min_revision": 1}, {"min_epoch": 1}]
)
def test_no_statement_is_refused_where_the_policy_asks_for_what_only_it_says(changes: dict[str, Any]) -> None:
    assert refusal(policy(**changes), said=None).code is C.STATEMENT_MISSING


def test_an_event_log_or_a_kind_needs_a_statement() -> None:
    assert refusal(policy(), said=None, event_log=LOG.entries).code is C.STATEMENT_MISSING
    assert refusal(policy(), said=None, kind=Kind.SEAL).code is C.STATEMENT_MISSING


def test_what_the_statement_says_is_held_to_the_policy() -> None:
    assert refusal(policy(deployment="other")).code is C.DEPLOYMENT
    assert refusal(policy(manifests=(M2,))).code is C.MANIFEST
    assert refusal(policy(manifests=(M2,)), said=statement(manifest=None, revision=0)).code is C.MANIFEST
    assert refusal(policy(min_revision=2)).code is C.REVISION
    assert refusal(policy(min_epoch=1)).code is C.EPOCH


def test_a_statement_of_another_kind_is_refused() -> None:
    assert refusal(policy(), kind=Kind.SEAL).code is C.KIND
    spoken = statement(kind="actor", speaker=Speaker("notary", bytes(32)))
    assert refusal(policy(), said=spoken, kind=Kind.ATTEST).code is C.KIND
    policy().require(DOCUMENT, spoken, now_ms=NOW, kind=Kind.ACTOR)


def test_the_event_log_must_lead_from_what_booted_to_what_is_active() -> None:
    rule, upgraded = policy(), statement(manifest=M2, revision=2, log_head=UPGRADED.head)
    rule.require(DOCUMENT, STATEMENT, now_ms=NOW, event_log=LOG.entries)
    rule.require(DOCUMENT, upgraded, now_ms=NOW, event_log=UPGRADED.entries)
    elsewhere = EventLog().append(ACTIVATED, manifest=M2, revision=2, epoch=0, time=1)
    for doc, said, entries in [
        (DOCUMENT, STATEMENT, UPGRADED.entries),  # another log
        (DOCUMENT, statement(log_head=pcr.ZERO), ()),  # an active manifest that nothing activated
        (DOCUMENT, statement(log_head=UPGRADED.head), UPGRADED.entries),  # it ends elsewhere
        (DOCUMENT, statement(manifest=M2, revision=2, epoch=1, log_head=UPGRADED.head), UPGRADED.entries),
        (
            DOCUMENT,
            statement(manifest=M2, revision=2, log_head=elsewhere.head),
            elsewhere.entries,
        ),  # it begins elsewhere
        (with_pcr(16, None), STATEMENT, LOG.entries),
    ]:
        assert refusal(rule, doc, said, event_log=entries).code is C.EVENT_LOG


def test_an_empty_event_log_fits_an_enclave_that_activated_nothing() -> None:
    nothing = statement(manifest=None, revision=0, log_head=pcr.ZERO)
    policy().require(DOCUMENT, nothing, now_ms=NOW, event_log=())


def test_real_and_simulated_roots_never_stand_in_one_policy() -> None:
    for changes in (
        {"simulated": False},
        {"pinned": aws_roots()},
        {"pinned": aws_roots() | Roots.from_digests([ROOT])},
        {"pinned": aws_roots() | Roots.from_digests([ROOT]), "simulated": False},
    ):
        with pytest.raises(PolicyError, match="that of AWS alone"):
            policy(**changes)


# ---- members


def test_a_members_policy_is_the_policy_with_its_pcr() -> None:
    whole = parse_policy(FULL)
    assert whole.members["e1"] == Member(4, pcr.pcr4(INSTANCE))
    whole.for_member("e1").require(DOCUMENT, STATEMENT, now_ms=NOW)
    assert refusal(whole.for_member("e2")).code is C.PCR
    assert refusal(whole.for_member("e1"), with_pcr(0, OTHER)).code is C.PCR


def test_a_slot_that_is_not_a_member_is_refused() -> None:
    for rule in (parse_policy(FULL), policy()):
        with pytest.raises(PolicyError) as caught:
            rule.for_member("e9")
        assert caught.value.code is C.MEMBER


def test_members_by_role_are_bound_by_pcr3() -> None:
    rule = policy(members={"e1": Member(3, DOCUMENT.pcrs[3])})
    rule.for_member("e1").require(DOCUMENT, now_ms=NOW)
    assert "PCR3" in refusal(rule.for_member("e1"), with_pcr(3, OTHER)).sentence


def test_one_parent_cannot_be_two_members() -> None:
    with pytest.raises(PolicyError, match="play both"):
        policy(members={"e1": Member(4, OTHER), "e2": Member(4, OTHER)})


def test_a_member_that_the_pcrs_rule_out_is_a_contradiction() -> None:
    with pytest.raises(PolicyError, match="does not accept"):
        policy(pcrs={0: (IMAGE,), 4: (IMAGE,)}, members={"e1": Member(4, OTHER)})
    policy(pcrs={0: (IMAGE,), 4: ()}, members={"e1": Member(4, OTHER)})


def test_a_member_is_bound_by_pcr3_or_pcr4_only() -> None:
    for index, value in ((0, OTHER), (4, bytes(32))):
        with pytest.raises(PolicyError, match="pcr3 or pcr4"):
            Member(index, value)


# ---- a policy of nothing


@pytest.mark.parametrize("changes", [{"pcrs": {}}, {"pcrs": {0: ()}}, {"pcrs": {}, "max_age": 5, "debug": True}])
def test_a_policy_that_pins_no_code_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(**changes)
    assert caught.value.code is C.NOTHING


@pytest.mark.parametrize(
    "changes",
    [
        {"manifests": (M1,)},
        {"deployment": "x"},
        {"booted": (M1,)},
        {"settings": (M1,)},
        {"members": {"e1": Member(4, OTHER)}},
        {"min_epoch": 1, "pcrs": {4: (OTHER,), 16: (OTHER,)}},
    ],
)
def test_a_host_is_not_believed_without_its_image(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(**{"pcrs": {}, **changes})
    assert caught.value.code is C.NO_IMAGE


def test_a_signer_is_as_good_as_an_image() -> None:
    policy(pcrs={8: (OTHER,)}, manifests=(M1,))


def test_descending_from_nothing_is_refused() -> None:
    with pytest.raises(PolicyError, match="descends"):
        policy(descends=True)


# ---- combinations

NEVER = policy(pcrs={0: (OTHER,)})


def test_all_of_needs_every_one() -> None:
    all_of(policy(), policy(max_age=300)).require(DOCUMENT, now_ms=NOW)
    assert refusal(all_of(policy(), NEVER)).code is C.PCR
    assert all_of(policy(), none_of(NEVER)).roots() == Roots.from_digests([ROOT])


def test_any_of_needs_one_and_says_why_none_did() -> None:
    rule = any_of(NEVER, policy())
    rule.require(DOCUMENT, now_ms=NOW)
    error = refusal(any_of(NEVER, policy(deployment="other")))
    assert error.code is C.NO_ALTERNATIVE
    assert "(1)" in error.sentence
    assert "(2)" in error.sentence
    assert any_of(policy(), policy(**AWS)).roots() == Roots.from_digests([ROOT]) | aws_roots()


def test_none_of_refuses_what_one_accepts() -> None:
    rule = all_of(policy(), none_of(policy(manifests=(M1,))))
    assert refusal(rule).code is C.EXCLUDED
    rule.require(DOCUMENT, statement(manifest=M2, revision=2), now_ms=NOW)
    assert none_of(policy()).roots() is None


def test_an_exclusion_is_not_dodged_by_leaving_the_statement_out() -> None:
    revoked = policy(manifests=(M1,))
    assert refusal(none_of(revoked), said=None).code is C.STATEMENT_MISSING
    assert refusal(none_of(any_of(NEVER, revoked)), said=None).code is C.STATEMENT_MISSING
    assert refusal(none_of(all_of(policy(), revoked)), said=None).code is C.STATEMENT_MISSING


def test_combinations_of_nothing_are_refused() -> None:
    other_root = policy(**AWS)
    for make in (
        lambda: all_of(),
        lambda: any_of(),
        lambda: none_of(),
        lambda: all_of(none_of(policy())),
        lambda: any_of(policy(), none_of(policy())),
        lambda: all_of(policy(), other_root),
    ):
        with pytest.raises(PolicyError) as caught:
            make()
        assert caught.value.code is C.NOTHING


def test_combinations_explain_themselves() -> None:
    lines = all_of(policy(), any_of(policy(), none := policy(max_age=1)), none_of(none)).explain()
    assert lines[0] == "All of these hold:"
    assert any("At least one" in line for line in lines)
    assert any("None of these" in line for line in lines)


# ---- as text


def test_every_key_is_read() -> None:
    read = parse_policy(FULL)
    assert read.simulated
    assert read.roots() == Roots.from_digests([ROOT])
    assert dict(read.pcrs) == {0: (IMAGE,), 1: (OTHER, b"\x0c" * 48), 8: ()}
    assert (read.deployment, read.manifests, read.booted, read.settings) == ("tutorial", (M1,), (M1,), (SETTINGS,))
    assert (read.min_revision, read.min_epoch, read.max_age, read.instance_id) == (1, 0, 300, INSTANCE)
    assert (read.descends, read.debug) == (False, False)
    assert list(read.members) == ["e1", "e2"]


def test_the_aws_root_goes_by_its_name() -> None:
    read = parse_policy(f"tea: policy/1\nroots: [aws]\npcrs: {{0: {IMAGE.hex()}}}\ndebug: true\n")
    assert read.roots() == aws_roots()
    assert read.debug
    assert not read.simulated
    assert parse_policy(read.to_yaml()) == read


def test_several_simulated_roots_may_be_named() -> None:
    read = policy_from_mapping(
        {
            "tea": "policy/1",
            "simulated": {"root": [f"sha256:{ROOT.hex()}", "sha256:" + "00" * 32]},
            "pcrs": {0: IMAGE.hex()},
        }
    )
    assert read.roots() == Roots.from_digests([ROOT, bytes(32)])
    assert parse_policy(read.to_yaml()) == read


PINS = st.lists(st.binary(min_size=48, max_size=48), min_size=1, max_size=3, unique=True).map(tuple)
DIGESTS = st.lists(st.binary(min_size=48, max_size=48), max_size=2).map(tuple)


@given(
    pcrs=st.dictionaries(st.integers(1, 31), PINS | st.just(()), max_size=4),
    image=PINS,
    manifests=DIGESTS,
    booted=DIGESTS,
    numbers=st.tuples(*[st.integers(0, 2**63 - 1)] * 2),
    max_age=st.none() | st.integers(0, 10**9),
    flags=st.tuples(st.booleans(), st.booleans()),
    deployment=st.none() | st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
)
def test_a_policy_written_and_read_is_the_same(
    pcrs: dict[int, tuple[bytes, ...]],
    image: tuple[bytes, ...],
    manifests: tuple[bytes, ...],
    booted: tuple[bytes, ...],
    numbers: tuple[int, int],
    max_age: int | None,
    flags: tuple[bool, bool],
    deployment: str | None,
) -> None:
    written = policy(
        pcrs={**pcrs, 0: image},
        manifests=manifests,
        booted=booted,
        min_revision=numbers[0],
        min_epoch=numbers[1],
        max_age=max_age,
        debug=flags[0],
        descends=flags[1] and bool(booted),
        deployment=deployment,
    )
    assert parse_policy(written.to_yaml()) == written


def test_a_full_policy_written_and_read_is_the_same_and_explains_every_key() -> None:
    read = parse_policy(FULL)
    assert parse_policy(read.to_yaml()) == read
    text = "\n".join(dataclasses.replace(read, debug=True, descends=True, min_epoch=7).explain())
    for part in ("simulated", "PCR0", "any value", "tutorial", INSTANCE, "300 s", "least 1", "least 7", "Debug", "e2"):
        assert part in text
    for digest in (M1, SETTINGS):
        assert digest.hex() in text
    assert "AWS" in "\n".join(policy(**AWS).explain())


PCRS = f"pcrs: {{0: {IMAGE.hex()}}}"
HEAD = f"tea: policy/1\nroots: [aws]\n{PCRS}\n"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", C.SYNTAX, "empty"),
        ("a: [", C.SYNTAX, "p.yaml:1"),
        ("[]", C.VALUE, "mapping"),
        ("text", C.VALUE, "mapping"),
        (HEAD + "debug: &a true\n", C.SYNTAX, "p.yaml:4"),
        (HEAD + "debug: *a\n", C.SYNTAX, "p.yaml:4"),
        (HEAD + "debug: !!bool true\n", C.SYNTAX, "tag"),
        (HEAD + "roots: [aws]\n", C.SYNTAX, "'roots' again"),
        ("x" * (1 << 20) + "y", C.SYNTAX, "characters"),
        (f"roots: [aws]\n{PCRS}\n", C.VALUE, "no key 'tea'"),
        (f"tea: policy/2\nroots: [aws]\n{PCRS}\n", C.VERSION, "policy/1"),
        (f"tea: manifest/1\nroots: [aws]\n{PCRS}\n", C.VERSION, "policy/1"),
        (HEAD + "max_ages: 3\n", C.UNKNOWN_KEY, "did you mean 'max_age'"),
        (f"tea: policy/1\n{PCRS}\n", C.VALUE, "roots: [aws]"),
        (HEAD + f"simulated: {{root: sha256:{ROOT.hex()}}}\n", C.VALUE, "one of them"),
        (f"tea: policy/1\nroots: [gcp]\n{PCRS}\n", C.VALUE, "aws"),
        (f"tea: policy/1\nroots: []\n{PCRS}\n", C.VALUE, "[aws]"),
        (f"tea: policy/1\nroots: aws\n{PCRS}\n", C.VALUE, "a list"),
        (f"tea: policy/1\nsimulated: true\n{PCRS}\n", C.VALUE, "mapping"),
        (f"tea: policy/1\nsimulated: {{root: sha384:{M1.hex()}}}\n{PCRS}\n", C.VALUE, "sha256"),
        (f"tea: policy/1\nsimulated: {{roots: sha256:{ROOT.hex()}}}\n{PCRS}\n", C.UNKNOWN_KEY, "root"),
        ("tea: policy/1\nroots: [aws]\n", C.NOTHING, "anybody's code"),
        ("tea: policy/1\nroots: [aws]\npcrs: {}\n", C.VALUE, "fill it in"),
        ("tea: policy/1\nroots: [aws]\npcrs:\n", C.VALUE, "fill it in"),
        ("tea: policy/1\nroots: [aws]\npcrs: [1]\n", C.VALUE, "mapping"),
        ("tea: policy/1\nroots: [aws]\npcrs: {0: any}\n", C.NOTHING, "PCR0"),
        ("tea: policy/1\nroots: [aws]\npcrs: {0: abcd}\n", C.VALUE, "96 hex digits"),
        ("tea: policy/1\nroots: [aws]\npcrs: {0: []}\n", C.VALUE, "fill it in"),
        ("tea: policy/1\nroots: [aws]\npcrs: {0: 7}\n", C.VALUE, "list"),
        (f"tea: policy/1\nroots: [aws]\npcrs: {{0: [{IMAGE.hex()}, any]}}\n", C.VALUE, "96 hex digits"),
        (f"tea: policy/1\nroots: [aws]\npcrs: {{32: {IMAGE.hex()}}}\n", C.VALUE, "0 to 31"),
        (f"tea: policy/1\nroots: [aws]\npcrs: {{zero: {IMAGE.hex()}}}\n", C.VALUE, "0 to 31"),
        (f"tea: policy/1\nroots: [aws]\npcrs: {{00: {IMAGE.hex()}}}\n", C.VALUE, "0 to 31"),
        (f"tea: policy/1\nroots: [aws]\nmanifests: [sha384:{M1.hex()}]\n", C.NO_IMAGE, "PCR0, 1, 2 or 8"),
        (HEAD + "manifests: []\n", C.VALUE, "fill it in"),
        (HEAD + f"manifests: [sha256:{ROOT.hex()}]\n", C.VALUE, "sha384"),
        (HEAD + "booted: [7]\n", C.VALUE, "sha384"),
        (HEAD + "deployment: Two Words\n", C.VALUE, "a-z"),
        (HEAD + "deployment: [x]\n", C.VALUE, "text"),
        (HEAD + "instance_id: webserver\n", C.VALUE, "i-..."),
        (HEAD + "min_revision: -1\n", C.VALUE, "0 to"),
        (HEAD + "min_revision: one\n", C.VALUE, "whole number"),
        (HEAD + "max_age: 1.5\n", C.VALUE, "whole number"),
        (HEAD + "max_age: 99999999999999999999\n", C.VALUE, "63 bits"),
        (HEAD + "debug: maybe\n", C.VALUE, "true or false"),
        (HEAD + "debug: 1\n", C.VALUE, "true or false"),
        (HEAD + "descends: true\n", C.VALUE, "booted"),
        (HEAD + "members: {}\n", C.VALUE, "fill it in"),
        (HEAD + f"members: {{E1: {{pcr4: {OTHER.hex()}}}}}\n", C.VALUE, "rename"),
        (HEAD + "members: {e1: {}}\n", C.VALUE, "pcr3"),
        (HEAD + f"members: {{e1: {{pcr3: {M1.hex()}, pcr4: {M2.hex()}}}}}\n", C.VALUE, "keep one"),
        (HEAD + f"members: {{e1: {{pcr5: {OTHER.hex()}}}}}\n", C.UNKNOWN_KEY, "pcr4"),
        (HEAD + f"members: {{e1: {{pcr4: {OTHER.hex()}}}, e2: {{pcr4: {OTHER.hex()}}}}}\n", C.VALUE, "play both"),
    ],
)
def test_a_policy_that_is_written_wrongly_says_where_and_how_to_mend_it(text: str, code: PolicyCode, says: str) -> None:
    error = unreadable(text)
    assert error.code is code
    assert says in error.sentence


def test_plain_data_must_be_plain() -> None:
    with pytest.raises(TypeError, match="only text"):
        policy_from_mapping({"tea": object()})


def test_every_code_has_its_test() -> None:
    source = __import__("pathlib").Path(__file__).read_text()
    assert [code.name for code in PolicyCode if f"C.{code.name}" not in source] == []


@given(st.text(max_size=80))
def test_any_text_gives_a_policy_or_the_one_error(text: str) -> None:
    for candidate in (text, HEAD + text):
        try:
            parse_policy(candidate)
        except PolicyError:
            pass
