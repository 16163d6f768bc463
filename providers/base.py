"""What every provider is, and what the host lends it. The seams between providers are the protocols below.

May not: know any provider by name, or the runtime. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from tea.protocol.errors import CallError
from tea.protocol.operations import Operation, operations_of

MANY: Final = msgspec.Meta(max_length=1024)
"""Of every collection among an operation's arguments (`Annotated[list[bytes], MANY]`): a longer one is refused before
any of it is built. What is tiny costs the host's loop up to a hundred times what its bytes do. What an operation itself
takes is less."""


class Call(msgspec.Struct, frozen=True):
    """Who calls an operation. Stamped by the router, never by the caller."""

    caller: str
    """Name of the calling actor."""
    replica: int = 0
    """Which replica of it, from 0."""
    chain: tuple[str, ...] = ()
    """Who stands behind the caller, nearest first: actors, then perhaps `parent` or `provider:NAME`."""
    bundle: bytes = b""
    """SHA-256 of the calling actor's bundle."""
    kvp_bytes: int = 0
    """The actor's quota of key-value memory in bytes, from the manifest."""
    deadline: float | None = None
    """Seconds that remained when the router handed the call over; None: no deadline."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every provider's configuration. The manifest's mapping is converted into it with msgspec."""


C = TypeVar("C", bound=Config)


class Answer(msgspec.Struct, frozen=True):
    """What one replica answered to `Services.request_actor`."""

    replica: int | None
    """None: whichever was least loaded."""
    outcome: bytes | CallError
    """Its msgpack result, not looked into; or why there is none."""


class Attester(Protocol):
    """What the host's NSM can do for providers (implemented over `providers.nitro`'s device)."""

    @property
    def module_id(self) -> str:
        """The NSM's own name: `<instance id>-enc<...>`."""
        ...

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]:
        """Every PCR: index -> (locked, its 48 bytes). Blocks as long as the NSM takes: call it on a thread."""
        ...

    def random(self, size: int) -> bytes:
        """`size` bytes (any number) from the NSM."""
        ...

    async def attest(
        self,
        kind: str,
        body: bytes,
        *,
        speaker: tuple[str, bytes] | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
        on_behalf: tuple[str, bytes] | None = None,
    ) -> tuple[bytes, bytes]:
        """(attestation document, canonical statement) for a statement that the host composes.

        `speaker` is (actor, bundle digest), or None when the host itself speaks. At most 512 bytes of nonce. The key in
        the document is the host's sealing key unless `public_key` is given. `on_behalf` is the actor for which the host
        speaks, as (actor, bundle digest): one that starts under the next revision speaks as that revision.
        """
        ...

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None:
        """SHA-384 of the manifest under which this actor (bundle digest) runs or starts; None when there is none."""
        ...

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes:
        """What was sealed to this boot's key, for this purpose and actor, under the manifest it runs or starts under.

        Raises `tea.trust.sealing.SealError`.
        """
        ...


class ParentLink(Protocol):
    """The one connection to the parent, seen from inside. Everything that comes over it is untrusted."""

    async def call(self, channel: int, operation: str, *args: object, timeout: float = 10.0) -> Any:
        """Call an operation of a channel's parent side; typed result. Raises `CallError`."""
        ...

    def tell(self, channel: int, operation: str, *args: object) -> None:
        """Tell, without an answer; dropped (and counted) when the bounded queue is full."""
        ...

    def serve(self, channel: int, interface: type, service: object) -> None:
        """Answer calls that the parent makes on a channel with the methods of `service` (an `interface` instance)."""
        ...


class Services(Protocol):
    """What the host lends a provider at `start`."""

    @property
    def deployment(self) -> str:
        """The deployment's name."""
        ...

    @property
    def mode(self) -> str:
        """nitro, vm or simulated."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """The approved environment of the manifest, values filled in."""
        ...

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """Slots of the manifest's `ra.members`: name -> {"pcr3"|"pcr4": hex}."""
        ...

    @property
    def own_slot(self) -> str | None:
        """Which slot this enclave is (its PCR4 or PCR3 matched), or None."""
        ...

    @property
    def attester(self) -> Attester:
        """The NSM."""
        ...

    @property
    def parent(self) -> ParentLink:
        """The connection to the parent."""
        ...

    def provider(self, name: str) -> Any:
        """A started provider that this one `requires`. Raises `LookupError` otherwise."""
        ...

    def now(self) -> float:
        """Host time in seconds since the epoch, corrected by the drift seen in NSM documents."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back, nobody sets it: what lifetimes and timers count with."""
        ...

    def log(self, level: str, message: str, **fields: object) -> None:
        """A structured log record under the provider's name. Never pass secrets."""
        ...

    async def call_actor(self, actor: str, operation: str, *args: object, timeout: float = 10.0) -> bytes:
        """Call an actor's operation as `provider:NAME`; the msgpack result. Raises `CallError`."""
        ...

    def tell_actor(self, actor: str, operation: str, *args: object, replica: int | None = None) -> bool:
        """Tell an actor; False when no replica runs or its mailbox is full (a dead letter, counted)."""
        ...

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
        """Call an actor for whoever called this provider: with its link, under its name and chain, not the provider's.

        `body` is the msgpack array of the arguments. One answer: of the least loaded replica, or of `replica`; with
        `every` one of each replica of the manifest, in their order. Raises `CallError`: DENIED without such a link,
        NOT_FOUND, UNAVAILABLE, CONFLICT when the actor waits for this very call.
        """
        ...

    def is_starting(self, actor: str, replica: int) -> bool:
        """Whether this replica belongs to a revision that is being started and does not serve yet."""
        ...

    def takes_messages(self, actor: str, replica: int) -> bool:
        """Whether `tell_actor` reaches this replica now, if its mailbox has room: not before its `on_start` ended."""
        ...

    def actors(self) -> Sequence[str]:
        """Names of the actors of the running manifest."""
        ...

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        """The part of `environment` that the manifest lets this actor read; empty for an unknown actor.

        A replica that starts or drains reads what its own revision says.
        """
        ...

    def spawn(self, task: Awaitable[None]) -> None:
        """Run a task until the provider stops; its failure is logged and fails the provider."""
        ...

    async def run_in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        """Run long computation on the host's bounded thread pool."""
        ...

    def digest_of(self, actor: str) -> bytes:
        """SHA-256 of the bundle that runs under this actor's name. Raises `LookupError`."""
        ...

    @property
    def manifest_digest(self) -> bytes:
        """SHA-384 of the running manifest."""
        ...

    def policy_for(self, slot: str) -> Any:
        """`tea.trust.policy.Policy` that an attestation of this slot must meet under the running manifest."""
        ...


