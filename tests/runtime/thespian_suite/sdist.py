"""Thespian's own tests, taken from its source distribution (MIT) and made into a bundle; nothing of it is committed.

May not: change what a test does. Imports of pytest and unittest, which a worker does not have, lead to small doubles.
Rule: docs/thespian.md, "Thespian's own tests".
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

REQUIREMENT: Final = "thespian==4.0.1"
SHA256: Final = "a4ae87849ca24d4545555a7fa45c500e2cae0ce03cba0ddf863cfb576d76a819"
FILE: Final = "thespian-4.0.1.tar.gz"
FOLDER: Final = "thespian-4.0.1/thespian/test/"
HERE: Final = Path(__file__).parent
KEPT: Final = Path(__file__).parents[3] / "build" / FILE
OWN: Final = ("suite.py", "suite_pytest.py", "suite_unittest.py")

LEFT_OUT: Final = {
    "test_actorSignals": "sends signals to the processes of the multiprocess bases",
    "test_director": "`thespian.director` reads its groups from files; a worker does not offer it",
    "test_ipbase": "addresses of the socket transports; a worker does not offer them",
    "test_runcommand": "`thespian.runcommand` starts subprocesses; a worker does not offer it",
    "test_sourceLoading": "writes zip files to a folder and loads them; a worker has no files",
    "test_threadedActor": "starts threads; a worker has one",
    "test_threadedExternal": "starts threads; a worker has one",
    "test_troupe::testLoadableColony": "writes a zip file and loads it; a worker has no files",
    "test_troupe::testLoadableHive": "writes a zip file and loads it; a worker has no files",
}
"""Module or test -> why a worker cannot run it."""
SLOW: Final = ("test_troupe::testSmallHive_AdjMsg", "test_troupe::testSmallHive_AdjStr")
"""They sleep for half a minute each: `make thespian-suite` runs them too."""


class NotToBeHad(Exception):
    """The source distribution could not be downloaded; the reason."""


def sdist() -> bytes:
    """The source distribution, from `build/` or the index. Raises `NotToBeHad`, or `ValueError` on another hash."""
    if not KEPT.is_file():
        _download()
    data = KEPT.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ValueError(f"{KEPT}: found sha256 {found}, expected {SHA256}: remove it")
    return data


def _download() -> None:
    KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "0"]
        command += ["--timeout", "5", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        try:
            subprocess.run(
                [*command, "--dest", folder, "-r", str(wanted)], capture_output=True, check=True, timeout=60, text=True
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            lines = str(error.stderr or error).strip().splitlines()
            raise NotToBeHad(lines[-1] if lines else str(error)) from None
        (Path(folder) / FILE).replace(KEPT)


def modules(data: bytes) -> dict[str, bytes]:
    """The test modules of the distribution by name; `__init__` is their common ground."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            name = member.name.removeprefix(FOLDER)
            if name != member.name and re.fullmatch(r"(sub1/[\w/]+|__init__|test_\w+)\.py", name):
                file = archive.extractfile(member)
                assert file is not None
                found[name.removesuffix(".py")] = file.read()
    return found


def bundle_files(data: bytes) -> dict[str, bytes]:
    """What goes into the suite's bundle."""
    found = modules(data)
    files = {"suite_base.py": _adapted(found.pop("__init__"))}
    files |= {f"{name}.py": _adapted(text) for name, text in found.items() if name not in LEFT_OUT}
    tests = sorted(name for name in found.keys() - LEFT_OUT.keys() if "/" not in name)
    packages = sorted(name.removesuffix("/__init__").replace("/", ".") for name in found if "/" in name)
    files["suite_names.py"] = f"MODULES = {tests!r}\nPACKAGES = {packages!r}\n".encode()
    return files | {name: (HERE / name).read_bytes() for name in OWN}


def _adapted(source: bytes) -> bytes:
    text = source.decode()
    for name in ("pytest", "unittest"):
        text = re.sub(rf"^(\s*)import {name}$", rf"\1import suite_{name} as {name}", text, flags=re.MULTILINE)
        text = re.sub(rf"^(\s*)from {name} import", rf"\1from suite_{name} import", text, flags=re.MULTILINE)
    return re.sub(r"^(\s*)from thespian\.test import", r"\1from suite_base import", text, flags=re.MULTILINE).encode()
