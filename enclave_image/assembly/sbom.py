"""What is in an image: every package with version, hash and licence, as CycloneDX 1.5.

May not: contain a time or an identity of this build: the same image has the same list, byte for byte.
Rule: CycloneDX 1.5, JSON; docs/architecture.md, "The enclave image".
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import debian, wheels


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that went in."""

    kind: str
    """`library`, `application`, `operating-system` or `firmware`."""
    name: str
    version: str
    purl: str
    licenses: tuple[str, ...]
    digest: str
    """SHA-256 in hex, "" when it has none of its own."""

    def to_json(self) -> dict[str, object]:
        """As CycloneDX writes it."""
        made: dict[str, object] = {"type": self.kind, "name": self.name, "version": self.version, "purl": self.purl}
        made["bom-ref"] = self.purl
        if self.digest:
            made["hashes"] = [{"alg": "SHA-256", "content": self.digest}]
        made["licenses"] = [{"license": {"name": one}} for one in self.licenses]
        return made


def of_package(package: debian.Package, path: Path) -> Component:
    """A Debian package; its licences are those that its copyright file names."""
    purl = f"pkg:deb/debian/{package.name}@{package.version}?arch=amd64"
    kind = "operating-system" if package.is_kernel else "library"
    return Component(kind, package.name, package.version, purl, _licenses(package, path), package.digest)


def of_wheel(wheel: wheels.Wheel) -> Component:
    """A wheel."""
    name = wheel.name.lower().replace("_", "-")
    return Component(
        "library", wheel.name, wheel.version, f"pkg:pypi/{name}@{wheel.version}", (wheel.license,), wheel.digest
    )


def of_runtime(version: str) -> Component:
    """This project's own floors."""
    purl = f"pkg:generic/tea-runtime@{version}"
    return Component("application", "tea-runtime", version, purl, ("Apache-2.0",), "")


def render(components: Sequence[Component], image: str, version: str, epoch: int, gcc: str) -> bytes:
    """The document. `epoch` in seconds is its time; its serial number is made of its content."""
    parts = [one.to_json() for one in sorted(components, key=lambda one: one.purl)]
    time = datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([image, version, time, parts], sort_keys=True))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {"type": "firmware", "name": image, "version": version},
            "properties": [
                {"name": "tea:build:gcc", "value": gcc},
                {"name": "tea:build:zlib", "value": zlib.ZLIB_RUNTIME_VERSION},
            ],
        },
        "components": parts,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _licenses(package: debian.Package, path: Path) -> tuple[str, ...]:
    for member, content in debian.members(path):
        if content is not None and re.fullmatch(r"usr/share/doc/[^/]+/copyright", member.name):
            text = content.read(1 << 20).decode("utf-8", "replace")
            return tuple(sorted(set(re.findall(r"^License: *(\S[^\n]{0,60})", text, re.MULTILINE)))) or _guess(text)
    # Packages of one source share one copyright file, by a link to the other's folder.
    return ("Python-2.0",) if "python3.11" in package.name else ("see the source package",)


def _guess(text: str) -> tuple[str, ...]:
    known = ("GPL-2", "GPL-3", "LGPL-2.1", "LGPL-3", "Apache License", "MIT", "Zlib", "GFDL", "BSD")
    return tuple(name for name in known if name.lower() in text.lower()) or ("see the source package",)
