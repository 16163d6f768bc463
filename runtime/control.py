"""CONTROL: what the parent may ask of the host. Every argument is a stranger's.

May not: hold state of its own. Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tea.protocol.channels import Activation, Attestation, Control, HostStatus, SettingsOffer, Takeover
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import OperationDescription

if TYPE_CHECKING:
    from .host import Host

CALL_SECONDS: Final = 30.0
"""How long an actor may take for a call of the parent."""
MAX_DRAIN: Final = 60.0
MAX_NONCE: Final = 512


class ControlService(Control):
    """`protocol.channels.Control` over one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def status(self) -> HostStatus:
        return self._host.status()

    async def offer(self, settings: SettingsOffer) -> tuple[bytes, ...]:
        return self._host.settings.offer(settings)

    async def chunk(self, data: bytes) -> None:
        self._host.settings.chunk(data)

    async def activate(self) -> Activation:
        return await self._host.activate()

    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        router = self._host.router
        router.require_parent_link(actor, operation)
        body = self._positional(actor, operation, arguments)
        return await router.call("parent", actor, operation, body, timeout=CALL_SECONDS)

    async def attest(self, nonce: bytes) -> Attestation:
        if len(nonce) > MAX_NONCE:
            raise CallError(Code.INVALID, f"a nonce has at most {MAX_NONCE} bytes, this one has {len(nonce)}")
        document, statement = await self._host.measurement.attest("attest", b"", nonce=nonce)
        return Attestation(document, statement)

    async def event_log(self) -> tuple[bytes, ...]:
        return self._host.measurement.log.entries

    async def take_over(self, source: str) -> Takeover:
        return await self._host.continuity.take_over(source)

    async def shutdown(self, drain: float) -> None:
        if not 0 <= drain <= MAX_DRAIN:
            raise CallError(Code.INVALID, f"a drain takes 0 to {MAX_DRAIN:g} seconds, not {drain:g}")
        self._host.loop.create_task(self._host.shutdown(drain))

    def _positional(self, actor: str, operation: str, arguments: bytes) -> bytes:
        """Arguments by name (a map) become the wire's array; an array passes as it is, for the worker to check."""
        try:
            decoded: Any = msgspec.msgpack.decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CallError(Code.INVALID, "the arguments are not msgpack") from None
        if isinstance(decoded, list):
            return arguments
        if not isinstance(decoded, dict) or not all(isinstance(key, str) for key in decoded):
            raise CallError(Code.INVALID, f"{actor}.{operation}: give the arguments as an array, or a map by name")
        description = self._description(actor, operation)
        try:
            return description.encode_arguments((), decoded)
        except TypeError as error:
            raise CallError(Code.INVALID, f"{actor}.{error}") from None

    def _description(self, actor: str, operation: str) -> OperationDescription:
        group = self._host.router.groups[actor]
        for port in group.ports:
            for description in port.descriptions:
                if description.name == operation:
                    return description
        if not group.ports:
            raise CallError(Code.UNAVAILABLE, f"no replica of {actor} is running now", actor=actor)
        raise CallError(Code.NOT_FOUND, f"{actor} has no operation {operation}")
