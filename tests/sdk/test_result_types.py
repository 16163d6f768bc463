"""Type names become builtin types, and nothing else, whatever the text."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.sdk.result_types import result_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int", int),
        ("None", type(None)),
        ("bytes | None", bytes | None),
        ("list[str]", list[str]),
        ("Sequence[bytes]", list[bytes]),
        ("tuple[int, ...]", tuple[int, ...]),
        ("tuple[bytes, int | None]", tuple[bytes, int | None]),
        ("dict[str, set[bytes]]", dict[str, set[bytes]]),
        ("frozenset[int]", frozenset[int]),
        ("list", list),
        ("object", Any),
        ("Page", Any),
        ("list[tea.providers.clock.TimerInfo]", list[Any]),
        ("Page | None", Any),
        ("None | Page", Any),
        ("dict[str]", Any),
        ("list[int", Any),
        ("list[int]]", Any),
        ("int int", Any),
        ("list[...]", Any),
        ("Literal['a']", Any),
        ("int[str]", Any),
        ("", Any),
        ("|", Any),
        ("[" * 1000, Any),
        ("list[" * 1000, Any),
        ("2", Any),
        ("...", Any),
        ("list[int] | set[int]", Any),
    ],
)
def test_names_become_types(text: str, expected: object) -> None:
    assert result_type(text) == expected


@given(st.text(alphabet="intsrlbyeuNoadcf[]|,. ", max_size=40))
def test_any_text_gives_a_type_that_msgspec_takes(text: str) -> None:
    msgspec.msgpack.Decoder(result_type(text))
