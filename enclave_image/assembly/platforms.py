"""What differs between where an image runs: kernel, modules, command line. The root ramdisk does not.

May not: let a platform's mode be chosen later: it stands on the measured command line.
Rule: docs/architecture.md, "Modes"; AWS, aws-nitro-enclaves-cli, blobs; Linux, Documentation/x86/boot.rst.
"""

from __future__ import annotations

import enum
import posixpath
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..eif.codes import ImageCode, ImageError
from . import debian

PORT: Final = 5005
"""Where the runtime client listens on the parent."""
BLOBS: Final = Path("/usr/share/nitro_enclaves/blobs")
"""Where nitro-cli's package puts its kernel and NSM module."""
LEAST_KERNEL: Final = (5, 4)
# AWS's own command line, and where its parent is.
_NITRO_CMDLINE: Final = (
    "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd "
    f"random.trust_cpu=on tea.mode=nitro tea.parent=vsock:3:{PORT}"
)
_VM_CMDLINE: Final = (
    "console=ttyS0 reboot=t panic=-1 quiet tsc=reliable random.trust_cpu=on "
    f"tea.mode=vm tea.parent=vsock:2:{PORT} tea.heartbeat=2:9000"
)
_VM_MODULES: Final = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "net/vmw_vsock/vsock.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport.ko",
)
"""In the order in which they load."""


class Platform(enum.StrEnum):
    """Where an image runs."""

    VM = "vm"
    NITRO = "nitro"


@dataclass(frozen=True)
class PlatformFiles:
    """A platform's part of an image."""

    kernel: Path
    kernel_version: str
    modules: tuple[tuple[str, Path], ...]
    """(file name, where it lies), in the order in which they load."""
    cmdline: str
    operating_system: str


def vm_files(kernel_package: Path, staging: Path) -> PlatformFiles:
    """Debian's cloud kernel and what a microvm with a vsock device needs of its modules. Raises `ImageError`."""
    found: dict[str, Path] = {}
    wanted = {posixpath.basename(one): one for one in _VM_MODULES}
    for member, content in debian.members(kernel_package):
        name = posixpath.basename(member.name)
        is_kernel = member.name.startswith("boot/vmlinuz-")
        is_module = name in wanted and member.name.endswith(wanted[name])
        if content is None or not (is_kernel or is_module):
            continue
        target = staging / ("kernel" if is_kernel else name)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        found[target.name] = target
    missing = [name for name in ("kernel", *wanted) if name not in found]
    if missing:
        raise ImageError(ImageCode.PACKAGE, f"{kernel_package.name} has no {', '.join(missing)}")
    version = kernel_version(found["kernel"])
    modules = tuple((name, found[name]) for name in wanted)
    return PlatformFiles(found["kernel"], version, modules, _VM_CMDLINE, "Debian 12")


def nitro_files(kernel: Path | None, nsm_module: Path | None) -> PlatformFiles:
    """The kernel and NSM module of nitro-cli's package, or those given. Raises `ImageError(PLATFORM)`."""
    chosen = kernel or BLOBS / "bzImage", nsm_module or BLOBS / "nsm.ko"
    for path, option in zip(chosen, ("--kernel", "--nsm-module"), strict=True):
        if not path.is_file():
            raise ImageError(
                ImageCode.PLATFORM,
                f"{path} is not there: install aws-nitro-enclaves-cli-devel, or give the file with {option}",
            )
    version = kernel_version(chosen[0])
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < LEAST_KERNEL:
        raise ImageError(
            ImageCode.PLATFORM,
            f"{chosen[0]} is Linux {version}: the host supervises its workers by pidfd, which needs "
            f"{'.'.join(map(str, LEAST_KERNEL))} or newer; take the kernel of a newer nitro-cli",
        )
    return PlatformFiles(chosen[0], version, (("nsm.ko", chosen[1]),), _NITRO_CMDLINE, "Debian 12")


def kernel_version(path: Path) -> str:
    """The version that a bzImage says of itself. Raises `ImageError(INPUT)` when it is none."""
    with path.open("rb") as file:
        start = file.read(0x210)
        if len(start) < 0x210 or start[0x1FE:0x200] != b"\x55\xaa" or start[0x202:0x206] != b"HdrS":
            raise ImageError(ImageCode.INPUT, f"{path} is no bzImage: an x86_64 image needs one")
        offset = int.from_bytes(start[0x20E:0x210], "little")
        if offset == 0:
            return "unknown"
        file.seek(offset + 0x200)
        text = file.read(256).partition(b"\0")[0].decode("ascii", "replace")
    return text.split(" ")[0] or "unknown"
