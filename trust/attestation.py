"""Verification of an attestation document: bytes, pinned roots and a moment in; a document that can be believed out.

May not: read a clock, keep state (a cache is an argument), or judge what the document says: that is `policy.py`.
Rule: AWS, aws-nitro-enclaves-nsm-api, docs/attestation_process.md; RFC 9052 section 4.4 (what a COSE_Sign1 signs).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, fields
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import nsm_cbor
from .attestation_codes import AttestationCode, AttestationError
from .chain import ChainCache, verify_chain
from .document import (
    PROTECTED,
    SIGNATURE_SIZE,
    DocumentContents,
    UnverifiedDocument,
    document_to_builtins,
    parse_document,
)
from .roots import Roots, aws_roots, digest_of

__all__ = [
    "AttestationCode",
    "AttestationDocument",
    "AttestationError",
    "ChainCache",
    "DocumentContents",
    "Roots",
    "UnverifiedDocument",
    "aws_roots",
    "document_to_builtins",
    "parse_document",
    "verify_document",
]

_CONTEXT: Final = (
    b"\x84" + nsm_cbor.head(3, len("Signature1")) + b"Signature1" + nsm_cbor.byte_string(PROTECTED) + b"\x40"
)
_ES384: Final = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationDocument(DocumentContents):
    """A genuine document of a platform whose root is pinned. Whether its contents are acceptable is a policy's matter.

    Made by `verify_document` alone.
    """

    root: bytes
    """SHA-256 of the DER of the root that vouches for it."""


def verify_document(
    raw: bytes,
    *,
    roots: Roots,
    at: int,
    nonce: bytes | None = None,
    user_data: bytes | None = None,
    public_key: bytes | None = None,
    cache: ChainCache | None = None,
) -> AttestationDocument:
    """The document in `raw`, verified as of the moment `at` (milliseconds since the epoch).

    `nonce`, `user_data` and `public_key`, where given, must be those of the document; None leaves them to the caller.
    Raises `AttestationError` on any bytes that are not a genuine document, and nothing else.
    """
    # 1. Syntax, types and sizes; the COSE_Sign1 is untagged, and its only header says ES384.
    # 2. The digest is SHA384, the PCRs are of its length.
    document = parse_document(raw)
    # 3. The certificates, from a pinned root to the leaf, hold at the moment asked for.
    key = verify_chain(document.cabundle, document.certificate, roots=roots, at=at, cache=cache)
    # 4. The leaf's key signed the payload, over the bytes as they came: a re-encoding may differ from what was signed.
    _verify_signature(document, key)
    # 5. It was made for what the relying party asked.
    _require_equal(AttestationCode.NONCE, "nonce", document.nonce, nonce)
    _require_equal(AttestationCode.USER_DATA, "user data", document.user_data, user_data)
    _require_equal(AttestationCode.PUBLIC_KEY, "public key", document.public_key, public_key)
    contents = {field.name: getattr(document, field.name) for field in fields(DocumentContents)}
    return AttestationDocument(root=digest_of(document.cabundle[0]), **contents)


def _verify_signature(document: UnverifiedDocument, key: ec.EllipticCurvePublicKey) -> None:
    half = SIGNATURE_SIZE // 2
    signature = encode_dss_signature(
        int.from_bytes(document.signature[:half], "big"), int.from_bytes(document.signature[half:], "big")
    )
    try:
        key.verify(signature, _CONTEXT + nsm_cbor.byte_string(document.payload), _ES384)
    except InvalidSignature:
        raise AttestationError(
            AttestationCode.SIGNATURE,
            "the document's signature is not that of its certificate: its contents were changed, or it is a forgery",
        ) from None


def _require_equal(code: AttestationCode, what: str, found: bytes | None, expected: bytes | None) -> None:
    if expected is None:
        return
    if found is None or not hmac.compare_digest(found, expected):
        shown = "none" if found is None else found.hex()
        raise AttestationError(
            code, f"the document's {what} is {shown}, expected {expected.hex()}: a document made for another request"
        )
