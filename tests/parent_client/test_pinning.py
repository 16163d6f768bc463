"""Pinning: `pin` at its places and nowhere else becomes this machine's key, digests and slots; all else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.parent_client.pinning import pin
from tea.parent_client.refusal import Refusal
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.errors import TrustError
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest

KEY = PrivateKey.generate()
MEMBERS = {"e1": "aa" * 48, "e2": "bb" * 48}
MANIFEST = """tea: manifest/1      # pin
deployment: test
revision: 1
sandbox: prefer
issuers:
  dev: {key: pin, actors: [counter, pin], capabilities: [kvp]}
  other:
    # key: pin
    key: "ed25519:OTHER"
    actors: [echo]
    capabilities: []
providers:
  kvp: {}
actors:
    counter:
        version: 0.1.0     # bundle: pin
        bundle: pin        # here
        issuer: dev
    "pin": {version: "0.1.0", bundle: "pin", issuer: dev}
    echo: {version: 0.1.0, bundle: "sha256:DIGEST", issuer: other}
links:
  - {from: parent, to: counter, operations: [pin]}
ra:
  members: pin
  quorum: two-thirds
""".replace("DIGEST", "00" * 32).replace("ed25519:OTHER", PrivateKey.generate().public.text)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    for name in ("counter", "pin"):
        claims = ClaimsInput(name=name, version="0.1.0", entry="a:A", issued_at=1, capabilities={})
        (tmp_path / f"{name}.tea").write_bytes(build_bundle(build_archive({"a.py": b"class A: ..."}), claims, KEY))
    return tmp_path


def test_every_pin_is_filled_and_nothing_else_changes(bundles: Path) -> None:
    text = pin(MANIFEST, "m.yaml", issuer=KEY.public, bundles=bundles, members=MEMBERS)
    manifest = parse_manifest(text)
    assert manifest.issuers["dev"].key == KEY.public
    assert manifest.actors["echo"].bundle == bytes(32)
    assert manifest.actors["counter"].bundle != manifest.actors["pin"].bundle
    assert manifest.links[0].operations == ("pin",)
    changed = [line for line in text.splitlines() if line not in MANIFEST.splitlines()]
    assert len(changed) == 5  # a key, two bundles, members on two lines
    assert "bundle: sha256:" in text
    assert text.count("# here") == 1
    assert "# bundle: pin" in text


def test_a_pinned_manifest_is_pinned_to_itself(bundles: Path) -> None:
    text = pin(MANIFEST, "m.yaml", issuer=KEY.public, bundles=bundles, members=MEMBERS)
    assert pin(text, "m.yaml", issuer=PrivateKey.generate().public, bundles=bundles) == text


def test_a_bundle_that_is_not_there_is_named_with_its_line(bundles: Path) -> None:
    with pytest.raises(Refusal, match=r"m.yaml:17: actors.counter: found no bundle counter 0.1.0 in "):
        pin(MANIFEST, "m.yaml", issuer=KEY.public, bundles=bundles / "nowhere", members=MEMBERS)
    text = MANIFEST.replace("        version: 0.1.0 ", "        #")
    with pytest.raises(Refusal, match="found no bundle counter without a version"):
        pin(text, "m.yaml", issuer=KEY.public, bundles=bundles, members=MEMBERS)


@pytest.mark.parametrize("members", [None, {}])
def test_members_without_a_network_are_refused_with_the_line(bundles: Path, members: dict[str, str] | None) -> None:
    with pytest.raises(Refusal, match=r"m.yaml:24: found `members: pin` and no network with slots"):
        pin(MANIFEST, "m.yaml", issuer=KEY.public, bundles=bundles, members=members)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "actors: pin",
        "actors: [pin]",
        "issuers: {a: pin}",
        "ra: pin",
        "a: &a pin\nb: *a",
        "{",
        "actors: {x: {bundle: [pin]}}",
    ],
)
def test_a_manifest_of_another_shape_is_left_to_the_schema_or_refused(bundles: Path, text: str) -> None:
    try:
        assert pin(text, "m.yaml", issuer=KEY.public, bundles=bundles) == text
    except (Refusal, TrustError):
        pass


@given(st.text(max_size=200), st.integers(min_value=0, max_value=len(MANIFEST)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_into_a_manifest_it_is_pinned_or_refused(bundles: Path, text: str, at: int) -> None:
    try:
        pin(MANIFEST[:at] + text + MANIFEST[at:], "m.yaml", issuer=KEY.public, bundles=bundles, members=MEMBERS)
    except (Refusal, TrustError):
        pass
