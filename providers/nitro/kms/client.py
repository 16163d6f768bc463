"""AWS KMS from inside an enclave: Decrypt, GenerateDataKey and GenerateRandom with an attested recipient; Encrypt.

May not: take a plaintext that the parent could have read (`Plaintext` beside a recipient is refused), retry, or cache.
Blocks: call it on a thread. Rule: AWS KMS API Reference; docs/nitro-sdk.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from tea.protocol.tunnel import Target

from ..client import NsmError
from .errors import KmsCode, KmsError
from .http import Transport
from .recipient import KEY_ENCRYPTION_ALGORITHM, Attest, RecipientKey
from .sigv4 import Credentials, sign

MAX_CIPHERTEXT: Final = 6144
MAX_PLAINTEXT: Final = 4096
MAX_RANDOM: Final = 1024
_CONTENT_TYPE: Final = "application/x-amz-json-1.1"

Algorithm = Literal["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]
Json = dict[str, object]


class DataKey(NamedTuple):
    """A data key: its secret, what KMS gives it back for (`Decrypt`), and the KMS key's ARN."""

    plaintext: bytes
    ciphertext: bytes
    key_id: str

    def __repr__(self) -> str:
        return f"DataKey({len(self.plaintext)} bytes under {self.key_id})"


class KmsClient:
    """One region's KMS, as one enclave. Safe to use from several threads; every method blocks and raises `KmsError`,
    or `CmsError` when what came back does not open with this enclave's key.

    `attest` makes the documents, one for each request; `credentials` is asked at each request, so that those of an
    instance role may change; `clock` gives seconds since the epoch (AWS bears five minutes).
    """

    def __init__(
        self,
        *,
        region: str,
        credentials: Callable[[], Credentials],
        attest: Attest,
        transport: Transport,
        endpoint: Target | None = None,
        recipient: RecipientKey | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.region = region
        self.endpoint = endpoint or default_endpoint(region)
        self._credentials = credentials
        self._attest = attest
        self._transport = transport
        self._recipient = recipient or RecipientKey.generate()
        self._clock = clock

    @property
    def recipient(self) -> RecipientKey:
        """The key to which KMS wraps."""
        return self._recipient

    def decrypt(
        self,
        ciphertext: bytes,
        *,
        key_id: str | None = None,
        encryption_context: Mapping[str, str] | None = None,
        algorithm: Algorithm = "SYMMETRIC_DEFAULT",
    ) -> bytes:
        """The plaintext of at most 6,144 bytes of ciphertext. Name the `key_id`: else any key that may, decrypts.

        With `encryption_context` KMS opens only what was encrypted under the very same one.
        """
        if not 1 <= len(ciphertext) <= MAX_CIPHERTEXT:
            raise ValueError(f"a ciphertext has 1 to {MAX_CIPHERTEXT} bytes, not {len(ciphertext)}")
        request: Json = {"CiphertextBlob": _text(ciphertext), "EncryptionAlgorithm": algorithm}
        _add(request, KeyId=key_id, EncryptionContext=encryption_context)
        return self._opened("Decrypt", request)[0]

    def generate_data_key(
        self, key_id: str, *, size: int = 32, encryption_context: Mapping[str, str] | None = None
    ) -> DataKey:
        """A new data key of 1 to 1,024 bytes under a KMS key."""
        if not 1 <= size <= MAX_RANDOM:
            raise ValueError(f"a data key has 1 to {MAX_RANDOM} bytes, not {size}")
        request: Json = {"KeyId": key_id, "NumberOfBytes": size}
        _add(request, EncryptionContext=encryption_context)
        plaintext, answer = self._opened("GenerateDataKey", request)
        if len(plaintext) != size:
            raise KmsError(KmsCode.RESPONSE, f"KMS gave a data key of {len(plaintext)} bytes, {size} were asked for")
        return DataKey(plaintext, _blob(answer, "CiphertextBlob"), _string(answer, "KeyId"))

    def generate_random(self, size: int) -> bytes:
        """1 to 1,024 random bytes of KMS's. Mix them with the NSM's; neither need be trusted alone."""
        if not 1 <= size <= MAX_RANDOM:
            raise ValueError(f"KMS gives 1 to {MAX_RANDOM} random bytes, not {size}")
        plaintext, _ = self._opened("GenerateRandom", {"NumberOfBytes": size})
        if len(plaintext) != size:
            raise KmsError(KmsCode.RESPONSE, f"KMS gave {len(plaintext)} random bytes, {size} were asked for")
        return plaintext

    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        encryption_context: Mapping[str, str] | None = None,
        algorithm: Algorithm = "SYMMETRIC_DEFAULT",
    ) -> bytes:
        """The ciphertext of at most 4,096 bytes. No attestation: what is encrypted is no secret of KMS's."""
        if not 1 <= len(plaintext) <= MAX_PLAINTEXT:
            raise ValueError(f"a plaintext has 1 to {MAX_PLAINTEXT} bytes, not {len(plaintext)}")
        request: Json = {"KeyId": key_id, "Plaintext": _text(plaintext), "EncryptionAlgorithm": algorithm}
        _add(request, EncryptionContext=encryption_context)
        return _blob(self._call("Encrypt", request), "CiphertextBlob")

    # -- inside ------------------------------------------------------------------------------------------------

    def _opened(self, operation: str, request: Json) -> tuple[bytes, Json]:
        """Ask with a recipient; the plaintext as only this enclave can open it, and the answer."""
        try:
            document = self._attest(public_key=self._recipient.public, nonce=request_nonce(operation, request))
        except NsmError as error:
            raise KmsError(KmsCode.ATTESTATION, f"the NSM makes no attestation: {error.sentence}") from None
        recipient = {"KeyEncryptionAlgorithm": KEY_ENCRYPTION_ALGORITHM, "AttestationDocument": _text(document)}
        answer = self._call(operation, {**request, "Recipient": recipient})
        if answer.get("Plaintext"):
            # A KMS (or a double) that ignored the recipient: whoever ends TLS there could have read it.
            raise KmsError(
                KmsCode.PLAINTEXT, f"{operation} answered in the clear, expected CiphertextForRecipient: not AWS KMS"
            )
        return self._recipient.open(_blob(answer, "CiphertextForRecipient")), answer

    def _call(self, operation: str, request: Json) -> Json:
        body = encode(request)
        headers = sign(
            self._credentials(),
            region=self.region,
            service="kms",
            host=_host_header(self.endpoint),
            at=self._clock(),
            body=body,
            headers={"Content-Type": _CONTENT_TYPE, "X-Amz-Target": f"TrentService.{operation}"},
        )
        status, raw = self._transport.post(self.endpoint, headers, body)
        try:
            answer = json.loads(raw) if raw else {}
        except (ValueError, RecursionError):
            raise KmsError(KmsCode.RESPONSE, f"{operation} answered {status} with something else than JSON") from None
        if not isinstance(answer, dict):
            raise KmsError(KmsCode.RESPONSE, f"{operation} answered {status} with something else than an object")
        if status != 200:
            kind = str(answer.get("__type", "an error")).rpartition("#")[2]
            message = answer.get("message", answer.get("Message", ""))
            raise KmsError(KmsCode.REFUSED, f"{operation}: {status} {kind:.80}: {message!s:.300}", kind=kind[:80])
        return answer


