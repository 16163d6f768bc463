"""The sandbox for a host that is an ordinary user: the same promises, by a user namespace instead of root's rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SELECTED = (
    "opening_files or opening_sockets or vsock or forking or executing or reading_proc or killing or mapping "
    "or (attacking and (ptrace or unshare)) or closing_its_socket or eating_memory"
)

# Runs a command as an ordinary user. The interpreter may lie where only root looks: then, in a mount
# namespace of its own, the closed folder is covered by an open one that holds the interpreter alone.
AS_USER = """
import os, sys
from tea.runtime.worker.kernel import mount, system_call
prefix, user, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
closed = next((p for p in reversed([prefix, *__import__("pathlib").Path(prefix).parents])
               if not os.stat(p).st_mode & 1), None)
if closed:
    system_call("unshare", 0x20000)
    mount(None, "/", None, 0x4000 | 1 << 18)
    mount("cover", "/mnt", "tmpfs", 0, "mode=0755")
    os.mkdir("/mnt/prefix")
    mount(prefix, "/mnt/prefix", None, 0x1000 | 0x4000)
    mount("cover", str(closed), "tmpfs", 0, "mode=0755")
    os.makedirs(prefix)
    mount("/mnt/prefix", prefix, None, 0x1000 | 0x4000)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.execv(command[0], command)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that belongs to the ordinary user; short, for the sockets in it."""
    made = Path("/tmp") / f"tea-user-{os.getpid()}"
    made.mkdir()
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


def as_user(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_USER, sys.base_prefix, str(NOBODY), sys.executable, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_ordinary_users_host_contains_its_adversaries(folder: Path) -> None:
    ended = as_user(
        folder, "-P", "-m", "pytest", "tests/runtime/test_adversaries.py", "-k", SELECTED, "-q",
        "-p", "no:cacheprovider", "-p", "no:cov", f"--basetemp={folder / 'pytest'}",
    )  # fmt: skip
    if "cannot open" in ended.stderr:
        pytest.skip(ended.stderr)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    assert "passed" in ended.stdout or ended.stdout.count(".") > 10


def test_an_ordinary_user_is_told_what_lacks_and_what_replaces_it(folder: Path) -> None:
    script = (
        "from tea.runtime.worker.probe import probe_apart\n"
        "report = probe_apart()\n"
        "print(sorted(report.held))\nprint([(one.layer.value, one.why) for one in report.lacking])\n"
    )
    ended = as_user(folder, "-c", script)
    assert ended.returncode == 0, ended.stderr
    held, lacking = ended.stdout.splitlines()
    assert "own-uid" in lacking and "the host is not root" in lacking
    if "user-namespace" in held:
        assert all(layer in held for layer in ("pid-namespace", "empty-root", "network-namespace"))
