"""The examples in the documents run."""

from __future__ import annotations

from pathlib import Path

import pytest

from .documents import ROOT, blocks
from .walkthrough import Shell


def python_blocks(document: str) -> list[str]:
    """Those that are no file of their own: tests/docs/test_recipes.py runs the others."""
    found = blocks((ROOT / document).read_text())
    return [block.text for block in found if block.language == "python" and not block.file]


def run_pytest(folder: Path) -> None:
    ended = Shell(folder).run("pytest -q -p no:asyncio -p no:cacheprovider")
    assert ended.returncode == 0, ended.stdout


def test_the_actor_of_the_authors_page_runs_and_passes_its_test(tmp_path: Path) -> None:
    actor, _hook, test = python_blocks("docs/actors.md")
    (tmp_path / "tally.py").write_text(actor)
    (tmp_path / "test_tally.py").write_text(test)
    run_pytest(tmp_path)


def test_the_test_of_thespians_page_passes(tmp_path: Path) -> None:
    files = {block.file: block.text for block in blocks((ROOT / "docs/thespian.md").read_text())}
    (tmp_path / "greeter.py").write_text(files["greeter.py"])
    (test,) = python_blocks("docs/thespian.md")
    (tmp_path / "test_greeter.py").write_text(test)
    run_pytest(tmp_path)


def test_the_provider_of_the_contributors_page_runs_and_passes_its_test(tmp_path: Path) -> None:
    provider, test = python_blocks("CONTRIBUTING.md")[:2]
    (tmp_path / "greeting.py").write_text(provider)
    (tmp_path / "test_greeting.py").write_text(test)
    run_pytest(tmp_path)


@pytest.mark.parametrize("document", ["docs/actors.md", "CONTRIBUTING.md"])
def test_every_python_example_compiles(document: str) -> None:
    for text in python_blocks(document):
        indented = text.startswith(" ")
        compile(f"class Example:\n{text}" if indented else text, document, "exec")