def default_endpoint(region: str) -> Target:
    """Where a region's KMS is. Raises `ValueError` on what is no region's name."""
    suffix = ".cn" if region.startswith("cn-") else ""
    return Target.parse(f"kms.{region}.amazonaws.com{suffix}:443")


def encode(request: Mapping[str, object]) -> bytes:
    """The bytes of a request: JSON with sorted keys, so that one request has one nonce."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def request_nonce(operation: str, request: Mapping[str, object]) -> bytes:
    """What the attestation's nonce is: SHA-256 of operation and request without its Recipient.

    AWS looks at no nonce; but a document so bound is of no use for another request to whoever keeps it, and a stricter
    KMS (or a proxy that logs) can check it.
    """
    bare = {name: value for name, value in request.items() if name != "Recipient"}
    return hashlib.sha256(b"tea.kms.v1\0" + operation.encode() + b"\0" + encode(bare)).digest()


def _host_header(target: Target) -> str:
    return target.host if target.port == 443 else str(target)


def _add(request: Json, **optional: object) -> None:
    for name, value in optional.items():
        if value is not None:
            request[name] = dict(value) if isinstance(value, Mapping) else value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _string(answer: Json, name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or len(value) > 4096:
        raise KmsError(KmsCode.RESPONSE, f"the answer of KMS has no {name}")
    return value


def _blob(answer: Json, name: str) -> bytes:
    value = answer.get(name)
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) and value else _missing(name)
    except (binascii.Error, ValueError):
        raise KmsError(KmsCode.RESPONSE, f"{name} in the answer of KMS is not base64") from None


def _missing(name: str) -> bytes:
    raise KmsError(KmsCode.RESPONSE, f"the answer of KMS has no {name}")
