"""The closed set of error codes, and the one error that crosses a wire.

May not: carry tracebacks, secrets or anything but plain data. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

MAX_SENTENCE: Final = 2048
"""Characters of an error's sentence that survive encoding; what is longer is cut."""
MAX_ERROR: Final = 128 << 10
"""Bytes of an encoded error: of thousands of tiny details each costs the reader far more than its bytes."""

Detail = str | int | bool | None | list[str]
"""What a structured detail may be: plain data that every msgpack reader understands."""


class Code(enum.IntEnum):
    """Why a call was not answered with a result. The numbers are the wire's and never change."""

    DENIED = 1
    """The caller has no right to this: no link, no such operation on the link, not this caller."""
    NOT_FOUND = 2
    """The thing named does not exist."""
    INVALID = 3
    """The request is malformed: wrong types, sizes or values."""
    DEADLINE = 4
    """The time that the caller gave is over; whether the operation took effect is unknown."""
    UNAVAILABLE = 5
    """Nobody can answer now (starting, stopped, crashed, cut off); asking again may help."""
    EXHAUSTED = 6
    """A quota or a bound was reached; nothing was done."""
    CONFLICT = 7
    """The state is not what the request assumes (compare-and-set, revision, already exists)."""
    UNTRUSTED = 8
    """Evidence did not verify, or the state is known not to agree with the others'."""
    INTERNAL = 9
    """A defect on the callee's side; the callee's log has the cause, the caller gets none of it."""


class _WireError(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    code: int
    sentence: str
    details: dict[str, Detail]


class CallError(Exception):
    """An operation's refusal or failure: a code, a sentence a person can act on, structured details."""

    def __init__(self, code: Code, sentence: str, **details: Detail) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.details: dict[str, Detail] = details

    def __str__(self) -> str:
        return f"{self.code.name}: {self.sentence}"

    def __repr__(self) -> str:
        return f"CallError({self.code.name}, {self.sentence!r})"

    def __reduce__(self) -> str:
        raise TypeError("CallError is never pickled: encode() is its wire form")

    def encode(self) -> bytes:
        """The body of an ERROR frame: msgpack `[code, sentence, details]`, without details that do not fit."""
        body = msgspec.msgpack.encode(_WireError(int(self.code), self.sentence[:MAX_SENTENCE], self.details))
        if len(body) <= MAX_ERROR:
            return body
        return msgspec.msgpack.encode(_WireError(int(self.code), self.sentence[:MAX_SENTENCE], {}))

    @classmethod
    def decode(cls, body: bytes | memoryview) -> CallError:
        """Read an ERROR frame's body; a malformed or too large one becomes an INTERNAL error, never an exception."""
        if len(body) > MAX_ERROR:
            return cls(Code.INTERNAL, f"the peer sent an error of {len(body)} bytes, at most {MAX_ERROR} are read")
        try:
            wire = msgspec.msgpack.decode(body, type=_WireError)
            return cls(Code(wire.code), wire.sentence[:MAX_SENTENCE], **wire.details)
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
            return cls(Code.INTERNAL, "the peer sent an error that is not [code, sentence, details]")
