"""The channels between an enclave and its parent, each an interface of typed operations.

May not: hold any logic. Both ends number operations by their alphabetical place in these classes.
Everything that the parent sends is untrusted; everything that the enclave sends is believed only with evidence.
Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import enum

import msgspec

from .operations import operation


class Channel(enum.IntEnum):
    """Numbers of the channels: a frame's `link` on the connection to the parent."""

    CONTROL = 1
    ADAPTER = 2
    PEERS = 3
    FACADE = 4
    LOGS = 5
    OPERATOR = 6
    """Never crosses vsock: `teactl` towards the runtime client, on the parent."""
    RELEASE = 7


class BundleOffer(msgspec.Struct, frozen=True, array_like=True):
    """A bundle that the parent can send: the SHA-256 of the file, its chunks' SHA-256s in order, and its size."""

    digest: bytes
    chunks: tuple[bytes, ...]
    size: int


class SettingsOffer(msgspec.Struct, frozen=True, array_like=True):
    """What the parent pushes: the approved manifest (COSE_Sign), approver changes, environment, bundles by digest."""

    manifest: bytes
    approver_changes: tuple[bytes, ...]
    environment: dict[str, str]
    bundles: tuple[BundleOffer, ...]
    standby: bool = False
    """Whether the enclave waits for the state of its slot's holder (`take_over`), and serves nothing before."""


class ActorStatus(msgspec.Struct, frozen=True):
    """One actor as `status` shows it."""

    name: str
    version: str
    replicas: int
    running: int
    restarts: int
    calls: int
    errors: int
    in_flight: int
    operations: tuple[str, ...] = ()
    last_error: str | None = None
    refused: dict[str, int] = {}
    """What its code tried and was refused: system calls by name, links that it was not given, missed deadlines."""


class ProviderStatus(msgspec.Struct, frozen=True):
    """One provider as `status` shows it."""

    name: str
    state: str
    usage: dict[str, int]


class HostStatus(msgspec.Struct, frozen=True):
    """What the host says of itself. Not evidence: `attest` is."""

    phase: str
    detail: str
    mode: str
    module_id: str
    deployment: str | None
    manifest_digest: bytes | None
    revision: int | None
    slot: str | None
    uptime: float
    calls: int
    replies: int
    errors: int
    in_flight: int
    dead_letters: int
    actors: tuple[ActorStatus, ...]
    providers: tuple[ProviderStatus, ...]
    sandbox: tuple[str, ...] = ()
    """The sandbox's layers and whether this kernel grants them; known when the first manifest was approved."""


class Attestation(msgspec.Struct, frozen=True, array_like=True):
    """An attestation document and the canonical statement whose SHA-384 is its user_data."""

    document: bytes
    statement: bytes


class Activation(msgspec.Struct, frozen=True):
    """What an activated manifest became."""

    manifest_digest: bytes
    revision: int
    started: tuple[str, ...]
    stopped: tuple[str, ...]
    attestation: Attestation


class Takeover(msgspec.Struct, frozen=True):
    """What a takeover came to."""

    slot: str
    term: int
    holder: bool
    """Whether this enclave holds the slot now; False: the one before went on by itself, and this is a standby."""


class Control:
    """CONTROL, answered by the enclave's host."""

    @operation
    async def status(self) -> HostStatus:
        """Phase, actors, providers, counters."""
        raise NotImplementedError

    @operation
    async def offer(self, settings: SettingsOffer) -> tuple[bytes, ...]:
        """Offer settings; answers which chunks (SHA-256) are missing. A new offer replaces an older one."""
        raise NotImplementedError

    @operation
    async def chunk(self, data: bytes) -> None:
        """One missing chunk, stored under its SHA-256; one that was not asked for is refused."""
        raise NotImplementedError

    @operation
    async def activate(self) -> Activation:
        """Verify and run what was offered. On an error the host stays what it was and says which step failed."""
        raise NotImplementedError

    @operation
    async def call(self, actor: str, operation: str, arguments: bytes) -> bytes:
        """Call an actor over its link `from: parent`; arguments and result in msgpack (array, or map by name)."""
        raise NotImplementedError

    @operation
    async def attest(self, nonce: bytes) -> Attestation:
        """A fresh attestation by the host over the relying party's nonce (at most 512 bytes)."""
        raise NotImplementedError

    @operation
    async def event_log(self) -> tuple[bytes, ...]:
        """The entries of the hash-chained event log, oldest first."""
        raise NotImplementedError

    @operation
    async def take_over(self, source: str) -> Takeover:
        """Take keys and state of the own slot over from its holder, whom the runtime client knows as peer `source`.

        Asked again after UNAVAILABLE, it goes on where it was. CONFLICT when this enclave is not one that waits;
        UNTRUSTED when the other end is not to be believed, or refuses.
        """
        raise NotImplementedError

    @operation
    async def shutdown(self, drain: float) -> None:
        """Drain the actors for at most `drain` seconds, then end the host."""
        raise NotImplementedError


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A finalized block, as the adapter tells it."""

    height: int
    block_hash: bytes
    parent_hash: bytes
    state_root: bytes
    """The chain's own state root from the header, 32 bytes."""
    timestamp: int
    """Seconds since the epoch, from the header."""


