"""An in-memory `Services` to run a provider without a host: tells are recorded, time is set, faults are attributes.

May not: be imported by a provider or the host. What it accepts is encoded and decoded as on the wire, so that a test
fails where the host would. Rule: docs/architecture.md, "Providers"; `providers/base.py` is the interface.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from tea.protocol.channels import Adapter, AdapterFeed, Channel, Facade, Logs, Peers, PeersInbox, Release
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import Operation, operations_of
from tea.trust import pcr
from tea.trust.sealing import SealingKey
from tea.trust.statement import Speaker, Statement

from .base import Answer, Attester, Call, Config, Provider
from .nitro.client import Nsm
from .nitro.simulated import SimulatedCa, SimulatedNsm

P = TypeVar("P", bound=Provider[Any])

EPOCH = 1_800_000_000.0
"""Where virtual time starts: seconds since the epoch."""
_PARENT_SIDE: Mapping[int, type] = {
    Channel.ADAPTER: Adapter,
    Channel.PEERS: Peers,
    Channel.LOGS: Logs,
    Channel.RELEASE: Release,
}
_ENCLAVE_SIDE: Mapping[int, type] = {
    Channel.ADAPTER: AdapterFeed,
    Channel.PEERS: PeersInbox,
    Channel.FACADE: Facade,
}


class Told(NamedTuple):
    """One message that a provider told an actor; arguments as they come out of msgpack."""

    actor: str
    operation: str
    args: tuple[object, ...]
    replica: int | None


class Asked(NamedTuple):
    """One request that a provider made for its caller."""

    caller: str
    chain: tuple[str, ...]
    actor: str
    operation: str
    timeout: float


class Logged(NamedTuple):
    """One record of `Services.log`."""

    level: str
    message: str
    fields: Mapping[str, object]


class VirtualClock:
    """Time that moves only by `advance`. `install` puts a running asyncio loop on it, so that its timers obey too.

    Faults: add to `jump` to set the time of day forward or back, to `elapsed` to be late.
    """

    def __init__(self, start: float = EPOCH) -> None:
        self._start = start
        self.jump = 0.0
        self.elapsed = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self.jump + self.elapsed

    def monotonic(self) -> float:
        """Seconds since this clock was made; never goes back."""
        return self.elapsed

    def install(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Make the loop's `time()` this clock's, for good; its own timers fire when `advance` reaches them."""
        target = asyncio.get_running_loop() if loop is None else loop
        target.time = self.monotonic  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        """Move time on in steps (of 10 ms, but at most 1000), and let what is due run after each."""
        steps = min(1000, max(1, round(seconds / 0.01)))
        for _ in range(steps):
            self.elapsed += seconds / steps
            await settle()


async def settle(rounds: int = 4) -> None:
    """Let callbacks that are ready run, and what they make ready in turn."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class SimulatedAttester:
    """Statements and real documents by a simulated NSM of its own CA: `ca.root_digest` is what a policy must name.

    `manifest`, `revision`, `epoch` and `log_head` are what statements say; `device.failing` makes the NSM fail.
    Several can share a CA, as the enclaves of one network do.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        deployment: str = "test",
        manifest: bytes = bytes(48),
        instance_id: str = "i-0123456789abcdef0",
        ca: SimulatedCa | None = None,
    ) -> None:
        self.module_id = f"{instance_id}-enc0123456789abcdef"
        self.deployment = deployment
        self.manifest = manifest
        self.revision = 1
        self.epoch = 0
        self.log_head = pcr.ZERO
        self.ca = ca or SimulatedCa.create(now=clock())
        credential = self.ca.issue_instance(instance_id, now=clock())
        image = {index: pcr.image_pcr(hashlib.sha384(b"tea.testing %d" % index).digest()) for index in range(3)}
        self.device = SimulatedNsm(credential, self.module_id, image, clock)
        self._nsm = Nsm(self.device)
        self._nsm.lock_pcrs(19)
        self.sealing_key = SealingKey.generate()

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]:
        described = ((index, self._nsm.describe_pcr(index)) for index in range(32))
        return {index: (register.locked, register.data) for index, register in described}

    def random(self, size: int) -> bytes:
        return self._nsm.random(size)

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
        statement = Statement(
            kind=kind,
            deployment=self.deployment,
            manifest=self.manifest,
            revision=self.revision,
            epoch=self.epoch,
            log_head=self.log_head,
            speaker=None if speaker is None else Speaker(*speaker),
            body=body,
        )
        key = public_key if public_key is not None else self.sealing_key.public
        return self._nsm.attestation(statement.digest, nonce, key), statement.encode()

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None:
        return self.manifest

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes:
        return self.sealing_key.open(sealed, purpose=purpose, actor=actor, manifest_digest=self.manifest)


