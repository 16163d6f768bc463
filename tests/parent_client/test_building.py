"""Building: the same bytes each time, nothing from outside of the folder, bundle.yaml refused with its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.parent_client import building
from tea.parent_client.building import build, bundles_by_digest, find_bundles, read_source, source_files
from tea.parent_client.refusal import Refusal
from tea.trust.archive import read_archive
from tea.trust.bundle import BundleError, Issuer, inspect_bundle, verify_bundle
from tea.trust.errors import TrustError
from tea.trust.keys import PrivateKey
from tea.trust.manifest_error import ManifestError

KEY = PrivateKey.generate()
DESCRIPTION = """tea: bundle/1
name: counter
version: 0.1.0
entry: counter:Counter
capabilities:
  kvp: [incr, get]
"""
Write = Callable[..., Path]


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes an actor's folder; the path of its bundle.yaml."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)

    def write(description: str = DESCRIPTION, folder: str = "counter", **files: str) -> Path:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        (home / "counter.py").write_text("class Counter: ...\n")
        for name, text in files.items():
            path = home / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (home / "bundle.yaml").write_text(description)
        return home / "bundle.yaml"

    return write


def names(path: Path) -> list[str]:
    issuers = {KEY.public.key_id: Issuer(KEY.public, ("counter",), ("kvp",))}
    return sorted(read_archive(verify_bundle(path.read_bytes(), issuers, now=None, sdk_version="0.1.0").archive))


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(actor: Write, tmp_path: Path) -> None:
    description = actor(more_dot_py="x = 1\n")
    one = build(description, KEY, tmp_path / "one")
    again = build(description, KEY, tmp_path / "two")
    assert one.digest == again.digest
    copy = actor(folder="copy", more_dot_py="x = 1\n")
    for path in (*copy.parent.iterdir(), *description.parent.iterdir()):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert build(copy, KEY, tmp_path / "three").digest == build(description, KEY, tmp_path / "one").digest
    assert one.path == tmp_path / "one/counter-0.1.0.tea"
    assert one.size == one.path.stat().st_size


def test_the_issuing_time_is_the_newest_files_or_that_of_the_variable(
    actor: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = actor()
    for path in description.parent.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    os.utime(description, (1_600_000_007, 1_600_000_007))
    assert inspect_bundle(build(description, KEY, tmp_path).path.read_bytes()).claims.issued_at == 1_600_000_007
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    assert inspect_bundle(build(description, KEY, tmp_path).path.read_bytes()).claims.issued_at == 1_500_000_000


@pytest.mark.parametrize("value", ["yesterday", "²", "-1", "1.5", "9" * 16])
def test_a_source_date_epoch_that_is_no_time_is_refused(
    actor: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(Refusal, match="expected whole seconds since 1970"):
        build(actor(), KEY, tmp_path)


def test_tests_and_hidden_files_stay_out(actor: Write, tmp_path: Path) -> None:
    description = actor(
        test_counter_dot_py="",
        counter_test_dot_py="",
        conftest_dot_py="",
        tests__help_dot_py="",
        pycache_dot_py="",
        part__piece_dot_py="",
        part__test_piece_dot_py="",
        _dot_hidden_dot_py="",
    )
    (description.parent / "__pycache__").mkdir()
    (description.parent / "__pycache__/counter.py").touch()
    (description.parent / "notes.txt").touch()
    assert names(build(description, KEY, tmp_path).path) == ["counter.py", "part/piece.py", "pycache.py"]


def test_include_chooses_the_files(actor: Write, tmp_path: Path) -> None:
    description = actor(
        DESCRIPTION + "include: ['*.py', 'data/*.json']\n", data__table_dot_json="{}", part__x_dot_py=""
    )
    assert names(build(description, KEY, tmp_path).path) == ["counter.py", "data/table.json"]
    actor(DESCRIPTION + "include: ['nothing/*.py']\n")
    with pytest.raises(Refusal, match=r"found no file that matches nothing/\*\.py, expected at least one"):
        build(description, KEY, tmp_path)


@pytest.mark.parametrize("pattern", ["../*.py", "/etc/*", "a/../../x", "", ".", "a\\0b"])
def test_a_pattern_that_leads_out_of_the_folder_is_refused_with_its_line(actor: Write, pattern: str) -> None:
    with pytest.raises(ManifestError, match=r"bundle.yaml:\d+: include\[0\]: found .*, expected a pattern"):
        read_source(actor(DESCRIPTION + f'include: ["{pattern}"]\n'))


def test_a_pattern_that_is_none_is_refused(actor: Write) -> None:
    description = actor(DESCRIPTION + "include: ['a/**b/c']\n")
    with pytest.raises(Refusal, match="under `include` is none"):
        source_files(description.parent, read_source(description))


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(actor: Write, tmp_path: Path) -> None:
    description = actor(inner_dot_py="x = 1\n")
    (description.parent / "alias.py").symlink_to("inner.py")
    assert "alias.py" in names(build(description, KEY, tmp_path).path)
    (tmp_path / "secret.py").write_text("KEY = 1\n")
    (description.parent / "outside.py").symlink_to("../secret.py")
    with pytest.raises(Refusal, match=r"is a link to .*secret.py, expected a file below"):
        build(description, KEY, tmp_path)
    (description.parent / "outside.py").unlink()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.py").touch()
    (description.parent / "linked").symlink_to("../more")
    (description.parent / "bundle.yaml").write_text(DESCRIPTION + "include: ['linked/*.py']\n")
    with pytest.raises(Refusal, match="is a link to"):
        build(description, KEY, tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("bundle/1", "bundle/2"), r":1: tea: found the text 'bundle/2', expected bundle/1"),
        (("version: 0.1.0", "version: 1"), r":3: version: found the number 1, expected text"),
        (("version: 0.1.0", "version: 2024-99-99"), r":3: version: found .* expected MAJOR.MINOR.PATCH"),
        (("name: counter", "nam: counter"), r":2: found the key 'nam', expected one of .*did you mean 'name'\?"),
        (("name: counter\n", ""), "found no key 'name'"),
        (("name: counter", "name: ../x"), r":2: name: found the text '../x'"),
        (("entry: counter:Counter", "entry: counter"), r":4: entry: found the text 'counter', expected module:Class"),
        (("[incr, get]", "[]"), "capabilities.kvp: found an empty list"),
        (("[incr, get]", "[incr, incr]"), "found 'incr' again"),
        (("[incr, get]", "get"), "expected a list"),
        (("[incr, get]", "[Get]"), "expected an operation"),
        (("capabilities:", "sdk: latest\ncapabilities:"), r":5: sdk: found the text 'latest', expected comparators"),
        (("name: counter", "name: counter\nname: again"), "found the key 'name' again"),
        (("name: counter", "name: &a counter"), "found an anchor"),
        (("name: counter", "name: !!python/object:os.system x"), "found a tag"),
    ],
)
def test_a_bundle_yaml_that_is_wrong_is_refused_with_place_and_mend(
    actor: Write, change: tuple[str, str], why: str
) -> None:
    assert change[0] in DESCRIPTION
    with pytest.raises(ManifestError, match=why):
        read_source(actor(DESCRIPTION.replace(*change)))


@pytest.mark.parametrize("content", [b"", b"\xff", b"- a", b"just text", b"a: [", b"\x00", b"[" * 5000, b"x: '\\ud800"])
def test_bytes_that_are_no_bundle_yaml_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.yaml"
    path.write_bytes(content)
    with pytest.raises((Refusal, ManifestError)):
        read_source(path)


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (DESCRIPTION + text).encode("utf-8", "replace"))
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_bundle_yaml_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.yaml"
    path.write_bytes(content)
    try:
        read_source(path)
    except (Refusal, TrustError):
        pass


def test_what_the_verifier_would_refuse_is_not_built_and_the_file_is_named(actor: Write, tmp_path: Path) -> None:
    for text, why in [
        (DESCRIPTION.replace("counter:Counter", "other:Counter"), "which is not in the archive"),
        (DESCRIPTION.replace("name: counter", "name: parent"), "not free for actors"),
        (DESCRIPTION, "would hide the module 'hmac'"),
    ]:
        description = actor(text, **({"hmac_dot_py": ""} if "hmac" in why else {}))
        with pytest.raises(BundleError, match=why) as refused:
            build(description, KEY, tmp_path / "out")
        assert str(description) in refused.value.sentence
    assert not (tmp_path / "out").exists()


def test_bundles_are_found_by_what_they_say_and_by_what_they_are(actor: Write, tmp_path: Path) -> None:
    one = build(actor(), KEY, tmp_path / "out")
    other = build(actor(DESCRIPTION.replace("0.1.0", "0.2.0")), KEY, tmp_path / "out")
    found = find_bundles(tmp_path / "out")
    assert {name: path for name, (path, _) in found.items()} == {
        ("counter", "0.1.0"): one.path,
        ("counter", "0.2.0"): other.path,
    }
    assert bundles_by_digest(tmp_path / "out") == {one.digest: one.path, other.digest: other.path}
    assert find_bundles(tmp_path / "nowhere") == {}


def test_a_file_that_is_no_bundle_is_named_and_two_of_one_name_are_refused(actor: Write, tmp_path: Path) -> None:
    one = build(actor(), KEY, tmp_path / "out")
    (tmp_path / "out/copy.tea").write_bytes(one.path.read_bytes())
    assert len(find_bundles(tmp_path / "out")) == 1
    (tmp_path / "out/copy.tea").write_bytes(
        build(actor(), PrivateKey.generate(), tmp_path / "theirs").path.read_bytes()
    )
    with pytest.raises(Refusal, match=r"copy.tea and .*counter-0.1.0.tea are .*both counter 0.1.0|both counter 0.1.0"):
        find_bundles(tmp_path / "out")
    (tmp_path / "out/copy.tea").write_bytes(b"garbage")
    with pytest.raises(Refusal, match=r"copy.tea: this is no bundle.*build it again, or remove it"):
        find_bundles(tmp_path / "out")


def test_a_file_too_large_for_a_bundle_is_not_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(building, "MAX_BUNDLE", 10)
    (tmp_path / "x.tea").write_bytes(bytes(11))
    with pytest.raises(Refusal, match="more than 10 bytes: it is no bundle"):
        building.read_bundle_file(tmp_path / "x.tea")


WASM = "tea: bundle/1\nname: counter\nversion: 0.1.0\nkind: wasm\nentry: guest.wasm\n"
INTERFACE = '{"tea": "interface/1", "operations": [{"name": "value", "result": "int"}]}'


def test_a_wasm_bundle_takes_its_module_and_its_interface_in(actor: Write, tmp_path: Path) -> None:
    built = build(actor(WASM, guest_dot_wasm="module", guest_dot_json=INTERFACE), KEY, tmp_path / "out")
    assert built.source.kind == "wasm"
    assert names(built.path) == ["guest.json", "guest.wasm"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "found no file"),
        ({"guest_dot_wasm": "module"}, "found no guest.json"),
        ({"guest_dot_json": INTERFACE}, "found no guest.wasm"),
        ({"guest_dot_wasm": "module", "guest_dot_json": "{}"}, "the interface is not understood"),
    ],
)
def test_a_wasm_bundle_without_one_of_them_is_not_built(
    actor: Write, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    with pytest.raises(Refusal, match=why):
        build(actor(WASM, **files), KEY, tmp_path / "out")


@pytest.mark.parametrize("line", ["kind: native", "kind: python\nentry: guest.wasm", "kind: wasm\nentry: a:B"])
def test_kind_and_entry_belong_together(actor: Write, line: str) -> None:
    text = WASM.replace("kind: wasm\nentry: guest.wasm", line if "entry" in line else f"{line}\nentry: guest.wasm")
    with pytest.raises(ManifestError, match=r"bundle\.yaml"):
        read_source(actor(text))
