"""Images to test with: tiny ones in every version, and keys with certificates on every curve."""

from __future__ import annotations

import datetime
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tea.enclave_image.eif.layout import SectionType
from tea.enclave_image.eif.metadata import Metadata
from tea.enclave_image.eif.signer import FileSigner
from tea.enclave_image.eif.writer import Piece, write_image

KERNEL = bytes(range(256)) * 4
CMDLINE = b"reboot=k panic=30 console=ttyS0"
RAMDISKS = (b"first ramdisk" * 20, b"second ramdisk" * 30, b"third" * 40)
METADATA = Metadata(
    "tiny", "1.0", "2026-01-02T03:04:05Z", "tea", "0.1.0", "Debian 12", "6.1.0", {}, {"Deployment": "d"}
)


def pieces(version: int = 4, ramdisks: tuple[bytes, ...] = RAMDISKS) -> list[Piece]:
    made = [Piece.of_bytes(SectionType.KERNEL, KERNEL), Piece.of_bytes(SectionType.CMDLINE, CMDLINE)]
    if version >= 4:
        made.append(Piece.of_bytes(SectionType.METADATA, METADATA.encode()))
    return made + [Piece.of_bytes(SectionType.RAMDISK, one) for one in ramdisks]


def raw_image(
    sections: list[tuple[int, bytes]], *, version: int = 4, flags: int = 0, order: list[int] | None = None, gap: int = 0
) -> bytes:
    """An image by struct and zlib alone. `order` permutes the table; `gap` zeros stand in front of every section."""
    body, table, at = b"", [], 548
    for kind, data in sections:
        body += b"\0" * gap
        at += gap
        table.append((at, len(data)))
        body += struct.pack(">HHQ", kind, 0, len(data)) + data
        at += 12 + len(data)
    if order is not None:
        table = [table[index] for index in order]
    padding = [0] * (32 - len(table))
    header = struct.pack(
        ">4sHHQQHH32Q32QI",
        b".eif",
        version,
        flags,
        1 << 30,
        2,
        0,
        len(table),
        *[offset for offset, _ in table],
        *padding,
        *[size for _, size in table],
        *padding,
        0,
    )
    return header + struct.pack(">I", zlib.crc32(header + body)) + body


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.eif"
    write_image(path, pieces())
    return path


@pytest.fixture(scope="session")
def make_signer() -> Callable[..., FileSigner]:
    def make(curve: ec.EllipticCurve | None = None, *, days: int = 30, name: str = "image signer") -> FileSigner:
        key = ec.generate_private_key(curve or ec.SECP384R1())
        return FileSigner(pem_of(key), certificate_of(key, days=days, name=name))

    return make


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_of(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, days: int = 30, name: str = "image signer"
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: builds images or boots them; run with -m slow (make image-test)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in str(config.getoption("-m")):
        return
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.skip(reason="slow: make image-test"))
