"""The tour of docs/secrets.md goes as it says, and nowhere in it does the secret appear.

Rule: docs/secrets.md, "Where a secret never appears".
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "docs" / "secrets_tour.py"


class Tour(NamedTuple):
    """What a run of the tour left behind."""

    secret: bytes
    folder: Path
    said: str
    processes: set[bytes]
    """Every command line and environment that was seen while it ran."""


def sightings(folder: Path, seen: set[bytes], over: threading.Event) -> None:
    """Look at the processes of this run (what mentions its folder), as `ps` does, until it is over."""
    mark = str(folder).encode()
    while not over.wait(0.02):
        for path in Path("/proc").glob("[0-9]*"):
            try:
                line = (path / "cmdline").read_bytes()
                if mark in line:
                    seen.add(line)
                    seen.add((path / "environ").read_bytes())
            except (OSError, PermissionError):
                continue


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """One run of the tour."""
    outside, folder = tmp_path_factory.mktemp("owner"), tmp_path_factory.mktemp("t")
    # Letters and digits, so that no escaping hides it.
    secret = secrets.token_hex(8).encode() + b"Zq" + secrets.token_hex(8).encode()
    (outside / "key").write_bytes(secret)
    seen: set[bytes] = set()
    over = threading.Event()
    looking = threading.Thread(target=sightings, args=(folder, seen, over))
    looking.start()
    try:
        command = [sys.executable, str(TOUR), "--folder", str(folder), "--in", str(outside / "key")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, env={**os.environ, "LC_ALL": "C"})
    finally:
        over.set()
        looking.join()
    assert done.returncode == 0, done.stdout + done.stderr
    yield Tour(secret, folder, done.stdout + done.stderr, seen)


def spellings(secret: bytes) -> list[bytes]:
    """The secret raw, in hex, and in base64 wherever within other bytes it begins."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)
        # Without the characters that depend on what stands before and behind.
        inner = encoded[{0: 0, 1: 2, 2: 3}[shift] : len(encoded) // 4 * 4 - 4]
        found += [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def test_the_tour_goes_as_the_page_says(tour: Tour) -> None:
    assert "The tour is over: all went as it should." in tour.said
    assert "PCR16 is" in tour.said
    assert "is revoked" in tour.said
    assert "was changed: its digest is" in tour.said


def test_no_file_of_a_full_run_shows_the_secret(tour: Tour) -> None:
    looked_at = 0
    for path in tour.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            looked_at += 1
            for spelling in spellings(tour.secret):
                assert spelling not in data, path
    # Consoles and logs of both enclaves and parents, the vault, its audit log: it looked where it should.
    assert looked_at >= 12
    assert list(tour.folder.rglob("log.jsonl"))
    assert list(tour.folder.rglob("*.console"))


def test_nothing_that_was_said_shows_the_secret(tour: Tour) -> None:
    for spelling in spellings(tour.secret):
        assert spelling.decode() not in tour.said


def test_no_command_line_or_environment_shows_the_secret(tour: Tour) -> None:
    lines = b"\n".join(tour.processes)
    assert b"tea.runtime" in lines  # the enclaves were seen
    assert b"secrets\0serve" in lines
    for spelling in spellings(tour.secret):
        assert spelling not in lines


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc"])
def test_the_search_would_find_it(before: bytes) -> None:
    secret = b"0123456789abcdefZq0123456789abcdef"
    for shown in (before + secret, (before + secret).hex().encode(), base64.b64encode(before + secret + b"rest")):
        assert any(spelling in shown for spelling in spellings(secret))
