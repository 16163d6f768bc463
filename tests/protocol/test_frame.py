"""The frame codec: what goes in comes out, however it is cut, and what is malformed ends there."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.frame import HEADER, HEADER_SIZE, MAX_BODY, Flag, Frame, FrameDecoder, FrameError, Kind, encode_frame

u32 = st.integers(0, 2**32 - 1)
frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 3),
    st.integers(0, 2**16 - 1),
    u32,
    u32,
    u32,
    u32,
    st.binary(max_size=300),
)
malformed_headers = st.one_of(
    st.integers(9, 255).map(lambda kind: HEADER.pack(0, kind, 0, 0, 0, 0, 0, 0)),
    st.just(HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0)),
    st.integers(4, 255).map(lambda flags: HEADER.pack(0, 1, flags, 0, 0, 0, 0, 0)),
    st.integers(MAX_BODY + 1, 2**32 - 1).map(lambda size: HEADER.pack(size, 1, 0, 0, 0, 0, 0, 0)),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def events(pieces: list[bytes]) -> list[Frame | str]:
    """What a decoder says of a stream: frames, then perhaps why it is malformed."""
    decoder = FrameDecoder()
    seen: list[Frame | str] = []
    try:
        for piece in pieces:
            seen += decoder.feed(piece)
        decoder.feed(b"")
    except FrameError as error:
        seen.append(str(error))
    return seen


def test_the_header_has_the_layout_that_the_module_promises() -> None:
    frame = Frame(Kind.CALL, Flag.CONTEXT, 0x0102, 0x03040506, 0x0708090A, 0x0B0C0D0E, 0x0F101112, b"body")
    assert encode_frame(frame).hex() == "0000000401010102030405060708090a0b0c0d0e0f101112626f6479"
    assert HEADER_SIZE == 24


def test_a_header_can_be_had_without_its_body() -> None:
    frame = Frame(Kind.REPLY, body=b"x" * 100)
    assert encode_frame(frame, with_body=False) + frame.body == encode_frame(frame)


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Frame], places: list[int]) -> None:
    stream = b"".join(map(encode_frame, sent))
    assert events([stream]) == sent
    assert events(cut(stream, places)) == sent


@given(st.lists(frames, max_size=4), malformed_headers, st.binary(max_size=60), st.lists(st.integers(0, 2000)))
def test_frames_before_a_malformed_header_are_delivered_and_nothing_after(
    sent: list[Frame], header: bytes, rest: bytes, places: list[int]
) -> None:
    stream = b"".join(map(encode_frame, sent)) + header + rest
    whole = events([stream])
    assert whole[:-1] == sent
    assert isinstance(whole[-1], str)
    assert events([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert events(cut(stream, places)) == whole


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_whatever_arrives_the_decoder_raises_nothing_but_frame_error(pieces: list[bytes]) -> None:
    events(pieces)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_fed_and_overwritten_afterwards(kind: type) -> None:
    frame = encode_frame(Frame(Kind.TELL, body=b"abc"))
    decoder = FrameDecoder()
    source: list[Frame] = []
    for piece in (bytearray(frame[:26]), bytearray(frame[26:] + frame)):
        source += decoder.feed(kind(piece))
        piece[:] = bytes(len(piece))
    assert source == [Frame(Kind.TELL, body=b"abc")] * 2
    assert all(type(f.body) is bytes for f in source)


def test_a_frame_of_4_gib_is_refused_by_its_header_before_anything_is_allocated() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="4294967295 bytes is announced, at most 1048576"):
            decoder.feed(HEADER.pack(0xFFFFFFFF, Kind.CALL, 0, 0, 0, 0, 0, 0))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(FrameError, match="unknown frame kind 9"):
        FrameDecoder().feed(HEADER.pack(0, 9, 0, 0, 0, 0, 0, 0))


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(FrameError, match="unknown flags 0x05"):
        FrameDecoder().feed(HEADER.pack(0, 1, 5, 0, 0, 0, 0, 0))


def test_after_an_error_there_is_always_the_error() -> None:
    decoder = FrameDecoder()
    good = encode_frame(Frame(Kind.PING))
    assert decoder.feed(good + b"\xff" * HEADER_SIZE + good) == [Frame(Kind.PING)]
    assert decoder.error == "unknown frame kind 255"
    assert decoder.buffered == 0
    for data in (b"", good, good):
        with pytest.raises(FrameError, match="unknown frame kind 255"):
            decoder.feed(data)


def test_a_body_over_the_limit_is_not_encoded() -> None:
    assert len(encode_frame(Frame(Kind.CALL, body=bytes(MAX_BODY)))) == MAX_BODY + HEADER_SIZE
    with pytest.raises(FrameError, match="send it in chunks"):
        encode_frame(Frame(Kind.CALL, body=bytes(MAX_BODY + 1)))


def test_a_field_out_of_range_is_a_defect_of_the_caller() -> None:
    with pytest.raises(struct.error):
        encode_frame(Frame(Kind.CALL, link=2**32))


def test_a_smaller_limit_can_be_set() -> None:
    decoder = FrameDecoder(max_body=3)
    assert decoder.feed(encode_frame(Frame(Kind.TELL, body=b"abc"))) == [Frame(Kind.TELL, body=b"abc")]
    with pytest.raises(FrameError, match="at most 3"):
        decoder.feed(encode_frame(Frame(Kind.TELL, body=b"abcd")))


def test_a_decoder_holds_no_more_than_one_frame() -> None:
    decoder = FrameDecoder()
    stream = encode_frame(Frame(Kind.TELL, body=bytes(1000)))
    for _ in range(10):
        decoder.feed(stream[:500])
        assert decoder.buffered == 500
        decoder.feed(stream[500:])
        assert decoder.buffered == 0
