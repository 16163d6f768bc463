"""A key on its way to another enclave: sealed to the key of that enclave's boot, after its evidence was verified.

May not: seal for another actor or manifest than the key's own, or to a key that no evidence carries.
Rule: docs/architecture.md, "Secrets" and "Statements".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tea.protocol.errors import CallError, Code
from tea.trust.attestation import ChainCache, verify_document
from tea.trust.errors import TrustError
from tea.trust.policy import Policy
from tea.trust.sealing import KEY_BYTES, seal
from tea.trust.statement import MAX_STATEMENT, Kind, verify_statement

MAX_DOCUMENT: Final = 0x3000
"""Bytes of an attestation document: the NSM's longest answer."""
MAX_NONCE: Final = 512


class Recipient(NamedTuple):
    """An enclave that was verified."""

    module_id: str
    public_key: bytes
    manifest: bytes


def purpose_of(algorithm: str) -> str:
    """What a sealed key is sealed for, whoever seals it."""
    return f"key:{algorithm}"


def verify_recipient(
    document: bytes,
    statement: bytes,
    policy: Policy,
    *,
    actor: str,
    nonce: bytes | None,
    now_ms: int,
    cache: ChainCache,
) -> Recipient:
    """The enclave whose evidence this is. Raises UNTRUSTED, with the rule that failed as `reason`."""
    try:
        # 1. A genuine document of a pinned platform, valid now, over our nonce when there is one.
        genuine = verify_document(document, roots=policy.roots(), at=now_ms, nonce=nonce, cache=cache)
        # 2. The statement is the one that the document vouches for.
        said = verify_statement(genuine, statement)
        # 3. Both are what the manifest accepts of this slot.
        policy.require(genuine, said, now_ms=now_ms)
    except TrustError as error:
        raise CallError(Code.UNTRUSTED, error.sentence, reason=str(error.code)) from None
    # 4. The same actor asked for it there, by a statement whose document carries the key of that boot.
    if said.kind != Kind.ACTOR or said.speaker is None or said.speaker.actor != actor:
        raise CallError(
            Code.UNTRUSTED, f"the statement is not {actor}'s own, of kind 'actor': let it call nitro.attest there"
        )
    if genuine.public_key is None or len(genuine.public_key) != KEY_BYTES or said.manifest is None:
        raise CallError(Code.UNTRUSTED, "the document carries no X25519 key, or its enclave runs no manifest")
    return Recipient(genuine.module_id, genuine.public_key, said.manifest)


def require_sizes(document: bytes, statement: bytes, nonce: bytes | None) -> None:
    """Refuse what is too large to be any of these, before it is looked at."""
    for what, given, most in (
        ("a document", document, MAX_DOCUMENT),
        ("a statement", statement, MAX_STATEMENT),
        ("a nonce", nonce or b"", MAX_NONCE),
    ):
        if len(given) > most:
            raise CallError(Code.INVALID, f"{what} has at most {most} bytes, not {len(given)}", limit=most)


def sealed_for(recipient: Recipient, secret: bytes, *, algorithm: str, actor: str) -> bytes:
    """The secret as `import_sealed` of the same actor opens it in that enclave, and nowhere else."""
    try:
        return seal(
            recipient.public_key,
            secret,
            purpose=purpose_of(algorithm),
            actor=actor,
            manifest_digest=recipient.manifest,
        )
    except TrustError as error:
        raise CallError(Code.UNTRUSTED, error.sentence, reason=f"seal:{error.code}") from None
