"""Secrets of actors that AWS KMS keeps: opened for the actor, manifest and secret that they were encrypted for.

May not: let an actor choose the encryption context (it follows from who calls), the key, or the endpoint; keep what was
opened. Rule: docs/nitro-sdk.md, "Secrets"; `tea.trust.kms_context` is the context.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.tunnel import Target
from tea.trust.kms_context import encryption_context
from tea.trust.statement import Kind

from ..base import Call, Config, Services
from .kms import CmsError, KmsClient, KmsCode, KmsError, ParentCredentials, RecipientKey, TlsTransport, through
from .kms.tunnel import default_tls

THREADS: Final = 2
"""Requests to KMS at a time: on threads of their own, because each waits for an attestation made on the host's."""
WAITING: Final = 32
"""Requests that wait for a thread at most."""
MAX_CIPHERTEXT: Final = 6144

_CODES: Final = {
    KmsCode.REFUSED: Code.DENIED,
    KmsCode.TLS: Code.UNTRUSTED,
    KmsCode.RESPONSE: Code.UNTRUSTED,
    KmsCode.PLAINTEXT: Code.UNTRUSTED,
}
"""What is not here is UNAVAILABLE: asking again may help."""


class KmsConfig(Config, frozen=True):
    """One KMS key, and the way to it. The manifest is approved, so all of this is."""

    region: str
    key_id: str
    """The key's ARN: another key's ciphertext is refused."""
    tunnel: str = "vsock:3:8443"
    """Where the parent serves a tunnel and its credentials."""
    endpoint: str | None = None
    """host:port of KMS; the region's by default."""
    certificates: str | None = None
    """PEM of the authorities to accept in place of the image's store."""

    def __post_init__(self) -> None:
        Address.parse(self.tunnel)
        if self.endpoint is not None:
            Target.parse(self.endpoint)
        if not (self.region and self.key_id):
            raise ValueError("kms needs a region and a key_id")


class KmsSecrets:
    """The nitro provider's part that asks KMS."""

    def __init__(self, config: KmsConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="tea-kms")
        self._recipient: RecipientKey | None = None
        self._making = asyncio.Lock()
        self._credentials = ParentCredentials(Address.parse(config.tunnel), clock=services.now)
        self._tls = ssl.create_default_context(cadata=config.certificates) if config.certificates else default_tls()
        self._waiting = 0
        self.opened = 0

    def stop(self) -> None:
        """No more requests; those under way end by their own deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def decrypt(self, call: Call, secret: str, ciphertext: bytes) -> bytes:
        """See `Nitro.kms_decrypt`."""
        if not 1 <= len(ciphertext) <= MAX_CIPHERTEXT:
            raise CallError(Code.INVALID, f"a ciphertext of KMS has 1 to {MAX_CIPHERTEXT} bytes, not {len(ciphertext)}")
        manifest = self._services.attester.manifest_for(call.caller, call.bundle)
        if manifest is None:
            raise CallError(Code.UNAVAILABLE, "no manifest is active yet")
        try:
            context = encryption_context(secret=secret, actor=call.caller, manifest_digest=manifest)
        except ValueError as error:
            raise CallError(Code.INVALID, str(error)) from None
        if self._waiting >= WAITING:
            raise CallError(Code.EXHAUSTED, f"{WAITING} requests to KMS wait already", limit=WAITING)
        self._waiting += 1
        try:
            client = self._client(call, await self._recipient_key())
            decrypt = partial(client.decrypt, ciphertext, key_id=self._config.key_id, encryption_context=context)
            opened = await self._loop.run_in_executor(self._executor, decrypt)
        except KmsError as error:
            # KMS's own message stays in the log: it names keys and roles.
            self._services.log("warning", "KMS gave nothing", actor=call.caller, secret=secret, reason=error.sentence)
            code = _CODES.get(error.code, Code.UNAVAILABLE)
            said = error.kind or str(error.code)
            raise CallError(code, f"KMS gave nothing: {said}", reason=said) from None
        except CmsError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=str(error.code)) from None
        finally:
            self._waiting -= 1
        self.opened += 1
        return opened

    async def _recipient_key(self) -> RecipientKey:
        async with self._making:
            if self._recipient is None:
                self._recipient = await self._loop.run_in_executor(self._executor, RecipientKey.generate)
            return self._recipient

    def _client(self, call: Call, recipient: RecipientKey) -> KmsClient:
        config = self._config

        def attest(*, public_key: bytes, nonce: bytes) -> bytes:
            # On a thread of ours, while the host attests on its loop and a thread of its own.
            attesting = self._services.attester.attest(
                Kind.KMS, nonce, nonce=nonce, public_key=public_key, on_behalf=(call.caller, call.bundle)
            )
            return asyncio.run_coroutine_threadsafe(_document(attesting), self._loop).result()

        return KmsClient(
            region=config.region,
            credentials=self._credentials,
            attest=attest,
            transport=TlsTransport(through(Address.parse(config.tunnel)), tls=self._tls),
            endpoint=Target.parse(config.endpoint) if config.endpoint else None,
            recipient=recipient,
            clock=self._services.now,
        )


async def _document(attesting: Awaitable[tuple[bytes, bytes]]) -> bytes:
    document, _statement = await attesting
    return document
