"""Calls that a provider makes for its own caller: to one replica of an actor, or to all of them.

May not: lend the caller a right. What it asks must stand on one of its own links, with who that link demands behind
it, and the callee sees the caller and the chain as if the call had gone by that link.
Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.providers.base import Answer, Call

from .replicas import ReplicaGroup
from .rights import CONTEXT_ROOM
from .worker_port import WorkerPort

if TYPE_CHECKING:
    from .host import Host


async def request(
    host: Host,
    call: Call,
    actor: str,
    operation: str,
    body: bytes,
    *,
    timeout: float,
    replica: int | None,
    every: bool,
) -> Sequence[Answer]:
    """See `tea.providers.base.Services.request_actor`."""
    if host.router.frozen:
        raise CallError(Code.UNAVAILABLE, host.router.closed)
    port = host.revisions.port_of(call.caller, call.replica)
    if port is None:
        raise CallError(Code.UNAVAILABLE, f"{call.caller}#{call.replica} does not run any more")
    _require_link(port, call, actor, operation)
    # They came in a frame with less room for a context than this one needs, or were made by the provider.
    if len(body) > MAX_BODY - CONTEXT_ROOM:
        raise CallError(Code.INVALID, f"arguments of {len(body)} bytes, at most {MAX_BODY - CONTEXT_ROOM} fit a call")
    group = host.router.groups.get(actor)
    if group is None:
        raise CallError(Code.NOT_FOUND, f"{actor} does not run yet")
    if actor in (call.caller, *call.chain) and (every or len(group.ports) == 1):
        waits = " <- ".join((call.caller, *call.chain))
        raise CallError(Code.CONFLICT, f"{actor} waits for this very call ({waits}): it would never end")

    size = 0

    async def ask(number: int | None) -> Answer:
        nonlocal size
        try:
            answer = await host.router.call_for(
                call.caller,
                call.chain,
                actor,
                operation,
                body,
                timeout=timeout,
                replica=number,
                require=lambda: _require_link(port, call, actor, operation),
            )
        except CallError as error:
            return Answer(number, error)
        size += len(answer)
        if size > MAX_BODY:  # they do not fit a reply, and while one replica keeps silent the host would hold them all
            raise CallError(Code.EXHAUSTED, f"the answers have over {MAX_BODY} bytes together", limit=MAX_BODY)
        return Answer(number, answer)

    numbers = _replicas(host, group) if every else (replica,)
    try:
        async with asyncio.TaskGroup() as asking:
            asked = [asking.create_task(ask(number)) for number in numbers]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [one.result() for one in asked]


def _require_link(port: WorkerPort, call: Call, actor: str, operation: str) -> None:
    """Raise `CallError(DENIED)` unless a link of the caller's own grants this call, now and in this chain."""
    grants = [
        grant
        for grant in port.links.values()
        if grant.target == actor
        and grant.provider is None
        and operation in grant.operations
        and grant.operations.index(operation) not in grant.revoked
    ]
    if not grants:
        port.refused("a request that none of its links grants")
        raise CallError(
            Code.DENIED, f"no link from {call.caller} to {actor} grants {operation}: a request goes by the caller's own"
        )
    if not any(grant.behind.issubset(call.chain) for grant in grants):
        demanded = " or ".join(" and ".join(sorted(grant.behind)) for grant in grants)
        raise CallError(
            Code.DENIED,
            f"the link from {call.caller} to {actor} demands {demanded} behind the call; behind this one stands "
            f"{', '.join(call.chain) or 'nobody'}",
        )


def _replicas(host: Host, group: ReplicaGroup) -> list[int]:
    """The numbers of all replicas of the manifest, those included that are down now."""
    supervisor = host.supervisors.get(group.name)
    declared = supervisor.numbers if supervisor is not None else ()
    return sorted({*declared, *(port.replica for port in group.ports if port.open)})
