"""The host's side of the zygote: asks for workers, holds their pidfds, reaps them.

May not: hand the zygote anything but a worker's ends of socketpairs. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from .refusals import Listener
from .worker.cgroup import Cgroups, WorkerCgroup, find_cgroups
from .worker.layers import Layer, SandboxReport
from .worker.sandbox import Born
from .worker.seccomp_policy import Profile
from .worker.wire import Awake, Spawn, Spawned

START_SECONDS: Final = 30.0
SPAWN_SECONDS: Final = 10.0
MESSAGE: Final = 16384
UID_BASE: Final = 61000
UID_COUNT: Final = 4000
"""Unprivileged uids that workers take in turn when the host runs as root."""


class SpawnError(Exception):
    """A worker could not be forked, or not be closed in."""


class SandboxLacking(SpawnError):
    """The manifest demands a sandbox (`sandbox: require`) that this kernel does not grant."""


class Process:
    """A forked worker: pid, pidfd, and the future of its end."""

    def __init__(
        self, pid: int, loop: asyncio.AbstractEventLoop, *, cpu_seconds: int = 0, cgroup: WorkerCgroup | None = None
    ) -> None:
        self.pid = pid
        self.listener: Listener | None = None
        """Hears of its refused system calls, where the kernel tells."""
        self._loop = loop
        self._cpu_seconds = cpu_seconds
        self._cgroup = cgroup
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
            _pid, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            words = "ended (reaped elsewhere)"
        else:
            words = describe_exit(status, usage.ru_utime + usage.ru_stime, self._cpu_seconds)
        os.close(self._pidfd)
        if self.listener is not None:
            self.listener.close()
        if self._cgroup is not None:
            self._cgroup.remove()
        self.ended.set_result(words)


def describe_exit(status: int, cpu: float = 0.0, cpu_limit: int = 0) -> str:
    """A process's end in words: its wait status, the CPU seconds that it used and might use (0: any number)."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if cpu_limit and cpu >= cpu_limit and name in ("SIGKILL", "SIGXCPU"):
        return f"ended by {name} (it used up its {cpu_limit} s of CPU time)"
    hint = {"SIGSYS": " (a system call that no actor makes by mistake)", "SIGKILL": " (killed from outside)"}
    return f"ended by {name}{hint.get(name, '')}"


def _abandon(task: asyncio.Task[tuple[Process, socket.socket]]) -> None:
    """End a worker that was forked when nobody waited for it any more."""
    if not task.cancelled() and task.exception() is None:
        process, connection = task.result()
        connection.close()
        process.kill()


