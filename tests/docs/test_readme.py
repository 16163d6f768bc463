"""The README is true: its tutorial, followed word for word, prints what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .documents import ROOT
from .walkthrough import Shell, follow, matches, steps

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "counter-tutorial"
    folder.mkdir()
    shell = Shell(folder)
    try:
        yield shell
    finally:
        shell.run("teactl sim down")


@pytest.mark.timeout(300)
def test_the_tutorial_gives_what_it_prints(shell: Shell) -> None:
    tutorial = README.partition("\n## Tutorial\n")[2].partition("\n## ")[0]
    assert follow(shell, tutorial) >= 20


def test_every_target_that_the_documents_name_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        named = set(
            re.findall(
                r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*$", (ROOT / name).read_text(), re.M))
            )
        )
        assert named <= targets, f"{name} names {sorted(named - targets)}"


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"<!-- (?:demo|tests|todo)\b.*-->", README)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a ... c", "a b c\n", True),
        ("a ... c", "a b\nc\n", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("", "\n", True),
        ("", "b\n", False),
        ("a", "a\nb\n", False),
        ("1.5", "1x5\n", False),
    ],
)
def test_an_ellipsis_stands_for_anything_and_nothing_else_does(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_a_command_may_go_on_over_lines() -> None:
    console = "$ one \\\n>   two\nout\n$ cat > f <<'EOF'\n$ not a command\nEOF\n$ three\n"
    found = [(step.command, step.expected) for step in steps(console)]
    assert found == [("one \\\n  two", "out"), ("cat > f <<'EOF'\n$ not a command\nEOF", ""), ("three", "")]
