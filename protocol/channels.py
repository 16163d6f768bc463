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
    parked: int = 0
    """Calls and messages that wait for a place in its mailboxes now."""
    waited: int = 0
    """Calls and messages that had to wait for one, ever."""
    cancelled: int = 0
    """Calls to it that were taken back, because nobody waited for them any more."""
    dead_letters: int = 0
    """Messages to it that were lost."""
    lanes: int = 0
    """Direct ways between its replicas and those of others, by which calls go past the host."""


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
    parked: int = 0
    """Calls and messages that wait for a place in a mailbox now."""
    cancelled: int = 0
    """Calls that were ended because nobody waited for them any more."""
    late_answers: int = 0
    """Answers to calls that had ended before: they are dropped."""


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
    """What a takeover, a ticket or a restore came to."""

    slot: str
    term: int
    holder: bool
    """Whether this enclave holds the slot now; after a takeover without, the one before went on by itself."""


class RunningManifest(msgspec.Struct, frozen=True, array_like=True):
    """The manifest that runs, with what proves it: nothing here is to be believed without."""

    approval: bytes
    """The canonical manifest in its approvals (COSE_Sign)."""
    approver_changes: tuple[bytes, ...]
    """Approved changes of the approvers since those of the image."""
    attestation: Attestation
    """Fresh; its statement names the manifest's digest, revision and epoch."""


class BackupMade(msgspec.Struct, frozen=True):
    """A backup of a slot's state that waits in the enclave to be fetched in pieces. Nobody alone opens it."""

    slot: str
    term: int
    made: int
    """Milliseconds since the epoch, by the enclave."""
    threshold: int
    keepers: tuple[str, ...]
    """Names, of the approved manifest."""
    size: int
    """Bytes of the file."""
    digest: bytes
    """SHA-384 of the file: what a ticket names."""
    attestation: Attestation
    """The enclave's word that it made this very file."""


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
    async def running_manifest(self, nonce: bytes) -> RunningManifest:
        """The manifest that runs, as its approvers signed it, with an attestation over a nonce of at most 512 bytes.

        UNAVAILABLE while none runs.
        """
        raise NotImplementedError

    @operation
    async def tenancy(self, nonce: bytes) -> Attestation:
        """What this enclave is to its slot: an attestation over the nonce, with role and term in its statement's body.

        `tea.trust.handover.verify_tenancy` reads it. CONFLICT when the running manifest gives this enclave no slot.
        """
        raise NotImplementedError

    @operation
    async def take_over(self, source: str, copy: bool = False) -> Takeover:
        """Take keys and state of the own slot over from its holder, whom the runtime client knows as peer `source`.

        With `copy` the holder serves on, and this enclave becomes a standby with its state of this moment. Asked again
        after UNAVAILABLE, it goes on where it was. CONFLICT when this enclave is not one that waits; UNTRUSTED when the
        other end is not to be believed, or refuses.
        """
        raise NotImplementedError

    @operation
    async def present(self, ticket: bytes) -> Takeover:
        """Show a ticket of the approvers: the enclave that it names holds the slot from now on, any other holder stops.

        UNTRUSTED (`reason` says why) when it is not approved, for another slot, or of a term that was seen already.
        """
        raise NotImplementedError

    @operation
    async def backup(self) -> BackupMade:
        """Seal the slot's keys and state to the keepers of the approved manifest. Calls wait for that moment.

        CONFLICT when this enclave does not hold its slot, or its manifest names no keepers. A new backup replaces one
        that was not fetched.
        """
        raise NotImplementedError

    @operation
    async def backup_piece(self, digest: bytes, index: int) -> bytes:
        """A piece of at most 256 KiB of the backup that was made, from 0 on. NOT_FOUND when it is not that one."""
        raise NotImplementedError

    @operation
    async def restore_offer(self, ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        """Begin a restore: the approvers' ticket, the shares that keepers passed to this enclave, the backup's size.

        CONFLICT when this enclave is not an empty standby; UNTRUSTED when the ticket is not approved or not for it.
        """
        raise NotImplementedError

    @operation
    async def restore_piece(self, index: int, data: bytes) -> None:
        """The next piece (256 KiB, the last one the rest) of the backup that is restored."""
        raise NotImplementedError

    @operation
    async def restore(self) -> Takeover:
        """Open what was offered and become the holder. UNTRUSTED when backup, shares or ticket do not fit together.

        After a refusal this enclave is what it was before, and a restore begins anew.
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
    parts: int = 1
    """Over 1: the changes are more than a frame holds. These are part 0, `Adapter.part` answers the others."""


class Adapter:
    """ADAPTER, answered by the parent: chain state for the layer-1 cache."""

    @operation
    async def head(self) -> Head:
        """The newest finalized block."""
        raise NotImplementedError

    @operation
    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        """Finalized blocks from height `start`, at most `count`, in order and as many as fit a frame.

        The first, where it alone fits none, comes in `parts`. `start` at the chain's first watched height gives the
        whole watched state as its changes.
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

    @operation
    async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
        """Changes of a block that comes in parts: part `number`, from 1 on. No entry is in two parts, none is empty.

        CONFLICT when another block is at this height by now, INVALID for a number that the block has not.
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
