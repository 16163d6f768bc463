"""The messages of a handover: canonical bytes that an untrusted parent carries between two enclaves.

May not: be believed by themselves; `handover.py` says what binds each. Rule: docs/continuity.md, "The handover".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self, get_type_hints

from . import canonical
from .continuity import ContinuityCode, ContinuityError

NONCE_BYTES: Final = 32
MAX_MESSAGE: Final = 512 * 1024
"""Bytes of a message; approvals and approver changes are the large part."""
PIECE_BYTES: Final = 256 * 1024
"""Bytes of state in one piece: it fits a message between enclaves."""
MAX_STATE: Final = 256 * 1024 * 1024
"""Bytes of state that are handed over."""
STATE_TAG: Final = "tea.continuity-state.v1"
MAX_PROVIDERS: Final = 64


@dataclass(frozen=True, slots=True)
class Message:
    """A message by its tag. Fields are of the types that they are annotated with, nothing converts."""

    tag: ClassVar[str]

    def encode(self) -> bytes:
        """Canonical bytes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return canonical.encode({"tea": self.tag, **{name: _plain(value) for name, value in fields.items()}})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `encode` made. Raises `ContinuityError(MALFORMED)`."""
        try:
            fields = canonical.decode_tagged(data, cls.tag, limit=MAX_MESSAGE)
        except canonical.CanonicalError as error:
            raise ContinuityError(ContinuityCode.MALFORMED, f"this is no message {cls.tag}: {error}") from None
        hints = get_type_hints(cls)
        expected = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != expected or not all(_fits(fields[name], hints[name]) for name in expected):
            raise ContinuityError(ContinuityCode.MALFORMED, f"{cls.tag} has other fields than {sorted(expected)}")
        return cls(**{name: _typed(value, hints[name]) for name, value in fields.items()})


Chunks = tuple[bytes, ...]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _fits(value: object, hint: object) -> bool:
    if hint == Chunks:
        return isinstance(value, list) and all(isinstance(item, bytes) for item in value)
    return type(value) is hint


def _typed(value: canonical.Value, hint: object) -> object:
    return tuple(value) if hint == Chunks and isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Receiver to holder: who asks for what; `copy` makes a standby instead of the next holder."""

    tag = "tea.continuity-hello.v1"
    deployment: str
    slot: str
    copy: bool
    nonce: bytes


@dataclass(frozen=True, slots=True)
class HolderBody(Message):
    """The body of the holder's statement: also what a third party asks for, to know who holds a slot."""

    tag = "tea.continuity-holder.v1"
    slot: str
    term: int
    role: str
    nonce: bytes
    """The holder's own, which the receiver's evidence must be over; zeros when it only says who it is."""
    hello: bytes
    """SHA-384 of the Hello; zeros without one."""


@dataclass(frozen=True, slots=True)
class Challenge(Message):
    """Holder to receiver: its evidence over the receiver's nonce; its nonce stands in the statement's body."""

    tag = "tea.continuity-challenge.v1"
    document: bytes
    statement: bytes
    approval: bytes
    """The approved manifest of the holder (COSE_Sign)."""
    changes: Chunks
    """Changes of the approvers since those of the image."""


@dataclass(frozen=True, slots=True)
class ReceiverBody(Message):
    """The body of the receiver's statement, whose document carries a key made for this handover alone."""

    tag = "tea.continuity-receiver.v1"
    slot: str
    term: int
    challenge: bytes
    """SHA-384 of Hello and Challenge."""


@dataclass(frozen=True, slots=True)
class Request(Message):
    """Receiver to holder: its evidence over the holder's nonce."""

    tag = "tea.continuity-request.v1"
    document: bytes
    statement: bytes
    approval: bytes
    """The approved manifest of the receiver (COSE_Sign)."""
    changes: Chunks


@dataclass(frozen=True, slots=True)
class Parcel(Message):
    """Holder to receiver: everything about the state, sealed to the receiver's key."""

    tag = "tea.continuity-parcel.v1"
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Contents(Message):
    """What is sealed in a parcel."""

    tag = "tea.continuity-contents.v1"
    secret: bytes
    """32 bytes, from which the keys of pieces and proofs follow."""
    term: int
    """The receiver's, once it is the holder; the holder's own, for a copy."""
    size: int
    pieces: int
    digest: bytes
    """SHA-384 of the state."""

    def __repr__(self) -> str:
        return f"Contents(term={self.term}, size={self.size})"


@dataclass(frozen=True, slots=True)
class Fetch(Message):
    """Receiver to holder: one piece, from 0; the answer is its sealed bytes."""

    tag = "tea.continuity-fetch.v1"
    index: int


@dataclass(frozen=True, slots=True)
class Prepared(Message):
    """Receiver to holder: everything is here and fits."""

    tag = "tea.continuity-prepared.v1"
    proof: bytes


@dataclass(frozen=True, slots=True)
class Abort(Message):
    """Receiver to holder: I cannot take it in; go on."""

    tag = "tea.continuity-abort.v1"
    proof: bytes


@dataclass(frozen=True, slots=True)
class Commit(Message):
    """Holder to receiver: I have retired; you are the holder."""

    tag = "tea.continuity-commit.v1"
    proof: bytes


@dataclass(frozen=True, slots=True)
class Cancelled(Message):
    """Holder to receiver: I went on by myself; what you have is a copy of the past."""

    tag = "tea.continuity-cancelled.v1"
    proof: bytes


def digest_of(*messages: bytes) -> bytes:
    """SHA-384 over messages in order, unambiguous."""
    return hashlib.sha384(canonical.encode(list(messages))).digest()


def pack_state(providers: Mapping[str, bytes]) -> bytes:
    """One blob of what each provider exported."""
    return canonical.encode({"tea": STATE_TAG, "providers": dict(providers)})


def unpack_state(data: bytes) -> dict[str, bytes]:
    """What each provider is to import. Raises `ContinuityError(MALFORMED)`."""
    try:
        fields = canonical.decode_tagged(data, STATE_TAG, limit=MAX_STATE)
    except canonical.CanonicalError as error:
        raise ContinuityError(ContinuityCode.MALFORMED, f"this is no exported state: {error}") from None
    providers = fields.get("providers")
    if fields.keys() != {"providers"} or not isinstance(providers, dict) or len(providers) > MAX_PROVIDERS:
        raise ContinuityError(ContinuityCode.MALFORMED, "an exported state holds providers, by name")
    states: dict[str, bytes] = {}
    for name, state in providers.items():
        if not isinstance(name, str) or not isinstance(state, bytes):
            raise ContinuityError(ContinuityCode.MALFORMED, "an exported state holds bytes, by a provider's name")
        states[name] = state
    return states
