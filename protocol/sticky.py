"""Sticky keys: what a caller's side makes of one argument, so that calls with the same value go to the same replica.

May not: be believed as anything but a wish: whoever lies about a key harms where its own calls go. The key stands in
front of the arguments, on links that the manifest makes sticky and on no other.
Rule: docs/architecture.md, "Sticky keys".

    key (8 bytes) | the arguments, a msgpack array
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from .operations import OperationDescription, Parameter

KEY_BYTES: Final = 8
NO_KEY: Final = bytes(KEY_BYTES)
"""For a call that has none: it goes to the least loaded replica."""

_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_plain: Final = msgspec.msgpack.Decoder()


def place_of(description: OperationDescription, parameter: str) -> int | None:
    """The place of a parameter among an operation's arguments; None when it has no such parameter."""
    for place, one in enumerate(description.parameters):
        if one.name == parameter:
            return place
    return None


def key_of(arguments: bytes, place: int, parameters: Sequence[Parameter]) -> bytes:
    """The key of encoded arguments, by the one at `place`, or by its default where that was left out.

    Equal values of one type give equal keys, however they were encoded. `NO_KEY` when there is no value to be had.
    """
    try:
        given = _items.decode(arguments)
        raw = bytes(given[place]) if place < len(given) else parameters[place].default
        if not raw:
            return NO_KEY
        value = msgspec.msgpack.encode(_plain.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        return NO_KEY  # the callee will refuse such arguments
    return hashlib.blake2b(value, digest_size=KEY_BYTES).digest()
