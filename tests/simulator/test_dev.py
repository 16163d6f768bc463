"""`teactl dev`: a save becomes an upgrade of a running enclave, and what goes wrong is shown to the author."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.project import new_project
from tea.parent_client.refusal import Refusal
from tea.simulator.dev import Workshop, _require_syntax, _with_revision
from tea.trust.keys import PrivateKey
from tea.trust.manifest import ManifestError

TEACTL = [sys.executable, "-P", "-m", "tea.parent_client.cli"]


class Author:
    """An author's two terminals in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "TEA_HOME": str(folder / ".tea")}
        self.source = folder / "tally" / "tally.py"
        self.dev: subprocess.Popen[str] | None = None
        self.unread: list[dict[str, Any]] = []

    def teactl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TEACTL, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def greet(self) -> subprocess.CompletedProcess[str]:
        return self.teactl("call", "--network", "dev", "tally", "greet", '["Ann"]')

    def start(self) -> None:
        self.dev = subprocess.Popen(
            [*TEACTL, "dev", "tally", "--json"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def event(self, kind: str, text: str = "") -> dict[str, Any]:
        """The next event of a kind that says this; others are kept for later."""
        assert self.dev is not None and self.dev.stdout is not None
        for place, found in enumerate(self.unread):
            if found["event"] == kind and text in found["text"]:
                return self.unread.pop(place)
        for line in self.dev.stdout:
            new: dict[str, Any] = json.loads(line)
            if new["event"] == kind and text in new["text"]:
                return new
            self.unread.append(new)
        raise AssertionError(f"no event {kind} {text!r} among {self.unread}")

    def save(self, before: str, after: str) -> None:
        text = self.source.read_text()
        assert before in text
        self.source.write_text(text.replace(before, after))

    def end(self, number: signal.Signals) -> int:
        assert self.dev is not None
        self.dev.send_signal(number)
        return self.dev.wait(30)


@pytest.fixture
def author(tmp_path: Path) -> Iterator[Author]:
    new_project("tally", tmp_path / "tally")
    author = Author(tmp_path)
    yield author
    if author.dev is not None:
        author.dev.kill()
        author.dev.wait()
    author.teactl("sim", "down", "--name", "dev")


def test_each_save_is_served_and_each_mistake_is_shown_to_the_author_alone(author: Author) -> None:
    author.start()
    author.event("ready", "started the network dev")
    assert author.event("upgraded")["revision"] == 1
    assert "Hello, Ann, for the 1. time" in author.greet().stdout

    author.save("Hello", "Hi")
    upgraded = author.event("upgraded")
    assert upgraded["revision"] == 2
    assert upgraded["seconds"] > 0
    assert "Hi, Ann, for the 2. time" in author.greet().stdout

    author.save("def greet(self, name: str) -> str:", "def greet(self, name: str) -> str")
    assert "tally/tally.py:12: expected ':'" in author.event("refused")["text"]
    assert "Hi, Ann, for the 3. time" in author.greet().stdout

    author.save("-> str\n", "-> str:\n        name.nothing()\n")
    assert author.event("upgraded")["revision"] == 3
    failed = author.greet()
    assert failed.returncode == 1
    assert "nothing" not in failed.stdout + failed.stderr
    logged = author.event("log", "Traceback")["message"]
    assert 'File "tally.py", line 13, in greet\n    name.nothing()' in logged

    author.save("    kvp: Link\n", "    kvp: Link\n\n    def on_start(self) -> None:\n        1 / 0\n")
    assert "what ran before runs on" in author.event("refused")["text"]
    assert "ZeroDivisionError" in author.event("log", "ZeroDivisionError")["message"]

    assert author.end(signal.SIGINT) == 0
    author.event("ended")
    assert "no network dev" in author.greet().stderr


def test_a_network_that_runs_already_is_used_and_left_running(author: Author) -> None:
    assert author.teactl("sim", "up", "--name", "dev").returncode == 0
    author.start()
    author.event("ready", "found the network dev")
    author.event("upgraded")
    assert author.end(signal.SIGTERM) == 0
    assert author.greet().returncode == 0
    manifest = author.folder / "tally" / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("deployment: development", "deployment: other"))
    refused = author.teactl("dev", "tally")
    assert refused.returncode == 1
    assert "is of the deployment development, the manifest of other" in refused.stderr


def test_a_folder_without_a_project_is_refused(author: Author) -> None:
    refused = author.teactl("dev", ".")
    assert refused.returncode == 1
    assert "teactl actor new" in refused.stderr
    assert author.teactl("dev", "tally", "--env", "nothing").returncode == 2


def workshop(folder: Path) -> Workshop:
    new_project("tally", folder / "tally")
    tally = folder / "tally"
    return Workshop(tally, tally / "manifest.yaml", folder / "bundles", PrivateKey.generate())


async def test_a_save_is_seen_whatever_way_an_editor_does_it(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    before = shop.snapshot()
    assert {path.name for path in before} == {"tally.py", "bundle.yaml", "manifest.yaml"}

    def in_place() -> None:
        (shop.folder / "tally.py").write_text("x = 1\n")

    def by_renaming() -> None:
        (tmp_path / "new").write_text("y = 1\n")
        (tmp_path / "new").replace(shop.folder / "tally.py")

    def a_new_file() -> None:
        (shop.folder / "more.py").write_text("")

    def removed() -> None:
        (shop.folder / "more.py").unlink()

    def a_broken_description() -> None:
        (shop.folder / "bundle.yaml").write_text("{")

    for save in (in_place, by_renaming, a_new_file, removed, a_broken_description):
        save()
        after, saved = await asyncio.wait_for(shop.saved(before), 10)
        assert after != before
        assert saved > 0
        before = after


async def test_tests_and_other_files_are_none_of_it(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    before = shop.snapshot()
    (shop.folder / "test_tally.py").write_text("")
    (shop.folder / "README.md").write_text("")
    assert shop.snapshot() == before


def test_the_revision_only_rises(tmp_path: Path) -> None:
    text = "tea: manifest/1\nrevision: 4 # mine\ndeployment: x\n"
    assert _with_revision(text, 9) == text.replace("4", "9")
    assert _with_revision(text, 3) == text
    assert _with_revision("deployment: x\n", 3) == "deployment: x\n"


def test_a_manifest_without_a_deployment_is_refused(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    assert shop.deployment() == "development"
    shop.manifest.write_text("tea: manifest/1\n")
    with pytest.raises(Refusal, match="no deployment"):
        shop.deployment()
    shop.manifest.write_text("a: 1\na: 2\n")
    with pytest.raises(ManifestError):
        shop.deployment()


@pytest.mark.parametrize("source", [b"def f(:", b"\x00", b"\xff", b"  x = 1", b"(" * 3000])
def test_what_is_no_python_is_refused_without_running_it(tmp_path: Path, source: bytes) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(source)
    with pytest.raises(Refusal, match=r"bad\.py"):
        _require_syntax(path)
