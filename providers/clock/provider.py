"""The clock provider: time as the host believes it, and timers that tell an actor's own operation.

May not: tell anyone but the replica that asked, or keep a timer of a replica that is gone.
Rule: docs/architecture.md, "Providers"; the parent can set an enclave's clock, so `drift` shows when it jumps.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, ClassVar, Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import Call, Config, Provider, Services
from ..subscriptions import require_operation
from .timers import Timer, delays_between, fixed_delays

MAX_TOKEN: Final = 128
"""Characters of a timer's token."""
MAX_DELAY: Final = 366 * 86400.0
"""Seconds that a timer may wait."""
_SEED: Final = 32


class ClockConfig(Config, frozen=True):
    """Bounds of timers."""

    min_interval: Annotated[float, msgspec.Meta(ge=0.001, le=3600)] = 0.01
    """Least seconds between two ticks of `every` and `random_tick`."""
    timers: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    """Timers that each replica may have at a time."""


class TimerInfo(msgspec.Struct, frozen=True):
    """A running timer of the calling replica."""

    token: str
    operation: str
    repeats: bool
    due: float
    """Seconds from now until the next tick."""


class Clock(Provider[ClockConfig]):
    """Time of day, monotonic time, drift; timers that tell `operation(token: str)` of the replica that set them."""

    name: ClassVar[str] = "clock"
    config_type: ClassVar[type[Config]] = ClockConfig
    in_place: ClassVar[frozenset[str]] = frozenset(ClockConfig.__struct_fields__)

    def __init__(self, config: ClockConfig) -> None:
        super().__init__(config)
        self._timers: dict[tuple[str, int], dict[str, Timer]] = {}
        self._lives: dict[tuple[str, int], int] = {}
        self._started = (0.0, 0.0)
        self._ticks = 0
        self._missed = 0

    async def start(self, services: Services) -> None:
        await super().start(services)
        self._started = (services.now(), services.monotonic())

    async def stop(self) -> None:
        for actor, replica in list(self._timers):
            await self.replica_gone(actor, replica)

    async def forget(self, actor: str) -> None:
        for name, replica in list(self._timers):
            if name == actor:
                await self.replica_gone(name, replica)
        for who in [who for who in self._lives if who[0] == actor]:
            del self._lives[who]

    async def replica_gone(self, actor: str, replica: int) -> None:
        self._lives[actor, replica] = self._lives.get((actor, replica), 0) + 1
        for timer in self._timers.pop((actor, replica), {}).values():
            timer.cancel()

    def usage(self) -> dict[str, int]:
        running = sum(len(timers) for timers in self._timers.values())
        return {"timers": running, "ticks": self._ticks, "missed": self._missed}

    @operation
    async def now(self, call: Call) -> float:
        """Seconds since the epoch, corrected by the drift seen in NSM documents. May jump; see `drift`."""
        return self.services.now()

    @operation
    async def monotonic(self, call: Call) -> float:
        """Seconds since a fixed moment; never goes back. For durations; means nothing outside this enclave."""
        return self.services.monotonic()

    @operation
    async def drift(self, call: Call) -> float:
        """Seconds by which the time of day moved more than the monotonic clock since the host started.

        Near 0 when nobody touched the time; positive when it was set forward, or corrected because it was slow.
        """
        wall, monotonic = self._started
        return (self.services.now() - wall) - (self.services.monotonic() - monotonic)

    @operation
    async def after(self, call: Call, seconds: float, operation: str, token: str) -> None:
        """Tell the replica's own `operation(token)` once, `seconds` from now (0 to 366 days).

        INVALID on bad values, CONFLICT when the token has a timer, EXHAUSTED beyond the bound of timers. A tick that
        the replica's mailbox has no room for is missed, and counted.
        """
        _require_between("seconds", seconds, 0.0)
        self._add(call, Timer(operation, token, fixed_delays(seconds), repeats=False))

    @operation
    async def every(self, call: Call, seconds: float, operation: str, token: str) -> None:
        """Tell the replica's own `operation(token)` every `seconds`, until cancelled; errors as for `after`.

        Ticks keep their rhythm; ticks that the host was too late for are left out, not made up for.
        """
        _require_between("seconds", seconds, self.config_for(call).min_interval)
        self._add(call, Timer(operation, token, fixed_delays(seconds), repeats=True))

    @operation
    async def random_tick(self, call: Call, least: float, most: float, operation: str, token: str) -> None:
        """Tell `operation(token)` again and again, each time after a delay drawn evenly from `least` to `most` seconds.

        The delays come from the NSM's random numbers, so that the parent can't foresee them. Errors as for `after`.
        """
        _require_between("least", least, self.config_for(call).min_interval)
        _require_between("most", most, least)
        self._require_room(call, operation, token)
        who = (call.caller, call.replica)
        life = self._lives.get(who, 0)
        seed = await self.services.run_in_thread(self.services.attester.random, _SEED)
        if self._lives.get(who, 0) != life:
            raise CallError(Code.UNAVAILABLE, "the replica that asked ended meanwhile")
        self._add(call, Timer(operation, token, delays_between(seed, least, most), repeats=True))

    @operation
    async def cancel(self, call: Call, token: str) -> bool:
        """Stop the replica's timer of this token; False when there is none (any more)."""
        timer = self._remove(call.caller, call.replica, token)
        if timer is None:
            return False
        timer.cancel()
        return True

    @operation
    async def timers(self, call: Call) -> list[TimerInfo]:
        """The replica's running timers, the next one first."""
        now = self.services.monotonic()
        running = self._timers.get((call.caller, call.replica), {}).values()
        infos = [TimerInfo(t.token, t.operation, t.repeats, max(0.0, t.due - now)) for t in running]
        return sorted(infos, key=lambda info: info.due)

    def _require_room(self, call: Call, operation: str, token: str) -> None:
        require_operation(operation)
        if not 1 <= len(token) <= MAX_TOKEN:
            raise CallError(Code.INVALID, f"a token has 1 to {MAX_TOKEN} characters, not {len(token)}")
        held = self._timers.get((call.caller, call.replica), {})
        if token in held:
            raise CallError(Code.CONFLICT, "this token has a timer already: cancel it first, or choose another token")
        limit = self.config_for(call).timers
        if len(held) >= limit:
            raise CallError(Code.EXHAUSTED, f"a replica may have {limit} timers at a time", limit=limit)

    def _add(self, call: Call, timer: Timer) -> None:
        self._require_room(call, timer.operation, timer.token)
        timer.due = self.services.monotonic() + next(timer.delays)
        self._timers.setdefault((call.caller, call.replica), {})[timer.token] = timer
        self._arm(call.caller, call.replica, timer)

    def _arm(self, actor: str, replica: int, timer: Timer) -> None:
        wait = max(0.0, timer.due - self.services.monotonic())
        timer.handle = asyncio.get_running_loop().call_later(wait, self._tick, actor, replica, timer)

    def _tick(self, actor: str, replica: int, timer: Timer) -> None:
        if timer.repeats:
            delay = next(timer.delays)
            now = self.services.monotonic()
            # Keep the rhythm; when the host was too late for a whole tick, start the rhythm anew from now.
            timer.due = timer.due + delay if timer.due + delay > now else now + delay
            self._arm(actor, replica, timer)
        else:
            self._remove(actor, replica, timer.token)
        if self.services.tell_actor(actor, timer.operation, timer.token, replica=replica):
            self._ticks += 1
        else:
            self._missed += 1

    def _remove(self, actor: str, replica: int, token: str) -> Timer | None:
        held = self._timers.get((actor, replica))
        if held is None:
            return None
        timer = held.pop(token, None)
        if not held:
            del self._timers[actor, replica]
        return timer


def _require_between(what: str, seconds: float, least: float) -> None:
    if not (math.isfinite(seconds) and least <= seconds <= MAX_DELAY):
        raise CallError(
            Code.INVALID, f"{what} is {least:g} to {MAX_DELAY:g} seconds, not {seconds:g}", least=str(least)
        )
