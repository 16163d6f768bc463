"""One signed request to AWS KMS over HTTPS, and nothing else of AWS: what a whole SDK would be kept for otherwise.

May not: retry what signs, follow a redirect, read credentials from anywhere but the environment, or put them in an
error. Rule: AWS, "Signature Version 4 signing process"; AWS KMS API reference, protocol `x-amz-json-1.1`.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ..aws_credentials import Credentials
from ..refusal import Refusal

SECONDS: Final = 15.0
MAX_ANSWER: Final = 1 << 20
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_TYPE: Final = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A key of KMS: its id, ARN or `alias/NAME`, its region, and where KMS answers."""

    key: str
    region: str
    endpoint: str

    @classmethod
    def parse(cls, spec: str) -> KmsKey:
        """Read `awskms:KEY?region=R&endpoint=URL`. The region may stand in the ARN, or in AWS_REGION.

        Raises `Refusal`, also on an endpoint over plain HTTP that is not on this machine.
        """
        key, _, query = spec.removeprefix("awskms:").partition("?")
        named = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := sorted(named.keys() - {"region", "endpoint"}):
            raise Refusal(f"the KMS key has {unknown[0][:40]!r}, expected region and endpoint")
        arn = key.split(":")
        in_arn = arn[3] if len(arn) >= 6 and arn[0] == "arn" else ""
        region = named.get("region") or in_arn or os.environ.get("AWS_REGION", "")
        if not key or not _REGION.fullmatch(region):
            raise Refusal("name a KMS key and its region: awskms:KEY?region=eu-west-1")
        endpoint = named.get("endpoint") or f"https://kms.{region}.amazonaws.com"
        parts = urlsplit(endpoint)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise Refusal(f"the KMS endpoint {endpoint[:80]!r} is neither https nor on this machine")
        return cls(key, region, endpoint)

    def ask(self, operation: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """KMS's answer to one operation about this key. Raises `Refusal` with KMS's own word for the refusal."""
        body = json.dumps({"KeyId": self.key, **parameters}).encode()
        parts = urlsplit(self.endpoint)
        headers = signed_headers(
            Credentials.from_environment(),
            host=parts.netloc,
            region=self.region,
            target=f"TrentService.{operation}",
            body=body,
            at=datetime.datetime.now(datetime.UTC),
        )
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.netloc, timeout=SECONDS, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=SECONDS)
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(f"KMS does not answer at {self.endpoint}: {type(error).__name__}") from None
        finally:
            connection.close()
        return self._read(operation, answer.status, data)

    def _read(self, operation: str, status: int, data: bytes) -> dict[str, object]:
        try:
            read = json.loads(data) if len(data) <= MAX_ANSWER else None
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise Refusal(f"KMS answered {operation} with status {status} and no JSON object")
        if status != 200:
            word = str(read.get("__type", status)).rpartition("#")[2]
            raise Refusal(f"KMS refuses {operation} for {self.key}: {word[:80]}")
        return read


def signed_headers(
    credentials: Credentials, *, host: str, region: str, target: str, body: bytes, at: datetime.datetime
) -> dict[str, str]:
    """The headers of a POST to `/` of KMS, signed (version 4)."""
    moment = at.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": _TYPE, "host": host, "x-amz-date": moment, "x-amz-target": target}
    if credentials.session:
        headers["x-amz-security-token"] = credentials.session
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        ["POST", "/", "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, _hash(body)]
    )
    scope = f"{moment[:8]}/{region}/kms/aws4_request"
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, _hash(canonical.encode())])
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
