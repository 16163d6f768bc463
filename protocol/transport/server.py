"""Listen for peers; each gets an endpoint, which a dialer that comes back finds again.

May not: parse more than a HELLO before it knows whose connection it is. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import FrameError
from tea.protocol.hello import Hello, peek_hello
from tea.protocol.session import Role, Session, farewell, unknown_session

from .address import Address
from .connection import Connection, open_stream
from .endpoint import Endpoint
from .settings import Settings

_log: Final = logging.getLogger("tea.protocol.transport")
_BACKLOG: Final = 64
_ACCEPT_PAUSE: Final = 0.1


async def listen(
    address: Address,
    on_endpoint: Callable[[Endpoint], Awaitable[None] | None],
    *,
    settings: Settings | None = None,
    exclusive: bool = False,
    max_endpoints: int = 256,
) -> Server:
    """Listen at an address. `on_endpoint` gets every new endpoint before its first request: the place to `serve`.

    It may be async: then it serves before it first awaits, and its end is not the endpoint's.

    With `exclusive` there is one peer at a time: a new process that dials in replaces the one before, whose calls fail
    with UNAVAILABLE at once. Raises `OSError` when the place is taken or the kernel has no such family.
    """
    sock = address.make_socket()
    try:
        bound = address.bind(sock)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Server(bound, sock, on_endpoint, settings or Settings(), exclusive=exclusive, max_endpoints=max_endpoints)


class Server:
    """What listens at an address, and the endpoints that came of it."""

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        on_endpoint: Callable[[Endpoint], Awaitable[None] | None],
        settings: Settings,
        *,
        exclusive: bool,
        max_endpoints: int,
    ) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_endpoint = on_endpoint
        self._settings = settings
        self._exclusive = exclusive
        self._max = max_endpoints
        self._endpoints: dict[bytes, Endpoint] = {}
        self._strangers: dict[Connection, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop.add_reader(sock, self._accept)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that are not over."""
        return tuple(self._endpoints.values())

    @property
    def strangers(self) -> int:
        """Connections that have not said who they are."""
        return len(self._strangers)

    def close(self) -> Awaitable[None]:
        """Stop to listen and close every endpoint. The result may be awaited: until all connections are gone."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock)
            self.address.unbind(self._sock)
        for task in self._tasks:
            task.cancel()
        for connection in list(self._strangers):
            connection.abort()
        return asyncio.ensure_future(_all([endpoint.close() for endpoint in self.endpoints]))

    # -- for a stranger's connection -----------------------------------------------------------------------------

    def greet(self, connection: Connection, hello: Hello, first: bytearray) -> None:
        """A connection has said who it is. Raises `CallError` when it is refused."""
        endpoint = self._endpoints.get(hello.session)
        if endpoint is not None:
            if not endpoint.admits(hello):
                raise CallError(Code.CONFLICT, "this connection was overtaken by another of the same session")
            endpoint.adopt(connection, first)
            return
        if hello.established:
            raise unknown_session()
        if self._exclusive:
            for other in self.endpoints:
                other.close(CallError(Code.UNAVAILABLE, "another process has taken this place"))
        if len(self._endpoints) >= self._max:
            raise CallError(Code.EXHAUSTED, f"{self._max} peers are connected already", limit=self._max)
        session = Session(Role.LISTENER, hello.session, limits=self._settings.limits, greeting=self._settings.greeting)
        endpoint = Endpoint(session, self._settings, on_opened=self._opened)
        self._endpoints[hello.session] = endpoint
        endpoint.on_closed = lambda: self._forget(hello.session)
        endpoint.adopt(connection, first)

    def known(self, connection: Connection) -> None:
        """A connection has said who it is, or is gone."""
        timer = self._strangers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    # -- inside --------------------------------------------------------------------------------------------------

    def _opened(self, endpoint: Endpoint) -> None:
        going_on = self._on_endpoint(endpoint)
        if inspect.isawaitable(going_on):
            self._run(endpoint, going_on)

    def _run(self, endpoint: Endpoint, going_on: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await going_on
            except Exception as error:  # noqa: BLE001 - told to whoever is told of services' defects
                endpoint.defect("on_endpoint", error)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, session_id: bytes) -> None:
        self._endpoints.pop(session_id, None)

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the queue stays readable, so look away for a while.
                _log.warning("cannot accept at %s: %s", self.address, error.strerror)
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_ACCEPT_PAUSE, self._look_again)
                return
            sock.setblocking(False)
            if len(self._strangers) >= self._max:
                sock.close()
                continue
            task = self._loop.create_task(self._open(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _look_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept)

    async def _open(self, sock: socket.socket) -> None:
        stranger = _Stranger(self)
        connection = await open_stream(sock, stranger)
        if connection.owner is stranger and not connection.gone.is_set():
            patience = self._loop.call_later(self._settings.handshake, connection.abort)
            self._strangers[connection] = patience


class _Stranger:
    """Owner of a connection that has not said who it is. Holds at most one HELLO and one read."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._last_words = b""

    def received(self, connection: Connection, data: memoryview) -> None:
        self._buffer += data
        try:
            hello = peek_hello(self._buffer)
            if hello is not None:
                self._server.known(connection)
                self._server.greet(connection, hello, self._buffer)
        except FrameError as error:
            self._refuse(connection, CallError(Code.INVALID, str(error)))
        except CallError as error:
            self._refuse(connection, error)

    def data_to_send(self, connection: Connection, limit: int) -> list[bytes]:
        words, self._last_words = self._last_words, b""
        return [words] if words else []

    def lost(self, connection: Connection) -> None:
        self._server.known(connection)

    def _refuse(self, connection: Connection, error: CallError) -> None:
        _log.info("a connection to %s is refused: %.200r", self._server.address, error.sentence)
        self._last_words = farewell(error)
        connection.close()


async def _all(endings: list[Awaitable[None]]) -> None:
    for ending in endings:
        await ending
