"""Listening: strangers are held to a HELLO, and what one of them does harms no other."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, HEADER_SIZE, Frame, FrameDecoder, Kind, encode_frame
from tea.protocol.hello import Hello, parse_hello
from tea.protocol.limits import Limits
from tea.protocol.operations import operation
from tea.protocol.transport import Address, Endpoint, Server, Settings, UnixAddress, connect, listen

DESK = 1
HELLO = Hello("tea", 1, 1, b"raw peer's id..."[:16], 1, 0, False, True, 1024, 1 << 20, b"greetings")


class Desk:
    @operation
    async def add(self, left: int, right: int) -> int:
        return left + right

    @operation
    async def wait(self) -> None:
        await asyncio.Event().wait()


class Peer:
    """A peer that says what the test makes it say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = FrameDecoder()
        self.seen: list[Frame] = []

    @classmethod
    async def connect(cls, address: Address) -> Peer:
        assert isinstance(address, UnixAddress)
        return cls(*await asyncio.open_unix_connection(address.path))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def hello(self, **changes: object) -> None:
        self.say(encode_frame(Frame(Kind.HELLO, body=msgspec.structs.replace(HELLO, **changes).encode())))

    async def frame(self) -> Frame:
        while not self.seen:
            data = await self.reader.read(65536)
            assert data, "the connection was closed"
            self.seen += self.decoder.feed(data)
        return self.seen.pop(0)

    async def ending(self) -> CallError:
        """The BYE with which this peer is sent away; nothing follows it but the end."""
        while (frame := await self.frame()).kind is not Kind.BYE:
            pass
        assert not self.seen
        assert await self.reader.read() == b""
        self.writer.close()
        return CallError.decode(frame.body)

    async def end(self) -> None:
        """The connection ends without a word."""
        assert await self.reader.read() == b""
        self.writer.close()


def serve_desk(endpoint: Endpoint) -> None:
    endpoint.serve(DESK, Desk, Desk())


@pytest.fixture
async def listening(unix_address: Address) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    servers: list[Server] = []

    async def make(settings: Settings | None = None, on_endpoint: Callable[..., object] = serve_desk) -> Server:
        servers.append(await listen(unix_address, on_endpoint, settings=settings))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


Listening = Callable[..., Awaitable[Server]]


async def still_serves(server: Server) -> None:
    endpoint = await connect(server.address)
    assert await endpoint.call(DESK, Desk, "add", 1, 2) == 3
    await endpoint.close()


# -- strangers ---------------------------------------------------------------------------------------------------------


async def test_a_stranger_who_says_hello_is_greeted_and_served(listening: Listening) -> None:
    met: list[Endpoint] = []

    def on_endpoint(endpoint: Endpoint) -> None:
        met.append(endpoint)
        serve_desk(endpoint)

    server = await listening(Settings(greeting=b"welcome"), on_endpoint)
    peer = await Peer.connect(server.address)
    peer.hello()
    hello = parse_hello((await peer.frame()).body)
    assert (hello.session, hello.attempt, hello.greeting, hello.established) == (HELLO.session, 1, b"welcome", False)
    assert met[0].greeting == b"greetings"
    peer.say(encode_frame(Frame(Kind.CALL, 0, 0, DESK, 5, body=msgspec.msgpack.encode([2, 3]))))
    assert await peer.frame() == Frame(Kind.REPLY, 0, 0, DESK, 5, body=b"\x05")
    peer.writer.close()


async def test_a_hello_may_come_byte_by_byte(listening: Listening) -> None:
    server = await listening()
    peer = await Peer.connect(server.address)
    for byte in encode_frame(Frame(Kind.HELLO, body=HELLO.encode())):
        peer.say(bytes([byte]))
        await peer.writer.drain()
        await asyncio.sleep(0)
    assert (await peer.frame()).kind is Kind.HELLO
    peer.writer.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a connection begins with HELLO"),
        (encode_frame(Frame(Kind.CALL)), "a connection begins with HELLO"),
        (HEADER.pack(0xFFFFFFFF, Kind.HELLO, 0, 0, 0, 0, 0, 0), "a HELLO has at most"),
        (encode_frame(Frame(Kind.HELLO, body=b"rubbish")), "this is no HELLO"),
    ],
)
async def test_a_stranger_who_says_something_else_is_sent_away_with_the_reason(
    listening: Listening, caplog: pytest.LogCaptureFixture, said: bytes, why: str
) -> None:
    caplog.set_level(logging.INFO, "tea.protocol.transport")
    server = await listening()
    peer = await Peer.connect(server.address)
    peer.say(said)
    error = await peer.ending()
    assert error.code is Code.INVALID
    assert why in error.sentence
    assert why in caplog.text
    await still_serves(server)


async def test_a_peer_of_another_version_is_told_which_are_spoken(listening: Listening) -> None:
    server = await listening()
    peer = await Peer.connect(server.address)
    peer.hello(lowest=8, highest=9)
    assert "versions 8 to 9" in (await peer.ending()).sentence
    await still_serves(server)


