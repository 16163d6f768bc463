"""The audit log: whole, or the line is named. Rule: docs/secrets.md, "The audit log"."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.audit_log import ZERO, AuditCode, AuditEntry, AuditError, parse_line, verify_lines


def log(count: int = 5) -> list[str]:
    lines: list[str] = []
    previous = ZERO
    for index in range(count):
        entry = AuditEntry(index, 1000 + index, "released", {"secret": f"s{index}", "version": index}, previous)
        lines.append(entry.line())
        previous = entry.digest
    return lines


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(AuditError) as caught:
        call()
    return caught.value.code, caught.value.sentence


def test_a_whole_log_verifies_and_has_the_last_digest_as_its_head() -> None:
    verdict = verify_lines(log())
    assert len(verdict.entries) == 5
    assert verdict.head == verdict.entries[-1].digest
    assert verify_lines([]).head == ZERO


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_changed_line_is_named(number: int) -> None:
    lines = log()
    lines[number - 1] = lines[number - 1].replace('"version":', '"version":1')
    code, sentence = refusal(lambda: verify_lines(lines))
    assert code == AuditCode.DIGEST
    assert f"line {number} " in sentence


def test_a_line_written_anew_is_found_at_the_next() -> None:
    lines = log()
    old = parse_line(lines[2])
    lines[2] = AuditEntry(old.index, old.time, old.event, {"secret": "another"}, old.previous).line()
    code, sentence = refusal(lambda: verify_lines(lines))
    assert code == AuditCode.ORDER
    assert "line 4 " in sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:2] + lines[3:],
        lambda lines: [*lines, lines[-1]],
        lambda lines: lines[1:],
        lambda lines: lines[::-1],
    ],
)
def test_a_line_taken_out_doubled_or_moved_is_found(change: Callable[[list[str]], list[str]]) -> None:
    assert refusal(lambda: verify_lines(change(log())))[0] == AuditCode.ORDER


def test_a_log_that_was_cut_does_not_hold_the_head_that_was_kept() -> None:
    head = verify_lines(log()).head
    assert verify_lines(log(7), head=head).head != head
    assert verify_lines(log(), head=ZERO)
    assert refusal(lambda: verify_lines(log(4), head=head))[0] == AuditCode.HEAD
    assert refusal(lambda: verify_lines([], head=head))[0] == AuditCode.HEAD


GOOD = json.loads(log(1)[0])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "[" * 10_000,
        "{" + " " * 20_000 + "}",
        json.dumps({**GOOD, "more": 1}),
        json.dumps({**GOOD, "index": -1}),
        json.dumps({**GOOD, "index": True}),
        json.dumps({**GOOD, "index": 0.0}),
        json.dumps({**GOOD, "event": "No Event"}),
        json.dumps({**GOOD, "event": 1}),
        json.dumps({**GOOD, "fields": []}),
        json.dumps({**GOOD, "fields": {"a": 1.5}}),
        json.dumps({**GOOD, "fields": {"a": None}}),
        json.dumps({**GOOD, "fields": {"a": 1 << 65}}),
        json.dumps({**GOOD, "fields": {"a": "\ud800"}}),
        json.dumps({**GOOD, "previous": "00"}),
        json.dumps({**GOOD, "previous": 1}),
        json.dumps({**GOOD, "digest": "xx"}),
        '{"index":0,' + log(1)[0][1:],
    ],
)
def test_what_is_no_entry_is_refused(line: str) -> None:
    assert refusal(lambda: parse_line(line, 7))[0] == AuditCode.LINE


@given(st.text(max_size=200))
def test_any_line_is_an_entry_or_is_refused(line: str) -> None:
    with pytest.raises(AuditError):
        parse_line(line)


@pytest.mark.parametrize(
    "wrong", [{"index": -1}, {"event": "X"}, {"previous": b""}, {"fields": {"a": b"bytes"}}, {"time": 1 << 63}]
)
def test_we_write_no_entry_that_would_not_be_read(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"index": 0, "time": 1, "event": "put", "fields": {}, "previous": ZERO}
    with pytest.raises(ValueError, match=r"is|are"):
        AuditEntry(**{**good, **wrong})  # type: ignore[arg-type]
