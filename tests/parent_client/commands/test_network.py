"""`teactl network`: a real enclave is found by every command once it is registered, and a simulated one is left alone.

May not: start anything. Rule: docs/deploy-nitro.md, "Settings".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.registry import NetworkEntry, Registry

Make = Callable[..., Awaitable[Any]]


def registry(teactl: Any) -> Registry:
    return Registry(teactl.folder / ".tea")


def folder(tmp_path: Path, name: str = "e1") -> Path:
    path = tmp_path / name
    path.mkdir(0o700)
    return path


async def test_a_registered_enclave_is_found_by_other_commands(teactl: Any, make_client: Make, make_host: Make) -> None:
    client = await make_client("e1")
    await make_host(client)
    ran = teactl("network", "add", "e1", "--folder", client.config.folder, "-n", "prod", "--deployment", "prod")
    assert ran.status == 0, ran.err
    ran = await teactl.beside("status", "-n", "prod", "--json")
    assert ran.status == 0
    assert list(ran.json["enclaves"]) == ["e1"]


def test_the_file_is_what_the_registry_reads_and_its_owner_s_alone(teactl: Any, tmp_path: Path) -> None:
    ran = teactl(
        *("network", "add", "e1", "--folder", folder(tmp_path), "-n", "prod", "--deployment", "live"),
        *("--instance-id", "i-0123456789abcdef0", "--json"),
    )
    assert ran.json["folder_exists"] is True
    path = Path(ran.json["path"])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    entry = registry(teactl).network("prod")
    assert (entry.deployment, entry.root, entry.enclaves[0].instance_id) == ("live", None, "i-0123456789abcdef0")
    assert entry.enclaves[0].folder == str(tmp_path / "e1")


def test_a_second_enclave_joins_the_network_and_both_are_listed(teactl: Any, tmp_path: Path) -> None:
    for name in ("e1", "e2"):
        more = ("--deployment", "prod") if name == "e1" else ()
        ran = teactl("network", "add", name, "--folder", folder(tmp_path, name), *more, "--json")
        assert ran.json["deployment"] == "prod"
    ran = teactl("network", "list")
    assert "default: real, deployment prod" in ran.out
    assert f"e2  {tmp_path / 'e2'}" in ran.out
    assert [one["name"] for one in teactl("network", "list", "--json").json["networks"][0]["enclaves"]] == ["e1", "e2"]
    ran = teactl("network", "remove", "e1", "--json")
    assert ran.json["enclaves"] == ["e2"]
    assert teactl("network", "remove", "e2").status == 0
    assert registry(teactl).networks() == []
    assert "none below" in teactl("network", "list").out


def test_a_client_that_never_ran_may_be_registered_and_it_is_said(teactl: Any, tmp_path: Path) -> None:
    ran = teactl("network", "add", "e1", "--folder", tmp_path / "later", "--deployment", "prod")
    assert ran.status == 0
    assert "not there yet: start its runtime client" in ran.out


def test_a_folder_that_others_can_write_to_is_refused(teactl: Any, tmp_path: Path) -> None:
    open_folder = folder(tmp_path)
    open_folder.chmod(0o777)
    ran = teactl("network", "add", "e1", "--folder", open_folder, "--deployment", "prod", "--json")
    assert ran.status == 1
    assert "others can write to the folder" in ran.json["error"]
    file = tmp_path / "file"
    file.write_text("")
    assert teactl("network", "add", "e1", "--folder", file, "--deployment", "prod").status == 1
    assert registry(teactl).networks() == []


def test_a_name_or_a_folder_is_registered_once(teactl: Any, tmp_path: Path) -> None:
    where = folder(tmp_path)
    teactl("network", "add", "e1", "--folder", where, "--deployment", "prod")
    for name, at in (("e1", folder(tmp_path, "other")), ("e2", where)):
        ran = teactl("network", "add", name, "--folder", at, "--json")
        assert ran.status == 1
        assert "`teactl network remove e1` first" in ran.json["error"]


def test_a_network_is_of_one_deployment(teactl: Any, tmp_path: Path) -> None:
    teactl("network", "add", "e1", "--folder", folder(tmp_path), "--deployment", "prod")
    ran = teactl("network", "add", "e2", "--folder", folder(tmp_path, "e2"), "--deployment", "other", "--json")
    assert ran.status == 1
    assert "is of deployment prod" in ran.json["error"]


def test_a_simulated_network_is_left_alone(teactl: Any, tmp_path: Path) -> None:
    registry(teactl).write(NetworkEntry("default", "development", f"sha256:{'00' * 32}", ()))
    for words in (("add", "e1", "--folder", folder(tmp_path)), ("remove", "e1")):
        ran = teactl("network", *words, "--json")
        assert ran.status == 1
        assert "is simulated" in ran.json["error"]
    assert "default: simulated" in teactl("network", "list").out


def test_what_is_not_there_cannot_be_removed(teactl: Any, tmp_path: Path) -> None:
    assert "no network default" in teactl("network", "remove", "e1", "--json").json["error"]
    teactl("network", "add", "e1", "--folder", folder(tmp_path), "--deployment", "prod")
    assert "no enclave e9 in default: there are e1" in teactl("network", "remove", "e9", "--json").json["error"]


@pytest.mark.parametrize(
    "words",
    [
        ("E 1", "--folder", "f", "--deployment", "prod"),
        ("e1", "--folder", "f"),
        ("e1", "--folder", "f", "--deployment", "Prod!"),
        ("e1", "--folder", "f", "--deployment", "prod", "--instance-id", "i-xyz"),
        ("e1", "--deployment", "prod"),
    ],
)
def test_what_is_misspelt_is_wrong_usage(teactl: Any, words: tuple[str, ...]) -> None:
    assert teactl("network", "add", *words).status == 2
    assert registry(teactl).networks() == []


def test_a_name_that_is_no_folder_s_is_refused(teactl: Any) -> None:
    ran = teactl("network", "add", "e1", "--folder", "f", "--deployment", "prod", "-n", "../up", "--json")
    assert (ran.status, ran.json["ok"]) == (1, False)
