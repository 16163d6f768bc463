"""The caller context: what the router stamps is what the callee reads, within limits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.context import MAX_CHAIN, MAX_NAME, Context, decode_context, encode_context, split_context
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import FrameError

names = st.text(min_size=1, max_size=MAX_NAME).filter(lambda name: len(name.encode(errors="replace")) <= MAX_NAME)
safe_names = names.filter(lambda name: name.isprintable())


def wire(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


@given(safe_names, st.lists(safe_names, max_size=MAX_CHAIN), st.binary(max_size=50))
def test_a_context_comes_out_as_it_was_stamped_and_leaves_the_body(caller: str, chain: list[str], body: bytes) -> None:
    context = Context(caller, tuple(chain))
    assert split_context(encode_context(*context) + body) == (context, body)


def test_the_wire_form_is_a_length_and_a_msgpack_array() -> None:
    assert encode_context("counter", ("parent",)) == b"\x00\x11" + wire(["counter", ["parent"]])


def test_a_longer_chain_than_32_is_refused_as_a_circle_of_calls() -> None:
    encode_context("a", ("b",) * MAX_CHAIN)
    with pytest.raises(CallError, match="in a circle") as caught:
        encode_context("a", ("b",) * (MAX_CHAIN + 1))
    assert caught.value.code is Code.EXHAUSTED


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME + 1), "é" * 65])
def test_a_router_may_not_stamp_a_name_that_is_empty_or_too_long(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128 bytes"):
        encode_context(name)


def test_what_a_later_version_appends_is_skipped() -> None:
    assert decode_context(wire(["a", ["b"], 7, {"more": True}])) == Context("a", ("b",))


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        (b"", "something else"),
        (wire(["a"]), "something else"),
        (wire([1, []]), "something else"),
        (wire(["a", "b"]), "something else"),
        (wire({"caller": "a", "chain": []}), "something else"),
        (wire(["a", []]) + b"x", "something else"),
        (b"\x92\xa1\xff\x90", "something else"),
        (wire(["a", ["b"] * 33]), "at most 32 callers"),
        (wire(["", []]), "1 to 128 bytes"),
        (wire(["a", ["x" * 129]]), "1 to 128 bytes"),
        (wire(["a", [], "x" * 9000]), "at most 8192 bytes"),
    ],
)
def test_a_malformed_context_is_refused(encoded: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        decode_context(encoded)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x05abc", b"\xff\xff" + bytes(70_000)])
def test_a_body_without_a_whole_context_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        split_context(body)


@given(st.binary(max_size=64))
def test_whatever_arrives_nothing_but_frame_error_is_raised(body: bytes) -> None:
    try:
        context, rest = split_context(body)
    except FrameError:
        return
    assert context.caller
    assert body.endswith(rest)
