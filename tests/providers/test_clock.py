"""The clock provider: time, drift, and timers that tell only who set them.

May not: wait in real time; the virtual clock moves. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.clock import Clock
from tea.providers.clock.timers import delays_between
from tea.providers.testing import EPOCH, InMemoryServices, invoke, start_provider


async def started(config: Mapping[str, object] | None = None) -> tuple[Clock, InMemoryServices]:
    services = InMemoryServices("clock")
    services.clock.install()
    return await start_provider(Clock, services, config), services


def tokens(services: InMemoryServices) -> list[object]:
    return [told.args[0] for told in services.tells]


async def test_time_is_the_hosts_corrected_time() -> None:
    clock, services = await started()
    assert await invoke(clock, "now") == EPOCH
    before = await invoke(clock, "monotonic")
    await services.clock.advance(2.5)
    assert await invoke(clock, "now") == pytest.approx(EPOCH + 2.5)
    assert await invoke(clock, "monotonic") - before == pytest.approx(2.5)


async def test_drift_shows_a_time_of_day_that_jumped() -> None:
    clock, services = await started()
    await services.clock.advance(10)
    assert await invoke(clock, "drift") == pytest.approx(0.0, abs=1e-6)
    services.clock.jump += 3600
    assert await invoke(clock, "drift") == pytest.approx(3600.0)
    services.clock.jump -= 7200
    assert await invoke(clock, "drift") == pytest.approx(-3600.0)


async def test_after_tells_the_replica_that_asked_once() -> None:
    clock, services = await started()
    await invoke(clock, "after", 1.0, "wake", "tea time", call=Call(caller="counter", replica=2))
    await services.clock.advance(0.9)
    assert services.tells == []
    await services.clock.advance(0.2)
    (told,) = services.tells
    assert told == ("counter", "wake", ("tea time",), 2)
    await services.clock.advance(5)
    assert len(services.tells) == 1
    assert clock.usage() == {"timers": 0, "ticks": 1, "missed": 0}


async def test_every_keeps_its_rhythm_until_cancelled() -> None:
    clock, services = await started()
    await invoke(clock, "every", 1.0, "wake", "t")
    await services.clock.advance(3.5)
    assert tokens(services) == ["t"] * 3
    assert await invoke(clock, "cancel", "t")
    await services.clock.advance(3)
    assert len(services.tells) == 3
    assert not await invoke(clock, "cancel", "t")


async def test_ticks_that_the_host_was_too_late_for_are_left_out() -> None:
    clock, services = await started()
    await invoke(clock, "every", 1.0, "wake", "t")
    services.clock.elapsed += 10.5
    await services.clock.advance(0.01)
    assert len(services.tells) == 1
    await services.clock.advance(1.0)
    assert len(services.tells) == 2


async def test_random_ticks_come_within_their_bounds() -> None:
    clock, services = await started()
    await invoke(clock, "random_tick", 1.0, 2.0, "wake", "t")
    (info,) = await invoke(clock, "timers")
    assert 1.0 <= info.due <= 2.0
    await services.clock.advance(20)
    assert 9 <= len(services.tells) <= 20


@given(seed=st.binary(min_size=32, max_size=32), least=st.floats(0.01, 100), spread=st.floats(0, 100))
def test_drawn_delays_stay_within_bounds_and_follow_the_seed(seed: bytes, least: float, spread: float) -> None:
    most = least + spread
    drawn = list(itertools.islice(delays_between(seed, least, most), 20))
    assert all(least <= delay <= most * (1 + 1e-12) for delay in drawn)
    assert drawn == list(itertools.islice(delays_between(seed, least, most), 20))


async def test_timers_are_listed_with_the_next_one_first() -> None:
    clock, services = await started()
    await invoke(clock, "after", 5.0, "wake", "late")
    await invoke(clock, "every", 2.0, "wake", "soon")
    await services.clock.advance(1)
    infos = await invoke(clock, "timers")
    assert [(info.token, info.repeats) for info in infos] == [("soon", True), ("late", False)]
    assert [info.due for info in infos] == pytest.approx([1.0, 4.0])
    assert await invoke(clock, "timers", call=Call(caller="other")) == []


async def test_a_timer_of_another_replica_cannot_be_cancelled() -> None:
    clock, _ = await started()
    await invoke(clock, "after", 1.0, "wake", "t")
    assert not await invoke(clock, "cancel", "t", call=Call(caller="counter", replica=1))
    assert not await invoke(clock, "cancel", "t", call=Call(caller="other"))


@pytest.mark.parametrize("seconds", [-0.001, float("nan"), float("inf"), 366 * 86400 + 1])
async def test_a_delay_out_of_bounds_is_invalid(seconds: float) -> None:
    clock, _ = await started()
    with pytest.raises(CallError) as caught:
        await invoke(clock, "after", seconds, "wake", "t")
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("seconds", [0.0, 0.009, float("nan")])
async def test_an_interval_below_the_least_is_invalid(seconds: float) -> None:
    clock, _ = await started()
    for operation, args in (("every", (seconds,)), ("random_tick", (seconds, 1.0))):
        with pytest.raises(CallError) as caught:
            await invoke(clock, operation, *args, "wake", "t")
        assert caught.value.code is Code.INVALID
    assert clock.usage()["timers"] == 0


async def test_random_bounds_the_wrong_way_round_are_invalid() -> None:
    clock, _ = await started()
    with pytest.raises(CallError) as caught:
        await invoke(clock, "random_tick", 2.0, 1.0, "wake", "t")
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize(("operation", "token"), [("", "t"), ("_hidden", "t"), ("wake", ""), ("wake", "t" * 129)])
async def test_bad_names_are_invalid(operation: str, token: str) -> None:
    clock, _ = await started()
    for name, args in (("after", (1.0,)), ("every", (1.0,)), ("random_tick", (1.0, 2.0))):
        with pytest.raises(CallError) as caught:
            await invoke(clock, name, *args, operation, token)
        assert caught.value.code is Code.INVALID


async def test_a_token_in_use_is_a_conflict_and_free_again_after_its_tick() -> None:
    clock, services = await started()
    await invoke(clock, "after", 1.0, "wake", "t")
    with pytest.raises(CallError) as caught:
        await invoke(clock, "every", 1.0, "wake", "t")
    assert caught.value.code is Code.CONFLICT
    await services.clock.advance(1.1)
    await invoke(clock, "every", 1.0, "wake", "t")


async def test_a_replica_has_a_bound_of_timers() -> None:
    clock, _ = await started({"timers": 2})
    await invoke(clock, "after", 1.0, "wake", "a")
    await invoke(clock, "after", 1.0, "wake", "b")
    with pytest.raises(CallError) as caught:
        await invoke(clock, "after", 1.0, "wake", "c")
    assert caught.value.code is Code.EXHAUSTED
    await invoke(clock, "after", 1.0, "wake", "c", call=Call(caller="counter", replica=1))


async def test_a_replica_that_is_gone_has_no_timers_any_more() -> None:
    clock, services = await started()
    await invoke(clock, "every", 1.0, "wake", "t")
    await invoke(clock, "every", 1.0, "wake", "other", call=Call(caller="counter", replica=1))
    await clock.replica_gone("counter", 0)
    await services.clock.advance(1.1)
    assert tokens(services) == ["other"]


async def test_an_actor_that_leaves_and_a_provider_that_stops_end_their_timers() -> None:
    clock, services = await started()
    await invoke(clock, "every", 1.0, "wake", "t")
    await invoke(clock, "every", 1.0, "wake", "other", call=Call(caller="other"))
    await clock.forget("counter")
    await services.clock.advance(1.1)
    assert tokens(services) == ["other"]
    await clock.stop()
    await services.clock.advance(5)
    assert tokens(services) == ["other"]
    assert clock.usage()["timers"] == 0


async def test_a_replica_that_ends_while_a_seed_is_drawn_gets_no_timer() -> None:
    clock, services = await started()
    attester = services.attester

    async def drawn_while_it_ends(function: object, *args: object) -> bytes:
        await clock.replica_gone("counter", 0)
        return attester.random(32)

    services.run_in_thread = drawn_while_it_ends  # type: ignore[method-assign]
    with pytest.raises(CallError) as caught:
        await invoke(clock, "random_tick", 1.0, 2.0, "wake", "t")
    assert caught.value.code is Code.UNAVAILABLE
    assert clock.usage()["timers"] == 0


async def test_a_tick_for_a_full_mailbox_is_missed_and_counted() -> None:
    clock, services = await started()
    services.full.add("counter")
    await invoke(clock, "every", 1.0, "wake", "t")
    await services.clock.advance(2.5)
    assert clock.usage() == {"timers": 1, "ticks": 0, "missed": 2}
    services.full.clear()
    await services.clock.advance(1)
    assert clock.usage()["ticks"] == 1


@pytest.mark.parametrize("config", [{"min_interval": 0}, {"timers": 0}, {"other": 1}])
async def test_a_bad_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await started(config)
