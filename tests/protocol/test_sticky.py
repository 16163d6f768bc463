"""Sticky keys: equal values give equal keys, by place, by name or by default; nonsense gives none."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.operations import OperationDescription, Parameter
from tea.protocol.sticky import KEY_BYTES, NO_KEY, key_of, place_of

DESCRIBED = OperationDescription(
    "work",
    (Parameter("first", "int", True), Parameter("key", "str", False, msgspec.msgpack.encode("none"))),
    "None",
    "",
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_equal_values_have_equal_keys_and_others_other_ones(one: object, other: object) -> None:
    def key(value: object) -> bytes:
        return key_of(msgspec.msgpack.encode([1, value]), 1, DESCRIBED.parameters)

    assert len(key(one)) == KEY_BYTES
    assert key(one) == key_of(msgspec.msgpack.encode([2, one, 3]), 1, DESCRIBED.parameters)
    same = msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
    assert (key(one) == key(other)) == same


def test_a_value_that_was_left_out_is_its_default() -> None:
    place = place_of(DESCRIBED, "key")
    assert place == 1
    assert key_of(msgspec.msgpack.encode([1]), place, DESCRIBED.parameters) == key_of(
        msgspec.msgpack.encode([1, "none"]), place, DESCRIBED.parameters
    )


def test_one_value_in_two_encodings_is_one_value() -> None:
    short, long = b"\x91\x07", b"\x91\xcd\x00\x07"
    assert key_of(short, 0, DESCRIBED.parameters) == key_of(long, 0, DESCRIBED.parameters)


def test_no_parameter_of_that_name() -> None:
    assert place_of(DESCRIBED, "kay") is None


@given(st.binary())
def test_arguments_that_are_none_have_no_key_or_some_key(data: bytes) -> None:
    assert len(key_of(data, 0, DESCRIBED.parameters)) == KEY_BYTES
    assert key_of(b"\xc1" + data, 0, DESCRIBED.parameters) == NO_KEY


def test_a_required_value_that_is_missing_has_no_key() -> None:
    assert key_of(b"\x90", 0, DESCRIBED.parameters) == NO_KEY
