"""Offline verification of a round's certificate, and of evidence against a member, under a policy of the reader's own.

May not: take roots, members, manifests or a deployment from the file (they come from the policy alone), or read a
clock (documents are verified at the time that they carry).
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from .attestation import AttestationDocument, AttestationError, ChainCache, parse_document, verify_document
from .policy import Member, Policy, PolicyError
from .round_formats import (
    Certificate,
    DifferingKey,
    Evidence,
    EvidenceKind,
    RoundClaim,
    RoundCode,
    RoundError,
    SlotAttestation,
    contributions_nonce,
    parse_certificate,
    parse_claim,
    parse_evidence,
    quorum,
)
from .statement import Kind, Statement, StatementError, verify_statement
from .statenode import StateTreeError, verify_proof

__all__ = [
    "Certificate",
    "CertificateReport",
    "Difference",
    "DifferingKey",
    "Evidence",
    "EvidenceKind",
    "EvidenceReport",
    "RoundClaim",
    "RoundCode",
    "RoundError",
    "SlotAttestation",
    "contributions_nonce",
    "parse_certificate",
    "parse_claim",
    "parse_evidence",
    "quorum",
    "verify_certificate",
    "verify_evidence",
]


@dataclass(frozen=True)
class CertificateReport:
    """What a verified certificate proves."""

    deployment: str
    manifest: bytes
    """SHA-384 of the manifest under which all of the attestations were made."""
    height: int
    block_hash: bytes
    state_root: bytes
    slots: tuple[str, ...]
    """The slots that attest, ordered."""
    members: int
    """How many slots the policy has."""
    quorum: int
    """How many of them more than two thirds are."""
    first_ms: int
    """Time of the oldest document, milliseconds since the epoch."""
    last_ms: int
    """Time of the newest."""
    modules: Mapping[str, str]
    """Which enclave (module id) attested for each slot."""


@dataclass(frozen=True)
class Difference:
    """A key whose value in the accused's state is proven to be another than in the certified one. None: absent."""

    key: bytes
    certified: bytes | None
    accused: bytes | None


@dataclass(frozen=True)
class EvidenceReport:
    """What verified evidence proves of a member."""

    kind: EvidenceKind
    accused: str
    module_id: str
    """The accused's enclave."""
    height: int
    block_hash: bytes
    """The block that the accused attested."""
    state_root: bytes
    """The state root that the accused attested; of an equivocation, the first."""
    other_root: bytes
    """What contradicts it: the certified state root, or the other one that the accused attested."""
    time_ms: int
    """When the accused attested it, milliseconds since the epoch (of an equivocation, the later one)."""
    certificate: CertificateReport | None
    """What it dissents from; None for an equivocation."""
    difference: Difference | None
    """What differs, where the evidence shows it."""


@dataclass(frozen=True)
class _Verified:
    slot: str
    document: AttestationDocument
    statement: Statement
    manifest: bytes
    claim: RoundClaim


def verify_certificate(data: bytes, policy: Policy, *, cache: ChainCache | None = None) -> CertificateReport:
    """Verify a certificate's file. Raises `RoundError`, and nothing else, on any bytes that do not prove it.

    `cache` spares the second and later verifications of one certificate chain.
    """
    # 1. The file is one canonical certificate; the policy has members.
    certificate = parse_certificate(data)
    members = _require_members(policy)
    # 2. Known slots, each once, more than two thirds of those that the policy has. Cheap, so before any signature.
    slots = [attestation.slot for attestation in certificate.attestations]
    for slot in slots:
        _require_known(slot, members)
        if slots.count(slot) > 1:
            raise RoundError(RoundCode.DUPLICATE_SLOT, f"slot {slot} attests {slots.count(slot)} times, it counts once")
    needed = quorum(len(members))
    if len(slots) < needed:
        raise RoundError(
            RoundCode.TOO_FEW, f"{len(slots)} of {len(members)} slots attest; more than two thirds are {needed}"
        )
    # 3. Each document and its statement hold, at the document's own time, for the slot.
    verified = [_verify(attestation, policy, members, cache) for attestation in certificate.attestations]
    # 4. They all say what the certificate says, under one manifest, each from an enclave of its own.
    enclaves: dict[str, str] = {}
    for item in verified:
        _require_round(item, certificate.height, certificate.block_hash)
        if item.claim.state_root != certificate.state_root:
            raise RoundError(
                RoundCode.OTHER_ROOT,
                f"slot {item.slot} attests state root {item.claim.state_root.hex()}, the certificate says "
                f"{certificate.state_root.hex()}",
            )
        _require_manifest(item, verified[0])
        other = enclaves.setdefault(item.document.module_id, item.slot)
        if other != item.slot:
            raise RoundError(
                RoundCode.SHARED_ENCLAVE,
                f"slots {other} and {item.slot} are both spoken for by enclave {item.document.module_id}",
            )
    times = [item.document.timestamp for item in verified]
    return CertificateReport(
        deployment=verified[0].statement.deployment,
        manifest=verified[0].manifest,
        height=certificate.height,
        block_hash=certificate.block_hash,
        state_root=certificate.state_root,
        slots=tuple(slots),
        members=len(members),
        quorum=needed,
        first_ms=min(times),
        last_ms=max(times),
        modules={item.slot: item.document.module_id for item in verified},
    )


