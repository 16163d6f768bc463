"""What the host lends providers, in memory: the same names and meanings as `tea.providers.base.Services`.

May not: import providers (floors); tests/sdk holds these classes to the providers' protocols.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from tea.protocol.errors import CallError, Code

from .clock import LoopThread

LOGGER: Final = logging.getLogger("tea.providers")


class Call(msgspec.Struct, frozen=True):
    """Who calls: the fields of `tea.providers.base.Call`."""

    caller: str
    replica: int = 0
    chain: tuple[str, ...] = ()
    bundle: bytes = b""
    kvp_bytes: int = 0
    deadline: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a replica answered: the fields of `tea.providers.base.Answer`."""

    replica: int | None
    outcome: bytes | CallError


class Told(NamedTuple):
    """What a provider told the parent."""

    channel: int
    operation: str
    args: tuple[Any, ...]


class MemoryAttester(Protocol):
    """What providers may ask of the NSM (`tea.providers.base.Attester`)."""

    module_id: str

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]: ...

    def random(self, size: int) -> bytes: ...

    async def attest(
        self,
        kind: str,
        body: bytes,
        *,
        speaker: tuple[str, bytes] | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
        on_behalf: tuple[str, bytes] | None = None,
    ) -> tuple[bytes, bytes]: ...

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None: ...

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes: ...


class MemoryParent:
    """The parent's side of the connection.

    `told` keeps what providers told it. `answers` maps (channel, operation) to a function of the operation's arguments;
    a call without an answer is UNAVAILABLE, as with a dead parent.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.answers: dict[tuple[int, str], Callable[..., object]] = {}
        self.served: dict[int, object] = {}

    async def call(self, channel: int, operation: str, *args: object, timeout: float = 10.0) -> Any:
        answer = self.answers.get((channel, operation))
        if answer is None:
            raise CallError(Code.UNAVAILABLE, f"the parent has no answer to {operation} on channel {channel}")
        return answer(*args)

    def tell(self, channel: int, operation: str, *args: object) -> None:
        self.told.append(Told(channel, operation, args))

    def serve(self, channel: int, interface: type, service: object) -> None:
        self.served[channel] = service


class World:
    """What all providers of one harness share."""

    def __init__(self, loop: LoopThread, actor: str, deployment: str, environment: Mapping[str, str]) -> None:
        self.loop = loop
        self.actor = actor
        self.deployment = deployment
        self.environment = dict(environment)
        self.attester: MemoryAttester | None = None
        self.make_attester: Callable[[], MemoryAttester] | None = None
        self.parent = MemoryParent()
        self.providers: dict[str, Any] = {}
        self.policies: dict[str, Any] = {}
        self.members: dict[str, Mapping[str, str]] = {}
        self.own_slot: str | None = None
        self.ask: Callable[[Call, str, str, bytes], bytes] | None = None
        """Calls another actor over the actor's own links."""
        self.inbox: collections.deque[Delivery] = collections.deque()
        """What providers told or asked the actor and it has not handled yet."""

    @property
    def manifest_digest(self) -> bytes:
        """SHA-384 that stands for a manifest's."""
        return hashlib.sha384(self.deployment.encode()).digest()

    def the_attester(self) -> MemoryAttester:
        """The test's own, or a simulated NSM that is made when the first provider asks for it."""
        if self.attester is None:
            if self.make_attester is None:
                raise LookupError("no simulated NSM is at hand: pass attester=... to run_actor")
            self.attester = self.make_attester()
        return self.attester


class Delivery(NamedTuple):
    """One call or message of a provider for the actor."""

    caller: str
    operation: str
    body: bytes
    answer: asyncio.Future[bytes] | None


class MemoryServices:
    """`tea.providers.base.Services` for one provider of a harness."""

    mode: str = "simulated"

    def __init__(self, world: World, provider: str, requires: Sequence[str]) -> None:
        self._world = world
        self._name = provider
        self._requires = tuple(requires)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def deployment(self) -> str:
        return self._world.deployment

    @property
    def environment(self) -> Mapping[str, str]:
        return self._world.environment

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        return self._world.members

    @property
    def own_slot(self) -> str | None:
        return self._world.own_slot

    @property
    def attester(self) -> MemoryAttester:
        return self._world.the_attester()

    @property
    def parent(self) -> MemoryParent:
        return self._world.parent

    def provider(self, name: str) -> Any:
        if name not in self._requires:
            raise LookupError(f"{self._name} does not require {name}")
        return self._world.providers[name]

    def now(self) -> float:
        return self._world.loop.now()

    def monotonic(self) -> float:
        return self._world.loop.elapsed()

    def log(self, level: str, message: str, **fields: object) -> None:
        number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
        LOGGER.log(number, "%s: %s %s", self._name, message, fields or "")

    async def call_actor(self, actor: str, operation: str, *args: object, timeout: float = 10.0) -> bytes:
        self._require_actor(actor)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._world.inbox.append(self._delivery(operation, args, answer))
        return await answer

    def tell_actor(self, actor: str, operation: str, *args: object, replica: int | None = None) -> bool:
        if actor != self._world.actor:
            return False
        self._world.inbox.append(self._delivery(operation, args, None))
        return True

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
        ask = self._world.ask
        if ask is None:
            raise CallError(Code.UNAVAILABLE, f"{call.caller} has no links yet")
        # On a thread: the other actor may need this loop for what it asks of providers in turn.
        loop = asyncio.get_running_loop()
        try:
            answer: bytes | CallError = await loop.run_in_executor(None, ask, call, actor, operation, body)
        except CallError as error:
            if error.details.get("link") == actor:
                raise
            answer = error
        return (Answer(0 if every else replica, answer),)

    def is_starting(self, actor: str, replica: int) -> bool:
        return False

    def takes_messages(self, actor: str, replica: int) -> bool:
        return actor == self._world.actor

    def actors(self) -> Sequence[str]:
        return (self._world.actor,)

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        return self._world.environment if actor == self._world.actor else {}

    def spawn(self, task: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await task
            except Exception:
                LOGGER.exception("%s: a task of the provider failed", self._name)
                raise

        running = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def run_in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    def digest_of(self, actor: str) -> bytes:
        self._require_lookup(actor)
        return bundle_digest(actor)

    @property
    def manifest_digest(self) -> bytes:
        return self._world.manifest_digest

    def policy_for(self, slot: str) -> Any:
        policy = self._world.policies.get(slot)
        if policy is None:
            raise LookupError(f"the test has no policy for the slot {slot}: set harness.policies[{slot!r}]")
        return policy

    async def cancel(self) -> None:
        """End what `spawn` started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _delivery(self, operation: str, args: tuple[object, ...], answer: asyncio.Future[bytes] | None) -> Delivery:
        return Delivery(f"provider:{self._name}", operation, msgspec.msgpack.encode(args), answer)

    def _require_actor(self, actor: str) -> None:
        if actor != self._world.actor:
            raise CallError(Code.NOT_FOUND, f"no actor {actor} runs here, only {self._world.actor}")

    def _require_lookup(self, actor: str) -> None:
        if actor != self._world.actor:
            raise LookupError(f"no actor {actor} runs here, only {self._world.actor}")


def bundle_digest(actor: str) -> bytes:
    """What stands for the digest of a bundle that a test never builds: SHA-256 of the actor's name."""
    return hashlib.sha256(actor.encode()).digest()
