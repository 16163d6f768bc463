"""The log book: pages, followers, bounds whatever an enclave says, and the file."""

from __future__ import annotations

import asyncio
import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.parent_client.log_book import HELD, HELD_BYTES, MAX_BATCH, PAGE, LogBook
from tea.parent_client.operator import LogPage, Operator
from tea.protocol.channels import LogRecord
from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import operations_of


@pytest.fixture
async def book(tmp_path: Path) -> Any:
    made = LogBook(tmp_path / "log.jsonl")
    yield made
    made.close()


def record(number: int, message: str = "") -> LogRecord:
    return LogRecord(float(number), "info", "host", message or f"record {number}", {})


def encoded(page: LogPage) -> bytes:
    return operations_of(Operator)["logs"].encode_result(page)


async def test_pages_follow_each_other_without_a_gap(book: LogBook) -> None:
    await book.record(tuple(record(number) for number in range(1200)))
    seen: list[float] = []
    start = 0
    while page := await book.page(start, 0):
        if not page.records:
            break
        assert len(page.records) <= PAGE
        seen += [one.time for one in page.records]
        start = page.next
    assert seen == [float(number) for number in range(1200)]
    assert page == LogPage((), 1200, 0)


async def test_a_negative_start_counts_from_the_end(book: LogBook) -> None:
    await book.record(tuple(record(number) for number in range(30)))
    assert [one.time for one in (await book.page(-3, 0)).records] == [27.0, 28.0, 29.0]
    assert len((await book.page(-1000, 0)).records) == 30
    assert (await book.page(1 << 62, 0)) == LogPage((), 30, 0)


async def test_a_follower_waits_for_the_first_new_record(book: LogBook) -> None:
    await book.record((record(0),))
    waiting = asyncio.ensure_future(book.page(1, 30))
    await asyncio.sleep(0)
    assert not waiting.done()
    await book.record((record(1),))
    assert [one.time for one in (await waiting).records] == [1.0]
    assert (await book.page(2, 0.01)) == LogPage((), 2, 0)
    assert (await book.page(2, float("nan"))) == LogPage((), 2, 0)


async def test_only_the_newest_are_held_and_who_asks_for_older_ones_is_told(book: LogBook) -> None:
    for start in range(0, HELD + 2000, 1000):
        await book.record(tuple(record(start + number) for number in range(1000)))
    page = await book.page(0, 0)
    assert page.dropped == 2000
    assert page.records[0].time == 2000.0
    assert len(book._records) == HELD


async def test_a_flood_of_large_records_is_held_within_bytes_and_a_page_always_fits_a_frame(book: LogBook) -> None:
    large = LogRecord(1.0, "l" * 999, "s" * 9999, "\x01" * 300_000, {"k" * 5000: "\x02" * 300_000, "b": "c"})
    for _ in range(300):
        await book.record((large, large))
    assert book._held <= HELD_BYTES
    assert sum(size for _, size in book._records) == book._held
    start = 0
    while (page := await book.page(start, 0)).records:
        assert len(encoded(page)) < MAX_BODY
        start = page.next
    kept = book._records[0][0]
    assert (len(kept.level), len(kept.source), len(kept.message)) == (16, 128, 8192)
    assert kept.message.endswith("...")
    assert kept.fields == {"...": "2 fields are too long and were left out"}


async def test_records_beyond_the_bound_of_one_message_are_counted(book: LogBook) -> None:
    await book.record(tuple(record(number) for number in range(MAX_BATCH + 7)))
    assert book.lost == 7
    assert len(book._records) == MAX_BATCH


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), -1.0, 1e300])
async def test_a_time_that_no_calendar_reaches_becomes_the_time_of_arrival(book: LogBook, moment: float) -> None:
    await book.record((LogRecord(moment, "info", "host", "odd", {}),))
    assert 1.7e9 < (await book.page(0, 0)).records[0].time < 1e11


async def test_the_file_has_a_line_a_record_whatever_is_in_it(book: LogBook, tmp_path: Path) -> None:
    await book.record((LogRecord(1.5, "info", "host", 'line\nend\x1b[31m"', {"k": "\u2028"}), record(2)))
    lines = (tmp_path / "log.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["time"] for line in lines if line] == [1.5, 2.0]
    assert json.loads(lines[0])["message"] == 'line\nend\x1b[31m"'
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600


async def test_a_full_file_is_turned_over_once(tmp_path: Path) -> None:
    book = LogBook(tmp_path / "log.jsonl", max_file=2000)
    for number in range(100):
        await book.record((record(number),))
    book.close()
    now, before = (tmp_path / "log.jsonl").read_bytes(), (tmp_path / "log.jsonl.1").read_bytes()
    assert 0 < len(now) <= 2000
    assert 0 < len(before) <= 2000
    times = [json.loads(line)["time"] for line in (before + now).splitlines()]
    assert times == [float(number) for number in range(100 - len(times), 100)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1"]


async def test_a_restarted_client_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in range(2):
        book = LogBook(tmp_path / "log.jsonl")
        await book.record((record(number),))
        book.close()
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 2


class FullDisk:
    """A file on a disk that takes three more bytes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        return int(self.file.write(data[:3]))

    def fileno(self) -> int:
        return int(self.file.fileno())

    def close(self) -> None:
        self.file.close()


async def test_a_full_disk_loses_lines_whole_and_counts_them_but_followers_get_them(
    book: LogBook, tmp_path: Path
) -> None:
    await book.record((record(0),))
    file = book._file
    book._file = FullDisk(file)  # type: ignore[assignment]
    await book.record((record(1), record(2)))
    assert book.lost == 2
    book._file = file
    await book.record((record(3),))
    assert [json.loads(line)["time"] for line in (tmp_path / "log.jsonl").read_bytes().splitlines()] == [0.0, 3.0]
    assert [one.time for one in (await book.page(0, 0)).records] == [0.0, 1.0, 2.0, 3.0]


async def test_a_file_that_cannot_be_turned_over_is_no_end_of_the_log(
    book: LogBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await book.record((record(0),))
    book._max_file = 10

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "replace", refuse)
    await book.record((record(1),))
    assert book.lost == 1
    monkeypatch.undo()
    await book.record((record(2),))
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 1


def test_a_log_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        LogBook(tmp_path / "log.jsonl")


records = st.builds(
    LogRecord,
    st.floats(),
    st.text(max_size=40),
    st.text(max_size=200),
    st.text(max_size=200),
    st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5),
)


@given(st.lists(st.lists(records, max_size=5), max_size=8), st.integers(), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_an_enclave_logs_is_kept_and_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[LogRecord]], start: int, small: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")
    book = LogBook(folder / "log.jsonl", max_file=500 if small else 1 << 20)
    for batch in batches:
        await book.record(tuple(batch))
    page = await book.page(start, 0)
    json.dumps([one.message for one in page.records])
    encoded(page)
    count = sum(map(len, batches))
    assert page.next <= count
    assert len((await book.page(0, 0)).records) == count
    book.close()
    for line in (folder / "log.jsonl").read_bytes().split(b"\n")[:-1]:
        json.loads(line)
