"""What a round leaves behind, as bytes: the claim that a member attests, a certificate, evidence against a member.

May not: verify a signature (rounds.py does) or know how rounds are run (the ra actor does).
Rule: docs/architecture.md, "Remote attestation of layer-1 state"; canonical CBOR, each thing under a tag of its own.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .canonical import CanonicalError, Value, decode_tagged, encode
from .errors import TrustError

CLAIM_TAG: Final = "tea.ra.v1"
CERTIFICATE_TAG: Final = "tea.certificate.v1"
EVIDENCE_TAG: Final = "tea.evidence.v1"

CONTRIBUTION_SIZE: Final = 32
"""Bytes that a member's NSM contributes to a round."""
HASH_SIZE: Final = 32
"""Bytes of a block hash and of a state root."""
MAX_CONTRIBUTIONS: Final = 256
MAX_SLOTS: Final = 256
MAX_SLOT_NAME: Final = 64
_SLOT: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_SLOT_NAME - 1}}}")
MAX_HEIGHT: Final = (1 << 63) - 1
MAX_DOCUMENT: Final = 0x3000
"""The NSM's largest response: no attestation document is longer."""
MAX_STATEMENT: Final = 16 * 1024
MAX_CERTIFICATE: Final = 480 * 1024
"""Longest certificate, in bytes: it must fit one message between enclaves."""
MAX_EVIDENCE: Final = 960 * 1024
"""Longest evidence, in bytes: it must fit one frame."""


class RoundCode(enum.StrEnum):
    """Why a round's claim, certificate or evidence is refused."""

    MALFORMED = "malformed"
    """The bytes are not the canonical encoding of such a thing."""
    NO_MEMBERS = "no-members"
    """The policy names no members, so nothing can be certified under it."""
    UNKNOWN_SLOT = "unknown-slot"
    """A slot is named that the policy's members do not have."""
    DUPLICATE_SLOT = "duplicate-slot"
    """One slot counts twice."""
    SHARED_ENCLAVE = "shared-enclave"
    """One enclave (module id) speaks for two slots."""
    TOO_FEW = "too-few"
    """Not more than two thirds of the policy's slots attest."""
    DOCUMENT = "document"
    """An attestation document is not authentic: signature, chain, root, validity or syntax."""
    STATEMENT = "statement"
    """A statement is not the one that its document signs."""
    POLICY = "policy"
    """A document or statement does not meet the policy: image, manifest, deployment, revision, debug mode."""
    WRONG_KIND = "wrong-kind"
    """A statement was made for another purpose than a round."""
    WRONG_MEMBER = "wrong-member"
    """A document's PCRs are not those of the slot that it is said to speak for."""
    NONCE = "nonce"
    """A document's nonce is not the hash of its contributions."""
    OTHER_MANIFEST = "other-manifest"
    """Two documents that are compared speak under different manifests, which may watch different state."""
    OTHER_HEIGHT = "other-height"
    """A claim is about another height."""
    OTHER_BLOCK = "other-block"
    """A claim is about another block."""
    OTHER_ROOT = "other-root"
    """A claim attests another state root than the certificate that holds it."""
    AGREES = "agrees"
    """The accused's claim agrees with the certificate: that is no evidence."""
    OTHER_BOOT = "other-boot"
    """Two claims are from different boots: that is no equivocation."""
    PROOF = "proof"
    """A state proof does not verify under the root that was attested."""
    EQUAL_VALUES = "equal-values"
    """Both proofs show the same value: the key does not differ."""


class RoundError(TrustError):
    """A round's claim, certificate or evidence is not to be believed."""


class EvidenceKind(enum.StrEnum):
    """What a member is named for."""

    DISSENT = "dissent"
    """It attested another state root for the block that more than two thirds certified."""
    OTHER_BLOCK = "other-block"
    """It attested another block at the height that more than two thirds certified."""
    EQUIVOCATION = "equivocation"
    """It attested two state roots for one block within one boot."""


def quorum(members: int) -> int:
    """How many of `members` slots make more than two thirds: 3 of 3, 3 of 4, 4 of 5, 5 of 6, 5 of 7."""
    return 2 * members // 3 + 1


def contributions_nonce(contributions: Sequence[bytes]) -> bytes:
    """The 48-byte nonce of a claim: SHA-384 of its contributions, which are sorted and of one size."""
    return hashlib.sha384(b"".join(contributions)).digest()


