"""`teactl` itself: exit statuses, JSON errors, no traceback, commands that cannot be loaded, readers that go away."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.parent_client import cli
from tea.parent_client.refusal import Refusal
from tea.protocol.errors import CallError, Code
from tea.trust.keys import SigningCode, SigningError


@pytest.fixture(autouse=True)
def own_commands() -> Iterator[None]:
    """These tests change which commands there are."""
    cli.command.cache_clear()
    yield
    cli.command.cache_clear()


def with_command(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """A `teactl` whose one command, `act`, raises."""

    def build() -> typer.Typer:
        app = typer.Typer()

        @app.command()
        def act(as_json: bool = typer.Option(False, "--json")) -> None:
            raise raised

        @app.command()
        def other() -> None: ...

        return app

    monkeypatch.setattr(cli, "build", build)


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (Refusal("no \x1b[2J", why="x"), 1, {"error": "no \x1b[2J", "why": "x"}),
        (SigningError(SigningCode.BAD_KEY, "no"), 1, {"error": "no", "code": "bad-key"}),
        (
            CallError(Code.DENIED, "no", actor="a"),
            1,
            {"error": "DENIED: no", "code": "DENIED", "details": {"actor": "a"}},
        ),
        (FileNotFoundError(2, "No such file", "x.cbor"), 1, {"error": "x.cbor: No such file"}),
        (FileNotFoundError(2, "No such file", b"x.cbor"), 1, {"error": "x.cbor: No such file"}),
        (OSError("odd"), 1, {"error": "odd"}),
        (KeyboardInterrupt(), 1, {}),
        (typer.Abort(), 1, {"error": "interrupted"}),
        (typer.BadParameter("wrong"), 2, {"usage": True}),
        (typer.Exit(1), 1, None),
        (typer.Exit(0), 0, None),
        (typer.Exit(130), 1, None),
    ],
)
def test_every_way_of_ending_has_its_status_and_its_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    status: int,
    said: dict[str, Any] | None,
) -> None:
    with_command(monkeypatch, raised)
    assert cli.run(["act"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert all(one.isprintable() or one == "\n" for one in err)
    assert cli.run(["act", "--json"]) == status
    out, err = capsys.readouterr()
    if said is not None and out:
        result = json.loads(out)
        assert result["ok"] is False
        assert result["error"]
        assert said.items() <= result.items()


def test_a_defect_is_a_sentence_and_shows_where_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_command(monkeypatch, ZeroDivisionError("oops"))
    assert cli.run(["act"]) == 1
    err = capsys.readouterr().err
    assert "this is a defect of teactl, please report it: ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    monkeypatch.setenv("TEA_TRACEBACK", "1")
    assert cli.run(["act"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_command_that_cannot_be_loaded_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = importlib.metadata.EntryPoint("broken", "tea.nowhere:register", cli.GROUP)
    good = importlib.metadata.EntryPoint("key", "tea.parent_client.commands.key:register", cli.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [broken, good])
    assert cli.run(["key", "--help"]) == 0
    out, err = capsys.readouterr()
    assert "the command broken is left out: No module named 'tea.nowhere'" in err
    assert "Make signing keys" in out


@pytest.mark.parametrize(
    "line",
    [
        ["nothing"],
        ["key"],
        ["key", "nothing"],
        ["key", "new"],
        ["key", "new", "a", "--nothing"],
        ["key", "new", "a", "--algorithm"],
        ["attest", "verify"],
        ["bundle", "build", "nowhere.yaml", "--development"],
        ["manifest", "approve", "m.yaml"],
        ["push"],
        ["call", "counter"],
        ["logs", "--last", "x"],
        ["logs", "--last", "-1"],
        ["ra", "verify"],
    ],
)
def test_wrong_usage_is_status_2_with_the_reason(teactl: Any, line: list[str]) -> None:
    ran = teactl(*line)
    assert ran.status == 2
    assert ran.out + ran.err
    ran = teactl(*line, "--json")
    assert ran.status == 2
    if line[0] not in ("logs", "nothing"):
        assert ran.json["usage"] is True
        assert ran.json["error"]


def test_help_is_status_0_and_documents_the_statuses(teactl: Any) -> None:
    ran = teactl("--help")
    assert ran.status == 0
    assert "Exit status: 0 yes, 1 refused or failed, 2 wrong usage" in " ".join(ran.out.split())
    for command in ("key", "bundle", "manifest", "push", "call", "attest", "status", "logs", "ra"):
        assert command in ran.out
    assert teactl("attest", "verify", "-h").status == 0


@given(st.lists(st.sampled_from(["key", "new", "bundle", "inspect", "call", "attest", "--json", "--at"]) | st.text()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_typed_gets_a_status_and_no_traceback(teactl: Any, line: list[str]) -> None:
    if "logs" not in line and "demo" not in line and "sim" not in line:
        teactl.capture.readouterr()
        assert cli.run(line) in (0, 1, 2)
        out, err = teactl.capture.readouterr()
        assert "Traceback" not in out + err
        assert "defect" not in out + err


def command(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "tea.parent_client.cli", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_the_process_ends_with_the_status_in_any_locale(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    with command("bundle", "inspect", "zürich.tea", env=environment, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(b"teactl: z")
    assert b"No such file" in err
    assert b"Traceback" not in err
    assert out == b""


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "tea.parent_client.cli", "--help"]
    ended = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert ended.returncode == 1
    assert ended.stderr == b""
