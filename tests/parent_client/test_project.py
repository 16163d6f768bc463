"""`teactl actor new`: the project that it makes works as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.building import build
from tea.parent_client.pinning import pin
from tea.parent_client.project import new_project
from tea.parent_client.refusal import Refusal
from tea.trust.bundle import inspect_bundle
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest, require_grants


@pytest.mark.parametrize("name", ["tally", "price-feed-2"])
def test_its_tests_pass_and_it_is_linted(tmp_path: Path, name: str) -> None:
    made = new_project(name, tmp_path / name)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "."],
        cwd=made.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
    ruff = Path(sys.executable).parent / "ruff"
    linted = subprocess.run(
        [ruff, "check", "--isolated", "--line-length", "120", "."], cwd=made.folder, capture_output=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_its_bundle_and_manifest_fit_each_other(tmp_path: Path) -> None:
    made = new_project("price-feed", tmp_path / "price-feed")
    key = PrivateKey.generate()
    built = build(made.folder / "bundle.yaml", key, tmp_path / "bundles")
    text = pin((made.folder / "manifest.yaml").read_text(), "m", issuer=key.public, bundles=tmp_path / "bundles")
    manifest = parse_manifest(text)
    claims = inspect_bundle(built.path.read_bytes()).claims
    require_grants(manifest, "price-feed", claims, built.digest)
    assert claims.entry == "price_feed:PriceFeed"


@pytest.mark.parametrize(
    "name", ["", "Tally", "a--b", "-a", "kvp", "parent", "json", "hmac", "msgspec", "class", "actor", "tea", "../x"]
)
def test_a_name_that_no_actor_may_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="choose another"):
        new_project(name, tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Refusal, match="not empty"):
        new_project("tally", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_says_what_it_made_and_what_comes_next(teactl: Any) -> None:
    ran = teactl("actor", "new", "tally", "--json")
    assert ran.status == 0
    assert json.loads(ran.out)["files"][0] == "tally/tally.py"
    assert "not empty" in teactl("actor", "new", "tally").err
    assert "teactl dev other" in teactl("actor", "new", "tally", "--dir", "other").out
