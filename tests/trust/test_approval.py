"""Approval: m of n, counted by key, for one deployment; approvers change only by the quorum before them.

May not: use keys of anybody. Rule: docs/architecture.md, "Approvers".
"""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import cose
from tea.trust.approval import (
    APPROVERS_CONTENT_TYPE,
    MANIFEST_CONTENT_TYPE,
    MAX_CHANGES,
    Approvers,
    add_approval,
    add_change_approval,
    approve,
    parse_approvers,
    propose_change,
    unverified_manifest,
    verify_approval,
    verify_changes,
)
from tea.trust.canonical import encode
from tea.trust.keys import PrivateKey
from tea.trust.manifest import ManifestCode, ManifestError, parse_manifest

A, B, C, D = (PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3, 4))
MANIFEST = parse_manifest("tea: manifest/1\ndeployment: d\nrevision: 1\n")


def sorted_keys(*keys: PrivateKey) -> tuple[str, ...]:
    return tuple(sorted(key.public.text for key in keys))


def text(deployment: str = "d", epoch: int = 1, threshold: int = 2, keys: tuple[PrivateKey, ...] = (A, B, C)) -> str:
    listed = "\n".join(f'  - "{key.public.text}"' for key in keys)
    return f"tea: approvers/1\ndeployment: {deployment}\nepoch: {epoch}\nthreshold: {threshold}\nkeys:\n{listed}\n"


FIRST = parse_approvers(text())
SECOND = parse_approvers(text(epoch=2, keys=(B, C, D)))
THIRD = parse_approvers(text(epoch=3, threshold=1, keys=(D,)))


def refusal(envelope: bytes, approvers: Approvers = FIRST) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        verify_approval(envelope, approvers)
    return caught.value


def change_refusal(*changes: bytes, initial: Approvers = FIRST) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        verify_changes(initial, changes)
    return caught.value


# ---- the approvers' file


def test_the_file_says_who_and_how_many() -> None:
    assert (FIRST.deployment, FIRST.epoch, FIRST.threshold) == ("d", 1, 2)
    assert tuple(key.text for key in FIRST.keys) == sorted_keys(A, B, C)
    assert len(FIRST.digest) == 48


def test_the_order_of_keys_makes_no_difference() -> None:
    assert parse_approvers(text(keys=(C, A, B))).digest == FIRST.digest


