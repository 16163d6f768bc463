"""What is shown: nothing that came from elsewhere steers the terminal, and everything can be said in JSON."""

from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.parent_client.console import console, emit, plain, say, table, visible

CONTROLS = "\x1b[31m\x07\r\x9b2J\u202e\x00\ud800"


class Thing(msgspec.Struct):
    a: bytes


def test_values_become_what_json_can_say() -> None:
    value = {b"k": (1, {2}), "f": [float("nan"), float("inf"), 1.5], "s": Thing(b"\x01"), "m": memoryview(b"\x02")}
    assert plain(value) == {"6b": [1, [2]], "f": [None, None, 1.5], "s": {"a": "01"}, "m": "02"}
    assert plain(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)) == "2024-01-01T00:00:00+00:00"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_whatever_is_plain_is_json(value: Any) -> None:
    json.loads(json.dumps(plain(value), allow_nan=False))


def test_control_characters_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    say(console(), f"one {CONTROLS}\ntwo [bold]x[/bold]")
    made = table("title", (f"a{CONTROLS}",), [[f"cell {CONTROLS}"]])
    console().print(made)
    out = capsys.readouterr().out
    assert r"one \x1b[31m\x07\r\x9b2J\u202e\x00\ud800" in out
    assert "two [bold]x[/bold]\n" in out
    assert all(one.isprintable() or one == "\n" for one in out)


@given(st.text(st.characters(codec=None)))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert visible(text).isprintable()


def test_what_can_be_shown_is_left_as_it_is() -> None:
    assert visible("Zürich → 東京 {1}") == "Zürich → 東京 {1}"


def test_a_long_line_is_not_folded_when_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    say(console(), "x" * 300)
    console().print(table(None, ("digest", "more"), [["f" * 200, "g" * 200]]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x" * 300
    assert "f" * 200 in lines[2]


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": b"\x01"}, True, lambda console: None)
    assert json.loads(capsys.readouterr().out) == {"a": "01"}
