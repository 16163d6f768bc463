"""Layer1: chosen chain state by height, with roots, proofs and nodes for the rounds; transactions signed inside.

May not: believe the parent (what it says of the state is what the rounds compare), or let reads through while its own
state is known to dissent. Rule: docs/architecture.md, "Providers" (layer1) and "Remote attestation".
"""

from __future__ import annotations

import hmac
from typing import Annotated, ClassVar

import msgspec

from tea.protocol.channels import AdapterFeed, Channel, Head
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.trust.statetree import MAX_KEY, MAX_VALUE, StateTreeError

from ..base import Call, Config, Provider, Services
from ..subscriptions import Subscription, Subscriptions, require_operation
from . import evm
from .answers import require_account
from .evm import EvmTransaction
from .follower import Follower
from .history import History, Version

_TOPIC = "finalized"
_AT_LEAST_ONE = msgspec.Meta(ge=1)


class Layer1Config(Config, frozen=True):
    """What to follow and how much to keep. `start` is the same for every enclave, or their states can't agree."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The first watched height: its block brings the whole watched state."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 512
    """Heights kept: for reads of the past, rounds that are caught up, and reorganisations."""
    keep_bytes: Annotated[int, msgspec.Meta(ge=0)] = 256 << 20
    """Bytes of memory at most for heights before the newest, beside what they share with it, and as many for evidence
    of a quarantine. Beyond them the oldest go first, so that fewer than `keep` stay; the newest always does."""
    batch: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Blocks asked for at once."""
    poll: Annotated[float, msgspec.Meta(ge=0.01, le=600)] = 2.0
    """Seconds between looks at the head beside what the parent pushes."""
    max_entries: Annotated[int, _AT_LEAST_ONE] = 1_000_000
    """Entries at most; each takes about 280 bytes beside its key and value."""
    max_block: Annotated[int, msgspec.Meta(ge=1 << 20)] = 64 << 20
    """Bytes at most that one block changes: keys, values and 64 for each entry. The first block brings the whole
    watched state."""
    max_key: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEY)] = 256
    """Bytes of a key at most."""
    max_value: Annotated[int, msgspec.Meta(ge=0, le=MAX_VALUE)] = 1024
    """Bytes of a value at most."""


class StateAt(msgspec.Struct, frozen=True):
    """The state after one block."""

    height: int
    block_hash: bytes
    parent_hash: bytes
    state_root: bytes
    """Root of the tree of watched entries (`tea.trust.statetree`), 32 bytes: what the rounds compare."""
    chain_root: bytes
    """The chain's own state root, as the parent says it stands in the header, 32 bytes."""
    timestamp: int
    """Seconds since the epoch, from the header."""


class Account(msgspec.Struct, frozen=True):
    """An account as the parent's node says: good enough to build a transaction, no evidence."""

    nonce: int
    balance: bytes
    """Wei, 32 bytes big-endian."""
    chain_id: int
    gas_price: int
    """Suggested, in wei."""


class Layer1Status(msgspec.Struct, frozen=True):
    """How following goes."""

    height: int | None
    """Newest height, None before the first."""
    oldest: int
    """Lowest height kept."""
    entries: int
    quarantined_from: int | None
    """Reads answer UNTRUSTED since this height dissented; None: all is well."""
    reorganisations: int
    reloads: int
    failures: int
    """Rounds of asking the parent that failed."""


class _Feed(AdapterFeed):
    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def finalized(self, head: Head) -> None:
        # Only a reason to look: what the head says is asked for and checked then.
        self._follower.nudge()


