"""What an image is, for people and scripts: the field names are those that `nitro-cli describe-eif` prints.

May not: refuse what only `verify` refuses: a wrong CRC or signature is described as what it is.
Rule: AWS, Nitro Enclaves user guide, "nitro-cli describe-eif"; aws-nitro-enclaves-cli, `EifDescribeInfo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from .codes import ImageError
from .layout import SectionType
from .measure import Measurements, measure
from .metadata import Metadata, parse_metadata
from .reader import EifImage
from .signature import ImageSignature, parse_signatures, verify_signature

_HASH: Final = "Sha384 { ... }"
# OpenSSL's long names, which are what nitro-cli prints.
_NAMES: Final = {
    NameOID.COMMON_NAME: "commonName",
    NameOID.COUNTRY_NAME: "countryName",
    NameOID.STATE_OR_PROVINCE_NAME: "stateOrProvinceName",
    NameOID.LOCALITY_NAME: "localityName",
    NameOID.ORGANIZATION_NAME: "organizationName",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
}
_ALGORITHMS: Final = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ecdsa-with-SHA256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ecdsa-with-SHA384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ecdsa-with-SHA512",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "sha256WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "sha384WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "sha512WithRSAEncryption",
}


@dataclass(frozen=True)
class Description:
    """All that an image says of itself, and what its bytes measure to."""

    image: EifImage
    measurements: Measurements
    cmdline: str
    metadata: Metadata | None
    signature: ImageSignature | None
    signature_problem: ImageError | None
    """Why the signature does not hold, where there is one."""

    @property
    def crc_holds(self) -> bool:
        """Whether the file is the one whose CRC stands in its header."""
        return self.measurements.crc == self.image.header.crc

    def pcrs(self) -> dict[int, bytes]:
        """PCR0 to 2, and 8 when the image is signed."""
        signed = {} if self.signature is None else {8: self.signature.pcr8}
        return {**self.measurements.pcrs(), **signed}

    def to_json(self) -> dict[str, object]:
        """nitro-cli's object, and after its fields four of ours."""
        described: dict[str, object] = {
            "EifVersion": self.image.header.version,
            "Measurements": {"HashAlgorithm": _HASH, **{f"PCR{i}": value.hex() for i, value in self.pcrs().items()}},
            "IsSigned": self.signature is not None,
        }
        if self.signature is not None:
            described["SigningCertificate"] = describe_certificate(self.signature.certificate)
        described["CheckCRC"] = self.crc_holds
        if self.signature is not None:
            described["SignatureCheck"] = self.signature_problem is None
        if self.metadata is not None:
            described["ImageName"] = self.metadata.name
            described["ImageVersion"] = self.metadata.version
            described["Metadata"] = self.metadata.describe()
        described["Architecture"] = self.image.header.architecture
        described["Cmdline"] = self.cmdline
        described["Sections"] = [
            {"Type": one.type.name.lower(), "Offset": one.offset, "Size": one.size} for one in self.image.sections
        ]
        described["Irregularities"] = [str(one) for one in self.image.irregularities]
        return described


def describe_image(image: EifImage) -> Description:
    """Read and measure an open image. Raises `ImageError` when a section of it is malformed."""
    cmdline = image.cmdline
    metadata = None
    section = image.only(SectionType.METADATA)
    if section is not None:
        metadata = parse_metadata(image.read_section(section), section.data_offset)
    signature = None
    signed = image.only(SectionType.SIGNATURE)
    if signed is not None:
        signature = parse_signatures(image.read_section(signed), signed.data_offset)[0]
    measurements = measure(image)
    problem = None
    if signature is not None and signed is not None:
        try:
            verify_signature(signature, measurements.pcr0, signed.data_offset)
        except ImageError as error:
            problem = error
    return Description(image, measurements, cmdline, metadata, signature, problem)


def describe_certificate(certificate: x509.Certificate) -> dict[str, object]:
    """A signing certificate as nitro-cli prints it."""
    issuer = {_NAMES.get(one.oid, one.oid.dotted_string): _as_text(one.value) for one in certificate.issuer}
    oid = certificate.signature_algorithm_oid
    when = "%b %e %H:%M:%S %Y GMT"
    return {
        "IssuerName": issuer,
        "Algorithm": _ALGORITHMS.get(oid, oid.dotted_string),
        "NotBefore": certificate.not_valid_before_utc.strftime(when),
        "NotAfter": certificate.not_valid_after_utc.strftime(when),
        "Signature": certificate.signature.hex(":").upper(),
    }


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()
