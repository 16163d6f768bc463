"""Watches a demo's enclaves through their parents, and calls their counters all the while.

May not: change anything but the counters. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec

from tea.protocol.errors import CallError

from .demo_state import DemoState, EnclaveView, RoundView
from .demo_words import listed
from .enclave import SimulatedEnclave
from .network import SimulatedNetwork

WINDOW: Final = 24
"""Heights that one look covers."""
CALLS_A_SECOND: Final = 100.0
"""To all counters together: traffic, not a benchmark."""
RATE_SECONDS: Final = 3.0
"""Over which calls a second are counted."""
CALL_SECONDS: Final = 60.0
"""Longer than the runtime client's own deadline: who waits this long was not answered."""


class _Status(msgspec.Struct):
    height: int | None
    certified: int
    attestations_verified: int
    named: list[str]
    quarantined: bool


class _Summary(msgspec.Struct):
    height: int
    state_root: bytes
    roots: dict[str, bytes]
    certified: bool
    disputed: bool


class DemoWatch:
    """Looks and calls until it is closed."""

    def __init__(self, network: SimulatedNetwork, state: DemoState) -> None:
        self._network = network
        self._state = state
        self._tasks: list[asyncio.Task[None]] = []
        self._callers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._look_seconds = max(0.3, 0.05 * len(network.enclaves))
        self._named: set[str] = set()

    def start(self) -> None:
        """Begin to look."""
        for enclave in self._network.enclaves.values():
            self._tasks.append(asyncio.create_task(self._look(enclave)))

    def start_calls(self) -> None:
        """Begin to call the counters."""
        for enclave in self._network.enclaves.values():
            self._callers.append(asyncio.create_task(self._call(enclave)))

    async def stop_calls(self) -> None:
        """Call no more; returns when every call has ended, with an answer or without."""
        self._stopping.set()
        await asyncio.gather(*self._callers)

    async def close(self) -> None:
        """Stop everything."""
        self._stopping.set()
        for task in (*self._tasks, *self._callers):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._callers, return_exceptions=True)

    async def changed(self, timeout: float) -> None:
        """Wait until something new was seen, at most `timeout` seconds."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            pass

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- looking ---------------------------------------------------------------------------------------------------

    async def _look(self, enclave: SimulatedEnclave) -> None:
        view = self._state.enclaves[enclave.name]
        while True:
            if view.alive:
                try:
                    await self._look_once(enclave, view)
                except CallError:
                    pass  # it is going, or busy: the next look tells
                except msgspec.ValidationError as error:
                    self._state.event("fault", f"{enclave.name}: its ra actor answers oddly: {error}")
            await asyncio.sleep(self._look_seconds)

    async def _look_once(self, enclave: SimulatedEnclave, view: EnclaveView) -> None:
        module = enclave.module_id
        status = msgspec.convert(await enclave.call("ra", "status", timeout=10.0), _Status)
        if enclave.module_id != module or not view.alive:
            return  # that was another boot
        moved = (status.height, status.certified) != (view.height, view.certified)
        view.height, view.certified, view.quarantined = status.height, status.certified, status.quarantined
        view.verified = status.attestations_verified
        start = self._first_open(enclave.name)
        if start is not None:
            rounds: Any = await enclave.call("ra", "rounds", start, WINDOW, timeout=10.0)
            for summary in msgspec.convert(rounds, list[_Summary]):
                moved |= self._saw(enclave.name, summary)
        for name in status.named:
            if name not in self._named:
                self._named.add(name)
                self._state.event("finding", f"{enclave.name} names {name}, with signed evidence", status.height)
                moved = True
        if moved:
            self._tell()

    def _first_open(self, name: str) -> int | None:
        """Where this member's news can begin: the lowest height of which it has told no certificate."""
        heights = [one.height for one in self._state.rounds.values() if name not in one.holders]
        # Beside it the newest ones, whose late attestations are still to come.
        newest = max(max(self._state.rounds, default=0) - 2, self._state.base or 0)
        return min(min(heights, default=newest), newest) if self._state.rounds else None

    def _saw(self, name: str, summary: _Summary) -> bool:
        found = self._state.rounds.get(summary.height)
        if found is None:
            return False
        moved = False
        for slot, root in summary.roots.items():
            if slot not in found.roots:
                found.heard[slot] = self._state.now
                moved = True
            found.roots[slot] = root
        if summary.disputed and not found.disputed:
            found.disputed = True
            moved = True
        if summary.certified and name not in found.holders:
            found.holders.add(name)
            moved = True
            if found.certified_root is None:
                self._certified(found, summary.state_root)
        return moved

    def _certified(self, found: RoundView, root: bytes) -> None:
        found.certified_root, found.certified_at = root, self._state.now
        text = f"block {found.height} is certified by {len(found.agreeing())} of {len(self._state.enclaves)}"
        if differing := found.differing():
            text += f"; {listed(differing)} {'differ' if len(differing) > 1 else 'differs'}"
        self._state.event("block", text, found.height)

    # -- calling ---------------------------------------------------------------------------------------------------

    async def _call(self, enclave: SimulatedEnclave) -> None:
        state, view = self._state, self._state.enclaves[enclave.name]
        pause = len(self._network.enclaves) / CALLS_A_SECOND
        while not self._stopping.is_set():
            state.calls += 1
            began = time.monotonic()
            try:
                await enclave.call("counter", "increment", 1, timeout=CALL_SECONDS)
                state.calls_answered += 1
                view.calls += 1
            except CallError:
                # An error is an answer, the parent's own DEADLINE included; only silence is none.
                state.calls_answered += time.monotonic() - began < CALL_SECONDS - 1
                state.calls_with_error += 1
                view.errors += 1
            now = time.monotonic()
            view.recent = [moment for moment in view.recent if moment > now - RATE_SECONDS] + [now]
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                pass


def calls_a_second(view: EnclaveView) -> float:
    """Calls that were answered lately, a second."""
    now = time.monotonic()
    return sum(1 for moment in view.recent if moment > now - RATE_SECONDS) / RATE_SECONDS
