"""What the host lends each provider (`providers.base.Services`), and the link to the parent that they share.

May not: give a provider another provider that it does not require. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tea.protocol.channels import Adapter, Channel, Logs, Peers, Release
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.endpoint import Endpoint
from tea.providers.base import Answer, Attester, Call, ParentLink

from .provider_set import provider_class
from .requests import request

if TYPE_CHECKING:
    from .host import Host

PARENT_SIDE: Final[dict[int, type]] = {
    Channel.ADAPTER: Adapter,
    Channel.PEERS: Peers,
    Channel.LOGS: Logs,
    Channel.RELEASE: Release,
}


class HostParentLink:
    """`providers.base.ParentLink` over the endpoint; what providers serve is kept across reconnects."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._served: dict[int, tuple[type, object]] = {}
        self.dropped_tells = 0

    def attach(self, endpoint: Endpoint) -> None:
        """Use this endpoint from now on."""
        self._endpoint = endpoint
        for channel, (interface, service) in self._served.items():
            endpoint.serve(channel, interface, service)

    async def call(self, channel: int, operation: str, *args: object, timeout: float = 10.0) -> Any:
        """See `ParentLink.call`."""
        if self._endpoint is None:
            raise CallError(Code.UNAVAILABLE, "there is no connection to the parent yet")
        return await self._endpoint.call(channel, PARENT_SIDE[channel], operation, *args, timeout=timeout)

    def tell(self, channel: int, operation: str, *args: object) -> None:
        """See `ParentLink.tell`."""
        if self._endpoint is None:
            self.dropped_tells += 1
            return
        if not self._endpoint.tell(channel, PARENT_SIDE[channel], operation, *args):
            self.dropped_tells += 1

    def serve(self, channel: int, interface: type, service: object) -> None:
        """See `ParentLink.serve`."""
        self._served[channel] = (interface, service)
        if self._endpoint is not None:
            self._endpoint.serve(channel, interface, service)


class LentServices:
    """`providers.base.Services` for one provider."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        self._stamp = f"provider:{name}"
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def deployment(self) -> str:
        return self._host.approvers.deployment

    @property
    def mode(self) -> str:
        return self._host.mode

    @property
    def environment(self) -> Mapping[str, str]:
        return self._host.environment

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        return self._host.slots.members

    @property
    def own_slot(self) -> str | None:
        return self._host.slots.own

    @property
    def attester(self) -> Attester:
        return self._host.measurement

    @property
    def parent(self) -> ParentLink:
        return self._host.parent_link

    def provider(self, name: str) -> Any:
        running = self._host.providers
        if name not in provider_class(self._name).requires:
            raise LookupError(f"provider {self._name} does not declare that it requires {name}")
        return running.get(name)

    def now(self) -> float:
        return self._host.now()

    def monotonic(self) -> float:
        return time.monotonic()

    def log(self, level: str, message: str, **fields: object) -> None:
        self._host.log(level, self._stamp, message, **fields)

    async def call_actor(self, actor: str, operation: str, *args: object, timeout: float = 10.0) -> bytes:
        return await self._host.router.call(
            self._stamp, actor, operation, msgspec.msgpack.encode(args), timeout=timeout
        )

    def tell_actor(self, actor: str, operation: str, *args: object, replica: int | None = None) -> bool:
        return self._host.router.tell(self._stamp, actor, operation, msgspec.msgpack.encode(args), replica=replica)

    async def request_actor(
        self,
        call: Call,
        actor: str,
        operation: str,
        body: bytes,
        *,
        timeout: float,
        replica: int | None = None,
        every: bool = False,
    ) -> Sequence[Answer]:
        return await request(self._host, call, actor, operation, body, timeout=timeout, replica=replica, every=every)

    def is_starting(self, actor: str, replica: int) -> bool:
        return self._host.revisions.is_starting(actor, replica)

    def takes_messages(self, actor: str, replica: int) -> bool:
        group = self._host.router.groups.get(actor)
        return group is not None and any(port.open and port.replica == replica for port in group.ports)

    def actors(self) -> Sequence[str]:
        return tuple(self._host.router.groups)

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        return self._host.revisions.environment_of(actor, replica)

    def spawn(self, task: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await task
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 (a provider's background defect: logged, shown in status)
                self._host.provider_failed(self._name, error)

        started = asyncio.get_running_loop().create_task(run())
        self._tasks.add(started)
        started.add_done_callback(self._tasks.discard)

    async def run_in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await self._host.threads.run(function, *args)

    def digest_of(self, actor: str) -> bytes:
        return self._host.revisions.bundle_digest(actor)

    @property
    def manifest_digest(self) -> bytes:
        identity = self._host.measurement.identity
        return identity.manifest if identity is not None else bytes(48)

    def policy_for(self, slot: str) -> Any:
        return self._host.slots.policy_for(slot)

    def end(self) -> None:
        """The provider stopped: its background tasks end."""
        for task in list(self._tasks):
            task.cancel()
