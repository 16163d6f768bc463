"""The host's side of the zygote: asks for workers, holds their pidfds, reaps them.

May not: hand the zygote anything but a worker's end of a socketpair. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Final

import msgspec

from .worker.wire import Spawn, Spawned

START_SECONDS: Final = 30.0
SPAWN_SECONDS: Final = 10.0
UID_BASE: Final = 61000
UID_COUNT: Final = 4000
"""Unprivileged uids that workers take in turn when the host runs as root."""


class SpawnError(Exception):
    """A worker could not be forked."""


class Process:
    """A forked worker: pid, pidfd, and the future of its end."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self._loop = loop
        self._pidfd = os.pidfd_open(pid)
        self.ended: asyncio.Future[str] = loop.create_future()
        """How it ended, in words."""
        loop.add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """SIGKILL; nothing when it is gone already."""
        if not self.ended.done():
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            words = "ended (reaped elsewhere)"
        else:
            words = describe_exit(info)
        os.close(self._pidfd)
        self.ended.set_result(words)


def describe_exit(info: os.waitid_result | None) -> str:
    """A process's end in words."""
    if info is None:
        return "ended"
    if info.si_code == os.CLD_EXITED:
        return f"exit status {info.si_status}"
    try:
        name = signal.Signals(info.si_status).name
    except ValueError:
        name = f"signal {info.si_status}"
    hint = {"SIGXCPU": " (its CPU time was used up)", "SIGKILL": " (killed, or its CPU time was used up)"}
    return f"ended by {name}{hint.get(name, '')}"


class Zygote:
    """Starts the zygote process on first use, and again when it died."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._token = 0
        self._uid = 0
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it now, so that the first worker does not wait. Raises `SpawnError`."""
        async with self._lock:
            await self._ensure()

    async def spawn(self, name: str, *, memory_bytes: int, cpu_seconds: int) -> tuple[Process, socket.socket]:
        """Fork a worker; its process and the host's end of its socketpair. Raises `SpawnError`."""
        async with self._lock:
            try:
                return await self._spawn(name, memory_bytes, cpu_seconds)
            except (OSError, EOFError):
                # The zygote died between two requests: one new zygote, one more try.
                self._discard()
                try:
                    return await self._spawn(name, memory_bytes, cpu_seconds)
                except (OSError, EOFError) as error:
                    raise SpawnError(f"the zygote died twice while it forked {name}: {error}") from error

    async def _spawn(self, name: str, memory_bytes: int, cpu_seconds: int) -> tuple[Process, socket.socket]:
        control = await self._ensure()
        ours, theirs = socket.socketpair()
        try:
            self._token += 1
            uid = None
            if os.geteuid() == 0:
                uid = UID_BASE + self._uid
                self._uid = (self._uid + 1) % UID_COUNT
            request = Spawn(self._token, name, uid, memory_bytes, cpu_seconds)
            descriptor = array.array("i", [theirs.fileno()])
            control.sendmsg(
                [msgspec.msgpack.encode(request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.tobytes())]
            )
            answer = await self._receive(control, SPAWN_SECONDS)
            if answer.error is not None or answer.token != self._token:
                raise SpawnError(f"{name} could not be forked: {answer.error or 'the zygote answered another request'}")
            return Process(answer.pid, self._loop), ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    async def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._discard()
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            self._process = subprocess.Popen(  # noqa: ASYNC220 (a fork and exec of a known program, once)
                [sys.executable, "-m", "tea.runtime.worker.zygote"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None,
                env=environment,
                close_fds=True,
            )
            theirs.close()
            ours.setblocking(False)
            self._control = ours
            self.starts += 1
            try:
                await self._receive(ours, START_SECONDS)
            except (EOFError, TimeoutError) as error:
                self._discard()
                raise SpawnError(f"the zygote did not start: {error or 'no word in time'}") from error
        return self._control

    async def _receive(self, control: socket.socket, seconds: float) -> Spawned:
        future: asyncio.Future[bytes] = self._loop.create_future()

        def readable() -> None:
            if future.done():
                return
            try:
                future.set_result(control.recv(4096))
            except BlockingIOError:
                pass
            except OSError as error:
                future.set_exception(error)

        self._loop.add_reader(control.fileno(), readable)
        try:
            data = await asyncio.wait_for(future, seconds)
        finally:
            self._loop.remove_reader(control.fileno())
        if not data:
            raise EOFError("the zygote closed its socket")
        return msgspec.msgpack.decode(data, type=Spawned)

    def _discard(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it. Its workers live on until they are drained or killed."""
        self._discard()
