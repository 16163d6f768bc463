"""Verification over HTTP: a document, its statement and the asker's policy in; a verdict out.

May not: hold a policy or roots of its own: the asker brings them, and must trust this service to apply them.
Rule: docs/secrets.md, "Verify over HTTP"; docs/verify.md for those who rather do it themselves.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from tea.trust.attestation import AttestationError, ChainCache, document_to_builtins, verify_document
from tea.trust.errors import TrustError
from tea.trust.policy import PolicyError, parse_rule
from tea.trust.statement import StatementError, verify_statement


class VerifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON object of a request."""

    document: str
    """Base64."""
    policy: str
    """A policy's YAML; it names the roots."""
    statement: str | None = None
    """Base64; needed where the policy speaks of manifests."""
    nonce: str | None = None
    """Hex, when the document must carry it."""


def verify(data: bytes, *, now_ms: int, cache: ChainCache) -> dict[str, object]:
    """The verdict as plain data: `authentic`, `accepted`, and `code` with `error` where the answer is no.

    Raises `ValueError` on what is no request. `now_ms` is the moment at which validity and age are judged.
    """
    try:
        request = msgspec.json.decode(data, type=VerifyRequest)
        document = base64.b64decode(request.document, validate=True)
        statement = None if request.statement is None else base64.b64decode(request.statement, validate=True)
        nonce = None if request.nonce is None else bytes.fromhex(request.nonce)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise ValueError(f"this is no request to verify: {error}") from None
    try:
        policy = parse_rule(request.policy, "policy")
    except PolicyError as error:
        raise ValueError(f"the policy cannot be read: {error}") from None
    try:
        verified = verify_document(document, roots=policy.roots(), at=now_ms, nonce=nonce, cache=cache)
    except AttestationError as error:
        return _no(error, authentic=False)
    shown = document_to_builtins(verified)
    try:
        said = None if statement is None else verify_statement(verified, statement)
        policy.require(verified, said, now_ms=now_ms)
    except (StatementError, PolicyError) as error:
        return {**_no(error, authentic=True), "document": shown}
    return {"authentic": True, "accepted": True, "document": shown}


def _no(error: TrustError, *, authentic: bool) -> dict[str, object]:
    return {"authentic": authentic, "accepted": False, "code": error.code.value, "error": error.sentence}
