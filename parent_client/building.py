"""Building bundles: an actor's folder with its bundle.yaml becomes one signed file, the same bytes each time.

May not: import the actor's code, or take in a file from outside of its folder.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tea.sdk.interface import InterfaceError, read_interface
from tea.trust import names
from tea.trust.archive import MAX_TOTAL
from tea.trust.bundle import MAX_BUNDLE, ClaimsInput, UnverifiedBundle, build_archive, build_bundle, inspect_bundle
from tea.trust.claims import ENTRIES, BundleCode, BundleError, SdkRange, interface_of
from tea.trust.keys import PrivateKey
from tea.trust.manifest_yaml import read_yaml
from tea.trust.schema import Field

from .files import read_bytes, read_text, write_whole
from .refusal import Refusal

SUFFIX: Final = ".tea"
VERSION: Final = "bundle/1"
DESCRIPTION: Final = "bundle.yaml"
INCLUDE: Final = ("**/*.py",)
DEFAULT_SDK: Final = ">=0.1,<0.2"
EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"
_MOST: Final = 256


@dataclass(frozen=True)
class BundleSource:
    """bundle.yaml: what an author says of an actor."""

    name: str
    version: str
    entry: str
    sdk: str = DEFAULT_SDK
    capabilities: dict[str, tuple[str, ...]] | None = None
    include: tuple[str, ...] = INCLUDE
    """Which files of the folder go in, as glob patterns; tests never do."""
    kind: str = "python"


@dataclass(frozen=True)
class Built:
    """A bundle that was written."""

    path: Path
    digest: bytes
    """SHA-256 of the file."""
    size: int
    source: BundleSource


# ---- bundle.yaml -----------------------------------------------------------------------------------------------------


def read_source(path: Path) -> BundleSource:
    """Read a bundle.yaml. Raises `Refusal`, or `ManifestError` that names file, line, found, expected and the mend."""
    root = Field(read_yaml(read_text(path, DESCRIPTION), str(path)), "", str(path))
    fields = root.mapping(("tea", "name", "version", "entry"), ("kind", "sdk", "capabilities", "include"))
    fields["tea"].text(VERSION.__eq__, VERSION, mend=f"write `tea: {VERSION}`")
    capabilities = fields["capabilities"].entries(most=_MOST) if "capabilities" in fields else {}
    kind = fields["kind"].choice(tuple(ENTRIES)) if "kind" in fields else "python"
    pattern, words = ENTRIES[kind]
    entry = fields["entry"].text(pattern.fullmatch, words)
    include = [one.text(_is_inside, "a pattern of files below this folder, such as **/*.py") for one in _items(fields)]
    return BundleSource(
        name=fields["name"].text(names.is_name, names.NAME_MEND),
        version=fields["version"].text(names.is_version, names.SEMVER_MEND),
        entry=entry,
        sdk=fields["sdk"].text(_is_range, f"comparators such as {DEFAULT_SDK}") if "sdk" in fields else DEFAULT_SDK,
        capabilities={
            target: asked.set_of(lambda one: one.text(names.OPERATION.fullmatch, "an operation"), least=1, most=_MOST)
            for target, asked in capabilities.items()
        },
        include=tuple(include) or ((entry, interface_of(entry)) if kind == "wasm" else INCLUDE),
        kind=kind,
    )


def _items(fields: dict[str, Field]) -> list[Field]:
    return fields["include"].items(most=_MOST) if "include" in fields else []


def _is_inside(pattern: str) -> bool:
    path = Path(pattern)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in pattern


def _is_range(text: str) -> bool:
    try:
        SdkRange.parse(text)
    except BundleError:
        return False
    return True


# ---- the files -------------------------------------------------------------------------------------------------------


def source_files(folder: Path, source: BundleSource) -> dict[str, bytes]:
    """The files that go in, by their name in the archive. Raises `Refusal` when there are none, or one is a link out of
    the folder.
    """
    inside = folder.resolve()
    files: dict[str, bytes] = {}
    for path in source_paths(folder, source):
        if not path.resolve().is_relative_to(inside):
            raise Refusal(f"{path} is a link to {path.resolve()}, expected a file below {folder}: copy it there")
        files[path.relative_to(folder).as_posix()] = read_bytes(path, "source file", MAX_TOTAL)
    if not files:
        raise Refusal(f"{folder}: found no file that matches {', '.join(source.include)}, expected at least one")
    return files


def source_paths(folder: Path, source: BundleSource) -> list[Path]:
    """Where the files that go in are; nothing is read. Raises `Refusal` on a pattern that is none."""
    return [
        path
        for pattern in source.include
        for path in _matches(folder, pattern)
        if path.is_file() and not _is_left_out(path.relative_to(folder))
    ]


def _matches(folder: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise Refusal(f"{folder}: the pattern {pattern!r} under `include` is none: {error}") from None


def _is_left_out(name: Path) -> bool:
    hidden = any(part.startswith(".") or part in ("__pycache__", "tests") for part in name.parts)
    return hidden or name.name == "conftest.py" or name.stem.startswith("test_") or name.stem.endswith("_test")


def issued_at(folder: Path, names_: Iterable[str]) -> int:
    """When the bundle says it was issued: SOURCE_DATE_EPOCH, else the time of its newest file: a rebuild is equal.

    Raises `Refusal` when SOURCE_DATE_EPOCH is set to something else than seconds.
    """
    given = os.environ.get(EPOCH_VARIABLE)
    if given:
        if not (given.isascii() and given.isdigit() and len(given) <= 15):
            raise Refusal(f"found {EPOCH_VARIABLE}={given[:40]!r}, expected whole seconds since 1970: unset or mend it")
        return int(given)
    return max(int((folder / name).stat().st_mtime) for name in names_)


# ---- bundles ---------------------------------------------------------------------------------------------------------


def build(description: Path, key: PrivateKey, out: Path, *, not_after: int | None = None) -> Built:
    """Build and sign one bundle into a folder. Raises `Refusal`, `ManifestError` about bundle.yaml, or `BundleError` as
    the verifier would.
    """
    source = read_source(description)
    folder = description.parent
    files = source_files(folder, source)
    _require_interface(description, source, files)
    claims = ClaimsInput(
        name=source.name,
        version=source.version,
        entry=source.entry,
        issued_at=issued_at(folder, [*files, description.name]),
        capabilities=source.capabilities or {},
        sdk=source.sdk,
        not_after=not_after,
        kind=source.kind,
    )
    try:
        data = build_bundle(build_archive(files), claims, key)
    except BundleError as error:
        raise BundleError(BundleCode(error.code), f"{description}: {error.sentence}") from None
    path = out / f"{source.name}-{source.version}{SUFFIX}"
    write_whole(path, data)
    return Built(path, hashlib.sha256(data).digest(), len(data), source)


def _require_interface(description: Path, source: BundleSource, files: dict[str, bytes]) -> None:
    if source.kind != "wasm":
        return
    for name in (source.entry, interface_of(source.entry)):
        if name not in files:
            raise Refusal(f"{description}: found no {name} beside it, expected the module and its interface: build it")
    try:
        read_interface(files[interface_of(source.entry)])
    except InterfaceError as error:
        raise Refusal(f"{description.parent / interface_of(source.entry)}: {error}") from None


def read_bundle_file(path: Path) -> bytes:
    """The bytes of a bundle file. Raises `Refusal` when they are too many for one."""
    return read_bytes(path, "bundle", MAX_BUNDLE)


def find_bundles(folder: Path) -> dict[tuple[str, str], tuple[Path, UnverifiedBundle]]:
    """The bundle files of a folder by (name, version), as their unverified claims say.

    Raises `Refusal` that names a file which is no bundle, or two with different bytes under one name and version.
    """
    found: dict[tuple[str, str], tuple[Path, UnverifiedBundle]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            bundle = inspect_bundle(read_bundle_file(path))
        except BundleError as error:
            raise Refusal(f"{path}: {error}; build it again, or remove it", code=error.code.value) from None
        name = (bundle.claims.name, bundle.claims.version)
        before = found.setdefault(name, (path, bundle))
        if before[1].digest != bundle.digest:
            raise Refusal(f"{before[0]} and {path} are both {' '.join(name)}, with other bytes: remove one of them")
    return found


def bundles_by_digest(folder: Path) -> dict[bytes, Path]:
    """The bundle files of a folder by their SHA-256."""
    found: dict[bytes, Path] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("rb") as file:
            found[hashlib.file_digest(file, "sha256").digest()] = path
    return found
