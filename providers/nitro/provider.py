"""The nitro provider: what actors may ask of the NSM, and verification of others' attestations.

May not: let an actor extend or lock a PCR, choose user_data or public_key, or speak as the host or another actor.
Rule: docs/architecture.md, "Statements"; the device is the host's, lent as `services.attester`.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.trust.attestation import ChainCache
from tea.trust.errors import TrustError
from tea.trust.pcr import instance_of
from tea.trust.policy import Accepts, Policy, parse_rule
from tea.trust.statement import ACTOR_KINDS, MAX_BODY, MAX_STATEMENT, Kind

from ..base import Call, Config, Provider, Services
from .client import MAX_NONCE, NsmError
from .device import MAX_RESPONSE
from .secrets_by_kms import KmsConfig, KmsSecrets
from .verification import Verdict, verify_evidence

MAX_RANDOM: Final = 65536
"""Bytes of one `random`: 256 requests of the NSM."""
MAX_POLICY: Final = 16 * 1024
"""Characters of a policy's text."""


class NitroConfig(Config, frozen=True):
    """Who may make which kind of statement."""

    ra_actors: tuple[str, ...] = ("ra",)
    """Actors whose attestations may be of kind `ra`: contributions to rounds."""
    kms: KmsConfig | None = None
    """The AWS KMS key under which secrets of actors lie; None: `kms_decrypt` is UNAVAILABLE."""


class Attested(msgspec.Struct, frozen=True):
    """An attestation document, and the canonical statement whose SHA-384 is its user_data."""

    document: bytes
    statement: bytes


class PcrValue(msgspec.Struct, frozen=True):
    """One PCR as the NSM describes it."""

    locked: bool
    data: bytes
    """48 bytes."""


class Module(msgspec.Struct, frozen=True):
    """The NSM of this enclave. The host's word, not evidence: `attest` is."""

    module_id: str
    instance_id: str
    mode: str
    """nitro, vm or simulated."""
    digest: str
    locked_pcrs: tuple[int, ...]


