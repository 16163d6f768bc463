"""A cgroup (version 2) for each worker: memory with what the kernel holds for it, processes, CPU.

May not: touch a cgroup that others use. It is the host that makes them; a worker is born in its own. Rule: cgroups(7);
Documentation/admin-guide/cgroup-v2.rst, "No internal processes" (so the host moves itself into a leaf).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Final

from .layers import Finding, Layer

CONTROLLERS: Final = ("memory", "pids", "cpu")
BASE_BYTES: Final = 32 << 20
"""What a worker may use beside its actor's memory: the interpreter's copied pages, page tables, socket buffers.

Above the limit on address space, so that an actor that eats memory gets a MemoryError first, and this is the backstop.
"""
CPU_MAX: Final = "90000 100000"
"""Microseconds of each 100 ms: a spinning worker leaves a tenth of its core to others."""


class CgroupError(Exception):
    """There is no cgroup to be had; the sentence says why."""


class WorkerCgroup:
    """One worker's cgroup, from before its birth until after its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def born(self) -> None:
        """The worker is in it: the descriptor is not needed any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """Remove it; its process was reaped. What cannot be removed now is left empty."""
        self.born()
        try:
            self.path.rmdir()
        except OSError:
            pass


class Cgroups:
    """The part of the cgroup tree that this host has to itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = folder / f"tea-workers-{os.getpid()}"
        self._numbers = itertools.count(1)

    @classmethod
    def examine(cls, mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Cgroups:
        """The host's own cgroup, if workers' can be made in it; changes nothing. Raises `CgroupError`."""
        mount = _mount_point(mounts)
        folder = mount / _own_path(own).lstrip("/")
        try:
            there = (folder / "cgroup.controllers").read_text().split()
            members = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        except OSError as error:
            raise CgroupError(f"{folder}: {error.strerror}") from error
        missing = [name for name in CONTROLLERS if name not in there]
        if missing:
            names = ", ".join(missing)
            raise CgroupError(f"{names} cannot be had in {folder} (mounted as version 1, or not delegated)")
        if not os.access(folder, os.W_OK) or not os.access(folder / "cgroup.subtree_control", os.W_OK):
            raise CgroupError(f"{folder} is not this user's to write")
        # The root of the tree has no cgroup.events, and may have processes and children at once.
        if (folder / "cgroup.events").exists() and members - {os.getpid()}:
            raise CgroupError(f"{len(members) - 1} other processes are in {folder}")
        return cls(folder)

    def prepare(self) -> None:
        """Move the host into a leaf where that is needed, and make the workers' parent. Raises `CgroupError`."""
        enable = " ".join(f"+{name}" for name in CONTROLLERS)
        try:
            if (self._folder / "cgroup.events").exists():
                leaf = self._folder / "tea-host"
                leaf.mkdir(exist_ok=True)
                (leaf / "cgroup.procs").write_text(str(os.getpid()))
            (self._folder / "cgroup.subtree_control").write_text(enable)
            self._workers.mkdir(exist_ok=True)
            (self._workers / "cgroup.subtree_control").write_text(enable)
        except OSError as error:
            raise CgroupError(f"{error.filename or self._folder}: {error.strerror}") from error

    def make(self, memory_bytes: int) -> WorkerCgroup:
        """A cgroup for one worker whose actor may use `memory_bytes`. Raises `OSError`."""
        path = self._workers / f"w{next(self._numbers)}"
        path.mkdir()
        limits = {
            "memory.max": str(memory_bytes + BASE_BYTES),
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "pids.max": "1",
            "cpu.max": CPU_MAX,
        }
        for name, value in limits.items():
            if name != "memory.swap.max" or (path / name).exists():  # kernels without swap do not have it
                (path / name).write_text(value)
        return WorkerCgroup(path)

    def close(self) -> None:
        """Remove the workers' parent; nothing when workers are still in it."""
        try:
            self._workers.rmdir()
        except OSError:
            pass


def find_cgroups(*, prepare: bool) -> tuple[Cgroups | None, Finding]:
    """The host's cgroups, and the finding for the report."""
    try:
        cgroups = Cgroups.examine()
        if prepare:
            cgroups.prepare()
    except CgroupError as error:
        return None, Finding(Layer.CGROUP, False, str(error))
    return cgroups, Finding(Layer.CGROUP, True, "memory, processes and CPU of each worker are bounded")


def _mount_point(mounts: Path) -> Path:
    try:
        lines = mounts.read_text().splitlines()
    except OSError as error:
        raise CgroupError(f"{mounts}: {error.strerror}") from error
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if rest.split(" ")[0] == "cgroup2":
            return Path(fields.split(" ")[4])
    raise CgroupError("cgroup2 is not mounted")


def _own_path(own: Path) -> str:
    try:
        for line in own.read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
    except OSError as error:
        raise CgroupError(f"{own}: {error.strerror}") from error
    raise CgroupError("this process is in no cgroup of version 2")