@dataclass(frozen=True)
class RoundClaim:
    """What a member attests: at this height this block led to this state. The body of a statement of kind `ra`."""

    height: int
    block_hash: bytes
    state_root: bytes
    contributions: tuple[bytes, ...]
    """The random values it heard, 32 bytes each, sorted, each once: whoever finds its own knows that this is fresh."""

    def encode(self) -> bytes:
        """The canonical body."""
        return encode(
            {
                "tea": CLAIM_TAG,
                "height": self.height,
                "block_hash": self.block_hash,
                "state_root": self.state_root,
                "contributions": list(self.contributions),
            }
        )

    @property
    def nonce(self) -> bytes:
        """What the document's nonce has to be, 48 bytes."""
        return contributions_nonce(self.contributions)


@dataclass(frozen=True)
class SlotAttestation:
    """A slot's attestation document and the statement that it signs. Nothing is verified by holding one."""

    slot: str
    document: bytes
    statement: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 over both, for not verifying the same thing twice."""
        return hashlib.sha256(hashlib.sha256(self.document).digest() + self.statement).digest()


@dataclass(frozen=True)
class Certificate:
    """More than two thirds of the slots attesting the same state for the same block."""

    height: int
    block_hash: bytes
    state_root: bytes
    attestations: tuple[SlotAttestation, ...]
    """One a slot, ordered by slot."""

    def encode(self) -> bytes:
        """The certificate's file. Raises `ValueError` when it is longer than a reader would accept."""
        return _bounded(
            encode(
                {
                    "tea": CERTIFICATE_TAG,
                    "height": self.height,
                    "block_hash": self.block_hash,
                    "state_root": self.state_root,
                    "attestations": _attestation_list(self.attestations),
                }
            ),
            MAX_CERTIFICATE,
        )


@dataclass(frozen=True)
class DifferingKey:
    """A key in which two attested states differ, with a proof of its value (or absence) under either root."""

    key: bytes
    certified: bytes
    """Proof under the certified root."""
    accused: bytes
    """Proof under the accused's root."""


@dataclass(frozen=True)
class Evidence:
    """Signed documents that contradict each other, one of them the accused's own."""

    kind: EvidenceKind
    accused: str
    height: int
    attestations: tuple[SlotAttestation, ...]
    """The accused's: one, or the two that contradict each other."""
    certificate: bytes | None
    """What the accused dissents from; None for an equivocation."""
    difference: DifferingKey | None = None
    """What differs; None when the accused did not answer. Only in a dissent."""

    @property
    def id(self) -> str:
        """Its name, fit for a file: `dissent-e3-12`."""
        return f"{self.kind.value}-{self.accused}-{self.height}"

    def encode(self) -> bytes:
        """The evidence's file. Raises `ValueError` when it is longer than a reader would accept."""
        difference = self.difference
        return _bounded(
            encode(
                {
                    "tea": EVIDENCE_TAG,
                    "kind": self.kind.value,
                    "accused": self.accused,
                    "height": self.height,
                    "attestations": _attestation_list(self.attestations),
                    "certificate": self.certificate,
                    "difference": None
                    if difference is None
                    else {"key": difference.key, "certified": difference.certified, "accused": difference.accused},
                }
            ),
            MAX_EVIDENCE,
        )


def parse_claim(body: bytes) -> RoundClaim:
    """The claim in a statement's body. Raises `RoundError(MALFORMED)`."""
    fields = _fields(body, CLAIM_TAG, ("height", "block_hash", "state_root", "contributions"), MAX_STATEMENT)
    contributions = _list(fields["contributions"], "contributions", MAX_CONTRIBUTIONS)
    values = tuple(_bytes(item, "a contribution", CONTRIBUTION_SIZE, CONTRIBUTION_SIZE) for item in contributions)
    if not values or any(a >= b for a, b in itertools.pairwise(values)):
        raise _malformed("the contributions are not one or more different values in order")
    return RoundClaim(_height(fields["height"]), _hash(fields, "block_hash"), _hash(fields, "state_root"), values)


def parse_certificate(data: bytes) -> Certificate:
    """A certificate's parts, none of them verified. Raises `RoundError(MALFORMED)`."""
    fields = _fields(data, CERTIFICATE_TAG, ("height", "block_hash", "state_root", "attestations"), MAX_CERTIFICATE)
    attestations = _attestations(fields["attestations"])
    slots = [attestation.slot for attestation in attestations]
    if slots != sorted(slots):
        raise _malformed("the attestations are not ordered by slot")
    return Certificate(
        _height(fields["height"]), _hash(fields, "block_hash"), _hash(fields, "state_root"), attestations
    )


