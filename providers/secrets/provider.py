"""The secrets provider: asks the release service that the manifest names, opens what is sealed to this boot's key.

May not: believe the parent, which carries the messages; keep a secret beyond its lease, or under another manifest than
it was released for; log one. Rule: docs/secrets.md, "The protocol"; docs/architecture.md, "Secrets".
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.channels import Channel
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.trust.keys import PublicKey, SigningError
from tea.trust.release import Ask, ReleaseError, Request, Terms, parse_challenge, purpose_of, verify_answer
from tea.trust.sealing import SealError
from tea.trust.statement import Kind

from ..base import Call, Config, Provider

SEALED_PURPOSE: Final = "secret"
"""What `teactl secret seal` seals for."""
RELEASE_SECONDS: Final = 20.0


class SecretsConfig(Config, frozen=True):
    """Whose answers are believed, and how much is held."""

    service: str | None = None
    """The release service's public key (`ed25519:...`); None: only `open` works."""
    max_held: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Secrets of one actor that are held at a time."""


class Secret(msgspec.Struct, frozen=True):
    """A secret, and how long it may be used."""

    value: bytes
    version: int
    """From 1; a new value raises it."""
    seconds: float
    """Until the lease ends. Ask again then, and drop what you made of it: it may have been revoked."""

    def __repr__(self) -> str:
        return f"Secret(version={self.version}, seconds={self.seconds:.1f})"


@dataclass
class _Held:
    terms: Terms
    manifest: bytes | None
    ends: float
    value: bytes = field(repr=False)


class Secrets(Provider[SecretsConfig]):
    """Secrets for the calling actor alone. What the service released is held until its lease ends, then dropped.

    A secret is released to an actor's name under a manifest that its owner accepts; all replicas share it. Under the
    next manifest it is asked for anew.
    """

    name: ClassVar[str] = "secrets"
    config_type: ClassVar[type[Config]] = SecretsConfig
    in_place: ClassVar[frozenset[str]] = frozenset(SecretsConfig.__struct_fields__)

    def __init__(self, config: SecretsConfig) -> None:
        super().__init__(config)
        try:
            _service_of(config)
        except SigningError as error:
            raise ValueError(f"service: {error.sentence}") from None
        self._held: dict[tuple[str, bytes, str], _Held] = {}
        self._asking: dict[tuple[str, bytes, str], asyncio.Lock] = {}
        self._drops: set[asyncio.TimerHandle] = set()
        self._released = 0

    async def stop(self) -> None:
        for handle in self._drops:
            handle.cancel()
        self._drops.clear()
        self._held.clear()

    async def forget(self, actor: str) -> None:
        for key in [key for key in self._held if key[0] == actor]:
            del self._held[key]

    def usage(self) -> dict[str, int]:
        """Secrets that are held, and how often one was released."""
        return {"held": len(self._held), "released": self._released}

    @operation
    async def get(self, call: Call, name: str) -> Secret:
        """A secret by name: {value (at most 512 KiB), version, seconds}, from memory while its lease lasts.

        Raises UNTRUSTED when the service refuses (`details["reason"]` has its code, as `policy:pcr`) or its answer does
        not verify, UNAVAILABLE when there is no service or it does not answer, INVALID on a bad name, EXHAUSTED beyond
        64 secrets an actor.
        """
        try:
            ask = Ask(name, call.caller, call.bundle)
        except ReleaseError as error:
            raise CallError(Code.INVALID, error.sentence) from None
        config = self.config_for(call)
        service = _service_of(config)
        if service is None:
            raise CallError(Code.UNAVAILABLE, "the manifest names no release service: set providers.secrets.service")
        key = (call.caller, call.bundle, name)
        # One question at a time for each secret: replicas that start together ask once.
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                held = self._of(key) or await self._ask(key, ask, service, config.max_held)
        finally:
            if not lock.locked():
                self._asking.pop(key, None)
        return Secret(held.value, held.terms.version, max(0.0, held.ends - self.services.monotonic()))

    @operation
    async def drop(self, call: Call, name: str) -> bool:
        """Drop a secret before its lease ends; False when it was not held."""
        return self._held.pop((call.caller, call.bundle, name), None) is not None

    @operation
    async def open(self, call: Call, sealed: bytes) -> bytes:
        """Open what `teactl secret seal` sealed to this enclave for this actor under the running manifest.

        Raises UNTRUSTED when it was sealed for another enclave, actor or manifest, or changed on the way.
        """
        return self._open(sealed, SEALED_PURPOSE, call.caller, call.bundle)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _of(self, key: tuple[str, bytes, str]) -> _Held | None:
        held = self._held.get(key)
        if held is None:
            return None
        manifest = self.services.attester.manifest_for(key[0], key[1])
        if held.ends <= self.services.monotonic() or held.manifest != manifest:
            del self._held[key]
            return None
        return held

    async def _ask(self, key: tuple[str, bytes, str], ask: Ask, service: PublicKey, limit: int) -> _Held:
        if sum(1 for actor, _, _ in self._held if actor == ask.actor) >= limit:
            raise CallError(Code.EXHAUSTED, f"{ask.actor} holds {limit} secrets: drop one")
        # The lease counts from before the question, by a clock that the parent cannot set.
        asked = self.services.monotonic()
        attester = self.services.attester
        manifest = attester.manifest_for(ask.actor, ask.bundle)
        try:
            nonce = parse_challenge(await self._parent("challenge")).nonce
            document, statement = await attester.attest(
                Kind.SEAL, ask.encode(), nonce=nonce, on_behalf=(ask.actor, ask.bundle)
            )
            answer = await self._parent("release", Request(document, statement, nonce).encode())
            terms, sealed = verify_answer(answer, service, ask=ask, nonce=nonce)
        except ReleaseError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=f"release:{error.code.value}") from None
        held = _Held(
            terms, manifest, asked + terms.seconds, self._open(sealed, purpose_of(ask.secret), ask.actor, ask.bundle)
        )
        self._held[key] = held
        self._released += 1
        self._drop_later(key, held)
        self.services.log(
            "info", f"secret {ask.secret} released to {ask.actor}", version=terms.version, seconds=terms.seconds
        )
        return held

    async def _parent(self, name: str, *args: object) -> bytes:
        try:
            answer: bytes = await self.services.parent.call(Channel.RELEASE, name, *args, timeout=RELEASE_SECONDS)
        except TimeoutError:
            raise CallError(Code.DEADLINE, f"the release service did not answer in {RELEASE_SECONDS:g} s") from None
        return answer

    def _open(self, sealed: bytes, purpose: str, actor: str, bundle: bytes) -> bytes:
        try:
            return self.services.attester.open_sealed(sealed, purpose=purpose, actor=actor, bundle=bundle)
        except SealError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=f"seal:{error.code.value}") from None

    def _drop_later(self, key: tuple[str, bytes, str], held: _Held) -> None:
        def drop() -> None:
            self._drops.discard(handle)
            if self._held.get(key) is held:
                del self._held[key]
                self.services.log(
                    "info", f"the lease of secret {key[2]} for {key[0]} ended", version=held.terms.version
                )

        seconds = max(0.0, held.ends - self.services.monotonic())
        handle = asyncio.get_running_loop().call_later(math.ceil(seconds * 1000) / 1000, drop)
        self._drops.add(handle)


def _service_of(config: SecretsConfig) -> PublicKey | None:
    return PublicKey.parse(config.service) if config.service is not None else None