class InMemoryParent:
    """The parent's side of the channels: answer with `stand_in`, look at `tells`, send in with `send`.

    Faults: `cut` makes calls UNAVAILABLE and drops tells.
    """

    def __init__(self) -> None:
        self.cut = False
        self.tells: list[tuple[int, str, tuple[object, ...]]] = []
        self.served: dict[int, object] = {}
        self._stand_ins: dict[int, object] = {}

    def stand_in(self, channel: int, service: object) -> None:
        """Let `service` (with the methods of the channel's parent side) answer what providers call or tell."""
        self._stand_ins[channel] = service

    async def call(self, channel: int, operation: str, *args: object, timeout: float = 10.0) -> Any:
        if self.cut or channel not in self._stand_ins:
            raise CallError(Code.UNAVAILABLE, "the parent does not answer")
        async with asyncio.timeout(timeout):
            return await _over_the_wire(_PARENT_SIDE[channel], self._stand_ins[channel], operation, args)

    def tell(self, channel: int, operation: str, *args: object) -> None:
        declared = _operation(_PARENT_SIDE[channel], operation)
        decoded = declared.decode_arguments(declared.encode_arguments(*args))
        if not self.cut:
            self.tells.append((channel, operation, decoded))

    def serve(self, channel: int, interface: type, service: object) -> None:
        if interface is not _ENCLAVE_SIDE.get(channel):
            raise TypeError(f"channel {channel} is served as {_ENCLAVE_SIDE.get(channel)}, not {interface}")
        self.served[channel] = service

    async def send(self, channel: int, operation: str, *args: object) -> Any:
        """Call what a provider serves on a channel, as the parent would."""
        if channel not in self.served:
            raise CallError(Code.UNAVAILABLE, f"nothing serves channel {channel}")
        return await _over_the_wire(_ENCLAVE_SIDE[channel], self.served[channel], operation, args)


