"""`teactl dev`'s engine: watch an actor's project, and turn each save into a signed upgrade of a running enclave.

May not: run the actor's code here, or touch an enclave that is not simulated: the development key proves nothing.
Rule: docs/actors.md, "A new project".
"""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from tea.parent_client import building
from tea.parent_client.files import read_text
from tea.parent_client.operating import with_client
from tea.parent_client.operator import ClientStatus, Push
from tea.parent_client.pinning import pin
from tea.parent_client.refusal import Refusal
from tea.parent_client.registry import NetworkEntry
from tea.protocol.channels import Activation
from tea.trust import pcr
from tea.trust.approval import approve
from tea.trust.errors import TrustError
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest
from tea.trust.manifest_yaml import read_yaml

LOOK_SECONDS: Final = 0.04
"""Between two looks at the files; a look is a stat of each."""
SETTLE_SECONDS: Final = 0.015
"""The files must stay as they are for so long: an editor may write several, or one in pieces."""
PUSH_SECONDS: Final = 60.0
_FRESH: Final = 5.0
"""Seconds: a file that was changed longer ago was not saved just now (but moved here, say)."""

Snapshot = Mapping[Path, tuple[int, int, int]]


@dataclass(frozen=True)
class Upgrade:
    """One save, served."""

    enclaves: tuple[str, ...]
    revision: int
    actor: str
    version: str
    seen: float
    """Seconds from the save until it was seen."""
    built: float
    """Seconds for build, signature, pinning and approval."""
    served: float
    """Seconds until every enclave served the new revision."""

    @property
    def total(self) -> float:
        """Seconds from the save to the new revision serving."""
        return self.seen + self.built + self.served


@dataclass
class Workshop:
    """One project and the network that runs it."""

    folder: Path
    manifest: Path
    bundles: Path
    key: PrivateKey
    environment: Mapping[str, str] = field(default_factory=dict)

    def deployment(self) -> str:
        """The deployment that the manifest names. Raises `Refusal` or `ManifestError`."""
        text = read_text(self.manifest, "manifest")
        read_yaml(text, str(self.manifest))  # refuses what no manifest may hold, with its line
        found = _scalar(text, "deployment")
        if found is None:
            raise Refusal(f"{self.manifest}: found no deployment, expected its name: `teactl actor new` writes one")
        return str(found.value)

    # -- watching --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What the files are like now: those that go into the bundle, bundle.yaml and the manifest."""
        paths = [self.folder / building.DESCRIPTION, self.manifest]
        try:
            paths += building.source_paths(self.folder, building.read_source(paths[0]))
        except (Refusal, TrustError, OSError):
            pass  # bundle.yaml is broken just now: a change of it is what is waited for
        found: dict[Path, tuple[int, int, int]] = {}
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue
            found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    async def saved(self, before: Snapshot) -> tuple[Snapshot, float]:
        """Wait for a change; the files as they are then, and the time of the save (seconds since the epoch)."""
        while (now := self.snapshot()) == before:  # noqa: ASYNC110 (the file system has no events that all editors cause)
            await asyncio.sleep(LOOK_SECONDS)
        seen = time.time()
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            again = self.snapshot()
            if again == now:
                break
            now = again
        newest = max((one[0] / 1e9 for path, one in now.items() if before.get(path) != one), default=seen)
        return now, newest if 0 <= seen - newest < _FRESH else seen

    # -- upgrading -------------------------------------------------------------------------------------------------

    async def upgrade(self, network: NetworkEntry, saved: float) -> Upgrade:
        """Build, sign, approve and push what is there. Raises `Refusal`, `TrustError`, `CallError` or `OSError`."""
        began = time.time()
        status: ClientStatus = await with_client(
            Path(network.enclaves[0].folder), lambda client: client.ask("status", timeout=PUSH_SECONDS)
        )
        running = status.enclave.revision if status.enclave is not None else None
        built = self._build()
        settings = self._settings(network, (running or 0) + 1)
        ready = time.time()
        activation: Activation | None = None
        for enclave in network.enclaves:
            activation = await with_client(
                Path(enclave.folder), lambda client: client.ask("push", settings, timeout=PUSH_SECONDS)
            )
        served = time.time()
        if activation is None:
            raise Refusal(f"the network {network.name} has no enclave")
        names = tuple(enclave.name for enclave in network.enclaves)
        return Upgrade(
            names,
            activation.revision,
            built.source.name,
            built.source.version,
            seen=max(0.0, began - saved),
            built=ready - began,
            served=served - ready,
        )

    def _build(self) -> building.Built:
        description = self.folder / building.DESCRIPTION
        for path in building.source_paths(self.folder, building.read_source(description)):
            if path.suffix == ".py":
                _require_syntax(path)
        return building.build(description, self.key, self.bundles)

    def _settings(self, network: NetworkEntry, least: int) -> Push:
        text = read_text(self.manifest, "manifest")
        slots = {one.name: pcr.pcr4(one.instance_id).hex() for one in network.enclaves if one.instance_id is not None}
        text = pin(text, str(self.manifest), issuer=self.key.public, bundles=self.bundles, members=slots)
        manifest = parse_manifest(_with_revision(text, least), str(self.manifest))
        found = building.bundles_by_digest(self.bundles)
        missing = [name for name, actor in manifest.actors.items() if actor.bundle not in found]
        if missing:
            raise Refusal(f"{self.manifest}: found no bundle of {', '.join(missing)} in {self.bundles}: build it there")
        paths = tuple(str(found[actor.bundle].absolute()) for actor in manifest.actors.values())
        return Push(approve(manifest.canonical(), self.key), (), dict(self.environment), paths)


def _require_syntax(path: Path) -> None:
    """Raise `Refusal` that shows where a file is no Python. Parsing runs nothing."""
    try:
        ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        at = f"{path}:{error.lineno}" if error.lineno else str(path)
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise Refusal(f"{at}: {error.msg}{line}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refusal(f"{path}: this is no Python: {error}") from None


def _with_revision(text: str, least: int) -> str:
    """The manifest with a revision of at least `least`: what runs already has a lower one."""
    found = _scalar(text, "revision")
    if found is None or not found.value.isdigit() or int(found.value) >= least:
        return text
    return text[: found.start_mark.index] + str(least) + text[found.end_mark.index :]


def _scalar(text: str, name: str) -> yaml.ScalarNode | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == name and isinstance(value, yaml.ScalarNode):
            return value
    return None