class Layer1(Provider[Layer1Config]):
    """A cache of chosen chain state by block height."""

    name: ClassVar[str] = "layer1"
    config_type: ClassVar[type[Config]] = Layer1Config
    in_place: ClassVar[frozenset[str]] = frozenset(
        {"keep", "keep_bytes", "batch", "poll", "max_entries", "max_block", "max_key", "max_value"}
    )

    def __init__(self, config: Layer1Config) -> None:
        super().__init__(config)
        self._history = History(config.start, config.keep, config.keep_bytes)
        self._subscriptions = Subscriptions(per_replica=1)
        self._told: dict[int, bytes] = {}
        self._dead_letters = 0
        self._follower = Follower(
            self._history,
            self._ask,
            config,
            on_version=self._tell,
            log=lambda level, message: self.services.log(level, message),
            run_in_thread=lambda *args: self.services.run_in_thread(*args),
        )

    async def start(self, services: Services) -> None:
        await super().start(services)
        services.parent.serve(Channel.ADAPTER, AdapterFeed, _Feed(self._follower))
        services.spawn(self._follower.run())

    def require_in_place(self, config: Layer1Config) -> None:
        super().require_in_place(config)
        tip = self._history.tip
        if tip is not None and config.max_entries < len(tip.tree):
            raise ValueError(f"max_entries {config.max_entries} is less than the {len(tip.tree)} entries that are here")
        for key in ("max_key", "max_value"):
            if getattr(config, key) < getattr(self.config, key):
                raise ValueError(f"{key} cannot become less while it runs: what was taken might be over it")

    def reconfigure(self, config: Layer1Config) -> None:
        super().reconfigure(config)
        self._history.rebound(config.keep, config.keep_bytes)
        self._follower.rebound(config)

    async def forget(self, actor: str) -> None:
        self._subscriptions.drop_actor(actor)

    async def replica_gone(self, actor: str, replica: int) -> None:
        self._subscriptions.drop_replica(actor, replica)

    def usage(self) -> dict[str, int]:
        tip = self._history.tip
        return {
            "height": -1 if tip is None else tip.head.height,
            "entries": 0 if tip is None else len(tip.tree),
            "bytes": self._history.size,
            "versions": len(self._history),
            "older_bytes": self._history.older_bytes,
            "evidence_bytes": self._history.evidence_bytes,
            "dropped_for_bytes": self._history.dropped_for_bytes,
            "subscriptions": len(self._subscriptions),
            "reorganisations": self._follower.reorganisations,
            "reloads": self._follower.reloads,
            "failures": self._follower.failures,
            "dead_letters": self._dead_letters,
            "quarantined": int(self._history.quarantined_from is not None),
        }

    # Reading.

    @operation
    async def height(self, call: Call) -> int:
        """The newest finalized height whose state is here. UNAVAILABLE before the first."""
        return self._tip().head.height

    @operation
    async def head(self, call: Call) -> StateAt:
        """The newest finalized block and its state root. UNAVAILABLE before the first."""
        return _state_at(self._tip())

    @operation
    async def status(self, call: Call) -> Layer1Status:
        """How following goes: heights, entries, quarantine, counters."""
        tip = self._history.tip
        return Layer1Status(
            None if tip is None else tip.head.height,
            self._history.oldest,
            0 if tip is None else len(tip.tree),
            self._history.quarantined_from,
            self._follower.reorganisations,
            self._follower.reloads,
            self._follower.failures,
        )

    @operation
    async def get(self, call: Call, key: bytes, height: int | None = None) -> bytes | None:
        """A watched entry's value at a height (the newest by default); None when it is absent.

        UNTRUSTED while this enclave's state is known to dissent; NOT_FOUND for a height no longer kept; UNAVAILABLE
        for one that has not come; INVALID for a key of no or more than 1,024 bytes.
        """
        _require_key(key)
        if self._history.quarantined_from is not None:
            raise CallError(
                Code.UNTRUSTED,
                f"this enclave's state dissents since height {self._history.quarantined_from}: nothing is read from it "
                "until it has loaded anew and agrees again",
                height=self._history.quarantined_from,
            )
        tree = (self._tip() if height is None else self._at(height, self._history.at(height))).tree
        return tree.get(key)

    # For the rounds: these go on for quarantined heights, as evidence.

    @operation
    async def state_hash(self, call: Call, height: int | None = None) -> StateAt:
        """Block hash and state root at a height (the newest by default). Errors as `get`, but for UNTRUSTED."""
        return _state_at(self._tip() if height is None else self._attested(height))

    @operation
    async def proof(self, call: Call, key: bytes, height: int | None = None) -> bytes:
        """A proof of the key's value or absence under `state_hash(height)`, at most 128 KiB. Errors as `state_hash`."""
        _require_key(key)
        return (self._tip() if height is None else self._attested(height)).tree.prove(key)

    @operation
    async def node(self, call: Call, height: int, prefix: bytes) -> bytes:
        """The state tree's encoded node at a prefix: one nibble (0 to 15) a byte, none for the root.

        NOT_FOUND where there is no node, or the height is no longer kept; UNAVAILABLE for a height that has not come.
        """
        try:
            return self._attested(height).tree.node(prefix)
        except StateTreeError as error:
            raise CallError(Code.NOT_FOUND, error.sentence, height=height) from None

    @operation
    async def quarantine(self, call: Call, height: int) -> None:
        """Mark the own state as dissenting from this height on: `get` answers UNTRUSTED until `rejoin`.

        The versions from there on are kept as evidence, also over a reload. CONFLICT for a height that has not come.
        """
        tip = self._history.tip
        if tip is None or not 0 <= height <= tip.head.height:
            raise CallError(Code.CONFLICT, f"height {height} has not come, so it can't dissent", height=height)
        self._history.quarantine(height)
        self.services.log("error", "the own layer-1 state dissents", height=height, by=call.caller)

    @operation
    async def reload(self, call: Call) -> None:
        """Forget the state and load it anew from the first height; goes on in the background. Quarantine stays."""
        self.services.log("warning", "the layer-1 state is loaded anew", by=call.caller)
        self._follower.reload()

    @operation
    async def rejoin(self, call: Call, height: int, state_root: bytes) -> None:
        """End the quarantine, because the own state at a height has the root that the others certified.

        CONFLICT when it has another; UNAVAILABLE while that height has not been loaded; NOT_FOUND when it was dropped.
        """
        version = self._at(height, self._history.at(height))
        if not hmac.compare_digest(version.tree.root, state_root):
            raise CallError(Code.CONFLICT, f"the own state at height {height} still has another root", height=height)
        if self._history.quarantined_from is not None:
            self._history.rejoin()
            self.services.log("info", "the layer-1 state agrees again", height=height, by=call.caller)

    # Heads.

    @operation
    async def subscribe(self, call: Call, operation: str) -> None:
        """Be told each new finalized block: the caller's own `operation(height: int, block_hash: bytes, state_root:
        bytes)` on this replica; a second time replaces the first.

        Each block is told once; after a reorganisation the blocks that replace others are told. What a full mailbox
        drops is not told again: read `state_hash` for heights in between.
        """
        require_operation(operation)
        self._subscriptions.add(_TOPIC, Subscription(call.caller, call.replica, operation, each=True))

    @operation
    async def unsubscribe(self, call: Call) -> None:
        """No longer be told. NOT_FOUND when this replica was not subscribed."""
        if not self._subscriptions.remove(_TOPIC, call.caller, call.replica):
            raise CallError(Code.NOT_FOUND, "this replica is not subscribed to finalized blocks")

    # Transactions.

    @operation
    async def account(self, call: Call, address: bytes) -> Account:
        """Nonce, balance, chain id and gas price for a 20-byte address, as the parent's node says: no evidence."""
        if len(address) != 20:
            raise CallError(Code.INVALID, f"an address has 20 bytes, this one {len(address)}")
        return Account(*require_account(await self._ask("account", address)))

    @operation
    async def transaction_digest(self, call: Call, transaction: EvmTransaction) -> bytes:
        """The 32 bytes to sign with secp256k1 (crypto provider) for an EIP-1559 transaction. INVALID if malformed."""
        return evm.transaction_digest(transaction)

    @operation
    async def encode_signed(self, call: Call, transaction: EvmTransaction, signature: bytes) -> bytes:
        """The raw transaction from what was signed and the 65-byte signature r ‖ s ‖ recovery id. Raises INVALID."""
        return evm.encode_signed(transaction, signature)

    @operation
    async def send_transaction(self, call: Call, raw: bytes) -> bytes:
        """Broadcast a signed transaction through the parent; its hash, computed here, 32 bytes.

        That the parent took it is no proof that it will be in a block. INVALID, CONFLICT, UNAVAILABLE as the node says.
        """
        if not 0 < len(raw) <= evm.MAX_DATA + 1024:
            raise CallError(Code.INVALID, f"a raw transaction has 1 to {evm.MAX_DATA + 1024} bytes")
        await self._ask("send_transaction", raw)
        return evm.keccak256(raw)

    # Inside.

    async def _ask(self, operation: str, *args: object) -> object:
        answer: object = await self.services.parent.call(Channel.ADAPTER, operation, *args, timeout=30.0)
        return answer

    def _tip(self) -> Version:
        if self._history.tip is None:
            raise CallError(Code.UNAVAILABLE, f"no finalized block from height {self.config.start} on has come yet")
        return self._history.tip

    def _attested(self, height: int) -> Version:
        return self._at(height, self._history.attested(height))

    def _at(self, height: int, version: Version | None) -> Version:
        if version is not None:
            return version
        if height >= self._history.next_height:
            raise CallError(Code.UNAVAILABLE, f"height {height} has not come yet", height=height)
        raise CallError(
            Code.NOT_FOUND, f"height {height} is not kept: the lowest is {self._history.oldest}", height=height
        )

    def _tell(self, version: Version) -> None:
        head = version.head
        lowest = next(iter(self._told), 0)
        if head.height < lowest or self._told.get(head.height) == head.block_hash:
            return  # loaded anew: nobody hears of the same block twice
        self._told[head.height] = head.block_hash
        while len(self._told) > self.config.keep:
            del self._told[next(iter(self._told))]
        root = version.tree.root
        for actor in self._subscriptions.actors(_TOPIC):
            for _, replica, name, _ in self._subscriptions.each(_TOPIC, actor):
                told = self.services.tell_actor(actor, name, head.height, head.block_hash, root, replica=replica)
                self._dead_letters += not told


def _require_key(key: bytes) -> None:
    if not 0 < len(key) <= MAX_KEY:
        raise CallError(Code.INVALID, f"a key has 1 to {MAX_KEY} bytes, this one {len(key)}")


def _state_at(version: Version) -> StateAt:
    head = version.head
    return StateAt(head.height, head.block_hash, head.parent_hash, version.tree.root, head.state_root, head.timestamp)
