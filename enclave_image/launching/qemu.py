"""Enclaves in QEMU, each a detached pair of processes that is written down in a folder.

May not: end a process that is not its own (pid and start time say which it is), or be taken for an enclave: whoever
runs this machine reads its memory. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ..eif.codes import ImageCode, ImageError
from ..eif.describe import describe_image
from ..eif.reader import open_image
from ..vm.boot_log import read_boot_log
from ..vm.plan import Commands, MachinePlan, prepare
from .launcher import Enclave, LaunchPlan

FIRST_CID: Final = 16
DEVICE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1
_STARTED: Final = 22 - 3
PLATFORM_MODULE: Final = "tea.simulator.platform_start"
"""A program, not an import: it is of a floor above."""


@dataclass(frozen=True)
class _Process:
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, _start_time(pid) or 0)

    @property
    def is_running(self) -> bool:
        return self.started != 0 and _start_time(self.pid) == self.started

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.is_running:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class _Record:
    name: str
    enclave_id: str
    cid: int
    cpus: int
    memory_mib: int
    image: str
    folder: str
    root: str
    """SHA-256 of the simulated authority's root: what a policy must name."""
    qemu: _Process
    vsock: _Process


class QemuLauncher:
    """Runs images for VMs. `folder` keeps one JSON file an enclave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, plan: LaunchPlan) -> Enclave:
        """Start a machine; returns when QEMU runs, not when it has booted."""
        if plan.parent is None:
            raise ImageError(
                ImageCode.ENCLAVE, "an enclave in QEMU needs its runtime client's socket: give --parent PATH"
            )
        if any(one.name == plan.name and _is_up(one) for one in self._records()):
            raise ImageError(ImageCode.ENCLAVE, f"an enclave {plan.name} runs already: choose another --name")
        enclave_id = f"i-0{secrets.token_hex(8)}-enc0{secrets.token_hex(8)[1:]}"
        with open_image(plan.image) as image:
            pcrs = {index: value.hex() for index, value in describe_image(image).pcrs().items()}
        start, root = _platform_start(enclave_id, pcrs)
        folder = Path(tempfile.mkdtemp(prefix="tea-vm-"))
        try:
            cid = plan.cid or self._free_cid()
            machine = MachinePlan(
                plan.image, folder, start, plan.parent, memory_mib=plan.memory_mib, cpus=plan.cpus, cid=cid
            )
            vsock, qemu = _start(prepare(machine), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        made = _Record(
            plan.name, enclave_id, cid, plan.cpus, plan.memory_mib, str(plan.image), str(folder), root, qemu, vsock
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / f"{enclave_id}.json").write_text(json.dumps(asdict(made), indent=1))
        return _shown(made)

    def enclaves(self) -> tuple[Enclave, ...]:
        """All that were started and not terminated."""
        return tuple(_shown(one) for one in self._records())

    def console(self, name: str, follow: bool) -> None:
        """The console so far; with `follow` until the machine ends."""
        one = self._find(name)
        with (Path(one.folder) / "console").open(encoding="utf-8", errors="replace") as file:
            while True:
                running = _is_up(one)
                sys.stdout.write(file.read())
                sys.stdout.flush()
                if not follow or not running:
                    return
                time.sleep(LOOK_SECONDS)

    def terminate(self, name: str) -> Enclave:
        """End the machine's processes and take its folder away."""
        one = self._find(name)
        for process in (one.qemu, one.vsock):
            process.kill()
        shutil.rmtree(one.folder, ignore_errors=True)
        (self._folder / f"{one.enclave_id}.json").unlink(missing_ok=True)
        return Enclave(one.name, one.enclave_id, one.qemu.pid, one.cid, one.cpus, one.memory_mib, "TERMINATED")

    def _records(self) -> list[_Record]:
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                fields = json.loads(path.read_text())
                fields["qemu"], fields["vsock"] = _Process(**fields["qemu"]), _Process(**fields["vsock"])
                found.append(_Record(**fields))
            except (ValueError, TypeError, KeyError):
                raise ImageError(ImageCode.ENCLAVE, f"{path} is no record of an enclave: remove it") from None
        return found

    def _free_cid(self) -> int:
        taken = {one.cid for one in self._records()}
        return next(cid for cid in itertools.count(FIRST_CID) if cid not in taken)

    def _find(self, name: str) -> _Record:
        for one in self._records():
            if name in (one.name, one.enclave_id):
                return one
        raise ImageError(ImageCode.ENCLAVE, f"no enclave {name} was started here: see `teactl enclave list`")


def _platform_start(enclave_id: str, pcrs: dict[str, str] | dict[int, str]) -> tuple[bytes, str]:
    """A fresh simulated platform: what the host is started with, and the digest of its authority's root."""
    wanted = json.dumps({"module": enclave_id, "pcrs": {str(index): value for index, value in pcrs.items()}})
    done = subprocess.run(
        [sys.executable, "-P", "-m", PLATFORM_MODULE], input=wanted.encode(), capture_output=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ImageError(ImageCode.ENCLAVE, f"the simulated platform: {said[-1]}")
    root, _, start = done.stdout.partition(b"\n")
    return start, root.decode()


def _start(commands: Commands, folder: Path) -> tuple[_Process, _Process]:
    (folder / "console").write_bytes(b"")
    vsock = _spawn(commands.vsock, folder / "vsock.log")
    until = time.monotonic() + DEVICE_SECONDS
    while not commands.ready.exists():
        if not vsock.is_running or time.monotonic() > until:
            vsock.kill()
            said = (folder / "vsock.log").read_text(errors="replace").strip()
            raise ImageError(ImageCode.ENCLAVE, f"the vsock device did not start: {said or 'it said nothing'}")
        time.sleep(LOOK_SECONDS)
    return vsock, _spawn(commands.qemu, folder / "qemu.log")


def _spawn(command: tuple[str, ...], log: Path) -> _Process:
    with log.open("wb") as file:
        made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    return _Process.of(made.pid)


def _is_up(one: _Record) -> bool:
    return one.qemu.is_running


def _shown(one: _Record) -> Enclave:
    try:
        log = read_boot_log((Path(one.folder) / "console").read_text(errors="replace"))
        stage, memory = log.stage.value, log.memory_mib
    except OSError:
        stage, memory = "gone", 0
    state = "RUNNING" if _is_up(one) else "ENDED"
    details = (("Stage", stage), ("UsedMiB", memory), ("SimulatedRoot", f"sha256:{one.root}"))
    return Enclave(one.name, one.enclave_id, one.qemu.pid, one.cid, one.cpus, one.memory_mib, state, details)


def _start_time(pid: int) -> int | None:
    """Clock ticks after boot at which a process started; None for one that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[_STARTED])
