"""Bundles: signature, then claims, then digest, then archive; each can be wrong, and is then refused by name.

May not: use a real clock. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import cose
from tea.trust.bundle import (
    MAX_BUNDLE,
    MAX_CLOCK_AHEAD,
    Bundle,
    BundleCode,
    BundleError,
    ClaimsInput,
    Issuer,
    build_archive,
    build_bundle,
    inspect_bundle,
    recheck_bundle,
    verify_bundle,
)
from tea.trust.canonical import encode
from tea.trust.claims import CLAIMS_CONTENT_TYPE, MAX_CLAIMS, Claims, SdkRange, parse_claims
from tea.trust.keys import PrivateKey

KEY = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
OTHER = PrivateKey.generate("p384")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ISSUED = int(NOW.timestamp()) - 1000
FILES = {"counter.py": b"class Counter: pass\n"}
ARCHIVE = build_archive(FILES)
CLAIMS = ClaimsInput(
    name="counter",
    version="0.1.0",
    entry="counter:Counter",
    issued_at=ISSUED,
    capabilities={"kvp": ("set", "get", "incr"), "log": ("info",)},
)
BUNDLE = build_bundle(ARCHIVE, CLAIMS, KEY)
SIGNED = cose.sign1(
    CLAIMS.claims(KEY.public, hashlib.sha256(ARCHIVE).digest()).encode(), KEY, content_type=CLAIMS_CONTENT_TYPE
)
ISSUER = Issuer(KEY.public, ("counter", "other"), ("kvp", "log"))


def verified(data: bytes, issuer: Issuer = ISSUER, now: datetime | None = NOW, sdk_version: str = "0.1.0") -> Bundle:
    return verify_bundle(data, {issuer.key.key_id: issuer}, now=now, sdk_version=sdk_version)


def refusal(data: bytes, issuer: Issuer = ISSUER, now: datetime | None = NOW, sdk_version: str = "0.1.0") -> str:
    with pytest.raises(BundleError) as caught:
        verified(data, issuer, now, sdk_version)
    return caught.value.code


def built(**change: object) -> bytes:
    return build_bundle(ARCHIVE, replace(CLAIMS, **change), KEY)  # type: ignore[arg-type]


def signed_anyhow(claims: bytes, archive: bytes = ARCHIVE) -> bytes:
    """What an issuer gone bad could make: any claims, with a signature that holds."""
    return encode([cose.sign1(claims, KEY, content_type=CLAIMS_CONTENT_TYPE), archive])


def fields(**change: object) -> dict[str, object]:
    claims = CLAIMS.claims(KEY.public, hashlib.sha256(ARCHIVE).digest())
    plain = msgspec.to_builtins(claims, builtin_types=(bytes,))
    return {"tea": "tea.claims.v1", **plain, **change}


# ---- good ones


def test_a_good_bundle_gives_its_claims_archive_and_digest() -> None:
    bundle = verified(BUNDLE)
    assert bundle.claims.name == "counter"
    assert bundle.claims.module == "counter"
    assert bundle.claims.issuer == KEY.public.key_id
    assert bundle.claims.capabilities == {"kvp": ("get", "incr", "set"), "log": ("info",)}
    assert bundle.archive == ARCHIVE
    assert bundle.digest == hashlib.sha256(BUNDLE).digest()
    assert repr(bundle) == f"Bundle(counter 0.1.0, sha256:{bundle.digest.hex()})"


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_the_same_source_gives_the_same_bytes(key: PrivateKey) -> None:
    claims = replace(CLAIMS, capabilities={"log": ("info",), "kvp": ("incr", "get", "set", "get")})
    assert build_bundle(ARCHIVE, claims, key) == build_bundle(ARCHIVE, CLAIMS, key)


def test_the_bytes_are_pinned() -> None:
    assert hashlib.sha256(BUNDLE).hexdigest() == "66b1028ab81a0f6aedce268a98b6eebdf8be46bae037a4696fe0038022c591d3"


# ---- 1. size and frame


def test_a_file_of_over_64_mib_is_refused() -> None:
    assert refusal(bytes(MAX_BUNDLE + 1)) == BundleCode.TOO_LARGE
    big = build_archive({"counter.py": b"", "blob.bin": bytes(MAX_BUNDLE - 100)})
    with pytest.raises(BundleError) as caught:
        build_bundle(big, CLAIMS, KEY)
    assert caught.value.code == BundleCode.TOO_LARGE


def test_claims_of_over_64_kib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(encode([bytes(MAX_CLAIMS + 1), ARCHIVE])) == BundleCode.TOO_LARGE
    operations = tuple(f"operation_{number:050}" for number in range(250))
    with pytest.raises(BundleError) as caught:
        built(capabilities={f"target-{number}": operations for number in range(5)})
    assert caught.value.code == BundleCode.BAD_CLAIMS
    monkeypatch.setattr("tea.trust.bundle.MAX_CLAIMS", 200)
    with pytest.raises(BundleError) as caught:
        built()
    assert caught.value.code == BundleCode.TOO_LARGE


@pytest.mark.parametrize("data", [b"", b"hello", encode([b"", b"", b""]), encode([b""]), encode({}), encode(["", b""])])
def test_a_file_that_is_no_bundle_is_refused(data: bytes) -> None:
    assert refusal(data) == BundleCode.MALFORMED
    with pytest.raises(BundleError):
        inspect_bundle(data)


def test_trailing_bytes_are_refused() -> None:
    assert refusal(BUNDLE + b"\0") == BundleCode.MALFORMED


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    changed = bytearray(BUNDLE)
    changed[data.draw(st.integers(0, len(BUNDLE) - 1))] ^= data.draw(st.integers(1, 255))
    refusal(bytes(changed))


@given(st.integers(0, len(BUNDLE) - 1))
def test_a_cut_anywhere_is_refused(end: int) -> None:
    assert refusal(BUNDLE[:end]) == BundleCode.MALFORMED


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    refusal(data)
    refusal(encode([data, ARCHIVE]))
    refusal(signed_anyhow(data))


# ---- 2. signature


def test_an_unknown_issuer_is_refused() -> None:
    assert refusal(build_bundle(ARCHIVE, CLAIMS, OTHER)) == BundleCode.UNKNOWN_ISSUER
    with pytest.raises(BundleError) as caught:
        verify_bundle(BUNDLE, {}, now=NOW, sdk_version="0.1.0")
    assert caught.value.code == BundleCode.UNKNOWN_ISSUER


def test_a_signature_over_another_thing_is_refused() -> None:
    claims = CLAIMS.claims(KEY.public, hashlib.sha256(ARCHIVE).digest()).encode()
    as_manifest = cose.sign1(claims, KEY, content_type="application/tea-manifest+cbor")
    assert refusal(encode([as_manifest, ARCHIVE])) == BundleCode.BAD_SIGNATURE


def test_claims_that_name_another_issuer_are_refused() -> None:
    assert refusal(signed_anyhow(encode(fields(issuer=OTHER.public.key_id)))) == BundleCode.BAD_SIGNATURE


# ---- 3. claims


@pytest.mark.parametrize(
    "change",
    [
        {"tea": "tea.manifest.v1"},
        {"more": 1},
        {"name": 1},
        {"name": "Counter"},
        {"name": "kvp"},
        {"name": "parent"},
        {"name": "x" * 64},
        {"version": "1"},
        {"version": "1.0.0 "},
        {"version": "01.0.0"},
        {"version": "1.0.0-" + "x" * 64},
        {"entry": "counter"},
        {"entry": "counter:"},
        {"entry": "../x:Y"},
        {"entry": "a" * 300 + ":B"},
        {"issuer": b"short"},
        {"issuer": "text"},
        {"archive": b"short"},
        {"issued_at": -1},
        {"issued_at": 2**60},
        {"issued_at": 1.0},
        {"not_after": ISSUED},
        {"not_after": 2**60},
        {"sdk": ""},
        {"sdk": ">=0.1,"},
        {"sdk": "~=0.1"},
        {"sdk": ">=0.1" + ",<9" * 100},
        {"capabilities": []},
        {"capabilities": {"kvp": []}},
        {"capabilities": {"kvp": ["set", "get"]}},
        {"capabilities": {"kvp": ["get", "get"]}},
        {"capabilities": {"kvp": ["Get"]}},
        {"capabilities": {"kvp": ["*"]}},
        {"capabilities": {"kvp": ["_private"]}},
        {"capabilities": {"KVP": ["get"]}},
        {"capabilities": {"kvp": [f"x{number:03}" for number in range(257)]}},
        {"capabilities": {f"t{number}": ["get"] for number in range(65)}},
    ],
)
def test_claims_that_are_not_well_formed_are_refused(change: dict[str, object]) -> None:
    assert refusal(signed_anyhow(encode(fields(**change)))) == BundleCode.BAD_CLAIMS


@pytest.mark.parametrize("name", ["name", "archive", "kind", "issued_at", "not_after"])
def test_a_missing_claim_is_refused(name: str) -> None:
    left = {key: value for key, value in fields().items() if key != name}
    assert refusal(signed_anyhow(encode(left))) == BundleCode.BAD_CLAIMS


def test_claims_in_another_form_than_their_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode(fields())
    monkeypatch.setattr(Claims, "encode", lambda self: raw + b"x")
    with pytest.raises(BundleError, match="one form"):
        parse_claims(raw)


def test_another_kind_is_refused() -> None:
    assert refusal(signed_anyhow(encode(fields(kind="native")))) == BundleCode.UNSUPPORTED_KIND


WASM = {"kind": "wasm", "entry": "counter.wasm"}
MODULE = {"counter.wasm": b"\0asm\1\0\0\0", "counter.json": b"{}"}


def test_a_wasm_bundle_holds_its_module_and_its_interface() -> None:
    data = build_bundle(build_archive(MODULE), replace(CLAIMS, **WASM), KEY)  # type: ignore[arg-type]
    assert verified(data).claims.kind == "wasm"


@pytest.mark.parametrize(
    "files",
    [FILES, {"counter.wasm": b""}, {"counter.json": b""}, {**MODULE, "more.wasm": b""}, {**MODULE, **FILES}],
)
def test_a_wasm_bundle_holds_nothing_else(files: dict[str, bytes]) -> None:
    archive = build_archive(files)
    change = {**WASM, "archive": hashlib.sha256(archive).digest()}
    assert refusal(signed_anyhow(encode(fields(**change)), archive)) == BundleCode.NO_ENTRY


@pytest.mark.parametrize("entry", ["counter:Counter", "a/counter.wasm", "../counter.wasm", ".wasm", "counter.wasm2"])
def test_the_entry_of_a_wasm_bundle_is_one_module(entry: str) -> None:
    assert refusal(signed_anyhow(encode(fields(kind="wasm", entry=entry)))) == BundleCode.BAD_CLAIMS


def test_the_entry_of_a_python_bundle_is_no_wasm_module() -> None:
    assert refusal(signed_anyhow(encode(fields(entry="counter.wasm")))) == BundleCode.BAD_CLAIMS


def test_an_author_learns_of_bad_claims_when_building() -> None:
    with pytest.raises(BundleError, match=r"version.*'one'.*semver"):
        built(version="one")


# ---- 4. what the issuer may sign


def test_a_name_that_the_issuer_may_not_sign_is_refused() -> None:
    assert refusal(BUNDLE, replace(ISSUER, actors=("other",))) == BundleCode.NOT_THIS_NAME
    assert refusal(BUNDLE, replace(ISSUER, actors=())) == BundleCode.NOT_THIS_NAME


def test_a_capability_that_the_issuer_may_not_give_is_refused() -> None:
    assert refusal(BUNDLE, replace(ISSUER, capabilities=("kvp",))) == BundleCode.NOT_THIS_CAPABILITY
    assert refusal(BUNDLE, replace(ISSUER, capabilities=())) == BundleCode.NOT_THIS_CAPABILITY


# ---- 5. time and sdk


def test_a_bundle_is_valid_up_to_the_second_before_not_after() -> None:
    end = NOW + timedelta(seconds=5)
    data = built(not_after=int(end.timestamp()))
    assert verified(data, now=end - timedelta(seconds=1))
    assert refusal(data, now=end) == BundleCode.EXPIRED


def test_a_bundle_from_the_future_is_refused_beyond_what_clocks_drift() -> None:
    issued = datetime.fromtimestamp(ISSUED, UTC)
    assert verified(BUNDLE, now=issued - timedelta(seconds=MAX_CLOCK_AHEAD))
    assert refusal(BUNDLE, now=issued - timedelta(seconds=MAX_CLOCK_AHEAD + 1)) == BundleCode.NOT_YET_VALID


def test_without_a_time_no_time_is_checked() -> None:
    assert verified(built(not_after=ISSUED + 1), now=None)


def test_a_naive_time_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="aware"):
        verified(BUNDLE, now=datetime(2026, 3, 1))


@pytest.mark.parametrize("version", ["0.2.0", "0.0.9", "1.0"])
def test_another_sdk_is_refused(version: str) -> None:
    assert refusal(BUNDLE, sdk_version=version) == BundleCode.WRONG_SDK


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=0.1,<0.2", ["0.1", "0.1.0", "0.1.99", "0.1.0.dev3", "0.1.5-rc.1"], ["0.2", "0.0.9", "1"]),
        ("==1.2.3", ["1.2.3"], ["1.2.4", "1.2"]),
        (">1", ["1.0.1", "2"], ["1", "1.0.0", "0.9"]),
        ("<=1.2", ["1.2.0", "1.1.9"], ["1.2.1"]),
    ],
)
def test_ranges_of_the_sdk(text: str, inside: list[str], outside: list[str]) -> None:
    found = SdkRange.parse(text)
    assert all(found.contains(version) for version in inside)
    assert not any(found.contains(version) for version in outside)


def test_an_sdk_without_a_version_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="no version"):
        SdkRange.parse(">=0.1").contains("main")


# ---- 6. digest


def test_another_archive_under_good_claims_is_refused() -> None:
    other = build_archive({"counter.py": b"class Counter: evil = 1\n"})
    assert refusal(encode([SIGNED, other])) == BundleCode.DIGEST_MISMATCH


def test_an_archive_is_not_read_before_its_digest_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(archive: bytes) -> dict[str, bytes]:
        raise AssertionError("parsed before it was believed")

    monkeypatch.setattr("tea.trust.bundle.read_archive", never)
    assert refusal(encode([SIGNED, b"not the archive"])) == BundleCode.DIGEST_MISMATCH


# ---- 7. archive


def test_a_signed_archive_that_is_none_is_refused() -> None:
    assert refusal(signed_anyhow(encode(fields(archive=hashlib.sha256(b"zip").digest())), b"zip")) == (
        BundleCode.BAD_ARCHIVE
    )


def test_an_entry_that_is_not_in_the_archive_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        built(entry="other:Counter")
    assert caught.value.code == BundleCode.NO_ENTRY
    assert refusal(signed_anyhow(encode(fields(entry="other:Counter")))) == BundleCode.NO_ENTRY


# ---- inspection


def test_inspection_shows_what_nobody_has_checked() -> None:
    seen = inspect_bundle(BUNDLE)
    assert seen.claims.name == "counter"
    assert seen.archive_matches
    assert seen.archive_size == len(ARCHIVE)
    assert seen.digest == hashlib.sha256(BUNDLE).digest()
    assert not inspect_bundle(encode([SIGNED, b"other"])).archive_matches


def test_inspection_of_unsigned_claims_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        inspect_bundle(encode([CLAIMS.claims(KEY.public, bytes(32)).encode(), ARCHIVE]))
    assert caught.value.code == BundleCode.MALFORMED


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_a_verified_bundle_passes_the_second_look() -> None:
    for key in (KEY, OTHER):
        data = build_bundle(ARCHIVE, CLAIMS, key)
        assert recheck_bundle(data, digest=digest_of(data), issuer=key.public) == ARCHIVE


def test_the_second_look_refuses_another_file() -> None:
    with pytest.raises(BundleError) as caught:
        recheck_bundle(BUNDLE + b"\x00", digest=digest_of(BUNDLE), issuer=KEY.public)
    assert caught.value.code is BundleCode.DIGEST_MISMATCH


def test_the_second_look_refuses_another_key() -> None:
    for issuer in (PrivateKey.generate().public, OTHER.public):
        with pytest.raises(BundleError) as caught:
            recheck_bundle(BUNDLE, digest=digest_of(BUNDLE), issuer=issuer)
        assert caught.value.code is BundleCode.BAD_SIGNATURE


def test_the_second_look_refuses_another_archive_under_the_signature() -> None:
    data = encode([SIGNED, build_archive({"counter.py": b"class Counter: other = 1\n"})])
    with pytest.raises(BundleError) as caught:
        recheck_bundle(data, digest=digest_of(data), issuer=KEY.public)
    assert caught.value.code is BundleCode.DIGEST_MISMATCH
