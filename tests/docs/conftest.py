"""The script that writes the documents' tables, as a module.

May not: write. Rule: CONTRIBUTING.md, "Documents".
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from .documents import ROOT


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    """docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_generate"] = module
    spec.loader.exec_module(module)
    return module
