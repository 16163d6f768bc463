"""Building bundles: an actor's folder with its bundle.yaml becomes one signed file, the same bytes each time.

May not: import the actor's code. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from tea.trust.bundle import ClaimsInput, build_archive, build_bundle, inspect_bundle
from tea.trust.keys import PrivateKey

from .console import Refusal

SUFFIX: Final = ".tea"


class BundleSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bundle.yaml: what an author says of an actor."""

    tea: str
    name: str
    version: str
    entry: str
    sdk: str = ">=0.1,<0.2"
    capabilities: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    include: tuple[str, ...] = ("**/*.py",)
    """Which files of the folder go in, as glob patterns; tests and conftest.py never do."""


@dataclass(frozen=True)
class Built:
    """A bundle that was written."""

    path: Path
    digest: bytes
    """SHA-256 of the file."""
    size: int
    source: BundleSource


def read_source(path: Path) -> BundleSource:
    """Read a bundle.yaml. Raises `Refusal` that names the file and the key."""
    try:
        data: Any = yaml.safe_load(path.read_text())
        source = msgspec.convert(data, BundleSource)
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: {error}") from None
    if source.tea != "bundle/1":
        raise Refusal(f"{path}: found `tea: {source.tea}`, expected `tea: bundle/1`")
    return source


def source_files(folder: Path, source: BundleSource) -> dict[str, bytes]:
    """The files that go in, by their name in the archive. Raises `Refusal` when there are none."""
    files: dict[str, bytes] = {}
    for pattern in source.include:
        for path in folder.glob(pattern):
            name = path.relative_to(folder)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and not hidden and not path.name.startswith("test_") and path.name != "conftest.py":
                files[name.as_posix()] = path.read_bytes()
    if not files:
        raise Refusal(f"{folder} has no file that matches {', '.join(source.include)}")
    return files


def issued_at(folder: Path, names: list[str]) -> int:
    """When the bundle says it was issued: SOURCE_DATE_EPOCH, else the time of its newest file: a rebuild is equal."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None and given.isdigit():
        return int(given)
    return max(int((folder / name).stat().st_mtime) for name in [*names, "bundle.yaml"] if (folder / name).exists())


def build(description: Path, key: PrivateKey, out: Path, *, not_after: int | None = None) -> Built:
    """Build and sign one bundle into a folder. Raises `Refusal`, or `BundleError` as the verifier would."""
    source = read_source(description)
    folder = description.parent
    files = source_files(folder, source)
    claims = ClaimsInput(
        name=source.name,
        version=source.version,
        entry=source.entry,
        issued_at=issued_at(folder, list(files)),
        capabilities=source.capabilities,
        sdk=source.sdk,
        not_after=not_after,
    )
    data = build_bundle(build_archive(files), claims, key)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{source.name}-{source.version}{SUFFIX}"
    path.write_bytes(data)
    return Built(path, hashlib.sha256(data).digest(), len(data), source)


def find_bundles(folder: Path) -> dict[tuple[str, str], Path]:
    """The bundle files of a folder by (name, version), as their unverified claims say."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        claims = inspect_bundle(path.read_bytes()).claims
        found[claims.name, claims.version] = path
    return found


def bundles_by_digest(folder: Path) -> dict[bytes, Path]:
    """The bundle files of a folder by their SHA-256."""
    return {hashlib.sha256(path.read_bytes()).digest(): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
