"""The parent's tunnel reaches what is on its list and nothing else, relays both ways at once, and stays bounded.

May not: reach beyond loopback. Rule: docs/nitro-sdk.md, "The tunnel".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tea.parent_client.tunnel import TunnelServer
from tea.protocol.transport.address import Address, UnixAddress
from tea.protocol.tunnel import Target, TunnelError
from tea.providers.nitro.kms import through

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """An echo on loopback."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}"
    server.close()


async def tunnel_to(folder: Path, allowed: list[str], **options: object) -> TunnelServer:
    server = TunnelServer(UnixAddress(folder / "tunnel.sock"), allowed, **options)  # type: ignore[arg-type]
    await server.start()
    return server


def exchanged(address: Address, target: str, data: bytes) -> bytes:
    """What comes back through a tunnel, read while it is written: run it on a thread."""
    import threading

    with through(address)(Target.parse(target), 5) as sock:
        got = bytearray()

        def read() -> None:
            while piece := sock.recv(65536):
                got.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        reader.join(10)
        return bytes(got)


async def test_bytes_flow_both_ways_to_an_allowed_target(tmp_path: Path, target: str) -> None:
    server = await tunnel_to(tmp_path, [target])
    data = bytes(range(256)) * 20_000  # far more than any buffer: both directions must move at once
    assert await asyncio.to_thread(exchanged, server.address, target, data) == data
    assert server.figures.opened == 1
    assert server.figures.sent == server.figures.received == len(data)
    await server.close()
    assert server.figures.open == 0


async def test_a_target_that_is_not_on_the_list_is_refused(tmp_path: Path, target: str) -> None:
    server = await tunnel_to(tmp_path, ["kms.eu-west-1.amazonaws.com:443"])
    with pytest.raises(TunnelError) as caught:
        await asyncio.to_thread(through(server.address), Target.parse(target), 5)
    assert caught.value.status == 403
    assert server.figures.refused == 1
    await server.close()


async def test_a_target_that_does_not_answer_is_named(tmp_path: Path) -> None:
    server = await tunnel_to(tmp_path, ["127.0.0.1:1"])
    with pytest.raises(TunnelError) as caught:
        await asyncio.to_thread(through(server.address), Target("127.0.0.1", 1), 5)
    assert caught.value.status == 502
    await server.close()


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 400, b"CONNECT x HTTP/1.1\r\n\r\n"])
async def test_what_is_no_opening_is_refused_and_the_stream_closed(tmp_path: Path, opening: bytes) -> None:
    server = await tunnel_to(tmp_path, [])
    reader, writer = await asyncio.open_unix_connection(tmp_path / "tunnel.sock")
    writer.write(opening)
    try:
        answer = await reader.read()
    except ConnectionResetError:  # it was closed with bytes of ours unread
        answer = b"HTTP/1.1 4"
    assert answer.startswith(b"HTTP/1.1 4")
    writer.close()
    await server.close()


async def test_an_opening_that_never_ends_is_cut(tmp_path: Path) -> None:
    server = await tunnel_to(tmp_path, [], opening=0.05)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "tunnel.sock")
    writer.write(b"CONN")
    assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_a_stream_on_which_nothing_moves_is_cut(tmp_path: Path, target: str) -> None:
    server = await tunnel_to(tmp_path, [target], idle=0.05)
    sock = await asyncio.to_thread(through(server.address), Target.parse(target), 5)
    with sock:
        assert await asyncio.to_thread(sock.recv, 1) == b""
    await server.close()


async def test_a_stream_over_the_bound_waits_until_another_ends(tmp_path: Path, target: str) -> None:
    server = await tunnel_to(tmp_path, [target], max_streams=1)
    first = await asyncio.to_thread(through(server.address), Target.parse(target), 5)
    second = asyncio.create_task(asyncio.to_thread(exchanged, server.address, target, b"later"))
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(through(server.address), Target.parse(target), 0.1)
    assert server.figures.opened == 1
    first.close()
    assert await second == b"later"
    await server.close()


async def test_a_parent_that_is_silent_runs_into_the_deadline(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/silent.sock")
    listener = address.make_socket()
    address.bind(listener)
    listener.listen()
    with listener, pytest.raises(TimeoutError):
        await asyncio.to_thread(through(address), Target("localhost", 443), 0.1)


async def test_a_parent_that_floods_its_answer_is_cut_off(tmp_path: Path) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 " + b"x" * 5000)
        await writer.drain()

    listener = await asyncio.start_unix_server(flood, tmp_path / "flood.sock")
    with pytest.raises(TunnelError):
        await asyncio.to_thread(through(Address.parse(f"unix:{tmp_path}/flood.sock")), Target("localhost", 443), 5)
    listener.close()


async def test_a_parent_that_hangs_up_says_nothing_else(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_unix_server(hang_up, tmp_path / "gone.sock")
    with pytest.raises((TunnelError, ConnectionError)):
        await asyncio.to_thread(through(Address.parse(f"unix:{tmp_path}/gone.sock")), Target("localhost", 443), 5)
    listener.close()


async def test_nobody_listening_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await asyncio.to_thread(through(Address.parse(f"unix:{tmp_path}/none.sock")), Target("localhost", 443), 5)


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "a b:1"])
def test_a_list_with_what_is_no_target_is_refused_at_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        TunnelServer(UnixAddress(tmp_path / "t.sock"), [text])
