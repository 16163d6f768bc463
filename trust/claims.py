"""Claims: what an issuer signs about one bundle - its name, version, entry, code digest, and all that it asks for.

May not: grant anything. What an actor can do is what its claims ask for AND the approved manifest grants.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import enum
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from . import canonical, names
from .canonical import CanonicalError
from .errors import TrustError
from .keys import KEY_ID_BYTES, PublicKey

CLAIMS_TAG: Final = "tea.claims.v1"
CLAIMS_CONTENT_TYPE: Final = "application/tea-claims+cbor"
MAX_CLAIMS: Final = 64 * 1024
"""Bytes of signed claims, the signature included."""
MAX_TARGETS: Final = 64
MAX_OPERATIONS: Final = 256


ENTRIES: Final = {"python": (names.ENTRY, "module:Class"), "wasm": (names.WASM_ENTRY, "NAME.wasm")}
"""Kind of bundle -> what its entry looks like, for machines and for people."""


class BundleCode(enum.StrEnum):
    """Why a bundle is refused."""

    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    UNKNOWN_ISSUER = "unknown-issuer"
    BAD_SIGNATURE = "bad-signature"
    BAD_CLAIMS = "bad-claims"
    NOT_THIS_NAME = "issuer-may-not-sign-this-name"
    NOT_THIS_CAPABILITY = "issuer-may-not-grant-this-capability"
    DIGEST_MISMATCH = "digest-mismatch"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    WRONG_SDK = "wrong-sdk"
    UNSUPPORTED_KIND = "unsupported-kind"
    BAD_ARCHIVE = "bad-archive"
    BAD_FILE_NAME = "bad-file-name"
    SHADOWED_MODULE = "shadowed-module"
    NO_ENTRY = "no-entry"


class BundleError(TrustError):
    """The bundle is not to be loaded."""


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was signed about one bundle; parsed and checked once, at `parse_claims` or `ClaimsInput.claims`."""

    name: str
    version: str
    entry: str
    """`module:Class`; of kind wasm `NAME.wasm`."""
    kind: str
    """python or wasm."""
    issuer: bytes
    """Key id of the issuer, 16 bytes."""
    capabilities: Mapping[str, tuple[str, ...]]
    """Target (a provider's or an actor's name) to the operations asked for, sorted."""
    sdk: str
    """Range of sdk versions, such as `>=0.1,<0.2`."""
    issued_at: int
    """Seconds since the epoch."""
    not_after: int | None
    """Seconds since the epoch; None: until the issuer leaves the manifest."""
    archive: bytes
    """SHA-256 of the archive, 32 bytes."""

    @property
    def module(self) -> str:
        """The entry's module, dotted."""
        return self.entry.partition(":")[0]

    def encode(self) -> bytes:
        """The canonical form: what is signed."""
        return canonical.encode({"tea": CLAIMS_TAG, **msgspec.to_builtins(self, builtin_types=(bytes,))})


@dataclass(frozen=True, kw_only=True)
class ClaimsInput:
    """What a bundle's author says; the issuer's key and the archive's digest are added when it is signed."""

    name: str
    version: str
    entry: str
    issued_at: int
    capabilities: Mapping[str, tuple[str, ...]]
    sdk: str = ">=0.1,<0.2"
    kind: str = "python"
    not_after: int | None = None

    def claims(self, issuer: PublicKey, archive_digest: bytes) -> Claims:
        """The full claims. Raises `BundleError` as `parse_claims` does."""
        return parse_claims(
            Claims(
                name=self.name,
                version=self.version,
                entry=self.entry,
                kind=self.kind,
                issuer=issuer.key_id,
                capabilities={target: tuple(sorted(set(asked))) for target, asked in self.capabilities.items()},
                sdk=self.sdk,
                issued_at=self.issued_at,
                not_after=self.not_after,
                archive=archive_digest,
            ).encode()
        )


@dataclass(frozen=True)
class Issuer:
    """Who may sign bundles: one key, the names that it may sign for, and what these may ask for at most."""

    key: PublicKey
    actors: tuple[str, ...]
    capabilities: tuple[str, ...]
    """Targets: names of providers and actors."""


