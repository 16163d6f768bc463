"""The NSM client believes no response that it has not checked.

May not: need a device; a canned one answers. Rule: AWS `aws-nitro-enclaves-nsm-api`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.providers.nitro.client import ErrorCode, Nsm, NsmError


class Canned:
    """A device that always answers the same bytes, or fails."""

    def __init__(self, response: bytes = b"", error: int | None = None) -> None:
        self.response = response
        self.error = error
        self.requests: list[bytes] = []

    def exchange(self, request: bytes) -> bytes:
        self.requests.append(request)
        if self.error is not None:
            raise OSError(self.error, "as the driver says")
        return self.response

    def close(self) -> None:
        pass


CALLS: dict[str, Callable[[Nsm], object]] = {
    "DescribeNSM": lambda nsm: nsm.describe(),
    "GetRandom": lambda nsm: nsm.random(1),
    "DescribePCR": lambda nsm: nsm.describe_pcr(0),
    "ExtendPCR": lambda nsm: nsm.extend_pcr(16, b"x"),
    "LockPCR": lambda nsm: nsm.lock_pcr(16),
    "LockPCRs": lambda nsm: nsm.lock_pcrs(16),
    "Attestation": lambda nsm: nsm.attestation(),
}


def refusal(call: Callable[[Nsm], object], device: Canned) -> NsmError:
    with pytest.raises(NsmError) as caught:
        call(Nsm(device))
    return caught.value


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.SUCCESS])
def test_every_error_code_comes_through_with_the_requests_name(name: str, code: ErrorCode) -> None:
    error = refusal(CALLS[name], Canned(cbor2.dumps({"Error": str(code)})))
    assert error.code is code
    assert name in error.sentence


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "response",
    [b"", b"\xff", b"\x81" * 9000, cbor2.dumps("Error"), cbor2.dumps({"Error": "Tired"}), cbor2.dumps({"Error": 1})],
)
def test_an_unreadable_response_is_an_invalid_response(name: str, response: bytes) -> None:
    assert refusal(CALLS[name], Canned(response)).code is ErrorCode.INVALID_RESPONSE


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DescribeNSM", {}),
        ("DescribeNSM", {"version_major": 1, "version_minor": 0, "version_patch": 0}),
        (
            "DescribeNSM",
            {
                "version_major": 1,
                "version_minor": 0,
                "version_patch": 0,
                "module_id": "i",
                "max_pcrs": 32,
                "locked_pcrs": ["0"],
                "digest": "SHA384",
            },
        ),
        ("GetRandom", {"random": b""}),
        ("GetRandom", {"random": "text"}),
        ("DescribePCR", {"lock": 1, "data": bytes(48)}),
        ("DescribePCR", {"lock": True, "data": bytes(32)}),
        ("ExtendPCR", {"data": bytes(47)}),
        ("ExtendPCR", {}),
        ("Attestation", {"document": None}),
    ],
)
def test_a_response_of_another_shape_is_an_invalid_response(name: str, fields: dict[str, object]) -> None:
    assert refusal(CALLS[name], Canned(cbor2.dumps({name: fields}))).code is ErrorCode.INVALID_RESPONSE


def test_a_too_long_request_is_input_too_large_as_in_awss_library() -> None:
    assert refusal(CALLS["ExtendPCR"], Canned(error=errno.EMSGSIZE)).code is ErrorCode.INPUT_TOO_LARGE


def test_a_failing_device_is_an_internal_error_that_names_the_cause() -> None:
    error = refusal(CALLS["DescribeNSM"], Canned(error=errno.EIO))
    assert error.code is ErrorCode.INTERNAL_ERROR
    assert "as the driver says" in error.sentence


@pytest.mark.parametrize("index", [-1, 65536, True])
def test_an_index_that_the_wire_cannot_carry_is_not_sent(index: int) -> None:
    device = Canned()
    assert refusal(lambda nsm: nsm.lock_pcr(index), device).code is ErrorCode.INVALID_INDEX
    assert device.requests == []


@pytest.mark.parametrize(("user_data", "nonce", "public_key"), [(513, 0, 0), (0, 513, 0), (0, 0, 1025)])
def test_a_producer_keeps_to_what_every_reader_accepts(user_data: int, nonce: int, public_key: int) -> None:
    device = Canned()
    error = refusal(lambda nsm: nsm.attestation(bytes(user_data), bytes(nonce), bytes(public_key)), device)
    assert error.code is ErrorCode.INPUT_TOO_LARGE
    assert device.requests == []


def test_a_negative_size_of_random_is_refused() -> None:
    assert refusal(lambda nsm: nsm.random(-1), Canned()).code is ErrorCode.INVALID_ARGUMENT


@given(response=st.binary(max_size=200), name=st.sampled_from(sorted(CALLS)))
def test_any_bytes_are_an_answer_or_an_nsm_error_and_nothing_else(response: bytes, name: str) -> None:
    try:
        CALLS[name](Nsm(Canned(response)))
    except NsmError as error:
        assert error.code in ErrorCode
