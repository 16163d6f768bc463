"""Builds an image: packages and wheels in, EIF and its list of contents out.

May not: take anything from this machine but the compiler, the cache and what the plan names.
Rule: docs/architecture.md, "The enclave image"; reproducible-builds.org.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tea
from tea.trust.approval import Approvers

from ..console import say
from ..eif.codes import ImageCode, ImageError
from ..eif.describe import describe_image
from ..eif.metadata import Metadata
from ..eif.reader import open_image
from ..eif.signer import Signer
from ..eif.writer import compose, write_image
from . import debian, sbom, wheels
from .approvers import insecure_development_approvers, is_insecure
from .boot_ramdisk import build_boot, compiler
from .cache import Cache, sha256
from .cpio import write_ramdisk
from .platforms import Platform, PlatformFiles, nitro_files, vm_files
from .root import build_root

MEMORY: Final = 512 << 20
MAX_ROOT: Final = 45 << 20
"""Bytes of the compressed root ramdisk: what is more than this has something in it that no enclave needs."""
ROOTFS: Final = "rootfs"
DEFAULT_EPOCH: Final = 1767225600
"""2026-01-01, where there is neither SOURCE_DATE_EPOCH nor a commit."""


@dataclass(frozen=True)
class BuildPlan:
    """What is to be built."""

    out: Path
    platform: Platform = Platform.VM
    approvers: Approvers = field(default_factory=insecure_development_approvers)
    name: str = "tea-runtime"
    kernel: Path | None = None
    nsm_module: Path | None = None
    cache: Path = Path(".tea/cache")
    signer: Signer | None = None
    epoch: int | None = None
    """SOURCE_DATE_EPOCH; None: that of the environment, else the last commit's time."""


@dataclass(frozen=True)
class Built:
    """What came out."""

    path: Path
    sbom: Path
    digest: str
    """SHA-256 of the file, hex."""
    size: int
    root_size: int
    """Bytes of the compressed root ramdisk."""
    pcrs: dict[int, bytes]
    components: int
    seconds: float

    def to_json(self) -> dict[str, object]:
        """For `--json`; measurements named as nitro-cli names them."""
        return {
            "path": str(self.path),
            "sbom": str(self.sbom),
            "sha256": self.digest,
            "size": self.size,
            "root_size": self.root_size,
            "components": self.components,
            "seconds": round(self.seconds, 2),
            "Measurements": {"HashAlgorithm": "Sha384 { ... }", **{f"PCR{i}": v.hex() for i, v in self.pcrs.items()}},
        }


def build_image(plan: BuildPlan) -> Built:
    """Build an image and its SBOM (OUT with the suffix .cdx.json). Raises `ImageError`, `OSError`."""
    started = time.monotonic()
    _require_sound(plan)
    epoch = source_date(plan.epoch)
    version = importlib.metadata.version("tea-runtime")
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tea-image-") as scratch:
        staging = Path(scratch)
        packages = [(one, debian.fetch(one, Cache(plan.cache / "packages"))) for one in _packages(plan.platform)]
        wheel_files = wheels.fetch(source_root() / "requirements" / "enclave.txt", plan.cache / "wheels")
        platform = _platform(plan, packages, staging)
        say(f"assembling: kernel {platform.kernel_version}, {len(packages)} packages, {len(wheel_files)} wheels")
        root = staging / "root.cpio.gz"
        (staging / "root").mkdir()
        roots = [(package, path) for package, path in packages if not package.is_kernel]
        approvers = plan.approvers.to_yaml().encode()
        write_ramdisk(build_root(roots, wheel_files, approvers, staging / "root"), root, prefix=ROOTFS)
        if root.stat().st_size > MAX_ROOT:
            raise ImageError(ImageCode.BUILD, f"the root ramdisk has {root.stat().st_size} bytes, at most {MAX_ROOT}")
        boot = staging / "boot.cpio.gz"
        write_ramdisk(build_boot(platform, staging), boot)
        components = [sbom.of_package(*one) for one in packages] + [sbom.of_wheel(one) for one in wheel_files]
        components.append(sbom.of_runtime(version))
        listed = sbom.render(components, f"{plan.name}-{plan.platform}", version, epoch, compiler())
        metadata = _metadata(plan, platform, version, epoch, listed)
        pieces = compose(platform.kernel, platform.cmdline, [boot, root], metadata)
        write_image(plan.out, pieces, memory=MEMORY, signer=plan.signer)
        root_size = root.stat().st_size
    listing = plan.out.with_suffix(".cdx.json")
    listing.write_bytes(listed)
    with open_image(plan.out) as image:
        pcrs = describe_image(image).pcrs()
    size, seconds = plan.out.stat().st_size, time.monotonic() - started
    return Built(plan.out, listing, sha256(plan.out), size, root_size, pcrs, len(components), seconds)


def source_root() -> Path:
    """The source tree, which an image is built from. Raises `ImageError(BUILD)` in an installation without it."""
    root = Path(next(iter(tea.__path__))).resolve().parents[1]
    if not (root / "requirements" / "enclave.txt").is_file():
        raise ImageError(ImageCode.BUILD, f"{root} is no source tree of tea-runtime: images are built from one")
    return root


def source_date(given: int | None = None) -> int:
    """The one time of a build, seconds since the epoch. Raises `ImageError(BUILD)`."""
    if given is not None:
        return given
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is not None:
        if not (text.isascii() and text.isdigit()):
            raise ImageError(ImageCode.BUILD, f"SOURCE_DATE_EPOCH is {text!r}, expected seconds since 1970")
        return int(text)
    command = ["git", "-C", str(source_root()), "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return DEFAULT_EPOCH
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else DEFAULT_EPOCH


def _require_sound(plan: BuildPlan) -> None:
    if is_insecure(plan.approvers):
        if plan.platform is Platform.NITRO:
            raise ImageError(
                ImageCode.PLATFORM,
                "the development approvers are everybody: an image for Nitro needs yours, give --approvers FILE",
            )
        say("WARNING: development approvers. ANYBODY can approve manifests for this image: for experiments only.")
    if plan.platform is Platform.VM and (plan.kernel is not None or plan.nsm_module is not None):
        raise ImageError(ImageCode.PLATFORM, "--kernel and --nsm-module are for the platform nitro")


def _packages(platform: Platform) -> list[debian.Package]:
    return [one for one in debian.read_lock() if platform is Platform.VM or not one.is_kernel]


def _platform(plan: BuildPlan, packages: list[tuple[debian.Package, Path]], staging: Path) -> PlatformFiles:
    if plan.platform is Platform.NITRO:
        return nitro_files(plan.kernel, plan.nsm_module)
    kernel = next((path for package, path in packages if package.is_kernel), None)
    if kernel is None:
        raise ImageError(ImageCode.PACKAGE, f"the lock {debian.LOCK.name} has no linux-image package")
    return vm_files(kernel, staging)


def _metadata(plan: BuildPlan, platform: PlatformFiles, version: str, epoch: int, listed: bytes) -> Metadata:
    return Metadata(
        name=plan.name,
        version=version,
        build_time=datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        build_tool="teactl image",
        build_tool_version=version,
        operating_system=platform.operating_system,
        kernel_version=platform.kernel_version,
        custom={
            "Approvers": plan.approvers.digest.hex(),
            "Deployment": plan.approvers.deployment,
            "Platform": plan.platform.value,
            "Sbom": f"sha256:{hashlib.sha256(listed).hexdigest()}",
        },
    )
