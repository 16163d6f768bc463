"""`teactl sim`: a network lives on after the command, and ends by another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tea.simulator.processes import record

TEACTL = [sys.executable, "-P", "-m", "tea.parent_client.cli"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for network in tmp_path.glob(".tea/sim/*"):
        teactl(tmp_path, "sim", "down", "--name", network.name)


def teactl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEA_HOME": str(folder / ".tea")}
    return subprocess.run(
        [*TEACTL, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def answer(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_network_goes_up_is_seen_and_goes_down(home: Path) -> None:
    up = answer(teactl(home, "sim", "up", "--enclaves", "2", "--json"))
    assert [one["name"] for one in up["enclaves"]] == ["e1", "e2"]
    assert Path(up["policy"]).read_text().startswith("tea: policy/1")
    seen = answer(teactl(home, "sim", "status", "--json"))
    assert [one["running"] for one in seen["networks"]["default"]] == [True] * 4
    again = answer(teactl(home, "sim", "up", "--json"), status=1)
    assert "runs already" in again["error"]
    processes = [record(one["name"], one["pid"]) for one in seen["networks"]["default"]]
    down = answer(teactl(home, "sim", "down", "--json"))
    assert (down["ended"], down["killed"]) == (4, [])
    assert [one.name for one in processes if one.is_running()] == []
    assert answer(teactl(home, "sim", "down", "--json"), status=1)["error"].startswith("no network default")


def test_a_network_of_real_enclaves_is_left_alone(home: Path) -> None:
    (home / "e1").mkdir(0o700)
    answer(teactl(home, "network", "add", "e1", "--folder", "e1", "--deployment", "prod", "--json"))
    for words in (("up",), ("down",)):
        said = answer(teactl(home, "sim", *words, "--json"), status=1)["error"]
        assert "is a network of real enclaves" in said
    assert (home / ".tea" / "sim" / "default" / "network.json").is_file()


def test_an_enclave_that_died_shows_and_does_not_hinder_the_end(home: Path) -> None:
    up = answer(teactl(home, "sim", "up", "--name", "two", "--json"))
    os.kill(up["enclaves"][0]["host_pid"], 9)
    seen = answer(teactl(home, "sim", "status", "--name", "two", "--json"), status=1)
    assert {one["name"]: one["running"] for one in seen["networks"]["two"]} == {"e1 host": False, "e1 client": True}
    assert answer(teactl(home, "sim", "down", "--name", "two", "--json"))["ended"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--enclaves", "0"),
        ("--name", "../elsewhere"),
        ("--deployment", "Not A Name"),
        ("--threshold", "2"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(home: Path, arguments: tuple[str, ...]) -> None:
    done = teactl(home, "sim", "up", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert list(home.glob(".tea/sim/*")) == []
