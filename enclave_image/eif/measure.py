"""The measurements of an image in one pass over its bytes: PCR0, PCR1, PCR2, and the CRC.

May not: hold more than a few chunks, or read a byte twice: what is hashed is what was checked.
Rule: AWS, Nitro Enclaves user guide, "Cryptographic attestation"; each PCR is SHA-384(48 zero bytes ||
SHA-384(content)), PCR0 over kernel, cmdline and ramdisks in file order, PCR1 over kernel, cmdline and the first
ramdisk, PCR2 over the other ramdisks.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from tea.trust import pcr

from .layout import CRC_OFFSET, HEADER_SIZE, SectionType
from .reader import CHUNK, EifImage

RING: Final = 4
"""Chunks in hand: one is read while the others are hashed."""
_MEASURED: Final = (SectionType.KERNEL, SectionType.CMDLINE, SectionType.RAMDISK)


@dataclass(frozen=True, slots=True)
class Measurements:
    """What an image measures to. PCR8 is its signer's: see `signature`."""

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    crc: int

    def pcrs(self) -> dict[int, bytes]:
        """PCR0 to PCR2."""
        return {0: self.pcr0, 1: self.pcr1, 2: self.pcr2}


class Measurer:
    """Hashes on two threads of its own (OpenSSL and zlib let go of the interpreter); the caller's thread reads.

    The content of PCR1 begins as that of PCR0, so the two share one hash until a second ramdisk begins.
    """

    def __init__(self) -> None:
        self._image = hashlib.sha384()
        self._first: Any = None
        """The hash of PCR1 once it is no longer that of PCR0."""
        self._application = hashlib.sha384()
        self._ramdisks = 0
        self._crc = 0
        self._lanes = (ThreadPoolExecutor(1, "pcr0"), ThreadPoolExecutor(1, "pcr2"))

    def begin(self, kind: SectionType) -> None:
        """A section begins. Call it before its chunks."""
        if kind is not SectionType.RAMDISK:
            return
        self._ramdisks += 1
        if self._ramdisks == 2:
            self._lanes[0].submit(self._fork).result()

    def update(self, kind: SectionType | None, data: memoryview) -> list[Future[None]]:
        """Bytes of a section (None: of no section: CRC alone). `data` must stay until the futures are done."""
        pending: list[Future[None]] = []
        if kind in _MEASURED:
            pending.append(self._lanes[0].submit(self._image.update, data))
            if kind is SectionType.RAMDISK and self._ramdisks > 1:
                pending.append(self._lanes[1].submit(self._application.update, data))
            elif self._first is not None:
                pending.append(self._lanes[0].submit(self._first.update, data))
        self._crc = zlib.crc32(data, self._crc)
        return pending

    def finish(self) -> Measurements:
        """All was given: the measurements."""
        for lane in self._lanes:
            lane.shutdown(wait=True)
        first = self._image if self._first is None else self._first
        image, bootstrap, application = (one.digest() for one in (self._image, first, self._application))
        return Measurements(pcr.image_pcr(image), pcr.image_pcr(bootstrap), pcr.image_pcr(application), self._crc)

    def close(self) -> None:
        """End the threads, whatever happened."""
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)

    def _fork(self) -> None:
        self._first = self._image.copy()


def measure(image: EifImage) -> Measurements:
    """The measurements of an open image. Raises `ImageError(CHANGED)` when it changed meanwhile."""
    measurer = Measurer()
    ring: list[tuple[bytearray, list[Future[None]]]] = [(bytearray(CHUNK), []) for _ in range(RING)]
    try:
        turn = 0
        for kind, start, end in _spans(image):
            if kind is not None:
                measurer.begin(kind)
            for offset in range(start, end, CHUNK):
                buffer, pending = ring[turn]
                for one in pending:
                    one.result()
                part = memoryview(buffer)[: min(CHUNK, end - offset)]
                image.read_into(part, offset)
                ring[turn] = (buffer, measurer.update(kind, part))
                turn = (turn + 1) % RING
        for _, pending in ring:
            for one in pending:
                one.result()
        image.require_unchanged()
        return measurer.finish()
    finally:
        measurer.close()


def _spans(image: EifImage) -> Iterator[tuple[SectionType | None, int, int]]:
    """Every byte of the file but its CRC field, in order, with the section whose data it is."""
    yield None, 0, CRC_OFFSET
    end = HEADER_SIZE
    for section in image.sections:
        yield None, end, section.data_offset
        yield section.type, section.data_offset, section.end
        end = section.end
    yield None, end, image.size
