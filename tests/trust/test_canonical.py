"""Canonical CBOR: one encoding for one value, both ways; everything else is refused with its reason.

May not: accept what RFC 8949 section 4.2.1 does not produce. Rule: docs/architecture.md, "Digests and encodings".
"""

from __future__ import annotations

import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.canonical import CanonicalCode, CanonicalError, Value, decode, decode_tagged, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
KEYS = st.text(max_size=10) | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=10)
VALUES: st.SearchStrategy[Value] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


def refusal(data: bytes, **options: int) -> str:
    with pytest.raises(CanonicalError) as caught:
        decode(data, **options)
    return caught.value.code


@given(VALUES)
def test_what_is_encoded_decodes_to_the_same(value: Value) -> None:
    decoded = decode(encode(value))
    assert decoded == value
    assert encode(decoded) == encode(value)


@given(VALUES)
def test_any_reader_of_cbor_reads_it(value: Value) -> None:
    assert cbor2.loads(encode(value)) == value


@given(st.binary(max_size=60))
def test_bytes_decode_only_when_they_are_the_encoding_of_what_they_decode_to(data: bytes) -> None:
    # The invariant that fuzzing holds: CanonicalError or a value that encodes to the very bytes; no other exception.
    try:
        value = decode(data)
    except CanonicalError:
        return
    assert encode(value) == data


@given(VALUES, st.data())
def test_a_changed_byte_never_decodes_to_the_same_value(value: Value, data: st.DataObject) -> None:
    raw = bytearray(encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw))
    except CanonicalError:
        return
    assert encode(other) != encode(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65536, "1a00010000"),
        (2**32, "1b0000000100000000"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-(2**64), "3bffffffffffffffff"),
        (1.5, "f93e00"),
        (100000.0, "fa47c35000"),
        (1.1, "fb3ff199999999999a"),
        (1.0e300, "fb7e37e43c8800759c"),
        (5.960464477539063e-08, "f90001"),
        (-4.0, "f9c400"),
        (None, "f6"),
        (True, "f5"),
        (False, "f4"),
        ("IETF", "6449455446"),
        (b"\x01\x02", "420102"),
        ((1, [2, 3]), "8201820203"),
        ({}, "a0"),
        (memoryview(b"x"), "4178"),
    ],
)
def test_the_examples_of_rfc_8949_appendix_a(value: object, expected: str) -> None:
    assert encode(value).hex() == expected


def test_keys_are_ordered_by_their_encoded_bytes() -> None:
    # RFC 8949 section 4.2.1: 10, 100, -1, "z", "aa", [100] ...
    raw = encode({"aa": 5, "z": 4, -1: 3, 100: 2, 10: 1, b"k": 0})
    assert raw.hex() == "a6" + "0a01" + "186402" + "2003" + "416b00" + "617a04" + "62616105"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", CanonicalCode.TRUNCATED),
        ("18", CanonicalCode.TRUNCATED),
        ("4201", CanonicalCode.TRUNCATED),
        ("8201", CanonicalCode.TRUNCATED),
        ("a101", CanonicalCode.TRUNCATED),
        ("f93e", CanonicalCode.TRUNCATED),
        ("9bffffffffffffffff", CanonicalCode.TRUNCATED),
        ("5bffffffffffffffff", CanonicalCode.TRUNCATED),
        ("0000", CanonicalCode.TRAILING),
        ("1817", CanonicalCode.NOT_CANONICAL),
        ("1900ff", CanonicalCode.NOT_CANONICAL),
        ("1a0000ffff", CanonicalCode.NOT_CANONICAL),
        ("1b00000000ffffffff", CanonicalCode.NOT_CANONICAL),
        ("5801aa", CanonicalCode.NOT_CANONICAL),
        ("5f4101ff", CanonicalCode.NOT_CANONICAL),
        ("7f6161ff", CanonicalCode.NOT_CANONICAL),
        ("9f01ff", CanonicalCode.NOT_CANONICAL),
        ("bf0101ff", CanonicalCode.NOT_CANONICAL),
        ("a201000101", CanonicalCode.NOT_CANONICAL),  # the same key twice is out of order, too
        ("a2616200616100", CanonicalCode.NOT_CANONICAL),
        ("a2010001", CanonicalCode.NOT_CANONICAL),
        ("fa3fc00000", CanonicalCode.NOT_CANONICAL),
        ("fb3ff8000000000000", CanonicalCode.NOT_CANONICAL),
        ("f97e00", CanonicalCode.UNSUPPORTED),
        ("f97c00", CanonicalCode.UNSUPPORTED),
        ("f7", CanonicalCode.UNSUPPORTED),
        ("f820", CanonicalCode.UNSUPPORTED),
        ("ff", CanonicalCode.UNSUPPORTED),
        ("1c", CanonicalCode.UNSUPPORTED),
        ("1f", CanonicalCode.UNSUPPORTED),
        ("c000", CanonicalCode.UNSUPPORTED),
        ("d81c80", CanonicalCode.UNSUPPORTED),
        ("61ff", CanonicalCode.UNSUPPORTED),
        ("a1f500", CanonicalCode.UNSUPPORTED),
        ("a18000", CanonicalCode.UNSUPPORTED),
        ("a1f600", CanonicalCode.UNSUPPORTED),
    ],
)
def test_another_encoding_is_refused(data: str, code: CanonicalCode) -> None:
    assert refusal(bytes.fromhex(data)) == code


def test_more_bytes_than_the_limit_are_not_looked_at() -> None:
    assert refusal(b"\xff" * 11, limit=10) == CanonicalCode.TOO_LARGE


def test_seventeen_levels_are_refused_and_sixteen_are_read() -> None:
    assert decode(b"\x81" * 15 + b"\x80") is not None
    assert refusal(b"\x81" * 16 + b"\x80") == CanonicalCode.TOO_DEEP
    assert refusal(b"\x81" * 100_000) == CanonicalCode.TOO_DEEP
    deep: list[object] = []
    for _ in range(16):
        deep = [deep]
    with pytest.raises(ValueError, match="16"):
        encode(deep)
    with pytest.raises(ValueError, match="16"):
        encode({"a": [{"b": deep}]})


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, float("nan"), float("inf"), "\ud800"])
def test_a_value_without_an_encoding_is_our_own_mistake(value: object) -> None:
    with pytest.raises(ValueError):
        encode(value)


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {True: 0}, {None: 0}, {(1,): 0}, {1, 2}])
def test_a_type_without_an_encoding_is_our_own_mistake(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)


def test_a_tagged_map_is_read_by_its_tag() -> None:
    raw = encode({"tea": "tea.x.v1", "a": 1})
    assert decode_tagged(raw, "tea.x.v1") == {"a": 1}


@pytest.mark.parametrize("value", [{"tea": "tea.y.v1"}, {"a": 1}, [], {"tea": b"tea.x.v1"}])
def test_one_thing_never_passes_for_another(value: object) -> None:
    with pytest.raises(CanonicalError) as caught:
        decode_tagged(encode(value), "tea.x.v1")
    assert caught.value.code == CanonicalCode.WRONG_THING


def test_a_tagged_map_has_keys_of_text() -> None:
    with pytest.raises(CanonicalError) as caught:
        decode_tagged(encode({"tea": "tea.x.v1", 1: 1}), "tea.x.v1")
    assert caught.value.code == CanonicalCode.UNSUPPORTED


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_takes_the_shortest_form_that_keeps_it(value: float) -> None:
    raw = encode(value)
    assert cbor2.dumps(value, canonical=True) == raw
    if raw[0] == 0xFB:
        assert struct.unpack(">d", raw[1:])[0] == value
