"""The event log: whole, in order, ending in the head, never going back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import canonical, eventlog, pcr
from tea.trust.eventlog import (
    ACTIVATED,
    APPROVERS_CHANGED,
    Event,
    EventLog,
    EventLogCode,
    EventLogError,
    head_after,
    parse_event,
    verify_log,
)

M1, M2 = b"\x01" * 48, b"\x02" * 48


def log_of(*entries: tuple[str, bytes, int, int]) -> EventLog:
    log = EventLog()
    for time, (event, manifest, revision, epoch) in enumerate(entries):
        log = log.append(event, manifest=manifest, revision=revision, epoch=epoch, time=time)
    return log


LOG = log_of((ACTIVATED, M1, 1, 0), (APPROVERS_CHANGED, M1, 1, 1), (ACTIVATED, M2, 2, 1))


def code_of(entries: tuple[bytes, ...], head: bytes) -> EventLogCode:
    with pytest.raises(EventLogError) as refusal:
        verify_log(entries, head)
    code = refusal.value.code
    assert isinstance(code, EventLogCode)
    return code


def rechained(events: list[Event]) -> EventLog:
    """A log whose hashes are right whatever the events say."""
    entries: list[bytes] = []
    for event in events:
        previous = head_after(entries[-1]) if entries else pcr.ZERO
        entries.append(dataclasses.replace(event, previous=previous).encode())
    return EventLog(tuple(entries))


def test_an_empty_log_has_the_zero_head() -> None:
    assert EventLog().head == pcr.ZERO
    assert verify_log((), pcr.ZERO) == ()


def test_what_was_appended_is_read_back_in_order() -> None:
    events = verify_log(LOG.entries, LOG.head)
    assert [(e.index, e.event, e.manifest, e.revision, e.epoch, e.time) for e in events] == [
        (0, ACTIVATED, M1, 1, 0, 0),
        (1, APPROVERS_CHANGED, M1, 1, 1, 1),
        (2, ACTIVATED, M2, 2, 1, 2),
    ]


def test_the_encoding_is_this_and_stays_this() -> None:
    assert LOG.entries[0] == canonical.encode(
        {
            "tea": "tea.event.v1",
            "index": 0,
            "previous": pcr.ZERO,
            "event": "activated",
            "manifest": M1,
            "revision": 1,
            "epoch": 0,
            "time": 0,
        }
    )


def test_a_log_is_not_changed_by_appending() -> None:
    log = EventLog()
    log.append(ACTIVATED, manifest=M1, revision=1, epoch=0, time=0)
    assert log == EventLog()


def test_an_entry_cut_off_added_or_changed_does_not_end_in_the_head() -> None:
    assert code_of(LOG.entries[:2], LOG.head) is EventLogCode.HEAD
    assert code_of((), LOG.head) is EventLogCode.HEAD
    more = LOG.append(ACTIVATED, manifest=M2, revision=3, epoch=1, time=9)
    assert code_of(more.entries, LOG.head) is EventLogCode.HEAD
    assert code_of((*LOG.entries[:2], more.entries[3]), LOG.head) is EventLogCode.HEAD


def test_an_entry_missing_doubled_or_swapped_breaks_the_order() -> None:
    first, second, third = LOG.entries
    for entries in ((second, third), (first, third), (first, first, second, third), (second, first, third)):
        assert code_of(entries, LOG.head) is EventLogCode.ORDER


def test_a_changed_entry_in_the_middle_breaks_the_order() -> None:
    first, second, third = LOG.entries
    changed = dataclasses.replace(parse_event(second), time=77).encode()
    assert code_of((first, changed, third), LOG.head) is EventLogCode.ORDER


def test_a_wrong_index_breaks_the_order() -> None:
    events = list(verify_log(LOG.entries, LOG.head))
    events[1] = dataclasses.replace(events[1], index=5)
    log = rechained(events)
    assert code_of(log.entries, log.head) is EventLogCode.ORDER


@pytest.mark.parametrize(
    "entries",
    [
        ((ACTIVATED, M1, 2, 0), (ACTIVATED, M2, 1, 0)),
        ((ACTIVATED, M1, 2, 1), (ACTIVATED, M2, 3, 0)),
        ((ACTIVATED, M1, 2, 0), (ACTIVATED, M2, 2, 0)),
    ],
)
def test_a_log_that_goes_back_is_refused(entries: tuple[tuple[str, bytes, int, int], ...]) -> None:
    log = log_of(*entries)
    assert code_of(log.entries, log.head) is EventLogCode.ROLLBACK


def test_too_many_entries_are_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_ENTRIES", 2)
    assert code_of(LOG.entries, LOG.head) is EventLogCode.TOO_LONG


@pytest.mark.parametrize(
    "changes",
    [
        {"tea": "tea.statement.v1"},
        {"more": 1},
        {"index": -1},
        {"index": True},
        {"previous": bytes(32)},
        {"manifest": None},
        {"revision": 0},
        {"epoch": 1 << 63},
        {"time": "now"},
        {"event": ""},
        {"event": "Two Words"},
        {"event": 1},
    ],
)
def test_a_malformed_entry_is_refused(changes: dict[str, Any]) -> None:
    fields = {
        "index": 0,
        "previous": pcr.ZERO,
        "event": "activated",
        "manifest": M1,
        "revision": 1,
        "epoch": 0,
        "time": 0,
    }
    data = canonical.encode({"tea": "tea.event.v1", **fields, **changes})
    assert code_of((data,), head_after(data)) is EventLogCode.ENTRY


def test_what_no_verifier_would_accept_cannot_be_appended() -> None:
    with pytest.raises(EventLogError):
        EventLog().append("Activated!", manifest=M1, revision=1, epoch=0, time=0)
    with pytest.raises(EventLogError):
        EventLog().append(ACTIVATED, manifest=b"", revision=1, epoch=0, time=0)


def test_every_code_has_its_test() -> None:
    assert {code.value for code in EventLogCode} == {"entry", "order", "head", "rollback", "too-long"}


@given(st.binary(max_size=250), st.integers(0, 200))
def test_any_bytes_are_an_entry_or_the_one_error(data: bytes, at: int) -> None:
    healthy = LOG.entries[0]
    for candidate in (data, healthy[:at] + data + healthy[at + len(data) :]):
        try:
            assert parse_event(candidate).encode() == candidate
        except EventLogError:
            pass


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=8), st.data())
def test_any_log_verifies_and_no_other_order_of_it_does(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    log, revision, epoch = EventLog(), 1, 0
    for time, (up, changed) in enumerate(steps):
        revision, epoch = revision + up, epoch + changed
        log = log.append(ACTIVATED, manifest=bytes([revision]) * 48, revision=revision, epoch=epoch, time=time)
    assert len(verify_log(log.entries, log.head)) == len(steps)
    other = tuple(data.draw(st.permutations(log.entries)))
    if other != log.entries:
        with pytest.raises(EventLogError):
            verify_log(other, log.head)
