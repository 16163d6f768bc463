"""What stands in an attestation document: syntax, types and sizes of every field. Nothing here is believed yet.

May not: verify a signature, or be taken for a verification (`UnverifiedDocument` says so by its name).
Rule: AWS, "Verifying the root of trust" (sizes and types of the payload); RFC 9052 section 4.2 (COSE_Sign1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, TypeVar

from . import nsm_cbor, pcr
from .attestation_codes import AttestationCode, AttestationError

MAX_DOCUMENT: Final = 0x3000
"""Bytes of the largest response of an NSM; no document is larger."""
MAX_CERTIFICATE: Final = 1024
MAX_CHAIN: Final = 8
"""Certificates in a cabundle; AWS's has four."""
MAX_OPTIONAL: Final = 1024
"""Bytes of user_data, nonce and public_key that are accepted (what AWS's schema says; a producer keeps to less)."""
MAX_MODULE_ID: Final = 256
MAX_TIMESTAMP: Final = 253_402_300_800_000
"""Milliseconds since the epoch of the year 10000, which no calendar here reaches."""
SIGNATURE_SIZE: Final = 96
PROTECTED: Final = bytes.fromhex("a1013822")
"""{1: -35}: the algorithm is ES384, and there is no other header."""

_OPENING: Final = b"\x84" + nsm_cbor.byte_string(PROTECTED) + b"\xa0"
_REQUIRED: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL: Final = ("public_key", "user_data", "nonce")
_TYPES: Final = {int: "an integer", str: "text", bytes: "bytes", list: "an array", dict: "a map", type(None): "null"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentContents:
    """The fields of an attestation document, right in type and size."""

    module_id: str
    """`<instance id>-enc<enclave id>` on AWS."""
    digest: str
    """Always SHA384."""
    timestamp: int
    """When the NSM made it: milliseconds since the epoch."""
    pcrs: Mapping[int, bytes]
    """The locked PCRs, 48 bytes each."""
    certificate: bytes
    """The leaf that signs, in DER."""
    cabundle: tuple[bytes, ...]
    """The chain above it in DER, root first."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def instance_id(self) -> str:
        """The EC2 instance, as the module id names it."""
        return pcr.instance_of(self.module_id)

    @property
    def instance_confirmed(self) -> bool:
        """Whether PCR4 holds the instance that the module id names (so it is in every real document seen)."""
        return self.module_id.isascii() and self.pcrs.get(pcr.INSTANCE_PCR) == pcr.pcr4(self.instance_id)

    @property
    def debug(self) -> bool:
        """Whether PCR0 to 2 are zero or missing: an enclave in debug mode, whose console anyone can read."""
        return all(self.pcrs.get(index, pcr.ZERO) == pcr.ZERO for index in pcr.IMAGE_PCRS)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedDocument(DocumentContents):
    """A document that was only read: anyone can have written it."""

    protected: bytes
    payload: bytes
    """The bytes that are signed, exactly as they came."""
    signature: bytes
    """r || s, 96 bytes."""


def parse_document(raw: bytes) -> UnverifiedDocument:
    """Read a document (at most 12,288 bytes) WITHOUT verifying it. Raises `AttestationError` and nothing else."""
    payload, signature = _parse_sign1(raw)
    fields = _decode(payload, "the payload")
    if not isinstance(fields, dict):
        raise _type("the payload", fields, "a map")
    names = [*_REQUIRED, *_OPTIONAL]
    for name in fields:
        if name not in names:
            raise AttestationError(
                AttestationCode.FIELD_UNKNOWN, f"the payload has a field {name!r:.80}, expected only {', '.join(names)}"
            )
    for name in _REQUIRED:
        if name not in fields:
            raise AttestationError(AttestationCode.FIELD_MISSING, f"the payload has no field {name!r}")
    if _typed("digest", fields["digest"], str) != "SHA384":
        raise AttestationError(AttestationCode.DIGEST, f"the digest is {fields['digest']!r:.80}, expected 'SHA384'")
    return UnverifiedDocument(
        module_id=_module_id(fields["module_id"]),
        digest="SHA384",
        timestamp=_timestamp(fields["timestamp"]),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_sized("certificate", fields["certificate"], 1, MAX_CERTIFICATE),
        cabundle=_cabundle(fields["cabundle"]),
        public_key=_optional("public_key", fields.get("public_key")),
        user_data=_optional("user_data", fields.get("user_data")),
        nonce=_optional("nonce", fields.get("nonce")),
        protected=PROTECTED,
        payload=payload,
        signature=signature,
    )


def document_to_builtins(document: DocumentContents) -> dict[str, object]:
    """The document as plain data for display: bytes in hex, the time in milliseconds and in words."""
    moment = datetime.fromtimestamp(document.timestamp / 1000, UTC)
    return {
        "module_id": document.module_id,
        "instance_id": document.instance_id,
        "instance_confirmed": document.instance_confirmed,
        "digest": document.digest,
        "timestamp": document.timestamp,
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "debug": document.debug,
        "pcrs": {str(index): value.hex() for index, value in sorted(document.pcrs.items())},
        "public_key": _hex(document.public_key),
        "user_data": _hex(document.user_data),
        "nonce": _hex(document.nonce),
        "certificate": document.certificate.hex(),
        "cabundle": [certificate.hex() for certificate in document.cabundle],
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _parse_sign1(raw: bytes) -> tuple[bytes, bytes]:
    """(payload, signature) of the untagged COSE_Sign1, whose encoding outside the payload must be the shortest."""
    if len(raw) > MAX_DOCUMENT:
        raise AttestationError(
            AttestationCode.TOO_LARGE,
            f"{len(raw)} bytes, expected at most {MAX_DOCUMENT}: this is no attestation document",
        )
    if raw and raw[0] >> 5 == 6:
        raise AttestationError(
            AttestationCode.TAGGED,
            f"the document starts with a CBOR tag (0x{raw[0]:02x}), expected the untagged COSE_Sign1 of an NSM",
        )
    if raw and raw[0] >> 5 != 4:
        raise AttestationError(
            AttestationCode.STRUCTURE,
            f"this is no attestation document: it starts with 0x{raw[0]:02x}, expected a COSE_Sign1 (0x84)",
        )
    message = _decode(raw, "the document")
    if not isinstance(message, list) or len(message) != 4:
        raise AttestationError(
            AttestationCode.STRUCTURE,
            "the document is not a COSE_Sign1: expected an array of protected header, unprotected header, payload and "
            "signature",
        )
    protected, unprotected, payload, signature = message
    if not isinstance(protected, bytes) or not isinstance(payload, bytes) or not isinstance(signature, bytes):
        raise AttestationError(AttestationCode.STRUCTURE, "protected header, payload and signature must be bytes")
    if protected != PROTECTED or unprotected != {}:
        raise AttestationError(
            AttestationCode.HEADERS,
            f"the protected header is {protected.hex():.64}, expected {PROTECTED.hex()} (ES384 and nothing else) and "
            "an empty unprotected header",
        )
    if len(signature) != SIGNATURE_SIZE:
        raise AttestationError(
            AttestationCode.STRUCTURE, f"the signature has {len(signature)} bytes, expected {SIGNATURE_SIZE} (r || s)"
        )
    # Outside the payload nothing is signed, so one document has one encoding: nobody can make a second file of it.
    if raw != _OPENING + nsm_cbor.byte_string(payload) + nsm_cbor.byte_string(signature):
        raise AttestationError(
            AttestationCode.STRUCTURE, "the COSE_Sign1 is not in its shortest encoding, which is the one an NSM writes"
        )
    return payload, signature


def _decode(data: bytes, what: str) -> nsm_cbor.Value:
    try:
        return nsm_cbor.decode(data)
    except nsm_cbor.NsmCborError as error:
        code = AttestationCode.NOT_CBOR
        if error.trailing:
            code = AttestationCode.TRAILING
        elif error.duplicate is not None:
            code = AttestationCode.FIELD_DUPLICATE
        raise AttestationError(code, f"{what} is not the CBOR of an attestation document: {error}") from None


def _type(name: str, value: object, expected: str) -> AttestationError:
    return AttestationError(
        AttestationCode.FIELD_TYPE, f"{name} is {_TYPES.get(type(value), 'something else')}, expected {expected}"
    )


def _typed(name: str, value: nsm_cbor.Value, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise _type(name, value, _TYPES[kind])
    return value


def _sized(name: str, value: nsm_cbor.Value, least: int, most: int) -> bytes:
    data = _typed(name, value, bytes)
    if not least <= len(data) <= most:
        raise AttestationError(AttestationCode.FIELD_SIZE, f"{name} has {len(data)} bytes, expected {least} to {most}")
    return data


def _optional(name: str, value: nsm_cbor.Value) -> bytes | None:
    # A zero-length public_key occurs in a real document of 2021, so zero is a size like others.
    return None if value is None else _sized(name, value, 0, MAX_OPTIONAL)


def _module_id(value: nsm_cbor.Value) -> str:
    text = _typed("module_id", value, str)
    # Printable: it ends up in logs and on terminals, where control characters would speak for us.
    if not 1 <= len(text) <= MAX_MODULE_ID or not text.isprintable():
        raise AttestationError(
            AttestationCode.FIELD_SIZE,
            f"module_id is {text!r:.80}, expected 1 to {MAX_MODULE_ID} printable characters",
        )
    return text


def _timestamp(value: nsm_cbor.Value) -> int:
    moment = _typed("timestamp", value, int)
    if not 0 < moment < MAX_TIMESTAMP:
        raise AttestationError(
            AttestationCode.FIELD_SIZE,
            f"timestamp is {moment}, expected milliseconds since the epoch, before year 10000",
        )
    return moment


def _pcrs(value: nsm_cbor.Value) -> Mapping[int, bytes]:
    entries = _typed("pcrs", value, dict)
    if not 1 <= len(entries) <= pcr.COUNT:
        raise AttestationError(AttestationCode.FIELD_SIZE, f"there are {len(entries)} PCRs, expected 1 to {pcr.COUNT}")
    pcrs: dict[int, bytes] = {}
    for index, content in entries.items():
        if not isinstance(index, int) or not 0 <= index < pcr.COUNT:
            raise AttestationError(
                AttestationCode.PCR_INDEX, f"there is a PCR {index!r:.80}, expected 0 to {pcr.COUNT - 1}"
            )
        data = _typed(f"PCR{index}", content, bytes)
        if len(data) != pcr.SIZE:
            raise AttestationError(
                AttestationCode.PCR_LENGTH, f"PCR{index} has {len(data)} bytes, expected {pcr.SIZE} (SHA384)"
            )
        pcrs[index] = data
    return MappingProxyType(pcrs)


def _cabundle(value: nsm_cbor.Value) -> tuple[bytes, ...]:
    bundle = _typed("cabundle", value, list)
    if not 1 <= len(bundle) <= MAX_CHAIN:
        raise AttestationError(
            AttestationCode.FIELD_SIZE, f"cabundle has {len(bundle)} certificates, expected 1 to {MAX_CHAIN}"
        )
    return tuple(_sized(f"cabundle[{index}]", der, 1, MAX_CERTIFICATE) for index, der in enumerate(bundle))
