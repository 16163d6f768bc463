"""AWS Signature Version 4 for one POST with a body: what KMS asks for, and nothing more.

May not: read credentials from an environment, a file or the network, read a clock, or show a secret.
Rule: AWS General Reference, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """An AWS identity. The parent, whose role it is, knows it: it lets the enclave ask, it does not let it open."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("access_key_id", "secret_access_key", "session_token"):
            value = getattr(self, name)
            # They end up in headers: a line break would write another one.
            if value is not None and not (value and value.isascii() and value.isprintable()):
                raise ValueError(f"{name} must be printable ASCII, and not empty")


def sign(
    credentials: Credentials,
    *,
    region: str,
    service: str,
    host: str,
    at: float,
    body: bytes,
    headers: Mapping[str, str],
    method: str = "POST",
) -> dict[str, str]:
    """The headers to send for a request of the path `/`: those given, and Host, X-Amz-Date, Authorization.

    `at` is seconds since the epoch. AWS refuses a request that is more than five minutes off.
    """
    moment = datetime.fromtimestamp(int(at), UTC)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    sent = {**headers, "Host": host, "X-Amz-Date": stamp}
    if credentials.session_token is not None:
        sent["X-Amz-Security-Token"] = credentials.session_token
    signed = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items())
    names = ";".join(name for name, _ in signed)
    lines = [method, "/", "", *(f"{name}:{value}" for name, value in signed), "", names, _sha256(body)]
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = "\n".join([_ALGORITHM, stamp, scope, _sha256("\n".join(lines).encode())])
    key = ("AWS4" + credentials.secret_access_key).encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
