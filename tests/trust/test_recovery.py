"""A keeper's recovery key has one spelling, and a manifest names who keeps backups.

May not: use keys of anybody. Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.manifest import ManifestCode, ManifestError, manifest_from_canonical, parse_manifest
from tea.trust.manifest_diff import diff
from tea.trust.recovery import is_recovery_key, parse_recovery_key, recovery_key_text

ONE, TWO, THREE = (recovery_key_text(bytes([n]) * 32) for n in (1, 2, 3))
PLAIN = "tea: manifest/1\ndeployment: d\nrevision: 1\n"


def backed_up(threshold: object = 2, **keepers: str) -> str:
    listed = ", ".join(f"{name}: '{key}'" for name, key in (keepers or {"alice": ONE, "bob": TWO}).items())
    return f"{PLAIN}backup: {{threshold: {threshold}, keepers: {{{listed}}}}}\n"


@given(st.binary(min_size=32, max_size=32))
def test_a_recovery_key_reads_back(raw: bytes) -> None:
    text = recovery_key_text(raw)
    assert parse_recovery_key(text) == raw
    assert is_recovery_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x25519:",
        "x25519:AA==",
        "ed25519:" + "A" * 44,
        "x25519:?",
        "x25519:" + base64.b64encode(bytes(33)).decode(),
        "x25519:" + "A" * 42 + "B=",  # the same bytes with another last letter
        "x25519:" + "A" * 43 + "=\n",
        "x25519:é" + "A" * 42 + "=",
    ],
)
def test_a_recovery_key_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match="x25519:BASE64"):
        parse_recovery_key(text)
    assert not is_recovery_key(text)


def test_a_manifest_names_its_keepers() -> None:
    manifest = parse_manifest(backed_up(2, carol=THREE, alice=ONE, bob=TWO))
    assert manifest.backup is not None
    assert (manifest.backup.threshold, list(manifest.backup.keepers)) == (2, ["alice", "bob", "carol"])
    assert manifest.backup.keepers["bob"] == bytes([2]) * 32
    assert manifest_from_canonical(manifest.canonical()) == manifest


def test_a_manifest_without_keepers_is_what_it_was() -> None:
    manifest = parse_manifest(PLAIN)
    assert manifest.backup is None
    assert b"backup" not in manifest.canonical()


def test_keepers_that_come_and_go_are_shown_to_who_approves() -> None:
    before = parse_manifest(backed_up())
    assert diff(parse_manifest(PLAIN), before) == [
        "+ backup added: 2 of 2 keepers restore it",
        f"+ keeper alice added: {ONE}",
        f"+ keeper bob added: {TWO}",
    ]
    after = parse_manifest(backed_up(2, alice=THREE, carol=TWO))
    assert diff(before, after) == [
        f"~ keeper alice: {ONE} -> {THREE}",
        f"- keeper bob removed (was {TWO})",
        f"+ keeper carol added: {TWO}",
    ]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (backed_up(2, alice=ONE), ManifestCode.BAD_VALUE, "two at least"),
        (backed_up(1), ManifestCode.OUT_OF_RANGE, "threshold"),
        (backed_up(3), ManifestCode.OUT_OF_RANGE, "threshold"),
        (backed_up("two"), ManifestCode.WRONG_TYPE, "threshold"),
        (backed_up(2, alice=ONE, bob=ONE), ManifestCode.DUPLICATE, "a keeper keeps one share"),
        (backed_up(2, alice=ONE, bob="x25519:AA=="), ManifestCode.BAD_VALUE, "teactl backup key"),
        (backed_up(2, Alice=ONE, bob=TWO), ManifestCode.BAD_VALUE, "rename the keeper"),
        (backed_up(2, **{f"k{n}": recovery_key_text(bytes([n]) * 32) for n in range(33)}), None, "keepers"),
        (PLAIN + "backup: {threshold: 2}\n", ManifestCode.MISSING_KEY, "keepers"),
        (PLAIN + "backup: {threshold: 2, keepers: {}, more: 1}\n", ManifestCode.UNKNOWN_KEY, "more"),
    ],
)
def test_keepers_that_cannot_be_are_refused(text: str, code: ManifestCode | None, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text)
    assert code is None or caught.value.code is code
    assert words in str(caught.value)
