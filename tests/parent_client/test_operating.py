"""Arguments and results of calls; a runtime client that does not answer, or that others could answer for."""

from __future__ import annotations

import datetime
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from tea.parent_client.client import RuntimeClient
from tea.parent_client.operating import MAX_DEPTH, arguments_from_json, result_from_msgpack, with_client
from tea.parent_client.refusal import Refusal
from tea.protocol.errors import CallError, Code

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=12,
)


def test_arguments_by_name_and_by_place_with_bytes() -> None:
    assert msgspec.msgpack.decode(arguments_from_json('{"by": 2, "raw": {"$hex": "0aff"}}')) == {
        "by": 2,
        "raw": b"\n\xff",
    }
    assert msgspec.msgpack.decode(arguments_from_json('[1, [{"$hex": ""}], {"$hex": "00", "more": 1}]')) == [
        1,
        [b""],
        {"$hex": "00", "more": 1},
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "are not JSON"),
        ("{", "are not JSON"),
        ("nan", "are not JSON"),
        ("3", "as a JSON object"),
        ('"text"', "as a JSON object"),
        ("null", "as a JSON object"),
        ('{"a": {"$hex": "xyz"}}', "'xyz' is not hex"),
        ("[123456789012345678901234567890]", "over 64 bits|not JSON"),
        ("[" * 5000 + "]" * 5000, "deeper than"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "deeper than"),
        ("\udcff", "are not JSON"),
    ],
)
def test_arguments_that_cannot_be_sent_are_wrong_usage(text: str, why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        arguments_from_json(text)


@given(st.lists(values, max_size=4) | st.dictionaries(st.text(min_size=1), values, max_size=4))
def test_a_result_can_be_given_back_as_arguments(value: Any) -> None:
    if not (isinstance(value, dict) and set(value) == {"$hex"}):
        shown = json.dumps(result_from_msgpack(msgspec.msgpack.encode(value)))
        assert msgspec.msgpack.decode(arguments_from_json(shown)) == value


def test_what_json_cannot_say_is_shown_nevertheless() -> None:
    answer = {
        "nan": float("nan"),
        1: datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        b"\x01": msgspec.msgpack.Ext(5, b"\x02"),
    }
    assert result_from_msgpack(msgspec.msgpack.encode(answer)) == {
        "nan": None,
        "1": "2024-01-01T00:00:00+00:00",
        "01": {"$ext": 5, "$hex": "02"},
    }


@given(st.binary(max_size=200))
@example(b"\x91" * 100_000)
@example(b"\x91" * 150 + b"\x90")
@example(b"\x81\x90\x01")
@example(b"\xc7\x0c\xff" + b"\xff" * 12)
def test_whatever_an_actor_answers_is_shown_or_refused(answer: bytes) -> None:
    try:
        result_from_msgpack(answer)
    except Refusal as refusal:
        assert "actor" in str(refusal)


async def test_a_client_that_does_not_run_is_unavailable(
    tmp_path: Path, make_client: Callable[..., Awaitable[RuntimeClient]]
) -> None:
    async def use(client: Any) -> None:
        await client.ask("status")

    with pytest.raises(CallError, match="no runtime client has ever run in") as refused:
        await with_client(tmp_path / "e1", use)
    assert refused.value.code is Code.UNAVAILABLE
    client = await make_client()
    await with_client(tmp_path / "e1", use)
    await client.close()
    with pytest.raises(CallError, match=r"no runtime client answers at .* it is not running, or starts just now"):
        await with_client(tmp_path / "e1", use)


async def test_a_client_in_a_folder_that_others_can_write_to_is_not_asked(
    tmp_path: Path, make_client: Callable[..., Awaitable[RuntimeClient]]
) -> None:
    await make_client()
    (tmp_path / "e1").chmod(0o777)

    async def use(client: Any) -> None:
        raise AssertionError("asked")

    with pytest.raises(PermissionError, match="others can write to the folder"):
        await with_client(tmp_path / "e1", use)
