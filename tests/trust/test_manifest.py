"""Manifests: one schema for both forms, errors that say where and what to do, and the questions the host asks.

May not: read a clock. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import copy
import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.canonical import Value, decode, encode
from tea.trust.claims import Claims, ClaimsInput
from tea.trust.keys import PrivateKey
from tea.trust.manifest import (
    Limits,
    Link,
    Manifest,
    ManifestCode,
    ManifestError,
    Restart,
    effective_operations,
    manifest_from_canonical,
    parse_manifest,
    require_grants,
    require_not_expired,
    require_revision,
)

DEV = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
OPS = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
BUNDLE = hashlib.sha256(b"bundle").digest()
SMALL = "tea: manifest/1\ndeployment: tiny\nrevision: 1\n"
TEXT = f"""\
tea: manifest/1
deployment: counter-tutorial
revision: 3
not_after: 2027-12-31T00:00:00Z
sandbox: prefer
issuers:
  dev: {{key: "{DEV.public.text}", actors: [counter, front], capabilities: [kvp, log, counter]}}
  ops: {{key: "{OPS.public.text}", actors: [clock-work], capabilities: [clock]}}
environment:
  LOG_LEVEL: {{value: info}}
  REGION: {{from: parent, pattern: "[a-z]{{2}}-[a-z]+-[0-9]"}}
  ZONE: {{from: parent, pattern: "[abc]", default: a}}
providers:
  kvp: {{}}
  log:
  clock: {{drift: 0.5, names: [a, {{b: null}}], on: true}}
actors:
  counter:
    version: 0.1.0
    bundle: sha256:{BUNDLE.hex()}
    issuer: dev
    replicas: 2
    limits: {{memory_mib: 64, cpu_seconds: 3600, in_flight: 8, kvp_bytes: 1024, mailbox: 16}}
    restart: {{strategy: one-for-one, intensity: 1, period_s: 2, backoff_ms: 3, backoff_max_ms: 4}}
    environment: [LOG_LEVEL, REGION]
  front: {{version: 1.2.3-rc.1, bundle: "sha256:{BUNDLE.hex()}", issuer: dev}}
  clock-work: {{version: 1.0.0, bundle: "sha256:{BUNDLE.hex()}", issuer: ops}}
links:
  - {{from: parent, to: counter, operations: [increment, value]}}
  - {{from: parent, to: clock-work, operations: [tick]}}
  - {{from: counter, to: kvp, operations: [get, set, incr]}}
  - {{from: counter, to: log, operations: [info], as: journal}}
  - {{from: front, to: counter, operations: [value], behind: [parent]}}
  - {{from: front, to: counter, operations: [increment], as: writer}}
ra:
  members:
    e1: {{pcr4: "{"01" * 48}"}}
    e2: {{pcr3: "{"02" * 48}"}}
  quorum: two-thirds