class InMemoryServices:
    """`providers.base.Services` in memory, for one provider. Everything a test wants to see or set is an attribute.

    `handlers` maps (actor, operation) to a function that `call_actor` calls; `full` names actors whose mailbox takes
    nothing more; `environments` gives each actor its part of the environment. `replicas` says how many an actor has,
    `starting` which (actor, replica) belong to a revision that does not serve yet; `asked` is what was requested for a
    caller, and the handlers answer that too.
    """

    def __init__(
        self, name: str = "provider", *, actors: Sequence[str] = (), clock: VirtualClock | None = None
    ) -> None:
        self.name = name
        self.deployment = "test"
        self.mode = "simulated"
        self.environment: Mapping[str, str] = {}
        self.environments: dict[str, Mapping[str, str]] = {}
        self.members: Mapping[str, Mapping[str, str]] = {}
        self.own_slot: str | None = None
        self.parent = InMemoryParent()
        self.clock = clock or VirtualClock()
        self.providers: dict[str, object] = {}
        self.policies: dict[str, object] = {}
        self.tells: list[Told] = []
        self.logs: list[Logged] = []
        self.failures: list[BaseException] = []
        self.full: set[str] = set()
        self.handlers: dict[tuple[str, str], Callable[..., object]] = {}
        self.replicas: dict[str, int] = {}
        self.starting: set[tuple[str, int]] = set()
        self.asked: list[Asked] = []
        self._attester: Attester | None = None
        self._actors = list(actors)
        self._tasks: set[asyncio.Future[None]] = set()

    @property
    def attester(self) -> Attester:
        """A `SimulatedAttester`, made when it is first asked for (its certificates take a few ms)."""
        if self._attester is None:
            self._attester = SimulatedAttester(
                self.clock.now, deployment=self.deployment, manifest=self.manifest_digest
            )
        return self._attester

    @attester.setter
    def attester(self, attester: Attester) -> None:
        self._attester = attester

    def provider(self, name: str) -> Any:
        try:
            return self.providers[name]
        except KeyError:
            raise LookupError(f"no provider {name} was started before this one") from None

    def now(self) -> float:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def log(self, level: str, message: str, **fields: object) -> None:
        self.logs.append(Logged(level, message, fields))

    async def call_actor(self, actor: str, operation: str, *args: object, timeout: float = 10.0) -> bytes:
        handler = self.handlers.get((actor, operation))
        if handler is None:
            raise CallError(Code.NOT_FOUND, f"{actor} has no operation {operation}")
        async with asyncio.timeout(timeout):
            result = handler(*msgspec.msgpack.decode(msgspec.msgpack.encode(args)))
            if inspect.isawaitable(result):
                result = await result
        return msgspec.msgpack.encode(result)

    def tell_actor(self, actor: str, operation: str, *args: object, replica: int | None = None) -> bool:
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(args))
        starts = replica is not None and (actor, replica) in self.starting
        if starts or actor in self.full or (self._actors and actor not in self._actors):
            return False
        self.tells.append(Told(actor, operation, tuple(decoded), replica))
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
        self.asked.append(Asked(call.caller, call.chain, actor, operation, timeout))
        arguments = msgspec.msgpack.decode(body)
        answers = []
        for number in range(self.replicas.get(actor, 1)) if every else (replica,):
            try:
                answer: bytes | CallError = await self.call_actor(actor, operation, *arguments, timeout=timeout)
            except CallError as error:
                answer = error
            answers.append(Answer(number, answer))
        return answers

    def is_starting(self, actor: str, replica: int) -> bool:
        return (actor, replica) in self.starting

    def takes_messages(self, actor: str, replica: int) -> bool:
        return (actor, replica) not in self.starting and (not self._actors or actor in self._actors)

    def actors(self) -> Sequence[str]:
        return list(self._actors)

    def environment_of(self, actor: str, replica: int | None = None) -> Mapping[str, str]:
        return self.environments.get(actor, {})

    def spawn(self, task: Awaitable[None]) -> None:
        running = asyncio.ensure_future(task)
        self._tasks.add(running)
        running.add_done_callback(self._ended)

    async def run_in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.to_thread(function, *args)

    def digest_of(self, actor: str) -> bytes:
        if self._actors and actor not in self._actors:
            raise LookupError(f"no actor {actor} runs")
        return hashlib.sha256(actor.encode()).digest()

    @property
    def manifest_digest(self) -> bytes:
        return hashlib.sha384(self.deployment.encode()).digest()

    def policy_for(self, slot: str) -> Any:
        try:
            return self.policies[slot]
        except KeyError:
            raise LookupError(f"the manifest has no slot {slot}") from None

    async def close(self) -> None:
        """Cancel what was spawned; the provider's `stop` is called before."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)


async def start_provider(cls: type[P], services: InMemoryServices, config: Mapping[str, object] | None = None) -> P:
    """A started provider, its config converted as the host converts it. Raises `msgspec.ValidationError`."""
    typed: Config = msgspec.convert(dict(config or {}), type=cls.config_type)
    provider = cls(typed)
    await provider.start(services)
    return provider


async def invoke(
    provider: Provider[Any], operation: str, *args: object, call: Call | None = None, **kwargs: object
) -> Any:
    """Call a provider's operation with arguments and result through their wire form, as from actor `counter`."""
    declared = type(provider).operations().get(operation)
    if declared is None:
        raise CallError(Code.NOT_FOUND, f"{provider.name} has no operation {operation}")
    arguments = declared.decode_arguments(declared.encode_arguments(*args, **kwargs))
    stamped = Call(caller="counter", bundle=hashlib.sha256(b"counter").digest()) if call is None else call
    result = getattr(provider, declared.function_name)(stamped, *arguments)
    if inspect.isawaitable(result):
        result = await result
    return declared.decode_result(declared.encode_result(result))


def _operation(interface: type, name: str) -> Operation:
    try:
        return operations_of(interface)[name]
    except KeyError:
        raise CallError(Code.NOT_FOUND, f"{interface.__name__} has no operation {name}") from None


async def _over_the_wire(interface: type, service: object, name: str, args: tuple[object, ...]) -> Any:
    declared = _operation(interface, name)
    arguments = declared.decode_arguments(declared.encode_arguments(*args))
    result = await getattr(service, name)(*arguments)
    return declared.decode_result(declared.encode_result(result))
