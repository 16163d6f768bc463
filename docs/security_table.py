"""The table of docs/security.md: every way of being wrong that `tea.trust` refuses, its code, and a test of it.

May not: invent a test: it reads codes off the closed enums and tests off the test files. Run it to write the table into
the page; tests/docs/test_security.py fails when a code has no test, or the page is not this.
Rule: CONTRIBUTING.md, "Documents".
"""

# ruff: noqa: T201 (it is run by hand)
from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- codes: written by docs/security_table.py -->", "<!-- codes end -->"
FAMILIES = ("trust", "enclave_image")
"""Folders whose closed enums named `...Code` are families of refusals."""


@dataclass(frozen=True)
class Code:
    """One code of a family."""

    module: str
    family: str
    member: str
    word: str
    meaning: str


@dataclass
class _Scope:
    """A module-level definition of a test file: which codes and which other definitions it mentions."""

    codes: set[tuple[str, str]] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def codes() -> list[Code]:
    """Every code, in the order of the files."""
    found: list[Code] = []
    for folder in FAMILIES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name.endswith("Code"):
                    found += _members(path.relative_to(ROOT).as_posix(), node)
    return found


def _members(module: str, node: ast.ClassDef) -> Iterator[Code]:
    for at, one in enumerate(node.body):
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and isinstance(one.value, ast.Constant):
            after = node.body[at + 1] if at + 1 < len(node.body) else None
            meaning = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                meaning = " ".join(str(after.value.value).split())
            yield Code(module, node.name, one.targets[0].id, str(one.value.value), meaning)


def tests() -> dict[tuple[str, str], list[str]]:
    """(family, member) to the tests that mention it, those that do so themselves before those that do by a helper."""
    words = {(code.family, code.word): code.member for code in codes()}
    families = {code.family for code in codes()}
    direct: dict[tuple[str, str], list[str]] = {}
    indirect: dict[tuple[str, str], list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.parent.name == "docs":
            continue  # tests of this table
        text = path.read_text()
        about = {family for family in families if family in text or family.removesuffix("Code") + "Error" in text}
        if not about:
            continue
        tree = ast.parse(text)
        aliases = _aliases(tree, families)
        scopes = {name: _read(node, aliases) for name, node in _definitions(tree)}
        for name, scope in scopes.items():
            if not name.startswith("test_") or "every_code" in name:  # that one only counts
                continue
            where = f"{path.relative_to(ROOT).as_posix()}::{name}"
            for key in _mentioned(scope, about, words):
                direct.setdefault(key, []).append(where)
            for other in _reached(name, scopes) - {name}:
                for key in _mentioned(scopes[other], about, words):
                    indirect.setdefault(key, []).append(where)
    return {key: [*direct.get(key, []), *indirect.get(key, [])] for key in direct.keys() | indirect.keys()}


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, node


def _aliases(tree: ast.Module, families: set[str]) -> dict[str, str]:
    """What a test file calls the families: by their names, and by `C = AttestationCode` and `import ... as`."""
    found = {family: family for family in families}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found |= {one.asname: one.name for one in node.names if one.asname and one.name in families}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in families:
            found |= {one.id: node.value.id for one in node.targets if isinstance(one, ast.Name)}
    return found


def _read(node: ast.AST, aliases: dict[str, str]) -> _Scope:
    scope = _Scope()
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in aliases:
            scope.codes.add((aliases[one.value.id], one.attr))
        elif isinstance(one, ast.Name):
            scope.names.add(one.id)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            scope.words.add(one.value)
    return scope


def _mentioned(scope: _Scope, about: set[str], words: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    named = {(family, words[family, word]) for family in about for word in scope.words if (family, word) in words}
    return scope.codes | named


def _reached(name: str, scopes: dict[str, _Scope]) -> set[str]:
    seen, queue = {name}, [name]
    while queue:
        for other in scopes[queue.pop()].names & scopes.keys() - seen:
            seen.add(other)
            queue.append(other)
    return seen


def table() -> str:
    """The table in Markdown, one section a family."""
    known, lines = tests(), [BEGIN, ""]
    family = ""
    for code in codes():
        if code.family != family:
            family = code.family
            lines += ["", f"### {family} ({code.module})", "", "| code | what is wrong | test |", "| --- | --- | --- |"]
        found = known.get((code.family, code.member), [])
        where = f"`{_nearest(code, found)}`" if found else "**none**"
        meaning = (code.meaning or code.word.replace("-", " ") + ".").replace("|", "\\|")
        lines.append(f"| `{code.word}` | {meaning} | {where} |")
    return "\n".join([*lines, "", END])


def _nearest(code: Code, found: list[str]) -> str:
    """The test in the file that mirrors the code's module, where there is one; else the first."""
    stem = Path(code.module).stem.removesuffix("_codes").removesuffix("_error")
    return next((one for one in found if Path(one.partition("::")[0]).stem == f"test_{stem}"), found[0])


def untested() -> list[str]:
    """Codes without a test."""
    known = tests()
    return [f"{code.family}.{code.member}" for code in codes() if not known.get((code.family, code.member))]


def page(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


def main() -> int:
    """Write the page; 1 when a code has no test."""
    PAGE.write_text(page(PAGE.read_text()))
    for name in (missing := untested()):
        print(f"{name} has no test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
