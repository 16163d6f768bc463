"""One suite for both devices: the simulated NSM, and the ioctl device in front of a stand-in for the driver.

May not: need `/dev/nsm`. The stand-in reads the message with its own idea of the C layout, so that both must agree.
Rule: AWS's nsm-check; Linux `drivers/misc/nsm.c`.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tea.providers.nitro.client import ErrorCode, Nsm, NsmError
from tea.providers.nitro.device import MAX_REQUEST, MAX_RESPONSE, NSM_IOCTL_RAW, Device, NsmDevice, system_ioctl
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm

NOW = 1_800_000_000.0
MODULE = "i-0fd3fdaad4e904e69-enc019b54988b2d89ba"
CREDENTIAL = SimulatedCa.create(now=NOW).issue_instance("i-0fd3fdaad4e904e69", now=NOW)
ZERO = bytes(48)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("len", ctypes.c_uint64)]


class _Message(ctypes.Structure):
    _fields_ = [("request", _Iovec), ("response", _Iovec)]


class StandInDriver:
    """What the kernel's driver does with the message at an address, with a simulated NSM behind it."""

    def __init__(self, nsm: Device) -> None:
        self._nsm = nsm
        self.errors: list[int] = []
        self.descriptors: list[int] = []
        self.claim: int | None = None
        self.calls = 0

    def ioctl(self, fd: int, command: int, address: int) -> int:
        self.calls += 1
        self.descriptors.append(fd)
        assert command == NSM_IOCTL_RAW
        assert (command >> 16) & 0x3FFF == ctypes.sizeof(_Message)
        if self.errors:
            return self.errors.pop(0)
        message = _Message.from_address(address)
        assert message.response.len == MAX_RESPONSE
        assert ctypes.string_at(message.response.base, MAX_RESPONSE) == bytes(MAX_RESPONSE)
        try:
            response = self._nsm.exchange(ctypes.string_at(message.request.base, message.request.len))
        except OSError as error:
            return error.errno or errno.EIO
        ctypes.memmove(message.response.base, response, len(response))
        message.response.len = len(response) if self.claim is None else self.claim
        return 0


def simulated() -> SimulatedNsm:
    return SimulatedNsm(CREDENTIAL, MODULE, {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48}, lambda: NOW)


