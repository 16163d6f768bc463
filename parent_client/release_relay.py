"""RELEASE on the parent: carries bytes between the enclave and a release service, which verifies and seals them.

May not: be believed by either: it can only keep messages back. Rule: docs/secrets.md, "The protocol".
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import urlsplit

from tea.protocol.channels import Release
from tea.protocol.errors import CallError, Code

SECONDS: Final = 20.0
MAX_ANSWER: Final = (512 << 10) + 8192
_CODES: Final = {400: Code.INVALID, 403: Code.UNTRUSTED, 429: Code.EXHAUSTED}


class NoRelease(Release):
    """The relay of a client that knows no release service: everything is UNAVAILABLE."""

    async def challenge(self) -> bytes:
        raise _none()

    async def release(self, request: bytes) -> bytes:
        raise _none()


class ReleaseRelay(Release):
    """One release service: `http://HOST:PORT`, `https://...` or `unix:/PATH`. `close` it."""

    def __init__(self, address: str) -> None:
        """Raises `ValueError` on an address of another kind."""
        parts = urlsplit(address)
        self._socket = address.removeprefix("unix:") if parts.scheme == "unix" else None
        if self._socket is None and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError(
                f"{address[:80]!r} is no release service: give http://HOST:PORT, https://... or unix:/PATH"
            )
        self._base = "http://release" if self._socket is not None else address.rstrip("/")

    async def challenge(self) -> bytes:
        return await self._ask("GET", "/v1/challenge", None)

    async def release(self, request: bytes) -> bytes:
        return await self._ask("POST", "/v1/release", request)

    async def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        # Only a client that relays pays for an HTTP client's import. One connection a request: they are rare.
        import aiohttp

        connector = aiohttp.UnixConnector(self._socket) if self._socket is not None else None
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, self._base + path, data=body, allow_redirects=False) as answer,
            ):
                data = await answer.content.read(MAX_ANSWER + 1)
                while len(data) <= MAX_ANSWER and (more := await answer.content.read(MAX_ANSWER + 1)):
                    data += more
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise CallError(
                Code.UNAVAILABLE, "the release service does not answer: its address is the client's"
            ) from None
        if status == 200 and len(data) <= MAX_ANSWER:
            return data
        raise _refused(status, data[:8192])


def _refused(status: int, data: bytes) -> CallError:
    try:
        read = json.loads(data)
        code, sentence = str(read["code"])[:80], str(read["sentence"])[:1500]
    except (ValueError, KeyError, TypeError):
        code, sentence = f"http:{status}", f"the release service answered with status {status}"
    return CallError(_CODES.get(status, Code.UNAVAILABLE), sentence, reason=code)


def _none() -> CallError:
    return CallError(Code.UNAVAILABLE, "this runtime client knows no release service: start it with --release")
