"""What ra actors say to each other: small typed messages, sizes checked before anything is kept.

May not: be believed. A message's sender is the parents' word; what counts is what a verified document says.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tea.sdk.rounds import (
    CONTRIBUTION_SIZE,
    MAX_CERTIFICATE,
    MAX_DOCUMENT,
    MAX_HEIGHT,
    MAX_KEY,
    MAX_NODE,
    MAX_PROOF,
    MAX_STATEMENT,
)

MAX_MESSAGE: Final = MAX_CERTIFICATE + 4096
"""Longest message, in bytes."""

Height = Annotated[int, msgspec.Meta(ge=0, le=MAX_HEIGHT)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Prefix = Annotated[bytes, msgspec.Meta(max_length=64)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Contribution(_Message, tag="contribution", frozen=True):
    """My random value for a round. Said again, it asks: attest to this for me, I lack your document."""

    height: Height
    value: Annotated[bytes, msgspec.Meta(min_length=CONTRIBUTION_SIZE, max_length=CONTRIBUTION_SIZE)]
    certified: bool
    """Whether I hold the round's certificate; if not, tell me that you do."""


class Attestation(_Message, tag="attestation", frozen=True):
    """My attestation of a round."""

    height: Height
    document: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_DOCUMENT)]
    statement: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_STATEMENT)]


class Offer(_Message, tag="offer", frozen=True):
    """I hold the certificate of this height; ask if you want it."""

    height: Height


class Want(_Message, tag="want", frozen=True):
    """Send me the certificate that you offered."""

    height: Height


class Certified(_Message, tag="certified", frozen=True):
    """A certificate, as its file."""

    height: Height
    certificate: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATE)]


class NodeWanted(_Message, tag="node?", frozen=True):
    """You are said to dissent: which node does your state have at this prefix?"""

    height: Height
    prefix: Prefix


class NodeFound(_Message, tag="node", frozen=True):
    """The node, or None when I no longer keep that state."""

    height: Height
    prefix: Prefix
    node: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_NODE)] | None


class Found(_Message, tag="found", frozen=True):
    """The key in which an accused differs from the certificate, so that not everybody has to walk."""

    height: Height
    accused: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    root: Hash
    """The state root that the accused attested."""
    key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY)]
    certified_proof: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PROOF)]
    accused_proof: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PROOF)]


Message = Contribution | Attestation | Offer | Want | Certified | NodeWanted | NodeFound | Found

_decoder: Final = msgspec.msgpack.Decoder(Message)
_encoder: Final = msgspec.msgpack.Encoder()


class MalformedMessage(Exception):
    """Bytes that are no message of ours. They are counted and dropped."""


def encode_message(message: Message) -> bytes:
    """The message's bytes."""
    return _encoder.encode(message)


def decode_message(body: bytes) -> Message:
    """The message in these bytes. Raises `MalformedMessage`, and nothing else."""
    if len(body) > MAX_MESSAGE:
        raise MalformedMessage(f"{len(body)} bytes, at most {MAX_MESSAGE} are read")
    try:
        message: Message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(str(error)) from None
    return message
