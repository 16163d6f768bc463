"""In what two images differ, in words: header, sections, measurements, metadata.

May not: say which is the right one. Rule: docs/architecture.md, "The enclave image".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from .describe import Description
from .layout import SectionType
from .reader import EifImage, Section


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same."""

    what: str
    """Like `PCR0`, `ramdisk 1` or `metadata KernelVersion`."""
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.what}: {self.first} -> {self.second}"


def compare(first: Description, second: Description) -> list[Difference]:
    """What differs, in the order: header, sections, measurements, command line, metadata, signer."""
    pairs = [*_headers(first, second), *_sections(first.image, second.image), *_meanings(first, second)]
    return [Difference(what, *shown) for what, *shown in pairs if shown[0] != shown[1]]


def _headers(first: Description, second: Description) -> Iterator[tuple[str, str, str]]:
    for what, field in (
        ("version", "version"),
        ("architecture", "architecture"),
        ("default memory", "default_memory"),
        ("default CPUs", "default_cpus"),
    ):
        yield what, str(getattr(first.image.header, field)), str(getattr(second.image.header, field))
    order = [", ".join(one.type.name.lower() for one in image.sections) for image in (first.image, second.image)]
    yield "sections", order[0], order[1]


def _sections(first: EifImage, second: EifImage) -> Iterator[tuple[str, str, str]]:
    for kind in (SectionType.KERNEL, SectionType.RAMDISK):
        ours, theirs = first.of(kind), second.of(kind)
        for number in range(max(len(ours), len(theirs))):
            shown = [_digest(image, of[number : number + 1]) for image, of in ((first, ours), (second, theirs))]
            yield f"{kind.name.lower()} {number}" if kind is SectionType.RAMDISK else "kernel", shown[0], shown[1]


def _digest(image: EifImage, sections: tuple[Section, ...]) -> str:
    if not sections:
        return "absent"
    digest = hashlib.sha256()
    for chunk in image.chunks(sections[0]):
        digest.update(chunk)
    return f"{sections[0].size} bytes, sha256:{digest.hexdigest()}"


def _meanings(first: Description, second: Description) -> Iterator[tuple[str, str, str]]:
    pcrs = first.pcrs(), second.pcrs()
    for index in sorted(pcrs[0].keys() | pcrs[1].keys()):
        yield f"PCR{index}", *(one[index].hex() if index in one else "absent" for one in pcrs)  # type: ignore[misc]
    yield "cmdline", first.cmdline, second.cmdline
    described = [_metadata(one) for one in (first, second)]
    for name in sorted(described[0].keys() | described[1].keys()):
        yield f"metadata {name}", described[0].get(name, "absent"), described[1].get(name, "absent")


def _metadata(one: Description) -> dict[str, str]:
    if one.metadata is None:
        return {}
    named = {"ImageName": one.metadata.name, "ImageVersion": one.metadata.version}
    return {name: str(value) for name, value in {**named, **one.metadata.describe()}.items()}
