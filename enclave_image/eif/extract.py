"""Takes an image apart into files, one a section.

May not: unpack a ramdisk, or write outside of the folder it was given.
Rule: AWS, aws-nitro-enclaves-image-format, README.md ("Enclave image file format").
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .layout import SectionType
from .reader import EifImage, Section
from .signature import parse_signatures

_GZIP: Final = b"\x1f\x8b"


def extract(image: EifImage, folder: Path) -> dict[str, Path]:
    """Write `kernel`, `cmdline`, `ramdisk-N.cpio[.gz]`, `metadata.json`, `signature.cbor`, `certificate.pem`.

    Answers file name to path. Raises `ImageError`, `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    ramdisks = 0
    for section in image.sections:
        name = _name(image, section, ramdisks)
        ramdisks += section.type is SectionType.RAMDISK
        path = folder / name
        with path.open("wb") as file:
            for chunk in image.chunks(section):
                file.write(chunk)
        written[name] = path
        if section.type is SectionType.SIGNATURE:
            signature = parse_signatures(image.read_section(section), section.data_offset)[0]
            written["certificate.pem"] = folder / "certificate.pem"
            written["certificate.pem"].write_bytes(signature.certificate_pem)
    return written


def _name(image: EifImage, section: Section, ramdisks: int) -> str:
    if section.type is SectionType.RAMDISK:
        start = image.read_at(section.data_offset, min(2, section.size))
        return f"ramdisk-{ramdisks}.cpio{'.gz' if start == _GZIP else ''}"
    return {
        SectionType.KERNEL: "kernel",
        SectionType.CMDLINE: "cmdline",
        SectionType.METADATA: "metadata.json",
        SectionType.SIGNATURE: "signature.cbor",
    }[section.type]