class Provider(Generic[C]):
    """Base of every provider. Subclasses set `name` and `Config` type, and mark operations.

    Operations are methods `op(self, call: Call, ...typed arguments) -> typed result` marked with
    `tea.protocol.operations.operation`: `async def` where they wait for something, plain `def` where they never do (the
    router calls those at once, without a task). They raise `tea.protocol.errors.CallError` and nothing else on purpose.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    """Providers that must be started before this one."""
    config_type: ClassVar[type[Config]] = Config
    in_place: ClassVar[frozenset[str]] = frozenset()
    """Keys of the configuration that a higher revision may change while the provider runs."""

    def __init__(self, config: C) -> None:
        self.config = config
        self._next: C | None = None
        self.services: Services = typing.cast("Services", None)  # lent by start(); no operation runs before it

    async def start(self, services: Services) -> None:
        """Called once, before any actor runs; after all of `requires`. Call `super().start()` first."""
        self.services = services

    async def stop(self) -> None:
        """Called once, after the last actor stopped. Not called when the host is killed."""

    # A higher revision may change the configuration of a running provider, which keeps what it holds. The order:
    # `require_in_place` before anything of the revision starts; `prepare`, and its replicas start under the next
    # configuration while those that serve stay under theirs; then `reconfigure` in the same moment in which the
    # revision begins to serve, or `abandon` when it does not.

    def require_in_place(self, config: C) -> None:
        """Raise `ValueError` that names the key unless this provider can go on under another configuration.

        Changes nothing. Override it, and call it first, where more than the key decides.
        """
        fields = type(config).__struct_fields__
        changed = [key for key in fields if getattr(config, key) != getattr(self.config, key)]
        fixed = [key for key in changed if key not in self.in_place]
        if fixed:
            able = ", ".join(sorted(self.in_place)) or "no key"
            raise ValueError(f"{', '.join(fixed)} cannot change while it runs ({able} can): a new boot is needed")

    def prepare(self, config: C) -> None:
        """Make room for the next configuration: replicas that start ask under it. Must not fail, nor change `config`.

        Override it, and call it first, to make what the next configuration has more.
        """
        self._next = config

    def abandon(self) -> None:
        """The revision does not come: free what `prepare` made. Its replicas have ended. Must not fail."""
        self._next = None

    def reconfigure(self, config: C) -> None:
        """Go on under this configuration, at once; what it no longer grants ends. Must not fail.

        Not async on purpose: between two calls all providers and links change, or none.
        """
        self.config, self._next = config, None

    def config_for(self, call: Call) -> C:
        """The configuration under which a caller runs: the next one for a replica of a revision that is starting."""
        if self._next is not None and self.services.is_starting(call.caller, call.replica):
            return self._next
        return self.config

    def replica_serves(self, actor: str, replica: int) -> None:
        """A replica takes calls and messages from now on: its `on_start` has ended, and its revision serves."""

    async def forget(self, actor: str) -> None:
        """An actor has left the manifest, for good: free what was kept for it. Not called for a crash or restart."""

    async def replica_gone(self, actor: str, replica: int) -> None:
        """A replica ended (crash, drain, restart): drop its subscriptions. Its next life subscribes anew."""

    async def export_state(self) -> bytes | None:
        """What another enclave of the same slot needs to go on, as bytes; None: nothing. No actor runs meanwhile.

        It may hold secrets: the host seals it to an attested enclave, and shows it to nobody.
        """
        return None

    async def import_state(self, state: bytes) -> None:
        """Take in what `export_state` of the same provider gave, in place of what is here, before any actor runs.

        Raises `ValueError` or `CallError`, and has changed nothing then; its sentence says nothing of the state.
        """
        raise ValueError(f"the provider {self.name} takes no state over")

    def usage(self) -> dict[str, int]:
        """Figures for status and metrics, by name; bytes and counts."""
        return {}

    @classmethod
    def operations(cls) -> dict[str, Operation]:
        """The typed operations, by name."""
        return operations_of(cls, skip=2)
