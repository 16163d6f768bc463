"""One simulated enclave: its parent's runtime client and its host, each a process; started, killed, asked.

May not: import the host, or give it anything but a pipe with its instance's credential. Every start of the host is a
fresh enclave (a new module id) on the same instance (the same PCR4). Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tea.parent_client.operator import ClientStatus, Operator, Push
from tea.parent_client.registry import EnclaveEntry, socket_folder
from tea.protocol.channels import Activation, Channel
from tea.protocol.errors import CallError
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint
from tea.protocol.transport.settings import Settings
from tea.providers.nitro.start import SimulatedStart

from .identity import module_id
from .processes import Child, ProcessError, start

START_SECONDS: Final = 60.0
"""For a process to come up, on a machine that is busy."""
LOOK_SECONDS: Final = 0.05
"""Between two looks at a status; the process's end is waited for meanwhile."""
AWAITING: Final = "awaiting-settings"
READY: Final = "ready"


class SimulatedEnclave:
    """One enclave of a network, and its parent."""

    def __init__(
        self,
        name: str,
        folder: Path,
        instance: str,
        *,
        approvers: Path,
        client_arguments: Sequence[str],
        platform: Callable[[str], SimulatedStart],
        tied: bool,
    ) -> None:
        """`client_arguments` start the runtime client; `platform` makes what a host of a module id is started with."""
        self.name = name
        self.folder = folder
        self.instance_id = instance
        self.module_id = ""
        self.client: Child | None = None
        self.host: Child | None = None
        self._approvers = approvers
        self._client_arguments = tuple(client_arguments)
        self._platform = platform
        self._tied = tied
        self._operator: Endpoint | None = None

    # -- the parent's side -----------------------------------------------------------------------------------------

    async def start_client(self) -> None:
        """Start the runtime client; returns when it answers. Raises `ProcessError`."""
        if self.client is not None and self.client.returncode is None:
            raise RuntimeError(f"the runtime client of {self.name} runs already")
        self.client = start(
            f"{self.name} client", self._client_arguments, self.folder / "client.console", tied=self._tied
        )
        address = Address.parse(f"unix:{socket_folder(self.folder) / 'operator.sock'}")
        connecting = asyncio.ensure_future(
            connect(address, settings=Settings(backoff_max=0.1), reconnect=True, timeout=START_SECONDS)
        )
        self._operator = await self._while_running(self.client, connecting)

    async def detach(self) -> None:
        """Let go of the runtime client's socket; it runs on."""
        if self._operator is not None:
            await self._operator.close()
            self._operator = None

    async def end_client(self) -> None:
        """End the runtime client."""
        await self.detach()
        if self.client is not None:
            await self.client.end()

    async def ask(self, name: str, *args: object, timeout: float | None = 60.0) -> Any:
        """Call an operation of the runtime client's `Operator`. Raises `CallError`."""
        if self._operator is None:
            raise RuntimeError(f"the runtime client of {self.name} does not run")
        return await self._operator.call(Channel.OPERATOR, Operator, name, *args, timeout=timeout)

    async def status(self) -> ClientStatus:
        """The client and its enclave."""
        status: ClientStatus = await self.ask("status")
        return status

    async def call(self, actor: str, operation: str, *args: object, timeout: float | None = 60.0) -> Any:
        """Call an actor as the parent does; the result as msgpack holds it. Raises `CallError`."""
        body = msgspec.msgpack.encode(args)
        return msgspec.msgpack.decode(await self.ask("call", actor, operation, body, timeout=timeout))

    async def push(
        self,
        envelope: bytes,
        bundles: Sequence[Path],
        environment: dict[str, str] | None = None,
        *,
        standby: bool = False,
    ) -> Activation:
        """Push an approved manifest and its bundles. Raises `CallError` as the enclave refused."""
        paths = tuple(str(path.absolute()) for path in bundles)
        settings = Push(envelope, (), environment or {}, paths, standby)
        activation: Activation = await self.ask("push", settings, timeout=180.0)
        return activation

    # -- the enclave's side ----------------------------------------------------------------------------------------

    def start_host(self) -> None:
        """Start a fresh enclave on this instance; it dials its parent until that answers."""
        if self.host is not None and self.host.returncode is None:
            raise RuntimeError(f"the host of {self.name} runs already")
        self.module_id = module_id(self.instance_id)
        reading, writing = os.pipe()
        try:
            # A pipe holds 64 KiB, and a start has at most that: written before anybody reads.
            os.write(writing, self._platform(self.module_id).encode())
            os.close(writing)
            writing = -1
            socket = socket_folder(self.folder) / "enclave.sock"
            arguments = ["-m", "tea.runtime", "--mode", "simulated", "--parent", f"unix:{socket}"]
            arguments += ["--approvers", str(self._approvers), "--credential-fd", str(reading)]
            self.host = start(
                f"{self.name} host", arguments, self.folder / "host.console", tied=self._tied, pass_fds=(reading,)
            )
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    async def awaits_settings(self) -> None:
        """Wait until the enclave is connected and waits for settings. Raises `ProcessError` when it ends instead."""
        if self.host is None:
            raise RuntimeError(f"the host of {self.name} was not started")
        await self._while_running(self.host, asyncio.ensure_future(self._in_phase(AWAITING)))

    async def _in_phase(self, phase: str) -> None:
        async with asyncio.timeout(START_SECONDS):
            while True:
                enclave = (await self.status()).enclave
                # Not the one before: a client shows the old enclave until the new one dials in.
                if enclave is not None and enclave.module_id == self.module_id and enclave.phase == phase:
                    return
                await asyncio.sleep(LOOK_SECONDS)

    async def kill_host(self) -> None:
        """SIGKILL, as a machine that loses power; returns when it is gone."""
        if self.host is not None:
            self.host.kill()
            await self.host.end()

    async def end_host(self) -> None:
        """SIGTERM: the enclave drains and ends."""
        if self.host is not None:
            await self.host.end()

    # -- both ------------------------------------------------------------------------------------------------------

    async def _while_running(self, child: Child, task: asyncio.Future[Any]) -> Any:
        ended = asyncio.ensure_future(child.ended())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ProcessError(f"{child.name} ended with status {child.returncode}: {child.last_words()}")
        except (CallError, TimeoutError) as error:
            raise ProcessError(
                f"{child.name} does not answer: {error or 'no answer in time'}; {child.last_words()}"
            ) from None
        finally:
            task.cancel()
            ended.cancel()

    def children(self) -> list[Child]:
        """The processes that were started and have not ended, the enclave first."""
        return [one for one in (self.host, self.client) if one is not None and one.returncode is None]

    def entry(self) -> EnclaveEntry:
        """What the registry keeps of it."""
        return EnclaveEntry(
            name=self.name,
            folder=str(self.folder),
            client_pid=self.client.pid if self.client is not None else 0,
            host_pid=self.host.pid if self.host is not None else None,
            instance_id=self.instance_id,
        )
