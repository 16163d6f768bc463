"""Typed requests to an NSM over its device: CBOR both ways, every response checked.

May not: decide what is extended, locked or attested (the host does), or believe a response's shape unread.
Rule: AWS `aws-nitro-enclaves-nsm-api` (requests, responses, error codes); docs/architecture.md, "Measured boot".
"""

from __future__ import annotations

import enum
import errno
from typing import Final, NamedTuple

import cbor2

from .device import Device

PCR_COUNT: Final = 32
PCR_SIZE: Final = 48
"""Bytes of a PCR (SHA-384)."""
MAX_USER_DATA: Final = 512
MAX_NONCE: Final = 512
MAX_PUBLIC_KEY: Final = 1024
_U16: Final = 0xFFFF


class ErrorCode(enum.StrEnum):
    """The NSM's error codes, as the NSM spells them."""

    SUCCESS = "Success"
    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_INDEX = "InvalidIndex"
    INVALID_RESPONSE = "InvalidResponse"
    READ_ONLY_INDEX = "ReadOnlyIndex"
    INVALID_OPERATION = "InvalidOperation"
    BUFFER_TOO_SMALL = "BufferTooSmall"
    INPUT_TOO_LARGE = "InputTooLarge"
    INTERNAL_ERROR = "InternalError"


class NsmError(Exception):
    """The NSM refused or failed: its code, and a sentence that names the request."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


class Description(NamedTuple):
    """What DescribeNSM answers."""

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: frozenset[int]
    digest: str


class Pcr(NamedTuple):
    """One register: locked or not, and its 48 bytes."""

    locked: bool
    data: bytes


class Nsm:
    """An NSM with types. Every method raises `NsmError`; all are safe to call from threads."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def describe(self) -> Description:
        """Version, module id, number of PCRs, which are locked, digest."""
        fields = self._ask("DescribeNSM", None)
        version = tuple(_number(fields, name) for name in ("version_major", "version_minor", "version_patch"))
        module_id, digest, locked = fields.get("module_id"), fields.get("digest"), fields.get("locked_pcrs")
        if not (isinstance(module_id, str) and isinstance(digest, str) and isinstance(locked, list)):
            raise _odd("DescribeNSM", "module_id, digest or locked_pcrs is missing")
        if not all(type(index) is int for index in locked):
            raise _odd("DescribeNSM", "locked_pcrs holds something else than indices")
        return Description(
            (version[0], version[1], version[2]), module_id, _number(fields, "max_pcrs"), frozenset(locked), digest
        )

    def random(self, size: int) -> bytes:
        """`size` bytes of the NSM's random numbers; it gives at most 256 a request, so larger sizes ask often."""
        if size < 0:
            raise NsmError(ErrorCode.INVALID_ARGUMENT, f"random: a size is 0 or more, not {size}")
        collected = bytearray()
        while len(collected) < size:
            piece = _bytes(self._ask("GetRandom", None), "GetRandom", "random")
            if not piece:
                raise _odd("GetRandom", "no bytes came")
            collected += piece
        return bytes(collected[:size])

    def describe_pcr(self, index: int) -> Pcr:
        """One PCR, 0 to 31."""
        fields = self._ask("DescribePCR", {"index": _index(index)})
        locked = fields.get("lock")
        if type(locked) is not bool:
            raise _odd("DescribePCR", "`lock` is missing")
        return Pcr(locked, _pcr(fields, "DescribePCR"))

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Set an unlocked PCR to SHA-384(old || data); answers the new 48 bytes. READ_ONLY_INDEX when it is locked."""
        return _pcr(self._ask("ExtendPCR", {"index": _index(index), "data": data}), "ExtendPCR")

    def lock_pcr(self, index: int) -> None:
        """Lock one PCR of 16 to 31 until the enclave ends. READ_ONLY_INDEX when it is locked already."""
        self._ask("LockPCR", {"index": _index(index)}, empty=True)

    def lock_pcrs(self, stop: int) -> None:
        """Lock PCRs 0 to `stop` - 1, locked ones included; `stop` is 0 to 32."""
        self._ask("LockPCRs", {"range": _index(stop)}, empty=True)

    def attestation(
        self, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        """A signed attestation document (untagged COSE_Sign1) over the locked PCRs.

        At most 512 bytes of user_data, 512 of nonce, 1024 of public_key: what every published reader accepts.
        """
        for name, value, limit in (
            ("user_data", user_data, MAX_USER_DATA),
            ("nonce", nonce, MAX_NONCE),
            ("public_key", public_key, MAX_PUBLIC_KEY),
        ):
            if value is not None and len(value) > limit:
                raise NsmError(
                    ErrorCode.INPUT_TOO_LARGE, f"Attestation: {name} has {len(value)} bytes, at most {limit} are taken"
                )
        fields = self._ask("Attestation", {"user_data": user_data, "nonce": nonce, "public_key": public_key})
        return _bytes(fields, "Attestation", "document")

    def _ask(self, name: str, arguments: dict[str, object] | None, *, empty: bool = False) -> dict[object, object]:
        request = cbor2.dumps(name if arguments is None else {name: arguments})
        try:
            response = self._device.exchange(request)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise NsmError(ErrorCode.INPUT_TOO_LARGE, f"{name}: the request has {len(request)} bytes") from error
            raise NsmError(ErrorCode.INTERNAL_ERROR, f"{name}: the device failed: {error}") from error
        try:
            answer = cbor2.loads(response)
        except (cbor2.CBORDecodeError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError):
            raise _odd(name, "it is no CBOR") from None
        if empty:
            if answer == name:
                return {}
        elif isinstance(answer, dict) and isinstance(fields := answer.get(name), dict):
            return fields
        if isinstance(answer, dict) and isinstance(code := answer.get("Error"), str):
            raise _refused(name, arguments, code)
        raise _odd(name, "it is neither an answer to that request nor an error")


def _refused(name: str, arguments: dict[str, object] | None, code: str) -> NsmError:
    place = next((f" {arguments[key]}" for key in ("index", "range") if arguments and key in arguments), "")
    try:
        return NsmError(ErrorCode(code), f"{name}{place} was refused")
    except ValueError:
        return _odd(name, "its error code is unknown")


def _odd(name: str, what: str) -> NsmError:
    return NsmError(ErrorCode.INVALID_RESPONSE, f"{name}: the response cannot be read: {what}")


def _index(index: int) -> int:
    if type(index) is not int or not 0 <= index <= _U16:
        raise NsmError(ErrorCode.INVALID_INDEX, f"a PCR index is 0 to {PCR_COUNT - 1}, not {index!r}")
    return index


def _number(fields: dict[object, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int:
        raise _odd("DescribeNSM", f"`{name}` is no number")
    return value


def _bytes(fields: dict[object, object], request: str, name: str) -> bytes:
    value = fields.get(name)
    if not isinstance(value, bytes):
        raise _odd(request, f"`{name}` is no byte string")
    return value


def _pcr(fields: dict[object, object], request: str) -> bytes:
    value = _bytes(fields, request, "data")
    if len(value) != PCR_SIZE:
        raise _odd(request, f"`data` has {len(value)} bytes, a PCR has {PCR_SIZE}")
    return value
