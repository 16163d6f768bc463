"""Real boots in QEMU that go wrong on purpose: each is told for what it is. Slow: `make image-test`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tea.enclave_image.assembly import debian
from tea.enclave_image.assembly.boot_ramdisk import build_boot
from tea.enclave_image.assembly.cache import Cache
from tea.enclave_image.assembly.cpio import write_ramdisk
from tea.enclave_image.assembly.platforms import PlatformFiles, vm_files
from tea.enclave_image.assembly.tree import Tree
from tea.enclave_image.eif.codes import ImageError
from tea.enclave_image.eif.metadata import Metadata
from tea.enclave_image.eif.writer import compose, write_image
from tea.enclave_image.vm import plan as plans
from tea.enclave_image.vm.boot_log import Stage
from tea.enclave_image.vm.machine import VirtualMachine
from tea.enclave_image.vm.plan import MachinePlan

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> PlatformFiles:
    if shutil.which(plans.QEMU) is None or not (ROOT / plans.TOOLS / plans.VSOCK_DEVICE).is_file():
        pytest.skip("QEMU or the vsock device is not here: make vm-tools")
    kernel = next(one for one in debian.read_lock() if one.is_kernel)
    package = debian.fetch(kernel, Cache(ROOT / ".tea" / "cache" / "packages"))
    return vm_files(package, tmp_path_factory.mktemp("kernel"))


def machine(platform: PlatformFiles, tree: Tree, folder: Path) -> VirtualMachine:
    write_ramdisk(tree, folder / "ramdisk.gz")
    metadata = Metadata("trial", "1", "2026-01-01T00:00:00Z", "tea", "0", "Debian", platform.kernel_version)
    pieces = compose(platform.kernel, platform.cmdline, [folder / "ramdisk.gz"], metadata)
    write_image(folder / "a.eif", pieces)
    return VirtualMachine(MachinePlan(folder / "a.eif", folder / "m", b"", folder / "none.sock", cpus=1))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


async def test_a_ramdisk_without_init_is_a_kernel_panic(platform: PlatformFiles, tmp_path: Path) -> None:
    tree = Tree()
    tree.add_folder("dev")
    started = machine(platform, tree, tmp_path)
    await started.start()
    with pytest.raises(ImageError, match="did not boot, kernel-panic"):
        await started.booted(SECONDS)
    await started.kill()


async def test_a_module_that_is_not_there_is_named(platform: PlatformFiles, tmp_path: Path) -> None:
    tree = build_boot(platform, tmp_path)
    tree.remove("modules/vsock.ko")
    started = machine(platform, tree, tmp_path)
    await started.start()
    with pytest.raises(ImageError, match=r"did not boot, missing-module: missing module vsock\.ko"):
        await started.booted(SECONDS)
    await started.kill()


async def test_a_host_that_is_not_there_is_a_failed_boot_that_powers_off(
    platform: PlatformFiles, tmp_path: Path
) -> None:
    started = machine(platform, build_boot(platform, tmp_path), tmp_path)
    await started.start()
    log = await started.ended(SECONDS)
    assert log.stage is Stage.FAILED
    assert "tea-start" in log.detail  # no credential was appended
    assert started.alive.is_set()  # the heartbeat crossed the machine's edge before
