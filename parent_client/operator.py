"""OPERATOR: what `teactl` asks of a runtime client, over its Unix socket. Never crosses vsock.

May not: hold logic. The socket's file mode (0600) is the authority: who may open it may do all of this.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

from typing import Final

import msgspec

from tea.protocol.channels import (
    Activation,
    Attestation,
    BackupMade,
    HostStatus,
    LogRecord,
    RunningManifest,
    Takeover,
)
from tea.protocol.operations import operation

TAKEOVER_SECONDS: Final = 600.0
"""For a whole state to come over, with attempts that got lost."""
BACKUP_SECONDS: Final = 180.0
"""For a whole state to be sealed, or opened and taken in."""
TICKET_SECONDS: Final = 60.0
"""For calls in hand to end, or actors to start anew."""


class PeerStatus(msgspec.Struct, frozen=True):
    """How relaying to one other enclave goes."""

    name: str
    connected: bool
    sent: int
    lost: int


class ClientStatus(msgspec.Struct, frozen=True):
    """The runtime client and, where it answers, its enclave."""

    name: str
    pid: int
    connected: bool
    enclave: HostStatus | None
    """None while the enclave is not connected or does not answer; `problem` says why."""
    problem: str | None
    chain: str | None
    """Where the adapter takes chain state from."""
    height: int | None
    """Newest finalized height that the adapter has seen."""
    peers: tuple[PeerStatus, ...]
    pushed_bytes: int
    """Of the last push: what was not in the enclave already."""
    pushed_seconds: float
    connections: int = 0
    """How often an enclave has dialled in since the client started; a resumed connection does not count."""
    unknown_peer: int = 0
    """Messages of the enclave to peers that this client does not know."""
    undelivered: int = 0
    """Messages of other clients that the enclave could not take."""
    log_lost: int = 0
    """Log records that the file does not have."""


class Push(msgspec.Struct, frozen=True, array_like=True):
    """What to push: the approved manifest, approver changes, environment, and absolute paths of bundle files."""

    manifest: bytes
    approver_changes: tuple[bytes, ...]
    environment: dict[str, str]
    bundles: tuple[str, ...]
    standby: bool = False
    """See `SettingsOffer.standby`."""


class LogPage(msgspec.Struct, frozen=True):
    """Log records from `start` on, at most 500 and about 400 KiB, and where to ask next."""

    records: tuple[LogRecord, ...]
    next: int
    dropped: int
    """Records that were asked for and are gone (only the newest are held; the file has all)."""


class Operator:
    """The runtime client's operations for its operator."""

    @operation
    async def status(self) -> ClientStatus:
        """The client and its enclave."""
        raise NotImplementedError

    @operation
    async def push(self, settings: Push) -> Activation:
        """Push settings and activate them. Refusals come as the enclave gave them; CONFLICT while another push runs."""
        raise NotImplementedError

    @operation
    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        """Call an actor over its link `from: parent`; msgpack both ways."""
        raise NotImplementedError

    @operation
    async def take_over(self, source: str, copy: bool = False) -> Takeover:
        """Have the enclave take its slot over from the enclave of peer `source`; see `Control.take_over`."""
        raise NotImplementedError

    @operation
    async def running_manifest(self, nonce: bytes) -> RunningManifest:
        """The manifest that the enclave runs, with its approvals; see `Control.running_manifest`."""
        raise NotImplementedError

    @operation
    async def tenancy(self, nonce: bytes) -> Attestation:
        """What the enclave is to its slot; see `Control.tenancy`."""
        raise NotImplementedError

    @operation
    async def present(self, ticket: bytes) -> Takeover:
        """Show the enclave a ticket of the approvers; see `Control.present`."""
        raise NotImplementedError

    @operation
    async def backup(self) -> BackupMade:
        """Have the enclave make a backup; see `Control.backup`."""
        raise NotImplementedError

    @operation
    async def backup_piece(self, digest: bytes, index: int) -> bytes:
        """A piece of the backup that was made; see `Control.backup_piece`."""
        raise NotImplementedError

    @operation
    async def restore_offer(self, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        """Begin a restore in the enclave; see `Control.restore_offer`."""
        raise NotImplementedError

    @operation
    async def restore_piece(self, index: int, data: bytes) -> None:
        """The next piece of the backup; see `Control.restore_piece`."""
        raise NotImplementedError

    @operation
    async def restore(self) -> Takeover:
        """End a restore; see `Control.restore`."""
        raise NotImplementedError

    @operation
    async def attest(self, nonce: bytes) -> Attestation:
        """A fresh attestation of the enclave over the relying party's nonce."""
        raise NotImplementedError

    @operation
    async def event_log(self) -> tuple[bytes, ...]:
        """The enclave's event log."""
        raise NotImplementedError

    @operation
    async def logs(self, start: int, wait: float) -> LogPage:
        """Log records from number `start`; waits up to `wait` seconds (at most 30) for the first one.

        A negative `start` counts from the end: -20 for the newest twenty.
        """
        raise NotImplementedError

    @operation
    async def stop(self, drain: float) -> None:
        """Shut the enclave down (draining at most `drain` seconds, 0 to 60), then end the client."""
        raise NotImplementedError
