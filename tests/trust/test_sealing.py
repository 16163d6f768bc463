"""Sealing: opens for the one key, purpose, actor and manifest that it was sealed for, and for nothing else.

May not: keep a key. Rule: RFC 9180; docs/architecture.md, "Secrets".
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.sealing import MAX_PLAINTEXT, OVERHEAD, SealCode, SealError, SealingKey, open_sealed, seal

KEY = SealingKey.generate()
DIGEST = b"\x07" * 48


def sealed(plaintext: bytes = b"a secret", purpose: str = "import", actor: str | None = "counter") -> bytes:
    return seal(KEY.public, plaintext, purpose=purpose, actor=actor, manifest_digest=DIGEST)


def refusal(
    data: bytes,
    key: SealingKey = KEY,
    purpose: str = "import",
    actor: str | None = "counter",
    manifest_digest: bytes = DIGEST,
) -> str:
    with pytest.raises(SealError) as caught:
        open_sealed(key, data, purpose=purpose, actor=actor, manifest_digest=manifest_digest)
    return caught.value.code


@given(st.binary(max_size=200), st.text(max_size=10), st.none() | st.text(max_size=10))
def test_what_is_sealed_opens(plaintext: bytes, purpose: str, actor: str | None) -> None:
    data = sealed(plaintext, purpose, actor)
    assert len(data) == len(plaintext) + OVERHEAD
    assert KEY.open(data, purpose=purpose, actor=actor, manifest_digest=DIGEST) == plaintext


def test_the_same_secret_never_looks_the_same() -> None:
    assert sealed() != sealed()
    assert b"a secret" not in sealed()


def test_it_does_not_open_for_another_key_purpose_actor_or_manifest() -> None:
    data = sealed()
    assert refusal(data, key=SealingKey.generate()) == SealCode.NOT_FOR_THIS
    assert refusal(data, purpose="export") == SealCode.NOT_FOR_THIS
    assert refusal(data, actor="other") == SealCode.NOT_FOR_THIS
    assert refusal(data, actor=None) == SealCode.NOT_FOR_THIS
    assert refusal(data, actor="") == SealCode.NOT_FOR_THIS
    assert refusal(data, manifest_digest=bytes(48)) == SealCode.NOT_FOR_THIS


def test_the_host_and_an_actor_called_none_are_different() -> None:
    assert refusal(sealed(actor=None), actor="None") == SealCode.NOT_FOR_THIS


@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    changed = bytearray(sealed())
    at = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[at // 8] ^= 1 << at % 8
    # X25519 ignores the top bit of a key, but HPKE hashes the key as it was sent.
    assert refusal(bytes(changed)) == SealCode.NOT_FOR_THIS


@given(st.binary(max_size=OVERHEAD + 20))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    assert refusal(data) in (SealCode.MALFORMED, SealCode.NOT_FOR_THIS)


def test_a_sealed_secret_with_a_weak_point_is_refused() -> None:
    assert refusal(bytes(32) + sealed()[32:]) == SealCode.NOT_FOR_THIS


def test_too_short_and_too_long_are_refused() -> None:
    assert refusal(sealed(b"")[:-1]) == SealCode.MALFORMED
    assert refusal(bytes(MAX_PLAINTEXT + OVERHEAD + 1)) == SealCode.TOO_LARGE
    with pytest.raises(SealError) as caught:
        sealed(bytes(MAX_PLAINTEXT + 1))
    assert caught.value.code == SealCode.TOO_LARGE


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_nothing_is_sealed_to_a_bad_key(public: bytes) -> None:
    with pytest.raises(SealError) as caught:
        seal(public, b"x", purpose="p", actor=None, manifest_digest=DIGEST)
    assert caught.value.code == SealCode.BAD_KEY


def test_a_key_can_come_from_the_nsms_random_bytes() -> None:
    one, other = SealingKey.from_raw(b"\x01" * 32), SealingKey.from_raw(b"\x01" * 32)
    assert one.public == other.public
    assert len(one.public) == 32
    with pytest.raises(SealError) as caught:
        SealingKey.from_raw(b"short")
    assert caught.value.code == SealCode.BAD_KEY


def test_a_digest_of_another_size_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        seal(KEY.public, b"", purpose="p", actor=None, manifest_digest=b"")


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_neither_pickled_nor_copied(take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="never"):
        take(KEY)


def test_a_key_shows_its_public_half_only() -> None:
    assert repr(KEY) == f"SealingKey(of {KEY.public.hex()})"
