"""The simulated NSM's certificate authority: root, perhaps regional and zonal, instance, leaf, in AWS's profile.

May not: make a certificate under AWS's root (it has no such key), print a private key, or be used in mode nitro.
Rule: RFC 5280; docs/architecture.md, "Modes"; the profile is that of AWS's published documents.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.x509.oid import NameOID

_DAY: Final = 86400
ROOT_LIFE: Final = 30 * 365 * _DAY
REGIONAL_LIFE: Final = 20 * _DAY
ZONAL_LIFE: Final = 6 * _DAY
INSTANCE_LIFE: Final = _DAY
LEAF_LIFE: Final = 3 * 3600
"""Seconds that each kind of certificate lives, as on AWS."""
NETWORK_LIFE: Final = 365 * _DAY
"""Seconds that an instance's certificate lives in a simulated network: AWS renews it beneath a running NSM, which gets
its credential once here. All else of it, and the leaf below it, is as on AWS."""
_EARLY: Final = 300
"""Seconds by which a CA certificate starts in the past, so that clocks that differ a little agree on it."""
_LEAF_EARLY: Final = 3
_TAG: Final = "tea.simulated-instance.v1"
_MAX_CREDENTIAL: Final = 16384


@dataclass(frozen=True)
class InstanceCredential:
    """What one simulated instance holds: its chain (root first, instance certificate last) and its CA key.

    Secret: whoever has it can make documents of this instance. It is handed to one host on an inherited pipe.
    """

    instance_id: str
    cabundle: tuple[bytes, ...]
    key: bytes = field(repr=False)
    """PKCS #8 DER of the instance certificate's P-384 key."""

    def encode(self) -> bytes:
        """One canonical CBOR map; `decode` reads it back."""
        fields = {"tea": _TAG, "instance": self.instance_id, "cabundle": list(self.cabundle), "key": self.key}
        return cbor2.dumps(fields, canonical=True)

    @classmethod
    def decode(cls, data: bytes) -> InstanceCredential:
        """Read what `encode` made. Raises `ValueError` on anything else, without quoting it."""
        if len(data) > _MAX_CREDENTIAL:
            raise ValueError(f"an instance credential has at most {_MAX_CREDENTIAL} bytes, this one has {len(data)}")
        try:
            fields = cbor2.loads(data)
        except (cbor2.CBORDecodeError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError):
            raise ValueError("an instance credential is a CBOR map, this is not") from None
        if not isinstance(fields, Mapping) or set(fields) != {"tea", "instance", "cabundle", "key"}:
            raise ValueError("an instance credential holds tea, instance, cabundle and key")
        instance, cabundle, key = fields["instance"], fields["cabundle"], fields["key"]
        if fields["tea"] != _TAG:
            raise ValueError(f"an instance credential is tagged {_TAG}")
        if not (isinstance(instance, str) and isinstance(key, bytes) and isinstance(cabundle, list) and cabundle):
            raise ValueError("an instance credential's fields have other types than encode() gives them")
        if not all(isinstance(der, bytes) for der in cabundle):
            raise ValueError("an instance credential's cabundle holds DER certificates")
        return cls(instance, tuple(cabundle), key)

    @property
    def root_digest(self) -> bytes:
        """SHA-256 of the root's DER: what a policy names to accept this network."""
        return sha256(self.cabundle[0])


