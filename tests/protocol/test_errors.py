"""The one error that crosses a wire."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import MAX_ERROR, MAX_SENTENCE, CallError, Code

details = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key not in ("self", "code", "sentence")),
    st.one_of(st.text(max_size=8), st.integers(-(2**63), 2**63), st.booleans(), st.none(), st.lists(st.text())),
)


@given(st.sampled_from(Code), st.text(max_size=100), details)
def test_an_error_comes_out_as_it_went_in(code: Code, sentence: str, given_details: dict[str, str]) -> None:
    error = CallError.decode(CallError(code, sentence, **given_details).encode())
    assert (error.code, error.sentence, error.details) == (code, sentence, given_details)


def test_the_numbers_of_the_codes_are_the_wires_and_never_change() -> None:
    assert {code.name: int(code) for code in Code} == {
        "DENIED": 1,
        "NOT_FOUND": 2,
        "INVALID": 3,
        "DEADLINE": 4,
        "UNAVAILABLE": 5,
        "EXHAUSTED": 6,
        "CONFLICT": 7,
        "UNTRUSTED": 8,
        "INTERNAL": 9,
    }


def test_a_sentence_is_cut_to_its_limit_by_either_end() -> None:
    long = "x" * (MAX_SENTENCE + 10)
    assert len(CallError.decode(CallError(Code.INVALID, long).encode()).sentence) == MAX_SENTENCE
    assert len(CallError.decode(msgspec.msgpack.encode([3, long, {}])).sentence) == MAX_SENTENCE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([99, "no such code", {}]),
        msgspec.msgpack.encode([1, "too short"]),
        msgspec.msgpack.encode([1, "too long", {}, 4]),
        msgspec.msgpack.encode([1, 2, {}]),
        msgspec.msgpack.encode([1, "a detail named as an argument", {"code": 1}]),
        msgspec.msgpack.encode([1, "a detail that is no plain data", {"x": 1.5}]),
        b"\x93\x01\xa2\xff\xff\x80",
        b"\x93\x01\xa1a\x81\xa1x" + b"\x91" * 5000,
    ],
)
def test_a_malformed_error_becomes_an_internal_one(body: bytes) -> None:
    error = CallError.decode(body)
    assert error.code is Code.INTERNAL
    assert error.details == {}


def test_an_error_that_is_too_large_is_not_decoded() -> None:
    body = msgspec.msgpack.encode([1, "no", {"names": ["x"] * MAX_ERROR}])
    error = CallError.decode(body)
    assert error.code is Code.INTERNAL
    assert f"{len(body)} bytes, at most {MAX_ERROR}" in error.sentence


def test_details_that_do_not_fit_an_error_are_left_out_of_it() -> None:
    error = CallError.decode(CallError(Code.CONFLICT, "too many", names=["x"] * MAX_ERROR).encode())
    assert (error.code, error.sentence, error.details) == (Code.CONFLICT, "too many", {})
    names = ["x" * 1000] * 100
    assert CallError.decode(CallError(Code.CONFLICT, "many", names=names).encode()).details == {"names": names}


@given(st.binary(max_size=60))
def test_whatever_arrives_it_becomes_an_error(body: bytes) -> None:
    assert isinstance(CallError.decode(body), CallError)


def test_an_error_is_shown_with_its_code_and_without_its_details() -> None:
    error = CallError(Code.DENIED, "no link", secret="hunter2")
    assert str(error) == "DENIED: no link"
    assert repr(error) == "CallError(DENIED, 'no link')"


def test_an_error_is_never_pickled() -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(CallError(Code.INTERNAL, "x"))
