"""The closed set of reasons for which an image is refused, and the one error that carries them.

May not: read anything. Every refusal of a file's bytes says at which offset it was met.
Rule: AWS, aws-nitro-enclaves-image-format, README.md ("Enclave image file format").
"""

from __future__ import annotations

import enum

from tea.trust.errors import TrustError


class ImageCode(enum.StrEnum):
    """Why an image is refused. The words are stable: scripts and logs may depend on them."""

    TRUNCATED = "truncated"
    """The file ends before something that its header promises."""
    MAGIC = "magic"
    """It does not begin with `.eif`: it is no enclave image."""
    VERSION = "version"
    """A version of the format other than 2, 3 or 4."""
    FLAGS = "flags"
    """Flag bits that no version defines."""
    RESERVED = "reserved"
    """A reserved field is not zero."""
    SECTION_COUNT = "section-count"
    """No section, or more than 32, or something in the table beyond the sections that there are."""
    SECTION_OFFSET = "section-offset"
    """A section begins inside the header or behind the end of the file."""
    SECTION_SIZE = "section-size"
    """The header's table and the section's own header disagree on its size, or it reaches behind the end."""
    SECTION_TYPE = "section-type"
    """A type that this version of the format does not have."""
    OVERLAP = "overlap"
    """Two sections share bytes."""
    DUPLICATE = "duplicate"
    """A second kernel, cmdline, signature or metadata section."""
    MISSING = "missing"
    """No kernel, no cmdline, or in version 4 no metadata."""
    ORDER = "order"
    """A ramdisk before the kernel, or a table in another order than the file (tools would measure it differently)."""
    GAP = "gap"
    """Bytes that belong to no section: nobody measures them."""
    CRC = "crc"
    """The CRC in the header is not that of the file."""
    CMDLINE = "cmdline"
    """The kernel's command line is not text, or longer than a kernel takes."""
    METADATA = "metadata"
    """The metadata section is no JSON object with the fields that are mandatory."""
    SIGNATURE_SIZE = "signature-size"
    """A signature section of more than 32,768 bytes."""
    SIGNATURE_FORMAT = "signature-format"
    """A signature section that is no CBOR array of certificates and COSE signatures."""
    CERTIFICATE = "certificate"
    """The signing certificate is none, or has a key of a kind that can't sign an image."""
    SIGNATURE = "signature"
    """The signature does not hold, or was made over another PCR0."""
    NOT_SIGNED = "not-signed"
    """A signature was expected and there is none."""
    PCR = "pcr"
    """A measurement is not the one that was expected."""
    CHANGED = "changed"
    """The file changed while it was read."""
    INPUT = "input"
    """What an image is to be made of can't be used: no bzImage, no ramdisk, a file that is not the one expected."""
    SIGNER = "signer"
    """A key can't be used for signing an image."""
    BUILD = "build"
    """A step of the image build failed; the sentence names the step and its input."""
    PACKAGE = "package"
    """A package is not to be had, or its bytes are not those of the lock."""
    PLATFORM = "platform"
    """What the platform needs is missing or forbidden there."""
    ENCLAVE = "enclave"
    """An enclave could not be started, found or ended."""


class ImageError(TrustError):
    """An image, or what it is made of, is refused. `offset` is the byte of the file at which it was met."""

    code: ImageCode

    def __init__(self, code: ImageCode, sentence: str, *, offset: int | None = None) -> None:
        super().__init__(code, sentence if offset is None else f"at byte {offset}: {sentence}")
        self.offset = offset