class Nitro(Provider[NitroConfig]):
    """Attestations in the actor's own name, random numbers, PCRs to read, others' attestations verified."""

    name: ClassVar[str] = "nitro"
    config_type: ClassVar[type[Config]] = NitroConfig
    in_place: ClassVar[frozenset[str]] = frozenset({"ra_actors"})  # rights to KMS's key change with a new boot

    def __init__(self, config: NitroConfig) -> None:
        super().__init__(config)
        self._cache = ChainCache()
        self._attested = 0
        self._verified = 0
        self._refused = 0
        self._kms: KmsSecrets | None = None

    async def start(self, services: Services) -> None:
        await super().start(services)
        if self.config.kms is not None:
            self._kms = KmsSecrets(self.config.kms, services)

    async def stop(self) -> None:
        if self._kms is not None:
            self._kms.stop()

    def usage(self) -> dict[str, int]:
        opened = 0 if self._kms is None else self._kms.opened
        return {"attested": self._attested, "verified": self._verified, "refused": self._refused, "kms": opened}

    @operation
    async def attest(self, call: Call, body: bytes, nonce: bytes | None = None, kind: str = "actor") -> Attested:
        """A fresh attestation of a statement: this actor, of this bundle, says `body` (at most 64 KiB).

        `nonce` is the relying party's, at most 512 bytes. `kind` is `actor`, or `ra` for the actors that the config
        names. INVALID over a limit, DENIED for another kind, UNAVAILABLE when the NSM fails.
        """
        if len(body) > MAX_BODY:
            raise CallError(Code.INVALID, f"a body has at most {MAX_BODY} bytes, not {len(body)}", limit=MAX_BODY)
        _require_nonce(nonce)
        if kind not in ACTOR_KINDS or (kind == Kind.RA and call.caller not in self.config_for(call).ra_actors):
            raise CallError(
                Code.DENIED,
                f"{call.caller} makes no statements of kind {kind[:32]!r}: kind 'actor' is every actor's, 'ra' that of "
                "providers.nitro.ra_actors, the others are the host's",
            )
        try:
            document, statement = await self.services.attester.attest(
                kind, body, speaker=(call.caller, call.bundle), nonce=nonce
            )
        except NsmError as error:
            raise self._unavailable(error) from None
        self._attested += 1
        return Attested(document, statement)

    @operation
    async def describe_pcrs(self, call: Call) -> dict[int, PcrValue]:
        """All 32 PCRs by index: locked or not, and 48 bytes. An attestation holds the locked ones."""
        try:
            pcrs = await self.services.run_in_thread(self.services.attester.pcrs)
        except NsmError as error:
            raise self._unavailable(error) from None
        return {index: PcrValue(locked, data) for index, (locked, data) in pcrs.items()}

    @operation
    async def random(self, call: Call, size: int) -> bytes:
        """1 to 65536 bytes of the NSM's random numbers. INVALID on another size, UNAVAILABLE when the NSM fails."""
        if not 1 <= size <= MAX_RANDOM:
            raise CallError(Code.INVALID, f"a size is 1 to {MAX_RANDOM} bytes, not {size}", limit=MAX_RANDOM)
        try:
            drawn: bytes = await self.services.run_in_thread(self.services.attester.random, size)
        except NsmError as error:
            raise self._unavailable(error) from None
        return drawn

    @operation
    async def module(self, call: Call) -> Module:
        """The NSM's name, the instance's, the mode, and which PCRs are locked."""
        locked = tuple(index for index, value in sorted((await self.describe_pcrs(call)).items()) if value.locked)
        module_id = self.services.attester.module_id
        return Module(module_id, instance_of(module_id), self.services.mode, "SHA384", locked)

    @operation
    async def verify(
        self,
        call: Call,
        document: bytes,
        statement: bytes | None = None,
        slot: str | None = None,
        policy: str | None = None,
        nonce: bytes | None = None,
    ) -> Verdict:
        """Verify an attestation, as of now, against the manifest's policy for a slot, or against a policy's YAML text.

        Exactly one of `slot` and `policy` is given. `statement` is what came beside the document (a policy that looks
        at the manifest needs it); `nonce`, when given, must be the document's. UNTRUSTED with the rule that failed as
        detail `reason`; INVALID on bad arguments or a bad policy; NOT_FOUND for no such slot.
        """
        # Sizes first: nothing is parsed, nor a thread taken, for what is too large to be any of these.
        for what, given, limit in (
            ("a document", document, MAX_RESPONSE),
            ("a statement", statement or b"", MAX_STATEMENT),
            ("a policy", policy or "", MAX_POLICY),
        ):
            if len(given) > limit:
                raise CallError(Code.INVALID, f"{what} is at most {limit} long, not {len(given)}", limit=limit)
        _require_nonce(nonce)
        if (slot is None) == (policy is None):
            raise CallError(Code.INVALID, "give either a slot of the manifest or a policy's text, not both or neither")
        accepted = self._policy_of(slot) if slot is not None else None
        now_ms = int(self.services.now() * 1000)
        try:
            verdict: Verdict = await self.services.run_in_thread(
                self._verify, document, statement, accepted, policy, nonce, now_ms
            )
        except CallError as error:
            self._refused += error.code is Code.UNTRUSTED
            raise
        self._verified += 1
        return verdict

    @operation
    async def kms_decrypt(self, call: Call, secret: str, ciphertext: bytes) -> bytes:
        """A secret that AWS KMS keeps for this actor under the running manifest, at most 6,144 bytes encrypted.

        `secret` is its name (1 to 128 printable ASCII characters). KMS opens it only for what it was encrypted for:
        this secret, this actor, this manifest. DENIED with KMS's word as `reason`; INVALID on bad arguments; UNTRUSTED
        when the answer is not KMS's; UNAVAILABLE when there is no way to it, or the manifest configures none.
        """
        if self._kms is None:
            raise CallError(Code.UNAVAILABLE, "the manifest has no providers.nitro.kms: secrets of KMS need one")
        return await self._kms.decrypt(call, secret, ciphertext)

    def _policy_of(self, slot: str) -> Policy:
        try:
            policy: Policy = self.services.policy_for(slot)
        except LookupError:
            raise CallError(Code.NOT_FOUND, f"the manifest's ra.members has no slot {slot[:64]!r}") from None
        return policy

    def _verify(
        self,
        document: bytes,
        statement: bytes | None,
        accepted: Accepts | None,
        text: str | None,
        nonce: bytes | None,
        now_ms: int,
    ) -> Verdict:
        if accepted is None:
            try:
                accepted = parse_rule(text or "", "policy")
            except TrustError as error:
                raise CallError(Code.INVALID, error.sentence, reason=str(error.code)) from None
        return verify_evidence(document, statement, accepted, nonce, now_ms, self._cache)

    def _unavailable(self, error: NsmError) -> CallError:
        self.services.log("error", "the NSM failed", code=str(error.code), reason=error.sentence)
        return CallError(Code.UNAVAILABLE, f"the NSM failed with {error.code}", reason=str(error.code))


def _require_nonce(nonce: bytes | None) -> None:
    if nonce is not None and len(nonce) > MAX_NONCE:
        raise CallError(Code.INVALID, f"a nonce has at most {MAX_NONCE} bytes, not {len(nonce)}", limit=MAX_NONCE)
