"""One actor under test: its system, its links to providers in memory, and the test's hands on all of it.

May not: run an actor in another way than a worker does (same binding, same dispatch, same Thespian system).
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import thespian.actors

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import OperationDescription

from .. import binding
from ..system import LoadError, System
from .clock import LoopThread
from .links import Grants, MemoryLinks
from .providers import Providers
from .services import Delivery, MemoryAttester, MemoryParent, World
from .targets import CALL_TIMEOUT, ActorTarget, ObjectTarget, Target, operations_of_service

T = TypeVar("T")

EPOCH: Final = 1_800_000_000.0
"""Where a test's time starts: seconds since the epoch."""
_MAX_ROUNDS: Final = 1_000


class Harness:
    """Made by `run_actor`. Calls come from `parent` unless `as_caller` says otherwise."""

    def __init__(
        self,
        actor_class: type[thespian.actors.Actor],
        identity: binding.Identity,
        grants: Grants,
        given: Mapping[str, Any],
        config: Mapping[str, Mapping[str, object]],
        *,
        kvp_bytes: int,
        start: float,
        attester: MemoryAttester | None,
        members: Mapping[str, Mapping[str, str]],
        own_slot: str | None,
    ) -> None:
        self.failures: list[Exception] = []
        """What operations, hooks and handlers let out, in order; a test may clear it."""
        self.refused: list[CallError] = []
        """What tells were answered with; in a worker only the log knows."""
        self._class = actor_class
        self._identity = identity
        self._loop = LoopThread(start)
        self._world = World(self._loop, identity.name, identity.deployment, identity.environment)
        self._world.attester = attester
        self._world.members = dict(members)
        self._world.own_slot = own_slot
        self._providers = Providers(self._world, given, config)
        self._memory = MemoryLinks(identity, kvp_bytes)
        self._world.ask = self._memory.ask
        try:
            self._links = tuple(
                self._memory.add(name, self._target(name, given.get(name)), granted)
                for name, granted in grants.items()
                if granted is not False
            )
            self._start()
        except BaseException:
            self._close_providers()
            raise

    # -- calling ---------------------------------------------------------------------------------------------------

    def call(self, operation: str, /, *args: object, **kwargs: object) -> Any:
        """Call an operation as `parent`; its typed result. Raises `CallError` as a caller would see it.

        An INTERNAL error has the exception that the actor let out as its `__cause__`.
        """
        return self.as_caller("parent").call(operation, *args, **kwargs)

    def tell(self, operation: str, /, *args: object, **kwargs: object) -> None:
        """Tell as `parent`: no answer; a refusal goes to `refused`."""
        self.as_caller("parent").tell(operation, *args, **kwargs)

    def as_caller(self, caller: str, *, chain: Iterable[str] = (), deadline: float | None = None) -> CallerView:
        """The same actor, called by another: an actor's name, `provider:NAME`, or `parent`."""
        return CallerView(self, binding.Invocation(caller, tuple(chain), deadline))

    def deliver(self, operation: str, body: bytes, invocation: binding.Invocation) -> bytes:
        """Deliver one call in its wire form and let come what follows from it. Raises `CallError`."""
        try:
            return self._dispatch(operation, body, invocation)
        finally:
            self.settle()

    def describe(self) -> Mapping[str, OperationDescription]:
        """The actor's operations, as callers see them."""
        return {
            name: operation.description for name, operation in binding.operations(type(self._system.instance)).items()
        }

    # -- the world around the actor --------------------------------------------------------------------------------

    @property
    def actor(self) -> Any:
        """The instance, of the class under test."""
        return self._system.instance

    @property
    def alive(self) -> bool:
        """False once the actor exited."""
        return self._system.alive

    @property
    def parent(self) -> MemoryParent:
        """The parent's side of the providers' channels."""
        return self._world.parent

    @property
    def attester(self) -> MemoryAttester:
        """The simulated NSM (`root_digest` is its root's), or what the test passed."""
        return self._world.the_attester()

    @property
    def policies(self) -> dict[str, Any]:
        """What `Services.policy_for` answers, by slot."""
        return self._world.policies

    def provider(self, name: str) -> Any:
        """A provider that a link, or another provider, needs. Raises `LookupError`."""
        return self._providers.service(name)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the providers run (a method of theirs), while the actor answers what they ask it."""
        future = self._loop.submit(coroutine)
        limit = time.monotonic() + CALL_TIMEOUT
        while not future.done():
            self.settle()
            concurrent.futures.wait([future], timeout=0.002)
            if time.monotonic() > limit:
                future.cancel()
                raise TimeoutError(f"not done within {CALL_TIMEOUT} s of real time; does it wait for `advance`?")
        self.settle()
        return future.result()

    def now(self) -> float:
        """The test's time, seconds since the epoch."""
        return self._loop.now()

    def advance(self, seconds: float) -> None:
        """Let time pass for providers and for the actor's wake-ups, one due thing after the other."""
        if seconds < 0:
            raise ValueError(f"time goes forward, not by {seconds} s")
        left = seconds
        self.settle()
        while left > 0:
            due = [after for after in (self._loop.next_timer(), self._system.next_wakeup()) if after is not None]
            step = min([left, *due])
            self._loop.advance(step)
            self._system.hasten(step)
            left -= step
            self.settle()

    def settle(self) -> None:
        """Deliver what is pending: Thespian's messages, due wake-ups, what providers told the actor."""
        inbox = self._world.inbox
        for _ in range(_MAX_ROUNDS):
            with binding.activated(self._binding):
                self._system.pump()
            self._loop.settle()
            if not inbox and self._system.next_wakeup() != 0.0:
                return
            while inbox:
                self._take(inbox.popleft())
        raise RuntimeError(f"{self._identity.name} does not come to rest: does it keep sending to itself?")

    def restart(self, *, crash: bool = False) -> None:
        """A new instance beside the same providers, as the supervisor makes one. No `on_stop` after a crash."""
        self._end(crash=crash)
        self._start()

    def close(self) -> None:
        """Drain the actor and stop the providers; `run_actor` does it."""
        try:
            self._end(crash=False)
        finally:
            self._close_providers()

    # -- within ----------------------------------------------------------------------------------------------------

    def _target(self, name: str, given: object) -> Target:
        if isinstance(given, Harness):
            return ActorTarget(given.describe, given.deliver)
        service = self._providers.service(name)
        return ObjectTarget(name, service, operations_of_service(type(service)), self._loop)

    def _start(self) -> None:
        self._binding = binding.Binding(self._identity, self._links, self._memory)
        self._binding.observer = self.failures.append
        with binding.activated(self._binding):
            try:
                self._system = System.of(self._class)
            except LoadError as error:
                raise (error.__cause__ or error) from None
            with self._causes_shown():
                self._system.start()
        self.settle()

    def _end(self, *, crash: bool) -> None:
        if not crash:
            with binding.activated(self._binding):
                self._system.stop()
        self._world.inbox.clear()
        self._providers.replica_gone(self._identity.name, self._identity.replica)

    def _close_providers(self) -> None:
        try:
            self._providers.stop()
        finally:
            self._loop.close()

    def _dispatch(self, operation: str, body: bytes, invocation: binding.Invocation) -> bytes:
        if not self.alive:
            raise CallError(Code.UNAVAILABLE, f"{self._identity.name} has exited")
        before, self._memory.behind = self._memory.behind, (invocation.caller, *invocation.chain)
        try:
            with binding.activated(self._binding), self._causes_shown():
                return binding.dispatch(self.actor, operation, body, invocation)
        finally:
            self._memory.behind = before

    @contextlib.contextmanager
    def _causes_shown(self) -> Iterator[None]:
        # Who tests an actor wants to see what it raised; a caller in production does not get it.
        known = len(self.failures)
        try:
            yield
        except CallError as error:
            if error.code is not Code.INTERNAL or len(self.failures) == known:
                raise
            raise error from self.failures[-1]

    def _take(self, delivery: Delivery) -> None:
        outcome: bytes | CallError
        try:
            outcome = self._dispatch(delivery.operation, delivery.body, binding.Invocation(delivery.caller))
        except CallError as error:
            outcome = error
        if delivery.answer is not None:
            self._loop.answer(delivery.answer, outcome)
        elif isinstance(outcome, CallError):
            self.refused.append(outcome)


