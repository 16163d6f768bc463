"""An event loop on a thread whose time moves only when a test says so: providers' timers become deterministic.

May not: be used outside tests. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import heapq
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

SETTLE_TURNS: Final = 8
"""Turns of the loop after which what was ready has run, and what that made ready in turn."""


class _FrozenLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.elapsed = 0.0
        self.whens: list[float] = []
        super().__init__()

    def time(self) -> float:
        return self.elapsed

    def call_at(  # type: ignore[override]  # typeshed's has a TypeVarTuple that passes through unchanged
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        heapq.heappush(self.whens, when)
        return super().call_at(when, callback, *args, context=context)


class LoopThread:
    """A running loop and its thread. Every method is called from the test's thread."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._loop = _FrozenLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="providers in memory", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds since the epoch. Safe on any thread."""
        return self._start + self._loop.elapsed

    def elapsed(self) -> float:
        """Seconds since this loop was made; never goes back. Safe on any thread."""
        return self._loop.elapsed

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """A coroutine's result. Raises `TimeoutError` after `timeout` seconds of real time."""
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"no answer within {timeout} s of real time") from None

    def answer(self, future: asyncio.Future[T], outcome: T | Exception) -> None:
        """Resolve a future of the loop from the test's thread; one that was given up stays so."""

        def resolve() -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._loop.call_soon_threadsafe(resolve)

    def settle(self) -> None:
        """Let everything that is ready run."""
        self.run(_turns(), 10.0)

    def next_timer(self) -> float | None:
        """Seconds until the next timer of the loop, or None."""
        return self.run(self._next_timer(), 10.0)

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds` at one go; timers that became due run."""
        self.run(self._advance(seconds), 10.0)

    def close(self) -> None:
        """Cancel what still runs and end the thread."""
        self.run(self._cancel_all(), 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _next_timer(self) -> float | None:
        whens = self._loop.whens
        while whens and whens[0] <= self._loop.elapsed:
            heapq.heappop(whens)
        return whens[0] - self._loop.elapsed if whens else None

    async def _advance(self, seconds: float) -> None:
        self._loop.elapsed += seconds
        await _turns()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()


async def _turns() -> None:
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
