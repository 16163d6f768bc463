"""The host's threads for long computation, fair between actors: each has a share, however much it asks for.

May not: let one actor's work fill all threads, or call a thread free before it is.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from typing import Any, Final

AT_ONCE: Final = 2
"""Threads that one actor's work may have at a time, and that the host's own may."""
CALLER: Final[ContextVar[str]] = ContextVar("caller", default="")
"""The actor for which a task computes; empty: the host itself. The router sets it."""


class FairThreads:
    """Runs functions on an executor, at most `AT_ONCE` for each actor; the others wait, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._loop = loop
        self._executor = executor
        self._under_way = 0
        self._turns: dict[str, asyncio.Semaphore] = {}
        """By actor: as many as the manifests name."""

    def at_work(self) -> bool:
        """Whether any of them computes."""
        return self._under_way > 0

    async def run(self, function: Callable[..., Any], *args: object) -> Any:
        """The function's result, computed on a thread."""
        caller = CALLER.get()
        turns = self._turns.get(caller)
        if turns is None:
            turns = self._turns[caller] = asyncio.Semaphore(AT_ONCE)
        await turns.acquire()
        try:
            work = self._executor.submit(function, *args)
        except BaseException:
            turns.release()
            raise
        self._under_way += 1
        # When the thread is done with it, not when somebody stopped waiting: a deadline frees no thread.
        work.add_done_callback(lambda ended: self._ended(turns, ended))
        return await asyncio.wrap_future(work, loop=self._loop)

    def _ended(self, turns: asyncio.Semaphore, _work: Future[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._release, turns)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _release(self, turns: asyncio.Semaphore) -> None:
        self._under_way -= 1
        turns.release()
