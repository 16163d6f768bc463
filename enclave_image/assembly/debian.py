"""Debian packages: locked by name, version and SHA-256, fetched by apt as any user, read without dpkg.

May not: install anything, run a maintainer script, or take a package whose bytes are not those of the lock.
Rule: deb(5), apt-get(8) `download`; docs/architecture.md, "The enclave image".
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ..console import say
from ..eif.codes import ImageCode, ImageError
from .cache import Cache

LOCK: Final = Path(__file__).parent / "debian.lock"
_LINE: Final = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]+) (?P<version>[0-9][\w.+~:-]*) sha256:(?P<digest>[0-9a-f]{64})"
)
_URI: Final = re.compile(r"'[^']+' (?P<file>\S+) \d+ SHA256:(?P<digest>[0-9a-f]{64})")
_AR: Final = b"!<arch>\n"
KERNEL_META: Final = "linux-image-cloud-amd64"
ROOT_PACKAGES: Final = (
    "libc6", "libexpat1", "libffi8", "libgcc-s1", "libpython3.11-minimal", "libpython3.11-stdlib", "libssl3",
    "libstdc++6", "python3.11-minimal", "zlib1g",
)  # fmt: skip
"""What the root ramdisk takes files from."""


@dataclass(frozen=True, slots=True)
class Package:
    """One locked package."""

    name: str
    version: str
    digest: str
    """SHA-256 of the .deb, hex."""

    @property
    def is_kernel(self) -> bool:
        return self.name.startswith("linux-image-")


def read_lock(path: Path = LOCK) -> tuple[Package, ...]:
    """The packages of a lock: `NAME VERSION sha256:HEX` a line. Raises `ImageError(PACKAGE)`."""
    packages = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ImageError(ImageCode.PACKAGE, f"{path}:{number}: expected NAME VERSION sha256:HEX")
        packages.append(Package(match["name"], match["version"], match["digest"]))
    return tuple(packages)


def newest(names: Sequence[str] = ROOT_PACKAGES) -> tuple[Package, ...]:
    """What apt would take today, the kernel included: for writing the lock anew."""
    kernel = _apt("apt-cache", "depends", KERNEL_META)
    found = re.search(r"Depends: (linux-image-\S+)", kernel)
    if found is None:
        raise ImageError(ImageCode.PACKAGE, f"apt knows no {KERNEL_META}: is this Debian, and was apt-get update run?")
    packages = []
    for name in sorted((*names, found[1])):
        match = _URI.search(_apt("apt-get", "--print-uris", "download", name))
        if match is None:
            raise ImageError(ImageCode.PACKAGE, f"apt names no file with a SHA-256 for {name}")
        version = match["file"].split("_")[1].replace("%3a", ":")
        packages.append(Package(name, version, match["digest"]))
    return tuple(packages)


def write_lock(packages: Sequence[Package], path: Path = LOCK) -> None:
    """Write a lock."""
    lines = ["# Debian packages of the image, by hash. Written by `teactl image lock`."]
    path.write_text("\n".join([*lines, *(f"{p.name} {p.version} sha256:{p.digest}" for p in packages)]) + "\n")


def fetch(package: Package, cache: Cache) -> Path:
    """The .deb of a package, from the cache or by apt. Raises `ImageError(PACKAGE)`."""
    name = f"{package.name}.deb"
    cached = cache.find(package.digest, name)
    if cached is not None:
        return cached
    say(f"fetching {package.name} {package.version}")
    cache.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.folder) as folder:
        wanted = f"{package.name}={package.version}"
        try:
            _download(wanted, Path(folder), cache.folder.parent / "apt")
        except ImageError as error:
            raise ImageError(
                ImageCode.PACKAGE,
                f"{wanted} is neither in the cache nor to be had ({error.sentence}): take what there is with "
                "`teactl image lock` (other packages are another image)",
            ) from None
        fetched = next(iter(Path(folder).glob("*.deb")))
        return cache.keep(fetched.rename(fetched.with_name(name)), package.digest)


def _download(wanted: str, folder: Path, own: Path) -> None:
    """With the system's lists of packages; where those are old or missing, with our own, which need no root."""
    try:
        _apt("apt-get", "download", wanted, folder=folder)
    except ImageError:
        lists, archives = own / "lists", own / "cache"
        for one in (lists / "partial", archives / "archives" / "partial"):
            one.mkdir(parents=True, exist_ok=True)
        options = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User=")
        _apt("apt-get", *options, "update")
        _apt("apt-get", *options, "download", wanted, folder=folder)


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """The files of a package, streamed: (description, content or None). Names are relative, without `./`."""
    with path.open("rb") as file:
        _seek_data(file, path)
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    member.name = member.name.removeprefix("./")
                    content = archive.extractfile(member) if member.isreg() else None
                    yield member, content  # type: ignore[misc]
        except tarfile.TarError as error:
            raise ImageError(ImageCode.PACKAGE, f"{path.name}: {error}") from None


def _seek_data(file: BinaryIO, path: Path) -> None:
    """Stand at the beginning of the data archive of a .deb, which is an `ar` archive."""
    if file.read(len(_AR)) != _AR:
        raise ImageError(ImageCode.PACKAGE, f"{path.name} is no Debian package", offset=0)
    while header := file.read(60):
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if len(header) < 60 or not size.isdigit():
            break
        if name.startswith("data.tar"):
            if name.endswith(".zst"):
                raise ImageError(ImageCode.PACKAGE, f"{path.name} is compressed with zstd, which is not read here")
            return
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise ImageError(ImageCode.PACKAGE, f"{path.name} has no data archive")


def _apt(*command: str, folder: Path | None = None) -> str:
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    except FileNotFoundError:
        raise ImageError(ImageCode.PACKAGE, f"{command[0]} is not here: images are built on Debian") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ImageError(ImageCode.PACKAGE, f"{' '.join(command[:2])}: {last}")
    return done.stdout
