"""Settings: the environment that results, and one digest of all that is not secret.

May not: show a value in an error. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib

import pytest

from tea.trust.canonical import encode
from tea.trust.manifest import ManifestCode, ManifestError, parse_manifest
from tea.trust.settings import resolve_environment, settings_digest

MANIFEST = parse_manifest("""\
tea: manifest/1
deployment: d
revision: 1
environment:
  LEVEL: {value: info}
  REGION: {from: parent, pattern: "[a-z]{2}-[0-9]"}
  ZONE: {from: parent, pattern: "[abc]", default: a}
""")


def refusal(offered: dict[str, str]) -> str:
    with pytest.raises(ManifestError) as caught:
        resolve_environment(MANIFEST, offered)
    assert caught.value.code == ManifestCode.BAD_ENVIRONMENT
    for value in offered.values():
        assert len(value) < 3 or value not in caught.value.sentence
    return caught.value.sentence


def test_fixed_offered_and_default_values_come_together() -> None:
    assert resolve_environment(MANIFEST, {"REGION": "eu-1"}) == {"LEVEL": "info", "REGION": "eu-1", "ZONE": "a"}
    assert resolve_environment(MANIFEST, {"REGION": "eu-1", "ZONE": "b"})["ZONE"] == "b"


@pytest.mark.parametrize("value", ["", "eu", "eu-12", "xeu-1", "eu-1\n", "EU-1", "eu-1\0", "x" * 5000])
def test_a_value_that_the_pattern_does_not_match_as_a_whole_is_refused(value: str) -> None:
    assert "matches as a whole" in refusal({"REGION": value})


def test_a_value_longer_than_4096_characters_is_refused_whatever_the_pattern() -> None:
    manifest = parse_manifest(
        'tea: manifest/1\ndeployment: d\nrevision: 1\nenvironment:\n  X: {from: parent, pattern: "(?s).*"}\n'
    )
    assert resolve_environment(manifest, {"X": "x" * 4096})
    for value in ("x" * 4097, "a\0b"):
        with pytest.raises(ManifestError):
            resolve_environment(manifest, {"X": value})


def test_a_missing_variable_without_default_is_refused() -> None:
    assert "found no REGION" in refusal({})


def test_a_variable_that_the_manifest_does_not_name_is_refused() -> None:
    assert "does not name it" in refusal({"REGION": "eu-1", "LD_PRELOAD": "/tmp/evil.so"})


def test_a_fixed_variable_cannot_be_offered() -> None:
    assert "fixes it" in refusal({"REGION": "eu-1", "LEVEL": "debug"})


CHANGES = [b"one", b"two"]
BUNDLES = [bytes([n]) * 32 for n in (1, 2)]


def test_the_digest_is_of_the_canonical_settings() -> None:
    expected = encode(
        {
            "tea": "tea.settings.v1",
            "environment": {"A": "1"},
            "approver_changes": [hashlib.sha384(change).digest() for change in CHANGES],
            "bundles": BUNDLES,
        }
    )
    assert settings_digest({"A": "1"}, CHANGES, BUNDLES) == hashlib.sha384(expected).digest()


def test_the_digest_is_pinned() -> None:
    assert settings_digest({}, [], []).hex() == (
        "a40ba6a2a073d43ac379d90dc6fef4cd0ddb745f5dd25c846731a7c74a0c0eac51121e52cb6985f7a489558b2610a3c1"
    )


def test_the_order_of_variables_and_bundles_makes_no_difference_and_that_of_changes_does() -> None:
    one = settings_digest({"A": "1", "B": "2"}, CHANGES, BUNDLES)
    assert settings_digest({"B": "2", "A": "1"}, CHANGES, BUNDLES[::-1] + BUNDLES) == one
    assert settings_digest({"A": "1", "B": "2"}, CHANGES[::-1], BUNDLES) != one


@pytest.mark.parametrize(
    "changed", [({"A": "2"}, CHANGES, BUNDLES), ({"A": "1"}, CHANGES[:1], BUNDLES), ({"A": "1"}, CHANGES, BUNDLES[:1])]
)
def test_any_change_changes_the_digest(changed: tuple[dict[str, str], list[bytes], list[bytes]]) -> None:
    assert settings_digest(*changed) != settings_digest({"A": "1"}, CHANGES, BUNDLES)


def test_a_digest_of_another_size_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        settings_digest({}, [], [b"short"])
