"""What is shipped for a parent instance (units, settings, Dockerfile, the walk through them) says what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tea.enclave_image.assembly.platforms import PORT
from tea.parent_client.cli import build, run
from tea.parent_client.daemon import parser
from tea.parent_client.registry import Registry

ROOT = Path(__file__).parents[2]
WALK = ROOT / "docs" / "deploy-nitro.md"


def commands() -> list[list[str]]:
    """Every `teactl` line of the walk and the units, as words after `teactl`."""
    blocks = re.findall(r"```sh\n(.*?)```", WALK.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for unit in (ROOT / "deploy").glob("*.service"):
        lines += [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("Exec")]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words and Path(words[0]).name == "teactl"]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:2]))
def test_every_command_that_is_shown_exists_with_its_options(words: list[str]) -> None:
    command: Any = typer.main.get_command(build())
    while hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known


def test_the_walk_has_commands() -> None:
    assert len(commands()) > 15


def test_the_client_s_unit_starts_a_client_that_listens_where_the_image_dials() -> None:
    unit = (ROOT / "deploy" / "tea-client@.service").read_text()
    assert f"ENCLAVE=vsock:any:{PORT}" in unit
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = line.partition("tea.parent_client ")[2].replace("${ENCLAVE}", f"vsock:any:{PORT}").split()
    arguments = parser("x").parse_args([word for word in words if word != "$CLIENT_ARGUMENTS"])
    assert str(arguments.enclave) == f"vsock:any:{PORT}"
    with pytest.raises(SystemExit):
        parser("x").parse_args(["--name", "e1", "--folder", "f", "--enclave", "nowhere"])


def test_the_allocator_has_room_for_what_the_unit_asks_for() -> None:
    allocated = yaml.safe_load((ROOT / "deploy" / "allocator.yaml").read_text())
    unit = (ROOT / "deploy" / "tea-enclave@.service").read_text()
    asked = dict(re.findall(r"(MEMORY|CPUS)=(\d+)", unit))
    assert int(asked["MEMORY"]) <= allocated["memory_mib"]
    assert int(asked["CPUS"]) <= allocated["cpu_count"]
    assert "--debug" not in unit.partition("ExecStart")[2]


def test_the_walk_registers_the_client_that_the_unit_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_HOME", str(tmp_path / "books"))
    (words,) = [one for one in commands() if one[:2] == ["network", "add"]]
    assert run(words) == 0
    entry = Registry(tmp_path / "books").enclave("prod", None)
    unit = (ROOT / "deploy" / "tea-client@.service").read_text()
    assert entry.folder == "/var/lib/tea/e1"
    assert "--folder /var/lib/tea/%i" in unit
    assert (entry.name, entry.instance_id) == ("e1", "i-0123456789abcdef0")
    assert Registry(tmp_path / "books").network("prod").root is None


def test_the_dockerfile_has_no_default_base_or_approvers_and_checks_every_hash() -> None:
    text = (ROOT / "Dockerfile.enclave").read_text()
    assert re.findall(r"^ARG (.*)$", text, re.MULTILINE) == ["BASE", "APPROVERS"]
    assert text.count("pip install") == text.count("--require-hashes") == 2
    assert '"--mode", "nitro", "--parent", "vsock:3:5005"' in text
    for copied in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert copied.startswith(("--from", "${")) or (ROOT / copied).exists()
