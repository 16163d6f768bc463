"""What is fuzzed: each decoder of what strangers send, with the one family of errors that it may raise.

May not: catch anything else: any other exception, and any broken promise below, is a defect. One function and one line
of `TARGETS` adds a decoder. Rule: docs/security.md, "Fuzzing".
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.enclave_image.eif.codes import ImageError
from tea.enclave_image.eif.describe import describe_image
from tea.enclave_image.eif.reader import EifImage
from tea.enclave_image.eif.verify import verify_image
from tea.protocol.errors import CallError
from tea.protocol.frame import FrameDecoder, FrameError
from tea.protocol.tunnel import Opening, TunnelError, request_to, require_opened
from tea.protocol.tunnel import parse_request as parse_tunnel
from tea.providers.crypto import addresses as ss58
from tea.providers.crypto import bech32, bitcoin
from tea.providers.nitro.kms import ber, cms
from tea.trust import canonical, cose, nsm_cbor
from tea.trust.approval import APPROVERS_CONTENT_TYPE, Approvers, parse_approvers, verify_approval, verify_changes
from tea.trust.attestation import AttestationError, ChainCache, Roots, parse_document, verify_document
from tea.trust.audit_log import AuditError, parse_line, verify_lines
from tea.trust.backup import parse_backup
from tea.trust.bundle import inspect_bundle, verify_bundle
from tea.trust.claims import CLAIMS_CONTENT_TYPE, BundleError, Issuer
from tea.trust.continuity import TICKET_CONTENT_TYPE, ContinuityError, Role, Tenure, unverified_ticket, verify_ticket
from tea.trust.errors import TrustError
from tea.trust.eventlog import EventLogError, parse_event
from tea.trust.handover import Approved, approved_policy, purpose_of
from tea.trust.handover_holder import HolderSide
from tea.trust.handover_messages import (
    Abort,
    Cancelled,
    Challenge,
    Commit,
    Contents,
    Fetch,
    Hello,
    HolderBody,
    Message,
    Parcel,
    Prepared,
    ReceiverBody,
    Request,
    digest_of,
    pack_state,
    unpack_state,
)
from tea.trust.handover_receiver import ReceiverSide
from tea.trust.keys import PrivateKey, PublicKey, SigningError
from tea.trust.manifest import ManifestError, manifest_from_canonical, parse_manifest
from tea.trust.policy import Policy, PolicyError, parse_rule
from tea.trust.release import (
    CONTENT_TYPE,
    Ask,
    ReleaseError,
    open_answer,
    parse_ask,
    parse_challenge,
    parse_request,
)
from tea.trust.sealing import SealError, SealingKey, open_sealed, seal
from tea.trust.statement import StatementError, parse_statement, verify_statement

CORPUS: Final = Path(__file__).parent / "corpus"
KEY: Final = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
"""Signs what a target wraps: a fuzzer does not find signatures."""
SEALING: Final = SealingKey.from_raw(b"\x02" * 32)
ISSUERS: Final = {KEY.public.key_id: Issuer(KEY.public, ("counter",), ("kvp",))}
APPROVERS: Final = Approvers("test", 1, 1, (KEY.public,))
NOW: Final = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
ASK: Final = Ask("api-key", "payer", b"\x01" * 32)
MESSAGES: Final[Sequence[type[Message]]] = (
    Hello,
    HolderBody,
    Challenge,
    ReceiverBody,
    Request,
    Parcel,
    Contents,
    Fetch,
    Prepared,
    Abort,
    Commit,
    Cancelled,
)
_cache: Final = ChainCache()


def _pinned() -> tuple[Roots, int]:
    """The root and the time of the document in the corpus: with these the very document verifies."""
    known = parse_document((CORPUS / "attestation" / "document").read_bytes())
    return Roots.from_certificates([known.cabundle[0]]), known.timestamp


def attestation(data: bytes) -> None:
    """Documents: refused by an AttestationError, or believed; what verifies was parsed the same."""
    roots, at = _PINNED
    with suppress(AttestationError):
        document = verify_document(data, roots=roots, at=at, cache=_cache)
        assert document.pcrs == parse_document(data).pcrs
        with suppress(StatementError):
            verify_statement(document, b"")


def attestation_payload(data: bytes) -> None:
    """A document's payload, past its signature: the syntax of every field."""
    with suppress(AttestationError):
        head = b"\x84" + nsm_cbor.byte_string(bytes.fromhex("a1013822")) + b"\xa0"
        parse_document(head + nsm_cbor.byte_string(data) + nsm_cbor.byte_string(bytes(96)))


