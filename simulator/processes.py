"""The simulator's OS processes: started, written down, and ended by pid with proof that the pid is still theirs.

May not: end a process by its name, or one that only has the same number (pid, start time and boot say which it is).
Rule: docs/architecture.md, "Modes"; proc(5), pidfd_open(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

_PR_SET_PDEATHSIG: Final = 1
_SESSION: Final = 6 - 3
_STARTED: Final = 22 - 3
"""Session and start time are fields 6 and 22 of /proc/PID/stat; what follows the command begins with field 3."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


class ProcessError(Exception):
    """A process that did not start, or ended before its time; the sentence quotes its console."""


class ProcessRecord(msgspec.Struct, frozen=True):
    """One process, told from every later one with the same pid."""

    name: str
    pid: int
    started: int
    """Clock ticks after boot."""
    boot: str
    """The kernel's boot id."""
    console: str = ""
    """The file that its output goes to."""

    def is_running(self) -> bool:
        """Whether this very process is there still."""
        found = _stat(self.pid)
        return found is not None and int(found[_STARTED]) == self.started and _boot_id() == self.boot


def record(name: str, pid: int, console: Path | str = "") -> ProcessRecord:
    """Write a running process down. Raises `ProcessLookupError` when it is gone."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(f"{name}: no process {pid}")
    return ProcessRecord(name, pid, int(found[_STARTED]), _boot_id(), str(console))


def end_all(processes: Iterable[ProcessRecord], seconds: float) -> list[str]:
    """SIGTERM, wait at most `seconds` in all, SIGKILL what is left, with what they started themselves; who was killed.

    Order matters: the first is asked first. Processes that are gone, or whose pid is another's by now, are left alone.
    """
    deadline = time.monotonic() + seconds
    started = [(one, _session_of(one)) for one in processes if one.is_running()]
    held: list[tuple[ProcessRecord, int]] = []
    for one, _ in started:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(one.pid)
            if one.is_running():  # looked at after the descriptor is held: now it can't become another's
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                held.append((one, descriptor))
            else:
                os.close(descriptor)
    killed: list[str] = []
    for one, descriptor in held:
        try:
            if not _gone(descriptor, max(0.0, deadline - time.monotonic())):
                killed.append(one.name)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _gone(descriptor, 5.0)
        finally:
            os.close(descriptor)
    for _, others in started:
        _kill(others)
    return killed


class Child:
    """A process that this one started, in a session of its own."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], console: Path) -> None:
        self.name = name
        self.console = console
        self.record = record(name, popen.pid, console)
        self._popen = popen
        self._descriptor = os.pidfd_open(popen.pid)
        self._others: list[ProcessRecord] = []

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    async def ended(self, timeout: float | None = None) -> bool:
        """Wait for its end, at most `timeout` seconds; whether it has ended."""
        if self.returncode is not None:
            return True
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        # A copy: two may wait at a time, and a loop watches a descriptor once.
        descriptor = os.dup(self._descriptor)
        loop.add_reader(descriptor, over.set)
        try:
            await asyncio.wait_for(over.wait(), timeout)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._popen.wait()
        return True

    def kill(self) -> None:
        """SIGKILL, as a crash would be; its own children are for it to have tied to its life."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: asked to end."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._others = _session_of(self.record)
            signal.pidfd_send_signal(self._descriptor, number)

    async def end(self, seconds: float = 5.0) -> None:
        """Ask it to end, kill it after `seconds`, and whatever it left behind."""
        self.terminate()
        if not await self.ended(seconds):
            self._signal(signal.SIGKILL)
            await self.ended()
        _kill(self._others)

    def end_now(self) -> None:
        """`end` where nothing can be awaited any more: SIGKILL."""
        self._signal(signal.SIGKILL)
        self._popen.wait()
        _kill(self._others)

    def last_words(self, lines: int = 5) -> str:
        """The end of its console."""
        try:
            text = self.console.read_text(errors="replace").strip()
        except OSError:
            text = ""
        return "\n".join(text.splitlines()[-lines:]) or "it said nothing"


def start(
    name: str,
    arguments: Sequence[str],
    console: Path,
    *,
    tied: bool,
    pass_fds: Sequence[int] = (),
    stdout: int | None = None,
) -> Child:
    """Start `python ARGUMENTS...` in a session of its own. Output goes to the file `console`.

    `tied`: the kernel ends it when this process ends, however that happens. Call it on the main thread.
    """
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("ab") as file:
        popen = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=_die_with_parent if tied else None,
        )
    return Child(name, popen, console)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat after the command, None for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _session_of(leader: ProcessRecord) -> list[ProcessRecord]:
    """What runs in the session that a process leads, beside itself."""
    found: list[ProcessRecord] = []
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields is not None and int(fields[_SESSION]) == leader.pid and int(path.name) != leader.pid:
            found.append(ProcessRecord(leader.name, int(path.name), int(fields[_STARTED]), leader.boot))
    return found


def _kill(processes: Iterable[ProcessRecord]) -> None:
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(one.pid)
            try:
                if one.is_running():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    _gone(descriptor, 5.0)  # at once, as a rule
            finally:
                os.close(descriptor)


def _gone(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
