"""Pushing settings: split bundles into content-addressed chunks, send those that the enclave lacks, activate.

May not: verify anything: the enclave does, and whatever is wrong here is refused there.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
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
ACTIVATE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Pushed:
    """What a push came to."""

    activation: Activation
    sent_bytes: int
    seconds: float
    """For the chunks alone."""


@dataclass(frozen=True)
class _File:
    offer: BundleOffer
    chunks: dict[bytes, memoryview]


def read_bundle(path: Path) -> _File:
    """A bundle file, cut. Raises `CallError(NOT_FOUND)` that names the path."""
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise CallError(Code.NOT_FOUND, f"the bundle {path} cannot be read: {error.strerror}") from None
    pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digests = [hashlib.sha256(piece).digest() for piece in pieces]
    offer = BundleOffer(hashlib.sha256(data).digest(), tuple(digests), len(data))
    return _File(offer, dict(zip(digests, pieces, strict=True)))


async def push(
    enclave: Endpoint,
    manifest: bytes,
    approver_changes: tuple[bytes, ...],
    environment: Mapping[str, str],
    bundles: list[Path],
) -> Pushed:
    """Offer, send what is missing, activate. Raises `CallError` as the enclave refused."""
    files = [await asyncio.to_thread(read_bundle, path) for path in bundles]
    offer = SettingsOffer(manifest, approver_changes, dict(environment), tuple(file.offer for file in files))
    missing: tuple[bytes, ...] = await enclave.call(Channel.CONTROL, Control, "offer", offer, timeout=30.0)
    chunks: dict[bytes, memoryview] = {}
    for file in files:
        chunks.update(file.chunks)
    started = time.monotonic()
    sent = await _send(enclave, [chunks[digest] for digest in missing if digest in chunks])
    seconds = time.monotonic() - started
    activation: Activation = await enclave.call(Channel.CONTROL, Control, "activate", timeout=ACTIVATE_SECONDS)
    return Pushed(activation, sent, seconds)


async def _send(enclave: Endpoint, chunks: list[memoryview]) -> int:
    waiting = iter(chunks)
    sent = 0

    async def lane() -> None:
        nonlocal sent
        for chunk in waiting:
            await enclave.call(Channel.CONTROL, Control, "chunk", chunk, timeout=60.0)
            sent += len(chunk)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(IN_FLIGHT, len(chunks))):
            group.create_task(lane())
    return sent