class SimulatedCa:
    """The certificate authority of one simulated network. Its root key exists for that network only."""

    def __init__(self, chain: tuple[bytes, ...], key: ec.EllipticCurvePrivateKey, region: str) -> None:
        self._chain = chain
        self._key = key
        self._region = region

    @classmethod
    def create(
        cls, *, now: float | None = None, intermediates: bool = False, region: str = "simulated-1"
    ) -> SimulatedCa:
        """A new root, valid 30 years from `now` (seconds since the epoch; None: the system's clock).

        `intermediates` adds a regional and a zonal certificate, as AWS's chains have them.
        """
        at = time.time() if now is None else now
        key = ec.generate_private_key(ec.SECP384R1())
        # Not AWS's subject: a simulated root must not look like the real one to a person either.
        root = certify(name("tea.simulated-enclaves"), key, None, at, ROOT_LIFE, path_length=None, crl_sign=True)
        chain, issuer = [root], root
        if intermediates:
            for label, life, depth in (("", REGIONAL_LIFE, 2), ("zonal.", ZONAL_LIFE, 1)):
                lower = ec.generate_private_key(ec.SECP384R1())
                subject = name(f"{secrets.token_hex(8)}.{label}{region}.tea.simulated-enclaves")
                issuer = certify(subject, lower, (issuer, key), at, life, path_length=depth, crl_sign=True)
                chain.append(issuer)
                key = lower
        return cls(tuple(chain), key, region)

    @property
    def root(self) -> bytes:
        """The root certificate, DER."""
        return self._chain[0]

    @property
    def root_digest(self) -> bytes:
        """SHA-256 of the root's DER."""
        return sha256(self.root)

    def issue_instance(
        self, instance_id: str, *, now: float | None = None, life: int = INSTANCE_LIFE
    ) -> InstanceCredential:
        """A credential for one instance, valid `life` seconds. `instance_id` is like `i-0fd3fdaad4e904e69`.

        Raises `ValueError` on an id that no module id could carry, and on a life that is longer than the issuer's.
        """
        require_instance_id(instance_id)
        at = time.time() if now is None else now
        if not 0 < life <= x509.load_der_x509_certificate(self._chain[-1]).not_valid_after_utc.timestamp() - int(at):
            raise ValueError(f"an instance's certificate cannot live {life} s: its issuer does not live so long")
        key = ec.generate_private_key(ec.SECP384R1())
        subject = name(f"{instance_id}.{self._region}.tea.simulated-enclaves")
        certificate = certify(subject, key, (self._chain[-1], self._key), at, life, path_length=0)
        encoded = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return InstanceCredential(instance_id, (*self._chain, certificate), encoded)


def issue_leaf(
    credential: InstanceCredential, issuer_key: ec.EllipticCurvePrivateKey, module_id: str, now: float
) -> tuple[bytes, ec.EllipticCurvePrivateKey, float]:
    """A fresh leaf for an enclave: its DER, its key, and when it expires (seconds since the epoch)."""
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = certify(
        name(f"{module_id}.tea.simulated-enclaves"), key, (credential.cabundle[-1], issuer_key), now, LEAF_LIFE
    )
    return certificate, key, int(now) + LEAF_LIFE


def certify(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[bytes, ec.EllipticCurvePrivateKey] | None,
    now: float,
    life: int,
    *,
    path_length: int | None = -1,
    crl_sign: bool = False,
) -> bytes:
    """One certificate, DER. `path_length` -1 makes a leaf, None a CA without a bound; no issuer: self-signed."""
    is_ca = path_length != -1
    parent = x509.load_der_x509_certificate(issuer[0]) if issuer else None
    start = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject if parent else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(seconds=_EARLY if is_ca else _LEAF_EARLY))
        .not_valid_after(start + datetime.timedelta(seconds=life))
        .add_extension(x509.BasicConstraints(is_ca, path_length if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca or crl_sign,
                content_commitment=not is_ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca,
                crl_sign=crl_sign,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=is_ca,
        )
    )
    if is_ca:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    if parent is not None and issuer is not None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(authority, critical=False)
    signed = builder.sign(issuer[1] if issuer else key, hashes.SHA384())
    return signed.public_bytes(serialization.Encoding.DER)


def name(common_name: str) -> x509.Name:
    """A subject; a common name is cut to the 64 characters that X.520 allows."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tea-runtime simulation"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "not AWS"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def require_instance_id(instance_id: str) -> None:
    """Raise `ValueError` unless the id is ASCII letters, digits and hyphens, without `-enc`, 1 to 40 characters."""
    plain = instance_id.isascii() and instance_id.replace("-", "").isalnum()
    if not plain or not 1 <= len(instance_id) <= 40 or "-enc" in instance_id:
        raise ValueError(
            f"an instance id is 1 to 40 ASCII letters, digits and hyphens without '-enc', not {instance_id!r}"
        )


def sha256(data: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(data)
    return digest.finalize()
