"""The AWS Nitro Enclaves SDK in Python: the NSM, attestation documents, and KMS with an attested recipient.

May not: need a host, an actor or a manifest: this module is usable alone, in any program inside an enclave. An actor
never imports it: it asks the `nitro` provider. Rule: AWS aws-nitro-enclaves-sdk-c (its surface); docs/nitro-sdk.md.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from tea.protocol.transport.address import Address
from tea.protocol.tunnel import Target

from .client import Description, ErrorCode, Nsm, NsmError, Pcr
from .device import DEVICE_PATH, Device, NsmDevice
from .entropy import DEFAULT_SIZE, Mixed, mix_entropy
from .kms import (
    CmsCode,
    CmsError,
    Credentials,
    DataKey,
    KmsClient,
    KmsCode,
    KmsError,
    ParentCredentials,
    RecipientKey,
    TlsTransport,
    Transport,
    direct,
    through,
)
from .kms.http import DEFAULT_SECONDS

__all__ = [
    "CmsCode",
    "CmsError",
    "Credentials",
    "DataKey",
    "Description",
    "ErrorCode",
    "KmsClient",
    "KmsCode",
    "KmsError",
    "Mixed",
    "NsmError",
    "NsmSession",
    "ParentCredentials",
    "Pcr",
    "RecipientKey",
    "Target",
    "TlsTransport",
    "Transport",
    "direct",
    "kms_client",
    "through",
]


class NsmSession:
    """One open NSM: `with NsmSession() as nsm: ...`. Safe to use from several threads. Raises `NsmError`.

    Without a device, `/dev/nsm` is opened: `FileNotFoundError` outside an enclave.
    """

    def __init__(self, device: Device | None = None, *, path: str = DEVICE_PATH) -> None:
        self._device = NsmDevice(path) if device is None else device
        self._nsm = Nsm(self._device)

    def __enter__(self) -> NsmSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the device go; every later request fails."""
        self._device.close()

    def describe(self) -> Description:
        """Version, module id, number of PCRs, which are locked, digest."""
        return self._nsm.describe()

    def random(self, size: int) -> bytes:
        """`size` random bytes of the NSM; it gives 256 a request."""
        return self._nsm.random(size)

    def seed_entropy(self, size: int = DEFAULT_SIZE) -> Mixed:
        """Mix random of the NSM into the kernel's pool: before the first key is made, TLS's included."""
        return mix_entropy(self._nsm, size)

    def pcr(self, index: int) -> Pcr:
        """One PCR, 0 to 31: locked or not, and its 48 bytes."""
        return self._nsm.describe_pcr(index)

    def pcrs(self) -> Mapping[int, Pcr]:
        """All PCRs by index. An attestation document holds the locked ones."""
        return {index: self._nsm.describe_pcr(index) for index in range(self._nsm.describe().max_pcrs)}

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Extend an unlocked PCR (16 to 31) with data; its new 48 bytes, SHA-384(old || data)."""
        return self._nsm.extend_pcr(index, data)

    def lock_pcr(self, index: int) -> None:
        """Lock one PCR of 16 to 31 until the enclave ends."""
        self._nsm.lock_pcr(index)

    def lock_pcrs(self, stop: int) -> None:
        """Lock PCRs 0 to `stop` - 1."""
        self._nsm.lock_pcrs(stop)

    def attestation(
        self, *, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        """An attestation document: at most 512 bytes of user_data and of nonce, 1,024 of public_key."""
        return self._nsm.attestation(user_data, nonce, public_key)


def kms_client(
    nsm: NsmSession,
    *,
    region: str,
    credentials: Credentials | Callable[[], Credentials],
    tunnel: Address | str | None = None,
    endpoint: Target | None = None,
    tls: ssl.SSLContext | None = None,
    seconds: float = DEFAULT_SECONDS,
    recipient: RecipientKey | None = None,
    clock: Callable[[], float] = time.time,
) -> KmsClient:
    """KMS over TLS that ends here, every request attested by this NSM.

    `tunnel` is where the parent serves one (`vsock:3:PORT`, `unix:PATH`; AWS's vsock-proxy is none: it has no opening);
    None dials directly, outside an enclave. `tls` pins certificates of your choice; the default takes the image's
    store. `seconds` bounds each request as a whole.
    """
    if isinstance(tunnel, str):
        tunnel = Address.parse(tunnel)
    given = credentials

    def current() -> Credentials:
        return given if isinstance(given, Credentials) else given()

    def attest(*, public_key: bytes, nonce: bytes) -> bytes:
        return nsm.attestation(public_key=public_key, nonce=nonce)

    return KmsClient(
        region=region,
        credentials=current,
        attest=attest,
        transport=TlsTransport(direct if tunnel is None else through(tunnel), tls=tls, seconds=seconds),
        endpoint=endpoint,
        recipient=recipient,
        clock=clock,
    )
