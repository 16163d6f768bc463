"""One verification for an actor: document, then statement, then policy; a verdict as plain data.

May not: accept without a policy, or believe a statement before its document. Runs on a thread; reads no clock.
Rule: AWS attestation process; docs/architecture.md, "Statements". The steps themselves are `tea.trust`'s.
"""

from __future__ import annotations

import msgspec

from tea.protocol.errors import CallError, Code
from tea.trust.attestation import ChainCache, verify_document
from tea.trust.errors import TrustError
from tea.trust.policy import Accepts
from tea.trust.statement import verify_statement


class Verdict(msgspec.Struct, frozen=True):
    """What an accepted attestation says. There is no verdict for a refused one: it is an UNTRUSTED error."""

    module_id: str
    instance_id: str
    timestamp: int
    """When the NSM made it: milliseconds since the epoch."""
    root: bytes
    """SHA-256 of the root certificate that vouches for it."""
    debug: bool
    """Whether PCR0 to 2 are zero: anyone can read that enclave's console."""
    pcrs: dict[int, bytes]
    """The locked PCRs, 48 bytes each."""
    nonce: bytes | None
    user_data: bytes | None
    public_key: bytes | None
    kind: str | None
    """This and all below are the statement's; None without a statement."""
    deployment: str | None
    manifest: bytes | None
    revision: int | None
    epoch: int | None
    log_head: bytes | None
    actor: str | None
    """The actor that speaks; None for the host itself."""
    bundle: bytes | None
    """SHA-256 of the speaking actor's bundle."""
    body: bytes | None


def verify_evidence(
    document: bytes,
    statement: bytes | None,
    policy: Accepts,
    nonce: bytes | None,
    now_ms: int,
    cache: ChainCache,
) -> Verdict:
    """The verdict, or `CallError(UNTRUSTED)` whose detail `reason` is the code of the rule that failed."""
    try:
        # 1. A genuine document of a pinned platform, valid now, over our nonce.
        genuine = verify_document(document, roots=policy.roots(), at=now_ms, nonce=nonce, cache=cache)
        # 2. The statement is the one that the document vouches for.
        said = None if statement is None else verify_statement(genuine, statement)
        # 3. Both are what the relying party accepts.
        policy.require(genuine, said, now_ms=now_ms)
    except TrustError as error:
        raise CallError(Code.UNTRUSTED, error.sentence, reason=str(error.code)) from None
    speaker = None if said is None else said.speaker
    return Verdict(
        module_id=genuine.module_id,
        instance_id=genuine.instance_id,
        timestamp=genuine.timestamp,
        root=genuine.root,
        debug=genuine.debug,
        pcrs=dict(genuine.pcrs),
        nonce=genuine.nonce,
        user_data=genuine.user_data,
        public_key=genuine.public_key,
        kind=None if said is None else str(said.kind),
        deployment=None if said is None else said.deployment,
        manifest=None if said is None else said.manifest,
        revision=None if said is None else said.revision,
        epoch=None if said is None else said.epoch,
        log_head=None if said is None else said.log_head,
        actor=None if speaker is None else speaker.actor,
        bundle=None if speaker is None else speaker.bundle,
        body=None if said is None else said.body,
    )
