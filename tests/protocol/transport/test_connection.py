"""One socket: it carries any stream family on any loop, and never waits for a peer that does not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from tea.protocol.transport import connection as module
from tea.protocol.transport.connection import Connection, open_stream


class Owner:
    """Collects what comes, writes what it is given."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.out: list[bytes] = []
        self.largest = 0
        self.changed = asyncio.Event()
        self.ended = 0

    def received(self, connection: Connection, data: memoryview) -> None:
        self.came += data
        self.largest = max(self.largest, len(data))
        self.changed.set()

    def data_to_send(self, connection: Connection, limit: int) -> list[bytes]:
        out, self.out = self.out[:1], self.out[1:]
        return out

    def lost(self, connection: Connection) -> None:
        self.ended += 1

    async def until(self, size: int) -> None:
        while len(self.came) < size:
            self.changed.clear()
            await self.changed.wait()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """TCP stands in for AF_VSOCK: a stream of another family than AF_UNIX."""
    with socket.socket(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        dialling = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    return dialling, accepted


@pytest.mark.parametrize("make", [socket.socketpair, tcp_pair])
async def test_any_stream_family_is_carried(make: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    a, b = make()
    a.setblocking(False)
    b.setblocking(False)
    left, right = Owner(), Owner()
    here, there = await open_stream(a, left), await open_stream(b, right)
    left.out = [b"x" * 300_000, b"y" * 300_000, b"z"]
    right.out = [b"back"]
    here.schedule()
    here.schedule()
    there.schedule()
    await right.until(600_001)
    await left.until(4)
    assert right.came == b"x" * 300_000 + b"y" * 300_000 + b"z"
    assert left.came == b"back"
    assert right.largest > 8 * 1024
    here.close()
    here.close()
    await there.gone.wait()
    await here.gone.wait()
    assert (left.ended, right.ended) == (1, 1)
    here.close()
    here.abort()
    here.schedule()


async def test_what_is_left_is_written_before_the_end() -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    left, right = Owner(), Owner()
    here, there = await open_stream(a, left), await open_stream(b, right)
    left.out = [bytes(100_000)] * 20
    here.schedule()
    here.close()
    await there.gone.wait()
    assert len(right.came) == 2_000_000


async def test_a_peer_that_does_not_read_is_cut_off_when_we_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_TIMEOUT", 0.02)
    a, b = socket.socketpair()
    a.setblocking(False)
    with b:
        owner = Owner()
        connection = await open_stream(a, owner)
        owner.out = [bytes(1 << 20)] * 4
        connection.close()
        await connection.gone.wait()
    assert owner.ended == 1


async def test_a_peer_that_does_not_read_does_not_stop_us_from_reading() -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    with b:
        owner = Owner()
        connection = await open_stream(a, owner)
        owner.out = [bytes(1 << 20)] * 20
        connection.schedule()
        b.sendall(b"listen to me")
        await owner.until(12)
        assert len(owner.out) > 10  # what the socket does not take stays with the owner
        connection.schedule()
        connection.abort()
        await connection.gone.wait()


async def test_opening_that_is_cancelled_closes_the_socket() -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    with b:
        opening = asyncio.ensure_future(open_stream(a, Owner()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        b.settimeout(5)
        for _ in range(5):
            await asyncio.sleep(0)
        assert b.recv(1) == b""
