"""Links in the documents resolve, and the sections that modules name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .documents import ROOT, anchors, committed, prose

DOCUMENTS = committed("*.md")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_RULE = re.compile(
    r"\b(docs/architecture|docs/actors|CONTRIBUTING|README|SECURITY)\.md,\s+((?:(?:,|and)?\s*\"[^\"]+\")+)"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{target}: there is no {name}"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{target}: no such heading"


def test_every_section_that_a_module_names_is_there() -> None:
    missing = []
    for path in committed("*.py"):
        if "tests" in path.parts and path.parent.name == "docs":
            continue
        for document, sections in _RULE.findall(re.sub(r"\n *#? *", " ", path.read_text())):
            # An actor's folder is what a third party's would be: its README is its own.
            here = (
                path.parent / f"{document}.md"
                if document == "README" and path.parent.parent == ROOT / "actors"
                else None
            )
            found = ROOT / f"{document}.md" if here is None or f'"{sections}' in _TUTORIAL else here
            headings = re.findall(r"^#+ +(.+?) *$", prose(found.read_text()), re.MULTILINE)
            for section in re.findall(r'"([^"]+)"', sections):
                if not any(heading.startswith(section) for heading in headings):
                    missing.append(f"{path.relative_to(ROOT)}: {document}.md has no section {section!r}")
    assert not missing, "\n".join(missing)


_TUTORIAL = ('""Write an actor"', '""Test it"')


def test_every_decision_has_its_number_and_its_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert decisions
    for number, path in enumerate(decisions, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        for part in ("## Context", "## Decision", "## What follows"):
            assert part in text, f"{path.name} has no {part!r}"


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