@pytest.fixture(params=["simulated", "ioctl"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    chosen: Device = simulated()
    if request.param == "ioctl":
        chosen = NsmDevice(os.devnull, StandInDriver(chosen).ioctl)
    yield chosen
    chosen.close()


def ask(device: Device, request: object) -> Any:
    return cbor2.loads(device.exchange(cbor2.dumps(request)))


def test_the_nsm_describes_itself_in_the_real_ones_shape(device: Device) -> None:
    assert ask(device, "DescribeNSM") == {
        "DescribeNSM": {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": MODULE,
            "max_pcrs": 32,
            "locked_pcrs": list(range(16)),
            "digest": "SHA384",
        }
    }


def test_random_numbers_come_256_bytes_a_call_and_differ(device: Device) -> None:
    first, second = (ask(device, "GetRandom")["GetRandom"]["random"] for _ in range(2))
    assert len(first) == len(second) == 256
    assert first != second


def test_pcrs_0_to_15_are_locked_at_boot_and_16_to_31_are_zero_and_open(device: Device) -> None:
    described = [ask(device, {"DescribePCR": {"index": index}})["DescribePCR"] for index in range(32)]
    assert [register["lock"] for register in described] == [True] * 16 + [False] * 16
    assert described[0]["data"] == b"\1" * 48
    assert described[3]["data"] == ZERO
    assert described[4]["data"] == hashlib.sha384(ZERO + b"i-0fd3fdaad4e904e69").digest()
    assert all(register["data"] == ZERO for register in described[5:])


def test_extending_is_sha384_of_old_and_data(device: Device) -> None:
    once = ask(device, {"ExtendPCR": {"index": 16, "data": b"abc"}})
    assert once == {"ExtendPCR": {"data": hashlib.sha384(ZERO + b"abc").digest()}}
    twice = ask(device, {"ExtendPCR": {"index": 16, "data": b""}})
    assert twice["ExtendPCR"]["data"] == hashlib.sha384(once["ExtendPCR"]["data"]).digest()


@pytest.mark.parametrize("index", range(16))
def test_a_pcr_of_the_platform_cannot_be_extended_or_locked(device: Device, index: int) -> None:
    assert ask(device, {"ExtendPCR": {"index": index, "data": b"x"}}) == {"Error": "ReadOnlyIndex"}
    assert ask(device, {"LockPCR": {"index": index}}) == {"Error": "ReadOnlyIndex"}


def test_a_locked_pcr_takes_no_more_and_cannot_be_locked_again(device: Device) -> None:
    before = ask(device, {"ExtendPCR": {"index": 31, "data": b"x"}})["ExtendPCR"]["data"]
    assert ask(device, {"LockPCR": {"index": 31}}) == "LockPCR"
    assert ask(device, {"ExtendPCR": {"index": 31, "data": b"x"}}) == {"Error": "ReadOnlyIndex"}
    assert ask(device, {"LockPCR": {"index": 31}}) == {"Error": "ReadOnlyIndex"}
    assert ask(device, {"DescribePCR": {"index": 31}}) == {"DescribePCR": {"lock": True, "data": before}}


def test_a_range_locks_what_is_below_it_locked_or_not(device: Device) -> None:
    assert ask(device, {"LockPCRs": {"range": 19}}) == "LockPCRs"
    assert ask(device, "DescribeNSM")["DescribeNSM"]["locked_pcrs"] == list(range(19))
    assert ask(device, {"LockPCRs": {"range": 0}}) == "LockPCRs"
    assert ask(device, {"LockPCRs": {"range": 32}}) == "LockPCRs"
    assert ask(device, "DescribeNSM")["DescribeNSM"]["locked_pcrs"] == list(range(32))
    assert ask(device, {"LockPCRs": {"range": 33}}) == {"Error": "InvalidIndex"}


@pytest.mark.parametrize("request_name", ["DescribePCR", "ExtendPCR", "LockPCR"])
def test_an_index_that_no_pcr_has_is_invalid(device: Device, request_name: str) -> None:
    assert ask(device, {request_name: {"index": 32, "data": b""}}) == {"Error": "InvalidIndex"}


@pytest.mark.parametrize(
    "request_value",
    [
        "describeNSM",
        "DescribePCR",
        "Attestation",
        {"GetRandom": {}},
        {"DescribePCR": {}},
        {"DescribePCR": {"index": True}},
        {"DescribePCR": {"index": -1}},
        {"DescribePCR": {"index": 65536}},
        {"DescribePCR": {"index": "0"}},
        {"ExtendPCR": {"index": 16}},
        {"ExtendPCR": {"index": 16, "data": 3}},
        {"LockPCR": {"index": 16}, "LockPCRs": {"range": 3}},
        {"LockPCRs": {"index": 3}},
        {"Attestation": {"nonce": 3}},
        {"Attestation": None},
        {},
        [],
        7,
        None,
    ],
)
def test_what_is_no_request_is_an_invalid_operation_and_changes_nothing(device: Device, request_value: object) -> None:
    assert ask(device, request_value) == {"Error": "InvalidOperation"}
    assert ask(device, "DescribeNSM")["DescribeNSM"]["locked_pcrs"] == list(range(16))


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff",
        b"\x61",
        b"\x5b" + b"\xff" * 8,
        b"\x81" * 4096,
        cbor2.dumps("GetRandom") + b"\0",
        b"\xc1\xfb" + b"\xff" * 8,
    ],
)
def test_bytes_that_are_no_cbor_are_an_invalid_operation(device: Device, raw: bytes) -> None:
    assert cbor2.loads(device.exchange(raw)) == {"Error": "InvalidOperation"}


def test_a_request_over_4096_bytes_is_refused_by_the_driver(device: Device) -> None:
    fits = cbor2.dumps({"ExtendPCR": {"index": 16, "data": bytes(4096 - 27)}})
    assert len(fits) == MAX_REQUEST
    assert "ExtendPCR" in cbor2.loads(device.exchange(fits))
    with pytest.raises(OSError) as caught:
        device.exchange(fits + b"\0")
    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(("field", "limit"), [("user_data", 512), ("nonce", 512), ("public_key", 1024)])
def test_an_attestations_inputs_have_limits(device: Device, field: str, limit: int) -> None:
    assert "Attestation" in ask(device, {"Attestation": {field: bytes(limit)}})
    assert ask(device, {"Attestation": {field: bytes(limit + 1)}}) == {"Error": "InputTooLarge"}


def test_a_document_holds_the_locked_pcrs_only_and_what_was_asked(device: Device) -> None:
    ask(device, {"ExtendPCR": {"index": 16, "data": b"x"}})
    asked = {"user_data": b"u", "nonce": None, "public_key": b""}
    document = ask(device, {"Attestation": asked})["Attestation"]["document"]
    protected, unprotected, payload, signature = cbor2.loads(document)
    assert (cbor2.loads(protected), unprotected, len(signature)) == ({1: -35}, {}, 96)
    fields = cbor2.loads(payload)
    assert list(fields) == [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
        "public_key",
        "user_data",
        "nonce",
    ]
    assert (fields["module_id"], fields["digest"], fields["timestamp"]) == (MODULE, "SHA384", int(NOW * 1000))
    assert (fields["user_data"], fields["nonce"], fields["public_key"]) == (b"u", None, b"")
    assert sorted(fields["pcrs"]) == list(range(16))
    ask(device, {"LockPCR": {"index": 16}})
    again = cbor2.loads(cbor2.loads(ask(device, {"Attestation": {}})["Attestation"]["document"])[2])
    assert sorted(again["pcrs"]) == list(range(17))
    assert again["pcrs"][16] == hashlib.sha384(ZERO + b"x").digest()


