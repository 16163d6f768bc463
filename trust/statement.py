"""What the host says in an attestation: a canonical, domain-tagged statement whose SHA-384 is the user_data.

May not: be parsed before the document vouches for it (`verify_statement` compares digests first).
Rule: docs/architecture.md, "Measured boot" (Statements), which says what a statement holds and who may make which.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, NamedTuple

from . import canonical, names, pcr
from .attestation import AttestationDocument
from .errors import TrustError

TAG: Final = "tea.statement.v1"
MAX_BODY: Final = 64 << 10
"""Bytes of a statement's body."""
MAX_STATEMENT: Final = MAX_BODY + 4096
MAX_COUNTER: Final = 1 << 63
"""Revisions and epochs are below this."""


class Kind(enum.StrEnum):
    """What a statement is for. An actor's kinds are never the host's: none passes for the other."""

    READY = "ready"
    """Host: settings are active and the links are open."""
    ATTEST = "attest"
    """Host: an answer to somebody's nonce; also before any manifest is active."""
    SEAL = "seal"
    """Host: the document's public_key is the X25519 key to which secrets are sealed."""
    KMS = "kms"
    """Host: the document's public_key is the RSA key for KMS requests alone."""
    ACTOR = "actor"
    """Actor: whatever its body says."""
    RA = "ra"
    """Actor: one contribution to a round of remote attestation."""


ACTOR_KINDS: Final = frozenset({Kind.ACTOR, Kind.RA})


class StatementCode(enum.StrEnum):
    """Why a statement is refused."""

    USER_DATA = "user-data"
    """Its digest is not the user_data of the document: it belongs to another, or was changed."""
    NOT_CANONICAL = "not-canonical"
    """Not the canonical encoding of a statement."""
    FIELD = "field"
    """A field is missing, unknown, or of the wrong type or size."""
    KIND = "kind"
    """No such kind."""
    SPEAKER = "speaker"
    """An actor's kind without an actor, or the host's with one."""


class StatementError(TrustError):
    """What came beside the document is not its statement; `code` is a `StatementCode`."""

    def __init__(self, code: StatementCode, sentence: str) -> None:
        super().__init__(code, sentence)


class Speaker(NamedTuple):
    """The actor that speaks, by name and the SHA-256 (32 bytes) of its bundle file."""

    actor: str
    bundle: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement. Raises `StatementError` when it is made of something that no verifier would accept."""

    kind: str
    deployment: str
    """The deployment's name, as image and manifest have it."""
    manifest: bytes | None
    """SHA-384 of the active manifest; None (with revision 0) before there is one."""
    revision: int
    """The manifest's revision, from 1."""
    epoch: int
    """How often the approvers changed since the image's set."""
    log_head: bytes
    """Head of the event log; `pcr.ZERO` while it is empty."""
    speaker: Speaker | None = None
    """None: the host itself."""
    body: bytes = b""

    def __post_init__(self) -> None:
        _require_kind(self.kind, self.speaker)
        if not isinstance(self.deployment, str) or not names.DEPLOYMENT.fullmatch(self.deployment):
            raise _field("deployment must be 1 to 63 of a-z, 0-9 and -")
        _require_digest("log_head", self.log_head, pcr.SIZE)
        _require_counter("epoch", self.epoch)
        _require_counter("revision", self.revision)
        if self.manifest is not None:
            _require_digest("manifest", self.manifest, pcr.SIZE)
        if (self.manifest is None) != (self.revision == 0):
            raise _field("revision is 0 exactly while there is no manifest, and from 1 when there is one")
        if self.speaker is not None:
            if not isinstance(self.speaker[0], str) or not names.is_name(self.speaker[0]):
                raise _field(f"the speaking actor's name must be {names.NAME_MEND}")
            _require_digest("the speaking actor's bundle", self.speaker[1], 32)
            object.__setattr__(self, "speaker", Speaker(*self.speaker))
        if not isinstance(self.body, bytes) or len(self.body) > MAX_BODY:
            raise _field(f"body must be at most {MAX_BODY} bytes")

    def encode(self) -> bytes:
        """The canonical bytes that travel beside the document."""
        return canonical.encode(
            {
                "tea": TAG,
                "kind": self.kind,
                "deployment": self.deployment,
                "manifest": self.manifest,
                "revision": self.revision,
                "epoch": self.epoch,
                "log_head": self.log_head,
                "speaker": None if self.speaker is None else list(self.speaker),
                "body": self.body,
            }
        )

    @property
    def digest(self) -> bytes:
        """SHA-384 of the canonical bytes: the user_data of the document."""
        return hashlib.sha384(self.encode()).digest()


_FIELDS: Final = frozenset({"kind", "deployment", "manifest", "revision", "epoch", "log_head", "speaker", "body"})


def parse_statement(data: bytes) -> Statement:
    """Read a statement's canonical bytes; believed only with the document it belongs to. Raises `StatementError`."""
    try:
        fields = canonical.decode_tagged(data, TAG, limit=MAX_STATEMENT)
    except canonical.CanonicalError as error:
        raise StatementError(StatementCode.NOT_CANONICAL, f"this is not a statement: {error}") from None
    if fields.keys() != _FIELDS:
        wrong = sorted(fields.keys() ^ _FIELDS)
        raise _field(f"the fields {', '.join(wrong)!r:.200} are missing or unknown")
    speaker = fields["speaker"]
    if speaker is not None and not (isinstance(speaker, list) and len(speaker) == 2):
        raise _field("speaker must be null or [actor, bundle digest]")
    # The types are what __post_init__ checks; the annotations below only name them.
    return Statement(
        kind=fields["kind"],  # type: ignore[arg-type]
        deployment=fields["deployment"],  # type: ignore[arg-type]
        manifest=fields["manifest"],  # type: ignore[arg-type]
        revision=fields["revision"],  # type: ignore[arg-type]
        epoch=fields["epoch"],  # type: ignore[arg-type]
        log_head=fields["log_head"],  # type: ignore[arg-type]
        speaker=None if speaker is None else Speaker(*speaker),  # type: ignore[arg-type]
        body=fields["body"],  # type: ignore[arg-type]
    )


def verify_statement(document: AttestationDocument, data: bytes) -> Statement:
    """The statement of a verified document. Raises `StatementError` when the document does not vouch for `data`."""
    digest = hashlib.sha384(data).digest()
    found = document.user_data
    if found is None or not hmac.compare_digest(found, digest):
        shown = "none" if found is None else found.hex()
        raise StatementError(
            StatementCode.USER_DATA,
            f"the document's user data is {shown}, expected the statement's SHA-384 {digest.hex()}: they do not belong "
            "together",
        )
    return parse_statement(data)


def _field(sentence: str) -> StatementError:
    return StatementError(StatementCode.FIELD, f"the statement is malformed: {sentence}")


def _require_kind(kind: object, speaker: object) -> None:
    if not isinstance(kind, str) or kind not in Kind.__members__.values():
        raise StatementError(StatementCode.KIND, f"the kind is {kind!r:.80}, expected one of {', '.join(Kind)}")
    if (kind in ACTOR_KINDS) != (speaker is not None):
        expected = "an actor" if kind in ACTOR_KINDS else "the host"
        raise StatementError(StatementCode.SPEAKER, f"a statement of kind {kind!r} is made by {expected} only")


def _require_digest(what: str, value: object, size: int) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise _field(f"{what} must be {size} bytes")


def _require_counter(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_COUNTER:
        raise _field(f"{what} must be an integer from 0 to {MAX_COUNTER - 1}")