egress: [example.org, "api.example.org:443"]
"""
MANIFEST = parse_manifest(TEXT)


def refused(text: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "m.yaml")
    return caught.value


def line_of(text: str) -> int:
    return TEXT[: TEXT.index(text)].count("\n") + 1


# ---- what a good manifest says


def test_everything_written_is_there() -> None:
    assert MANIFEST.deployment == "counter-tutorial"
    assert MANIFEST.revision == 3
    assert MANIFEST.not_after == int(datetime(2027, 12, 31, tzinfo=UTC).timestamp())
    assert MANIFEST.sandbox == "prefer"
    assert MANIFEST.issuers["dev"].key == DEV.public
    assert MANIFEST.issuers_by_key()[OPS.public.key_id].actors == ("clock-work",)
    assert MANIFEST.environment["REGION"].pattern == "[a-z]{2}-[a-z]+-[0-9]"
    assert MANIFEST.environment["ZONE"].default == "a"
    assert MANIFEST.environment["LOG_LEVEL"].value == "info"
    assert MANIFEST.providers["clock"] == {"drift": 0.5, "names": ["a", {"b": None}], "on": True}
    assert MANIFEST.providers["log"] == {}
    counter = MANIFEST.actors["counter"]
    assert (counter.version, counter.bundle, counter.issuer, counter.replicas) == ("0.1.0", BUNDLE, "dev", 2)
    assert counter.limits == Limits(64, 3600, 8, 1024, 16)
    assert counter.restart == Restart("one-for-one", 1, 2, 3, 4)
    assert counter.environment == ("LOG_LEVEL", "REGION")
    assert MANIFEST.ra is not None
    assert MANIFEST.ra.members["e1"].value == b"\x01" * 48
    assert MANIFEST.ra.slots() == {"e1": {"pcr4": "01" * 48}, "e2": {"pcr3": "02" * 48}}
    assert MANIFEST.egress == ("api.example.org:443", "example.org")


def test_what_is_left_out_has_its_default() -> None:
    small = parse_manifest(SMALL)
    assert small.sandbox == "require"
    assert small.not_after is None
    assert small.ra is None
    assert (dict(small.actors), small.links, small.egress) == ({}, (), ())
    front = MANIFEST.actors["front"]
    assert (front.replicas, front.limits, front.restart, front.environment) == (1, Limits(), Restart(), ())


def test_links_are_found_by_source_in_a_fixed_order() -> None:
    assert [link.name for link in MANIFEST.links_of("front")] == ["counter", "writer"]
    assert [link.target for link in MANIFEST.links_of("counter")] == ["log", "kvp"]  # journal before kvp
    assert [link.name for link in MANIFEST.parent_links()] == ["clock_work", "counter"]
    assert MANIFEST.links_of("nobody") == ()
    assert MANIFEST.links_of("front")[0].behind == ("parent",)


def test_a_manifest_never_changes() -> None:
    with pytest.raises(TypeError):
        MANIFEST.actors["x"] = MANIFEST.actors["front"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        MANIFEST.revision = 4  # type: ignore[misc]


def test_a_manifest_is_shown_shortly() -> None:
    assert repr(MANIFEST) == f"Manifest(counter-tutorial revision 3, sha384:{MANIFEST.digest.hex()[:16]}...)"
    assert MANIFEST != 1
    assert hash(MANIFEST) == hash(parse_manifest(TEXT))


# ---- the canonical form


def test_the_digest_is_pinned() -> None:
    assert parse_manifest(SMALL).digest.hex() == (
        "77ae3597d2fe1ee4baa92f3ae60c061902cd9d6da7673163f986d6b120473fa2dabffd3bcf44beabfa1aa3afc5c52ef5"
    )
    assert MANIFEST.digest == hashlib.sha384(MANIFEST.canonical()).digest()


def test_the_canonical_form_reads_back() -> None:
    again = manifest_from_canonical(MANIFEST.canonical())
    assert again == MANIFEST
    assert again.digest == MANIFEST.digest
    assert again.actors == MANIFEST.actors
    assert again.links == MANIFEST.links
    assert manifest_from_canonical(parse_manifest(SMALL).canonical()) == parse_manifest(SMALL)


def _shuffled(value: object, rng: random.Random, path: str = "") -> object:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffled(value[key], rng, f"{path}.{key}") for key in keys}
    if isinstance(value, list):
        items = [_shuffled(item, rng, path) for item in value]
        if not path.startswith(".providers"):  # a provider's lists are its own, and their order may mean something
            rng.shuffle(items)
        return items
    return value


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_written_makes_no_difference(rng: random.Random) -> None:
    plain = _shuffled(MANIFEST.plain(), rng)
    again = parse_manifest(yaml.safe_dump(plain, sort_keys=False))
    assert again.canonical() == MANIFEST.canonical()


def change(path: str, value: object) -> bytes:
    plain = decode(MANIFEST.canonical())
    at: Value = plain
    *ways, last = path.split("/")
    for way in ways:
        at = at[int(way)] if isinstance(at, list) else at[way]  # type: ignore[index,call-overload]
    assert isinstance(at, dict)
    if value is None:
        del at[last]
    else:
        at[last] = value  # type: ignore[assignment]
    return encode(plain)


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("tea", "manifest/1", ManifestCode.NOT_CANONICAL),
        ("tea", "tea.approvers.v1", ManifestCode.NOT_CANONICAL),
        ("sandbox", None, ManifestCode.NOT_CANONICAL),
        ("actors/counter/replicas", None, ManifestCode.NOT_CANONICAL),
        ("egress", ["example.org", "api.example.org:443"], ManifestCode.NOT_CANONICAL),
        ("links/0/as", None, ManifestCode.NOT_CANONICAL),
        ("deployment", b"bytes", ManifestCode.WRONG_TYPE),
        ("revision", 0, ManifestCode.OUT_OF_RANGE),
        ("more", 1, ManifestCode.UNKNOWN_KEY),
    ],
)
def test_a_canonical_form_that_is_not_its_own_is_refused(path: str, value: object, code: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest_from_canonical(change(path, value))
    assert caught.value.code == code


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(ManifestError):
        manifest_from_canonical(data)
    with pytest.raises(ManifestError):
        manifest_from_canonical(encode({"tea": "tea.manifest.v1", "deployment": data}))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(ManifestError):
        manifest_from_canonical(MANIFEST.canonical() + b"\0")


# ---- every error names file, line, found, expected and the mend

GOOD_HEX = BUNDLE.hex()
BAD: list[tuple[str, str, str, str, str]] = [
    # (what it shows, replace this, by this, code, words of the sentence)
    ("unknown key", "revision: 3", "revision: 3\nrevison: 4", "unknown-key", "did you mean 'revision'?"),
    ("unknown key far from any", "revision: 3", "revision: 3\nxyzzy: 4", "unknown-key", "remove it"),
    ("unknown key within", "replicas: 2", "replica: 2", "unknown-key", "did you mean 'replicas'?"),
    ("missing key", "revision: 3\n", "", "missing-key", "add `revision: ...`"),
    ("missing key within", "    issuer: dev\n    replicas", "    replicas", "missing-key", "add `issuer: ...`"),
    ("another version of the schema", "manifest/1", "manifest/2", "bad-value", "write `tea: manifest/1`"),
    ("wrong type of text", "deployment: counter-tutorial", "deployment: 1", "wrong-type", "the number 1"),
    ("wrong type of number", "replicas: 2", "replicas: two", "wrong-type", "a whole number from 1 to 64"),
    ("a number in quotes", "replicas: 2", 'replicas: "2"', "wrong-type", "without quotes"),
    ("a fraction", "replicas: 2", "replicas: 2.5", "wrong-type", "the number 2.5"),
    ("true for a number", "replicas: 2", "replicas: true", "wrong-type", "found true"),
    ("false for a number", "replicas: 2", "replicas: false", "wrong-type", "found false"),
    ("nothing for a number", "replicas: 2", "replicas:", "wrong-type", "found nothing"),
    ("a list for a mapping", "kvp: {}", "kvp: [a]", "wrong-type", "found a list of 1"),
    ("text for a mapping", "counter:\n    version", "counter: x\n  front2:\n    version", "wrong-type", "a mapping"),
    ("a mapping for a list", "egress: [example.org,", "egress: {a: [example.org]}\n#", "wrong-type", "found a mapping"),
    ("a version that is a number", "version: 0.1.0", "version: 0.1", "wrong-type", "put it in quotes"),
    ("a version", "version: 0.1.0", "version: v1", "bad-value", "MAJOR.MINOR.PATCH"),
    ("a deployment", "counter-tutorial", "Counter", "bad-value", "small letters"),
    ("revision 0", "revision: 3", "revision: 0", "out-of-range", "found 0, expected 1 to"),
    ("replicas 0", "replicas: 2", "replicas: 0", "out-of-range", "1 to 64"),
    ("replicas 65", "replicas: 2", "replicas: 65", "out-of-range", "1 to 64"),
    ("memory", "memory_mib: 64", "memory_mib: 1", "out-of-range", "8 to"),
    ("a limit's name", "in_flight: 8", "inflight: 8", "unknown-key", "did you mean 'in_flight'?"),
    ("a strategy", "strategy: one-for-one", "strategy: one-for-all", "bad-value", "did you mean 'one-for-one'?"),
    ("a strategy far from any", "strategy: one-for-one", "strategy: xyz", "bad-value", "choose one of them"),
    ("back-off", "backoff_max_ms: 4", "backoff_max_ms: 2", "out-of-range", "at least backoff_ms, 3"),
    ("a sandbox", "sandbox: prefer", "sandbox: of", "bad-value", "one of prefer, require"),
    ("a sandbox as number", "sandbox: prefer", "sandbox: 1", "wrong-type", "one of prefer, require"),
    ("a time", "2027-12-31T00:00:00Z", "2027-12-31", "bad-value", "a time in UTC"),
    ("a time in a zone", "2027-12-31T00:00:00Z", "2027-12-31T00:00:00+01:00", "bad-value", "a time in UTC"),
    ("a day that is none", "2027-12-31T00:00:00Z", "2027-02-31T00:00:00Z", "bad-value", "a day that exists"),
    ("a time before time", "2027-12-31T00:00:00Z", "1969-12-31T00:00:00Z", "out-of-range", "1970 or later"),
    ("a digest", f"bundle: sha256:{GOOD_HEX}", f"bundle: sha256:{GOOD_HEX[:-1]}", "bad-value", "64 hex digits"),
    ("another digest", f"bundle: sha256:{GOOD_HEX}", f"bundle: sha384:{GOOD_HEX}", "bad-value", "sha256:"),
    ("a digest in capitals", f"bundle: sha256:{GOOD_HEX}", f"bundle: sha256:{GOOD_HEX.upper()}", "bad-value", "hex"),
    ("a key", DEV.public.text, "ed25519:AAAA", "bad-value", "no key"),
    ("a key twice", OPS.public.text, DEV.public.text, "duplicate", "the key of 'dev'"),
    ("an issuer for nobody", "actors: [clock-work]", "actors: []", "bad-value", "at least 1"),
    ("an issuer's name", "  ops:", "  Ops:", "bad-value", "rename the issuer"),
    ("an unknown issuer", "issuer: ops", "issuer: opps", "unknown-name", "did you mean 'ops'?"),
    ("an issuer for others", "issuer: ops", "issuer: dev", "unknown-name", "add clock-work to issuers.dev.actors"),
    ("a reserved name", "  front: {", "  kvp: {", "reserved-name", "rename the actor"),
    ("the parent's name", "  front: {", "  parent: {", "reserved-name", "rename the actor"),
    ("the host's name", "  front: {", "  host: {", "reserved-name", "rename the actor"),
    ("an actor's name", "  front: {", "  Front: {", "bad-value", "rename the actor"),
    ("a provider's name", "  kvp: {}", "  kvp: {}\n  Own_: {}", "bad-value", "rename the provider"),
    ("a provider called host", "  kvp: {}", "  kvp: {}\n  host: {}", "reserved-name", "take another name"),
    ("an actor as its provider", "  kvp: {}", "  kvp: {}\n  front: {}", "reserved-name", "rename the actor"),
    ("a duplicate key", "sandbox: prefer", "sandbox: prefer\nsandbox: require", "duplicate-key", "each key once"),
    ("an alias", "egress: [example.org,", "egress: [*x,", "yaml-alias", "values written out"),
    ("an anchor", "sandbox: prefer", "sandbox: &x prefer", "yaml-alias", "values written out"),
    ("a tag", "sandbox: prefer", "sandbox: !!str prefer", "yaml-tag", "plain values"),
    ("no YAML", "egress: [example.org,", "egress: [example.org]]", "syntax", "expected YAML"),
    ("a variable's name", "  ZONE:", "  zone:", "bad-value", "rename the variable"),
    ("a variable of nothing", "{value: info}", "{}", "bad-value", "neither `value` nor `from`"),
    ("a variable of both", "{value: info}", "{value: a, from: parent, pattern: a}", "bad-value", "both `value` and"),
    ("a fixed variable with a pattern", "{value: info}", "{value: a, pattern: a}", "unknown-key", "'pattern'"),
    ("a variable as a number", "{value: info}", "{value: 1}", "wrong-type", "put it in quotes"),
    ("a variable of others", "{from: parent, pattern: \"[abc]\"", "{from: moon, pattern: a", "bad-value", "parent"),
    ("a variable without pattern", ', pattern: "[abc]", default: a', "", "missing-key", "add `pattern: ...`"),
    ("a broken pattern", '"[abc]"', '"[abc"', "bad-value", "a regular expression"),
    ("an empty pattern", '"[abc]"', '""', "bad-value", "a regular expression"),
    ("a default that does not fit", "default: a", "default: ab", "bad-value", "one that it matches as a whole"),
    ("an unknown variable", "[LOG_LEVEL, REGION]", "[LOG_LEVL]", "unknown-name", "did you mean 'LOG_LEVEL'?"),
    ("a variable twice", "[LOG_LEVEL, REGION]", "[REGION, REGION]", "duplicate", "remove one of them"),
    ("a link to nowhere", "to: kvp", "to: kvpp", "unknown-name", "did you mean 'kvp'?"),
    ("a link to nowhere near", "to: kvp", "to: xyzzy", "unknown-name", "add it under `providers` or `actors`"),
    ("a link to a provider not started", "to: kvp", "to: crypto", "bad-link", "add `crypto: {}` under `providers`"),
    ("a link from nobody", "{from: counter, to: kvp", "{from: conter, to: kvp", "unknown-name", "'counter'?"),
    ("a link from the host", "{from: counter, to: kvp", "{from: host, to: kvp", "unknown-name", "under `actors`"),
    ("a link from a provider", "{from: counter, to: kvp", "{from: log, to: kvp", "unknown-name", "under `actors`"),
    ("a link to itself", "from: front, to: counter, operations: [v", "from: counter, to: counter, operations: [v",
     "bad-link", "to itself"),
    ("the parent at a provider", "{from: parent, to: counter", "{from: parent, to: kvp", "bad-link", "is untrusted"),
    ("a link beyond the issuer", "{from: counter, to: kvp", "{from: clock-work, to: kvp", "bad-link",
     "add kvp to issuers.ops.capabilities"),
    ("no operations", "[get, set, incr]", "[]", "bad-value", "at least 1"),
    ("an operation", "[get, set, incr]", "[Get]", "bad-value", "an operation:"),
    ("all operations", "[get, set, incr]", '["*"]', "bad-value", "an operation:"),
    ("an operation twice", "[get, set, incr]", "[get, get]", "duplicate", "'get' again"),
    ("a link's name taken", ", as: writer", "", "duplicate", "name one with `as`"),
    ("the parent's link twice", "to: clock-work, operations: [tick]", "to: counter, operations: [tick]", "duplicate",
     "put the operations into one link"),
    ("a keyword as name", "as: journal", "as: import", "bad-value", "a Python name"),
    ("an actor's own attribute", "as: journal", "as: caller", "bad-value", "none of an actor's own"),
    ("a name for the parent", "operations: [tick]", "operations: [tick], as: tock", "bad-link", "remove `as`"),
    ("behind nobody", "behind: [parent]", "behind: []", "bad-value", "at least 1"),
    ("behind a stranger", "behind: [parent]", "behind: [xyz]", "unknown-name", "under `actors`"),
    ("behind oneself", "behind: [parent]", "behind: [front]", "bad-link", "an end of the link"),
    ("behind the parent", "operations: [tick]", "operations: [tick], behind: [front]", "bad-link", "nobody stands"),
    ("sticky at a provider", "[get, set, incr]", "[get, set, incr], sticky: key", "bad-link", "one has no replicas"),
    ("sticky by no name", "operations: [tick]", "operations: [tick], sticky: 1st", "bad-value", "a parameter"),
    ("direct to a provider", "[get, set, incr]", "[get, set, incr], direct: true", "bad-link", "goes by the host"),
    ("direct from the parent", "[tick]", "[tick], direct: true", "bad-link", "goes by the host"),
    ("direct by a word", "behind: [parent]", "direct: 'yes'", "wrong-type", "true or false"),
    ("direct beside behind", "behind: [parent]", "behind: [parent], direct: true", "bad-link", "who stands behind"),
    ("direct beside sticky", "behind: [parent]", "sticky: key, direct: true", "bad-link", "chooses the replica"),
    ("sticky by a list", "operations: [tick]", "operations: [tick], sticky: [key]", "wrong-type", "text"),
    ("no members", "  members:\n", "  members: {}\n  other:\n", "unknown-key", "members, quorum"),
    ("two PCRs of a member", "{pcr4:", f"{{pcr3: '{'03' * 48}', pcr4:", "bad-value", "2 PCRs"),
    ("another PCR", "{pcr4:", "{pcr0:", "unknown-key", "did you mean"),
    ("a PCR", "01" * 48, "01" * 47, "bad-value", "96 hex digits"),
    ("a PCR without quotes", f'"{"01" * 48}"', "1" * 96, "out-of-range", "quote it if it is text"),
    ("one enclave in two slots", f'pcr3: "{"02" * 48}"', f'pcr4: "{"01" * 48}"', "duplicate", "its own"),
    ("a slot's name", "    e1:", "    E1:", "bad-value", "rename the slot"),
    ("a quorum", "two-thirds", "half", "bad-value", "two-thirds"),
    ("an egress host", "example.org,", "https://example.org,", "bad-value", "a host name"),
    ("an egress twice", "[example.org,", "[example.org, example.org,", "duplicate", "again"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_an_error_names_file_line_found_expected_and_mend(old: str, new: str, code: str, words: str) -> None:
    assert old in TEXT
    error = refused(TEXT.replace(old, new, 1))
    assert error.code == code, error.sentence
    where, _, what = error.sentence.partition(" ")
    file, line, end = where.split(":")
    assert (file, end) == ("m.yaml", "")
    assert int(line) >= 1
    assert "found " in what
    assert ", expected " in what
    assert words in error.sentence


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("replicas: 2", "replicas: 0", line_of("replicas: 2")),
        ("sandbox: prefer", "sandbocks: prefer", 5),
        ("as: journal", "as: import", line_of("as: journal")),
        ("default: a", "default: ab", line_of("default: a")),
        ("two-thirds", "half", line_of("two-thirds")),
    ],
)
def test_the_line_is_the_one_to_edit(old: str, new: str, line: int) -> None:
    assert refused(TEXT.replace(old, new, 1)).sentence.startswith(f"m.yaml:{line}: ")


def test_the_place_is_named() -> None:
    assert ": actors.counter.limits.memory_mib: " in refused(TEXT.replace("memory_mib: 64", "memory_mib: 0")).sentence
    assert ": links[2].to: " in refused(TEXT.replace("to: kvp", "to: xyzzy")).sentence


def test_a_link_whose_default_name_is_taken_needs_a_name() -> None:
    text = TEXT.replace("clock-work", "import").replace("[kvp, log, counter]", "[kvp, log, counter, import]")
    text = text.replace("{from: counter, to: kvp", "{from: counter, to: import")
    error = refused(text)
    assert error.code == ManifestCode.BAD_LINK
    assert "name the link with `as`" in error.sentence


def test_a_link_that_is_not_direct_is_the_same_whether_it_says_so_or_not() -> None:
    said = TEXT.replace("behind: [parent]", "behind: [parent], direct: false")
    assert parse_manifest(said) == parse_manifest(TEXT)


def test_a_direct_link_reads_back() -> None:
    manifest = parse_manifest(TEXT.replace("behind: [parent]", "direct: true"))
    assert sum(link.direct for link in manifest.links_of("front")) == 1
    assert manifest_from_canonical(manifest.canonical()) == manifest
    assert manifest != parse_manifest(TEXT.replace(", behind: [parent]", ""))


def test_a_round_without_members_is_refused() -> None:
    assert refused(SMALL + "ra: {members: {}}\n").code == ManifestCode.BAD_VALUE
    assert refused(SMALL + "ra: {members: {e1: {}}}\n").code == ManifestCode.BAD_VALUE
    assert parse_manifest(SMALL + f"ra: {{members: {{e1: {{pcr4: '{'01' * 48}'}}}}}}\n").ra is not None


def test_too_much_is_refused() -> None:
    links = "".join(f"  - {{n: {number}}}\n" for number in range(4097))
    assert refused(f"{SMALL}links:\n{links}").code == ManifestCode.TOO_LARGE
    providers = "".join(f"  p{number}: {{}}\n" for number in range(65))
    assert refused(f"{SMALL}providers:\n{providers}").code == ManifestCode.TOO_LARGE


@pytest.mark.parametrize(("callers", "callees", "found"), [(64, 1, None), (65, 1, "counter to 65"), (17, 16, "272")])
def test_direct_links_join_only_so_many_replicas(callers: int, callees: int, found: str | None) -> None:
    text = TEXT.replace("behind: [parent]", "direct: true").replace("replicas: 2", f"replicas: {callees}")
    more = "links:\n  - {from: clock-work, to: counter, operations: [value], direct: true}"
    text = text.replace("links:", more).replace("capabilities: [clock]", "capabilities: [clock, counter]")
    half = callers // 2
    for actor, count in (("front", half), ("clock-work", callers - half)):
        text = text.replace(f"  {actor}: {{version", f"  {actor}: {{replicas: {count}, version")
    if found is None:
        assert len(parse_manifest(text).links_of("clock-work")) == 1
        return
    with pytest.raises(ManifestError, match=f"join .*{found}") as refused:
        parse_manifest(text)
    assert refused.value.code is ManifestCode.TOO_LARGE


@pytest.mark.parametrize("text", ["", "a", "[]", "1", "null", "{}"])
def test_a_file_that_is_no_manifest_is_refused(text: str) -> None:
    refused(text)


# ---- what a bundle may do

CLAIMS = ClaimsInput(
    name="counter",
    version="0.1.0",
    entry="counter:Counter",
    issued_at=1,
    capabilities={"kvp": ("get", "set"), "log": ("info",)},
).claims(DEV.public, b"\0" * 32)


def claims(**change: object) -> Claims:
    changed = copy.copy(CLAIMS)
    from msgspec.structs import replace as with_

    return with_(changed, **change)


def test_a_bundle_that_the_manifest_names_and_grants_is_accepted() -> None:
    require_grants(MANIFEST, "counter", CLAIMS, BUNDLE)
    require_grants(MANIFEST, "counter", claims(capabilities={}), BUNDLE)


def test_grants_of_several_links_to_one_target_add_up() -> None:
    front = claims(name="front", version="1.2.3-rc.1", capabilities={"counter": ("increment", "value")})
    require_grants(MANIFEST, "front", front, BUNDLE)


@pytest.mark.parametrize(
    ("change", "digest", "code", "words"),
    [
        ({"name": "front"}, BUNDLE, ManifestCode.OTHER_BUNDLE, "found the name front, expected counter"),
        ({"version": "0.1.1"}, BUNDLE, ManifestCode.OTHER_BUNDLE, "found the version 0.1.1, expected 0.1.0"),
        ({"issuer": OPS.public.key_id}, BUNDLE, ManifestCode.OTHER_BUNDLE, "issuer's key id"),
        ({}, bytes(32), ManifestCode.OTHER_BUNDLE, "found the digest sha256:0000"),
        ({"capabilities": {"kvp": ("delete", "get")}}, BUNDLE, ManifestCode.NOT_GRANTED, "operations: [delete]"),
        ({"capabilities": {"counter": ("value",)}}, BUNDLE, ManifestCode.NOT_GRANTED, "found no link"),
        ({"capabilities": {"nitro": ("random",)}}, BUNDLE, ManifestCode.NOT_GRANTED, "add nitro"),
    ],
)
def test_a_bundle_that_is_another_or_asks_for_more_is_refused(
    change: dict[str, object], digest: bytes, code: str, words: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        require_grants(MANIFEST, "counter", claims(**change), digest)
    assert caught.value.code == code
    assert words in caught.value.sentence


def test_a_bundle_for_no_actor_is_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        require_grants(MANIFEST, "nobody", CLAIMS, BUNDLE)
    assert caught.value.code == ManifestCode.UNKNOWN_NAME


def test_a_link_allows_what_is_granted_and_asked_for() -> None:
    kvp, log = (Link("counter", name, ("delete", "get"), name) for name in ("kvp", "log"))
    assert effective_operations(kvp, CLAIMS) == ("get",)
    assert effective_operations(log, CLAIMS) == ()
    assert effective_operations(Link("counter", "crypto", ("sign",), "crypto"), CLAIMS) == ()
    assert effective_operations(MANIFEST.parent_links()[1], None) == ("increment", "value")


@pytest.mark.parametrize("of", [None, claims(name="front")])
def test_a_link_is_not_measured_by_anothers_claims(of: Claims | None) -> None:
    with pytest.raises(ValueError, match="its own bundle"):
        effective_operations(Link("counter", "kvp", ("get",), "kvp"), of)


# ---- rollback and expiry


def revision(number: int, of: Manifest = MANIFEST) -> Manifest:
    return replace(of, revision=number)


def test_a_first_a_higher_and_the_same_manifest_are_accepted() -> None:
    require_revision(None, MANIFEST)
    require_revision((3, MANIFEST.digest), MANIFEST)
    require_revision((3, MANIFEST.digest), revision(4))


def test_a_lower_revision_is_refused() -> None:
    with pytest.raises(ManifestError, match="found revision 2, expected 3 or higher") as caught:
        require_revision((3, MANIFEST.digest), revision(2))
    assert caught.value.code == ManifestCode.LOWER_REVISION


def test_an_equal_revision_with_another_digest_is_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        require_revision((3, MANIFEST.digest), replace(MANIFEST, sandbox="require"))
    assert caught.value.code == ManifestCode.OTHER_AT_SAME_REVISION


def test_a_manifest_ends_at_not_after() -> None:
    end = datetime(2027, 12, 31, tzinfo=UTC)
    require_not_expired(MANIFEST, end - timedelta(seconds=1))
    require_not_expired(parse_manifest(SMALL), end)
    with pytest.raises(ManifestError, match="2027-12-31T00:00:00Z") as caught:
        require_not_expired(MANIFEST, end)
    assert caught.value.code == ManifestCode.EXPIRED


def test_a_naive_time_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="aware"):
        require_not_expired(MANIFEST, datetime(2027, 1, 1))
