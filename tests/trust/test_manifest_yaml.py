"""YAML in: lines are kept, and everything in which two readers could differ is refused.

May not: judge manifests. Rule: YAML 1.2 section 10.2; docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.manifest_error import ManifestCode, ManifestError
from tea.trust.manifest_yaml import MAX_TEXT, Node, node_of, read_yaml


def refusal(text: str) -> tuple[str, str]:
    with pytest.raises(ManifestError) as caught:
        read_yaml(text, "m.yaml")
    return caught.value.code, caught.value.sentence


def value_of(text: str) -> object:
    root = read_yaml(f"key: {text}", "m.yaml").value
    assert isinstance(root, Mapping)
    return root["key"].value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        ("1.0e3", 1000.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("text", "text"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        # What YAML 1.1 makes something else of is text.
        ("on", "on"),
        ("No", "No"),
        ("True", "True"),
        ("1:30", "1:30"),
        ("0o17", "0o17"),
        ("017", "017"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1e5", "1e5"),
        ("2027-12-31", "2027-12-31"),
        (".inf", ".inf"),
        ("+1", "+1"),
        ("0.1.0", "0.1.0"),
    ],
)
def test_plain_values_mean_what_json_means(text: str, value: object) -> None:
    found = value_of(text)
    assert (found, type(found)) == (value, type(value))


def test_every_value_and_key_knows_its_line() -> None:
    root = read_yaml("a: 1\n# a comment\nb:\n  - x\n  - y\nc: {d: 2}\n", "m.yaml")
    assert isinstance(root.value, Mapping)
    assert root.key_lines == {"a": 1, "b": 3, "c": 6}
    items = root.value["b"].value
    assert isinstance(items, tuple)
    assert [item.line for item in items] == [4, 5]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: &x 1\nb: *x\n", ManifestCode.ALIAS, 1),
        ("a: 1\nb: *x\n", ManifestCode.ALIAS, 2),
        ("a: 1\nb: &x {}\n", ManifestCode.ALIAS, 2),
        ("a: 1\n*x : 2\n", ManifestCode.ALIAS, 2),
        ("a: 1\n<<: *x\n", ManifestCode.ALIAS, 2),
        ("a: 1\n&x b: 2\n", ManifestCode.ALIAS, 2),
        ("a: !!python/object:os.system {}\n", ManifestCode.TAG, 1),
        ("a: !!str 1\n", ManifestCode.TAG, 1),
        ("a: ! 1\n", ManifestCode.TAG, 1),
        ("!!str a: 1\n", ManifestCode.TAG, 1),
        ("%TAG ! tag:x:\n---\na: 1\n", ManifestCode.TAG, 1),
        ("a: 1\nb: 2\na: 3\n", ManifestCode.DUPLICATE_KEY, 3),
        ("a: {b: 1, b: 2}\n", ManifestCode.DUPLICATE_KEY, 1),
        ('a: 1\n"a": 2\n', ManifestCode.DUPLICATE_KEY, 2),
        ("a: 1\n---\nb: 2\n", ManifestCode.SYNTAX, 2),
        ("a: [1\nb: 2\n", ManifestCode.SYNTAX, 2),
        ("a: 1\n  b: 2\n", ManifestCode.SYNTAX, 2),
        ("a: 1\n\tb: 2\n", ManifestCode.SYNTAX, 2),
        ('a: "\\ud800"\n', ManifestCode.SYNTAX, 1),
        ("? [a]\n: 1\n", ManifestCode.WRONG_TYPE, 1),
        ("a: 1\n? {b: 1}\n: 1\n", ManifestCode.WRONG_TYPE, 2),
        ("a: 99999999999999999999\n", ManifestCode.OUT_OF_RANGE, 1),
        ("a: 9223372036854775808\n", ManifestCode.OUT_OF_RANGE, 1),
        ("a: " + "9" * 5000 + "\n", ManifestCode.OUT_OF_RANGE, 1),
        ("a: 1.0e999\n", ManifestCode.OUT_OF_RANGE, 1),
        ("a: " + "[" * 20 + "]" * 20 + "\n", ManifestCode.TOO_LARGE, 1),
        ("", ManifestCode.SYNTAX, 1),
        ("# nothing\n", ManifestCode.SYNTAX, 2),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_its_line(text: str, code: str, line: int) -> None:
    found, sentence = refusal(text)
    assert found == code
    assert sentence.startswith(f"m.yaml:{line}: found ")
    assert ", expected " in sentence


def test_forbidden_characters_are_refused() -> None:
    assert refusal("a: \0")[0] == ManifestCode.SYNTAX
    assert refusal('a: "\\UFFFFFFFF"')[0] == ManifestCode.SYNTAX
    assert refusal('a: "\\U00110000"')[0] == ManifestCode.SYNTAX


def test_a_file_of_over_1_mib_is_refused() -> None:
    assert refusal("a" * (MAX_TEXT + 1))[0] == ManifestCode.TOO_LARGE


@given(st.text(alphabet=st.sampled_from("ab:{}[],&*!|>-?#'\"\\\n\t %~19.e"), max_size=60) | st.text(max_size=40))
def test_any_text_gives_a_tree_or_a_refusal(text: str) -> None:
    try:
        assert isinstance(read_yaml(text, "m.yaml"), Node)
    except ManifestError:
        pass


def test_decoded_cbor_gives_the_same_tree_without_lines() -> None:
    root = node_of({"a": [1, "x", None, True, 1.5], "b": {}})
    assert isinstance(root.value, Mapping)
    assert root.line == 0
    items = root.value["a"].value
    assert isinstance(items, tuple)
    assert [item.value for item in items] == [1, "x", None, True, 1.5]


@pytest.mark.parametrize("value", [b"x", {"a": b"x"}, {1: "x"}, [{b"k": 1}]])
def test_decoded_cbor_with_what_yaml_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ManifestError) as caught:
        node_of(value)
    assert caught.value.code == ManifestCode.WRONG_TYPE
