"""The messages by which an enclave asks a release service for a secret, and the answer that it believes.

May not: hold a socket, a clock or a policy (the service judges), or let the parent in between choose a word of either.
Rule: docs/secrets.md, "The protocol"; RFC 9180 (sealing), RFC 9052 (the service's signature).
"""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, field
from typing import Final

from . import canonical, cose, names
from .canonical import CanonicalError, Value
from .errors import TrustError
from .keys import PublicKey, Signer, SigningError
from .sealing import MAX_PLAINTEXT, OVERHEAD, SealError, SealingKey, seal
from .statement import Kind, Statement

ASK_TAG: Final = "tea.release.ask.v1"
CHALLENGE_TAG: Final = "tea.release.challenge.v1"
REQUEST_TAG: Final = "tea.release.request.v1"
ANSWER_TAG: Final = "tea.release.answer.v1"
CONTENT_TYPE: Final = "application/tea-release+cbor"
PURPOSE: Final = "release"
LEASE_BYTES: Final = 16
MAX_NONCE: Final = 64
MAX_REQUEST: Final = 96 << 10
"""Bytes of a request: a document of at most 12 KiB and a statement, with room."""
MAX_SECRET: Final = 512 << 10
"""Bytes of a secret that is released; `sealing` alone takes more, a frame to the enclave does not."""
MAX_ANSWER: Final = MAX_SECRET + OVERHEAD + 4096
MAX_LEASE: Final = 7 * 86400
"""Seconds."""


class ReleaseCode(enum.StrEnum):
    """Why a secret is not released, or an answer not believed."""

    MALFORMED = "malformed"
    """Not the canonical form of the message, or a field of another type or size."""
    NONCE = "nonce"
    """Not a nonce that the service gave, one used before, one too old, or an answer to another question."""
    STATEMENT = "statement"
    """Genuine, but the statement is not the host's request for this secret."""
    KEY = "key"
    """The document has no X25519 key to seal to."""
    UNKNOWN_SECRET = "unknown-secret"  # noqa: S105 - the code's name
    ACTOR = "actor"
    """The secret is not for this actor."""
    REVOKED_SECRET = "revoked-secret"  # noqa: S105 - the code's name
    REVOKED_IMAGE = "revoked-image"
    REVOKED_MANIFEST = "revoked-manifest"
    REVOKED_REVISION = "revoked-revision"
    """Below the least revision that the deployment's owner still accepts."""
    REVOKED_EPOCH = "revoked-epoch"
    """Below the least epoch of the approvers."""
    REVOKED_ENCLAVE = "revoked-enclave"
    TOO_MANY = "too-many"
    """More requests in a time than the service takes."""
    SIGNATURE = "signature"
    """The answer is not signed by the service that the manifest names."""
    SEALED = "sealed"
    """The answer does not open here."""


class ReleaseError(TrustError):
    """A secret is not released, or an answer is not believed; `code` is a `ReleaseCode`."""


def require_secret_name(name: object) -> str:
    """A secret's name: as an actor's. Raises `ReleaseError(MALFORMED)`."""
    if not isinstance(name, str) or not names.is_name(name):
        raise _malformed(f"a secret's name must be {names.NAME_MEND}")
    return name


# ---- what the enclave asks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """What the host attests that it asks for: the body of its statement of kind `seal`."""

    secret: str
    actor: str
    bundle: bytes
    """SHA-256 of the actor's bundle file, 32 bytes."""

    def __post_init__(self) -> None:
        require_secret_name(self.secret)
        if not isinstance(self.actor, str) or not names.is_name(self.actor):
            raise _malformed(f"an actor's name must be {names.NAME_MEND}")
        _require_bytes("bundle", self.bundle, 32)

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.encode({"tea": ASK_TAG, "secret": self.secret, "actor": self.actor, "bundle": self.bundle})


def parse_ask(data: bytes) -> Ask:
    """Read a statement's body. Raises `ReleaseError(MALFORMED)`."""
    fields = _fields(data, ASK_TAG, {"secret", "actor", "bundle"}, 4096)
    return Ask(fields["secret"], fields["actor"], fields["bundle"])  # type: ignore[arg-type]  # __post_init__ checks


