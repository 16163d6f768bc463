"""Verification of attestation documents: every code, by breaking exactly one thing of a healthy document."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.trust.attestation import (
    AttestationCode,
    AttestationDocument,
    AttestationError,
    ChainCache,
    DocumentContents,
    Roots,
    UnverifiedDocument,
    aws_roots,
    document_to_builtins,
    parse_document,
    verify_document,
)

if TYPE_CHECKING:
    from tests.trust.conftest import Maker

C = AttestationCode
Make = Callable[["Maker"], bytes]


def verify(maker: Maker, raw: bytes, *, at: int | None = None, cache: ChainCache | None = None) -> AttestationDocument:
    return verify_document(raw, roots=maker.roots(), at=maker.now_ms if at is None else at, cache=cache)


def code_of(maker: Maker, raw: bytes, **arguments: object) -> AttestationCode:
    with pytest.raises(AttestationError) as refusal:
        verify_document(raw, **{"roots": maker.roots(), "at": maker.now_ms, **arguments})  # type: ignore[arg-type]
    assert len(refusal.value.sentence) > 20
    assert isinstance(refusal.value.code, AttestationCode)
    return refusal.value.code


def only(name: str, value: object) -> dict[str, Any]:
    """A change of one field."""
    return {name: value}


def pairs(maker: Maker, *more: tuple[object, object]) -> bytes:
    return maker.sign(maker.pairs([*maker.fields().items(), *more]))


def reencoded(maker: Maker) -> bytes:
    protected, unprotected, payload, signature = cbor2.loads(maker.document())
    return b"\x9f" + b"".join(cbor2.dumps(item) for item in (protected, unprotected, payload, signature)) + b"\xff"


def chained(maker: Maker, *order: str, **changes: Mapping[str, object]) -> bytes:
    return maker.document(chain=maker.chain(*order, **changes))


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


# Step by step, in the order of the procedure: what is broken, and the one code that says so.
BROKEN: list[tuple[str, AttestationCode, Make]] = [
    # 1. Syntax, types and sizes.
    ("a file that is no document", C.STRUCTURE, lambda m: b"-----BEGIN CERTIFICATE-----"),
    ("an empty file", C.NOT_CBOR, lambda m: b""),
    ("a cut file", C.NOT_CBOR, lambda m: m.document()[:-1]),
    ("a payload that is no CBOR", C.NOT_CBOR, lambda m: m.sign(b"\xff")),
    ("more than an NSM answers", C.TOO_LARGE, lambda m: m.document() + bytes(0x3000)),
    ("bytes behind it", C.TRAILING, lambda m: m.document() + b"\x00"),
    ("bytes behind the payload's map", C.TRAILING, lambda m: m.sign(cbor2.dumps(m.fields()) + b"\x00")),
    ("a tag in front", C.TAGGED, lambda m: b"\xd2" + m.document()),
    ("five items", C.STRUCTURE, lambda m: cbor2.dumps([*cbor2.loads(m.document()), 0])),
    ("a map instead of an array", C.STRUCTURE, lambda m: b"\xa0"),
    ("text as payload", C.STRUCTURE, lambda m: cbor2.dumps([b"", {}, "payload", bytes(96)])),
    ("a detached payload", C.STRUCTURE, lambda m: cbor2.dumps([bytes.fromhex("a1013822"), {}, None, bytes(96)])),
    ("a short signature", C.STRUCTURE, lambda m: m.sign(cbor2.dumps(m.fields()), signature=bytes(95))),
    ("another encoding of the outside", C.STRUCTURE, reencoded),
    ("another algorithm", C.HEADERS, lambda m: m.sign(cbor2.dumps(m.fields()), protected=b"\xa1\x01\x26")),
    ("no algorithm", C.HEADERS, lambda m: m.sign(cbor2.dumps(m.fields()), protected=b"")),
    (
        "one more protected header",
        C.HEADERS,
        lambda m: m.sign(cbor2.dumps(m.fields()), protected=b"\xa2\x01\x38\x22\x04\x40"),
    ),
    ("an unprotected header", C.HEADERS, lambda m: m.sign(cbor2.dumps(m.fields()), unprotected={4: b"kid"})),
    ("a payload that is an array", C.FIELD_TYPE, lambda m: m.sign(b"\x80")),
    ("a field that nobody knows", C.FIELD_UNKNOWN, lambda m: m.document(more=1)),
    ("a field under an integer", C.FIELD_UNKNOWN, lambda m: m.sign(m.pairs([*m.fields().items(), (1, 2)]))),
    ("a field twice", C.FIELD_DUPLICATE, lambda m: pairs(m, ("nonce", b"x"))),
    (
        "a PCR twice",
        C.FIELD_DUPLICATE,
        lambda m: m.sign(m.pairs([*m.fields().items()]).replace(b"\x01X0", b"\x00X0", 1)),
    ),
    *[
        (f"no {name}", C.FIELD_MISSING, lambda m, name=name: m.document(without=name))
        for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
    ],
    ("bytes as module_id", C.FIELD_TYPE, lambda m: m.document(module_id=b"i-0")),
    ("an integer as digest", C.FIELD_TYPE, lambda m: m.document(digest=384)),
    ("text as timestamp", C.FIELD_TYPE, lambda m: m.document(timestamp="now")),
    ("null as timestamp", C.FIELD_TYPE, lambda m: m.document(timestamp=None)),
    ("an array as PCRs", C.FIELD_TYPE, lambda m: m.document(pcrs=[bytes(48)])),
    ("a null PCR", C.FIELD_TYPE, lambda m: m.document(pcrs={0: None})),
    ("text as certificate", C.FIELD_TYPE, lambda m: m.document(certificate="pem")),
    ("bytes as cabundle", C.FIELD_TYPE, lambda m: m.document(cabundle=b"der")),
    ("null in the cabundle", C.FIELD_TYPE, lambda m: m.document(cabundle=[None])),
    ("text as nonce", C.FIELD_TYPE, lambda m: m.document(nonce="nonce")),
    ("an integer as user_data", C.FIELD_TYPE, lambda m: m.document(user_data=1)),
    ("a map as public_key", C.FIELD_TYPE, lambda m: m.document(public_key={})),
    ("no characters of module_id", C.FIELD_SIZE, lambda m: m.document(module_id="")),
    ("a long module_id", C.FIELD_SIZE, lambda m: m.document(module_id="i" * 257)),
    ("control characters in module_id", C.FIELD_SIZE, lambda m: m.document(module_id="i-\x1b[2J")),
    ("a timestamp of zero", C.FIELD_SIZE, lambda m: m.document(timestamp=0)),
    ("a negative timestamp", C.FIELD_SIZE, lambda m: m.document(timestamp=-1)),
    ("a timestamp past all calendars", C.FIELD_SIZE, lambda m: m.document(timestamp=253_402_300_800_000)),
    ("no PCRs", C.FIELD_SIZE, lambda m: m.document(pcrs={})),
    ("33 PCRs", C.FIELD_SIZE, lambda m: m.document(pcrs={index: bytes(48) for index in range(33)})),
    ("an empty certificate", C.FIELD_SIZE, lambda m: m.document(certificate=b"")),
    ("a huge certificate", C.FIELD_SIZE, lambda m: m.document(certificate=bytes(1025))),
    ("an empty cabundle", C.FIELD_SIZE, lambda m: m.document(cabundle=[])),
    ("nine authorities", C.FIELD_SIZE, lambda m: m.document(cabundle=[b"x"] * 9)),
    ("an empty authority", C.FIELD_SIZE, lambda m: m.document(cabundle=[b""])),
    *[
        (f"a {name} of 1025 bytes", C.FIELD_SIZE, lambda m, name=name: m.document(**only(name, bytes(1025))))
        for name in ("public_key", "user_data", "nonce")
    ],
    # 2. Digest and PCRs.
    ("another digest", C.DIGEST, lambda m: m.document(digest="SHA256")),
    ("PCR 32", C.PCR_INDEX, lambda m: m.document(pcrs={32: bytes(48)})),
    ("PCR -1", C.PCR_INDEX, lambda m: m.document(pcrs={-1: bytes(48)})),
    ("a PCR by name", C.PCR_INDEX, lambda m: m.document(pcrs={"0": bytes(48)})),
    ("a PCR of SHA-256", C.PCR_LENGTH, lambda m: m.document(pcrs={0: bytes(32)})),
    ("a PCR of SHA-512", C.PCR_LENGTH, lambda m: m.document(pcrs={0: bytes(64)})),
    # 3. The chain.
    ("another root", C.ROOT, lambda m: chained(m, root={"key": p384()})),
    ("a root of the same name and key, made anew", C.ROOT, lambda m: chained(m, root={"path_length": 9})),
    ("a chain with the leaf first", C.ROOT, lambda m: m.document(cabundle=list(reversed(m.chain()[:-1])))),
    ("a chain without its root", C.ROOT, lambda m: m.document(cabundle=m.chain()[1:-1])),
    ("a leaf that is no certificate", C.CERTIFICATE, lambda m: m.document(certificate=b"\x30\x00")),
    ("an authority that is no certificate", C.CERTIFICATE, lambda m: m.document(cabundle=[*m.chain()[:3], b"der"])),
    ("a certificate with bytes behind it", C.CERTIFICATE, lambda m: m.document(certificate=m.chain()[-1] + b"\x00")),
    ("a zone signed with SHA-256", C.SIGNATURE_ALGORITHM, lambda m: chained(m, zone={"hash": hashes.SHA256()})),
    (
        "a zone signed with Ed25519",
        C.SIGNATURE_ALGORITHM,
        lambda m: chained(m, zone={"hash": None, "signer": ed25519.Ed25519PrivateKey.generate()}),
    ),
    ("a leaf on P-256", C.KEY_TYPE, lambda m: chained(m, leaf={"key": p256()})),
    (
        "a leaf with an Ed25519 key",
        C.KEY_TYPE,
        lambda m: chained(m, leaf={"key": ed25519.Ed25519PrivateKey.generate()}),
    ),
    ("an instance on P-256", C.KEY_TYPE, lambda m: chained(m, instance={"key": p256()})),
    ("a critical extension in a zone", C.CRITICAL_EXTENSION, lambda m: chained(m, zone={"critical": True})),
    ("a critical extension in the leaf", C.CRITICAL_EXTENSION, lambda m: chained(m, leaf={"critical": True})),
    ("an authority without basic constraints", C.NOT_CA, lambda m: chained(m, zone={"ca": None})),
    ("an authority that is none", C.NOT_CA, lambda m: chained(m, instance={"ca": False})),
    ("an authority without key usage", C.KEY_USAGE, lambda m: chained(m, region={"usage": None})),
    ("an authority that may not sign certificates", C.KEY_USAGE, lambda m: chained(m, zone={"usage": ("crl_sign",)})),
    ("a leaf without key usage", C.KEY_USAGE, lambda m: chained(m, leaf={"usage": None})),
    ("a leaf that may not sign", C.KEY_USAGE, lambda m: chained(m, leaf={"usage": ("key_agreement",)})),
    (
        "a leaf that may sign certificates",
        C.KEY_USAGE,
        lambda m: chained(m, leaf={"usage": ("digital_signature", "key_cert_sign")}),
    ),
    ("a leaf that is an authority", C.LEAF_IS_CA, lambda m: chained(m, leaf={"ca": True})),
    ("too many authorities below the region", C.PATH_LENGTH, lambda m: chained(m, region={"path_length": 1})),
    ("an authority below the instance", C.PATH_LENGTH, lambda m: chained(m, "root", "instance", "zone", "leaf")),
    ("an issuer of another name", C.CHAIN_ORDER, lambda m: chained(m, zone={"issuer": "another"})),
    ("two authorities swapped", C.CHAIN_ORDER, lambda m: m.document(cabundle=[m.chain()[i] for i in (0, 2, 1, 3)])),
    ("an authority left out", C.CHAIN_ORDER, lambda m: m.document(cabundle=[m.chain()[i] for i in (0, 1, 3)])),
    ("a zone signed by another key", C.CHAIN_SIGNATURE, lambda m: chained(m, zone={"signer": p384()})),
    ("a leaf signed by another key", C.CHAIN_SIGNATURE, lambda m: chained(m, leaf={"signer": p384()})),
    *[
        (f"a {name} of tomorrow", C.NOT_YET_VALID, lambda m, name=name: chained(m, **{name: {"not_before": later(m)}}))
        for name in ("region", "zone", "instance", "leaf")
    ],
    *[
        (f"a {name} of yesterday", C.EXPIRED, lambda m, name=name: chained(m, **{name: {"not_after": earlier(m)}}))
        for name in ("region", "zone", "instance", "leaf")
    ],
    # 4. The document's signature.
    ("another key's signature", C.SIGNATURE, lambda m: m.sign(cbor2.dumps(m.fields()), key=p384())),
    ("a signature of zeros", C.SIGNATURE, lambda m: m.sign(cbor2.dumps(m.fields()), signature=bytes(96))),
    ("a signature of ones", C.SIGNATURE, lambda m: m.sign(cbor2.dumps(m.fields()), signature=b"\xff" * 96)),
    ("a changed payload", C.SIGNATURE, lambda m: m.document(user_data=b"good").replace(b"good", b"evil")),
]


def later(maker: Maker) -> datetime:
    return datetime.fromtimestamp(maker.now_ms / 1000 + 3600, UTC)


def earlier(maker: Maker) -> datetime:
    return datetime.fromtimestamp(maker.now_ms / 1000 - 3600, UTC)


def test_a_healthy_document_verifies_and_says_what_it_holds(maker: Maker) -> None:
    document = verify(maker, maker.document(nonce=b"n", user_data=b"u", public_key=b"p"))
    assert document.module_id == f"{maker.instance}-enc0fedcba987654321"
    assert document.instance_id == maker.instance
    assert document.instance_confirmed
    assert (document.nonce, document.user_data, document.public_key) == (b"n", b"u", b"p")
    assert document.timestamp == maker.now_ms
    assert document.pcrs[15] == b"\x10" * 48
    assert not document.debug
    assert document.root in maker.roots()


@pytest.mark.parametrize(("what", "code", "make"), BROKEN, ids=[what for what, _, _ in BROKEN])
def test_one_broken_thing_is_refused_for_what_it_is(maker: Maker, what: str, code: AttestationCode, make: Make) -> None:
    assert code_of(maker, make(maker)) is code


def test_every_code_has_its_test() -> None:
    elsewhere = {C.NONCE, C.USER_DATA, C.PUBLIC_KEY}
    assert {code for _, code, _ in BROKEN} | elsewhere == set(AttestationCode)


@pytest.mark.parametrize(
    ("code", "name"), [(C.NONCE, "nonce"), (C.USER_DATA, "user_data"), (C.PUBLIC_KEY, "public_key")]
)
def test_what_was_asked_for_must_stand_in_it(maker: Maker, code: AttestationCode, name: str) -> None:
    raw = maker.document(**only(name, b"asked"))
    verify_document(raw, roots=maker.roots(), at=maker.now_ms, **only(name, b"asked"))
    assert code_of(maker, raw, **{name: b"other"}) is code
    assert code_of(maker, raw, **{name: b""}) is code
    assert code_of(maker, maker.document(), **{name: b"asked"}) is code
    assert code_of(maker, maker.document(), **{name: b""}) is code


def test_a_payload_of_indefinite_length_verifies_over_its_raw_bytes(maker: Maker) -> None:
    assert verify(maker, maker.sign(maker.indefinite(maker.fields()))) == verify(maker, maker.document())


def test_absent_optional_fields_are_like_null(maker: Maker) -> None:
    for name in ("public_key", "user_data", "nonce"):
        assert getattr(verify(maker, maker.document(without=name)), name) is None


@pytest.mark.parametrize("size", [0, 1, 512, 1024])
def test_optional_fields_up_to_1024_bytes_are_accepted(maker: Maker, size: int) -> None:
    raw = maker.document(public_key=bytes(size), user_data=bytes(size), nonce=bytes(size))
    assert verify(maker, raw).public_key == bytes(size)


def test_debug_mode_is_flagged(maker: Maker) -> None:
    pcrs = {index: bytes(48) for index in range(16)}
    assert verify(maker, maker.document(pcrs=pcrs)).debug
    assert not verify(maker, maker.document(pcrs={**pcrs, 2: b"\x01" * 48})).debug
    assert verify(maker, maker.document(pcrs={5: b"\x01" * 48})).debug  # nothing says what runs: taken for the worst


def test_an_instance_that_pcr4_does_not_hold_is_not_confirmed(maker: Maker) -> None:
    assert not verify(maker, maker.document(module_id="i-0other-enc01")).instance_confirmed
    assert not verify(maker, maker.document(module_id="i-é-enc01")).instance_confirmed


def test_a_leaf_without_basic_constraints_is_no_authority(maker: Maker) -> None:
    verify(maker, chained(maker, leaf={"ca": None}))


def test_a_chain_of_root_and_leaf_alone_verifies(maker: Maker) -> None:
    verify(maker, chained(maker, "root", "leaf"))


def test_validity_is_inclusive_to_the_second(maker: Maker) -> None:
    leaf_ends = maker.now_ms + 3 * 3600 * 1000
    verify(maker, maker.document(), at=leaf_ends + 999)
    assert code_of(maker, maker.document(), at=leaf_ends + 1000) is C.EXPIRED
    starts = maker.now_ms - 24 * 3600 * 1000
    verify(maker, maker.document(), at=starts)
    assert code_of(maker, maker.document(), at=starts - 1) is C.NOT_YET_VALID


def test_the_root_too_must_be_valid(maker: Maker) -> None:
    chain = maker.chain(root={"not_after": earlier(maker)})
    assert code_of(maker, maker.document(chain=chain), roots=maker.roots(chain)) is C.EXPIRED
    chain = maker.chain(root={"not_before": later(maker)})
    assert code_of(maker, maker.document(chain=chain), roots=maker.roots(chain)) is C.NOT_YET_VALID


def test_a_moment_beyond_all_calendars_is_just_not_valid(maker: Maker) -> None:
    assert code_of(maker, maker.document(), at=10**30) is C.EXPIRED
    assert code_of(maker, maker.document(), at=-(10**30)) is C.NOT_YET_VALID


def test_a_pinned_root_must_be_an_authority(maker: Maker) -> None:
    chain = maker.chain(root={"ca": None})
    assert code_of(maker, maker.document(chain=chain), roots=maker.roots(chain)) is C.NOT_CA


def test_a_root_may_limit_the_path(maker: Maker) -> None:
    chain = maker.chain(root={"path_length": 3})
    verify_document(maker.document(chain=chain), roots=maker.roots(chain), at=maker.now_ms)
    chain = maker.chain(root={"path_length": 2})
    assert code_of(maker, maker.document(chain=chain), roots=maker.roots(chain)) is C.PATH_LENGTH


# ---- the cache


def test_a_warm_chain_is_not_checked_again(maker: Maker) -> None:
    cache = ChainCache()
    first = verify(maker, maker.document(), cache=cache)
    assert (cache.hits, cache.misses, len(cache)) == (0, 5, 5)
    assert verify(maker, maker.document(), cache=cache) == first
    assert (cache.hits, cache.misses, len(cache)) == (5, 5, 5)


def test_a_new_leaf_below_a_warm_chain_is_checked(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, maker.document(), cache=cache)
    verify(maker, chained(maker, leaf={"name": "leaf 2"}), cache=cache)
    assert (cache.hits, cache.misses) == (4, 6)
    with pytest.raises(AttestationError) as refusal:
        verify(maker, chained(maker, leaf={"signer": p384()}), cache=cache)
    assert refusal.value.code is C.CHAIN_SIGNATURE


def test_a_warm_chain_still_expires(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, maker.document(), cache=cache)
    assert code_of(maker, maker.document(), at=maker.now_ms + 10**10, cache=cache) is C.EXPIRED
    assert code_of(maker, maker.document(), at=maker.now_ms - 10**10, cache=cache) is C.NOT_YET_VALID


def test_a_warm_chain_helps_no_other_root(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, maker.document(), cache=cache)
    assert code_of(maker, maker.document(), roots=aws_roots(), cache=cache) is C.ROOT


def test_a_warm_authority_does_not_pass_for_a_leaf(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, maker.document(), cache=cache)
    chain = maker.chain()
    assert code_of(maker, maker.document(chain=chain[:-1]), cache=cache) is C.LEAF_IS_CA


def test_a_warm_chain_still_counts_what_follows(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, chained(maker, "root", "instance", "leaf"), cache=cache)
    raw = chained(maker, "root", "instance", "zone", "leaf")
    assert code_of(maker, raw, cache=cache) is C.PATH_LENGTH


def test_a_warm_chain_does_not_vouch_for_a_documents_signature(maker: Maker) -> None:
    cache = ChainCache()
    verify(maker, maker.document(), cache=cache)
    assert code_of(maker, maker.sign(cbor2.dumps(maker.fields()), key=p384()), cache=cache) is C.SIGNATURE


def test_what_did_not_verify_is_not_kept(maker: Maker) -> None:
    cache = ChainCache()
    assert code_of(maker, chained(maker, region={"signer": p384()}), cache=cache) is C.CHAIN_SIGNATURE
    assert len(cache) == 1  # the pinned root


def test_a_cache_is_bounded_and_forgets_the_least_used(maker: Maker) -> None:
    cache = ChainCache(5)
    verify(maker, maker.document(), cache=cache)
    verify(maker, chained(maker, leaf={"name": "leaf 2"}), cache=cache)
    assert len(cache) == 5
    verify(maker, maker.document(), cache=cache)  # its leaf was the least recently used
    assert (cache.hits, cache.misses, len(cache)) == (8, 7, 5)


def test_a_cache_of_nothing_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ChainCache(0)


# ---- display


def test_a_document_is_shown_as_plain_data(maker: Maker) -> None:
    raw = maker.document(nonce=b"\x01\x02")
    shown = document_to_builtins(parse_document(raw))
    assert shown["nonce"] == "0102"
    assert shown["user_data"] is None
    assert shown["time"] == "2026-03-01T12:00:00.000Z"
    assert shown["timestamp"] == maker.now_ms
    assert shown["pcrs"]["15"] == "10" * 48  # type: ignore[index]
    assert shown["instance_confirmed"] is True
    assert shown == document_to_builtins(verify(maker, raw))


def test_the_latest_time_that_is_read_can_be_shown(maker: Maker) -> None:
    raw = maker.document(timestamp=253_402_300_799_999)
    assert str(document_to_builtins(parse_document(raw))["time"]).startswith("9999-12-31")


def test_a_document_that_was_only_read_is_no_verified_one(maker: Maker) -> None:
    unverified = parse_document(maker.document())
    assert isinstance(unverified, UnverifiedDocument)
    assert not isinstance(unverified, AttestationDocument)
    verified = verify(maker, maker.document())
    assert all(getattr(unverified, f.name) == getattr(verified, f.name) for f in fields(DocumentContents))


# ---- the real ones

REAL = [
    ("aws-nitro-2021-03-17.cbor", False),
    ("aws-nitro-2022-07-06.cbor", True),
    ("aws-nitro-2022-10-13.cbor", False),
    ("aws-nitro-2024-04-10.cbor", False),
    ("aws-nitro-2025-04-29.cbor", False),
    ("aws-nitro-2025-12-25.cbor", True),
    ("aws-nitro-debug-2022-05-17.cbor", True),
]
Read = Callable[[str], bytes]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "debug"), REAL)
def test_a_real_document_verifies_at_its_own_time(real_document: Read, name: str, debug: bool) -> None:
    raw = real_document(name)
    at = parse_document(raw).timestamp
    document = verify_document(raw, roots=aws_roots(), at=at)
    assert document.debug is debug
    assert document.instance_confirmed


@pytest.mark.shared
@pytest.mark.parametrize(("name", "debug"), REAL)
def test_a_real_document_is_refused_long_after(real_document: Read, name: str, debug: bool) -> None:
    raw = real_document(name)
    with pytest.raises(AttestationError) as refusal:
        verify_document(raw, roots=aws_roots(), at=parse_document(raw).timestamp + 40 * 86_400_000)
    assert refusal.value.code is C.EXPIRED


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "code"), [("refuse-2022-11-09.cbor", C.SIGNATURE), ("refuse-2025-04-30.cbor", C.ROOT)]
)
def test_the_two_to_refuse_are_refused(real_document: Read, name: str, code: AttestationCode) -> None:
    raw = real_document(name)
    with pytest.raises(AttestationError) as refusal:
        verify_document(raw, roots=aws_roots(), at=parse_document(raw).timestamp)
    assert refusal.value.code is code


@pytest.mark.shared
def test_a_real_document_with_a_root_of_ones_own_is_refused(real_document: Read, maker: Maker) -> None:
    raw = real_document("aws-nitro-2024-04-10.cbor")
    assert code_of(maker, raw, at=parse_document(raw).timestamp) is C.ROOT


@pytest.mark.shared
def test_any_flipped_bit_of_a_real_document_is_refused(real_document: Read) -> None:
    raw = real_document("aws-nitro-2024-04-10.cbor")
    at, roots, cache = parse_document(raw).timestamp, aws_roots(), ChainCache()
    for bit in [*range(160), *range(160, len(raw) * 8, 61)]:
        refused(flip(raw, bit), roots, at, cache)


@pytest.mark.shared
def test_any_cut_of_a_real_document_is_refused(real_document: Read) -> None:
    raw = real_document("aws-nitro-2025-12-25.cbor")
    at, roots = parse_document(raw).timestamp, aws_roots()
    for size in range(len(raw)):
        refused(raw[:size], roots, at)


def flip(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def refused(raw: bytes, roots: Roots, at: int, cache: ChainCache | None = None) -> None:
    with pytest.raises(AttestationError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `cryptography` grumbles about serial numbers that a flip made negative
        verify_document(raw, roots=roots, at=at, cache=cache)


# ---- anything at all

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(data=st.data())
def test_bytes_changed_anywhere_give_the_one_error(maker: Maker, data: st.DataObject) -> None:
    raw = maker.document(nonce=b"nonce", user_data=b"data")
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start, min(len(raw), start + 16)))
    changed = raw[:start] + data.draw(st.binary(max_size=16)) + raw[end:]
    if changed != raw:
        refused(changed, maker.roots(), maker.now_ms)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_give_the_one_error(raw: bytes) -> None:
    refused(raw, aws_roots(), 0)


VALUES = st.recursive(
    st.none() | st.integers(-5, 2**64) | st.binary(max_size=50) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(-2, 40), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"]
)


@QUICK
@given(name=FIELDS, value=VALUES)
def test_any_value_in_any_field_gives_a_document_or_the_one_error(maker: Maker, name: str, value: object) -> None:
    try:
        verify(maker, maker.document(**only(name, value)))
    except AttestationError:
        pass
