"""The one frame codec: a fixed binary header, then an opaque body. Sans-IO: bytes in, frames out.

May not: read bodies, touch sockets, or allocate for a length it has not checked.
Used on the intercom socketpairs and on vsock alike. Rule: docs/architecture.md, "The wire".

    offset  size  field
    0       4     length       bytes of the body, big-endian as all that follows
    4       1     kind         see Kind
    5       1     flags        see Flag; unknown bits are refused
    6       2     operation    number of the operation on the link
    8       4     link         number of the link (on vsock: of the channel)
    12      4     correlation  the sender's number of this call; REPLY and ERROR repeat it
    16      4     cause        correlation of the delivered call on whose behalf this one is made; 0: own accord
    20      4     deadline     milliseconds that remain; 0: none
    24      ...   body
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">IBBHIIII")
HEADER_SIZE: Final = HEADER.size
MAX_BODY: Final = 1 << 20
"""Largest body of a frame, in bytes: 1 MiB. Larger things travel in chunks."""


class Kind(enum.IntEnum):
    """What a frame is. The numbers are the wire's and never change."""

    CALL = 1
    REPLY = 2
    ERROR = 3
    TELL = 4
    CREDIT = 5
    HELLO = 6
    PING = 7
    BYE = 8


class Flag(enum.IntFlag):
    """Bits of the header's flags."""

    NONE = 0
    CONTEXT = 1
    """The body starts with a context (caller and chain) that the router stamped; an actor must never set it."""
    MORE = 2
    """More frames of the same thing follow (a bundle that is sent in chunks)."""


_KINDS: Final = {int(kind): kind for kind in Kind}
_UNKNOWN_FLAGS: Final = 0xFF & ~int(Flag.CONTEXT | Flag.MORE)
_pack: Final = HEADER.pack
_unpack: Final = HEADER.unpack_from
_new: Final = tuple.__new__


class FrameError(Exception):
    """Bytes that are no frame. The connection that sent them is closed; nobody else is harmed."""


class Frame(NamedTuple):
    """One frame. `body` is opaque here."""

    kind: Kind
    flags: int = 0
    operation: int = 0
    link: int = 0
    correlation: int = 0
    cause: int = 0
    deadline: int = 0
    body: bytes = b""


def encode_frame(frame: Frame, *, with_body: bool = True) -> bytes:
    """The wire form; without its body (header alone) for whoever writes a large body separately, uncopied.

    Raises `FrameError` when the body is over `MAX_BODY`, `struct.error` on a field out of range.
    """
    kind, flags, operation, link, correlation, cause, deadline, body = frame
    size = len(body)
    if size > MAX_BODY:
        raise FrameError(f"a frame's body may have {MAX_BODY} bytes, this one has {size}: send it in chunks")
    header = _pack(size, kind, flags, operation, link, correlation, cause, deadline)
    return header + body if with_body else header


class FrameDecoder:
    """Splits a stream into frames. Any exception but `FrameError` is a defect of this class.

    However the stream is cut into reads, the frames are the same: those before a malformed header are delivered, what
    follows it never is. Memory is bounded: a header is checked before its body is waited for, so at most one frame
    and one read are held.
    """

    __slots__ = ("_error", "_held", "_max_body", "_need", "_size")

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._error: str | None = None
        # The beginning of a frame: `_size` bytes of `_held`, which is kept and grows to the largest frame that came in
        # parts; `_need` are the bytes of its header, or, once that is there, of the whole frame.
        self._held = bytearray(HEADER_SIZE)
        self._size = 0
        self._need = HEADER_SIZE

    @property
    def buffered(self) -> int:
        """Bytes received that are not yet a whole frame."""
        return self._size

    @property
    def error(self) -> str | None:
        """Why the stream is malformed; None while it is not. Look at it after the frames of `feed` are handled."""
        return self._error

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that `data` completes. `data` is not kept: the caller may overwrite it afterwards.

        When frames precede a malformed header they are returned, and `error` says what comes next; otherwise, and at
        every later call (`feed(b"")` is enough), `FrameError` is raised.
        """
        if self._error is not None:
            raise FrameError(self._error)
        frames: list[Frame] = []
        # Slices of bytes are half as dear as slices of views, and most reads are one small frame.
        viewed = data.__class__ is not bytes
        source: bytes | bytearray | memoryview = memoryview(data) if viewed else data
        available = len(source)
        offset = self._complete(source, 0, frames) if self._size else 0
        while available - offset >= HEADER_SIZE and self._error is None:
            size, kind, flags, operation, link, correlation, cause, deadline = _unpack(source, offset)
            if kind not in _KINDS or size > self._max_body or flags & _UNKNOWN_FLAGS:
                self._refuse(size, kind, flags)
                break
            end = offset + HEADER_SIZE + size
            if end > available:
                break
            # tuple.__new__ is what Frame(...) does, without a Python function in between: 70 ns of 230.
            body = source[offset + HEADER_SIZE : end]
            if viewed:
                body = bytes(body)
            frames.append(_new(Frame, (_KINDS[kind], flags, operation, link, correlation, cause, deadline, body)))
            offset = end
        if offset < available and self._error is None:
            self._complete(source, offset, frames)
        if self._error is not None and not frames:
            raise FrameError(self._error)
        return frames

    def _complete(self, source: bytes | bytearray | memoryview, offset: int, frames: list[Frame]) -> int:
        """Go on with the frame that is held, or begin to hold one, at `offset`; where in `source` that ended."""
        view = memoryview(source)
        while True:
            take = min(self._need - self._size, len(view) - offset)
            self._held[self._size : self._size + take] = view[offset : offset + take]
            self._size += take
            offset += take
            if self._size < self._need:
                return offset
            size, kind, flags, operation, link, correlation, cause, deadline = _unpack(self._held)
            if kind not in _KINDS or size > self._max_body or flags & _UNKNOWN_FLAGS:
                self._refuse(size, kind, flags)
                return offset
            self._need = HEADER_SIZE + size
            if self._size == self._need:
                with memoryview(self._held) as held:
                    body = held[HEADER_SIZE : self._need].tobytes()
                frames.append(Frame(_KINDS[kind], flags, operation, link, correlation, cause, deadline, body))
                self._size, self._need = 0, HEADER_SIZE
                return offset
            if len(self._held) < self._need:
                self._held += bytes(self._need - len(self._held))

    def _refuse(self, size: int, kind: int, flags: int) -> None:
        self._size = 0
        if kind not in _KINDS:
            self._error = f"unknown frame kind {kind}"
        elif size > self._max_body:
            self._error = f"a frame of {size} bytes is announced, at most {self._max_body} are accepted"
        else:
            self._error = f"unknown flags {flags:#04x}"
