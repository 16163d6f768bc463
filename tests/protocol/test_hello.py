"""HELLO and CREDIT: what is refused before a session looks at it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, HEADER_SIZE, Flag, Frame, FrameError, Kind, encode_frame
from tea.protocol.hello import (
    MAX_GREETING,
    MAX_HELLO,
    Credit,
    Hello,
    encode_credit,
    parse_credit,
    parse_hello,
    peek_hello,
)

HELLO = Hello("tea", 1, 1, bytes(16), 1, 0, False, True, 10, 1000, b"greeting")


def with_fields(**changes: object) -> bytes:
    return msgspec.structs.replace(HELLO, **changes).encode()


def test_a_hello_comes_out_as_it_went_in() -> None:
    assert parse_hello(HELLO.encode()) == HELLO


def test_the_bytes_of_a_hello_are_these() -> None:
    assert HELLO.encode().hex() == "9ba37465610101c410" + "00" * 16 + "0100c2c30acd03e8" + ("c4086772656574696e67")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no HELLO"),
        (msgspec.msgpack.encode(["tee", 1, 1]), "no HELLO"),
        (msgspec.msgpack.encode(["tea", 1]), "no HELLO"),
        (msgspec.msgpack.encode(["tea", 1, 1]), "no HELLO"),
        (msgspec.msgpack.encode({"magic": "tea"}), "no HELLO"),
        (with_fields(session=bytes(15)), "has 16 bytes, not 15"),
        (with_fields(greeting=bytes(MAX_GREETING + 1)), "at most 65536 bytes"),
        (with_fields(received=-1), "not negative"),
        (with_fields(attempt=-1), "not negative"),
        (with_fields(window_frames=0), "windows are open"),
        (with_fields(window_bytes=0), "windows are open"),
    ],
)
def test_a_malformed_hello_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        parse_hello(body)


def test_a_version_that_nobody_shares_is_refused_even_when_nothing_else_is_understood() -> None:
    with pytest.raises(CallError, match="versions 7 to 9") as caught:
        parse_hello(msgspec.msgpack.encode(["tea", 7, 9, "all else has changed"]))
    assert caught.value.code is Code.INVALID


def test_a_stream_is_peeked_at_until_its_hello_is_whole() -> None:
    stream = encode_frame(Frame(Kind.HELLO, body=HELLO.encode()))
    for size in range(len(stream)):
        assert peek_hello(stream[:size]) is None
    assert peek_hello(stream) == HELLO
    assert peek_hello(bytearray(stream + b"what follows")) == HELLO


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (encode_frame(Frame(Kind.CALL)), "begins with HELLO"),
        (encode_frame(Frame(Kind.CALL))[:5], "begins with HELLO"),
        (b"GET / HTTP/1.1", "begins with HELLO"),
        (encode_frame(Frame(Kind.HELLO, Flag.MORE, body=HELLO.encode())), "begins with HELLO"),
        (HEADER.pack(MAX_HELLO + 1, Kind.HELLO, 0, 0, 0, 0, 0, 0), f"at most {MAX_HELLO}"),
        (HEADER.pack(0xFFFFFFFF, Kind.HELLO, 0, 0, 0, 0, 0, 0), "not 4294967295"),
    ],
)
def test_a_stream_that_begins_otherwise_is_refused_as_soon_as_that_shows(start: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        peek_hello(start)


def test_a_greeting_of_full_size_fits_a_hello() -> None:
    body = with_fields(greeting=bytes(MAX_GREETING))
    assert len(body) <= MAX_HELLO
    assert peek_hello(encode_frame(Frame(Kind.HELLO, body=body))) is not None


@given(st.binary(max_size=HEADER_SIZE + 80))
def test_whatever_a_stream_begins_with_only_two_errors_are_possible(start: bytes) -> None:
    try:
        peek_hello(start)
        parse_hello(start)
    except (FrameError, CallError):
        pass


@given(st.tuples(*[st.integers(0, 2**64 - 1)] * 3))
def test_a_credit_comes_out_as_it_went_in(counts: tuple[int, int, int]) -> None:
    assert parse_credit(encode_credit(Credit(*counts))) == Credit(*counts)


def test_a_credit_of_another_size_is_refused() -> None:
    with pytest.raises(FrameError, match="24 bytes, not 23"):
        parse_credit(bytes(23))