def parse_claims(data: bytes) -> Claims:
    """Read canonical claims (whose signature holds). Raises `BundleError`: BAD_CLAIMS, UNSUPPORTED_KIND."""
    try:
        fields = canonical.decode_tagged(data, CLAIMS_TAG, limit=MAX_CLAIMS)
        claims = msgspec.convert(fields, Claims, strict=True, builtin_types=(bytes,))
    except CanonicalError as error:
        raise _bad(error.sentence) from None
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    _require_well_formed(claims)
    if claims.encode() != data:
        raise _bad("they are not in their one form")
    return claims


def interface_of(entry: str) -> str:
    """The file that describes the operations of a wasm bundle with this entry: `counter.wasm` has `counter.json`."""
    return entry.removesuffix(".wasm") + ".json"


def _bad(why: str) -> BundleError:
    return BundleError(BundleCode.BAD_CLAIMS, f"the claims are not well formed: {why}")


def _require_well_formed(claims: Claims) -> None:
    if not names.is_name(claims.name) or claims.name in names.RESERVED_NAMES:
        raise _bad(f"the name {claims.name[:80]!r} is not free for actors ({names.NAME_MEND})")
    if not names.is_version(claims.version):
        raise _bad(f"the version is {claims.version[:80]!r}, expected {names.SEMVER_MEND}")
    expected = ENTRIES.get(claims.kind)
    if expected is None:
        raise BundleError(
            BundleCode.UNSUPPORTED_KIND,
            f"the kind is {claims.kind[:80]!r}: only {' and '.join(ENTRIES)} bundles are run",
        )
    if len(claims.entry) > 256 or expected[0].fullmatch(claims.entry) is None:
        raise _bad(f"the entry is {claims.entry[:80]!r}, expected {expected[1]}")
    if len(claims.issuer) != KEY_ID_BYTES or len(claims.archive) != 32:
        raise _bad(f"the issuer has {KEY_ID_BYTES} bytes and the archive's digest 32")
    if not 0 <= claims.issued_at < 1 << 53:
        raise _bad("issued_at is not a time in seconds since the epoch")
    if claims.not_after is not None and not claims.issued_at < claims.not_after < 1 << 53:
        raise _bad("not_after is not later than issued_at")
    _require_capabilities(claims.capabilities)
    SdkRange.parse(claims.sdk)


def _require_capabilities(capabilities: Mapping[str, tuple[str, ...]]) -> None:
    if len(capabilities) > MAX_TARGETS:
        raise _bad(f"{len(capabilities)} targets, at most {MAX_TARGETS}")
    for target, asked in capabilities.items():
        if not names.is_name(target):
            raise _bad(f"the capability {target[:80]!r} names no provider or actor")
        if not asked or len(asked) > MAX_OPERATIONS:
            raise _bad(f"{len(asked)} operations of {target}, expected 1 to {MAX_OPERATIONS}")
        if list(asked) != sorted(set(asked)):
            raise _bad(f"the operations of {target} are not sorted, each once")
        for one in asked:
            if names.OPERATION.fullmatch(one) is None:
                raise _bad(f"{one[:80]!r} of {target} is no operation ({names.OPERATION_MEND})")


_COMPARATOR: Final = re.compile(r"(>=|<=|==|>|<)(\d{1,6}(?:\.\d{1,6}){0,2})", re.ASCII)
_RELEASE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6}){0,2})(?![\d])", re.ASCII)
_COMPARE: Final[Mapping[str, Callable[[tuple[int, int, int], tuple[int, int, int]], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class SdkRange:
    """Which sdk versions a bundle was written for: comparators on release numbers, all of which must hold."""

    comparators: tuple[tuple[str, tuple[int, int, int]], ...]

    @classmethod
    def parse(cls, text: str) -> SdkRange:
        """Read `>=0.1,<0.2`. Raises `BundleError(BAD_CLAIMS)`."""
        parts = text.split(",")
        found = [_COMPARATOR.fullmatch(part) for part in parts]
        if len(text) > 128 or not all(found):
            raise _bad(f"the sdk range is {text[:80]!r}, expected comparators such as >=0.1,<0.2")
        return cls(tuple((one[1], _release(one[2])) for one in found if one is not None))

    def contains(self, version: str) -> bool:
        """Whether this release is in the range; a pre-release counts as its release. `ValueError` on no version."""
        match = _RELEASE.match(version)
        if match is None:
            raise ValueError(f"{version!r} is no version of the sdk")
        release = _release(match[1])
        return all(_COMPARE[sign](release, bound) for sign, bound in self.comparators)


def _release(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(".")]
    major, minor, patch = (*numbers, 0, 0)[:3]
    return major, minor, patch
