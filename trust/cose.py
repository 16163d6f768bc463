"""COSE_Sign1 and COSE_Sign, untagged, with one key's one algorithm, exact headers and one encoding only.

May not: hand out a payload before its signatures hold (but for what is named `unverified`); let a message choose an
algorithm.
Rule: RFC 9052 sections 3, 4.1, 4.2 and 4.4, RFC 9053 section 2. Structures are pycose's; signatures are checked by
`cryptography` (pycose computes them in pure Python, which takes over ten times as long).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pycose.messages.sign1message import Sign1Message
from pycose.messages.signmessage import SignMessage

from . import canonical
from .canonical import CanonicalError, Value
from .keys import KEY_ID_BYTES, PublicKey, Signer, SigningCode, SigningError

DEFAULT_LIMIT: Final = 1 << 20
"""Bytes of a COSE message that are read unless the caller says otherwise."""
MAX_SIGNERS: Final = 64

_ALG: Final = {"ed25519": -8, "p384": -35}  # EdDSA and ES384 of RFC 9053
_EMPTY: Final = b""


class _Header(enum.IntEnum):
    """Header parameters that we write and accept, all protected (RFC 9052, table 3)."""

    ALG = 1
    CONTENT_TYPE = 3
    KID = 4


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload whose signature holds, and the id of the key that made it."""

    payload: bytes
    kid: bytes


@dataclass(frozen=True, slots=True)
class QuorumVerified:
    """A payload that at least the threshold of known keys signed, and the ids of all that did, sorted."""

    payload: bytes
    kids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Signature:
    protected: bytes
    alg: int
    kid: bytes
    signature: bytes

    def plain(self) -> list[object]:
        return [self.protected, {}, self.signature]


# ---- COSE_Sign1 ----------------------------------------------------------------------------------------------------


def sign1(payload: bytes, key: Signer, *, content_type: str, external_aad: bytes = _EMPTY) -> bytes:
    """An untagged COSE_Sign1 of `payload`: canonical; `alg`, `content type`, `kid` protected, nothing unprotected."""
    protected = canonical.encode(
        {
            int(_Header.ALG): _ALG[key.public.algorithm],
            int(_Header.CONTENT_TYPE): content_type,
            int(_Header.KID): key.public.key_id,
        }
    )
    signature = key.sign(_to_be_signed1(protected, payload, external_aad))
    return canonical.encode([protected, {}, payload, signature])


def verify1(
    data: bytes,
    keys: Mapping[bytes, PublicKey],
    *,
    content_type: str,
    external_aad: bytes = _EMPTY,
    limit: int = DEFAULT_LIMIT,
) -> Verified:
    """The payload of a COSE_Sign1 that one of `keys` (by key id) signed as `content_type`.

    Raises `SigningError`: MALFORMED, UNKNOWN_HEADER, WRONG_CONTENT_TYPE, UNKNOWN_KEY, WRONG_ALGORITHM, BAD_SIGNATURE.
    """
    _require_honest_ids(keys)
    protected, payload, signature = _read1(data, limit)
    header = _read_header(protected, {_Header.ALG, _Header.CONTENT_TYPE, _Header.KID})
    _require_content_type(header, content_type)
    one = _signature_of(header, protected, signature)
    _key_for(one, keys).verify(signature, _to_be_signed1(protected, payload, external_aad))
    return Verified(payload, one.kid)


def _read1(data: bytes, limit: int) -> tuple[bytes, bytes, bytes]:
    protected, payload, signature = _read_envelope(data, limit, "COSE_Sign1")
    if not isinstance(signature, bytes):
        raise _malformed("COSE_Sign1", "its signature is not bytes")
    return protected, payload, signature


def _to_be_signed1(protected: bytes, payload: bytes, external_aad: bytes) -> bytes:
    message = Sign1Message(phdr_encoded=protected, payload=payload, external_aad=external_aad)
    structure: bytes = message._create_sig_structure()
    return structure


# ---- COSE_Sign -----------------------------------------------------------------------------------------------------


def sign(payload: bytes, keys: Signer | tuple[Signer, ...], *, content_type: str) -> bytes:
    """An untagged COSE_Sign of `payload` with one signature a key, sorted by key id.

    Raises `SigningError(DUPLICATE_SIGNER)` when a key is given twice, `ValueError` without any key.
    """
    given = keys if isinstance(keys, tuple) else (keys,)
    if not given:
        raise ValueError("a COSE_Sign needs at least one key")
    data = canonical.encode([canonical.encode({int(_Header.CONTENT_TYPE): content_type}), {}, payload, []])
    for key in given:
        data = _add(data, key, allow_none=True)
    return data


