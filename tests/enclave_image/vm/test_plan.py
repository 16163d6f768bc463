"""Starting a machine: the image's own sections, a credential behind them, and nothing of it in mode nitro."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.layout import SectionType
from tea.enclave_image.eif.writer import Piece, write_image
from tea.enclave_image.vm import plan as plans
from tea.enclave_image.vm.machine import VirtualMachine
from tea.enclave_image.vm.plan import MachinePlan, prepare
from tea.enclave_image.vm.tsc import tsc_khz

from ..assembly.test_cpio import unpack
from ..conftest import KERNEL, METADATA

RAMDISKS = (b"first!", b"second")


def image(path: Path, cmdline: str = "console=ttyS0 tea.mode=vm") -> Path:
    pieces = [
        Piece.of_bytes(SectionType.KERNEL, KERNEL),
        Piece.of_bytes(SectionType.CMDLINE, cmdline.encode()),
        Piece.of_bytes(SectionType.METADATA, METADATA.encode()),
        *(Piece.of_bytes(SectionType.RAMDISK, one) for one in RAMDISKS),
    ]
    write_image(path, pieces)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for QEMU and the vsock device, which end at once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (plans.QEMU, plans.VSOCK_DEVICE):
        (folder / name).write_text("#!/bin/sh\necho cannot start >&2\nexit 3\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(plans, "TOOLS", folder)
    return folder


def plan_of(tmp_path: Path, **changes: object) -> MachinePlan:
    fields = {"image": image(tmp_path / "a.eif"), "folder": tmp_path / "m", "start": b"credential"}
    return MachinePlan(**{**fields, "parent": tmp_path / "enclave.sock", **changes})  # type: ignore[arg-type]


def test_the_guest_gets_the_image_s_sections_and_then_the_credential(tmp_path: Path, programs: Path) -> None:
    commands = prepare(plan_of(tmp_path))
    assert (tmp_path / "m" / "kernel").read_bytes() == KERNEL
    initrd = (tmp_path / "m" / "initrd").read_bytes()
    measured = b"first!\0\0second\0\0"
    assert initrd.startswith(measured)
    assert unpack(initrd[len(measured) :]) == {"tea-start": (stat.S_IFREG | 0o400, b"credential")}
    assert stat.S_IMODE((tmp_path / "m" / "initrd").stat().st_mode) == 0o600
    assert Path(f"{tmp_path}/m/v_5005").readlink() == tmp_path / "enclave.sock"
    assert not any("credential" in word for word in (*commands.qemu, *commands.vsock))


def test_the_command_line_is_the_image_s_and_the_emulator_s_hint(tmp_path: Path, programs: Path) -> None:
    commands = prepare(plan_of(tmp_path))
    shown = commands.qemu[commands.qemu.index("-append") + 1].split()
    assert shown[:2] == ["console=ttyS0", "tea.mode=vm"]
    assert [word.partition("=")[0] for word in shown[2:]] == ([] if tsc_khz() is None else ["tsc_early_khz"])
    hardware = prepare(plan_of(tmp_path, kvm=True)).qemu
    assert hardware[hardware.index("-append") + 1] == "console=ttyS0 tea.mode=vm"


def test_an_image_for_nitro_is_not_run_in_a_machine(tmp_path: Path, programs: Path) -> None:
    nitro = image(tmp_path / "n.eif", "console=ttyS0 tea.mode=nitro")
    with pytest.raises(ImageError) as refused:
        prepare(plan_of(tmp_path, image=nitro))
    assert refused.value.code is ImageCode.PLATFORM
    assert not (tmp_path / "m" / "initrd").exists()


def test_a_folder_too_long_for_sockets_is_refused(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(ImageError) as refused:
        prepare(plan_of(tmp_path, folder=tmp_path / ("long" * 30)))
    assert refused.value.code is ImageCode.ENCLAVE


def test_a_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(plans, "TOOLS", tmp_path)
    with pytest.raises(ImageError, match="apt-get install qemu-system-x86"):
        prepare(plan_of(tmp_path))


async def test_a_device_that_does_not_start_is_told_with_its_words(tmp_path: Path, programs: Path) -> None:
    machine = VirtualMachine(plan_of(tmp_path))
    with pytest.raises(ImageError, match="cannot start"):
        await machine.start()
    assert len(machine.pids) == 0
    assert not (tmp_path / "m" / "initrd").exists()


async def test_a_machine_that_does_not_start_is_told_from_a_slow_one(tmp_path: Path, programs: Path) -> None:
    device = programs / plans.VSOCK_DEVICE
    device.write_text('#!/bin/sh\nwhile [ "$1" != --socket ]; do shift; done\n: > "$2"\nexec sleep 60\n')
    machine = VirtualMachine(plan_of(tmp_path))
    await machine.start()
    with pytest.raises(ImageError, match="did not boot, firmware: cannot start"):
        await machine.booted(20)
    await machine.kill()
    qemu = programs / plans.QEMU
    qemu.write_text("#!/bin/sh\nexec sleep 60\n")
    slow = VirtualMachine(plan_of(tmp_path))
    await slow.start()
    assert len(slow.pids) == 2
    with pytest.raises(ImageError, match="is slow"):
        await slow.booted(0.01)
    await slow.kill()
    assert len(slow.pids) == 0
