"""Certificates and evidence offline: what they prove under a policy, and every way in which they prove nothing.

Documents are real ones of simulated NSMs. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust import canonical, pcr
from tea.trust.attestation import ChainCache
from tea.trust.policy import Member, Policy
from tea.trust.roots import Roots
from tea.trust.rounds import (
    Certificate,
    Difference,
    DifferingKey,
    Evidence,
    EvidenceKind,
    RoundClaim,
    RoundCode,
    RoundError,
    SlotAttestation,
    parse_certificate,
    parse_claim,
    parse_evidence,
    quorum,
    verify_certificate,
    verify_evidence,
)
from tea.trust.statement import Speaker, Statement
from tea.trust.statetree import StateTree

START = 1_780_000_000.0
DEPLOYMENT = "rounds"
MANIFEST = hashlib.sha384(b"manifest").digest()
OTHER_MANIFEST = hashlib.sha384(b"another manifest").digest()
IMAGE = pcr.image_pcr(hashlib.sha384(b"image").digest())
BLOCK = hashlib.sha256(b"block").digest()
HEIGHT = 12
TRUTH = StateTree({f"key {n}".encode(): b"true" for n in range(40)})
LIE = TRUTH.apply({b"key 3": b"false"})
CONTRIBUTIONS = tuple(sorted(hashlib.sha256(bytes([n])).digest() for n in range(5)))
CLAIM = RoundClaim(HEIGHT, BLOCK, TRUTH.root, CONTRIBUTIONS)
CA = SimulatedCa.create(now=START)


class Enclave:
    """A simulated enclave of a slot, and what its host and NSM sign."""

    def __init__(self, slot: str, *, boot: str = "1", ca: SimulatedCa = CA, **nsm: object) -> None:
        self.slot = slot
        self.instance = f"i-{hashlib.sha256(slot.encode()).hexdigest()[:16]}"
        self.time = START
        credential = ca.issue_instance(self.instance, now=START)
        pcrs = dict.fromkeys(pcr.IMAGE_PCRS, IMAGE)
        module = f"{self.instance}-enc{boot}"
        self.nsm = Nsm(SimulatedNsm(credential, module, pcrs, lambda: self.time, **nsm))  # type: ignore[arg-type]

    def attest(
        self,
        claim: RoundClaim = CLAIM,
        *,
        slot: str | None = None,
        nonce: bytes | None = None,
        body: bytes | None = None,
        **statement: object,
    ) -> SlotAttestation:
        """The claim, attested as it should be but for what is given."""
        fields: dict[str, object] = {
            "kind": "ra",
            "deployment": DEPLOYMENT,
            "manifest": MANIFEST,
            "revision": 1,
            "epoch": 0,
            "log_head": pcr.ZERO,
            "speaker": Speaker("ra", bytes(32)),
            "body": claim.encode() if body is None else body,
            **statement,
        }
        said = Statement(**fields)  # type: ignore[arg-type]
        document = self.nsm.attestation(said.digest, claim.nonce if nonce is None else nonce, None)
        return SlotAttestation(slot or self.slot, document, said.encode())


SLOTS = ("e1", "e2", "e3", "e4", "e5")
ENCLAVES = {slot: Enclave(slot) for slot in SLOTS}
GOOD = tuple(ENCLAVES[slot].attest() for slot in SLOTS)


def members(*slots: str) -> dict[str, Member]:
    return {slot: Member(4, pcr.pcr4(Enclave(slot).instance)) for slot in slots or SLOTS}


POLICY = Policy(
    pinned=Roots.from_digests([CA.root_digest]),
    simulated=True,
    pcrs={0: (IMAGE,)},
    deployment=DEPLOYMENT,
    manifests=(MANIFEST, OTHER_MANIFEST),
    members=members(),
)


def certificate(attestations: Sequence[SlotAttestation] = GOOD[:4], claim: RoundClaim = CLAIM) -> Certificate:
    return Certificate(claim.height, claim.block_hash, claim.state_root, tuple(attestations))


def replaced(attestation: SlotAttestation) -> bytes:
    """The certificate of e1 to e4 with the first attestation replaced."""
    return certificate((attestation, *GOOD[1:4])).encode()


def dissent(root: bytes = LIE.root, **changes: object) -> Evidence:
    said = ENCLAVES["e5"].attest(dataclasses.replace(CLAIM, state_root=root))
    evidence = Evidence(EvidenceKind.DISSENT, "e5", HEIGHT, (said,), certificate().encode())
    return dataclasses.replace(evidence, **changes)  # type: ignore[arg-type]


def differing(key: bytes = b"key 3", truth: StateTree = TRUTH, lie: StateTree = LIE) -> DifferingKey:
    return DifferingKey(key, truth.prove(key), lie.prove(key))


def refusal(act: Callable[[], object]) -> RoundCode:
    with pytest.raises(RoundError) as refused:
        act()
    assert refused.value.sentence
    code = refused.value.code
    assert isinstance(code, RoundCode)
    return code


def certificate_refusal(data: bytes, policy: Policy = POLICY) -> RoundCode:
    return refusal(lambda: verify_certificate(data, policy))


def evidence_refusal(evidence: Evidence, policy: Policy = POLICY) -> RoundCode:
    return refusal(lambda: verify_evidence(evidence.encode(), policy))


# -- what holds ----------------------------------------------------------------------------------------------------


def test_a_certificate_of_more_than_two_thirds_holds() -> None:
    report = verify_certificate(certificate().encode(), POLICY, cache=ChainCache())
    assert report.height == HEIGHT and report.block_hash == BLOCK and report.state_root == TRUTH.root
    assert report.slots == ("e1", "e2", "e3", "e4") and (report.members, report.quorum) == (5, 4)
    assert report.deployment == DEPLOYMENT and report.manifest == MANIFEST
    assert report.first_ms <= report.last_ms and len(set(report.modules.values())) == 4
    assert verify_certificate(certificate(GOOD).encode(), POLICY).slots == SLOTS


def test_certificates_hold_at_their_documents_own_time() -> None:
    late = Enclave("e1", boot="2")
    late.time = START + 20 * 3600
    report = verify_certificate(certificate((late.attest(), *GOOD[1:4])).encode(), POLICY)
    assert report.last_ms - report.first_ms == 20 * 3600 * 1000


def test_more_than_two_thirds() -> None:
    assert [quorum(n) for n in range(1, 11)] == [1, 2, 3, 3, 4, 5, 5, 6, 7, 7]
    assert all(3 * quorum(n) > 2 * n >= 3 * (quorum(n) - 1) for n in range(1, 200))


def test_evidence_of_a_dissent_says_who_when_and_what() -> None:
    report = verify_evidence(dissent(difference=differing()).encode(), POLICY)
    assert (report.kind, report.accused, report.height) == (EvidenceKind.DISSENT, "e5", HEIGHT)
    assert report.state_root == LIE.root and report.other_root == TRUTH.root and report.block_hash == BLOCK
    assert report.time_ms == int(START * 1000) and report.module_id.startswith(ENCLAVES["e5"].instance)
    assert report.difference == Difference(b"key 3", b"true", b"false")
    assert report.certificate is not None and report.certificate.slots == ("e1", "e2", "e3", "e4")


def test_evidence_holds_without_the_key_and_with_a_key_that_is_absent() -> None:
    assert verify_evidence(dissent().encode(), POLICY).difference is None
    without = TRUTH.apply({b"key 3": None})
    evidence = dissent(without.root, difference=differing(lie=without))
    assert verify_evidence(evidence.encode(), POLICY).difference == Difference(b"key 3", b"true", None)


def test_evidence_of_another_block_is_a_kind_of_its_own() -> None:
    other = dataclasses.replace(CLAIM, block_hash=bytes(32))
    evidence = dissent(kind=EvidenceKind.OTHER_BLOCK, attestations=(ENCLAVES["e5"].attest(other),))
    report = verify_evidence(evidence.encode(), POLICY)
    assert report.kind is EvidenceKind.OTHER_BLOCK and report.block_hash == bytes(32)


def equivocation(first: SlotAttestation, second: SlotAttestation) -> Evidence:
    return Evidence(EvidenceKind.EQUIVOCATION, "e5", HEIGHT, (first, second), None)


LYING = dataclasses.replace(CLAIM, state_root=LIE.root)


def test_evidence_of_an_equivocation_needs_no_certificate() -> None:
    enclave = ENCLAVES["e5"]
    report = verify_evidence(equivocation(enclave.attest(), enclave.attest(LYING)).encode(), POLICY)
    assert report.kind is EvidenceKind.EQUIVOCATION and report.accused == "e5"
    assert (report.state_root, report.other_root) == (TRUTH.root, LIE.root)
    assert report.certificate is None and report.difference is None


# -- certificates that prove nothing: one for each code ---------------------------------------------------------------


def test_what_is_no_certificate_is_refused() -> None:
    whole = certificate().encode()
    fields = canonical.decode(whole)
    assert isinstance(fields, dict)

    def changed(**new: object) -> bytes:
        merged: dict[canonical.Key, object] = dict(fields)
        for name, value in new.items():
            merged[name] = value
        return canonical.encode(merged)

    listed = fields["attestations"]
    assert isinstance(listed, list)
    for data in (
        b"",
        whole[:-1],
        whole + b"\x00",
        dissent().encode(),
        canonical.encode([1]),
        canonical.encode({k: v for k, v in fields.items() if k != "height"}),
        changed(extra=1),
        changed(height=-1),
        changed(height=True),
        changed(height=1 << 63),
        changed(height="12"),
        changed(block_hash=bytes(31)),
        changed(state_root=bytes(33)),
        changed(state_root=None),
        changed(attestations={}),
        changed(attestations=[["e1", b"x"]]),
        changed(attestations=[["", b"x", b"x"]]),
        changed(attestations=[["../e1", b"x", b"x"]]),
        changed(attestations=[["e" * 65, b"x", b"x"]]),
        changed(attestations=[[7, b"x", b"x"]]),
        changed(attestations=[["e1", b"", b"x"]]),
        changed(attestations=[["e1", bytes(0x3001), b"x"]]),
        changed(attestations=[["e1", b"x", bytes(16385)]]),
        changed(attestations=[["e1", b"x", b"x"]] * 257),
        changed(attestations=listed[::-1]),
    ):
        assert certificate_refusal(data) is RoundCode.MALFORMED


def test_a_policy_without_members_proves_nothing() -> None:
    assert certificate_refusal(certificate().encode(), dataclasses.replace(POLICY, members={})) is RoundCode.NO_MEMBERS


def test_a_slot_that_the_policy_does_not_know_does_not_count() -> None:
    stranger = Enclave("e9").attest()
    assert certificate_refusal(certificate((*GOOD[:4], stranger)).encode()) is RoundCode.UNKNOWN_SLOT


def test_a_slot_counts_once() -> None:
    twice = (GOOD[0], GOOD[0], *GOOD[1:3])
    assert certificate_refusal(certificate(twice).encode()) is RoundCode.DUPLICATE_SLOT


def test_two_thirds_are_too_few() -> None:
    assert certificate_refusal(certificate(GOOD[:3]).encode()) is RoundCode.TOO_FEW
    assert certificate_refusal(certificate(()).encode()) is RoundCode.TOO_FEW
    three = dataclasses.replace(POLICY, members=members("e1", "e2", "e3"))
    assert certificate_refusal(certificate(GOOD[:2]).encode(), three) is RoundCode.TOO_FEW
    assert verify_certificate(certificate(GOOD[:3]).encode(), three).quorum == 3


def test_a_forged_signature_is_refused() -> None:
    document = GOOD[0].document
    forged = dataclasses.replace(GOOD[0], document=document[:-1] + bytes([document[-1] ^ 1]))
    assert certificate_refusal(replaced(forged)) is RoundCode.DOCUMENT


def test_a_document_under_another_root_is_refused() -> None:
    foreign = Enclave("e1", ca=SimulatedCa.create(now=START))
    assert certificate_refusal(replaced(foreign.attest())) is RoundCode.DOCUMENT


def test_bytes_that_are_no_document_are_refused() -> None:
    assert certificate_refusal(replaced(dataclasses.replace(GOOD[0], document=b"\x84"))) is RoundCode.DOCUMENT


def test_anothers_statement_is_refused() -> None:
    swapped = dataclasses.replace(GOOD[0], statement=ENCLAVES["e1"].attest(LYING).statement)
    assert certificate_refusal(replaced(swapped)) is RoundCode.STATEMENT


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ENCLAVES["e1"].attest(deployment="another"),
        lambda: ENCLAVES["e1"].attest(manifest=hashlib.sha384(b"unknown").digest()),
        lambda: Enclave("e1", debug=True).attest(),
    ],
    ids=["deployment", "manifest", "debug"],
)
def test_what_the_policy_does_not_accept_is_refused(wrong: Callable[[], SlotAttestation]) -> None:
    assert certificate_refusal(replaced(wrong())) is RoundCode.POLICY


def test_the_policys_image_is_required() -> None:
    policy = dataclasses.replace(POLICY, pcrs={0: (pcr.image_pcr(bytes(48)),)})
    assert certificate_refusal(certificate().encode(), policy) is RoundCode.POLICY


def test_a_statement_for_another_purpose_is_refused() -> None:
    assert certificate_refusal(replaced(ENCLAVES["e1"].attest(kind="actor"))) is RoundCode.WRONG_KIND
    free = dataclasses.replace(POLICY, manifests=())
    unbooted = ENCLAVES["e1"].attest(manifest=None, revision=0)
    assert certificate_refusal(replaced(unbooted), free) is RoundCode.WRONG_KIND


def test_another_member_does_not_fill_a_slot() -> None:
    assert certificate_refusal(replaced(ENCLAVES["e5"].attest(slot="e1"))) is RoundCode.WRONG_MEMBER
    assert certificate_refusal(replaced(Enclave("stranger").attest(slot="e1"))) is RoundCode.WRONG_MEMBER


def test_an_enclave_that_fits_two_slots_fills_neither() -> None:
    role = "arn:aws:iam::1:role/e2"
    both = Enclave("e1", role_arn=role).attest()
    policy = dataclasses.replace(POLICY, members={**members(), "e2": Member(3, pcr.pcr3(role))})
    assert certificate_refusal(replaced(both), policy) is RoundCode.WRONG_MEMBER


def test_one_enclave_does_not_fill_two_slots() -> None:
    roles = {slot: f"arn:aws:iam::1:role/{slot}" for slot in SLOTS}
    policy = dataclasses.replace(POLICY, members={s: Member(3, pcr.pcr3(role)) for s, role in roles.items()})
    attestations = [Enclave("shared", role_arn=role).attest(slot=slot) for slot, role in roles.items()]
    assert certificate_refusal(certificate(attestations).encode(), policy) is RoundCode.SHARED_ENCLAVE


def test_a_nonce_that_is_not_the_contributions_is_refused() -> None:
    assert certificate_refusal(replaced(ENCLAVES["e1"].attest(nonce=bytes(48)))) is RoundCode.NONCE
    assert certificate_refusal(replaced(ENCLAVES["e1"].attest(nonce=b""))) is RoundCode.NONCE


def test_members_under_different_manifests_certify_nothing_together() -> None:
    other = ENCLAVES["e1"].attest(manifest=OTHER_MANIFEST, revision=2)
    assert certificate_refusal(replaced(other)) is RoundCode.OTHER_MANIFEST


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"height": HEIGHT + 1}, RoundCode.OTHER_HEIGHT),
        ({"block_hash": bytes(32)}, RoundCode.OTHER_BLOCK),
        ({"state_root": LIE.root}, RoundCode.OTHER_ROOT),
    ],
)
def test_a_claim_about_something_else_is_refused(change: dict[str, object], code: RoundCode) -> None:
    said = ENCLAVES["e1"].attest(dataclasses.replace(CLAIM, **change))  # type: ignore[arg-type]
    assert certificate_refusal(replaced(said)) is code
    changed = dataclasses.replace(certificate(), **change)  # type: ignore[arg-type]
    assert certificate_refusal(changed.encode()) is code


def test_a_body_that_is_no_claim_is_refused() -> None:
    fields = canonical.decode(CLAIM.encode())
    assert isinstance(fields, dict)
    for body in (
        b"",
        canonical.encode({**fields, "contributions": []}),
        canonical.encode({**fields, "contributions": list(CONTRIBUTIONS[::-1])}),
        canonical.encode({**fields, "contributions": [CONTRIBUTIONS[0]] * 2}),
        canonical.encode({**fields, "contributions": [bytes(31)]}),
        canonical.encode({**fields, "tea": "tea.other.v1"}),
    ):
        assert certificate_refusal(replaced(ENCLAVES["e1"].attest(body=body))) is RoundCode.MALFORMED


# -- evidence that proves nothing -------------------------------------------------------------------------------------


def test_what_is_no_evidence_is_refused() -> None:
    fields = canonical.decode(dissent(difference=differing()).encode())
    assert isinstance(fields, dict)
    listed = fields["attestations"]
    assert isinstance(listed, list)
    changes: list[dict[canonical.Key, object]] = [
        {"kind": "murder"},
        {"kind": 1},
        {"kind": "equivocation"},
        {"kind": "other-block"},
        {"certificate": None},
        {"certificate": b""},
        {"attestations": listed * 2},
        {"attestations": []},
        {"accused": "e4"},
        {"height": None},
        {"difference": {}},
        {"difference": {"key": b"", "certified": b"x", "accused": b"x"}},
        {"difference": {"key": b"k", "certified": b"x", "accused": 1}},
    ]
    for change in changes:
        data = canonical.encode({**fields, **change})
        assert refusal(lambda data=data: verify_evidence(data, POLICY)) is RoundCode.MALFORMED  # type: ignore[misc]
    assert refusal(lambda: verify_evidence(certificate().encode(), POLICY)) is RoundCode.MALFORMED


def test_only_members_are_accused() -> None:
    policy = dataclasses.replace(POLICY, members=members("e1", "e2", "e3", "e4"))
    assert evidence_refusal(dissent(), policy) is RoundCode.UNKNOWN_SLOT
    assert evidence_refusal(dissent(), dataclasses.replace(POLICY, members={})) is RoundCode.NO_MEMBERS


def test_agreeing_is_no_dissent() -> None:
    assert evidence_refusal(dissent(TRUTH.root)) is RoundCode.AGREES
    assert evidence_refusal(dissent(kind=EvidenceKind.OTHER_BLOCK)) is RoundCode.AGREES


def test_another_block_is_no_dissent_about_this_one() -> None:
    other = ENCLAVES["e5"].attest(dataclasses.replace(LYING, block_hash=bytes(32)))
    assert evidence_refusal(dissent(attestations=(other,))) is RoundCode.OTHER_BLOCK


def test_another_height_is_no_dissent() -> None:
    other = ENCLAVES["e5"].attest(dataclasses.replace(LYING, height=HEIGHT + 1))
    assert evidence_refusal(dissent(attestations=(other,))) is RoundCode.OTHER_HEIGHT
    assert evidence_refusal(dissent(attestations=(other,), height=HEIGHT + 1)) is RoundCode.OTHER_HEIGHT


def test_nobody_is_accused_by_anothers_words() -> None:
    framed = ENCLAVES["e4"].attest(LYING, slot="e5")
    assert evidence_refusal(dissent(attestations=(framed,))) is RoundCode.WRONG_MEMBER


def test_nobody_is_accused_by_a_forged_document() -> None:
    (said,) = dissent().attestations
    forged = dataclasses.replace(said, document=said.document[:-1] + bytes([said.document[-1] ^ 1]))
    assert evidence_refusal(dissent(attestations=(forged,))) is RoundCode.DOCUMENT
    swapped = dataclasses.replace(GOOD[4], statement=said.statement)
    assert evidence_refusal(dissent(attestations=(swapped,))) is RoundCode.STATEMENT


def test_a_member_under_another_manifest_may_watch_other_state() -> None:
    other = ENCLAVES["e5"].attest(LYING, manifest=OTHER_MANIFEST, revision=2)
    assert evidence_refusal(dissent(attestations=(other,))) is RoundCode.OTHER_MANIFEST


def test_evidence_stands_and_falls_with_its_certificate() -> None:
    assert evidence_refusal(dissent(certificate=certificate(GOOD[:3]).encode())) is RoundCode.TOO_FEW


def test_proofs_have_to_hold_under_the_attested_roots() -> None:
    swapped = DifferingKey(b"key 3", LIE.prove(b"key 3"), TRUTH.prove(b"key 3"))
    other_key = dataclasses.replace(differing(), key=b"key 4")
    for difference in (swapped, other_key, dataclasses.replace(differing(), accused=b"\x00")):
        assert evidence_refusal(dissent(difference=difference)) is RoundCode.PROOF


def test_a_key_with_equal_values_does_not_differ() -> None:
    assert evidence_refusal(dissent(difference=differing(b"key 4"))) is RoundCode.EQUAL_VALUES


def test_saying_the_same_twice_is_no_equivocation() -> None:
    enclave = ENCLAVES["e5"]
    assert evidence_refusal(equivocation(enclave.attest(), enclave.attest())) is RoundCode.AGREES


def test_a_restarted_enclave_does_not_contradict_itself() -> None:
    evidence = equivocation(ENCLAVES["e5"].attest(), Enclave("e5", boot="2").attest(LYING))
    assert evidence_refusal(evidence) is RoundCode.OTHER_BOOT


def test_two_blocks_are_no_equivocation() -> None:
    enclave = ENCLAVES["e5"]
    other = dataclasses.replace(LYING, block_hash=bytes(32))
    assert evidence_refusal(equivocation(enclave.attest(), enclave.attest(other))) is RoundCode.OTHER_BLOCK
    upgraded = enclave.attest(LYING, manifest=OTHER_MANIFEST, revision=2)
    assert evidence_refusal(equivocation(enclave.attest(), upgraded)) is RoundCode.OTHER_MANIFEST


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_what_is_encoded_is_read_back() -> None:
    assert parse_claim(CLAIM.encode()) == CLAIM
    assert parse_certificate(certificate().encode()) == certificate()
    for evidence in (dissent(), dissent(difference=differing()), equivocation(GOOD[4], GOOD[4])):
        assert parse_evidence(evidence.encode()) == evidence
    assert dissent().id == "dissent-e5-12"


def test_an_attestations_digest_is_over_document_and_statement() -> None:
    digests = {a.digest for a in (*GOOD, dataclasses.replace(GOOD[0], statement=GOOD[1].statement + b"x"))}
    assert len(digests) == 6 and dataclasses.replace(GOOD[0], slot="e9").digest == GOOD[0].digest


def test_the_bytes_are_these() -> None:
    claim = RoundClaim(7, bytes([1]) * 32, bytes([2]) * 32, (bytes([3]) * 32, bytes([4]) * 32))
    attestation = SlotAttestation("e1", b"document", b"statement")
    held = Certificate(7, bytes([1]) * 32, bytes([2]) * 32, (attestation,))
    evidence = Evidence(EvidenceKind.DISSENT, "e1", 7, (attestation,), held.encode(), DifferingKey(b"k", b"a", b"b"))
    assert [thing.encode().hex() for thing in (claim, held, evidence)] == [
        GOLDEN_CLAIM,
        GOLDEN_CERTIFICATE,
        GOLDEN_EVIDENCE,
    ]
    assert claim.nonce == hashlib.sha384(bytes([3]) * 32 + bytes([4]) * 32).digest()


GOLDEN_CLAIM = (
    "a563746561697465612e72612e763166686569676874076a626c6f636b5f6861736858200101010101010101010101010101"
    "0101010101010101010101010101010101016a73746174655f726f6f74582002020202020202020202020202020202020202"
    "020202020202020202020202026d636f6e747269627574696f6e738258200303030303030303030303030303030303030303"
    "03030303030303030303030358200404040404040404040404040404040404040404040404040404040404040404"
)
GOLDEN_CERTIFICATE = (
    "a563746561727465612e63657274696669636174652e763166686569676874076a626c6f636b5f6861736858200101010101"
    "0101010101010101010101010101010101010101010101010101016a73746174655f726f6f74582002020202020202020202"
    "020202020202020202020202020202020202020202026c6174746573746174696f6e73818362653148646f63756d656e7449"
    "73746174656d656e74"
)
GOLDEN_EVIDENCE = (
    "a7637465616f7465612e65766964656e63652e7631646b696e646764697373656e7466686569676874076761636375736564"
    "6265316a646966666572656e6365a3636b6579416b676163637573656441626963657274696669656441616b636572746966"
    "6963617465589fa563746561727465612e63657274696669636174652e763166686569676874076a626c6f636b5f68617368"
    "582001010101010101010101010101010101010101010101010101010101010101016a73746174655f726f6f745820020202"
    "02020202020202020202020202020202020202020202020202020202026c6174746573746174696f6e73818362653148646f"
    "63756d656e744973746174656d656e746c6174746573746174696f6e73818362653148646f63756d656e744973746174656d"
    "656e74"
)


def test_what_no_reader_would_accept_is_not_written() -> None:
    big = [SlotAttestation(f"e{n}", bytes(0x3000), bytes(16384)) for n in range(40)]
    with pytest.raises(ValueError, match="at most"):
        certificate(big).encode()
    with pytest.raises(ValueError, match="at most"):
        dissent(attestations=tuple(big)).encode()


WHOLE = certificate().encode()
PROOF = dissent(difference=differing()).encode()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_one_flipped_bit_anywhere_breaks_a_certificate(bit: int) -> None:
    data = bytearray(WHOLE)
    data[bit >> 3] ^= 1 << (bit & 7)
    refusal(lambda: verify_certificate(bytes(data), POLICY))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(PROOF) * 8 - 1))
def test_one_flipped_bit_anywhere_breaks_evidence(bit: int) -> None:
    data = bytearray(PROOF)
    data[bit >> 3] ^= 1 << (bit & 7)
    refusal(lambda: verify_evidence(bytes(data), POLICY))


@given(st.binary(max_size=200))
def test_any_other_exception_is_a_bug(data: bytes) -> None:
    refusal(lambda: verify_certificate(data, POLICY))
    refusal(lambda: verify_evidence(data, POLICY))
