"""Writes the corpus anew: one small valid thing or more for each target. `python tests/fuzz/seeds.py`.

May not: be needed to fuzz: what it writes is committed. Rule: docs/security.md, "Fuzzing".
"""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind, encode_frame
from tea.protocol.tunnel import OPENED, Target, refusal, request_to
from tea.providers.testing import SimulatedAttester
from tea.trust import canonical
from tea.trust.approval import Approvers, approve, propose_change
from tea.trust.audit_log import ZERO, AuditEntry
from tea.trust.backup import Backup
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.continuity import Ticket
from tea.trust.cose import sign1, unverified_payload
from tea.trust.document import parse_document
from tea.trust.eventlog import EventLog
from tea.trust.handover_messages import Challenge as HandoverChallenge
from tea.trust.handover_messages import (
    Contents,
    Fetch,
    Hello,
    HolderBody,
    Parcel,
    Prepared,
    ReceiverBody,
    pack_state,
)
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest
from tea.trust.release import CONTENT_TYPE, Ask, Challenge, Request, Terms, seal_answer
from tea.trust.sealing import SealingKey, seal

CORPUS: Final = Path(__file__).parent / "corpus"
KEY: Final = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
SEALING: Final = SealingKey.from_raw(b"\x02" * 32)
ISSUED: Final = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
MANIFEST: Final = f"""\
tea: manifest/1
deployment: test
revision: 1
not_after: 2027-12-31T00:00:00Z
issuers:
  dev: {{key: "{KEY.public.text}", actors: [counter], capabilities: [kvp]}}
environment:
  LOG_LEVEL: {{value: info}}
  REGION: {{from: parent, pattern: "[a-z]+", default: eu}}
providers: {{kvp: {{}}}}
actors:
  counter: {{version: 0.1.0, bundle: "sha256:{"00" * 32}", issuer: dev, replicas: 2, limits: {{memory_mib: 64}}}}
links:
  - {{from: parent, to: counter, operations: [value]}}
  - {{from: counter, to: kvp, operations: [get, set], behind: [parent]}}
ra:
  members: {{e1: {{pcr4: "{"01" * 48}"}}}}
  quorum: two-thirds
"""
POLICY: Final = f"""\
tea: policy/1
simulated: {{root: "sha256:{"02" * 32}"}}
pcrs: {{0: "{"03" * 48}", 1: any, 2: ["{"04" * 48}", "{"05" * 48}"]}}
deployment: test
manifests: "sha384:{"06" * 48}"
booted: ["sha384:{"07" * 48}"]
descends: true
min_revision: 2
max_age: 300
members: {{e1: {{pcr4: "{"01" * 48}"}}}}
"""
COMBINATION: Final = f"""\
tea: policy/1
all:
  - any:
      - {{simulated: {{root: "sha256:{"02" * 32}"}}, pcrs: {{0: "{"03" * 48}"}}}}
      - {{simulated: {{root: "sha256:{"02" * 32}"}}, pcrs: {{0: "{"04" * 48}"}}, max_age: 300}}
  - not: {{simulated: {{root: "sha256:{"02" * 32}"}}, pcrs: {{0: any, 4: "{"05" * 48}"}}}}
"""


def write(target: str, name: str, data: bytes | str) -> None:
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


