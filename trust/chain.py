"""The certificate chain of an attestation document: from a pinned root to the key that signs the document.

May not: trust a certificate of the system, follow a URL, or read a clock (the moment is an argument).
Rule: RFC 5280 sections 4.2.1 and 6.1 (what of them an NSM's chain uses); AWS, "Verifying the root of trust", step 3.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from .attestation_codes import AttestationCode, AttestationError
from .roots import Roots

UNDERSTOOD: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
"""The extensions that may be critical, because they are checked here."""

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises, now or when a field is looked at, for a certificate that is not one."""


@dataclass(frozen=True, slots=True)
class CheckedCertificate:
    """A certificate that a pinned root vouches for. Whether it is valid at a moment is asked every time."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePublicKey
    not_before: int
    """Seconds since the epoch."""
    not_after: int
    """Seconds since the epoch, inclusive."""
    path_length: int | None
    """How many authorities may follow; None: any number."""


class ChainCache:
    """Certificates that were verified before, so that a warm chain costs hashing only. Safe to share between threads.

    An entry is known by the digests of the certificate and of ALL above it, up to the root, so that it can stand for
    no other path. Only what verified is kept, at most `size` entries (64 KiB of DER per 100 or so), the least recently
    used going first. Validity, path length and the pinned roots are checked again on every hit.
    """

    def __init__(self, size: int = 256) -> None:
        if size < 1:
            raise ValueError("a cache holds at least one certificate")
        self.size: Final = size
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[bytes, CheckedCertificate] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: bytes) -> CheckedCertificate | None:
        """The certificate at the end of a path of digests, or None."""
        with self._lock:
            entry = self._entries.get(path)
            if entry is None:
                self.misses += 1
            else:
                self.hits += 1
                self._entries.move_to_end(path)
            return entry

    def put(self, path: bytes, entry: CheckedCertificate) -> None:
        """Keep a verified certificate."""
        with self._lock:
            self._entries[path] = entry
            self._entries.move_to_end(path)
            if len(self._entries) > self.size:
                self._entries.popitem(last=False)


def verify_chain(
    cabundle: Sequence[bytes], leaf: bytes, *, roots: Roots, at: int, cache: ChainCache | None = None
) -> ec.EllipticCurvePublicKey:
    """The leaf's key, once every certificate from a pinned root down to it holds at the moment `at`.

    `cabundle` and `leaf` are DER, root first; `at` is in milliseconds since the epoch. Raises `AttestationError`.
    """
    # Step 1: the first certificate is a pinned root, byte for byte. Its self-signature would add nothing.
    path = hashlib.sha256(cabundle[0]).digest() if cabundle else b""
    if path not in roots:
        raise AttestationError(
            AttestationCode.ROOT,
            f"the chain starts at the root sha256:{path.hex()}, expected {roots}: a document of another platform, or "
            "of a simulated network whose root the policy does not name",
        )
    chain = (*cabundle, leaf)
    last = len(chain) - 1
    parent: CheckedCertificate | None = None
    for index, der in enumerate(chain):
        name = f"certificate {index + 1} of {len(chain)}" + (" (the leaf)" if index == last else "")
        if index:
            # The role is part of the path: what was checked as an authority was not checked as a leaf.
            role = b"leaf" if index == last else b"authority"
            path = hashlib.sha256(path + role + hashlib.sha256(der).digest()).digest()
        checked = cache.get(path) if cache is not None else None
        if checked is None:
            # Steps 2 to 4: what it is, what it may be used for, and who signed it.
            checked = _check(der, name, parent, is_leaf=index == last)
            if cache is not None:
                cache.put(path, checked)
        # Steps 5 and 6, which no cache can answer: valid at this moment, and not too many authorities below.
        _require_valid(checked, name, at)
        if checked.path_length is not None and last - 1 - index > checked.path_length:
            raise AttestationError(
                AttestationCode.PATH_LENGTH,
                f"{last - 1 - index} authorities follow {name}, which allows {checked.path_length}",
            )
        parent = checked
    assert parent is not None  # the chain has at least root and leaf
    return parent.key


def _check(der: bytes, name: str, parent: CheckedCertificate | None, *, is_leaf: bool) -> CheckedCertificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        extensions = certificate.extensions
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
        algorithm = certificate.signature_algorithm_oid
    except _UNREADABLE as error:
        raise AttestationError(
            AttestationCode.CERTIFICATE, f"{name} is not an X.509 certificate that can be read: {error}"
        ) from None
    # Step 2: ECDSA on P-384 with SHA-384, and nothing critical that is not understood.
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError(
            AttestationCode.KEY_TYPE, f"the key of {name} is not on P-384, expected P-384 throughout"
        )
    if algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise AttestationError(
            AttestationCode.SIGNATURE_ALGORITHM,
            f"{name} is signed with {algorithm.dotted_string}, expected ECDSA with SHA-384 (1.2.840.10045.4.3.3)",
        )
    for extension in extensions:
        if extension.critical and extension.oid not in UNDERSTOOD:
            raise AttestationError(
                AttestationCode.CRITICAL_EXTENSION,
                f"{name} has the critical extension {extension.oid.dotted_string}, which is not understood here",
            )
    # Step 3: what it may be used for.
    path_length = _require_usage(extensions, name, is_leaf=is_leaf)
    # Step 4: named and signed by the one above.
    if parent is not None:
        _require_issued(certificate, parent.certificate, name)
    return CheckedCertificate(certificate, key, not_before, not_after, path_length)


def _require_issued(certificate: x509.Certificate, issuer: x509.Certificate, name: str) -> None:
    try:
        # Compares issuer and subject, and inner and outer algorithm, before it checks the signature.
        certificate.verify_directly_issued_by(issuer)
        return
    except InvalidSignature:
        pass
    except _UNREADABLE:
        # Which of the two it was is only worth knowing (names are slow to build) for the sentence.
        if _named_otherwise(certificate, issuer):
            raise AttestationError(
                AttestationCode.CHAIN_ORDER,
                f"{name} was not issued by the one before it: expected the root first, and each signed by the last",
            ) from None
    raise AttestationError(
        AttestationCode.CHAIN_SIGNATURE, f"the signature on {name} is not that of the certificate before it"
    )


def _named_otherwise(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        return certificate.issuer != issuer.subject
    except _UNREADABLE:
        return True


def _require_usage(extensions: x509.Extensions, name: str, *, is_leaf: bool) -> int | None:
    """The path length of an authority (None: unlimited; for a leaf always None), once its usage is right."""
    constraints = usage = None
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    is_ca = constraints is not None and constraints.ca
    if is_leaf:
        if is_ca:
            raise AttestationError(
                AttestationCode.LEAF_IS_CA, f"{name} is an authority's, expected one that can issue nothing"
            )
        if usage is None or not usage.digital_signature or usage.key_cert_sign:
            raise AttestationError(
                AttestationCode.KEY_USAGE, f"{name} is not for signing documents: expected digitalSignature as its use"
            )
        return None
    if constraints is None or not is_ca:
        raise AttestationError(AttestationCode.NOT_CA, f"{name} is not an authority's, but others stand below it")
    if usage is None or not usage.key_cert_sign:
        raise AttestationError(
            AttestationCode.KEY_USAGE, f"{name} is not for signing certificates: expected keyCertSign as its use"
        )
    return constraints.path_length


def _require_valid(checked: CheckedCertificate, name: str, at: int) -> None:
    moment = at // 1000
    if moment < checked.not_before:
        raise AttestationError(
            AttestationCode.NOT_YET_VALID,
            f"{name} is valid from {_when(checked.not_before)}, and the moment asked for is {_when(moment)}",
        )
    if moment > checked.not_after:
        raise AttestationError(
            AttestationCode.EXPIRED,
            f"{name} expired at {_when(checked.not_after)}, and the moment asked for is {_when(moment)}: a recorded "
            "document is judged at the moment of its recording, which must then be said",
        )


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s since the epoch"