def add_signature(data: bytes, key: Signer) -> bytes:
    """The same COSE_Sign with one more signature. Does NOT check those that are there: `verify_quorum` does.

    Raises `SigningError`: MALFORMED, UNKNOWN_HEADER, or DUPLICATE_SIGNER when the key has signed already.
    """
    return _add(data, key, allow_none=False)


def _add(data: bytes, key: Signer, *, allow_none: bool) -> bytes:
    body, payload, signatures = _read_many(data, DEFAULT_LIMIT, allow_none=allow_none)
    protected = canonical.encode({int(_Header.ALG): _ALG[key.public.algorithm], int(_Header.KID): key.public.key_id})
    made = _Signature(
        protected,
        _ALG[key.public.algorithm],
        key.public.key_id,
        key.sign(_to_be_signed(body, protected, payload)),
    )
    if any(present.kid == made.kid for present in signatures):
        raise SigningError(SigningCode.DUPLICATE_SIGNER, f"{key.public.text} has signed this already")
    everyone = sorted((*signatures, made), key=lambda one: one.kid)
    return canonical.encode([body, {}, payload, [one.plain() for one in everyone]])


def verify_quorum(
    data: bytes,
    keys: Mapping[bytes, PublicKey],
    threshold: int,
    *,
    content_type: str,
    limit: int = DEFAULT_LIMIT,
) -> QuorumVerified:
    """The payload of a COSE_Sign that at least `threshold` different keys signed as `content_type`.

    Every signature in it must be by one of `keys` and hold: a stranger's or a broken one refuses the whole, so that
    what is shown as "signed by" is never more than what was checked. Raises `SigningError` as `verify1` does, and
    DUPLICATE_SIGNER or QUORUM; `ValueError` on a threshold below 1, which would accept anything.
    """
    if threshold < 1:
        raise ValueError("a quorum of none would accept anything: the threshold is at least 1")
    _require_honest_ids(keys)
    body, payload, signatures = _read_many(data, limit, allow_none=False)
    _require_content_type(_read_header(body, {_Header.CONTENT_TYPE}), content_type)
    for one in signatures:
        _key_for(one, keys).verify(one.signature, _to_be_signed(body, one.protected, payload))
    if len(signatures) < threshold:
        raise SigningError(
            SigningCode.QUORUM, f"{len(signatures)} of the {threshold} signatures needed are there: collect the others"
        )
    return QuorumVerified(payload, tuple(one.kid for one in signatures))


def _read_many(data: bytes, limit: int, *, allow_none: bool) -> tuple[bytes, bytes, list[_Signature]]:
    body, payload, listed = _read_envelope(data, limit, "COSE_Sign")
    if not isinstance(listed, list):
        raise _malformed("COSE_Sign", "its signatures are not an array")
    if not (0 if allow_none else 1) <= len(listed) <= MAX_SIGNERS:
        raise _malformed("COSE_Sign", f"it has {len(listed)} signatures, expected 1 to {MAX_SIGNERS}")
    signatures: list[_Signature] = []
    for item in listed:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], bytes)):
            raise _malformed("COSE_Sign", "a signature is not [protected, {}, bytes]")
        protected = _require_protected(item[0], item[1], "COSE_Sign")
        one = _signature_of(_read_header(protected, {_Header.ALG, _Header.KID}), protected, item[2])
        if signatures and one.kid <= signatures[-1].kid:
            twice = one.kid == signatures[-1].kid
            raise SigningError(
                SigningCode.DUPLICATE_SIGNER if twice else SigningCode.MALFORMED,
                f"the key {one.kid.hex()} signs twice" if twice else "the signatures are not sorted by key id",
            )
        signatures.append(one)
    return body, payload, signatures


def _to_be_signed(body: bytes, protected: bytes, payload: bytes) -> bytes:
    message = SignMessage.from_cose_obj([body, {}, payload, [[protected, {}, b""]]], True)
    structure: bytes = message.signers[0]._create_sig_structure()
    return structure


# ---- what is not checked, and named so -------------------------------------------------------------------------------