class Zygote:
    """Starts the zygote process on first use, and again when it died."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_report: Callable[[SandboxReport], None] = lambda report: None,
        beside: Zygote | None = None,
    ) -> None:
        self._loop = loop
        self._beside = beside
        """The zygote of workers that run Python, when this is the one for compiled bundles."""
        self._compiled: Zygote | None = None
        self._on_report = on_report
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._forking: set[asyncio.Task[tuple[Process, socket.socket]]] = set()
        self._token = 0
        self._uid = 0
        self._cgroups: Cgroups | None = None
        self.required = False
        """Whether a sandbox that keeps every promise is demanded (`sandbox: require`)."""
        self.report: SandboxReport | None = None
        """What the kernel grants, from the first start on."""
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it now, so that the first worker does not wait. Raises `SpawnError`."""
        async with self._lock:
            await self._ensure()

    async def require(self, required: bool) -> None:
        """Demand, or no longer, that the sandbox keeps every promise. Raises `SandboxLacking` and changes nothing."""
        async with self._lock:
            await self._ensure()
            if required:
                self._require_promises()
            self.required = required

    def _require_promises(self) -> None:
        refusal = self.report.refusal() if self.report is not None else "the sandbox was not tried yet"
        if refusal is not None:
            raise SandboxLacking(refusal)

    async def spawn(
        self,
        name: str,
        *,
        memory_bytes: int,
        cpu_seconds: int,
        profile: Profile = Profile.PYTHON,
        lanes: Sequence[socket.socket] = (),
    ) -> tuple[Process, socket.socket]:
        """Fork a worker and wait until it is closed in; its process and the host's end of its socketpair.

        `lanes` are what it has beside its own socket, as the descriptors from 1 on; they stay the caller's to close.
        Raises `SpawnError`. Whoever gives up meanwhile leaves nothing behind: the worker is ended.
        """
        if profile is not Profile.PYTHON and self._beside is None:
            # Started with the first such worker: the compiler stays out of the memory of all the others.
            if self._compiled is None:
                self._compiled = Zygote(self._loop, beside=self)
            return await self._compiled.spawn(
                name, memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, profile=profile, lanes=lanes
            )
        # A task of its own: the answer to a request that was sent is read, or the next request would read it. So it has
        # lanes of its own, too.
        request = Spawn(0, name, None, memory_bytes, cpu_seconds, profile, len(lanes))
        if any(lane.fileno() < 0 for lane in lanes):
            raise SpawnError(f"{name} was not needed any more: its lanes are closed")
        held = [lane.dup() for lane in lanes]
        task = self._loop.create_task(self._fork(request, held))
        self._forking.add(task)

        def forked(task: asyncio.Task[tuple[Process, socket.socket]]) -> None:
            self._forking.discard(task)
            for lane in held:
                lane.close()

        task.add_done_callback(forked)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.add_done_callback(_abandon)
            raise
        if task.cancelled():
            raise SpawnError("the zygote was stopped")
        process, connection = task.result()
        try:
            await self._born(name, process, connection)
        except BaseException:
            process.kill()
            connection.close()
            raise
        return process, connection

    async def _fork(self, request: Spawn, lanes: list[socket.socket]) -> tuple[Process, socket.socket]:
        async with self._lock:
            try:
                return await self._spawn(request, lanes)
            except (OSError, EOFError):
                # The zygote died between two requests: one new zygote, one more try.
                self._discard()
                try:
                    return await self._spawn(request, lanes)
                except (OSError, EOFError) as error:
                    raise SpawnError(f"the zygote died twice while it forked {request.name}: {error}") from error

    async def _spawn(self, request: Spawn, lanes: Sequence[socket.socket]) -> tuple[Process, socket.socket]:
        control = await self._ensure()
        if self.required or (self._beside is not None and self._beside.required):
            self._require_promises()
        ours, theirs = socket.socketpair()
        cgroup: WorkerCgroup | None = None
        try:
            self._token += 1
            uid = None
            if os.geteuid() == 0:
                uid = (self._beside or self)._next_uid()
            if self._cgroups is not None:
                cgroup = self._cgroups.make(request.memory_bytes)
            descriptors = array.array("i", [theirs.fileno(), *(lane.fileno() for lane in lanes)])
            if cgroup is not None:
                descriptors.append(cgroup.descriptor)
            data = msgspec.msgpack.encode(msgspec.structs.replace(request, token=self._token, uid=uid))
            control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())])
            answer = msgspec.msgpack.decode(await self._receive(control, SPAWN_SECONDS), type=Spawned)
            if answer.error is not None or answer.token != self._token:
                why = answer.error or "the zygote answered another request"
                raise SpawnError(f"{request.name} could not be forked: {why}")
            process = Process(answer.pid, self._loop, cpu_seconds=request.cpu_seconds, cgroup=cgroup)
        except BaseException:
            ours.close()
            if cgroup is not None:
                cgroup.remove()
            raise
        finally:
            theirs.close()
        if cgroup is not None:
            cgroup.born()
        return process, ours

    def _next_uid(self) -> int:
        uid = UID_BASE + self._uid
        self._uid = (self._uid + 1) % UID_COUNT
        return uid

    async def _born(self, name: str, process: Process, connection: socket.socket) -> None:
        """Wait for the worker's first word: that it is closed in. Raises `SpawnError`."""
        connection.setblocking(False)
        listener: list[int] = []
        try:
            data = await self._receive(connection, SPAWN_SECONDS, listener)
            born = msgspec.msgpack.decode(data, type=Born)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            for descriptor in listener:
                os.close(descriptor)
            process.kill()
            how = await process.ended
            raise SpawnError(f"{name} ended before it was closed in: {how}") from error
        for descriptor in listener:
            process.listener = Listener(descriptor, self._loop)
        if process.ended.done() and process.listener is not None:
            process.listener.close()
        if born.error is not None:
            raise SpawnError(f"{name} could not be closed in: {born.error}")

    async def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._discard()
        if self._control is None:
            if self._beside is not None and self._beside.report is not None:
                self._cgroups, cgroup_finding = self._beside._cgroups, self._beside.report.find(Layer.CGROUP)
            elif self.report is None:
                # Before there is a zygote, which would be another process in the host's cgroup.
                self._cgroups, cgroup_finding = find_cgroups(prepare=True)
            else:
                cgroup_finding = self.report.find(Layer.CGROUP)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            self._process = subprocess.Popen(  # noqa: ASYNC220 (a fork and exec of a known program, once)
                [
                    sys.executable,
                    "-m",
                    "tea.runtime.worker.zygote",
                    *([Profile.WASM] if self._beside is not None else []),
                ],
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
                awake = msgspec.msgpack.decode(await self._receive(ours, START_SECONDS), type=Awake)
            except (EOFError, TimeoutError, msgspec.DecodeError) as error:
                self._discard()
                raise SpawnError(f"the zygote did not start: {error or 'no word in time'}") from error
            except BaseException:
                self._discard()  # else its first word would be read as the answer to a request
                raise
            self.report = awake.report.with_finding(cgroup_finding)
            self._on_report(self.report)
        return self._control

    async def _receive(self, connection: socket.socket, seconds: float, descriptors: list[int] | None = None) -> bytes:
        """One message; descriptors that came with it are appended. Raises `EOFError`, `OSError`, `TimeoutError`."""
        future: asyncio.Future[bytes] = self._loop.create_future()

        def readable() -> None:
            if future.done():
                return
            try:
                if descriptors is None:
                    data = connection.recv(MESSAGE)
                else:
                    data, received, _flags, _address = socket.recv_fds(connection, MESSAGE, 1)
                    descriptors.extend(received)
            except BlockingIOError:
                pass
            except OSError as error:
                future.set_exception(error)
            else:
                future.set_result(data)

        number = connection.fileno()  # it may be closed by whoever gives up meanwhile, and has no number then
        self._loop.add_reader(number, readable)
        try:
            data = await asyncio.wait_for(future, seconds)
        finally:
            self._loop.remove_reader(number)
        if not data:
            raise EOFError("the other end closed its socket")
        return data

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
        if self._compiled is not None:
            self._compiled.stop()
        for task in self._forking:
            task.cancel()
        self._discard()
        if self._cgroups is not None and self._beside is None:
            self._cgroups.close()
