"""The closed set of reasons for which an attestation document is refused, and the one error that carries them.

May not: verify anything. The reasons follow the numbered procedure of `attestation.py`.
Rule: AWS, aws-nitro-enclaves-nsm-api, docs/attestation_process.md.
"""

from __future__ import annotations

import enum

from .errors import TrustError


class AttestationCode(enum.StrEnum):
    """Why a document is refused. The words are stable: scripts and logs may depend on them."""

    TOO_LARGE = "too-large"
    """More bytes than an NSM can answer with."""
    NOT_CBOR = "not-cbor"
    """Not well-formed CBOR of the kind that an NSM writes: cut off, or a type that it never uses."""
    TRAILING = "trailing-bytes"
    """Bytes follow the document."""
    TAGGED = "tagged"
    """A CBOR tag stands in front: an NSM writes an untagged COSE_Sign1."""
    STRUCTURE = "structure"
    """Not an array of protected header, unprotected header, payload and signature, in shortest encoding."""
    HEADERS = "headers"
    """The protected header is not exactly {1: -35} (ES384), or the unprotected one is not empty."""
    FIELD_UNKNOWN = "field-unknown"
    FIELD_DUPLICATE = "field-duplicate"
    FIELD_MISSING = "field-missing"
    FIELD_TYPE = "field-type"
    FIELD_SIZE = "field-size"
    DIGEST = "digest"
    """The digest is not SHA384."""
    PCR_INDEX = "pcr-index"
    PCR_LENGTH = "pcr-length"
    ROOT = "root"
    """The first certificate is not a pinned root."""
    CERTIFICATE = "certificate"
    """A certificate that is no X.509 certificate in DER."""
    SIGNATURE_ALGORITHM = "signature-algorithm"
    """A certificate is signed by another algorithm than ECDSA with SHA-384."""
    KEY_TYPE = "key-type"
    """A certificate's key is not on P-384."""
    CRITICAL_EXTENSION = "critical-extension"
    """A certificate has a critical extension that is not understood here."""
    KEY_USAGE = "key-usage"
    """A certificate may not be used for this: keyCertSign above, digitalSignature at the leaf."""
    NOT_CA = "not-ca"
    """A certificate above the leaf is not a certificate authority's."""
    LEAF_IS_CA = "leaf-is-ca"
    """The certificate that signs the document is a certificate authority's."""
    PATH_LENGTH = "path-length"
    """More authorities follow a certificate than it allows."""
    CHAIN_ORDER = "chain-order"
    """A certificate does not name the one before it as its issuer."""
    CHAIN_SIGNATURE = "chain-signature"
    """A certificate is not signed by the one before it."""
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    SIGNATURE = "signature"
    """The document's own signature does not verify with the leaf's key."""
    NONCE = "nonce"
    """Genuine, but not made for this nonce."""
    USER_DATA = "user-data"
    """Genuine, but with other user data."""
    PUBLIC_KEY = "public-key"
    """Genuine, but for another public key."""


class AttestationError(TrustError):
    """The document is not an attestation that can be believed; `code` is an `AttestationCode`."""

    def __init__(self, code: AttestationCode, sentence: str) -> None:
        super().__init__(code, sentence)
