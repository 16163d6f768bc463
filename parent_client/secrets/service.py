"""The judgement of a release: an attested request in, a sealed and signed answer out, every step in one order.

May not: release before it is written into the audit log, or believe a word of a request before its document verified.
Rule: docs/secrets.md, "What is checked", whose numbers stand at the steps below.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tea.trust.attestation import AttestationDocument, ChainCache, verify_document
from tea.trust.errors import TrustError
from tea.trust.release import (
    Ask,
    Challenge,
    ReleaseCode,
    ReleaseError,
    Terms,
    ask_of,
    parse_request,
    seal_answer,
)
from tea.trust.roots import Roots
from tea.trust.sealing import KEY_BYTES
from tea.trust.statement import Kind, Statement, verify_statement

from .nonces import SECONDS, Nonces
from .rate import RateLimit
from .vault import Record, Vault

FAMILIES: Final = {
    "AttestationError": "attestation",
    "StatementError": "statement",
    "PolicyError": "policy",
    "ReleaseError": "release",
}
"""What stands before a code in a refusal: `policy:pcr`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the service takes. Rates are requests a second and bursts."""

    strangers: tuple[float, int] = (50.0, 200)
    """All requests together, before anything of them is verified."""
    enclave: tuple[float, int] = (1.0, 30)
    """Requests of one attested instance."""


class ReleaseService:
    """One vault's judge. Not for several threads at once: the server gives it one."""

    def __init__(
        self,
        vault: Vault,
        limits: Limits | None = None,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        chosen = limits or Limits()
        self._vault = vault
        self._clock_ms, self._monotonic = clock_ms, monotonic
        self._nonces = Nonces()
        self._cache = ChainCache()
        self._strangers = RateLimit(*chosen.strangers)
        self._enclaves = RateLimit(*chosen.enclave)

    def challenge(self) -> bytes:
        """A fresh nonce, encoded. Raises `ReleaseError(TOO_MANY)`."""
        self._strangers.take("all", self._monotonic())
        return Challenge(self._nonces.give(self._clock_ms()), SECONDS).encode()

    def release(self, data: bytes) -> bytes:
        """The sealed and signed answer to a request.

        Raises `TrustError` (attestation, statement, policy or release) after writing the refusal down; `AuditError`
        and `OSError` when it cannot be written down, and then nothing is released either.
        """
        # 1. Not more than the service takes: what follows costs signatures.
        self._strangers.take("all", self._monotonic())
        known: dict[str, str | int] = {}
        try:
            return self._judge(data, known)
        except TrustError as error:
            if error.code is not ReleaseCode.TOO_MANY:  # a flood must not fill the disk
                self._vault.log("refused", {**known, "code": code_of(error), "why": error.sentence[:1000]})
            raise

    def _judge(self, data: bytes, known: dict[str, str | int]) -> bytes:
        now = self._clock_ms()
        # 2. The message's form.
        request = parse_request(data)
        # 3. The nonce: given here, in time, not used before. It is used up by any request, also a bad one.
        self._nonces.spend(request.nonce, now)
        # 4. The document: genuine under a root that some policy of this vault pins, made for this nonce.
        document = verify_document(
            request.document, roots=self._roots(), at=now, nonce=request.nonce, cache=self._cache
        )
        known["enclave"] = document.module_id
        self._enclaves.take(document.instance_id, self._monotonic())
        # 5. The statement: this document's, by the host itself, and what it asks for.
        statement = verify_statement(document, request.statement)
        ask = ask_of(statement)
        known |= {"secret": ask.secret, "actor": ask.actor, **_measured(document, statement)}
        # 6. The secret: there is one, not revoked, for this actor.
        record = self._record(ask)
        # 7. What is revoked, whatever a policy says.
        self._vault.revocations().require(document, statement)
        # 8. The secret's own policy.
        record.policy.require(document, statement, now_ms=now, kind=Kind.SEAL)
        # 9. The key to seal to.
        if document.public_key is None or len(document.public_key) != KEY_BYTES:
            raise ReleaseError(
                ReleaseCode.KEY, "the document carries no X25519 key of 32 bytes: nothing can be sealed to it"
            )
        assert statement.manifest is not None  # step 7 refuses a statement without one
        # 10. Written down (and the revocations once more, in the same transaction), then sealed and signed.
        value = self._vault.value(record)
        lease = self._vault.lease(
            record,
            ask.actor,
            document.module_id,
            {**_measured(document, statement), "bundle": ask.bundle.hex()},
            lambda revocations: revocations.require(document, statement),
        )
        terms = Terms(request.nonce, record.name, ask.actor, record.version, lease, record.lease)
        return seal_answer(
            terms, value, public_key=document.public_key, manifest=statement.manifest, key=self._vault.service
        )

    def _roots(self) -> Roots:
        pinned = [record.policy.roots() for record in self._vault.records()]
        if not pinned:
            raise ReleaseError(ReleaseCode.UNKNOWN_SECRET, "this service holds no secrets yet")
        roots = pinned[0]
        for one in pinned[1:]:
            roots |= one
        return roots

    def _record(self, ask: Ask) -> Record:
        record = self._vault.record(ask.secret)
        if record is None:
            raise ReleaseError(ReleaseCode.UNKNOWN_SECRET, f"there is no secret {ask.secret!r} here")
        if record.revoked:
            raise ReleaseError(
                ReleaseCode.REVOKED_SECRET,
                f"version {record.version} of the secret {ask.secret!r} is revoked: its owner must put a new one",
            )
        if ask.actor not in record.actors:
            raise ReleaseError(
                ReleaseCode.ACTOR, f"the secret {ask.secret!r} is not for {ask.actor!r}: its owner names the actors"
            )
        return record


def code_of(error: TrustError) -> str:
    """A refusal's code with its family: `policy:pcr`."""
    return f"{FAMILIES.get(type(error).__name__, 'service')}:{error.code.value}"


def _measured(document: AttestationDocument, statement: Statement) -> dict[str, str | int]:
    manifest = statement.manifest.hex() if statement.manifest is not None else "none"
    return {
        "pcr0": document.pcrs.get(0, b"").hex(),
        "manifest": manifest,
        "deployment": statement.deployment,
        "revision": statement.revision,
        "epoch": statement.epoch,
    }