async def test_a_session_that_is_not_known_is_refused(listening: Listening) -> None:
    server = await listening()
    peer = await Peer.connect(server.address)
    peer.hello(established=True, attempt=4)
    error = await peer.ending()
    assert (error.code, server.endpoints) == (Code.CONFLICT, ())


async def test_a_stranger_who_says_nothing_is_cut_off(listening: Listening) -> None:
    server = await listening(Settings(handshake=0.02))
    peer = await Peer.connect(server.address)
    await peer.end()
    await still_serves(server)


async def test_a_stranger_who_leaves_is_forgotten(listening: Listening) -> None:
    server = await listening()
    peer = await Peer.connect(server.address)
    peer.writer.close()
    await peer.writer.wait_closed()
    await still_serves(server)
    assert server.endpoints == ()


async def test_more_peers_than_allowed_are_refused(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk, max_endpoints=1)
    first = await connect(server.address)
    with pytest.raises(CallError, match="1 peers are connected already") as caught:
        await connect(server.address)
    assert caught.value.code is Code.EXHAUSTED
    await first.close()
    while server.endpoints:
        await asyncio.sleep(0)
    await still_serves(server)
    await server.close()


async def test_more_strangers_than_allowed_are_closed_at_once(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk, max_endpoints=1)
    silent = await Peer.connect(server.address)
    while not server.strangers:
        await asyncio.sleep(0)
    peer = await Peer.connect(server.address)
    await peer.end()
    silent.writer.close()
    await silent.writer.wait_closed()
    while server.strangers:
        await asyncio.sleep(0)
    await still_serves(server)
    await server.close()


async def test_without_descriptors_the_listener_looks_away_and_comes_back(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    server = await listening()
    assert isinstance(server.address, UnixAddress)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as dialling:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            dialling.connect(str(server.address.path))
            while "cannot accept" not in caplog.text:
                await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await still_serves(server)


# -- peers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (HEADER.pack(0xFFFFFFFF, Kind.CALL, 0, 0, 0, 0, 0, 0), "a frame of 4294967295 bytes is announced"),
        (b"\xff" * HEADER_SIZE, "unknown frame kind 255"),
        (encode_frame(Frame(Kind.CALL, 1)), "flags 0x01 have no meaning"),
        (encode_frame(Frame(Kind.HELLO, body=HELLO.encode())), "HELLO is not possible"),
        (encode_frame(Frame(Kind.CREDIT)), "a CREDIT has 24 bytes"),
        (encode_frame(Frame(Kind.CALL, 0, 1, DESK)) * 9, "a request beyond the window"),
    ],
)
async def test_a_malformed_peer_is_closed_with_the_reason_and_another_is_unharmed(
    listening: Listening, said: bytes, why: str
) -> None:
    server = await listening(Settings(limits=Limits(window_frames=8)))
    other = await connect(server.address)
    waiting = asyncio.ensure_future(other.call(DESK, Desk, "wait", timeout=None))
    peer = await Peer.connect(server.address)
    peer.hello()
    peer.say(said)
    error = await peer.ending()
    assert error.code is Code.INVALID
    assert why in error.sentence
    assert await other.call(DESK, Desk, "add", 1, 2) == 3
    assert not waiting.done()
    assert len(server.endpoints) == 1
    await other.close()
    with pytest.raises(CallError):
        await waiting


async def test_every_call_ends_in_exactly_one_reply_or_error(listening: Listening) -> None:
    server = await listening(Settings(handlers=7, on_defect=lambda *_: None))
    peer = await Peer.connect(server.address)
    peer.hello()
    choose = random.Random(3)
    bodies = [msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode(["x"]), b"", b"\xc1", msgspec.msgpack.encode([])]
    asked = range(1, 601)
    for number in asked:
        channel, op = choose.choice([DESK, DESK, DESK, 9]), choose.choice([0, 0, 1, 5])
        deadline = 1 if op == 1 else choose.choice([0, 1, 5000])
        peer.say(encode_frame(Frame(Kind.CALL, 0, op, channel, number, 0, deadline, choose.choice(bodies))))
        peer.say(encode_frame(Frame(Kind.TELL, 0, op, channel, 0, 0, 1, choose.choice(bodies))))
        await asyncio.sleep(0)
    answers: Counter[int] = Counter()
    while len(answers) < len(asked):
        frame = await peer.frame()
        if frame.kind in (Kind.REPLY, Kind.ERROR):
            answers[frame.correlation] += 1
    peer.say(encode_frame(Frame(Kind.CALL, 0, 0, DESK, 9999, 0, 0, bodies[0])))
    while (frame := await peer.frame()).correlation != 9999:
        assert frame.kind is Kind.CREDIT
    assert answers == Counter(asked)
    peer.writer.close()


async def test_a_peer_that_falls_silent_is_gone_after_three_beats(listening: Listening) -> None:
    server = await listening(Settings(heartbeat=0.01, grace=0.01))
    peer = await Peer.connect(server.address)
    peer.hello()
    (endpoint,) = await when(lambda: server.endpoints)
    kinds = {Kind.HELLO, Kind.PING}
    while data := await peer.reader.read(4096):
        assert {frame.kind for frame in peer.decoder.feed(data)} <= kinds
    await endpoint.closed.wait()
    assert server.endpoints == ()
    peer.writer.close()


