"""Garbage on every socket of the runtime client: who sends it is cut off, nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tea.parent_client.client import RuntimeClient
from tea.protocol.channels import Channel
from tea.protocol.frame import MAX_BODY, Frame, Kind, encode_frame
from tea.protocol.session import Role, Session

MakeClient = Callable[..., Awaitable[RuntimeClient]]
SOCKETS = ("enclave.sock", "operator.sock", "peer.sock")
FOUR_GIB = struct.pack(">IBBHIIII", 0xFFFFFFFF, int(Kind.CALL), 0, 0, 1, 1, 0, 0)

bodies = st.binary(max_size=60) | st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(), st.lists, max_leaves=10
).map(msgspec.msgpack.encode)
frames = st.builds(
    lambda kind, operation, link, correlation, cause, deadline, body: encode_frame(
        Frame(kind, 0, operation, link, correlation, cause, deadline, body)
    ),
    st.sampled_from(Kind),
    st.integers(0, 12),
    st.integers(0, 8),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 2),
    bodies,
)


def hello() -> bytes:
    """What a dialer says first."""
    session = Session(Role.DIALER, bytes(range(16)), resumable=False)
    session.attach()
    return b"".join(session.data_to_send())


async def throw(path: Path, data: bytes) -> None:
    """Send bytes to a socket, hang up, and wait until the other end is done with them."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(5):
            while await reader.read(1 << 16):
                pass
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("name", SOCKETS)
@given(data=st.binary(max_size=200))
@example(data=FOUR_GIB)
@example(data=b"GET / HTTP/1.1\r\n\r\n")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_bytes_that_are_no_session_disturb_nobody(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    await _disturb(tmp_path_factory, name, data)


@pytest.mark.parametrize("name", SOCKETS)
@given(parts=st.lists(frames | st.binary(max_size=40), max_size=8))
@example(parts=[FOUR_GIB])
@example(parts=[encode_frame(Frame(Kind.TELL, 0, 0, Channel.LOGS, body=b"\xdd\xff\xff\xff\xff"))])
@example(parts=[encode_frame(Frame(Kind.TELL, 0, 0, Channel.LOGS, body=b"\x91" * 5000))] * 3)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_frames_that_mean_nothing_disturb_nobody(
    tmp_path_factory: pytest.TempPathFactory, name: str, parts: list[bytes]
) -> None:
    await _disturb(tmp_path_factory, name, hello() + b"".join(parts))


async def _disturb(folders: pytest.TempPathFactory, name: str, data: bytes) -> None:
    from tea.parent_client.client import unix_config

    folder = folders.mktemp("c") / "e1"
    client = RuntimeClient(unix_config("e1", folder))
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: defects.append(context))
    await client.start()
    try:
        await throw(folder / name, data)
        status = await asyncio.wait_for(client.status(), 10)
        assert status.name == "e1"
        assert defects == []
    finally:
        await client.close()


async def test_garbage_beside_a_working_enclave_does_not_touch_it(
    make_client: MakeClient, make_host: Callable[..., Awaitable[Any]], until: Any, tmp_path: Path
) -> None:
    client = await make_client()
    await make_host(client)
    await until(lambda: client._enclave is not None)
    for name in SOCKETS:
        for data in (FOUR_GIB, b"\xff" * 1000, b"", b"x"):
            await throw(tmp_path / "e1" / name, data)
        assert await client.call("counter", "value", b"\x01") == b"\x01"
    assert client._connections == 1


async def test_strangers_that_say_nothing_are_let_go_and_take_no_place(
    make_client: MakeClient, make_host: Callable[..., Awaitable[Any]], until: Any, tmp_path: Path
) -> None:
    client = await make_client()
    silent = []
    for _ in range(40):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(tmp_path / "e1/enclave.sock"))
        silent.append(one)
    await make_host(client)
    await until(lambda: client._enclave is not None)
    assert await client.call("counter", "value", b"\x01") == b"\x01"
    for one in silent:
        one.close()


async def test_a_flood_of_log_records_leaves_the_client_answering_and_bounded(
    make_client: MakeClient, make_host: Callable[..., Awaitable[Any]], until: Any
) -> None:
    from tea.parent_client.log_book import HELD_BYTES
    from tea.protocol.channels import LogRecord, Logs

    client = await make_client()
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    large = tuple(LogRecord(1.0, "info", "host", "x" * 5000, {}) for _ in range(100))
    assert len(msgspec.msgpack.encode(large)) < MAX_BODY
    for _ in range(60):
        host.connected.tell(Channel.LOGS, Logs, "record", large)
        await asyncio.sleep(0)
    assert await client.call("counter", "value", b"\x01") == b"\x01"
    assert client._logs._held <= HELD_BYTES
