"""Thespian's own tests pass inside the workers of a real enclave, as far as they apply to `simpleSystemBase`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tea.trust.bundle import ClaimsInput, build_archive, build_bundle

from .thespian_suite import sdist

WORKERS = 24
"""Most tests sleep most of their time."""
LEAST = 230
"""Tests that run and pass: fewer would mean that they were not found."""
DOCUMENT = (Path(__file__).parents[2] / "docs" / "thespian.md").read_text()


@pytest.fixture(scope="module")
def source() -> bytes:
    try:
        return sdist.sdist()
    except sdist.NotToBeHad as error:
        pytest.skip(f"Thespian's source distribution is not to be had ({error}): `make thespian-suite` downloads it")


@pytest.fixture
async def suite(enclave: Any, source: bytes) -> Any:
    files = build_archive(sdist.bundle_files(source))
    claims = ClaimsInput(
        name="suite", version="0.1.0", entry="suite:Suite", issued_at=int(time.time()), capabilities={}
    )
    enclave.bundles["suite"] = build_bundle(files, claims, enclave.key)
    await enclave.push(
        enclave.manifest(
            links="  - {from: parent, to: suite, operations: [names, run, unloadable]}",
            actors={"suite": f", replicas: {WORKERS}, limits: {{memory_mib: 256}}"},
        )
    )
    return enclave


async def test_thespians_own_tests_pass_inside_a_worker(suite: Any) -> None:
    assert await suite.call("suite", "unloadable") == {}
    left_out = sdist.LEFT_OUT.keys() | (set() if os.environ.get("TEA_THESPIAN_ALL") else set(sdist.SLOW))
    names = await suite.call("suite", "names")
    assert {name for name in left_out if "::" in name} <= set(names)
    # The longest first: they sleep beside all the others.
    waiting = iter(sorted(set(names) - left_out, key=lambda name: (not name.startswith("test_troupe"), name)))
    outcomes: dict[str, tuple[str, str]] = {}

    async def lane() -> None:
        for name in waiting:
            outcomes[name] = tuple(await suite.call("suite", "run", name))

    await asyncio.gather(*(lane() for _ in range(WORKERS)))
    failed = [f"{name}\n{text}" for name, (outcome, text) in outcomes.items() if outcome == "failed"]
    assert not failed, "\n".join(failed)
    skipped = {text for outcome, text in outcomes.values() if outcome == "skipped"}
    assert all("simpleSystemBase" in reason or "primary testing process" in reason for reason in skipped), skipped
    passed = [name for name, (outcome, _) in outcomes.items() if outcome == "passed"]
    assert len(passed) >= LEAST
    print(f"{len(passed)} of {len(outcomes)} of Thespian's tests passed; the others skip simpleSystemBase themselves")


def test_what_is_left_out_is_documented_with_its_reason() -> None:
    for name, reason in sdist.LEFT_OUT.items():
        assert f"| `{name}` | {reason} |" in DOCUMENT


def test_without_an_index_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdist, "KEPT", tmp_path / "build" / sdist.FILE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(sdist.NotToBeHad, match="thespian"):
        sdist.sdist()
    assert not sdist.KEPT.exists()


def test_another_distribution_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / sdist.FILE
    kept.write_bytes(b"something else")
    monkeypatch.setattr(sdist, "KEPT", kept)
    with pytest.raises(ValueError, match="expected a4ae"):
        sdist.sdist()
