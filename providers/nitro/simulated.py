"""A simulated NSM: the real one's requests, shapes, limits, error codes and lock rules, under a CA of its own.

May not: be more lenient than the real one anywhere, or chain to AWS's root. Read a clock that it was not given.
Rule: AWS `aws-nitro-enclaves-nsm-api` and its nsm-check; QEMU's virtio-nsm; docs/architecture.md, "Modes".
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tea.trust import pcr

from .authority import InstanceCredential, SimulatedCa, issue_leaf
from .client import MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, PCR_COUNT, PCR_SIZE, ErrorCode
from .device import MAX_REQUEST, MAX_RESPONSE

__all__ = ["InstanceCredential", "SimulatedCa", "SimulatedNsm"]

_LOCKED_AT_BOOT: Final = 16
_RANDOM_SIZE: Final = 256
_PROTECTED: Final = cbor2.dumps({1: -35})
_U16: Final = 0xFFFF
_RENEW: Final = 600
"""Seconds before a leaf's end from which a new one is made."""


class _Refusal(Exception):
    """An error response; never leaves this module."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class _Leaf(NamedTuple):
    certificate: bytes
    key: ec.EllipticCurvePrivateKey
    start: float
    end: float


class SimulatedNsm:
    """The NSM of one simulated enclave, from its boot to its end.

    `module_id` is `<instance id>-enc<anything>` with the credential's instance id. `pcrs` gives what the image
    measures to (0, 1, 2, and others of 5 to 15; 48 bytes each); PCR3 follows from `role_arn`, PCR4 from the instance
    id; the rest is zero. `clock` gives seconds since the epoch. `debug` zeroes PCR0 to 2, as an enclave started in
    debug mode has them. Raises `ValueError` on arguments that no real NSM could have.

    Faults are attribute edits: `failing` makes every exchange raise that errno; `indefinite` writes the payload as an
    indefinite-length map, as AWS has done since August 2025.
    """

    def __init__(
        self,
        credential: InstanceCredential,
        module_id: str,
        pcrs: Mapping[int, bytes],
        clock: Callable[[], float],
        *,
        role_arn: str | None = None,
        debug: bool = False,
    ) -> None:
        instance, separator, enclave = module_id.partition("-enc")
        if instance != credential.instance_id or not separator or not enclave or not module_id.isascii():
            raise ValueError(
                f"a module id is '{credential.instance_id}-enc...' for this credential's instance, not {module_id!r}"
            )
        for index, value in pcrs.items():
            if index not in {0, 1, 2, *range(5, _LOCKED_AT_BOOT)}:
                raise ValueError(
                    f"PCR{index} is not the image's: 3 is the role's, 4 the instance's, 16 to 31 are extended"
                )
            if len(value) != PCR_SIZE:
                raise ValueError(f"PCR{index} has {PCR_SIZE} bytes, not {len(value)}")
        self.failing: int | None = None
        self.indefinite = False
        self._module_id = module_id
        self._credential = credential
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._leaf: _Leaf | None = None
        self._key = _load_key(credential)
        self._pcrs = [pcrs.get(index, pcr.ZERO) for index in range(PCR_COUNT)]
        if debug:
            self._pcrs[0:3] = [pcr.ZERO] * 3
        if role_arn is not None:
            self._pcrs[3] = pcr.pcr3(role_arn)
        self._pcrs[4] = pcr.pcr4(instance)
        self._locked = [index < _LOCKED_AT_BOOT for index in range(PCR_COUNT)]

    def exchange(self, request: bytes) -> bytes:
        """One CBOR request, one CBOR response; `OSError` as from the driver (EMSGSIZE over 0x1000 bytes)."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the NSM device is closed")
            if len(request) > MAX_REQUEST:
                raise OSError(errno.EMSGSIZE, f"an NSM request may have {MAX_REQUEST} bytes, not {len(request)}")
            if self.failing is not None:
                raise OSError(self.failing, os.strerror(self.failing))
            try:
                response = cbor2.dumps(self._serve(request))
                if len(response) > MAX_RESPONSE:
                    raise _Refusal(ErrorCode.BUFFER_TOO_SMALL)
            except _Refusal as refusal:
                response = cbor2.dumps({"Error": str(refusal.code)})
            return response

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _serve(self, request: bytes) -> object:
        name, fields = _parse(request)
        match name, fields:
            case "DescribeNSM", None:
                return {name: self._describe()}
            case "GetRandom", None:
                return {name: {"random": os.urandom(_RANDOM_SIZE)}}
            case "DescribePCR", dict():
                index = _pcr_index(fields)
                return {name: {"lock": self._locked[index], "data": self._pcrs[index]}}
            case "ExtendPCR", dict():
                return {name: {"data": self._extend(fields)}}
            case "LockPCR", dict():
                index = _pcr_index(fields)
                if self._locked[index]:
                    raise _Refusal(ErrorCode.READ_ONLY_INDEX)
                self._locked[index] = True
                return name
            case "LockPCRs", dict():
                stop = _u16(fields, "range")
                if stop > PCR_COUNT:
                    raise _Refusal(ErrorCode.INVALID_INDEX)
                self._locked[:stop] = [True] * stop
                return name
            case "Attestation", dict():
                return {name: {"document": self._attest(fields)}}
            case _:
                raise _Refusal(ErrorCode.INVALID_OPERATION)

    def _describe(self) -> dict[str, object]:
        return {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": self._module_id,
            "max_pcrs": PCR_COUNT,
            "locked_pcrs": [index for index in range(PCR_COUNT) if self._locked[index]],
            "digest": "SHA384",
        }

    def _extend(self, fields: dict[object, object]) -> bytes:
        index, data = _pcr_index(fields), fields.get("data")
        if not isinstance(data, bytes):
            raise _Refusal(ErrorCode.INVALID_OPERATION)
        if self._locked[index]:
            raise _Refusal(ErrorCode.READ_ONLY_INDEX)
        self._pcrs[index] = pcr.extend(self._pcrs[index], data)
        return self._pcrs[index]

    def _attest(self, fields: dict[object, object]) -> bytes:
        user_data = _optional(fields, "user_data", MAX_USER_DATA)
        nonce = _optional(fields, "nonce", MAX_NONCE)
        public_key = _optional(fields, "public_key", MAX_PUBLIC_KEY)
        now = self._clock()
        leaf = self._current_leaf(now)
        payload = cbor2.dumps(
            {
                "module_id": self._module_id,
                "digest": "SHA384",
                "timestamp": int(now * 1000),
                "pcrs": {index: self._pcrs[index] for index in range(PCR_COUNT) if self._locked[index]},
                "certificate": leaf.certificate,
                "cabundle": list(self._credential.cabundle),
                "public_key": public_key,
                "user_data": user_data,
                "nonce": nonce,
            }
        )
        if self.indefinite:
            payload = b"\xbf" + payload[1:] + b"\xff"
        signed = cbor2.dumps(["Signature1", _PROTECTED, b"", payload])
        r, s = decode_dss_signature(leaf.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return cbor2.dumps([_PROTECTED, {}, payload, r.to_bytes(PCR_SIZE, "big") + s.to_bytes(PCR_SIZE, "big")])

    def _current_leaf(self, now: float) -> _Leaf:
        leaf = self._leaf
        if leaf is None or not leaf.start <= now < leaf.end - _RENEW:
            certificate, key, end = issue_leaf(self._credential, self._key, self._module_id, now)
            leaf = self._leaf = _Leaf(certificate, key, int(now), end)
        return leaf


def _load_key(credential: InstanceCredential) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_der_private_key(credential.key, password=None)
        certificate = x509.load_der_x509_certificate(credential.cabundle[-1])
    except (ValueError, TypeError):
        raise ValueError("the instance credential's key or certificate cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the instance credential's key is not that of its last certificate")
    return key


def _parse(request: bytes) -> tuple[object, dict[object, object] | None]:
    try:
        value = cbor2.loads(request)
        # What does not come out the same was followed by something, or held something a request never holds.
        if len(cbor2.dumps(value)) != len(request):
            raise _Refusal(ErrorCode.INVALID_OPERATION)
    except (cbor2.CBORError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError):
        raise _Refusal(ErrorCode.INVALID_OPERATION) from None
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        (name, fields), *_ = value.items()
        if isinstance(fields, dict):
            return name, fields
    raise _Refusal(ErrorCode.INVALID_OPERATION)


def _u16(fields: dict[object, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _U16:
        raise _Refusal(ErrorCode.INVALID_OPERATION)
    return value


def _pcr_index(fields: dict[object, object]) -> int:
    index = _u16(fields, "index")
    if index >= PCR_COUNT:
        raise _Refusal(ErrorCode.INVALID_INDEX)
    return index


def _optional(fields: dict[object, object], name: str, limit: int) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise _Refusal(ErrorCode.INVALID_OPERATION)
    if len(value) > limit:
        raise _Refusal(ErrorCode.INPUT_TOO_LARGE)
    return value