def parse_evidence(data: bytes) -> Evidence:
    """An evidence's parts, none of them verified. Raises `RoundError(MALFORMED)`."""
    names = ("kind", "accused", "height", "attestations", "certificate", "difference")
    fields = _fields(data, EVIDENCE_TAG, names, MAX_EVIDENCE)
    try:
        kind = EvidenceKind(str(fields["kind"]))
    except ValueError:
        raise _malformed(f"the kind is {fields['kind']!r:.80}, expected one of {', '.join(EvidenceKind)}") from None
    attestations = _attestations(fields["attestations"])
    certificate = None
    if fields["certificate"] is not None:
        certificate = _bytes(fields["certificate"], "the certificate", 1, MAX_CERTIFICATE)
    expected = 2 if kind is EvidenceKind.EQUIVOCATION else 1
    if len(attestations) != expected or (certificate is None) is not (kind is EvidenceKind.EQUIVOCATION):
        raise _malformed(
            f"{kind.value} takes {expected} of the accused's attestations and "
            f"{'no' if expected == 2 else 'a'} certificate; found {len(attestations)} and "
            f"{'none' if certificate is None else 'one'}"
        )
    accused = _slot(fields["accused"])
    if any(attestation.slot != accused for attestation in attestations):
        raise _malformed(f"an attestation is not of the accused, {accused}")
    difference = _difference(fields["difference"])
    if difference is not None and kind is not EvidenceKind.DISSENT:
        raise _malformed(f"a differing key goes with a dissent, not with {kind.value}")
    return Evidence(kind, accused, _height(fields["height"]), attestations, certificate, difference)


def _bounded(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"the file takes {len(data)} bytes, at most {most} are read")
    return data


def _attestation_list(attestations: tuple[SlotAttestation, ...]) -> list[list[object]]:
    return [[a.slot, a.document, a.statement] for a in attestations]


def _malformed(what: str) -> RoundError:
    return RoundError(RoundCode.MALFORMED, what)


def _fields(data: bytes, tag: str, names: tuple[str, ...], limit: int) -> dict[str, Value]:
    try:
        fields = decode_tagged(data, tag, limit=limit)
    except CanonicalError as error:
        raise _malformed(f"this is no {tag}: {error.sentence}") from None
    if set(fields) != set(names):
        raise _malformed(f"a {tag} has the fields {', '.join(names)}; found {', '.join(sorted(fields))[:200]}")
    return fields


def _list(value: Value, what: str, most: int) -> list[Value]:
    if not isinstance(value, list) or len(value) > most:
        raise _malformed(f"{what}: a list of at most {most} is expected")
    return value


def _bytes(value: Value, what: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        size = f"{most}" if least == most else f"{least} to {most}"
        found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise _malformed(f"{what} takes {size} bytes, found {found}")
    return value


def _hash(fields: dict[str, Value], name: str) -> bytes:
    return _bytes(fields[name], name, HASH_SIZE, HASH_SIZE)


def _height(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_HEIGHT:
        raise _malformed(f"a height is an integer from 0 to 2**63 - 1, found {value!r:.80}")
    return value


def _slot(value: Value) -> str:
    # An evidence's id becomes a file's name, so a slot's name is held to what is harmless there.
    if not isinstance(value, str) or _SLOT.fullmatch(value) is None:
        raise _malformed(
            f"a slot's name is 1 to {MAX_SLOT_NAME} letters, digits, '.', '_' and '-', found {value!r:.80}"
        )
    return value


def _attestations(value: Value) -> tuple[SlotAttestation, ...]:
    found = []
    for item in _list(value, "the attestations", MAX_SLOTS):
        if not isinstance(item, list) or len(item) != 3:
            raise _malformed("an attestation is a list of slot, document and statement")
        document = _bytes(item[1], "a document", 1, MAX_DOCUMENT)
        found.append(SlotAttestation(_slot(item[0]), document, _bytes(item[2], "a statement", 1, MAX_STATEMENT)))
    return tuple(found)


def _difference(value: Value) -> DifferingKey | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"key", "certified", "accused"}:
        raise _malformed("a difference has the fields key, certified and accused")
    return DifferingKey(
        _bytes(value["key"], "the differing key", 1, MAX_EVIDENCE),
        _bytes(value["certified"], "the certified proof", 1, MAX_EVIDENCE),
        _bytes(value["accused"], "the accused's proof", 1, MAX_EVIDENCE),
    )