async def main() -> None:
    attester = SimulatedAttester(lambda: ISSUED.timestamp())
    document, statement = await attester.attest("seal", b"body", nonce=b"n" * 32)
    write("attestation", "document", document)
    write("attestation_payload", "payload", parse_document(document).payload)
    write("statement", "statement", statement)
    log = EventLog().append("activated", manifest=bytes(48), revision=1, epoch=1, time=1)
    write("statement", "event", log.entries[0])
    write("canonical_cbor", "all", canonical.encode([None, True, -1, 1 << 40, 1.5, "text", b"bytes", {"a": [], 1: {}}]))

    archive = build_archive({"counter.py": b"class Counter: pass\n"})
    claims = ClaimsInput(
        name="counter",
        version="0.1.0",
        entry="counter:Counter",
        issued_at=int(ISSUED.timestamp()),
        capabilities={"kvp": ("get",)},
    )
    made = build_bundle(archive, claims, KEY)
    write("bundle", "bundle", made)
    signed = canonical.decode(made)
    assert isinstance(signed, list)
    assert isinstance(signed[0], bytes)
    write("bundle_claims", "claims", unverified_payload(signed[0]) + b"\0\0\0" + archive)

    write("manifest", "manifest", MANIFEST)
    first = Approvers("test", 1, 1, (KEY.public,))
    write("manifest", "approvers", first.to_yaml())
    compiled = parse_manifest(MANIFEST).canonical()
    write("manifest_canonical", "manifest", compiled)
    write("manifest_canonical", "approved", approve(compiled, KEY))
    change = propose_change(first, Approvers("test", 2, 1, (KEY.public,)), KEY)
    write("manifest_canonical", "change", unverified_payload(change))
    write("policy", "policy", POLICY)
    write("policy", "combination", COMBINATION)

    write("sealed", "sealed", seal(SEALING.public, b"x", purpose="secret", actor="payer", manifest_digest=bytes(48)))
    ask, nonce = Ask("api-key", "payer", b"\x01" * 32), bytes(40)
    write("sealed", "ask", ask.encode())
    write("sealed", "challenge", Challenge(nonce, 60).encode())
    write("sealed", "request", Request(b"document", b"statement", nonce).encode())
    terms = Terms(nonce, "api-key", "payer", 1, bytes(16), 60)
    answer = seal_answer(terms, b"x", public_key=SEALING.public, manifest=bytes(48), key=KEY)
    write("sealed", "answer", unverified_payload(answer))
    write("envelope", "sign1", sign1(b"payload", KEY, content_type=CONTENT_TYPE))
    write("envelope", "answer", answer)

    entry = AuditEntry(0, 1, "put", {"secret": "a", "version": 1}, ZERO)
    write("audit", "log", entry.line() + "\n" + AuditEntry(1, 2, "released", {}, entry.digest).line() + "\n")
    call = encode_frame(Frame(Kind.CALL, operation=1, link=2, correlation=3, body=b"body"))
    error = encode_frame(Frame(Kind.ERROR, correlation=3, body=CallError(Code.DENIED, "no", reason="x").encode()))
    write("frames", "two", call + error)
    write("frames", "cut", call + error[:-3])

    for path in sorted((Path(__file__).parents[1] / "providers" / "nitro_kms" / "vectors").glob("*.cms")):
        if path.stat().st_size < 1024:
            write("envelope_cms", path.stem, path.read_bytes())
    write("tunnel", "request", request_to(Target("kms.eu-west-1.amazonaws.com", 443)) + b"\x16\x03\x01")
    write("tunnel", "opened", OPENED + b"\x16\x03\x03")
    write("tunnel", "refused", refusal(403, "no such target"))
    write("tunnel", "credentials", "GET /credentials HTTP/1.1\r\nHost: parent\r\n\r\n")
    digest = b"\x05" * 48
    for name, message in {
        "hello": Hello("test", "e1", False, nonce[:32]),
        "holder": HolderBody("e1", 1, "active", nonce[:32], digest),
        "challenge": HandoverChallenge(document, statement, approve(compiled, KEY), (change,)),
        "receiver": ReceiverBody("e1", 1, digest),
        "parcel": Parcel(b"sealed"),
        "contents": Contents(bytes(32), 1, 7, 1, digest),
        "fetch": Fetch(0),
        "prepared": Prepared(bytes(32)),
    }.items():
        write("handover", name, message.encode())
    write("handover", "state", pack_state({"kvp": b"state", "crypto": b""}))
    write("handover", "ticket", Ticket("test", "e1", 2, bytes(32), digest).encode())
    shares = ((b"\x06" * 32, b"share"), (b"\x07" * 32, b"share"))
    write("backup", "backup", Backup("test", "e1", 1, bytes(48), 1, 2, shares, b"sealed").encode())
    write("addresses", "ss58", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
    write("addresses", "p2wpkh", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")
    write("addresses", "p2tr", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0")
    write("addresses", "p2sh", "3CKHTjBKxCARLzwABMu9yD85kvtm7WnMfH")


if __name__ == "__main__":
    asyncio.run(main())