def unverified_payload(data: bytes, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The payload of a COSE_Sign1 or COSE_Sign that NOBODY has checked: to show to a person, never to act upon."""
    return _read_envelope(data, limit, "COSE message")[1]


def unverified_signers(data: bytes, *, limit: int = DEFAULT_LIMIT) -> tuple[bytes, ...]:
    """The key ids that a COSE_Sign1 or COSE_Sign CLAIMS to be signed by: to show to a person, never to act upon."""
    protected, _, last = _read_envelope(data, limit, "COSE message")
    if isinstance(last, bytes):
        header = _read_header(protected, {_Header.ALG, _Header.CONTENT_TYPE, _Header.KID})
        return (_signature_of(header, protected, last).kid,)
    return tuple(one.kid for one in _read_many(data, limit, allow_none=False)[2])


# ---- the parts of both -----------------------------------------------------------------------------------------------


def _malformed(what: str, why: str) -> SigningError:
    return SigningError(SigningCode.MALFORMED, f"this is no {what} of ours: {why}")


def _read_envelope(data: bytes, limit: int, what: str) -> tuple[bytes, bytes, Value]:
    """(protected header, payload, what comes last) of an untagged four-element COSE message."""
    try:
        message = canonical.decode(data, limit=limit)
    except CanonicalError as error:
        raise _malformed(what, error.sentence) from None
    if not (isinstance(message, list) and len(message) == 4):
        raise _malformed(what, "it is not an array of four")
    protected = _require_protected(message[0], message[1], what)
    payload = message[2]
    if not isinstance(payload, bytes):
        raise _malformed(what, "its payload is not bytes (a detached payload is not accepted)")
    return protected, payload, message[3]


def _require_protected(protected: Value, unprotected: Value, what: str) -> bytes:
    if not isinstance(protected, bytes):
        raise _malformed(what, "its protected header is not bytes")
    if not isinstance(unprotected, dict):
        raise _malformed(what, "its unprotected header is not a map")
    if unprotected:
        raise SigningError(
            SigningCode.UNKNOWN_HEADER, f"{len(unprotected)} unprotected headers: nobody signed them, none is accepted"
        )
    return protected


def _read_header(protected: bytes, expected: set[_Header]) -> Mapping[int, Value]:
    try:
        header = canonical.decode(protected, limit=1024)
    except CanonicalError as error:
        raise _malformed("COSE message", f"its protected header: {error.sentence}") from None
    if not isinstance(header, dict):
        raise _malformed("COSE message", "its protected header is not a map")
    wanted = {int(one) for one in expected}
    if unknown := [key for key in header if key not in wanted]:
        raise SigningError(SigningCode.UNKNOWN_HEADER, f"the header {unknown[0]!r} is not accepted")
    if missing := sorted(wanted - header.keys()):
        raise _malformed("COSE message", f"the header {missing[0]} is missing")
    return {int(one): header[int(one)] for one in expected}


def _require_content_type(header: Mapping[int, Value], expected: str) -> None:
    found = header[_Header.CONTENT_TYPE]
    if found != expected:
        raise SigningError(
            SigningCode.WRONG_CONTENT_TYPE,
            f"this signs {str(found)[:80]!r}, expected {expected!r}: it is another thing",
        )


def _signature_of(header: Mapping[int, Value], protected: bytes, signature: bytes) -> _Signature:
    alg, kid = header[_Header.ALG], header[_Header.KID]
    if not isinstance(alg, int) or isinstance(alg, bool):
        raise _malformed("COSE message", "its algorithm is not an integer")
    if not isinstance(kid, bytes) or len(kid) != KEY_ID_BYTES:
        raise _malformed("COSE message", f"its key id is not {KEY_ID_BYTES} bytes")
    return _Signature(protected, alg, kid, signature)


def _key_for(one: _Signature, keys: Mapping[bytes, PublicKey]) -> PublicKey:
    key = keys.get(one.kid)
    if key is None:
        raise SigningError(SigningCode.UNKNOWN_KEY, f"signed by a key that is not known here (key id {one.kid.hex()})")
    if one.alg != _ALG[key.algorithm]:
        raise SigningError(
            SigningCode.WRONG_ALGORITHM,
            f"the message names algorithm {one.alg}, and the key {key.text} signs with {_ALG[key.algorithm]} only",
        )
    return key


def _require_honest_ids(keys: Mapping[bytes, PublicKey]) -> None:
    # Our own mistake, never a message's: one key under two ids would count twice.
    if any(key.key_id != kid for kid, key in keys.items()):
        raise ValueError("a key stands under an id that is not its own")
