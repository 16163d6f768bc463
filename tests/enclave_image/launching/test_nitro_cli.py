"""`teactl enclave` over nitro-cli: a stand-in records its arguments and prints what AWS documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.launching.launcher import LaunchPlan
from tea.enclave_image.launching.nitro_cli import NitroCli
from tea.parent_client.cli import run

ENCLAVE = {
    "EnclaveName": "prod",
    "EnclaveID": "i-05f6ed443aEXAMPLE-enc173dfe3eEXAMPLE",
    "ProcessID": 7077,
    "EnclaveCID": 10,
    "NumberOfCPUs": 2,
    "CPUIDs": [1, 3],
    "MemoryMiB": 1024,
}
DESCRIBED = {**ENCLAVE, "State": "RUNNING", "Flags": "NONE", "Measurements": {"PCR0": "00"}}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A nitro-cli on PATH: answers from files, one a command; records its arguments in `calls`."""
    folder = tmp_path / "nitro"
    folder.mkdir()
    program = folder / "nitro-cli"
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/calls\ntest -e {folder}/fails && {{ cat {folder}/fails >&2; exit 33; }}\n'
        f"cat {folder}/$1.json\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    answers = {
        "run-enclave": ENCLAVE,
        "describe-enclaves": [DESCRIBED],
        "terminate-enclave": {"EnclaveName": "prod", "EnclaveID": ENCLAVE["EnclaveID"], "Terminated": True},
        "console": "the console",
    }
    for name, answer in answers.items():
        (folder / f"{name}.json").write_text(json.dumps(answer))
    return folder


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_run_gives_nitro_cli_what_it_needs(stand_in: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--image", str(tiny), "--name", "prod", "--cpus", "2", "--memory", "1024", "--cid", "10"]
    assert run(["enclave", "run", *arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {**ENCLAVE, "State": "RUNNING"}
    assert calls(stand_in) == [
        f"run-enclave --eif-path {tiny} --enclave-name prod --cpu-count 2 --memory 1024 --enclave-cid 10"
    ]


def test_debug_mode_is_said_loudly(stand_in: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enclave", "run", "--image", str(tiny), "--debug"]) == 0
    assert "WARNING" in capsys.readouterr().err
    assert calls(stand_in)[0].endswith("--debug-mode")


def test_list_shows_what_nitro_cli_describes(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enclave", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"enclaves": [DESCRIBED]}


@pytest.mark.parametrize("name", ["prod", ENCLAVE["EnclaveID"]])
def test_terminate_and_console_take_a_name_or_an_id(
    stand_in: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enclave", "console", name]) == 0
    assert run(["enclave", "terminate", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["State"] == "TERMINATED"
    assert calls(stand_in) == [
        "describe-enclaves",
        f"console --enclave-id {ENCLAVE['EnclaveID']}",
        "describe-enclaves",
        f"terminate-enclave --enclave-id {ENCLAVE['EnclaveID']}",
    ]


def test_an_unknown_enclave_is_refused(stand_in: Path) -> None:
    with pytest.raises(ImageError) as refused:
        NitroCli().terminate("other")
    assert refused.value.code is ImageCode.ENCLAVE


def test_a_failure_of_nitro_cli_is_told_in_its_words(stand_in: Path, tiny: Path) -> None:
    (stand_in / "fails").write_text("[ E27 ] Insufficient memory available. User provided `memory` is 1024 MB\n")
    with pytest.raises(ImageError, match="Insufficient memory"):
        NitroCli().run(LaunchPlan(tiny, "prod", 1024, 2))


@pytest.mark.parametrize("answer", ["no JSON", "{}", "[]", '[{"EnclaveID": 1}]', "7"])
def test_another_answer_is_refused_not_guessed(stand_in: Path, tiny: Path, answer: str) -> None:
    for name in ("run-enclave", "describe-enclaves"):
        (stand_in / f"{name}.json").write_text(answer)
    with pytest.raises(ImageError):
        NitroCli().run(LaunchPlan(tiny, "prod", 1024, 2))
    if answer != "[]":
        with pytest.raises(ImageError):
            NitroCli().enclaves()


def test_a_termination_that_was_none_is_refused(stand_in: Path) -> None:
    (stand_in / "terminate-enclave.json").write_text('{"Terminated": false}')
    with pytest.raises(ImageError, match="did not end"):
        NitroCli().terminate("prod")


def test_a_missing_nitro_cli_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        NitroCli(str(tmp_path / "none")).enclaves()