def test_the_largest_document_fits_the_response(device: Device) -> None:
    ask(device, {"LockPCRs": {"range": 32}})
    largest = {"Attestation": {"user_data": bytes(512), "nonce": bytes(512), "public_key": bytes(1024)}}
    response = device.exchange(cbor2.dumps(largest))
    assert len(response) <= MAX_RESPONSE
    assert "Attestation" in cbor2.loads(response)


def test_threads_are_served_one_by_one(device: Device) -> None:
    nsm = Nsm(device)

    def extend() -> None:
        for _ in range(20):
            nsm.extend_pcr(20, b"x")

    threads = [threading.Thread(target=extend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = ZERO
    for _ in range(80):
        expected = hashlib.sha384(expected + b"x").digest()
    assert nsm.describe_pcr(20).data == expected


def test_a_closed_device_answers_nothing(device: Device) -> None:
    device.close()
    device.close()
    with pytest.raises(OSError) as caught:
        device.exchange(cbor2.dumps("DescribeNSM"))
    assert caught.value.errno == errno.EBADF


def test_the_client_speaks_with_both(device: Device) -> None:
    nsm = Nsm(device)
    assert nsm.describe().module_id == MODULE
    assert len(nsm.random(1000)) == 1000
    assert nsm.random(0) == b""
    extended = nsm.extend_pcr(16, b"manifest")
    nsm.lock_pcr(16)
    assert nsm.describe_pcr(16) == (True, extended)
    nsm.lock_pcrs(19)
    assert nsm.describe().locked_pcrs == frozenset(range(19))
    assert nsm.attestation(b"u", b"n", b"k")
    with pytest.raises(NsmError) as caught:
        nsm.extend_pcr(18, b"x")
    assert caught.value.code is ErrorCode.READ_ONLY_INDEX


# What only the ioctl device has.


def test_a_missing_device_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mode simulated") as caught:
        NsmDevice(str(tmp_path / "nsm"))
    assert caught.value.filename == str(tmp_path / "nsm")


def test_the_system_ioctl_is_called_and_its_errno_raised() -> None:
    device = NsmDevice(os.devnull, system_ioctl)
    with pytest.raises(OSError) as caught:
        device.exchange(cbor2.dumps("DescribeNSM"))
    assert caught.value.errno == errno.ENOTTY
    device.close()


def test_a_workers_exec_does_not_inherit_the_device() -> None:
    driver = StandInDriver(simulated())
    device = NsmDevice(os.devnull, driver.ioctl)
    device.exchange(cbor2.dumps("DescribeNSM"))
    assert not os.get_inheritable(driver.descriptors[0])
    device.close()


def test_an_interrupted_ioctl_is_made_again_until_it_is_served() -> None:
    driver = StandInDriver(simulated())
    driver.errors = [errno.EINTR, errno.EINTR]
    device = NsmDevice(os.devnull, driver.ioctl)
    assert "DescribeNSM" in cbor2.loads(device.exchange(cbor2.dumps("DescribeNSM")))
    assert driver.calls == 3
    device.close()


def test_a_failing_ioctl_is_an_os_error_and_the_device_serves_on() -> None:
    driver = StandInDriver(simulated())
    driver.errors = [errno.ETIMEDOUT]
    device = NsmDevice(os.devnull, driver.ioctl)
    with pytest.raises(OSError) as caught:
        device.exchange(cbor2.dumps("DescribeNSM"))
    assert caught.value.errno == errno.ETIMEDOUT
    assert "DescribeNSM" in cbor2.loads(device.exchange(cbor2.dumps("DescribeNSM")))
    device.close()


def test_a_driver_that_claims_more_than_the_buffer_is_not_believed() -> None:
    driver = StandInDriver(simulated())
    driver.claim = MAX_RESPONSE + 1
    device = NsmDevice(os.devnull, driver.ioctl)
    with pytest.raises(OSError) as caught:
        device.exchange(cbor2.dumps("DescribeNSM"))
    assert caught.value.errno == errno.EIO
    device.close()


def test_a_request_of_no_bytes_reaches_the_driver_as_such() -> None:
    device = NsmDevice(os.devnull, StandInDriver(simulated()).ioctl)
    assert cbor2.loads(device.exchange(b"")) == {"Error": "InvalidOperation"}
    device.close()
