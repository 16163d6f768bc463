"""AWS credentials from the parent: those of its instance role, asked for at the tunnel's address, kept until they age.

May not: be taken for a secret from the parent, whose they are, or for a proof of anything.
Rule: AWS, "Container credentials" (the form of the answer); docs/nitro-sdk.md, "Credentials".
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tea.protocol.transport.address import Address
from tea.protocol.tunnel import CREDENTIALS_PATH

from .errors import KmsCode, KmsError
from .sigv4 import Credentials
from .tunnel import connected

MAX_ANSWER: Final = 16 * 1024
SECONDS: Final = 5.0
_EARLY: Final = 300.0
"""Seconds before their end from which on fresh ones are asked for."""
_SHORTEST: Final = 60.0
"""Seconds for which credentials without an end, or with one that is near, are kept."""


class ParentCredentials:
    """Call it for credentials. Safe to use from several threads. Raises `KmsError` (TUNNEL, RESPONSE)."""

    def __init__(self, parent: Address, *, clock: Callable[[], float] = time.time) -> None:
        self._parent = parent
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: Credentials | None = None
        self._until = 0.0

    def __call__(self) -> Credentials:
        with self._lock:
            now = self._clock()
            if self._kept is None or not now < self._until:
                self._kept, end = _parse(self._fetch())
                self._until = max(now + _SHORTEST, end - _EARLY)
            return self._kept

    def _fetch(self) -> bytes:
        try:
            with connected(self._parent, SECONDS) as stream:
                connection = http.client.HTTPConnection("parent")
                connection.sock = stream
                connection.request("GET", CREDENTIALS_PATH, headers={"Connection": "close"})
                answer = connection.getresponse()
                raw = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise KmsError(KmsCode.TUNNEL, f"the parent gives no credentials: {type(error).__name__}") from None
        if answer.status != 200 or len(raw) > MAX_ANSWER:
            raise KmsError(KmsCode.TUNNEL, f"the parent gives no credentials: it answered {answer.status}")
        return raw


def _parse(raw: bytes) -> tuple[Credentials, float]:
    """(credentials, their end in seconds since the epoch). The error says nothing of what came."""
    try:
        fields = json.loads(raw)
        credentials = Credentials(fields["AccessKeyId"], fields["SecretAccessKey"], fields.get("Token"))
        end = fields.get("Expiration")
        moment = 0.0 if end is None else datetime.fromisoformat(end).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise KmsError(KmsCode.RESPONSE, "the parent's credentials are not in the form of AWS's containers") from None
    return credentials, moment
