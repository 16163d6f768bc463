"""AWS KMS with an attested recipient: requests, signatures, the tunnel, and the envelopes that only the enclave opens.

May not: be imported by what has no enclave; the parent's side is `tea.parent_client.tunnel`.
Rule: AWS KMS API Reference; docs/nitro-sdk.md.
"""

from __future__ import annotations

from .client import DataKey, KmsClient
from .cms import CmsCode, CmsError
from .credentials import ParentCredentials
from .errors import KmsCode, KmsError
from .http import TlsTransport, Transport
from .recipient import Attest, RecipientKey
from .sigv4 import Credentials
from .tunnel import direct, through

__all__ = [
    "Attest",
    "CmsCode",
    "CmsError",
    "Credentials",
    "DataKey",
    "KmsClient",
    "KmsCode",
    "KmsError",
    "ParentCredentials",
    "RecipientKey",
    "TlsTransport",
    "Transport",
    "direct",
    "through",
]
