"""Dial a peer, and keep dialling.

May not: give up a session that can be resumed. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from tea.protocol.errors import CallError, Code
from tea.protocol.hello import SESSION_ID_SIZE
from tea.protocol.session import Role, Session

from .address import Address
from .connection import open_stream
from .endpoint import Endpoint
from .settings import Settings

_log: Final = logging.getLogger("tea.protocol.transport")
_random: Final = secrets.SystemRandom()
_BUSY_PAUSE: Final = 0.01


async def connect(
    address: Address,
    *,
    on_endpoint: Callable[[Endpoint], Awaitable[None] | None] | None = None,
    settings: Settings | None = None,
    reconnect: bool = False,
    timeout: float | None = 10.0,
) -> Endpoint:
    """Connect to whoever listens at an address; answers when frames flow.

    `on_endpoint` is called before anything is dialled: the place to `serve`. Without `reconnect` there is one attempt,
    and the endpoint ends with its connection. With it, attempts go on with back-off for `timeout` seconds (None:
    for ever) and after every loss; a session is resumed within `Settings.grace`, and when the peer has restarted its
    calls fail with UNAVAILABLE and the endpoint goes on with a new session, services and all.

    Raises `CallError`: UNAVAILABLE when nobody listens or answers in time, or the reason why the peer refused.
    """
    chosen = settings or Settings()

    def begin() -> Session:
        return Session(
            Role.DIALER,
            secrets.token_bytes(SESSION_ID_SIZE),
            limits=chosen.limits,
            greeting=chosen.greeting,
            resumable=reconnect,
        )

    endpoint = Endpoint(begin(), chosen, renew=begin if reconnect else None)
    if on_endpoint is not None:
        preparing = on_endpoint(endpoint)
        if inspect.isawaitable(preparing):
            await preparing
    dialer = _Dialer(address, endpoint, chosen, reconnect=reconnect)
    keeping = asyncio.get_running_loop().create_task(dialer.keep())
    endpoint.on_closed = keeping.cancel
    try:
        async with asyncio.timeout(timeout):
            await dialer.ready(keeping)
    except TimeoutError:
        said = "nobody spoke" if dialer.failure is None else dialer.failure.sentence
        endpoint.close()
        raise CallError(Code.UNAVAILABLE, f"{address} did not answer within {timeout:g} s: {said}") from None
    except BaseException:
        endpoint.close()
        raise
    return endpoint


class _Dialer:
    """Keeps an endpoint connected until it is closed."""

    def __init__(self, address: Address, endpoint: Endpoint, settings: Settings, *, reconnect: bool) -> None:
        self._address = address
        self._endpoint = endpoint
        self._settings = settings
        self._reconnect = reconnect
        self.failure: CallError | None = None

    async def ready(self, keeping: asyncio.Task[None]) -> None:
        """Wait until frames flow. Raises `CallError` when the dialler gave up before."""
        opened = asyncio.ensure_future(self._endpoint.opened.wait())
        try:
            await asyncio.wait({opened, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if not self._endpoint.opened.is_set():
            reason = self._endpoint.reason or self.failure
            raise reason or CallError(Code.UNAVAILABLE, f"{self._address} closed the connection")

    async def keep(self) -> None:
        """Dial, wait until the connection is lost, and again; until the endpoint is closed."""
        endpoint, pause = self._endpoint, self._settings.backoff
        try:
            while not endpoint.closed.is_set():
                spoke = await self._once()
                if not self._reconnect:
                    break
                if spoke:
                    pause = self._settings.backoff
                # Half of the pause is jitter, so that many who lost the same peer do not come back at once.
                await asyncio.sleep(pause * _random.uniform(0.5, 1.0))
                pause = min(pause * 2, self._settings.backoff_max)
        finally:
            endpoint.close(self.failure)

    async def _once(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.handshake):
                connection = await open_stream(await dial(self._address), self._endpoint)
        except (OSError, TimeoutError) as error:
            said = getattr(error, "strerror", None) or "no answer"
            self.failure = CallError(Code.UNAVAILABLE, f"cannot connect to {self._address}: {said}")
            _log.debug("%s", self.failure.sentence)
            return False
        self._endpoint.adopt(connection)
        # Cancelled when the endpoint is closed, which ends the connection by itself.
        gone = asyncio.ensure_future(connection.gone.wait())
        opened = asyncio.ensure_future(self._endpoint.opened.wait())
        try:
            await asyncio.wait({gone, opened}, timeout=self._settings.handshake, return_when=asyncio.FIRST_COMPLETED)
            spoke = opened.done()
            if not spoke:
                connection.abort()
            await gone
        finally:
            gone.cancel()
            opened.cancel()
        self.failure = self._endpoint.reason or CallError(
            Code.UNAVAILABLE, f"the connection to {self._address} was lost"
        )
        return spoke


async def dial(address: Address) -> socket.socket:
    """A connected non-blocking socket. Raises `OSError`. Works on any event loop: asyncio's own and uvloop's."""
    sock = address.make_socket()
    try:
        while True:
            try:
                address.start_connect(sock)
            except BlockingIOError as error:
                if error.errno == errno.EINPROGRESS:
                    await _writable(sock)
                    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(code, errno.errorcode.get(code, str(code))) from None
                    return sock
                # AF_UNIX: the listener's queue is full, and nothing is in progress (connect(2), EAGAIN).
                await asyncio.sleep(_BUSY_PAUSE)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)