async def test_two_peers_that_have_nothing_to_say_stay_connected(listening: Listening) -> None:
    server = await listening(Settings(heartbeat=0.005))
    endpoint = await connect(server.address, settings=Settings(heartbeat=60))
    (there,) = server.endpoints
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not there.closed.is_set()
    assert await endpoint.call(DESK, Desk, "add", 1, 2) == 3
    await endpoint.close()


async def test_an_older_connection_of_a_session_is_dropped_for_a_newer_one(listening: Listening) -> None:
    server = await listening()
    old = await Peer.connect(server.address)
    old.hello()
    await old.frame()
    new = await Peer.connect(server.address)
    new.hello(attempt=2, established=True)
    assert parse_hello((await new.frame()).body).established
    await old.end()
    overtaken = await Peer.connect(server.address)
    overtaken.hello(attempt=2, established=True)
    assert "overtaken" in (await overtaken.ending()).sentence
    assert len(server.endpoints) == 1
    assert (await new.frame()).kind is Kind.CREDIT
    new.writer.close()


async def test_an_exclusive_listener_serves_the_newest_process_alone(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk, exclusive=True)
    first = await connect(server.address, reconnect=False)
    call = asyncio.ensure_future(first.call(DESK, Desk, "wait", timeout=None))
    await asyncio.sleep(0)
    second = await connect(server.address)
    with pytest.raises(CallError, match="another process has taken this place"):
        await call
    await first.closed.wait()
    assert await second.call(DESK, Desk, "add", 1, 2) == 3
    assert len(server.endpoints) == 1
    await second.close()
    await server.close()


async def test_a_stranger_who_leaves_while_being_greeted_leaves_nothing(listening: Listening) -> None:
    server = await listening(Settings(grace=0.01))
    peer = await Peer.connect(server.address)
    peer.hello(resumable=False)
    peer.writer.close()
    (endpoint,) = await when(lambda: server.endpoints)
    await endpoint.closed.wait()
    assert server.endpoints == ()


# -- the application's callback ----------------------------------------------------------------------------------------


async def test_an_async_on_endpoint_runs_beside_the_endpoint(listening: Listening) -> None:
    done = asyncio.Event()

    async def on_endpoint(endpoint: Endpoint) -> None:
        serve_desk(endpoint)
        await endpoint.closed.wait()
        done.set()

    server = await listening(None, on_endpoint)
    await still_serves(server)
    await done.wait()


async def test_what_on_endpoint_raises_is_reported_and_only_that_peer_is_closed(listening: Listening) -> None:
    defects: list[tuple[str, BaseException]] = []
    wrong = True

    def on_endpoint(endpoint: Endpoint) -> None:
        if wrong:
            raise ValueError("not today")
        serve_desk(endpoint)

    server = await listening(Settings(on_defect=lambda *defect: defects.append(defect)), on_endpoint)
    with pytest.raises(CallError, match="could not take the connection") as caught:
        await connect(server.address)
    assert caught.value.code is Code.INTERNAL
    assert [where for where, _ in defects] == ["on_endpoint"]
    wrong = False
    await still_serves(server)


async def test_what_an_async_on_endpoint_raises_is_reported(listening: Listening) -> None:
    reported = asyncio.Event()

    async def on_endpoint(endpoint: Endpoint) -> None:
        serve_desk(endpoint)
        raise ValueError("not today")

    server = await listening(Settings(on_defect=lambda *_: reported.set()), on_endpoint)
    await still_serves(server)
    await reported.wait()


# -- the place ---------------------------------------------------------------------------------------------------------


async def test_a_place_is_taken_once_and_free_after_close(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk)
    with pytest.raises(FileExistsError):
        await listen(unix_address, serve_desk)
    await still_serves(server)
    await server.close()
    await server.close()
    assert isinstance(unix_address, UnixAddress)
    assert not unix_address.path.exists()
    again = await listen(unix_address, serve_desk)
    await still_serves(again)
    await again.close()


async def test_a_socket_file_left_by_a_dead_process_is_taken_over(unix_address: Address) -> None:
    assert isinstance(unix_address, UnixAddress)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(unix_address.path))
    server = await listen(unix_address, serve_desk)
    await still_serves(server)
    await server.close()


async def test_closing_the_listener_sends_strangers_and_peers_away(unix_address: Address) -> None:
    server = await listen(unix_address, serve_desk)
    endpoint = await connect(server.address)
    stranger = await Peer.connect(server.address)
    while not server.strangers:
        await asyncio.sleep(0)
    await server.close()
    await endpoint.closed.wait()
    await stranger.end()
    assert endpoint.reason is not None
    assert "closed the session" in endpoint.reason.sentence


async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await listen(UnixAddress(tmp_path / "nowhere" / "s"), serve_desk)


async def when(look: Callable[[], tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    while not (seen := look()):
        await asyncio.sleep(0)
    return seen
