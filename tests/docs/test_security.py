"""Every way of being wrong has a code, and every code a test; docs/security.md says which.

Rule: docs/security.md, "Every way of being wrong".
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def security_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tea_docs_security_table", ROOT / "docs" / "security_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_code_has_a_test(security_table: ModuleType) -> None:
    missing = security_table.untested()
    assert not missing, f"no test expects {', '.join(missing)}: write one"


def test_the_page_is_up_to_date(security_table: ModuleType) -> None:
    text = security_table.PAGE.read_text()
    assert security_table.page(text) == text, "run `.venv/bin/python docs/security_table.py`"


def test_every_family_is_in_the_table(security_table: ModuleType) -> None:
    families = {code.family for code in security_table.codes()}
    assert families >= {
        "AttestationCode",
        "AuditCode",
        "BundleCode",
        "CanonicalCode",
        "EventLogCode",
        "ManifestCode",
        "PolicyCode",
        "ReleaseCode",
        "RoundCode",
        "SealCode",
        "SigningCode",
        "StateCode",
        "StatementCode",
    }


def test_the_tests_that_it_names_are_there(security_table: ModuleType) -> None:
    named = {where[0] for where in security_table.tests().values()}
    for path in {one.partition("::")[0] for one in named}:
        text = (ROOT / path).read_text()
        for one in named:
            if one.startswith(f"{path}::"):
                assert f"def {one.partition('::')[2]}(" in text


def test_a_code_without_a_test_would_be_seen(security_table: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    code = security_table.Code("trust/x.py", "InventedCode", "NOTHING", "nothing-tests-this", "")
    known = security_table.codes()
    monkeypatch.setattr(security_table, "codes", lambda: [*known, code])
    assert "InventedCode.NOTHING" in security_table.untested()
    assert "| `nothing-tests-this` | nothing tests this. | **none** |" in security_table.table()


def test_the_makefile_has_the_target() -> None:
    done = subprocess.run(["make", "-n", "fuzz", "SECONDS=7"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/fuzz --seconds 7" in done.stdout
