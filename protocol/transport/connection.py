"""One socket under an endpoint: reads into one buffer, writes what the session has once a loop tick.

May not: keep anything that a reconnect would need; the session does. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import asyncio
import functools
import socket
import typing
from typing import Final, Protocol

_FIRST_READ: Final = 8 * 1024
_LARGEST_READ: Final = 256 * 1024
# The buffer grows when reads fill it. A read takes at most what a socket buffer holds (net.core.rmem_default, 208 KiB).
_HIGH_WATER: Final = 512 * 1024
_WRITE_PIECE: Final = 256 * 1024
_FLUSH_TIMEOUT: Final = 2.0


class Owner(Protocol):
    """Who a connection belongs to."""

    def received(self, connection: Connection, data: memoryview) -> None:
        """Bytes have come; they are valid during the call only."""

    def data_to_send(self, connection: Connection, limit: int) -> list[bytes]:
        """What to write next, or nothing."""

    def lost(self, connection: Connection) -> None:
        """The stream has ended; called once."""


class Connection(asyncio.BufferedProtocol):
    """A byte stream between an owner and a socket. Reading never waits for writing, nor the other way round."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._view = memoryview(bytearray(_FIRST_READ))
        self._paused = False
        self._scheduled = False
        self._closing = False
        self.heard = self._loop.time()
        """When bytes came last, in the loop's time."""
        self.gone = asyncio.Event()
        """Set when the stream has ended."""

    def schedule(self) -> None:
        """The owner has something to write: it is asked for it once, later in this tick of the loop."""
        if not self._scheduled and not self._paused and self._transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Write what the owner has left, then end. A peer that does not read is cut off after two seconds."""
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._write(everything=True)
        self._transport.close()
        self._loop.call_later(_FLUSH_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """End now; what is not written is lost to this stream."""
        if self._transport is not None:
            self._closing = True
            self._transport.abort()

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = typing.cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        stream.set_write_buffer_limits(high=_HIGH_WATER)
        self.schedule()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = self._loop.time()
        if not self._closing:
            self.owner.received(self, self._view[:nbytes])
        if nbytes == len(self._view) < _LARGEST_READ:
            _keep_freed_blocks()
            self._view = memoryview(bytearray(min(nbytes * 4, _LARGEST_READ)))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self.gone.set()
        self.owner.lost(self)

    # -- inside --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        if not self._closing:
            self._write(everything=False)

    def _write(self, *, everything: bool) -> None:
        transport = self._transport
        while transport is not None and (everything or not self._paused):
            pieces = self.owner.data_to_send(self, _WRITE_PIECE)
            if not pieces:
                return
            for piece in pieces:
                transport.write(piece)


@functools.cache
def _keep_freed_blocks() -> None:
    """Once a process: have glibc keep freed blocks of the size of frames instead of giving them to the kernel.

    A block that went back is faulted in again, page by page: 1 ms for every MiB that passes, more than all else
    together. Freeing one block of 4 MiB raises the threshold to that size (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytes(4 << 20)


async def open_stream(sock: socket.socket, owner: Owner) -> Connection:
    """Put a connected socket under the running loop. The connection owns the socket from then on."""
    loop = asyncio.get_running_loop()
    # uvloop takes what is not AF_UNIX for TCP and sets TCP options, which AF_VSOCK refuses; as a pipe it takes any
    # stream. asyncio itself does not look at the family.
    disguised = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock.detach())
    try:
        _, connection = await loop.connect_accepted_socket(lambda: Connection(owner), disguised)
    except BaseException:
        disguised.close()
        raise
    return connection
