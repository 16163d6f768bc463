"""The parent's side of the tunnel: connects an enclave's stream to an allow-listed host and port, and relays bytes.

May not: be trusted with what flows (TLS ends in the enclave), reach what is not on its list, or let one direction wait
for the other: a flooded direction of a vsock that is not read would hang both. Bounded in connections and memory.
Rule: docs/nitro-sdk.md, "The tunnel"; `tea.protocol.tunnel` is the opening.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tea.protocol.transport.address import Address
from tea.protocol.tunnel import (
    OPENED,
    Opening,
    Target,
    TunnelError,
    answer_with,
    parse_request,
    refusal,
    wants_credentials,
)

_log: Final = logging.getLogger("tea.parent_client.tunnel")
_BACKLOG: Final = 64
_PIECE: Final = 64 * 1024
"""Bytes that one direction holds at most: what was read is written before more is read."""
OPENING_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
"""Seconds in which neither direction moves, after which a stream is cut."""


Source = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives AccessKeyId, SecretAccessKey, perhaps Token and Expiration. Raises `LookupError` where there are none."""


@dataclass
class Figures:
    """Counts since the start."""

    opened: int = 0
    refused: int = 0
    failed: int = 0
    open: int = 0
    sent: int = 0
    """Bytes towards targets."""
    received: int = 0
    """Bytes towards enclaves."""


class TunnelServer:
    """Listens at an address for one enclave's tunnels. `allowed`: targets as `host:port`; nothing else is reached.

    `credentials`, where given, are what the enclave may ask for to sign requests to AWS.
    """

    def __init__(
        self,
        address: Address,
        allowed: Iterable[str],
        *,
        credentials: Source | None = None,
        max_streams: int = 32,
        idle: float = IDLE_SECONDS,
        opening: float = OPENING_SECONDS,
    ) -> None:
        self.address = address
        self.allowed = frozenset(Target.parse(text) for text in allowed)
        self.figures = Figures()
        self._credentials = credentials
        self._room = asyncio.Semaphore(max_streams)
        self._idle = idle
        self._opening = opening
        self._sock: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Address:
        """Listen; answers the address that it got. Raises `OSError`."""
        sock = self.address.make_socket()
        try:
            self.address = self.address.bind(sock)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._spawn(self._accept(sock))
        return self.address

    async def close(self) -> None:
        """Stop to listen and cut every stream."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sock is not None:
            self.address.unbind(self._sock)
            self._sock.close()
            self._sock = None

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Those over the bound wait in the kernel's queue, within their own deadline.
            await self._room.acquire()
            try:
                enclave, _ = await loop.sock_accept(sock)
            except OSError as error:
                self._room.release()
                _log.warning("cannot accept at %s: %s", self.address, error.strerror)
                await asyncio.sleep(0.1)  # out of descriptors or memory: look away for a while
                continue
            enclave.setblocking(False)
            self.figures.open += 1
            self._spawn(self._serve(enclave))

    async def _serve(self, enclave: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            with enclave:
                try:
                    async with asyncio.timeout(self._opening):
                        target, rest = await self._opened(enclave)
                        if isinstance(target, bytes):
                            await loop.sock_sendall(enclave, target)
                            return
                    upstream = await self._connect(target)
                except TunnelError as error:
                    self.figures.refused += error.status < 500
                    self.figures.failed += error.status >= 500
                    _log.info("a tunnel was refused: %s", error.sentence)
                    async with asyncio.timeout(self._opening):
                        await loop.sock_sendall(enclave, refusal(error.status, error.sentence))
                    return
                with upstream:
                    await loop.sock_sendall(enclave, OPENED)
                    if rest:
                        await loop.sock_sendall(upstream, rest)
                    self.figures.opened += 1
                    await self._relay(enclave, upstream)
        except (OSError, TimeoutError) as error:
            _log.info("a tunnel ended: %s", type(error).__name__)
        finally:
            self.figures.open -= 1
            self._room.release()

    async def _opened(self, enclave: socket.socket) -> tuple[Target | bytes, bytes]:
        """(where to, what came behind); or a whole answer, when it is no tunnel that was asked for."""
        loop = asyncio.get_running_loop()
        opening = Opening()
        while True:
            data = await loop.sock_recv(enclave, 1024)
            if not data:
                raise TunnelError(400, "the enclave closed before it said where to")
            if (head := opening.feed(data)) is not None:
                break
        if wants_credentials(head[0]) and self._credentials is not None:
            return await self._offered(self._credentials), b""
        target = parse_request(head[0])
        if target not in self.allowed:
            raise TunnelError(403, f"{target} is not on this tunnel's list")
        return target, head[1]

    @staticmethod
    async def _offered(source: Source) -> bytes:
        try:
            return answer_with(json.dumps(dict(await source())).encode())
        except LookupError as error:
            raise TunnelError(404, f"the parent has no credentials: {error}") from None

    async def _connect(self, target: Target) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
                failure: OSError | None = None
                for family, kind, protocol, _, address in found:
                    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
                    try:
                        sock.setblocking(False)
                        await loop.sock_connect(sock, address)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    except OSError as error:
                        sock.close()
                        failure = error
                    except BaseException:
                        sock.close()
                        raise
                    else:
                        return sock
                raise failure or OSError("no address")
        except TimeoutError:
            raise TunnelError(504, f"{target} did not answer in {CONNECT_SECONDS:g} seconds") from None
        except OSError as error:
            raise TunnelError(502, f"{target} cannot be reached: {error.strerror or error}") from None

    async def _relay(self, enclave: socket.socket, upstream: socket.socket) -> None:
        """Both directions until both ended, or nothing moved for `idle` seconds. Neither waits for the other."""
        loop = asyncio.get_running_loop()
        moved = loop.time()

        async def pump(source: socket.socket, sink: socket.socket, *, outward: bool) -> None:
            nonlocal moved
            while data := await loop.sock_recv(source, _PIECE):
                moved = loop.time()
                await loop.sock_sendall(sink, data)
                moved = loop.time()
                if outward:
                    self.figures.sent += len(data)
                else:
                    self.figures.received += len(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        pumps = {
            loop.create_task(pump(enclave, upstream, outward=True)),
            loop.create_task(pump(upstream, enclave, outward=False)),
        }
        try:
            waiting = pumps
            while waiting:
                left = moved + self._idle - loop.time()
                if left <= 0:
                    raise TimeoutError
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a broken direction ends both
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
