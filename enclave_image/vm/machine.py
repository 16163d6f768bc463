"""One running virtual machine: its processes, heartbeat and console.

May not: leave a process behind: both end with this one, however it ends, and a machine that was started is ended.
Rule: docs/architecture.md, "Modes"; AWS's heartbeat (0xB7 on port 9000 and back).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Final

from ..eif.codes import ImageCode, ImageError
from .boot_log import BootLog, Stage, read_boot_log
from .plan import HEARTBEAT_PORT, Commands, MachinePlan, prepare

HEARTBEAT: Final = 0xB7
DEVICE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class VirtualMachine:
    """A machine of a plan. `start`, `booted`, then `ended` or `kill`."""

    def __init__(self, plan: MachinePlan) -> None:
        self.plan = plan
        self.alive = asyncio.Event()
        """Set by the guest's heartbeat."""
        self.heartbeat_seconds: float | None = None
        self._vsock: asyncio.subprocess.Process | None = None
        self._qemu: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Server | None = None
        self._started = 0.0

    async def start(self) -> None:
        """Start the vsock device and QEMU. Raises `ImageError`, `OSError`."""
        if self._qemu is not None:
            raise RuntimeError("this machine was started already")
        commands = prepare(self.plan)
        self.plan.console.write_bytes(b"")
        heartbeat = Path(f"{self.plan.vsock}_{HEARTBEAT_PORT}")
        self._listener = await asyncio.start_unix_server(self._beat, str(heartbeat))
        try:
            await self._start(commands)
        except BaseException:
            await self.kill()
            raise

    async def _start(self, commands: Commands) -> None:
        self._started = time.monotonic()
        self._vsock = await self._spawn(commands.vsock, "vsock.log")
        async with asyncio.timeout(DEVICE_SECONDS):
            while not commands.ready.exists():
                if self._vsock.returncode is not None:
                    raise ImageError(ImageCode.ENCLAVE, f"the vsock device ended: {self._words('vsock.log')}")
                await asyncio.sleep(LOOK_SECONDS)
        self._qemu = await self._spawn(commands.qemu, "qemu.log")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run."""
        running = (one for one in (self._qemu, self._vsock) if one is not None and one.returncode is None)
        return tuple(one.pid for one in running)

    @property
    def is_running(self) -> bool:
        """Whether QEMU runs."""
        return self._qemu is not None and self._qemu.returncode is None

    def log(self) -> BootLog:
        """What the console shows."""
        return read_boot_log(self.plan.console.read_text(errors="replace"))

    async def booted(self, seconds: float) -> BootLog:
        """Wait until init has handed over to the host. Raises `ImageError(ENCLAVE)`: panic, missing module, or slow."""
        until = time.monotonic() + seconds
        while True:
            log = self.log()
            if log.stage is Stage.HOST:
                return log
            if log.stage.is_final or not self.is_running:
                raise ImageError(ImageCode.ENCLAVE, f"the machine did not boot, {log.stage.value}: {self._why(log)}")
            if time.monotonic() > until:
                raise ImageError(
                    ImageCode.ENCLAVE,
                    f"the machine is slow: it did not fail in {seconds:g} s, and is at {log.stage.value}: {log.detail}",
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def ended(self, seconds: float) -> BootLog:
        """Wait for its own end. Raises `TimeoutError`."""
        if self._qemu is not None:
            await asyncio.wait_for(self._qemu.wait(), seconds)
        await self._stop_rest()
        return self.log()

    async def kill(self) -> None:
        """End it as a power failure would."""
        if self._qemu is not None and self._qemu.returncode is None:
            self._qemu.kill()
            await self._qemu.wait()
        await self._stop_rest()

    def resident_mib(self) -> float:
        """Host memory that QEMU holds, MiB."""
        if self._qemu is None:
            return 0.0
        try:
            fields = Path(f"/proc/{self._qemu.pid}/statm").read_text().split()
        except OSError:
            return 0.0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    async def _stop_rest(self) -> None:
        if self._vsock is not None and self._vsock.returncode is None:
            self._vsock.terminate()
            await self._vsock.wait()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        (self.plan.folder / "initrd").unlink(missing_ok=True)  # it holds the credential

    async def _spawn(self, command: tuple[str, ...], log: str) -> asyncio.subprocess.Process:
        with (self.plan.folder / log).open("wb") as file:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _beat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            beat = await asyncio.wait_for(reader.readexactly(1), 5)
            if beat[0] == HEARTBEAT:
                self.heartbeat_seconds = self.seconds
                writer.write(beat)
                await writer.drain()
                self.alive.set()
        writer.close()

    def _why(self, log: BootLog) -> str:
        return log.detail if log.stage is not Stage.FIRMWARE else self._words("qemu.log") or log.detail

    def _words(self, log: str) -> str:
        try:
            return (self.plan.folder / log).read_text(errors="replace").strip()[-400:]
        except OSError:
            return ""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
