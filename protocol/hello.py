"""What the two ends of a session say first: HELLO, and what they acknowledge ever after: CREDIT.

May not: decide anything; `session.py` does. Rule: docs/architecture.md, "The wire".

    HELLO body   msgpack ["tea", lowest, highest, session, attempt, received, established, resumable,
                          window_frames, window_bytes, greeting]
    CREDIT body  u64 received | u64 requests consumed | u64 bytes of requests consumed (big-endian, all cumulative)

The first three elements of HELLO never change, so that two versions that have nothing else in common can say so.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

import msgspec

from .errors import CallError, Code
from .frame import HEADER, FrameError, Kind

LOWEST_VERSION: Final = 1
HIGHEST_VERSION: Final = 1
"""Versions of the session protocol that this code speaks; two ends use the highest that both speak."""

SESSION_ID_SIZE: Final = 16
"""Bytes of a session's id: random, chosen by the dialer. Whoever knows it can resume the session: never log it."""
MAX_GREETING: Final = 64 * 1024
"""Bytes of greeting that a HELLO may carry (an attestation has about 5,000)."""
MAX_HELLO: Final = MAX_GREETING + 1024
"""Bytes of a HELLO's body."""


class _Versions(msgspec.Struct, array_like=True, frozen=True):
    magic: Literal["tea"]
    lowest: int
    highest: int


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """One end's HELLO. Elements that a later version appends are skipped."""

    magic: Literal["tea"]
    lowest: int
    highest: int
    session: bytes
    attempt: int
    """Counts the dialer's connections for this session, so that a connection that was overtaken is known as such."""
    received: int
    """Sequenced frames of the peer's that this end has received."""
    established: bool
    """Whether this end has heard the peer's HELLO in this session before."""
    resumable: bool
    """Whether the dialer will come back with this session when the connection is lost."""
    window_frames: int
    """Requests (CALL, TELL) that this end accepts before it has consumed any."""
    window_bytes: int
    """Bytes of such requests; one request is always accepted."""
    greeting: bytes = b""
    """What the application says first, for instance an attestation."""

    def encode(self) -> bytes:
        """The body of a HELLO frame."""
        return msgspec.msgpack.encode(self)

    def __repr__(self) -> str:
        # The session id gives the right to resume: it is not for logs.
        return f"Hello(attempt={self.attempt}, received={self.received}, established={self.established})"


class Credit(NamedTuple):
    """What one end has received and consumed since the session began."""

    received: int
    consumed_frames: int
    consumed_bytes: int


_CREDIT: Final = struct.Struct(">QQQ")
_versions: Final = msgspec.msgpack.Decoder(_Versions)
_hello: Final = msgspec.msgpack.Decoder(Hello)


def parse_hello(body: bytes) -> Hello:
    """Read a HELLO's body. Raises `FrameError` on what is none, `CallError(INVALID)` when no version is common."""
    try:
        versions = _versions.decode(body)
        if versions.highest < LOWEST_VERSION or versions.lowest > HIGHEST_VERSION:
            raise CallError(
                Code.INVALID,
                f"the peer speaks versions {versions.lowest} to {versions.highest} of the session protocol, this end "
                f"{LOWEST_VERSION} to {HIGHEST_VERSION}: update the older one",
            )
        hello = _hello.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"this is no HELLO: {error}") from None
    if len(hello.session) != SESSION_ID_SIZE:
        raise FrameError(f"a session id has {SESSION_ID_SIZE} bytes, not {len(hello.session)}")
    if len(hello.greeting) > MAX_GREETING:
        raise FrameError(f"a greeting has at most {MAX_GREETING} bytes, not {len(hello.greeting)}")
    if min(hello.attempt, hello.received) < 0 or min(hello.window_frames, hello.window_bytes) < 1:
        raise FrameError("a HELLO's counts are not negative, and its windows are open")
    return hello


def peek_hello(buffer: bytes | bytearray) -> Hello | None:
    """The HELLO with which a stream must begin, or None while more bytes are needed. Raises as `parse_hello`.

    A listener looks at it to find the session that the stream belongs to; the bytes are then fed to that session.
    """
    if len(buffer) < HEADER.size:
        if len(buffer) > 4 and buffer[4] != Kind.HELLO:
            raise FrameError("a connection begins with HELLO")
        return None
    size, kind, flags, *_ = HEADER.unpack_from(buffer)
    if kind != Kind.HELLO or flags:
        raise FrameError("a connection begins with HELLO")
    if size > MAX_HELLO:
        raise FrameError(f"a HELLO has at most {MAX_HELLO} bytes, not {size}")
    end = HEADER.size + size
    return parse_hello(bytes(buffer[HEADER.size : end])) if len(buffer) >= end else None


def encode_credit(credit: Credit) -> bytes:
    """The body of a CREDIT frame."""
    return _CREDIT.pack(*credit)


def parse_credit(body: bytes) -> Credit:
    """Read a CREDIT's body. Raises `FrameError` when it has another size."""
    if len(body) != _CREDIT.size:
        raise FrameError(f"a CREDIT has {_CREDIT.size} bytes, not {len(body)}")
    return Credit(*_CREDIT.unpack(body))
