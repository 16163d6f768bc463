"""Bundles: one actor's code and its signed claims in one file, CBOR `[COSE_Sign1(claims), archive]`.

May not: parse anything before it is believed: signature, then claims, then digest, then archive. Reads no clock.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import cbor2

from . import canonical, cose
from .archive import build_archive, has_module, read_archive
from .canonical import CanonicalError
from .claims import (
    CLAIMS_CONTENT_TYPE,
    MAX_CLAIMS,
    BundleCode,
    BundleError,
    Claims,
    ClaimsInput,
    Issuer,
    SdkRange,
    interface_of,
    parse_claims,
)
from .keys import PrivateKey, PublicKey, SigningCode, SigningError

__all__ = [
    "MAX_BUNDLE",
    "MAX_CLOCK_AHEAD",
    "Bundle",
    "BundleCode",
    "BundleError",
    "ClaimsInput",
    "Issuer",
    "UnverifiedBundle",
    "build_archive",
    "build_bundle",
    "inspect_bundle",
    "read_archive",
    "recheck_bundle",
    "verify_bundle",
]

MAX_BUNDLE: Final = 64 * 1024 * 1024
"""Bytes of a bundle file."""
MAX_CLOCK_AHEAD: Final = 300
"""Seconds that an issuer's clock may be ahead of ours: enclaves' clocks drift."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was verified."""

    claims: Claims
    archive: bytes
    digest: bytes
    """SHA-256 of the file."""

    def __repr__(self) -> str:
        return f"Bundle({self.claims.name} {self.claims.version}, sha256:{self.digest.hex()})"


@dataclass(frozen=True, slots=True)
class UnverifiedBundle:
    """What a bundle SAYS of itself. Nobody has checked it: to show to a person, never to act upon."""

    claims: Claims
    digest: bytes
    """SHA-256 of the file."""
    archive_size: int
    archive_matches: bool
    """Whether the archive is the one that the (unverified) claims name."""


def build_bundle(archive: bytes, claims: ClaimsInput, key: PrivateKey) -> bytes:
    """The file of a bundle: the same archive, claims and key give the same bytes.

    Raises `BundleError` when the claims or the archive would not verify.
    """
    full = claims.claims(key.public, hashlib.sha256(archive).digest())
    _require_entry(full, archive)
    signed = cose.sign1(full.encode(), key, content_type=CLAIMS_CONTENT_TYPE)
    if len(signed) > MAX_CLAIMS:
        raise BundleError(BundleCode.TOO_LARGE, f"the signed claims have {len(signed)} bytes, at most {MAX_CLAIMS}")
    data = canonical.encode([signed, archive])
    _require_size(data)
    return data


def verify_bundle(data: bytes, issuers: Mapping[bytes, Issuer], *, now: datetime | None, sdk_version: str) -> Bundle:
    """The bundle in a file, when one of `issuers` (by key id) signed it, for a name and capabilities that it may.

    `now` is an aware datetime; None leaves the claims' times unchecked (offline inspection: a host always gives it).
    Raises `BundleError` with the code of the first thing that is wrong.
    """
    # 1. size and frame; 2. signature; 3. claims; 4. what the issuer may sign; 5. time and sdk; 6. digest; 7. archive.
    signed, archive = _read_file(data)
    keys = {kid: issuer.key for kid, issuer in issuers.items()}
    try:
        verified = cose.verify1(signed, keys, content_type=CLAIMS_CONTENT_TYPE, limit=MAX_CLAIMS)
    except SigningError as error:
        unknown = error.code is SigningCode.UNKNOWN_KEY
        code = BundleCode.UNKNOWN_ISSUER if unknown else BundleCode.BAD_SIGNATURE
        raise BundleError(code, f"the bundle's claims are not believed: {error.sentence}") from None
    claims = parse_claims(verified.payload)
    _require_issuer(claims, verified.kid, issuers[verified.kid])
    if now is not None:
        _require_time(claims, now)
    if not SdkRange.parse(claims.sdk).contains(sdk_version):
        raise BundleError(
            BundleCode.WRONG_SDK,
            f"{claims.name} {claims.version} wants the sdk {claims.sdk}, this is {sdk_version}: build it anew",
        )
    if not hmac.compare_digest(hashlib.sha256(archive).digest(), claims.archive):
        raise BundleError(
            BundleCode.DIGEST_MISMATCH,
            f"the archive of {claims.name} {claims.version} is not the one that was signed: get the file again",
        )
    _require_entry(claims, archive)
    return Bundle(claims, archive, hashlib.sha256(data).digest())


