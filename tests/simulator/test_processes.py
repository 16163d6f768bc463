"""Processes are ended by proof of who they are, and take with them what they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tea.simulator.processes import Child, ProcessRecord, end_all, record, start

WAITS = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)
HAS_CHILD = f"import subprocess, sys, signal; subprocess.Popen([sys.executable, '-c', {WAITS!r}]); signal.pause()"


def up(folder: Path, code: str, *, tied: bool = True) -> Child:
    """A process that runs `code`, once it has said that it is up."""
    child = start("test", ["-c", code], folder / "console", tied=tied)
    for _ in range(1000):
        if "up" in child.console.read_text():
            return child
        time.sleep(0.01)
    raise AssertionError(f"it did not come up: {child.last_words()}")


async def test_a_process_is_asked_to_end_and_reaped(tmp_path: Path) -> None:
    child = up(tmp_path, WAITS)
    assert child.record.is_running()
    await child.end()
    assert child.returncode == -signal.SIGTERM
    assert not child.record.is_running()


async def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = up(tmp_path, STUBBORN)
    await child.end(seconds=0.1)
    assert child.returncode == -signal.SIGKILL


async def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    child = up(tmp_path, HAS_CHILD)
    session = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _session(int(path.name)) == child.pid]
    assert len(session) == 2
    await child.end()
    assert [pid for pid in session if _session(pid) == child.pid] == []


def _session(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[3])


async def test_a_tied_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path; from tea.simulator.processes import start\n"
        f"child = start('x', ['-c', {WAITS!r}], Path({str(tmp_path / 'inner')!r}), tied=True)\n"
        "print(child.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        inner = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()
    import select

    poll = select.poll()
    poll.register(inner, select.POLLIN)
    assert poll.poll(5000), "it outlived its starter"
    os.close(inner)


def test_a_process_that_only_has_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    child = up(tmp_path, WAITS)
    other = msgspec.structs.replace(child.record, started=child.record.started - 1)
    another_boot = msgspec.structs.replace(child.record, boot="0")
    assert not other.is_running()
    assert end_all([other, another_boot], 1.0) == []
    assert child.record.is_running()
    assert end_all([child.record], 5.0) == []
    assert not child.record.is_running()
    child.end_now()


def test_ending_many_kills_who_does_not_listen(tmp_path: Path) -> None:
    children = [up(tmp_path / "a", WAITS, tied=False), up(tmp_path / "b", STUBBORN, tied=False)]
    named = [msgspec.structs.replace(one.record, name=name) for one, name in zip(children, "ab", strict=True)]
    assert end_all(named, 0.3) == ["b"]
    assert not any(one.is_running() for one in named)
    for child in children:
        child.end_now()


def test_a_process_that_is_gone_cannot_be_written_down() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with pytest.raises(ProcessLookupError):
        record("gone", gone.pid)


def test_a_record_survives_a_file(tmp_path: Path) -> None:
    own = record("self", os.getpid())
    assert msgspec.json.decode(msgspec.json.encode(own), type=ProcessRecord) == own
    assert own.is_running()
