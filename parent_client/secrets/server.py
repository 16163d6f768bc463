"""The release service over HTTP: on a loopback port, on a Unix socket, or on both.

May not: listen on any other address (TLS and the way to it are a reverse proxy's), or judge. What goes over the wire is
neither secret nor trusted: requests are attested, answers sealed and signed.
Rule: docs/secrets.md, "Over HTTP".
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from aiohttp import web

from tea.trust.attestation import ChainCache
from tea.trust.audit_log import AuditError
from tea.trust.errors import TrustError
from tea.trust.release import MAX_REQUEST, ReleaseCode

from ..refusal import Refusal
from . import verifying
from .service import ReleaseService, code_of

CHALLENGE_PATH: Final = "/v1/challenge"
RELEASE_PATH: Final = "/v1/release"
VERIFY_PATH: Final = "/v1/verify"
T = TypeVar("T")


class ReleaseServer:
    """One service behind HTTP. `start`, then `close`."""

    def __init__(self, service: ReleaseService) -> None:
        self._service = service
        # One thread: verification and SQLite block, and the service is made for one at a time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="release")
        self._chains = ChainCache()
        self._runner: web.AppRunner | None = None
        self.port: int | None = None
        """Where it listens on the loopback address, once started."""

    async def start(self, *, port: int | None = None, socket: Path | None = None, host: str = "127.0.0.1") -> None:
        """Listen on `port` (0: any) of a loopback address, on a Unix socket (mode 0600), or on both.

        Raises `Refusal` on another address, `OSError` when it cannot listen.
        """
        if port is None and socket is None:
            raise Refusal("give a port, a socket or both: a release service that nobody reaches releases nothing")
        if not ipaddress.ip_address(host).is_loopback:
            raise Refusal(f"{host} is no loopback address: put a reverse proxy before the service")
        app = web.Application(client_max_size=MAX_REQUEST)
        app.router.add_get(CHALLENGE_PATH, self._challenge)
        app.router.add_post(RELEASE_PATH, self._release)
        app.router.add_post(VERIFY_PATH, self._verify)
        app.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        if port is not None:
            site = web.TCPSite(self._runner, host, port)
            await site.start()
            server = site._server
            assert isinstance(server, asyncio.Server)
            self.port = server.sockets[0].getsockname()[1]
        if socket is not None:
            socket.unlink(missing_ok=True)  # noqa: ASYNC240 (once, before anybody is served)
            before = os.umask(0o177)
            try:
                await web.UnixSite(self._runner, str(socket)).start()
            finally:
                os.umask(before)

    async def close(self) -> None:
        """Stop listening; what is being judged is judged to its end."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._thread.shutdown()

    async def _challenge(self, request: web.Request) -> web.Response:
        return await self._answer(self._service.challenge)

    async def _release(self, request: web.Request) -> web.Response:
        data = await request.read()  # aiohttp answers 413 beyond the limit
        return await self._answer(lambda: self._service.release(data))

    async def _verify(self, request: web.Request) -> web.Response:
        data = await request.read()

        def judge() -> dict[str, object]:
            return verifying.verify(data, now_ms=int(time.time() * 1000), cache=self._chains)

        try:
            verdict = await asyncio.get_running_loop().run_in_executor(self._thread, judge)
        except ValueError as error:
            return _refusal(400, "malformed", str(error))
        return web.json_response(verdict)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _answer(self, make: Callable[[], bytes]) -> web.Response:
        try:
            made = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        except (AuditError, Refusal, OSError) as error:
            # The owner's trouble, not the asker's: said on the console, not over the wire.
            _complain(error)
            return _refusal(503, "service:unavailable", "the release service cannot release now: its owner is told")
        except TrustError as error:
            status = {ReleaseCode.MALFORMED: 400, ReleaseCode.TOO_MANY: 429}.get(error.code, 403)  # type: ignore[call-overload]
            return _refusal(status, code_of(error), error.sentence)
        return web.Response(body=made, content_type="application/octet-stream")


def _refusal(status: int, code: str, sentence: str) -> web.Response:
    return web.Response(
        status=status, text=json.dumps({"code": code, "sentence": sentence}), content_type="application/json"
    )


def _complain(error: BaseException) -> None:
    os.write(2, f"release service: {type(error).__name__}: {error}\n".encode())
