"""The actors that ship load as bundles do in a worker: through Thespian's loader, under a hash, by their entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tea.sdk import binding
from tea.sdk.system import System
from tea.trust.archive import build_archive

ACTORS = Path(__file__).resolve().parents[2] / "actors"
NAMES = sorted(path.parent.name for path in ACTORS.glob("*/bundle.yaml") if "kind: wasm" not in path.read_text())
"""Those in Python: tests/runtime/test_wasm.py loads the other."""


class NoCaller:
    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        raise AssertionError("nothing is called at load time")

    def tell(self, link: int, operation: int, body: bytes) -> None:
        raise AssertionError("nothing is told at load time")


@pytest.mark.parametrize("name", NAMES)
def test_an_actor_that_ships_loads_from_its_archive(name: str) -> None:
    folder = ACTORS / name
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.py"))
        if not path.name.startswith("test_")
    }
    described = yaml.safe_load((folder / "bundle.yaml").read_text())
    binding.bind(binding.Identity(name, 0, described["version"], "test", {}), (), NoCaller())
    system = System.load(build_archive(files), described["entry"], lambda bundle: bundle)
    assert binding.operations(type(system.instance))
    system.stop()
