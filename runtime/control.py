"""CONTROL: what the parent may ask of the host. Every argument is a stranger's.

May not: hold state of its own. Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from tea.protocol.channels import (
    Activation,
    Attestation,
    BackupMade,
    Control,
    HostStatus,
    RunningManifest,
    SettingsOffer,
    Takeover,
)
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import OperationDescription, is_array
from tea.protocol.sticky import NO_KEY, key_of, place_of

from .rights import require_parent_link

if TYPE_CHECKING:
    from .host import Host

CALL_SECONDS: Final = 30.0
"""How long an actor may take for a call of the parent."""
MAX_DRAIN: Final = 60.0
MAX_NONCE: Final = 512
MAX_NAMED: Final = 1024
"""Arguments by name of one call."""
# What an argument is, its callee finds out: as Python's objects tiny values cost a hundred times what their bytes do.
_well_formed: Final = msgspec.msgpack.Decoder(msgspec.Raw)
_by_name: Final = msgspec.msgpack.Decoder(Annotated[dict[str, msgspec.Raw], msgspec.Meta(max_length=MAX_NAMED)])


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
        require_parent_link(router.parent_grants, router.groups, actor, operation)
        body = self._positional(actor, operation, arguments)
        key = self._key(actor, operation, body)
        return await router.call("parent", actor, operation, body, timeout=CALL_SECONDS, key=key)

    async def attest(self, nonce: bytes) -> Attestation:
        return Attestation(*await self._host.measurement.attest("attest", b"", nonce=_nonce(nonce)))

    async def event_log(self) -> tuple[bytes, ...]:
        return self._host.measurement.log.entries

    async def running_manifest(self, nonce: bytes) -> RunningManifest:
        attestation = await self.attest(nonce)
        plan = self._host.plan
        if plan is None:
            raise CallError(Code.UNAVAILABLE, "no manifest runs in this enclave yet: push one")
        return RunningManifest(plan.approval, plan.approver_changes, attestation)

    async def tenancy(self, nonce: bytes) -> Attestation:
        return await self._host.continuity.tenancy(_nonce(nonce))

    async def take_over(self, source: str, copy: bool = False) -> Takeover:
        return await self._host.continuity.take_over(source, copy)

    async def present(self, ticket: bytes) -> Takeover:
        return await self._host.continuity.present(ticket)

    async def backup(self) -> BackupMade:
        return await self._host.continuity.backup()

    async def backup_piece(self, digest: bytes, index: int) -> bytes:
        return self._host.continuity.backup_piece(digest, index)

    async def restore_offer(self, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        self._host.continuity.restore_offer(ticket, shares, size)

    async def restore_piece(self, index: int, data: bytes) -> None:
        self._host.continuity.restore_piece(index, data)

    async def restore(self) -> Takeover:
        return await self._host.continuity.restore()

    async def shutdown(self, drain: float) -> None:
        if not 0 <= drain <= MAX_DRAIN:
            raise CallError(Code.INVALID, f"a drain takes 0 to {MAX_DRAIN:g} seconds, not {drain:g}")
        self._host.loop.create_task(self._host.shutdown(drain))

    def _positional(self, actor: str, operation: str, arguments: bytes) -> bytes:
        """Arguments by name (a map) become the wire's array; an array passes as it is, for the worker to check."""
        try:
            _well_formed.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            raise CallError(Code.INVALID, "the arguments are not msgpack") from None
        if is_array(arguments):
            return arguments
        try:
            decoded = _by_name.decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CallError(
                Code.INVALID,
                f"{actor}.{operation}: give the arguments as an array, or a map by name of at most {MAX_NAMED}",
            ) from None
        description = self._description(actor, operation)
        try:
            return description.encode_arguments((), {**decoded})
        except TypeError as error:
            raise CallError(Code.INVALID, f"{actor}.{error}") from None

    def _key(self, actor: str, operation: str, body: bytes) -> bytes:
        """By which the call sticks to a replica, where the parent's link says so."""
        plan = self._host.plan
        parameter = plan.parent_sticky.get((actor, operation)) if plan is not None else None
        if parameter is None:
            return NO_KEY
        description = self._description(actor, operation)
        place = place_of(description, parameter)
        return NO_KEY if place is None else key_of(body, place, description.parameters)

    def _description(self, actor: str, operation: str) -> OperationDescription:
        group = self._host.router.groups[actor]
        for port in group.ports:
            for description in port.descriptions:
                if description.name == operation:
                    return description
        if not group.ports:
            raise CallError(Code.UNAVAILABLE, f"no replica of {actor} is running now", actor=actor)
        raise CallError(Code.NOT_FOUND, f"{actor} has no operation {operation}")


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) > MAX_NONCE:
        raise CallError(Code.INVALID, f"a nonce has at most {MAX_NONCE} bytes, this one has {len(nonce)}")
    return nonce
