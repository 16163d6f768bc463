"""An actor's source imports the sdk, msgspec and the standard library: what any third party's may."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml

ACTORS = Path(__file__).resolve().parents[2] / "actors"
FOLDERS = sorted(path.parent for path in ACTORS.glob("*/bundle.yaml") if "kind: wasm" not in path.read_text())
LIBRARIES = {"msgspec"}


def imported(source: str, name: str = "<source>") -> set[str]:
    """Every module that a source file imports; relative ones with their dots, names of `tea` in full."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"tea.{alias.name}" for alias in node.names} if module == "tea" else {module}
    return found


def allowed(module: str, own: set[str], *, test: bool) -> bool:
    """Whether an actor (or its test) may import a module; `own` are the folder's top-level modules."""
    top = module.partition(".")[0]
    if module.startswith(".") or top in own:
        return True
    if test and (top == "pytest" or module.startswith("tea.sdk.testing")):
        return True
    if top == "tea":
        return module == "tea.sdk" or (module.startswith("tea.sdk.") and not module.startswith("tea.sdk.testing"))
    return top in sys.stdlib_module_names or top in LIBRARIES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_actor_imports_the_sdk_and_nothing_else_of_ours(folder: Path) -> None:
    own = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    for path in sorted(folder.rglob("*.py")):
        test = path.name.startswith("test_") or path.name == "conftest.py"
        wrong = {module for module in imported(path.read_text(), str(path)) if not allowed(module, own, test=test)}
        assert not wrong, f"{path.relative_to(ACTORS)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    ("source", "good"),
    [
        ("import json, msgspec\nfrom tea.sdk import Actor", True),
        ("from tea import sdk", True),
        ("from .mine import x\nimport mine.deeper", True),
        ("from tea import trust", False),
        ("import tea", False),
        ("from tea.providers.kvp import Kvp", False),
        ("from tea.sdkx import y", False),
        ("def f():\n    import cryptography", False),
        ("from thespian.actors import Actor", False),
        ("from tea.sdk.testing import run_actor", False),
        ("import pytest", False),
    ],
)
def test_the_check_can_fail(source: str, good: bool) -> None:
    assert all(allowed(module, {"mine"}, test=False) for module in imported(source)) is good


def test_every_folder_of_actors_is_a_bundles_source() -> None:
    folders = {path.name for path in ACTORS.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert {"counter", "notary", "selftest", "ra"} <= folders
    assert {path.parent.name for path in ACTORS.glob("*/bundle.yaml")} == folders


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_bundles_description_is_whole(folder: Path) -> None:
    described = yaml.safe_load((folder / "bundle.yaml").read_text())
    assert described["tea"] == "bundle/1"
    assert described["name"] == folder.name
    module, _, cls = described["entry"].partition(":")
    tree = ast.parse((folder / f"{module}.py").read_text())
    assert cls in {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
