"""The demo, small: one liar, one crash, every round certified, and files that a stranger can check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tea.trust.policy import parse_policy
from tea.trust.rounds import verify_certificate, verify_evidence

TEACTL = [sys.executable, "-P", "-m", "tea.parent_client.cli"]


def teactl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEA_HOME": str(folder / ".tea")}
    return subprocess.run(
        [*TEACTL, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


def test_the_liar_is_named_the_crash_is_borne_and_all_of_it_can_be_checked(tmp_path: Path) -> None:
    arguments = ["--enclaves", "4", "--blocks", "5", "--tamper", "1", "--kill", "1", "--seed", "5", "--out", "out"]
    done = teactl(tmp_path, "demo", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["enclaves"], result["blocks"], result["rounds_certified"]) == (4, 5, 5)
    assert result["named"] == result["tampered"]
    assert len(result["tampered"]) == 1
    assert (result["falsely_named"], result["calls_unanswered"], result["problems"]) == ([], 0, [])
    assert result["rounds_disputed"] >= 1
    assert result["attestations_verified"] > 0
    assert result["calls"] > 0
    assert result["manifest_digest"].startswith("sha384:")

    out = tmp_path / "out"
    policy = parse_policy((out / "policy.yaml").read_text())
    certified = [verify_certificate(path.read_bytes(), policy) for path in (out / "certificates").iterdir()]
    assert sorted(one.height for one in certified) == list(range(result["first_height"], result["first_height"] + 5))
    evidence = [verify_evidence(path.read_bytes(), policy) for path in (out / "evidence").iterdir()]
    assert {one.accused for one in evidence} == set(result["tampered"])
    difference = next(one.difference for one in evidence if one.difference is not None)
    assert difference.certified != difference.accused

    page = (out / "report.html").read_text()
    assert difference.key.decode() in page
    assert "<svg" in page
    assert re.findall(r"""(?:src|href)\s*=|@import|url\(""", page) == []

    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(path)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize(
    "arguments", [("--enclaves", "2"), ("--enclaves", "3", "--tamper", "1"), ("--kill", "2"), ("--blocks", "1")]
)
def test_a_size_that_proves_nothing_is_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = teactl(tmp_path, "demo", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_chain_that_does_not_answer_is_a_refusal(tmp_path: Path) -> None:
    done = teactl(tmp_path, "demo", "--chain", "http://127.0.0.1:9", "--json")
    assert done.returncode == 1
    assert "does not answer" in json.loads(done.stdout)["error"]