@dataclass(frozen=True, slots=True)
class Challenge:
    """A fresh nonce, for one request within `seconds`."""

    nonce: bytes
    seconds: int

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.encode({"tea": CHALLENGE_TAG, "nonce": self.nonce, "seconds": self.seconds})


def parse_challenge(data: bytes) -> Challenge:
    """Read a challenge, which nobody signed: a parent that gives its own only makes the answer fail.

    Raises `ReleaseError(MALFORMED)`.
    """
    fields = _fields(data, CHALLENGE_TAG, {"nonce", "seconds"}, 4096)
    nonce, seconds = fields["nonce"], fields["seconds"]
    if not isinstance(nonce, bytes) or not 16 <= len(nonce) <= MAX_NONCE:
        raise _malformed(f"a challenge's nonce must be 16 to {MAX_NONCE} bytes")
    return Challenge(nonce, _counter("seconds", seconds, 86400))


@dataclass(frozen=True, slots=True)
class Request:
    """An attestation over the challenge's nonce, and the statement that says what is asked."""

    document: bytes
    statement: bytes
    nonce: bytes

    def encode(self) -> bytes:
        """The canonical bytes."""
        fields = {"document": self.document, "statement": self.statement, "nonce": self.nonce}
        return canonical.encode({"tea": REQUEST_TAG, **fields})


def parse_request(data: bytes) -> Request:
    """Read a request; nothing in it is believed yet. Raises `ReleaseError(MALFORMED)`."""
    fields = _fields(data, REQUEST_TAG, {"document", "statement", "nonce"}, MAX_REQUEST)
    for name, value in fields.items():
        if not isinstance(value, bytes):
            raise _malformed(f"a request's {name} must be bytes")
    return Request(fields["document"], fields["statement"], fields["nonce"])  # type: ignore[arg-type]


def ask_of(statement: Statement) -> Ask:
    """What a verified statement asks for. Raises `ReleaseError`: STATEMENT unless the host itself asks, MALFORMED."""
    if statement.kind != Kind.SEAL or statement.speaker is not None:
        raise ReleaseError(
            ReleaseCode.STATEMENT,
            f"the statement is of kind {statement.kind!r}, expected the host's {Kind.SEAL.value!r}: only the host asks "
            "for secrets",
        )
    return parse_ask(statement.body)


