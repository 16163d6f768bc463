"""The house is as the documents say: floors, their four places, imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .documents import FLOORS, ROOT, committed

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def links() -> set[str]:
    return {path.name for path in (ROOT / "src" / "tea").iterdir() if path.is_symlink()}


def layers() -> set[str]:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["type"] == "layers")
    return {name.strip() for layer in floors["layers"] for name in layer.split("|")}


def test_a_floor_is_in_all_of_its_places() -> None:
    table = re.findall(r"^\| [1-6] \| `(\w+)/` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    places = {
        "src/tea": links(),
        "coverage": set(PYPROJECT["tool"]["coverage"]["run"]["source"]),
        "import-linter": layers(),
        "docs/architecture.md": set(table),
    }
    pyright = PYPROJECT["tool"].get("pyright")
    if pyright is not None:
        places["pyright"] = {Path(name).name for name in pyright["include"]} - {"tea"}
    for place, floors in places.items():
        assert floors == set(FLOORS), place


def test_every_link_of_a_floor_is_relative_and_leads_to_its_folder() -> None:
    for name in links():
        link = ROOT / "src" / "tea" / name
        assert link.readlink() == Path("..", "..", name)
        assert (link / "__init__.py").is_file()


def test_a_provider_is_a_folder_an_entry_point_and_independent() -> None:
    folders = {path.parent.name for path in (ROOT / "providers").glob("*/__init__.py")}
    points = PYPROJECT["project"]["entry-points"]["tea.providers"]
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    apart = next(contract for contract in contracts if contract["type"] == "independence")
    assert folders == set(points) == {name.rpartition(".")[2] for name in apart["modules"]}


def imports(path: Path) -> Iterator[str]:
    """The absolute imports of a file, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_no_floor_is_imported_by_its_folders_name() -> None:
    for path in committed("*.py"):
        found = [name for name in imports(path) if name.partition(".")[0] in FLOORS]
        assert not found, f"{path.relative_to(ROOT)}: import tea.{found[0]}, not {found[0]}"


def test_imports_inside_a_floor_are_relative() -> None:
    for floor in FLOORS:
        for path in committed(f"{floor}/*.py"):
            if path.is_relative_to(ROOT / "protocol" / "transport"):
                continue  # a room of its own: it has the sockets that the rest of its floor may not have
            own = [name for name in imports(path) if name == f"tea.{floor}" or name.startswith(f"tea.{floor}.")]
            assert not own, f"{path.relative_to(ROOT)}: {own[0]} is on its own floor: import it relatively"


def test_a_module_opens_with_what_it_is_for_may_not_do_and_where_its_rule_is() -> None:
    for floor in FLOORS:
        for path in committed(f"{floor}/*.py"):
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "May not:" in doc and re.search(r"\bRules?:", doc), (
                f"{path.relative_to(ROOT)}: see CONTRIBUTING.md#house-habits"
            )