class BlockChanges(msgspec.Struct, frozen=True, array_like=True):
    """A block and what it changed in the watched state: key -> new value, None for a key that went."""

    head: Head
    changes: dict[bytes, bytes | None]


class Adapter:
    """ADAPTER, answered by the parent: chain state for the layer-1 cache."""

    @operation
    async def head(self) -> Head:
        """The newest finalized block."""
        raise NotImplementedError

    @operation
    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        """Finalized blocks from height `start`, at most `count`, in order and as many as fit a frame.

        `start` at the chain's first watched height gives the whole watched state as its changes.
        """
        raise NotImplementedError

    @operation
    async def send_transaction(self, raw: bytes) -> bytes:
        """Broadcast a signed transaction; answers its hash."""
        raise NotImplementedError

    @operation
    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        """(nonce, balance, chain id, suggested gas price in wei) for an account, as the node says.

        The balance is in wei, 32 bytes big-endian: msgpack's integers end at 2**64, which is 18 ether.
        """
        raise NotImplementedError


class AdapterFeed:
    """ADAPTER, answered by the enclave: the parent pushes finalized heads."""

    @operation
    async def finalized(self, head: Head) -> None:
        """A new finalized head (told, not called)."""
        raise NotImplementedError


class Peers:
    """PEERS, answered by the parent: relay towards other enclaves, named by their slots."""

    @operation
    async def send(self, to: str, actor: str, topic: str, body: bytes) -> None:
        """Relay a message; told, lost silently when the peer cannot be reached."""
        raise NotImplementedError

    @operation
    async def request(self, to: str, actor: str, topic: str, body: bytes, timeout: float) -> bytes:
        """Relay a request and bring the answer."""
        raise NotImplementedError


class PeersInbox:
    """PEERS, answered by the enclave: what other enclaves sent. `sender` is the parents' word: a hint, no proof."""

    @operation
    async def deliver(self, sender: str, actor: str, topic: str, body: bytes) -> None:
        """A message for an actor (told)."""
        raise NotImplementedError

    @operation
    async def answer(self, sender: str, actor: str, topic: str, body: bytes) -> bytes:
        """A request for an actor; the actor's subscribed operation answers."""
        raise NotImplementedError


class Facade:
    """FACADE, answered by the enclave: HTTP requests, once there is a facade."""

    @operation
    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """Answers UNAVAILABLE until there is a facade."""
        raise NotImplementedError


class Release:
    """RELEASE, answered by the parent: it carries bytes to a release service and back, and can read none of them."""

    @operation
    async def challenge(self) -> bytes:
        """A fresh nonce of the service (`tea.trust.release.Challenge`)."""
        raise NotImplementedError

    @operation
    async def release(self, request: bytes) -> bytes:
        """Carry an attested request; the sealed and signed answer. A refusal is UNTRUSTED, with the service's code."""
        raise NotImplementedError


class LogRecord(msgspec.Struct, frozen=True, array_like=True):
    """One structured log record that leaves the enclave. Never a secret."""

    time: float
    level: str
    source: str
    message: str
    fields: dict[str, str]


class Logs:
    """LOGS, answered by the parent."""

    @operation
    async def record(self, records: tuple[LogRecord, ...]) -> None:
        """Log records (told)."""
        raise NotImplementedError