def verify_evidence(data: bytes, policy: Policy, *, cache: ChainCache | None = None) -> EvidenceReport:
    """Verify evidence against a member. Raises `RoundError`, and nothing else, on any bytes that do not prove it."""
    # 1. The file is one canonical evidence; its accused is a member.
    evidence = parse_evidence(data)
    members = _require_members(policy)
    _require_known(evidence.accused, members)
    # 2. What the accused signed, at its own time.
    own = [_verify(attestation, policy, members, cache) for attestation in evidence.attestations]
    for item in own:
        _require_height(item, evidence.height)
    # 3. What contradicts it.
    if evidence.certificate is None:
        return _equivocation(evidence, own[0], own[1])
    return _dissent(evidence, own[0], verify_certificate(evidence.certificate, policy, cache=cache))


def _equivocation(evidence: Evidence, first: _Verified, second: _Verified) -> EvidenceReport:
    _require_round(second, first.claim.height, first.claim.block_hash)
    _require_manifest(second, first)
    if first.document.module_id != second.document.module_id:
        raise RoundError(
            RoundCode.OTHER_BOOT,
            f"the claims are those of {first.document.module_id} and of {second.document.module_id}: a restarted "
            "enclave does not contradict itself",
        )
    if first.claim.state_root == second.claim.state_root:
        raise RoundError(RoundCode.AGREES, f"both claims say state root {first.claim.state_root.hex()}")
    return EvidenceReport(
        kind=evidence.kind,
        accused=evidence.accused,
        module_id=first.document.module_id,
        height=first.claim.height,
        block_hash=first.claim.block_hash,
        state_root=first.claim.state_root,
        other_root=second.claim.state_root,
        time_ms=max(first.document.timestamp, second.document.timestamp),
        certificate=None,
        difference=None,
    )


def _dissent(evidence: Evidence, own: _Verified, certificate: CertificateReport) -> EvidenceReport:
    if certificate.height != evidence.height:
        raise RoundError(
            RoundCode.OTHER_HEIGHT, f"the certificate is of height {certificate.height}, expected {evidence.height}"
        )
    if own.manifest != certificate.manifest:
        raise _other_manifest(own.manifest, certificate.manifest)
    same_block = own.claim.block_hash == certificate.block_hash
    if same_block is not (evidence.kind is EvidenceKind.DISSENT):
        raise RoundError(
            RoundCode.OTHER_BLOCK if not same_block else RoundCode.AGREES,
            f"{evidence.accused} attests block {own.claim.block_hash.hex()}, the certificate "
            f"{certificate.block_hash.hex()}: that is no {evidence.kind.value}",
        )
    if same_block and own.claim.state_root == certificate.state_root:
        raise RoundError(RoundCode.AGREES, f"{evidence.accused} attests the very state root that is certified")
    difference = None
    if evidence.difference is not None:
        difference = _difference(evidence.difference, certificate.state_root, own.claim.state_root)
    return EvidenceReport(
        kind=evidence.kind,
        accused=evidence.accused,
        module_id=own.document.module_id,
        height=own.claim.height,
        block_hash=own.claim.block_hash,
        state_root=own.claim.state_root,
        other_root=certificate.state_root,
        time_ms=own.document.timestamp,
        certificate=certificate,
        difference=difference,
    )


