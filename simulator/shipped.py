"""The actors and manifests that ship with the sources, built, pinned and approved with this machine's development key.

May not: be used for anything but development: a development key proves nothing to anybody else.
Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tea
from tea.parent_client.building import build
from tea.parent_client.console import Refusal
from tea.parent_client.pinning import pin
from tea.trust.approval import approve
from tea.trust.keys import PrivateKey
from tea.trust.manifest import Manifest, parse_manifest


def shipped(name: str) -> Path:
    """A folder or file of the source tree, by its path there. Raises `Refusal` in an installation without sources."""
    root = Path(next(iter(tea.__path__))).resolve().parents[1]
    path = root / name
    if not path.exists():
        raise Refusal(f"{path} is not there: this needs the source tree, with its actors and manifests")
    return path


@dataclass(frozen=True)
class Approved:
    """A manifest that is ready to be pushed."""

    manifest: Manifest
    text: str
    """The pinned YAML."""
    envelope: bytes
    """With the approval."""
    bundles: tuple[Path, ...]


def build_actors(names: Iterable[str], key: PrivateKey, out: Path) -> dict[str, Path]:
    """Build and sign actors that ship, into a folder; their bundles' paths by name."""
    return {name: build(shipped(f"actors/{name}/bundle.yaml"), key, out).path for name in names}


def prepare(text: str, filename: str, key: PrivateKey, out: Path, members: Mapping[str, str] | None = None) -> Approved:
    """Build the manifest's actors into `out`, fill in every `pin`, approve. `members` maps slots to PCR4 in hex."""
    names = [path.parent.name for path in shipped("actors").glob("*/bundle.yaml")]
    bundles = build_actors((name for name in names if f"\n  {name}:\n" in text), key, out)
    pinned = pin(text, filename, issuer=key.public, bundles=out, members=members)
    manifest = parse_manifest(pinned, filename)
    return Approved(
        manifest,
        pinned,
        approve(manifest.canonical(), key),
        tuple(bundles[name] for name in manifest.actors),
    )
