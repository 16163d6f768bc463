"""How QEMU and the vsock device are started for an image: files, arguments, sockets.

May not: start anything. The simulated platform's credential is a third ramdisk that is appended at the start: the
image's own sections stay as they were measured, and in mode nitro nothing is appended and nobody would look.
Rule: docs/architecture.md, "Modes"; QEMU, microvm; vhost-device-vsock, README.md.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..assembly.cpio import write_cpio
from ..assembly.tree import Tree
from ..eif.codes import ImageCode, ImageError
from ..eif.layout import SectionType
from ..eif.reader import EifImage, open_image
from .tsc import tsc_khz

QEMU: Final = "qemu-system-x86_64"
VSOCK_DEVICE: Final = "vhost-device-vsock"
TOOLS: Final = Path(".tea/tools/bin")
"""Where `make vm` puts what cargo builds."""
PARENT_PORT: Final = 5005
HEARTBEAT_PORT: Final = 9000
CREDENTIAL: Final = "tea-start"
_SUN_PATH: Final = 100


@dataclass(frozen=True)
class MachinePlan:
    """One virtual machine."""

    image: Path
    folder: Path
    """Its files and sockets; short, since sockets' paths are."""
    start: bytes
    """What the simulated platform gives its host: instance credential, module id, measurements. Secret."""
    parent: Path
    """The socket of the runtime client: the guest's connections to the parent's port end there."""
    memory_mib: int = 512
    cpus: int = 2
    cid: int = 4
    kvm: bool = False
    """TCG otherwise: slower, and there everywhere."""

    @property
    def vsock(self) -> Path:
        """Prefix of the sockets that guest ports become: port P is at `<vsock>_P`."""
        return self.folder / "v"

    @property
    def console(self) -> Path:
        """Where the console goes."""
        return self.folder / "console"


@dataclass(frozen=True)
class Commands:
    """What is to be run, the vsock device first."""

    vsock: tuple[str, ...]
    qemu: tuple[str, ...]
    ready: Path
    """The socket at which the device waits for QEMU."""


def prepare(plan: MachinePlan) -> Commands:
    """Write what QEMU reads into the folder, and say how to start it. Raises `ImageError`, `OSError`."""
    if len(os.fsencode(f"{plan.vsock}_{HEARTBEAT_PORT}")) > _SUN_PATH:
        raise ImageError(ImageCode.ENCLAVE, f"{plan.folder} is too long a path for sockets: choose a shorter one")
    plan.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_image(plan.image) as image:
        if "tea.mode=vm" not in image.cmdline.split():
            raise ImageError(
                ImageCode.PLATFORM, f"{plan.image} is no image for a VM: build it with --platform vm", offset=None
            )
        _copy(image, SectionType.KERNEL, plan.folder / "kernel", b"")
        _copy(image, SectionType.RAMDISK, plan.folder / "initrd", plan.start)
        cmdline = image.cmdline + _hint(plan)
    link = Path(f"{plan.vsock}_{PARENT_PORT}")
    link.unlink(missing_ok=True)
    link.symlink_to(plan.parent.absolute())
    device = plan.folder / "device"
    for stale in (device, Path(f"{plan.vsock}_{HEARTBEAT_PORT}"), plan.vsock):
        stale.unlink(missing_ok=True)
    memory = f"{plan.memory_mib}M"
    qemu = [
        find(QEMU, "apt-get install qemu-system-x86"),
        "-M", "microvm,rtc=on,pit=on,memory-backend=memory",
        "-accel", "kvm" if plan.kvm else "tcg,thread=multi",
        "-cpu", "host" if plan.kvm else "max", "-smp", str(plan.cpus), "-m", memory,
        "-object", f"memory-backend-memfd,id=memory,size={memory},share=on",
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
        "-serial", f"file:{plan.console}",
        "-chardev", f"socket,id=vsock,path={device}", "-device", "vhost-user-vsock-device,chardev=vsock",
        "-kernel", str(plan.folder / "kernel"), "-initrd", str(plan.folder / "initrd"), "-append", cmdline,
    ]  # fmt: skip
    vsock = [
        find(VSOCK_DEVICE, "cargo install vhost-device-vsock"),
        "--guest-cid", str(plan.cid), "--socket", str(device), "--uds-path", str(plan.vsock),
    ]  # fmt: skip
    return Commands(tuple(vsock), tuple(qemu), device)


def _hint(plan: MachinePlan) -> str:
    """What the launcher adds to the command line of an emulated machine: see `tsc`."""
    khz = None if plan.kvm else tsc_khz()
    return "" if khz is None else f" tsc_early_khz={khz}"


def find(program: str, mend: str) -> str:
    """The path of a program. Raises `ImageError(PLATFORM)` with how to get it."""
    ours = TOOLS.absolute() / program
    found = str(ours) if ours.is_file() else shutil.which(program)
    if found is None:
        raise ImageError(ImageCode.PLATFORM, f"{program} is not here: {mend}, or run `make vm`, which sets it up")
    return found


def _copy(image: EifImage, kind: SectionType, target: Path, start: bytes) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for section in image.of(kind):
            for chunk in image.chunks(section):
                file.write(chunk)
            file.write(bytes(-section.size % 4))  # archives in an initrd begin at multiples of four
        if start:
            tree = Tree()
            tree.add_file(CREDENTIAL, start, mode=0o400)
            write_cpio(tree, file)
