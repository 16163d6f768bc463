"""The tables in the documents are what the code says, and the commands that they name exist."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from tea.protocol.channels import Channel
from tea.protocol.errors import Code
from tea.protocol.frame import Kind
from tea.runtime.phases import Phase

from .documents import ROOT, committed

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_generated_table_is_up_to_date(generate: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path, _text in generate.outdated()]
    assert not stale, f"{', '.join(stale)}: run `.venv/bin/python docs/generate.py`"


def test_a_table_that_is_out_of_date_is_seen(generate: ModuleType) -> None:
    text = "<!-- generated: phases -->\n\n| phase |\n\n<!-- end -->\n"
    assert generate.generated(text) != text
    assert generate.generated(generate.generated(text)) == generate.generated(text)


def test_an_unknown_table_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(KeyError):
        generate.generated("<!-- generated: no such -->\n\n<!-- end -->\n")


def test_every_table_is_shown_somewhere(generate: ModuleType) -> None:
    shown = {
        name for file in generate.FILES for name in re.findall(r"<!-- generated: (.+?) -->", (ROOT / file).read_text())
    }
    assert shown == set(generate.SECTIONS)


def test_every_provider_of_the_design_is_there_and_says_what_is_left_for_later(generate: ModuleType) -> None:
    assert set(generate.LATER) == set(generate.ORDER) <= set(generate.providers())


def test_every_operation_of_a_provider_is_described(generate: ModuleType) -> None:
    for name, cls in generate.providers().items():
        for operation in cls.operations().values():
            assert operation.description.doc, f"{name}.{operation.name} has no docstring"


def test_the_wire_is_described_in_full() -> None:
    for word in (*(kind.name for kind in Kind), *(code.name for code in Code), *(channel.name for channel in Channel)):
        assert f"`{word}`" in ARCHITECTURE
    for phase in Phase:
        assert f"| `{phase.value}` |" in ARCHITECTURE


def test_every_command_of_teactl_is_in_the_documents(generate: ModuleType) -> None:
    for name in generate.commands():
        assert f"`teactl {name}" in ARCHITECTURE


def test_every_command_that_the_documents_name_exists(generate: ModuleType) -> None:
    known = {tuple(name.split()) for name in generate.commands()}
    groups = {words[:length] for words in known for length in range(1, len(words))}
    for path in committed("*.md"):
        for line in path.read_text().splitlines():
            for named in re.findall(r"(?:`|^\$ )teactl ([a-z]+(?:[ -][a-z]+)*)", line):
                words = tuple(named.split())
                length = 1
                while words[:length] in groups and length < len(words):
                    length += 1
                found = words[:length] in known | groups
                assert found, f"{path.relative_to(ROOT)}: teactl {' '.join(words[:length])}"
