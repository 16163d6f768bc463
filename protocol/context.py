"""The caller context that a router stamps in front of a delivered CALL or TELL body (`Flag.CONTEXT`).

May not: be believed when it comes from a worker or from the parent; only a router writes it.
Rule: docs/architecture.md, "The wire".

    u16 length | msgpack [caller: str, chain: [str, ...], ...] | the body as the caller sent it
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

import msgspec

from .errors import CallError, Code
from .frame import FrameError

MAX_CHAIN: Final = 32
"""Callers that may stand behind a caller. A longer chain is a loop of calls, and is refused."""
MAX_NAME: Final = 128
"""Bytes (UTF-8) of one name in a context."""

_LENGTH: Final = struct.Struct(">H")
# 33 names of at most 128 bytes with their msgpack heads, and room for what a later version appends.
_MAX_CONTEXT: Final = 8192


class Context(NamedTuple):
    """Who called, and who stands behind that call, nearest first."""

    caller: str
    chain: tuple[str, ...] = ()


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    # Elements that a later version appends are skipped: array_like without forbid_unknown_fields.
    caller: str
    chain: tuple[str, ...]


_decoder: Final = msgspec.msgpack.Decoder(_Wire)


@functools.lru_cache(maxsize=4096)
def encode_context(caller: str, chain: tuple[str, ...] = ()) -> bytes:
    """The bytes to put in front of a body. The last 4096 distinct contexts are remembered: a router has few.

    Raises `CallError(EXHAUSTED)` when the chain has more than `MAX_CHAIN` callers, and `ValueError` on an empty name
    or one over `MAX_NAME` bytes, which no router has (names were checked when the manifest was read).
    """
    if len(chain) > MAX_CHAIN:
        raise CallError(
            Code.EXHAUSTED,
            f"{len(chain)} callers stand behind this call, at most {MAX_CHAIN} may: do the actors call each "
            "other in a circle?",
            limit=MAX_CHAIN,
        )
    for name in (caller, *chain):
        if not 0 < len(name.encode()) <= MAX_NAME:
            raise ValueError(f"a name in a context has 1 to {MAX_NAME} bytes, not {len(name.encode())}")
    encoded = msgspec.msgpack.encode(_Wire(caller, chain))
    return _LENGTH.pack(len(encoded)) + encoded


def split_context(body: bytes) -> tuple[Context, bytes]:
    """The context in front of a body, and the body behind it. Raises `FrameError` when there is none."""
    if len(body) < _LENGTH.size:
        raise FrameError("a frame with the context flag is too short for a context")
    (length,) = _LENGTH.unpack_from(body)
    end = _LENGTH.size + length
    if length > _MAX_CONTEXT or end > len(body):
        raise FrameError(f"a context of {length} bytes is announced in a body of {len(body)}")
    return decode_context(body[_LENGTH.size : end]), body[end:]


@functools.lru_cache(maxsize=1024)
def decode_context(encoded: bytes) -> Context:
    """A context without its length. Raises `FrameError` when it is malformed or over the limits."""
    if len(encoded) > _MAX_CONTEXT:
        raise FrameError(f"a context has at most {_MAX_CONTEXT} bytes, not {len(encoded)}")
    try:
        wire = _decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a context is [caller, [chain]], this is something else: {error}") from None
    if len(wire.chain) > MAX_CHAIN:
        raise FrameError(f"a context's chain has at most {MAX_CHAIN} callers, not {len(wire.chain)}")
    for name in (wire.caller, *wire.chain):
        if not 0 < len(name.encode()) <= MAX_NAME:
            raise FrameError(f"a name in a context has 1 to {MAX_NAME} bytes, not {len(name.encode())}")
    return Context(wire.caller, wire.chain)
