"""Puts every actor's folder, and this one, on the path: actors import their modules by bare name, as in a bundle."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ACTORS = HERE.parents[1] / "actors"

for folder in (HERE, *sorted(path.parent for path in ACTORS.glob("*/bundle.yaml"))):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture(scope="session")
def actor_module() -> Callable[[str], Any]:
    """`actor_module("notary")`: the module actors/notary/notary.py."""
    return importlib.import_module
