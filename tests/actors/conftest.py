"""Gives the tests of actors the folder that they are in, and its modules by name, as in a bundle."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ACTORS = Path(__file__).resolve().parents[2] / "actors"


@pytest.fixture(scope="session")
def actor_module() -> Callable[[str], Any]:
    """`actor_module("notary")`: the module actors/notary/notary.py, its folder on the path."""

    def load(name: str) -> Any:
        folder = str(ACTORS / name)
        if folder not in sys.path:
            sys.path.append(folder)
        return importlib.import_module(name)

    return load