def statement(data: bytes) -> None:
    """Statements, and entries of event logs: what is read is written the same."""
    with suppress(StatementError):
        assert parse_statement(data).encode() == data
    with suppress(EventLogError):
        assert parse_event(data).encode() == data


def canonical_cbor(data: bytes) -> None:
    """Canonical CBOR: one encoding for one value."""
    with suppress(canonical.CanonicalError):
        assert canonical.encode(canonical.decode(data)) == data


def envelope(data: bytes) -> None:
    """COSE messages of both kinds."""
    keys: Mapping[bytes, PublicKey] = {KEY.public.key_id: KEY.public}
    with suppress(SigningError):
        cose.verify1(data, keys, content_type=CONTENT_TYPE)
    with suppress(SigningError):
        cose.verify_quorum(data, keys, 1, content_type=CONTENT_TYPE)
    with suppress(SigningError):
        cose.unverified_signers(data)


def bundle(data: bytes) -> None:
    """Bundle files."""
    with suppress(BundleError):
        verify_bundle(data, ISSUERS, now=NOW, sdk_version="0.1.0")
    with suppress(BundleError):
        inspect_bundle(data)


def bundle_claims(data: bytes) -> None:
    """A bundle's claims and archive, past the signature: claims up to the first zero byte of three, archive behind."""
    claims, _, archive = data.partition(b"\0\0\0")
    signed = cose.sign1(claims, KEY, content_type=CLAIMS_CONTENT_TYPE)
    with suppress(BundleError):
        found = verify_bundle(canonical.encode([signed, archive]), ISSUERS, now=NOW, sdk_version="0.1.0")
        assert found.claims.archive == hashlib.sha256(archive).digest()


def manifest(data: bytes) -> None:
    """Manifests as people write them: what is accepted has one canonical form that reads back to it."""
    text = data.decode("utf-8", "replace")
    with suppress(ManifestError):
        made = parse_manifest(text)
        assert manifest_from_canonical(made.canonical()).canonical() == made.canonical()
    with suppress(ManifestError):
        parse_approvers(text)


def manifest_canonical(data: bytes) -> None:
    """Manifests and changes of approvers as they are signed, past the signature."""
    with suppress(ManifestError):
        assert manifest_from_canonical(data).canonical() == data
    with suppress(ManifestError):
        verify_approval(data, APPROVERS)
    with suppress(ManifestError):
        verify_changes(APPROVERS, [cose.sign(data, KEY, content_type=APPROVERS_CONTENT_TYPE)])


def policy(data: bytes) -> None:
    """Policies: what is accepted is written out to the same policy."""
    with suppress(PolicyError):
        made = parse_rule(data.decode("utf-8", "replace"))
        assert parse_rule(made.to_yaml()) == made
        assert made.explain()


def sealed(data: bytes) -> None:
    """Sealed envelopes and the messages of a release."""
    with suppress(SealError):
        open_sealed(SEALING, data, purpose="secret", actor="payer", manifest_digest=bytes(48))
    for parse in (parse_request, parse_ask, parse_challenge):
        with suppress(ReleaseError):
            assert parse(data).encode() == data
    answer = cose.sign1(data, KEY, content_type=CONTENT_TYPE)
    for message in (data, answer):
        with suppress(ReleaseError):
            open_answer(message, KEY.public, ask=ASK, nonce=bytes(40), key=SEALING, manifest=bytes(48))


def audit(data: bytes) -> None:
    """Lines of an audit log."""
    lines = data.decode("utf-8", "replace").splitlines()
    for line in lines:
        with suppress(AuditError):
            assert parse_line(parse_line(line).line()).digest == parse_line(line).digest
    with suppress(AuditError):
        verify_lines(lines)


def frames(data: bytes) -> None:
    """Frames: however a stream is cut, the frames and the refusal are the same."""
    whole = _decoded([data])
    assert whole == _decoded([data[at : at + 1] for at in range(len(data))] if len(data) < 4096 else [data])
    cut = data[0] if data else 1
    pieces, at = [], 0
    while at < len(data):
        step = 1 + (cut + at * 7) % 61
        pieces.append(data[at : at + step])
        at += step
    assert whole == _decoded(pieces)


def _decoded(pieces: list[bytes]) -> tuple[list[object], str | None]:
    decoder, found = FrameDecoder(), list[object]()
    for piece in pieces:
        try:
            found += decoder.feed(piece)
        except FrameError:
            break
    for frame in found:
        CallError.decode(frame.body)  # type: ignore[attr-defined]
    return found, decoder.error