def recheck_bundle(data: bytes, *, digest: bytes, issuer: PublicKey) -> bytes:
    """The archive of a file that `verify_bundle` has accepted in another process: digests and signature once more.

    `digest` is the SHA-256 of that very file, so its form, claims and rights need no second look. Every worker comes
    through here and pays a page of memory for whatever it runs for the first time: hence so little.
    Raises `BundleError`: DIGEST_MISMATCH, BAD_SIGNATURE.
    """
    if not hmac.compare_digest(hashlib.sha256(data).digest(), digest):
        raise BundleError(BundleCode.DIGEST_MISMATCH, "the file is not the one that the host named and has verified")
    signed, end = _bytes_at(data, 1)
    archive, _ = _bytes_at(data, end)
    protected, _, payload, signature = cbor2.loads(signed)
    try:
        issuer.verify(signature, cbor2.dumps(["Signature1", protected, b"", payload]))
    except SigningError as error:
        raise BundleError(BundleCode.BAD_SIGNATURE, f"the bundle's claims are not believed: {error.sentence}") from None
    if not hmac.compare_digest(hashlib.sha256(archive).digest(), cbor2.loads(payload)["archive"]):
        raise BundleError(BundleCode.DIGEST_MISMATCH, "the archive is not the one that was signed: get the file again")
    return archive


def _bytes_at(data: bytes, start: int) -> tuple[bytes, int]:
    """A CBOR byte string in a file that was read before, and where it ends. cbor2 takes seconds for fifty megabytes."""
    size = data[start] & 0x1F
    start += 1
    if size >= 24:
        width = 1 << size - 24
        size = int.from_bytes(data[start : start + width], "big")
        start += width
    return data[start : start + size], start + size


def inspect_bundle(data: bytes) -> UnverifiedBundle:
    """What the file says of itself, unverified. Raises `BundleError` when it is no bundle at all."""
    signed, archive = _read_file(data)
    try:
        claims = parse_claims(cose.unverified_payload(signed, limit=MAX_CLAIMS))
    except SigningError as error:
        raise BundleError(BundleCode.MALFORMED, f"this is no bundle: {error.sentence}") from None
    matches = hmac.compare_digest(hashlib.sha256(archive).digest(), claims.archive)
    return UnverifiedBundle(claims, hashlib.sha256(data).digest(), len(archive), matches)


def _require_size(data: bytes) -> None:
    if len(data) > MAX_BUNDLE:
        raise BundleError(BundleCode.TOO_LARGE, f"the bundle has {len(data)} bytes, at most {MAX_BUNDLE}")


def _read_file(data: bytes) -> tuple[bytes, bytes]:
    _require_size(data)
    try:
        parts = canonical.decode(data, limit=MAX_BUNDLE)
    except CanonicalError as error:
        raise BundleError(BundleCode.MALFORMED, f"this is no bundle: {error.sentence}") from None
    match parts:
        case [bytes(signed), bytes(archive)] if len(signed) <= MAX_CLAIMS:
            return signed, archive
        case [bytes(signed), bytes()]:
            raise BundleError(BundleCode.TOO_LARGE, f"the signed claims have {len(signed)} bytes, at most {MAX_CLAIMS}")
        case _:
            raise BundleError(BundleCode.MALFORMED, "this is no bundle: it is not [signed claims, archive]")


def _require_issuer(claims: Claims, kid: bytes, issuer: Issuer) -> None:
    if claims.issuer != kid:
        raise BundleError(BundleCode.BAD_SIGNATURE, "the claims name another issuer than the key that signed them")
    if claims.name not in issuer.actors:
        raise BundleError(
            BundleCode.NOT_THIS_NAME,
            f"the issuer may sign {', '.join(issuer.actors) or 'nothing'}, not {claims.name}: "
            "list the name under its `actors` in the manifest, or sign with another key",
        )
    for target in claims.capabilities:
        if target not in issuer.capabilities:
            raise BundleError(
                BundleCode.NOT_THIS_CAPABILITY,
                f"{claims.name} asks for {target}, which its issuer may not give "
                f"({', '.join(issuer.capabilities) or 'nothing'}): list it under its `capabilities`, or do not ask",
            )


def _require_time(claims: Claims, now: datetime) -> None:
    if now.tzinfo is None:
        raise ValueError("now is an aware datetime")
    seconds = now.astimezone(UTC).timestamp()
    if claims.issued_at > seconds + MAX_CLOCK_AHEAD:
        raise BundleError(
            BundleCode.NOT_YET_VALID, f"{claims.name} {claims.version} was issued in the future ({claims.issued_at} s)"
        )
    if claims.not_after is not None and seconds >= claims.not_after:
        raise BundleError(
            BundleCode.EXPIRED, f"{claims.name} {claims.version} ran out at {claims.not_after} s: sign it anew"
        )


def _require_entry(claims: Claims, archive: bytes) -> None:
    if claims.kind == "wasm":
        expected = {claims.entry, interface_of(claims.entry)}
        if (found := read_archive(archive).keys()) != expected:
            raise BundleError(
                BundleCode.NO_ENTRY,
                f"a wasm bundle holds its module and its interface, {' and '.join(sorted(expected))}, alone: "
                f"found {', '.join(sorted(found))[:200]}",
            )
        return
    if not has_module(read_archive(archive), claims.module):
        raise BundleError(
            BundleCode.NO_ENTRY,
            f"the entry {claims.entry} names the module {claims.module}, which is not in the archive",
        )
