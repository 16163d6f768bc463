"""Attestation verification against its own floor: the bare signature checks in `cryptography`, in the same run.

May not: be imported by the project, or assert a time. Rule: docs/performance.md; docs/architecture.md, "Trust".
`python -m bench.attestation [--json] [--rounds N]`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust import pcr
from tea.trust.attestation import ChainCache, Roots, aws_roots, parse_document, verify_document
from tea.trust.chain import CheckedCertificate

SHARED: Final = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "attestation"
REAL: Final = "aws-nitro-2025-04-29.cbor"
ROUNDS: Final = 9
EACH: Final = 40
_ES384: Final = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True)
class Subject:
    """A document, the roots that it verifies against, and the moment: its own."""

    source: str
    raw: bytes
    roots: Roots

    @property
    def at(self) -> int:
        """Milliseconds since the epoch."""
        return parse_document(self.raw).timestamp


class FreshLeaves(ChainCache):
    """A cache that knows all but the leaf: what the thousandth document of a region meets."""

    def __init__(self, leaf: bytes) -> None:
        super().__init__()
        self._leaf = leaf

    def put(self, path: bytes, entry: CheckedCertificate) -> None:
        """Keep what is not the leaf."""
        if entry.certificate.public_bytes(Encoding.DER) != self._leaf:
            super().put(path, entry)


def subject() -> Subject:
    """A real document where they are at hand; else a simulated one whose chain is as long."""
    path = SHARED / REAL
    if path.is_file():
        return Subject(f"real ({REAL})", path.read_bytes(), aws_roots())
    now = time.time()
    ca = SimulatedCa.create(now=now, intermediates=True)
    instance = "i-0123456789abcdef0"
    image = {index: pcr.image_pcr(hashlib.sha384(b"bench").digest()) for index in range(3)}
    nsm = Nsm(SimulatedNsm(ca.issue_instance(instance, now=now), f"{instance}-enc0", image, lambda: now))
    return Subject("simulated", nsm.attestation(b"user data", b"nonce"), Roots.from_digests([ca.root_digest]))


def bare_checks(raw: bytes) -> Callable[[], None]:
    """Five certificate signatures and the document's, with everything but `verify` done beforehand."""
    document = parse_document(raw)
    chain = [x509.load_der_x509_certificate(der) for der in (*document.cabundle, document.certificate)]
    checks: list[tuple[ec.EllipticCurvePublicKey, bytes, bytes]] = []
    for index, certificate in enumerate(chain):
        key = chain[max(0, index - 1)].public_key()  # the root's signature is its own
        assert isinstance(key, ec.EllipticCurvePublicKey)
        checks.append((key, certificate.signature, certificate.tbs_certificate_bytes))
    assert len(checks) == 5, f"the chain has {len(checks)} certificates, expected 5"
    leaf = chain[-1].public_key()
    assert isinstance(leaf, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (document.signature[:48], document.signature[48:]))
    size = len(document.payload).to_bytes(2, "big")
    signed = b"\x84\x6aSignature1\x44" + document.protected + b"\x40\x59" + size + document.payload
    checks.append((leaf, encode_dss_signature(r, s), signed))

    def run() -> None:
        for key, signature, data in checks:
            key.verify(signature, data, _ES384)

    return run


def seconds_each(work: Callable[[], object], count: int = EACH) -> float:
    """CPU seconds of one call, averaged over `count`: one core, whatever else the machine does."""
    started = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - started) / count


def measure(rounds: int = ROUNDS) -> dict[str, object]:
    """Medians over rounds in which everything is measured in turn, so that a slow moment slows all of it."""
    chosen = subject()
    at, roots, raw = chosen.at, chosen.roots, chosen.raw
    leaf = parse_document(raw).certificate
    fresh, known = FreshLeaves(leaf), ChainCache()
    works: dict[str, Callable[[], object]] = {
        "bare": bare_checks(raw),
        "cold": lambda: verify_document(raw, roots=roots, at=at),
        "warm": lambda: verify_document(raw, roots=roots, at=at, cache=fresh),
        "again": lambda: verify_document(raw, roots=roots, at=at, cache=known),
    }
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds_each(work))

    def ratio(name: str) -> float:
        pairs = zip(taken[name], taken["bare"], strict=True)
        return round(statistics.median(one / bare for one, bare in pairs), 3)

    def rate(name: str) -> int:
        return round(1 / statistics.median(taken[name]))

    return {
        "document": chosen.source,
        "rounds": rounds,
        "cold_ratio": ratio("cold"),
        "warm_ratio": ratio("warm"),
        "again_ratio": ratio("again"),
        "cold_per_second": rate("cold"),
        "warm_per_second": rate("warm"),
        "bare_us": round(statistics.median(taken["bare"]) * 1e6),
        "cold_us": round(statistics.median(taken["cold"]) * 1e6),
        "warm_us": round(statistics.median(taken["warm"]) * 1e6),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.attestation", description="attestation verification")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args(argv)
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"attestation verification, CPU time of one core, {figures['document']}, {figures['rounds']} rounds")
    print(f"  bare (5 P-384 checks and the COSE signature) {figures['bare_us']} us")
    print(f"  cold: full verification                      {figures['cold_us']} us, ratio {figures['cold_ratio']}")
    print(f"  warm: chain cached, a new leaf               {figures['warm_us']} us, ratio {figures['warm_ratio']}")
    print(f"  verifications a second on one core: {figures['cold_per_second']} cold, {figures['warm_per_second']} warm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