def envelope_cms(data: bytes) -> None:
    """BER, and the CMS envelopes in which AWS KMS answers: what is taken out of one is in blocks and in the bytes."""
    with suppress(ber.BerError):
        ber.parse(data, cms.MAX_ENVELOPE)
    with suppress(cms.CmsError):
        found = cms.parse_envelope(data)
        assert len(found.iv) == 16
        assert found.ciphertext
        assert len(found.ciphertext) % 16 == 0
        assert len(found.ciphertext) + len(found.encrypted_key) < len(data)


def tunnel(data: bytes) -> None:
    """Openings of tunnels, from either end: however the stream is cut, the head and what follows it are the same."""
    whole = _opened([data])
    assert whole == _opened([data[at : at + 1] for at in range(len(data))] if len(data) < 4096 else [data])
    if not isinstance(whole, tuple):
        return
    lines, _ = whole
    with suppress(TunnelError):
        target = parse_tunnel(lines)
        assert parse_tunnel(request_to(target).decode().split("\r\n")) == target
    with suppress(TunnelError):
        require_opened(lines)


def _opened(pieces: list[bytes]) -> tuple[list[str], bytes] | int | None:
    opening = Opening()
    for at, piece in enumerate(pieces):
        try:
            found = opening.feed(piece)
        except TunnelError as error:
            return error.status
        if found is not None:
            return found[0], found[1] + b"".join(pieces[at + 1 :])
    return None


def handover(data: bytes) -> None:
    """Messages between a holder and a receiver, tickets, and the state: what is read is written the same."""
    for kind in MESSAGES:
        with suppress(ContinuityError):
            assert kind.parse(data).encode() == data
    with suppress(ContinuityError):
        assert pack_state(unpack_state(data)) == data
    with suppress(ContinuityError):
        unverified_ticket(data)
    with suppress(ContinuityError):
        verify_ticket(cose.sign(data, KEY, content_type=TICKET_CONTENT_TYPE), APPROVERS)
    tenure = Tenure("test", "e1")
    tenure.role, tenure.term = Role.ACTIVE, 1
    with suppress(ContinuityError):
        HolderSide(tenure, data, _bytes)
    receiver = ReceiverSide(Tenure("test", "e1"), _bytes)
    roots, at = _PINNED
    own = Policy(pinned=roots, simulated=True, pcrs={0: (bytes(48),)}, deployment="test")
    with suppress(TrustError):
        receiver.challenged(
            data,
            lambda shown: approved_policy(own, "e1", shown, approvers=APPROVERS, least=1),
            now_ms=at,
            cache=_cache,
        )
    sent = receiver.request(b"", b"", bytes(48), Approved(b""))
    transcript = digest_of(receiver.hello, b"", sent)
    contents = seal(receiver.public_key, data, purpose=purpose_of(transcript), actor=None, manifest_digest=bytes(48))
    for parcel in (data, Parcel(contents).encode()):
        with suppress(ContinuityError):
            receiver.open(parcel)
    with suppress(ContinuityError):
        receiver.piece(data)


def _bytes(size: int) -> bytes:
    return b"\x03" * size


def backup(data: bytes) -> None:
    """Backups: what is read is written the same."""
    with suppress(ContinuityError):
        assert parse_backup(data).encode() == data


def addresses(data: bytes) -> None:
    """Addresses that actors hand in: one that is taken is written the same."""
    text = data.decode("utf-8", "replace")
    with suppress(CallError):
        prefix, account = ss58.decode_ss58(text)
        assert ss58.encode_ss58(account, prefix) == text
    with suppress(CallError):
        found = bitcoin.parse_address(text)
        if found.version is not None:
            known = bitcoin.NETWORKS[found.network].prefix
            assert bech32.encode(known, found.version, found.program) == text.lower()


def image(data: bytes) -> None:
    """Enclave images: refused, or described as what they are; what verifies has a true CRC and no bytes to spare."""
    with os.fdopen(os.memfd_create("image"), "w+b", buffering=0) as file, suppress(ImageError):
        file.write(data)
        opened = EifImage(file, Path("image"))
        described = describe_image(opened)
        assert len(described.pcrs()) in (3, 4)
        verify_image(opened)
        assert described.crc_holds
        assert sum(12 + one.size for one in opened.sections) == len(data) - 548


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    one.__name__: one
    for one in (
        attestation,
        attestation_payload,
        statement,
        canonical_cbor,
        envelope,
        bundle,
        bundle_claims,
        manifest,
        manifest_canonical,
        policy,
        sealed,
        audit,
        frames,
        image,
        envelope_cms,
        tunnel,
        handover,
        backup,
        addresses,
    )
}
_PINNED: Final = _pinned()
