"""The enclave's Python dependencies: wheels by the hashes of its lock, fetched by pip, unpacked without running them.

May not: take a file whose hash is not in the lock, or leave anything in that an enclave does not run (tests, sources).
Rule: PEP 427; pip's hash-checking mode; requirements/enclave.txt is the lock.
"""

from __future__ import annotations

import email.parser
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..console import say
from ..eif.codes import ImageCode, ImageError
from .cache import sha256
from .tree import Tree

PYTHON: Final = "3.11"
_TARGET: Final = (
    "--implementation", "cp", "--python-version", PYTHON, "--abi", "cp311", "--abi", "abi3", "--abi", "none",
    "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64",
    "--platform", "manylinux2014_x86_64", "--platform", "any",
)  # fmt: skip
_UNUSED: Final = re.compile(
    r"(^|/)(tests?|SelfTest|examples?|docs?|__pycache__)/|\.(pyi|pyx|pxd|pxi|c|h|cpp|hpp|rst|typed)$"
    r"|\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json|top_level\.txt|sboms/.*)$"
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel that goes in."""

    path: Path
    name: str
    version: str
    digest: str
    """SHA-256, hex: of the wheel, or of the source archive that it was built from."""
    license: str


def fetch(lock: Path, cache: Path) -> tuple[Wheel, ...]:
    """The wheels of a lock, by name. Raises `ImageError(PACKAGE)`.

    They are cached under the lock's own digest, with their hashes beside them.
    """
    folder = cache / hashlib.sha256(lock.read_bytes()).hexdigest()
    index = folder / "wheels.sha256"
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _download(lock, folder, index)
    wheels = []
    for line in index.read_text().splitlines():
        name, digest, source = line.split()
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            index.unlink()
            raise ImageError(ImageCode.PACKAGE, f"{path} in the cache is damaged or gone: build again, it is fetched")
        wheels.append(_wheel(path, source))
    return tuple(sorted(wheels, key=lambda one: one.name))


def install(wheels: Sequence[Wheel], staging: Path, site: str, tree: Tree) -> None:
    """Unpack wheels into `staging`/`site` and enter what is needed into the tree. Raises `ImageError(PACKAGE)`."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            for info in archive.infolist():
                name = _installed_name(info.filename)
                if info.is_dir() or name is None or _UNUSED.search(name):
                    continue
                path = f"{site}/{name}"
                if ".." in name.split("/") or name.startswith("/"):
                    raise ImageError(ImageCode.PACKAGE, f"{wheel.path.name} holds {info.filename}: refused")
                target = staging / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(info))
                tree.add_file(path, target)


def _installed_name(name: str) -> str | None:
    """Where a wheel's file goes below site-packages; None: nowhere (scripts, headers)."""
    match = re.match(r"[^/]+\.data/([^/]+)/(.+)", name)
    if match is None:
        return name
    return match[2] if match[1] in ("purelib", "platlib") else None


def _download(lock: Path, folder: Path, index: Path) -> None:
    say(f"fetching the wheels of {lock.name}")
    with tempfile.TemporaryDirectory() as scratch:
        fetched = Path(scratch)
        for requirement, binary in _requirements(lock, fetched):
            command = ["download", "--no-deps", "--require-hashes", "-r", str(requirement), "-d", str(fetched)]
            if binary:
                _pip(*command, "--only-binary", ":all:", *_TARGET)
            else:
                _pip(*command, "--no-binary", ":all:", "--no-build-isolation")
        sources = {}
        for archive in fetched.glob("*.tar.gz"):
            # The build tools are those of the lock in this environment; what it builds is Python only.
            built = fetched / archive.name.removesuffix(".tar.gz")
            _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(built), str(archive))
            (wheel,) = built.glob("*-none-any.whl")
            sources[wheel.name] = sha256(archive)
            wheel.rename(fetched / wheel.name)
        lines = []
        for wheel in sorted(fetched.glob("*.whl")):
            kept = folder / wheel.name
            kept.write_bytes(wheel.read_bytes())
            digest = sha256(kept)
            lines.append(f"{wheel.name} {digest} {sources.get(wheel.name, digest)}\n")
    index.write_text("".join(lines))


def _requirements(lock: Path, folder: Path) -> Iterator[tuple[Path, bool]]:
    """The lock in two: what there are wheels of, and what has a source archive only (one hash, and no wheel)."""
    blocks = [block for block in re.split(r"\n(?=\S)", lock.read_text().strip()) if not block.startswith("#")]
    for binary in (True, False):
        chosen = [block for block in blocks if (block.count("--hash=") > 1 or not _is_source(block)) is binary]
        if chosen:
            path = folder / f"{'wheels' if binary else 'sources'}.txt"
            path.write_text("\n".join(chosen) + "\n")
            yield path, binary


def _is_source(block: str) -> bool:
    return block.split("==")[0] in SOURCES_ONLY


SOURCES_ONLY: Final = frozenset({"thespian"})
"""Dependencies that are published as source alone."""


def _wheel(path: Path, digest: str) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = email.parser.BytesHeaderParser().parsebytes(archive.read(metadata))
    classified = [one.split(" :: ")[-1] for one in fields.get_all("Classifier", []) if one.startswith("License ::")]
    license_ = fields.get("License-Expression") or "; ".join(classified) or (fields.get("License") or "unknown")
    return Wheel(path, str(fields["Name"]), str(fields["Version"]), digest, license_.splitlines()[0][:120])


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ImageError(ImageCode.PACKAGE, f"pip {arguments[0]}: {last}")
