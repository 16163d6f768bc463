"""The host's side of the zygote: whoever gives up a spawn leaves nothing behind, and harms no other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tea.runtime.zygote_client import Process, SpawnError, Zygote

MEMORY = 64 << 20
STEPS = range(8)
"""How many turns of the loop a spawn has before it is given up: from before it began to after its request was sent."""

Until = Callable[..., Any]


def children() -> set[int]:
    """The processes that this one has to reap."""
    return {int(pid) for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    made = Zygote(asyncio.get_running_loop())
    try:
        yield made
    finally:
        made.stop()


async def ended(process: Process) -> None:
    process.kill()
    await process.ended


async def give_up(task: asyncio.Task[Any], steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("steps", STEPS)
async def test_a_spawn_that_is_given_up_harms_no_other_and_leaves_no_worker(
    zygote: Zygote, until: Until, steps: int
) -> None:
    before = children()
    await zygote.start()
    assert zygote.pid is not None
    # It answers nothing while it stands still: however late the task is given up, its answer is still to come.
    os.kill(zygote.pid, signal.SIGSTOP)
    try:
        await give_up(asyncio.create_task(zygote.spawn("one", memory_bytes=MEMORY, cpu_seconds=0)), steps)
    finally:
        os.kill(zygote.pid, signal.SIGCONT)
    process, connection = await zygote.spawn("two", memory_bytes=MEMORY, cpu_seconds=0)
    assert zygote.starts == 1
    await until(lambda: children() - before == {zygote.pid, process.pid})
    connection.close()
    await ended(process)


@pytest.mark.parametrize("steps", STEPS)
async def test_a_start_that_is_given_up_is_begun_anew(zygote: Zygote, steps: int) -> None:
    await give_up(asyncio.create_task(zygote.start()), steps)
    process, connection = await zygote.spawn("one", memory_bytes=MEMORY, cpu_seconds=0)
    connection.close()
    await ended(process)


async def test_a_stop_ends_the_spawn_that_waits(zygote: Zygote) -> None:
    await zygote.start()
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGSTOP)
    task = asyncio.create_task(zygote.spawn("one", memory_bytes=MEMORY, cpu_seconds=0))
    for _ in STEPS:
        await asyncio.sleep(0)
    zygote.stop()
    with pytest.raises(SpawnError, match="the zygote was stopped"):
        await task
    assert zygote.pid is None
