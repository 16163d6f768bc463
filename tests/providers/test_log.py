"""The log provider: checked, limited, batched; what it drops it counts and says.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from tea.protocol.channels import Channel, LogRecord
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.providers.base import Call
from tea.providers.log import Log, LogFigures
from tea.providers.log.bucket import Bucket
from tea.providers.testing import InMemoryServices, invoke, start_provider


async def started(config: Mapping[str, object] | None = None) -> tuple[Log, InMemoryServices]:
    services = InMemoryServices("log")
    services.clock.install()
    return await start_provider(Log, services, config), services


def records(services: InMemoryServices) -> list[LogRecord]:
    told: list[LogRecord] = []
    for channel, operation, args in services.parent.tells:
        assert (channel, operation) == (Channel.LOGS, "record")
        (batch,) = args
        assert isinstance(batch, tuple)
        told.extend(batch)
    return told


async def test_a_record_reaches_the_parent_with_its_source_and_time() -> None:
    log, services = await started()
    assert await invoke(log, "info", "hello", {"order": "7"}, call=Call(caller="counter", replica=3))
    assert services.parent.tells == []
    await services.clock.advance(0.06)
    (record,) = records(services)
    assert (record.level, record.source, record.message, record.fields) == (
        "info",
        "actor:counter#3",
        "hello",
        {"order": "7"},
    )
    assert record.time == pytest.approx(services.clock.now(), abs=1)


async def test_records_travel_in_batches() -> None:
    log, services = await started()
    for number in range(50):
        await invoke(log, "warning", f"{number}")
    await services.clock.advance(0.06)
    assert len(services.parent.tells) == 1
    assert [record.message for record in records(services)] == [str(number) for number in range(50)]


async def test_every_level_is_written_under_its_name_and_lower_ones_are_dropped() -> None:
    log, services = await started({"level": "warning"})
    for level in ("debug", "info", "warning", "error"):
        assert await invoke(log, level, "m") == (level in ("warning", "error"))
        assert await invoke(log, "write", level, "m") == (level in ("warning", "error"))
    await log.stop()
    assert [record.level for record in records(services)] == ["warning", "warning", "error", "error"]
    assert await invoke(log, "figures") == LogFigures(4, 0)


async def test_an_unknown_level_is_invalid_and_named() -> None:
    log, _ = await started()
    with pytest.raises(CallError, match="debug, info, warning, error") as caught:
        await invoke(log, "write", "loud" * 1000, "m")
    assert caught.value.code is Code.INVALID
    assert len(caught.value.sentence) < 200


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("x" * 8193, None),
        ("ü" * 4097, None),
        ("m", {str(number): "" for number in range(33)}),
        ("m", {"k" * 65: ""}),
        ("m", {"k": "v" * 1025}),
    ],
)
async def test_what_is_too_large_is_invalid(message: str, fields: dict[str, str] | None) -> None:
    log, _ = await started()
    with pytest.raises(CallError) as caught:
        await invoke(log, "info", message, fields)
    assert caught.value.code is Code.INVALID
    assert log.usage()["queued"] == 0


async def test_what_just_fits_is_written() -> None:
    log, _ = await started()
    assert await invoke(log, "info", "ü" * 4096, {f"{number:064}": "v" * 1024 for number in range(32)})


async def test_a_chatty_actor_is_limited_and_the_log_says_how_much_is_missing() -> None:
    log, services = await started({"rate": 10.0, "burst": 5})
    kept = [await invoke(log, "info", f"{number}") for number in range(8)]
    assert kept == [True] * 5 + [False] * 3
    assert await invoke(log, "info", "other", call=Call(caller="other"))
    await services.clock.advance(1.0)
    assert await invoke(log, "info", "again")
    await log.stop()
    told = records(services)
    assert [record.message for record in told if record.source == "actor:counter#0"] == [*"01234", "again"]
    (missing,) = [record for record in told if record.source == "provider:log"]
    assert missing.fields == {"actor": "counter", "dropped": "3"}
    assert await invoke(log, "figures") == LogFigures(6, 3)


async def test_the_queue_is_bounded_in_records_and_in_bytes() -> None:
    log, _ = await started({"queue": 3})
    assert [await invoke(log, "info", "m") for _ in range(4)] == [True, True, True, False]
    assert log.usage()["dropped"] == 1
    narrow, _ = await started({"queue_bytes": 65536})
    kept = [await invoke(narrow, "info", "x" * 8192) for _ in range(9)]
    assert kept == [True] * 7 + [False] * 2


async def test_batches_stay_far_below_a_frame() -> None:
    log, services = await started({"burst": 1000})
    for _ in range(100):
        await invoke(log, "info", "x" * 8192)
    await log.stop()
    assert len(records(services)) == 100
    for _, _, (batch,) in services.parent.tells:
        assert len(msgspec.msgpack.encode(batch)) < MAX_BODY // 2


async def test_control_characters_cannot_steer_a_terminal() -> None:
    log, services = await started()
    await invoke(log, "info", "a\x1b[2Jb\tc\nd\x9b", {"k\x07": "\x00v"})
    await log.stop()
    (record,) = records(services)
    assert record.message == "a\ufffd[2Jb\tc\nd\ufffd"
    assert record.fields == {"k\ufffd": "\ufffdv"}


async def test_an_actor_that_leaves_takes_its_figures_along() -> None:
    log, _ = await started({"burst": 1})
    await invoke(log, "info", "m")
    await invoke(log, "info", "m")
    await log.forget("counter")
    assert await invoke(log, "figures") == LogFigures(0, 0)
    assert await invoke(log, "info", "m")


async def test_the_last_records_go_out_when_the_provider_stops() -> None:
    log, services = await started()
    await invoke(log, "info", "last words")
    await log.stop()
    assert [record.message for record in records(services)] == ["last words"]


@pytest.mark.parametrize("config", [{"level": "loud"}, {"rate": 0}, {"burst": 0}, {"queue": 0}, {"unknown": 1}])
async def test_a_bad_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await started(config)


def test_a_bucket_fills_up_to_its_burst_and_no_clock_going_back_fills_it() -> None:
    bucket = Bucket(rate=2.0, burst=2, now=10.0)
    assert [bucket.take(10.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(9.0)
    assert bucket.take(10.5)
    assert not bucket.take(10.5)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
