"""A JSON-RPC 2.0 client over HTTP: single and batched, bounded, every failure a `CallError` or a `NodeError`.

May not: retry (its callers know what may be asked twice). Rule: JSON-RPC 2.0 specification.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from tea.protocol.errors import CallError, Code

MAX_ANSWER: Final = 64 << 20
"""Bytes of an answer at most."""
MAX_BATCH: Final = 500
"""Requests in one HTTP request; more are split."""

Json = Any
"""What json.loads gives; whoever reads it checks it."""


class NodeError(Exception):
    """The node answered with an error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class JsonRpc:
    """One node. Connections are kept open; `close` ends them."""

    def __init__(self, url: str, *, timeout: float = 20.0) -> None:
        """`timeout` is seconds for one HTTP request with its answer."""
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._numbers = itertools.count(1)

    async def call(self, method: str, *params: object) -> Json:
        """The result of one call. Raises `NodeError`, or `CallError(UNAVAILABLE)` when no answer can be had."""
        (result,) = await self.batch([(method, params)])
        if isinstance(result, NodeError):
            raise result
        return result

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Json]:
        """Results in the order of the calls, a `NodeError` in place of one that failed.

        Raises `CallError(UNAVAILABLE)` when no answer can be had.
        """
        results: list[Json] = []
        for start in range(0, len(calls), MAX_BATCH):
            results += await self._post(calls[start : start + MAX_BATCH])
        return results

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Json]:
        numbered = [
            {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": list(params)}
            for method, params in calls
        ]
        single = len(numbered) == 1  # some nodes refuse batches: don't send one for nothing
        answer = await self._exchange(json.dumps(numbered[0] if single else numbered).encode())
        listed = [answer] if isinstance(answer, dict) else answer
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise _unavailable("the node's answer is no JSON-RPC")
        if not single and isinstance(answer, dict):
            raise _unavailable(f"the node refused a batch: {_error_of(answer)}")
        by_number: dict[object, Json] = {one["id"]: one for one in listed if isinstance(one.get("id"), int)}
        found: list[Json] = []
        for asked in numbered:
            one = by_number.get(asked["id"])
            if one is None:
                if single and listed and "error" in listed[0]:
                    one = listed[0]
                else:
                    raise _unavailable(f"the node did not answer {asked['method']}")
            found.append(_error_of(one) if one.get("error") is not None else one.get("result"))
        return found

    async def _exchange(self, body: bytes) -> Json:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(
                self.url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response:
                chunks = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    chunks += chunk
                    if len(chunks) > MAX_ANSWER:
                        raise _unavailable(f"the node's answer is over {MAX_ANSWER} bytes")
                # A node may answer an error object with status 400; without JSON the status is the reason.
                try:
                    return json.loads(chunks)
                except (ValueError, RecursionError):
                    raise _unavailable(f"the node answered HTTP {response.status} without JSON") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _unavailable(f"the chain node does not answer: {type(error).__name__}") from None


def _error_of(answer: Json) -> NodeError:
    error = answer.get("error")
    if not isinstance(error, dict):
        return NodeError(0, "an error without a reason")
    code = error.get("code")
    return NodeError(code if isinstance(code, int) else 0, str(error.get("message", ""))[:500])


def _unavailable(sentence: str) -> CallError:
    return CallError(Code.UNAVAILABLE, sentence)
