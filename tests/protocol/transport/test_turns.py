"""The line of those who wait for room: first come, first served, and bounded."""

from __future__ import annotations

import asyncio

from tea.protocol.frame import Frame, Kind
from tea.protocol.transport.turns import Line, Turn


def turn(size: int) -> Turn:
    return Turn(Frame(Kind.CALL, body=bytes(size)), asyncio.get_running_loop().create_future())


async def test_the_first_who_still_waits_is_first() -> None:
    line = Line(10, 100)
    turns = [turn(n) for n in range(4)]
    for each in turns:
        line.append(each)
    turns[0].done.cancel()
    turns[1].done.set_result(b"")
    assert line.first() is turns[2]
    assert (len(line), line.size) == (2, 5)
    line.pop()
    assert line.first() is turns[3]
    line.pop()
    assert line.first() is None
    assert (len(line), line.size) == (0, 0)


async def test_a_line_takes_so_many_frames_and_so_many_bytes_and_one_of_any_size() -> None:
    line = Line(2, 100)
    assert line.fits(1000)
    line.append(turn(60))
    assert line.fits(40)
    assert not line.fits(41)
    line.append(turn(0))
    assert not line.fits(0)


async def test_those_who_wait_no_more_make_room() -> None:
    line = Line(2, 100)
    first, second = turn(50), turn(50)
    line.append(first)
    line.append(second)
    assert not line.fits(10)
    second.done.cancel()
    assert line.fits(10)
    assert (len(line), line.size) == (1, 50)


async def test_clearing_forgets_everybody() -> None:
    line = Line(2, 100)
    line.append(turn(50))
    line.clear()
    assert (len(line), line.size, line.first()) == (0, 0, None)
