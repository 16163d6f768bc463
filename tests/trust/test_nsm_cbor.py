"""The reader of an NSM's CBOR: what it reads is what was written, and nothing else gets through."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import nsm_cbor
from tea.trust.nsm_cbor import NsmCborError

SCALARS = st.none() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=70)
KEYS = st.text(max_size=8) | st.integers(0, 2**33)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)
    return 1 + max((depth(item) for item in value), default=0) if isinstance(value, list) else 0


@given(VALUES.filter(lambda value: depth(value) <= nsm_cbor.MAX_DEPTH))
def test_what_was_written_is_read(value: object) -> None:
    assert nsm_cbor.decode(cbor2.dumps(value)) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused_with_one_error(data: bytes) -> None:
    try:
        nsm_cbor.decode(data)
    except NsmCborError:
        pass


@given(st.integers(0, 2**64 - 1), st.sampled_from([0, 2, 3, 4]))
def test_heads_are_the_shortest(argument: int, major: int) -> None:
    assert nsm_cbor.head(major, argument)[0] >> 5 == major
    assert nsm_cbor.head(0, argument) == cbor2.dumps(argument)


def test_byte_strings_are_written_as_cbor() -> None:
    for size in (0, 23, 24, 255, 256, 70_000):
        assert nsm_cbor.byte_string(bytes(size)) == cbor2.dumps(bytes(size))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("bfff", {}),
        ("bf6161016162a0ff", {"a": 1, "b": {}}),
        ("9f0102ff", [1, 2]),
        ("9fbf0001ff80ff", [{0: 1}, []]),
        ("1800", 0),
    ],
)
def test_indefinite_maps_and_arrays_are_read(data: str, value: object) -> None:
    assert nsm_cbor.decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data",
    [
        "",
        "18",  # cut in a length
        "5b7fffffffffffffff",  # a string of 2**63 bytes
        "9bffffffffffffffff",  # as many items
        "bf61",  # cut in a key
        "bf6161",  # cut before the value
        "9f01",  # no end
        "ff",  # an end of nothing
        "a1ff00",
        "62fffe",  # text that is not UTF-8
        "7f6161ff",  # chunked text
        "5f4161ff",  # chunked bytes
        "f4",  # a boolean
        "f7",  # undefined
        "fb3ff0000000000000",  # a float
        "c100",  # a tag
        "1c",  # reserved
        "3f",
        "1f",
        "a1400000",  # a key of bytes
        "a1f600",  # a key of null
        "8181818181",  # too deep
    ],
)
def test_what_an_nsm_does_not_write_is_refused(data: str) -> None:
    with pytest.raises(NsmCborError):
        nsm_cbor.decode(bytes.fromhex(data))


def test_a_key_that_stands_twice_is_named() -> None:
    with pytest.raises(NsmCborError) as refusal:
        nsm_cbor.decode(bytes.fromhex("bf616101616102ff"))
    assert refusal.value.duplicate == "a"


def test_trailing_bytes_are_said_to_be_trailing() -> None:
    with pytest.raises(NsmCborError) as refusal:
        nsm_cbor.decode(b"\x00\x00")
    assert refusal.value.trailing
