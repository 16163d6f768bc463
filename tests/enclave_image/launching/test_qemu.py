"""`teactl enclave` in QEMU: records, processes and their ends, with stand-ins for QEMU and the vsock device."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.layout import SectionType
from tea.enclave_image.eif.writer import Piece, write_image
from tea.enclave_image.launching.launcher import LaunchPlan
from tea.enclave_image.launching.qemu import QemuLauncher
from tea.enclave_image.vm import plan as plans
from tea.parent_client.cli import run

from ..conftest import KERNEL, METADATA


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    programs = tmp_path / "bin"
    programs.mkdir()
    device = '#!/bin/sh\nwhile [ "$1" != --socket ]; do shift; done\n: > "$2"\nexec sleep 60\n'
    for name, text in ((plans.QEMU, "#!/bin/sh\nexec sleep 60\n"), (plans.VSOCK_DEVICE, device)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(plans, "TOOLS", programs)
    monkeypatch.chdir(tmp_path)
    write_image(
        tmp_path / "a.eif",
        [
            Piece.of_bytes(SectionType.KERNEL, KERNEL),
            Piece.of_bytes(SectionType.CMDLINE, b"tea.mode=vm"),
            Piece.of_bytes(SectionType.METADATA, METADATA.encode()),
            Piece.of_bytes(SectionType.RAMDISK, b"ramdisk"),
        ],
    )
    (tmp_path / "enclave.sock").touch()
    yield tmp_path
    launcher = QemuLauncher(tmp_path / ".tea" / "enclaves")
    for one in launcher.enclaves():
        launcher.terminate(one.enclave_id)


def plan_of(place: Path, name: str = "one") -> LaunchPlan:
    return LaunchPlan(place / "a.eif", name, 512, 2, parent=place / "enclave.sock")


def test_an_enclave_is_run_listed_seen_and_ended(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--image", "a.eif", "--name", "one", "--parent", "enclave.sock"]
    assert run(["enclave", "run", *arguments, "--qemu", "--json"]) == 0
    started = json.loads(capsys.readouterr().out)
    assert started["State"] == "RUNNING"
    assert started["SimulatedRoot"].startswith("sha256:")
    record = json.loads(next((place / ".tea" / "enclaves").glob("*.json")).read_text())
    folder = Path(record["folder"])
    (folder / "console").write_text("init: [1.00] up\n")
    assert run(["enclave", "console", "one", "--qemu"]) == 0
    assert capsys.readouterr().out == "init: [1.00] up\n"
    assert run(["enclave", "list", "--qemu", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["enclaves"]
    assert (listed["EnclaveID"], listed["Stage"]) == (started["EnclaveID"], "init")
    assert run(["enclave", "terminate", "one", "--qemu"]) == 0
    assert not folder.exists()
    assert run(["enclave", "terminate", "one", "--qemu"]) == 1
    os.waitpid(record["qemu"]["pid"], 0)
    os.waitpid(record["vsock"]["pid"], 0)


def test_a_name_is_given_once(place: Path) -> None:
    launcher = QemuLauncher(place / ".tea" / "enclaves")
    launcher.run(plan_of(place))
    with pytest.raises(ImageError, match="runs already"):
        launcher.run(plan_of(place))


def test_no_two_enclaves_have_one_cid_whichever_ended_before(place: Path) -> None:
    launcher = QemuLauncher(place / ".tea" / "enclaves")
    one, two = launcher.run(plan_of(place, "one")), launcher.run(plan_of(place, "two"))
    launcher.terminate("one")
    three = launcher.run(plan_of(place, "three"))
    assert one.cid != two.cid != three.cid


def test_an_enclave_needs_its_parent(place: Path) -> None:
    with pytest.raises(ImageError, match="--parent"):
        QemuLauncher(place).run(LaunchPlan(place / "a.eif", "one", 512, 2))


def test_what_is_no_record_is_refused_not_ended(place: Path) -> None:
    folder = place / "records"
    folder.mkdir()
    (folder / "odd.json").write_text('{"name": "one"}')
    with pytest.raises(ImageError) as refused:
        QemuLauncher(folder).enclaves()
    assert refused.value.code is ImageCode.ENCLAVE
    (folder / "odd.json").unlink()


def test_a_process_with_the_same_number_is_left_alone(place: Path) -> None:
    launcher = QemuLauncher(place / ".tea" / "enclaves")
    launcher.run(plan_of(place))
    path = next((place / ".tea" / "enclaves").glob("*.json"))
    record = json.loads(path.read_text())
    ours = dict(record["qemu"])
    record["qemu"] = {"pid": os.getpid(), "started": 1}
    path.write_text(json.dumps(record))
    assert launcher.enclaves()[0].state == "ENDED"
    launcher.terminate("one")  # and this process is still here
    path.write_text(json.dumps({**record, "qemu": ours}))
