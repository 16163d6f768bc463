"""Dialling: patience, refusals, and coming back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind, encode_frame
from tea.protocol.operations import operation
from tea.protocol.session import farewell
from tea.protocol.transport import Address, Endpoint, Server, Settings, UnixAddress, VsockAddress, connect, listen
from tea.protocol.transport.client import dial

DESK = 1
FAST = Settings(backoff=0.001, backoff_max=0.005)


class Desk:
    def __init__(self) -> None:
        self.arrived = asyncio.Event()

    @operation
    async def add(self, left: int, right: int) -> int:
        return left + right

    @operation
    async def wait(self) -> None:
        self.arrived.set()
        await asyncio.Event().wait()


def serve_desk(endpoint: Endpoint) -> None:
    endpoint.serve(DESK, Desk, Desk())


Closing = Callable[[Endpoint | Server], None]


@pytest.fixture
async def at_end() -> AsyncIterator[Closing]:
    things: list[Endpoint | Server] = []
    yield things.append
    for thing in things:
        await thing.close()


async def refusal(connecting: Awaitable[Endpoint]) -> CallError:
    with pytest.raises(CallError) as caught:
        await connecting
    return caught.value


async def test_nobody_there_is_unavailable_at_once_without_reconnect(unix_address: Address) -> None:
    error = await refusal(connect(unix_address))
    assert error.code is Code.UNAVAILABLE
    assert error.sentence == f"cannot connect to {unix_address}: No such file or directory"


async def test_nobody_there_is_unavailable_after_the_timeout_with_reconnect(unix_address: Address) -> None:
    error = await refusal(connect(unix_address, reconnect=True, settings=FAST, timeout=0.03))
    assert error.code is Code.UNAVAILABLE
    assert error.sentence.startswith(f"{unix_address} did not answer within 0.03 s: cannot connect")


async def test_somebody_who_says_nothing_is_unavailable_after_the_timeout(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)
    left = asyncio.Semaphore(0)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.release()

    server = await asyncio.start_unix_server(silence, unix_address.path)
    error = await refusal(connect(unix_address, timeout=0.03))
    assert error.sentence == f"{unix_address} did not answer within 0.03 s: nobody spoke"
    error = await refusal(connect(unix_address, settings=Settings(handshake=0.01)))
    assert error.code is Code.UNAVAILABLE
    await left.acquire()
    await left.acquire()
    server.close()


async def test_a_listener_that_comes_later_is_found(unix_address: Address, at_end: Closing) -> None:
    connecting = asyncio.ensure_future(connect(unix_address, reconnect=True, settings=FAST, timeout=None))
    await asyncio.sleep(0.01)
    assert not connecting.done()
    at_end(await listen(unix_address, serve_desk))
    endpoint = await connecting
    at_end(endpoint)
    assert await endpoint.call(DESK, Desk, "add", 1, 2) == 3


async def test_a_listener_of_another_kind_is_refused_with_the_reason(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(speak, unix_address.path)
    error = await refusal(connect(unix_address))
    assert error.code is Code.INVALID
    assert error.sentence == "unknown frame kind 47"
    server.close()


async def test_a_listener_that_refuses_says_why(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(farewell(CallError(Code.EXHAUSTED, "come back tomorrow")))
        writer.close()

    server = await asyncio.start_unix_server(speak, unix_address.path)
    error = await refusal(connect(unix_address))
    assert (error.code, error.sentence) == (Code.EXHAUSTED, "the other end closed the session: come back tomorrow")
    error = await refusal(connect(unix_address, reconnect=True, settings=FAST, timeout=0.03))
    assert error.code is Code.UNAVAILABLE
    assert "come back tomorrow" in error.sentence
    server.close()


async def test_a_connection_that_is_closed_without_a_word_is_unavailable(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), unix_address.path)
    error = await refusal(connect(unix_address))
    assert error.code is Code.UNAVAILABLE
    server.close()


async def test_bytes_before_our_hello_end_the_connection(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frame(Frame(Kind.PING)) * 3)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(speak, unix_address.path)
    error = await refusal(connect(unix_address, settings=Settings(handshake=0.05)))
    assert error.code in (Code.INVALID, Code.UNAVAILABLE)
    server.close()


async def test_an_async_on_endpoint_is_awaited_before_anything_is_dialled(
    unix_address: Address, at_end: Closing
) -> None:
    met: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
    at_end(await listen(unix_address, met.set_result))

    async def on_endpoint(endpoint: Endpoint) -> None:
        await asyncio.sleep(0)
        assert not met.done()
        serve_desk(endpoint)

    at_end(await connect(unix_address, on_endpoint=on_endpoint))
    assert await (await met).call(DESK, Desk, "add", 1, 2) == 3


async def test_a_dialer_that_is_cancelled_leaves_nothing(unix_address: Address) -> None:
    before = asyncio.all_tasks()
    connecting = asyncio.ensure_future(connect(unix_address, reconnect=True, timeout=None))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def test_without_reconnect_the_endpoint_ends_with_its_connection(unix_address: Address) -> None:
    desk = Desk()
    server = await listen(unix_address, lambda endpoint: endpoint.serve(DESK, Desk, desk))
    endpoint = await connect(unix_address)
    call = asyncio.ensure_future(endpoint.call(DESK, Desk, "wait", timeout=None))
    await desk.arrived.wait()
    await server.close()
    with pytest.raises(CallError) as caught:
        await call
    assert caught.value.code is Code.UNAVAILABLE
    assert endpoint.closed.is_set()


async def test_a_peer_that_restarts_fails_the_calls_in_hand_and_the_endpoint_goes_on(
    unix_address: Address, at_end: Closing
) -> None:
    desk = Desk()
    met: asyncio.Queue[Endpoint] = asyncio.Queue()

    def on_endpoint(endpoint: Endpoint) -> None:
        endpoint.serve(DESK, Desk, desk)
        met.put_nowait(endpoint)

    server = await listen(unix_address, on_endpoint)
    endpoint = await connect(unix_address, on_endpoint=serve_desk, reconnect=True, settings=FAST)
    at_end(endpoint)
    call = asyncio.ensure_future(endpoint.call(DESK, Desk, "wait", timeout=None))
    await desk.arrived.wait()
    await server.close()
    with pytest.raises(CallError) as caught:
        await call
    assert caught.value.code is Code.UNAVAILABLE
    assert not endpoint.closed.is_set()
    assert endpoint.reason is not None
    waiting = asyncio.ensure_future(endpoint.call(DESK, Desk, "add", 3, 4))
    await asyncio.sleep(0)
    at_end(await listen(unix_address, on_endpoint))
    assert await waiting == 7
    await met.get()
    back = await met.get()
    assert await back.call(DESK, Desk, "add", 1, 2) == 3
    assert endpoint.figures.sessions == 2


async def test_when_nobody_comes_back_within_the_grace_period_calls_fail_at_once(
    unix_address: Address, at_end: Closing
) -> None:
    server = await listen(unix_address, serve_desk)
    endpoint = await connect(unix_address, reconnect=True, settings=Settings(backoff=0.001, grace=0.02))
    at_end(endpoint)
    await server.close()
    with pytest.raises(CallError) as caught:
        await endpoint.call(DESK, Desk, "add", 1, 2, timeout=None)
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(CallError, match=r"did not come back within 0\.02 s"):
        await endpoint.call(DESK, Desk, "add", 1, 2, timeout=None)
    assert not endpoint.tell(DESK, Desk, "add", 1, 2)
    at_end(await listen(unix_address, serve_desk))
    await endpoint.opened.wait()
    assert await endpoint.call(DESK, Desk, "add", 1, 2) == 3


async def test_closing_a_dialer_that_dials_ends_it(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk)
    endpoint = await connect(unix_address, reconnect=True, settings=FAST)
    await server.close()
    while endpoint.opened.is_set():
        await asyncio.sleep(0)
    await endpoint.close()
    assert endpoint.closed.is_set()


# -- sockets -----------------------------------------------------------------------------------------------------------


async def test_a_busy_unix_listener_is_waited_for(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(unix_address.path))
        listening.listen(0)
        first.connect(str(unix_address.path))
        dialling = asyncio.ensure_future(dial(unix_address))
        await asyncio.sleep(0.005)
        assert not dialling.done()
        listening.accept()[0].close()
        (await dialling).close()


async def test_a_vsock_connect_that_fails_is_an_error_or_takes_too_long(at_end: Closing) -> None:
    # CID 1 is this machine itself: refused where there is a loopback, silence where there is none.
    error = await refusal(connect(VsockAddress(1, 1), settings=Settings(handshake=0.05)))
    assert error.code is Code.UNAVAILABLE
    assert error.sentence.startswith("cannot connect to vsock:1:1: ")


async def test_a_connect_that_is_in_progress_and_fails_is_an_error() -> None:
    """A TCP port where nobody listens stands in for vsock: both connect in the background."""

    class Loopback(VsockAddress):
        def make_socket(self) -> socket.socket:
            sock = socket.socket(socket.AF_INET)
            sock.setblocking(False)
            return sock

        def start_connect(self, sock: socket.socket) -> None:
            sock.connect(("127.0.0.1", self.port))

    with socket.socket(socket.AF_INET) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="ECONNREFUSED"):
            await dial(Loopback(0, taken.getsockname()[1]))
        taken.listen()
        (await dial(Loopback(0, taken.getsockname()[1]))).close()
