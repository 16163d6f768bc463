"""docs/teactl.md is true: its examples, run one after the other, print what it says and end as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .documents import ROOT, blocks
from .walkthrough import Shell, matches, steps

TEXT = (ROOT / "docs" / "teactl.md").read_text()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.run("teactl sim down")


@pytest.mark.timeout(300)
def test_every_example_gives_what_it_prints(shell: Shell) -> None:
    for block in blocks(TEXT):
        if block.file:
            path = shell.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "console":
            for step in steps(block.text):
                ended = shell.run(step.command)
                assert matches(step.expected, ended.stdout), (
                    f"$ {step.command}\n--- docs/teactl.md says\n{step.expected}\n--- it prints\n{ended.stdout}"
                )
                refused = step.expected.startswith("teactl: ")
                assert ended.returncode == (1 if refused else 0), f"$ {step.command}: status {ended.returncode}"


def test_every_command_of_the_main_path_has_its_section() -> None:
    for name in (
        "key",
        "bundle",
        "actor",
        "dev",
        "manifest",
        "sim",
        "push",
        "takeover",
        "tenancy, ticket and backup",
        "network",
        "call",
        "status",
        "logs",
        "attest",
        "ra",
        "demo",
    ):
        assert f"\n## {name}\n" in TEXT
