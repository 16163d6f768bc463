"""OPERATOR: what `teactl` asks of a runtime client, over its Unix socket. Never crosses vsock.

May not: hold logic. The socket's file mode (0600) is the authority: who may open it may do all of this.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import msgspec

from tea.protocol.channels import Activation, Attestation, HostStatus, LogRecord
from tea.protocol.operations import operation


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
    pushed_seconds: float


class Push(msgspec.Struct, frozen=True, array_like=True):
    """What to push: the approved manifest, approver changes, environment, and paths of bundle files."""

    manifest: bytes
    approver_changes: tuple[bytes, ...]
    environment: dict[str, str]
    bundles: tuple[str, ...]


class LogPage(msgspec.Struct, frozen=True):
    """Log records from `start` on, and where to ask next."""

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
        """Push settings and activate them. Refusals come as the enclave gave them."""
        raise NotImplementedError

    @operation
    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        """Call an actor over its link `from: parent`; msgpack both ways."""
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
        """Log records from number `start`; waits up to `wait` seconds (at most 30) for the first one."""
        raise NotImplementedError

    @operation
    async def stop(self, drain: float) -> None:
        """Shut the enclave down (draining at most `drain` seconds), then end the client."""
        raise NotImplementedError
