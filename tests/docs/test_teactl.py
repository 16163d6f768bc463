"""docs/teactl.md is true: its examples, run one after the other, print what it says and end as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .documents import ROOT
from .walkthrough import Shell, follow

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
    assert follow(shell, TEXT) > 0


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