class CallerView:
    """An actor under test, as one of its callers has it."""

    def __init__(self, harness: Harness, invocation: binding.Invocation) -> None:
        self._harness = harness
        self._invocation = invocation

    def call(self, operation: str, /, *args: object, **kwargs: object) -> Any:
        """`Harness.call` as this caller."""
        declared = binding.operations(type(self._harness.actor)).get(operation)
        body = b"\x90" if declared is None else declared.encode_arguments(*args, **kwargs)
        result = self._harness.deliver(operation, body, self._invocation)
        return None if declared is None else declared.decode_result(result)

    def tell(self, operation: str, /, *args: object, **kwargs: object) -> None:
        """`Harness.tell` as this caller."""
        try:
            self.call(operation, *args, **kwargs)
        except CallError as refusal:
            self._harness.refused.append(refusal)


@contextlib.contextmanager
def run_actor(
    actor_class: type[thespian.actors.Actor],
    *,
    links: Grants | None = None,
    providers: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    config: Mapping[str, Mapping[str, object]] | None = None,
    name: str | None = None,
    replica: int = 0,
    version: str = "0.0.0",
    deployment: str = "test",
    kvp_bytes: int = 1 << 20,
    start: float = EPOCH,
    attester: MemoryAttester | None = None,
    members: Mapping[str, Mapping[str, str]] | None = None,
    own_slot: str | None = None,
) -> Iterator[Harness]:
    """Run an actor within the block: `on_start` before it, `on_stop` after it.

    `links`: name of a provider or actor -> operations granted, or True for all. `providers`: doubles, other actors'
    harnesses, or provider instances to use instead of the installed ones. `config`: provider -> its part of the
    manifest. `kvp_bytes`: the actor's quota. `start`: the test's time, seconds since the epoch. `attester`: instead of
    a simulated NSM. `members`, `own_slot`: the manifest's slots (name -> {"pcr3" or "pcr4": hex}), and which is ours.
    Raises `TypeError` for a class that no worker would take, `CallError` when `on_start` fails.
    """
    harness = Harness(
        actor_class,
        binding.Identity(name or actor_class.__name__.lower(), replica, version, deployment, dict(environment or {})),
        links or {},
        providers or {},
        config or {},
        kvp_bytes=kvp_bytes,
        start=start,
        attester=attester,
        members=members or {},
        own_slot=own_slot,
    )
    try:
        yield harness
    finally:
        harness.close()
