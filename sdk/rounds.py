"""What an actor needs to take part in rounds and to look into attested state: the pure parts of `tea.trust`.

May not: add anything of its own. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from tea.trust.errors import TrustError
from tea.trust.round_formats import (
    CONTRIBUTION_SIZE,
    HASH_SIZE,
    MAX_CERTIFICATE,
    MAX_CONTRIBUTIONS,
    MAX_DOCUMENT,
    MAX_HEIGHT,
    MAX_STATEMENT,
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
from tea.trust.round_walk import PairWalk, Side, WantedNode
from tea.trust.statement import Statement, parse_statement
from tea.trust.statenode import MAX_KEY, MAX_NODE, MAX_PROOF, StateTreeError, verify_proof
from tea.trust.statetree import DiffWalk, StateTree

__all__ = [
    "CONTRIBUTION_SIZE",
    "HASH_SIZE",
    "MAX_CERTIFICATE",
    "MAX_CONTRIBUTIONS",
    "MAX_DOCUMENT",
    "MAX_HEIGHT",
    "MAX_KEY",
    "MAX_NODE",
    "MAX_PROOF",
    "MAX_STATEMENT",
    "Certificate",
    "DiffWalk",
    "DifferingKey",
    "Evidence",
    "EvidenceKind",
    "PairWalk",
    "RoundClaim",
    "RoundCode",
    "RoundError",
    "Side",
    "SlotAttestation",
    "StateTree",
    "StateTreeError",
    "Statement",
    "TrustError",
    "WantedNode",
    "contributions_nonce",
    "parse_certificate",
    "parse_claim",
    "parse_evidence",
    "parse_statement",
    "quorum",
    "verify_proof",
]