def test_what_is_written_reads_back() -> None:
    assert parse_approvers(FIRST.to_yaml()) == FIRST
    numeric = replace(FIRST, deployment="123")
    assert parse_approvers(numeric.to_yaml()) == numeric


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("threshold: 2", "threshold: 0", ManifestCode.OUT_OF_RANGE),
        ("threshold: 2", "threshold: 4", ManifestCode.OUT_OF_RANGE),
        ("threshold: 2", "threshold: true", ManifestCode.WRONG_TYPE),
        ("epoch: 1", "epoch: 0", ManifestCode.OUT_OF_RANGE),
        ("deployment: d", "deployment: D", ManifestCode.BAD_VALUE),
        ("approvers/1", "manifest/1", ManifestCode.BAD_VALUE),
        ("epoch", "epok", ManifestCode.UNKNOWN_KEY),
        ("epoch: 1\n", "", ManifestCode.MISSING_KEY),
        (B.public.text, A.public.text, ManifestCode.DUPLICATE),
        (B.public.text, "ed25519:", ManifestCode.BAD_VALUE),
        ("keys:", "keys: []\nx:", ManifestCode.UNKNOWN_KEY),
    ],
)
def test_a_bad_file_is_refused_with_its_line(old: str, new: str, code: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_approvers(text().replace(old, new, 1), "approvers.yaml")
    assert caught.value.code == code
    assert caught.value.sentence.startswith("approvers.yaml:")


def test_approvers_of_nobody_are_refused() -> None:
    with pytest.raises(ManifestError, match="at least 1"):
        parse_approvers("tea: approvers/1\ndeployment: d\nepoch: 1\nthreshold: 1\nkeys: []\n")


# ---- manifests


def approved(*keys: PrivateKey, manifest: bytes = MANIFEST.canonical()) -> bytes:
    envelope = approve(manifest, keys[0])
    for key in keys[1:]:
        envelope = add_approval(envelope, key)
    return envelope


@pytest.mark.parametrize("keys", [(A, B), (A, C), (C, B), (A, B, C)])
def test_enough_approvers_make_it_count(keys: tuple[PrivateKey, ...]) -> None:
    assert verify_approval(approved(*keys), FIRST) == MANIFEST


def test_too_few_approvers_do_not() -> None:
    error = refusal(approved(A))
    assert error.code == ManifestCode.NOT_APPROVED
    assert "1 of the 2 signatures" in error.sentence


def test_one_approver_cannot_sign_twice() -> None:
    with pytest.raises(ManifestError) as caught:
        add_approval(approved(A), A)
    assert caught.value.code == ManifestCode.NOT_APPROVED
    body, _, payload, signatures = cbor2.loads(approved(A))
    assert refusal(encode([body, {}, payload, signatures * 2])).code == ManifestCode.NOT_APPROVED


def test_a_stranger_does_not_count() -> None:
    error = refusal(approved(A, D))
    assert error.code == ManifestCode.NOT_APPROVED
    assert "no approver of d in epoch 1" in error.sentence
    assert refusal(approved(A, B, D)).code == ManifestCode.NOT_APPROVED


def test_an_unsigned_manifest_is_refused() -> None:
    assert refusal(MANIFEST.canonical()).code == ManifestCode.NOT_APPROVED
    assert refusal(encode([encode({3: MANIFEST_CONTENT_TYPE}), {}, MANIFEST.canonical(), []])).code == "not-approved"
    assert refusal(cose.sign1(MANIFEST.canonical(), A, content_type=MANIFEST_CONTENT_TYPE)).code == "not-approved"


def test_approvals_of_one_manifest_do_not_approve_another() -> None:
    body, _, _, signatures = cbor2.loads(approved(A, B))
    other = replace(MANIFEST, revision=2).canonical()
    assert refusal(encode([body, {}, other, signatures])).code == ManifestCode.NOT_APPROVED


def test_a_manifest_of_another_deployment_is_refused() -> None:
    other = replace(MANIFEST, deployment="e").canonical()
    assert refusal(approved(A, B, manifest=other)).code == ManifestCode.WRONG_DEPLOYMENT


def test_signatures_over_another_kind_of_thing_are_refused() -> None:
    data = cose.sign(MANIFEST.canonical(), (A, B), content_type=APPROVERS_CONTENT_TYPE)
    assert refusal(data).code == ManifestCode.NOT_APPROVED


def test_an_approved_thing_that_is_no_manifest_is_refused() -> None:
    data = cose.sign(b"hello", (A, B), content_type=MANIFEST_CONTENT_TYPE)
    assert refusal(data).code == ManifestCode.NOT_CANONICAL


def test_nobody_signs_what_is_no_manifest() -> None:
    with pytest.raises(ManifestError):
        approve(b"hello", A)
    with pytest.raises(ManifestError):
        add_approval(cose.sign(b"hello", A, content_type=MANIFEST_CONTENT_TYPE), B)


@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    envelope = bytearray(approved(A, B))
    at = data.draw(st.integers(0, 8 * len(envelope) - 1))
    envelope[at // 8] ^= 1 << at % 8
    refusal(bytes(envelope))


def test_what_is_not_verified_is_shown_under_that_name() -> None:
    assert unverified_manifest(approved(D)) == MANIFEST
    with pytest.raises(ManifestError):
        unverified_manifest(b"hello")


# ---- changes


def changed(current: Approvers, new: Approvers, *keys: PrivateKey) -> bytes:
    change = propose_change(current, new, keys[0])
    for key in keys[1:]:
        change = add_change_approval(change, key)
    return change


TO_SECOND = changed(FIRST, SECOND, A, B)
TO_THIRD = changed(SECOND, THIRD, C, D)


def test_without_changes_the_set_in_the_image_stands() -> None:
    assert verify_changes(FIRST, []) == FIRST


def test_a_chain_of_changes_leads_to_the_last_set() -> None:
    assert verify_changes(FIRST, [TO_SECOND]) == SECOND
    assert verify_changes(FIRST, [TO_SECOND, TO_THIRD]) == THIRD


def test_after_a_change_the_old_keys_count_no_more() -> None:
    current = verify_changes(FIRST, [TO_SECOND])
    assert verify_approval(approved(C, D), current) == MANIFEST
    assert refusal(approved(A, B), current).code == ManifestCode.NOT_APPROVED


def test_a_change_needs_the_old_quorum() -> None:
    error = change_refusal(changed(FIRST, SECOND, A))
    assert error.code == ManifestCode.NOT_APPROVED
    assert error.sentence.startswith("change 1 of the approvers is not approved")
    assert change_refusal(changed(FIRST, SECOND, C, D)).code == ManifestCode.NOT_APPROVED
    assert change_refusal(TO_SECOND, changed(SECOND, THIRD, A, B)).sentence.startswith("change 2")


def test_a_change_is_signed_once_by_each() -> None:
    with pytest.raises(ManifestError):
        add_change_approval(TO_SECOND, A)


def test_changes_left_out_repeated_or_out_of_order_are_refused() -> None:
    both = parse_approvers(text(keys=(B, C, D)))
    for chain in ([TO_THIRD], [TO_SECOND, TO_SECOND], [TO_THIRD, TO_SECOND]):
        assert change_refusal(*chain).code in (ManifestCode.NOT_APPROVED, ManifestCode.WRONG_EPOCH)
    # Signed by keys that count in both sets: what it follows decides.
    assert change_refusal(changed(both, replace(both, epoch=2), B, C)).code == ManifestCode.WRONG_EPOCH


def test_a_change_raises_the_epoch_by_one_and_keeps_the_deployment() -> None:
    for new, code in (
        (replace(SECOND, epoch=3), ManifestCode.WRONG_EPOCH),
        (replace(SECOND, epoch=1), ManifestCode.WRONG_EPOCH),
        (replace(SECOND, deployment="e"), ManifestCode.WRONG_DEPLOYMENT),
    ):
        with pytest.raises(ManifestError) as caught:
            propose_change(FIRST, new, A)
        assert caught.value.code == code
        payload = encode({"tea": "tea.approvers.v1", "previous": FIRST.digest, **new.plain()})
        assert change_refusal(cose.sign(payload, (A, B), content_type=APPROVERS_CONTENT_TYPE)).code == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"hello", ManifestCode.NOT_CANONICAL),
        (encode({"tea": "tea.manifest.v1"}), ManifestCode.NOT_CANONICAL),
        (encode({"tea": "tea.approvers.v1", **SECOND.plain()}), ManifestCode.NOT_CANONICAL),
        (encode({"tea": "tea.approvers.v1", "previous": "x", **SECOND.plain()}), ManifestCode.WRONG_EPOCH),
        (encode({"tea": "tea.approvers.v1", "previous": bytes(48), **SECOND.plain()}), ManifestCode.WRONG_EPOCH),
        (
            encode({"tea": "tea.approvers.v1", "previous": FIRST.digest, **SECOND.plain(), "threshold": 0}),
            ManifestCode.OUT_OF_RANGE,
        ),
        (
            encode({"tea": "tea.approvers.v1", "previous": FIRST.digest, **SECOND.plain(), "keys": []}),
            ManifestCode.BAD_VALUE,
        ),
        (
            encode(
                {
                    "tea": "tea.approvers.v1",
                    "previous": FIRST.digest,
                    **SECOND.plain(),
                    "keys": [key.text for key in SECOND.keys[::-1]],
                }
            ),
            ManifestCode.NOT_CANONICAL,
        ),
    ],
)
def test_a_signed_change_that_is_none_is_refused(payload: bytes, code: str) -> None:
    assert change_refusal(cose.sign(payload, (A, B), content_type=APPROVERS_CONTENT_TYPE)).code == code


def test_an_approved_manifest_is_no_change() -> None:
    assert change_refusal(approved(A, B)).code == ManifestCode.NOT_APPROVED


def test_a_chain_without_end_is_refused() -> None:
    assert change_refusal(*[TO_SECOND] * (MAX_CHANGES + 1)).code == ManifestCode.TOO_LARGE