def _difference(found: DifferingKey, certified_root: bytes, accused_root: bytes) -> Difference:
    values = []
    for whose, root, proof in (
        ("certified", certified_root, found.certified),
        ("accused", accused_root, found.accused),
    ):
        try:
            values.append(verify_proof(root, found.key, proof))
        except StateTreeError as error:
            raise RoundError(RoundCode.PROOF, f"the {whose} state's proof does not hold: {error.sentence}") from None
    if values[0] == values[1]:
        raise RoundError(RoundCode.EQUAL_VALUES, f"both states have the same value under the key {found.key.hex()}")
    return Difference(found.key, values[0], values[1])


def _require_members(policy: Policy) -> Mapping[str, Member]:
    if not policy.members:
        raise RoundError(RoundCode.NO_MEMBERS, "the policy has no members: add `members: {SLOT: {pcr4: HEX}}`")
    return policy.members


def _require_known(slot: str, members: Mapping[str, Member]) -> None:
    if slot not in members:
        raise RoundError(
            RoundCode.UNKNOWN_SLOT, f"slot {slot} is none of the policy's members {', '.join(sorted(members))}"
        )


def _verify(
    attestation: SlotAttestation,
    policy: Policy,
    members: Mapping[str, Member],
    cache: ChainCache | None,
) -> _Verified:
    """One attestation under the policy, for its slot. The steps are those of the architecture's page."""
    slot = attestation.slot
    try:
        # a. Authentic at the time that it carries itself: evidence outlives its leaf certificate's three hours.
        at = parse_document(attestation.document).timestamp
        document = verify_document(attestation.document, roots=policy.roots(), at=at, cache=cache)
        # b. The statement is the one that it signs.
        statement = verify_statement(document, attestation.statement)
        # c. Image, manifest, deployment, revision: the policy's own.
        policy.require(document, statement, now_ms=at)
    except AttestationError as error:
        raise RoundError(RoundCode.DOCUMENT, f"slot {slot}: {error.sentence}") from None
    except StatementError as error:
        raise RoundError(RoundCode.STATEMENT, f"slot {slot}: {error.sentence}") from None
    except PolicyError as error:
        raise RoundError(RoundCode.POLICY, f"slot {slot}: {error.sentence}") from None
    # d. Made for a round, under a manifest.
    if statement.kind != Kind.RA or statement.manifest is None:
        raise RoundError(
            RoundCode.WRONG_KIND, f"slot {slot}: a statement of kind {statement.kind!r}, expected {Kind.RA.value!r}"
        )
    # e. Its PCRs are this slot's and no other's, so that nobody speaks for two.
    for name, member in members.items():
        found = document.pcrs.get(member.index)
        matches = found is not None and hmac.compare_digest(found, member.value)
        if matches is not (name == slot):
            raise RoundError(
                RoundCode.WRONG_MEMBER,
                f"slot {slot}: PCR{member.index} is {'absent' if found is None else found.hex()}, which "
                + (f"is that of slot {name}" if matches else f"is not the slot's {member.value.hex()}"),
            )
    # f. The claim, and the nonce that its contributions make.
    claim = parse_claim(statement.body)
    if document.nonce is None or not hmac.compare_digest(document.nonce, claim.nonce):
        raise RoundError(RoundCode.NONCE, f"slot {slot}: the document's nonce is not the hash of its contributions")
    return _Verified(slot, document, statement, statement.manifest, claim)


def _require_height(item: _Verified, height: int) -> None:
    if item.claim.height != height:
        raise RoundError(
            RoundCode.OTHER_HEIGHT, f"slot {item.slot} attests height {item.claim.height}, expected {height}"
        )


def _require_round(item: _Verified, height: int, block_hash: bytes) -> None:
    _require_height(item, height)
    if item.claim.block_hash != block_hash:
        raise RoundError(
            RoundCode.OTHER_BLOCK,
            f"slot {item.slot} attests block {item.claim.block_hash.hex()}, expected {block_hash.hex()}",
        )


def _require_manifest(item: _Verified, first: _Verified) -> None:
    if item.manifest != first.manifest:
        raise _other_manifest(item.manifest, first.manifest)


def _other_manifest(found: bytes, expected: bytes) -> RoundError:
    return RoundError(
        RoundCode.OTHER_MANIFEST,
        f"a claim under manifest sha384:{found.hex()} is no measure for one under sha384:{expected.hex()}",
    )
