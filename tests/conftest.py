"""What holds for every test. Some packages for Ethereum raise the interpreter's recursion limit when they are imported;
under it deep JSON or YAML from outside overflows the C stack and ends the whole run, so each test starts with the
interpreter's own limit, as the programs under test do.
"""

from __future__ import annotations

import sys
from typing import Final

import pytest

LIMIT: Final = sys.getrecursionlimit()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    sys.setrecursionlimit(LIMIT)
