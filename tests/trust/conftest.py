"""A maker of attestation documents: a healthy chain and document, of which a test breaks exactly one thing.

May not: use the code under test for anything but CBOR's initial bytes. Rule: docs/architecture.md, "Trust".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tea.trust import pcr
from tea.trust.roots import Roots

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "attestation"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
INSTANCE = "i-0123456789abcdef0"
PROTECTED = bytes.fromhex("a1013822")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def p384(name: str) -> ec.EllipticCurvePrivateKey:
    """A key of the session, by name."""
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Spec:
    """One certificate; what is not said is healthy for its place."""

    name: str
    key: PrivateKey
    ca: bool | None = True
    """None: without BasicConstraints."""
    path_length: int | None = None
    usage: tuple[str, ...] | None = ("key_cert_sign", "crl_sign")
    """None: without KeyUsage."""
    not_before: datetime = NOW - timedelta(days=1)
    not_after: datetime = NOW + timedelta(days=1)
    issuer: str | None = None
    signer: PrivateKey | None = None
    hash: hashes.SHA256 | hashes.SHA384 | None = field(default_factory=hashes.SHA384)
    critical: bool = False
    """Whether an extension that nobody understands is critical; it is there in any case."""

    def build(self, above: Spec | None) -> bytes:
        """The DER, issued by the one above (by itself when there is none)."""
        issuer = above or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(self.issuer or issuer.name))
            .public_key(self.key.public_key())
            .serial_number(int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big"))
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), self.critical
            )
        )
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.path_length if self.ca else None), True)
        if self.usage is not None:
            builder = builder.add_extension(x509.KeyUsage(**{name: name in self.usage for name in _USAGES}), True)
        key = self.signer or issuer.key
        # Deterministic, so that the same root made twice is the same root.
        deterministic = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
        return builder.sign(key, self.hash, ecdsa_deterministic=deterministic).public_bytes(Encoding.DER)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


HEALTHY: Mapping[str, Spec] = {
    "root": Spec("root", p384("root"), not_before=NOW - timedelta(days=900), not_after=NOW + timedelta(days=900)),
    "region": Spec("region", p384("region"), path_length=2),
    "zone": Spec("zone", p384("zone"), path_length=1),
    "instance": Spec("instance", p384("instance"), path_length=0),
    "leaf": Spec("leaf", p384("leaf"), ca=False, usage=("digital_signature",), not_after=NOW + timedelta(hours=3)),
}


@dataclass
class Maker:
    """Makes documents. Each argument breaks, or just changes, one thing."""

    now_ms: int = NOW_MS
    instance: str = INSTANCE

    def chain(self, *order: str, **changes: Mapping[str, Any]) -> list[bytes]:
        """DER from the root down, in `order` (default: all five), with changes by name."""
        specs = [dataclasses.replace(HEALTHY[name], **changes.get(name, {})) for name in order or HEALTHY]
        return [spec.build(specs[index - 1] if index else None) for index, spec in enumerate(specs)]

    def roots(self, chain: Sequence[bytes] | None = None) -> Roots:
        """The root of a chain, pinned."""
        return Roots.from_certificates([(chain or healthy_chain())[0]])

    def fields(self, **changes: object) -> dict[str, object]:
        """The payload's fields, in the order in which an NSM writes them."""
        pcrs = {index: bytes([index + 1]) * 48 for index in range(16)}
        pcrs[4] = pcr.pcr4(self.instance)
        chain = healthy_chain()
        return {
            "module_id": f"{self.instance}-enc0fedcba987654321",
            "digest": "SHA384",
            "timestamp": self.now_ms,
            "pcrs": pcrs,
            "certificate": chain[-1],
            "cabundle": list(chain[:-1]),
            "public_key": None,
            "user_data": None,
            "nonce": None,
            **changes,
        }

    def document(self, *, chain: Sequence[bytes] | None = None, without: str | None = None, **changes: object) -> bytes:
        """A signed document; `chain` replaces the certificates, `without` leaves a field out."""
        if chain is not None:
            changes = {"certificate": chain[-1], "cabundle": list(chain[:-1]), **changes}
        fields = self.fields(**changes)
        fields.pop(without or "", None)
        return self.sign(cbor2.dumps(fields))

    def sign(
        self,
        payload: bytes,
        *,
        protected: bytes = PROTECTED,
        unprotected: object = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        signature: object = None,
    ) -> bytes:
        """The COSE_Sign1 of any payload, with the leaf's key."""
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature((key or p384("leaf")).sign(signed, ec.ECDSA(hashes.SHA384())))
        raw = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return cbor2.dumps([protected, unprotected or {}, payload, raw if signature is None else signature])

    @staticmethod
    def indefinite(fields: Mapping[str, object]) -> bytes:
        """A payload as NSMs write it since August 2025: an indefinite-length map."""
        items = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items())
        return b"\xbf" + items + b"\xff"

    @staticmethod
    def pairs(pairs: Sequence[tuple[object, object]]) -> bytes:
        """A map as it is told, duplicates and all (at most 23 pairs)."""
        return bytes([0xA0 + len(pairs)]) + b"".join(cbor2.dumps(k) + cbor2.dumps(v) for k, v in pairs)


@cache
def healthy_chain() -> tuple[bytes, ...]:
    """The healthy chain, made once."""
    return tuple(Maker().chain())


@pytest.fixture(scope="session")
def maker() -> Maker:
    """The maker of attestation documents."""
    return Maker()


@pytest.fixture(scope="session")
def real_document() -> Callable[[str], bytes]:
    """Real documents from AWS hardware, by file name; skips where they are not at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"the real attestation documents are not in {SHARED}")
    return lambda name: (SHARED / name).read_bytes()