# ---- what the service answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What a secret is released under; the service signs it, the sealed secret with it."""

    nonce: bytes
    """That of the challenge: an answer is for one request."""
    secret: str
    actor: str
    version: int
    """Of the secret, from 1; a new value raises it."""
    lease: bytes
    """Its id, 16 bytes."""
    seconds: int
    """How long it may be kept, from the moment it was asked for."""

    def __post_init__(self) -> None:
        require_secret_name(self.secret)
        if not isinstance(self.nonce, bytes) or not 16 <= len(self.nonce) <= MAX_NONCE:
            raise _malformed(f"an answer's nonce must be 16 to {MAX_NONCE} bytes")
        if not isinstance(self.actor, str) or not names.is_name(self.actor):
            raise _malformed(f"an actor's name must be {names.NAME_MEND}")
        _counter("version", self.version, 1 << 62)
        _counter("seconds", self.seconds, MAX_LEASE)
        _require_bytes("lease", self.lease, LEASE_BYTES)

    def plain(self) -> dict[str, object]:
        """The fields by name."""
        return {
            "nonce": self.nonce,
            "secret": self.secret,
            "actor": self.actor,
            "version": self.version,
            "lease": self.lease,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Released:
    """A secret that was opened, and its terms."""

    terms: Terms
    value: bytes = field(repr=False)


def seal_answer(terms: Terms, value: bytes, *, public_key: bytes | None, manifest: bytes, key: Signer) -> bytes:
    """The answer: `value` (at most 512 KiB) sealed to the attested X25519 key for this actor and manifest, signed.

    Raises `ReleaseError(KEY)` when the document's key is no such key.
    """
    if len(value) > MAX_SECRET:
        raise ValueError(f"a secret has at most {MAX_SECRET} bytes, this one {len(value)}")
    try:
        sealed = seal(
            public_key or b"",
            value,
            purpose=purpose_of(terms.secret),
            actor=terms.actor,
            manifest_digest=manifest,
        )
    except SealError as error:
        raise ReleaseError(ReleaseCode.KEY, f"the attested key cannot be sealed to: {error.sentence}") from None
    payload = canonical.encode({"tea": ANSWER_TAG, **terms.plain(), "sealed": sealed})
    return cose.sign1(payload, key, content_type=CONTENT_TYPE)


def verify_answer(data: bytes, service: PublicKey, *, ask: Ask, nonce: bytes) -> tuple[Terms, bytes]:
    """The terms and the sealed secret of an answer by `service` to this very question.

    Raises `ReleaseError`: SIGNATURE, MALFORMED, NONCE (an answer to another question, or an old one told again).
    """
    try:
        payload = cose.verify1(data, {service.key_id: service}, content_type=CONTENT_TYPE, limit=MAX_ANSWER).payload
    except SigningError as error:
        raise ReleaseError(
            ReleaseCode.SIGNATURE, f"the answer is not the release service's ({service.text}): {error.sentence}"
        ) from None
    wanted = {"nonce", "secret", "actor", "version", "lease", "seconds", "sealed"}
    fields = _fields(payload, ANSWER_TAG, wanted, MAX_ANSWER)
    sealed = fields.pop("sealed")
    if not isinstance(sealed, bytes) or len(sealed) > MAX_PLAINTEXT + OVERHEAD:
        raise _malformed("an answer's sealed secret must be bytes")
    terms = Terms(**fields)  # type: ignore[arg-type]  # __post_init__ checks
    mine = hmac.compare_digest(terms.nonce, nonce) and (terms.secret, terms.actor) == (ask.secret, ask.actor)
    if not mine:
        raise ReleaseError(
            ReleaseCode.NONCE,
            f"the answer is for another question ({terms.secret!r} for {terms.actor!r}), expected {ask.secret!r} for "
            f"{ask.actor!r} over this nonce: it was kept and told again",
        )
    return terms, sealed


def open_answer(
    data: bytes, service: PublicKey, *, ask: Ask, nonce: bytes, key: SealingKey, manifest: bytes
) -> Released:
    """The secret in an answer: `verify_answer`, then opened. Raises `ReleaseError`, SEALED too."""
    terms, sealed = verify_answer(data, service, ask=ask, nonce=nonce)
    try:
        value = key.open(sealed, purpose=purpose_of(terms.secret), actor=terms.actor, manifest_digest=manifest)
    except SealError as error:
        raise ReleaseError(ReleaseCode.SEALED, f"the secret {terms.secret!r}: {error.sentence}") from None
    return Released(terms, value)


def purpose_of(secret: str) -> str:
    """What a secret's release is sealed for: `release:NAME`."""
    return f"{PURPOSE}:{secret}"


# ---- parts -----------------------------------------------------------------------------------------------------------


def _malformed(sentence: str) -> ReleaseError:
    return ReleaseError(ReleaseCode.MALFORMED, sentence)


def _fields(data: bytes, tag: str, wanted: set[str], limit: int) -> dict[str, Value]:
    try:
        fields = canonical.decode_tagged(data, tag, limit=limit)
    except CanonicalError as error:
        raise _malformed(f"this is no {tag}: {error.sentence}") from None
    if fields.keys() != wanted:
        raise _malformed(f"the fields {', '.join(sorted(fields.keys() ^ wanted))!r:.200} are missing or unknown")
    return fields


def _require_bytes(what: str, value: object, size: int) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise _malformed(f"{what} must be {size} bytes")


def _counter(what: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _malformed(f"{what} must be an integer from 1 to {most}")
    return value
