"""Connections that are cut at any byte, again and again, under load: every call answered once, every tell told once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.limits import Limits
from tea.protocol.operations import operation
from tea.protocol.transport import Address, Endpoint, Server, Settings, UnixAddress, connect, listen

DESK = 1
FAST = Settings(backoff=0.001, backoff_max=0.004, limits=Limits(retained_frames=200, window_frames=100), grace=60)


class Desk:
    def __init__(self) -> None:
        self.called: Counter[int] = Counter()
        self.told: list[int] = []
        self.arrived = asyncio.Event()

    @operation
    async def twice(self, number: int, padding: bytes = b"") -> int:
        self.called[number] += 1
        await asyncio.sleep(0)
        return number * 2

    @operation
    def note(self, number: int) -> None:
        self.told.append(number)

    @operation
    async def wait(self) -> None:
        self.arrived.set()
        await asyncio.Event().wait()


class Cutter:
    """Stands between two peers, carries bytes, and cuts where it likes."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here = here
        self.there = there
        self.cuts = 0
        self.budget: int | None = None
        """Bytes until the next cut, in both directions together; None: no cut."""
        self.refuse = False
        self.writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self.meet, self.here)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self.there)
        self.writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self.carry(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(4096):
                if self.budget is not None:
                    data = data[: self.budget]
                    self.budget -= len(data)
                sink.write(data)
                await sink.drain()
                if self.budget == 0:
                    self.budget = None
                    self.cuts += 1
                    # What was carried arrives; what comes after is lost.
                    self.cut()
            sink.close()
        except OSError:
            pass

    def cut(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[tuple[Cutter, Server, Endpoint, Desk, Desk]]:
    """A listener, a dialer that reaches it through a cutter, and their desks (there, here)."""
    there, here = Desk(), Desk()
    server = await listen(
        UnixAddress(tmp_path / "there"), lambda endpoint: endpoint.serve(DESK, Desk, there), settings=FAST
    )
    cutter = Cutter(tmp_path / "here", tmp_path / "there")
    await cutter.start()
    endpoint = await connect(
        Address.parse(f"unix:{tmp_path}/here"),
        on_endpoint=lambda endpoint: endpoint.serve(DESK, Desk, here),
        settings=FAST,
        reconnect=True,
    )
    yield cutter, server, endpoint, there, here
    await endpoint.close()
    await server.close()
    cutter.server.close()
    cutter.cut()


Wire = tuple[Cutter, Server, Endpoint, Desk, Desk]


async def test_after_many_cuts_under_load_nothing_is_lost_and_nothing_done_twice(wire: Wire) -> None:
    cutter, server, here, desk_there, desk_here = wire
    (there,) = server.endpoints
    choose = random.Random(7)
    told: dict[Endpoint, list[int]] = {here: [], there: []}
    total = 0

    async def caller(endpoint: Endpoint, first: int) -> None:
        for number in range(first, first + 20):
            padding = bytes(choose.choice([0, 10, 3000]))
            assert await endpoint.call(DESK, Desk, "twice", number, padding, timeout=None) == number * 2
            if endpoint.tell(DESK, Desk, "note", number):
                told[endpoint].append(number)

    for _ in range(30):
        cutter.budget = choose.randrange(1, 20_000)
        await asyncio.gather(
            *(caller(here, total + n * 20) for n in range(5)), *(caller(there, total + n * 20) for n in range(5))
        )
        total += 100
    cutter.budget = None
    for endpoint in (here, there):
        await endpoint.call(DESK, Desk, "twice", -1)
    assert cutter.cuts >= 20
    assert here.figures.resumed >= 20
    assert here.figures.sessions == 1
    for desk in (desk_there, desk_here):
        assert set(desk.called.values()) == {1}
        assert len(desk.called) == total + 1
    assert desk_there.told == told[here]
    assert desk_here.told == told[there]
    assert len(server.endpoints) == 1


async def test_calls_made_while_nobody_is_connected_are_answered_when_the_peer_is_back(wire: Wire) -> None:
    cutter, server, here, desk_there, _ = wire
    cutter.refuse = True
    cutter.cut()
    while here.opened.is_set() or server.endpoints[0].opened.is_set():
        await asyncio.sleep(0)
    calls = [asyncio.ensure_future(here.call(DESK, Desk, "twice", n)) for n in range(10)]
    back = [asyncio.ensure_future(server.endpoints[0].call(DESK, Desk, "twice", n)) for n in range(10)]
    assert here.tell(DESK, Desk, "note", 5)
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls + back)
    cutter.refuse = False
    assert await asyncio.gather(*calls) == await asyncio.gather(*back) == [n * 2 for n in range(10)]
    assert desk_there.told == [5]


async def test_a_listener_that_dies_fails_the_calls_in_hand(wire: Wire, tmp_path: Path) -> None:
    cutter, server, here, desk_there, _ = wire
    call = asyncio.ensure_future(here.call(DESK, Desk, "wait", timeout=None))
    await desk_there.arrived.wait()
    # As after kill -9: the connection is gone without a BYE, and the new process knows nothing.
    cutter.refuse = True
    cutter.cut()
    while here.opened.is_set():
        await asyncio.sleep(0)
    await server.close()
    again = await listen(
        UnixAddress(tmp_path / "there"), lambda endpoint: endpoint.serve(DESK, Desk, Desk()), settings=FAST
    )
    cutter.refuse = False
    with pytest.raises(CallError, match="did the process restart") as caught:
        await call
    assert caught.value.code is Code.UNAVAILABLE
    assert await here.call(DESK, Desk, "twice", 21) == 42
    assert here.figures.sessions == 2
    await again.close()


async def test_a_dialer_that_dies_fails_the_listeners_calls_after_the_grace_period(tmp_path: Path) -> None:
    desk = Desk()
    settings = Settings(grace=0.02)
    server = await listen(UnixAddress(tmp_path / "there"), lambda _: None, settings=settings)
    cutter = Cutter(tmp_path / "here", tmp_path / "there")
    await cutter.start()
    here = await connect(
        UnixAddress(tmp_path / "here"),
        on_endpoint=lambda endpoint: endpoint.serve(DESK, Desk, desk),
        reconnect=True,
    )
    (there,) = server.endpoints
    call = asyncio.ensure_future(there.call(DESK, Desk, "wait", timeout=None))
    await desk.arrived.wait()
    cutter.refuse = True
    cutter.cut()
    with pytest.raises(CallError, match="did not come back within") as caught:
        await call
    assert caught.value.code is Code.UNAVAILABLE
    assert there.closed.is_set()
    assert server.endpoints == ()
    await here.close()
    await server.close()
    cutter.server.close()
