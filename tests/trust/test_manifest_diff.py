"""Manifests for people: changes a line each, and who reaches what through whom.

May not: decide anything. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest
from tea.trust.manifest_diff import diff, explain_reach

KEY = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)).public.text
OTHER = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)).public.text
ACTOR = f"{{version: 1.0.0, bundle: 'sha256:{'00' * 32}', issuer: dev}}"
OLD = f"""\
tea: manifest/1
deployment: d
revision: 1
issuers:
  dev: {{key: "{KEY}", actors: [front, back, vault], capabilities: [kvp, log, back, vault, front]}}
environment:
  MODE: {{value: fast}}
providers: {{kvp: {{}}, log: {{level: info, topics: [a, b], nested: {{x: 1, y: 2}}}}}}
actors:
  front: {ACTOR}
  back: {ACTOR}
  vault: {ACTOR}
links:
  - {{from: parent, to: front, operations: [ask]}}
  - {{from: front, to: back, operations: [work]}}
  - {{from: back, to: kvp, operations: [get, set]}}
  - {{from: back, to: vault, operations: [open], behind: [parent]}}
  - {{from: vault, to: log, operations: [info]}}
  - {{from: vault, to: front, operations: [ask]}}
ra: {{members: {{e1: {{pcr4: "{"01" * 48}"}}}}}}
egress: [a.example]
"""


def changed(*changes: tuple[str, str]) -> list[str]:
    text = OLD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return diff(parse_manifest(OLD), parse_manifest(text))


def test_the_same_manifest_has_no_changes() -> None:
    assert changed() == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("revision: 1", "revision: 2", "~ revision: 1 -> 2"),
        ("revision: 1", "revision: 1\nsandbox: prefer", "~ sandbox: require -> prefer"),
        (
            "revision: 1",
            "revision: 1\nnot_after: 2030-01-01T00:00:00Z",
            "+ not_after added: 2030-01-01T00:00:00Z",
        ),
        (KEY, OTHER, f"~ issuer dev: key: {KEY} -> {OTHER}"),
        ("{value: fast}", "{value: slow}", "~ variable MODE: value: fast -> slow"),
        ("  MODE: {value: fast}\n", "", "- variable MODE removed (was {value: fast})"),
        ("kvp: {}, log", "kvp: {}, clock: {}, log", "+ provider clock added: {}"),
        ("level: info", "level: warn", "~ provider log: level: info -> warn"),
        ("level: info, ", "", "- provider log: level removed (was info)"),
        ("level: info", "level: info, more: true", "~ provider log: more added: True"),
        ("[a, b]", "[b, c]", "~ provider log: topics: -a, +c"),
        ("[a, b]", "[b, a]", "~ provider log: topics: another order"),
        ("{x: 1, y: 2}", "{x: 1, y: [1]}", "~ provider log: nested: y: 2 -> [1]"),
        ("issuer: dev}", "issuer: dev, replicas: 4}", "~ actor front: replicas: 1 -> 4"),
        ("operations: [get, set]", "operations: [get]", "~ link back -> kvp: operations: -set"),
        ("behind: [parent]", "behind: [front]", "~ link back -> vault: behind: -parent, +front"),
        (f'e1: {{pcr4: "{"01" * 48}"}}', f'e2: {{pcr4: "{"01" * 48}"}}', f"+ slot e2 added: {{pcr4: {'01' * 48}}}"),
        ("egress: [a.example]", "egress: []", "~ egress: -a.example"),
    ],
)
def test_a_change_is_one_line_that_says_from_what_to_what(old: str, new: str, line: str) -> None:
    if line.startswith("- provider"):
        line = "~" + line[1:]  # a key within an entry that stays
    assert line in changed((old, new))


def test_rounds_come_and_go_as_slots() -> None:
    without = parse_manifest(OLD[: OLD.index("ra:")])
    assert any(line.startswith("+ slot e1 added") for line in diff(without, parse_manifest(OLD)))
    assert "- quorum removed (was two-thirds)" in diff(parse_manifest(OLD), without)


def test_reach_names_whom_it_goes_through() -> None:
    lines = explain_reach(parse_manifest(OLD))
    assert "parent reaches front: ask" in lines
    assert "parent reaches back through front: work" in lines
    assert "parent reaches kvp through front and back: get, set" in lines
    # `behind: [parent]` lets the parent's chain through to the vault, and nobody else's.
    assert "parent reaches vault through front and back: open" in lines
    assert "parent reaches log through front and back and vault: info" in lines
    assert not [line for line in lines if line.startswith(("front reaches vault", "back reaches vault"))]
    assert "vault reaches kvp through front and back: get, set" in lines


def test_a_manifest_without_links_reaches_nothing() -> None:
    assert explain_reach(parse_manifest("tea: manifest/1\ndeployment: d\nrevision: 1\n")) == []


def test_a_direct_link_says_what_it_gives_up() -> None:
    direct = OLD.replace("behind: [parent]", "direct: true")
    lines = explain_reach(parse_manifest(direct))
    said = "calls from back to vault go past the host (direct): vault sees back as their caller, and not who stands"
    assert f"{said} behind them" in lines
    assert (
        "~ link back -> vault: direct added: true (past the host: who stands behind a call is not stamped)"
    ) in diff(parse_manifest(OLD), parse_manifest(direct))


def test_a_sticky_link_says_by_what_and_over_how_many_replicas() -> None:
    sticky = OLD.replace("behind: [parent]", "behind: [parent], sticky: name")
    assert "calls from back to vault with one value of name go to one replica of 1" in explain_reach(
        parse_manifest(sticky)
    )
    assert diff(parse_manifest(OLD), parse_manifest(sticky)) == ["~ link back -> vault: sticky added: name"]
