"""Pushing settings: split bundles into content-addressed chunks, send those that the enclave lacks, activate.

May not: verify anything: the enclave does, and whatever is wrong here is refused there.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tea.protocol.channels import Activation, BundleOffer, Channel, Control, SettingsOffer
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.endpoint import Endpoint

CHUNK: Final = 512 << 10
"""Bytes of a chunk."""
IN_FLIGHT: Final = 8
"""Chunks that are on their way at once."""
MAX_BUNDLE: Final = 64 << 20
"""Bytes of a bundle file."""
MAX_TOTAL: Final = 512 << 20
"""Bytes of all bundles of a push: they are held in memory, here and in the enclave."""
OFFER_SECONDS: Final = 30.0
CHUNK_SECONDS: Final = 60.0
ACTIVATE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Pushed:
    """What a push came to."""

    activation: Activation
    sent_bytes: int
    seconds: float
    """For the chunks alone."""


@dataclass(frozen=True)
class CutBundle:
    """A bundle file in chunks."""

    offer: BundleOffer
    chunks: Mapping[bytes, memoryview]
    """By their SHA-256."""


def read_bundle(path: Path, limit: int = MAX_BUNDLE) -> CutBundle:
    """A bundle file, cut. Raises `CallError` that names the path: NOT_FOUND, or INVALID on over `limit` bytes."""
    try:
        # Without waiting for a writer, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = memoryview(file.read(limit + 1) if regular else b"")
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise CallError(Code.NOT_FOUND, f"the bundle {path} cannot be read: {why}") from None
    if not data:
        raise CallError(Code.INVALID, f"the bundle {path} is empty, or no file: build it anew")
    if len(data) > limit:
        raise CallError(Code.INVALID, f"the bundle {path} has over {limit} bytes, more than fit: make it smaller")
    pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digests = [hashlib.sha256(piece).digest() for piece in pieces]
    offer = BundleOffer(hashlib.sha256(data).digest(), tuple(digests), len(data))
    return CutBundle(offer, dict(zip(digests, pieces, strict=True)))


def read_bundles(paths: Iterable[Path]) -> list[CutBundle]:
    """Bundle files, each content once. Raises `CallError` as `read_bundle` does, and INVALID on over 512 MiB."""
    bundles: dict[bytes, CutBundle] = {}
    room = MAX_TOTAL
    for path in dict.fromkeys(paths):
        bundle = read_bundle(path, min(MAX_BUNDLE, room))
        if bundle.offer.digest not in bundles:
            bundles[bundle.offer.digest] = bundle
            room -= bundle.offer.size
    return list(bundles.values())


async def push(
    enclave: Endpoint,
    manifest: bytes,
    approver_changes: tuple[bytes, ...],
    environment: Mapping[str, str],
    bundles: Sequence[Path],
    *,
    standby: bool = False,
) -> Pushed:
    """Offer, send what is missing, activate. Raises `CallError` as the enclave refused.

    What was sent before a push broke off is not sent again by the next one.
    """
    files = await asyncio.to_thread(read_bundles, bundles)
    offers = tuple(file.offer for file in files)
    offer = SettingsOffer(manifest, approver_changes, dict(environment), offers, standby)
    missing: tuple[bytes, ...] = await enclave.call(Channel.CONTROL, Control, "offer", offer, timeout=OFFER_SECONDS)
    chunks: dict[bytes, memoryview] = {}
    for file in files:
        chunks.update(file.chunks)
    started = time.monotonic()
    # Each once, and only ours, whatever the enclave asks for.
    sent = await _send(enclave, [chunks[digest] for digest in dict.fromkeys(missing) if digest in chunks])
    seconds = time.monotonic() - started
    activation: Activation = await enclave.call(Channel.CONTROL, Control, "activate", timeout=ACTIVATE_SECONDS)
    return Pushed(activation, sent, seconds)


async def _send(enclave: Endpoint, chunks: Sequence[memoryview]) -> int:
    waiting = iter(chunks)
    sent = 0

    async def lane() -> None:
        nonlocal sent
        for chunk in waiting:
            await enclave.call(Channel.CONTROL, Control, "chunk", chunk, timeout=CHUNK_SECONDS)
            sent += len(chunk)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(chunks))):
                group.create_task(lane())
    except ExceptionGroup as failures:
        # The first refusal ended the others; whoever pushes wants that one, not a group.
        raise failures.exceptions[0] from None
    return sent
