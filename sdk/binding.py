"""What ties an actor to where it runs: identity, links, and how a call is dispatched to a method. The worker's seam.

May not: do I/O, know a transport, or let anything but `CallError` out of an operation.
Rule: docs/architecture.md, "Processes" and "The wire".
"""

from __future__ import annotations

import contextlib
import enum
import logging
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from tea.protocol.declaration import is_async
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import Operation, OperationDescription, operations_of

from .link import Link, describe_anew

if typing.TYPE_CHECKING:
    from .actor import Actor

LOGGER: Final = logging.getLogger("tea.actor")
"""Where the cause of an INTERNAL error goes, traceback and all. The worker decides who reads it."""


class Caller(Protocol):
    """What a link calls through: a frame connection in a worker, providers in memory in a test."""

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """Call and wait; the result's body. `timeout` in seconds. Raises `CallError` and nothing else."""
        ...

    def tell(self, link: int, operation: int, body: bytes) -> None:
        """Send without an answer. Raises `CallError(EXHAUSTED)` when the bounded queue is full."""
        ...


class LinkDescription(msgspec.Struct, frozen=True, array_like=True):
    """A granted link. An operation's place in `operations` is its number on the wire."""

    number: int
    name: str
    """The attribute under which the actor finds it."""
    target: str
    """The provider's or actor's name."""
    operations: tuple[OperationDescription, ...]
    sticky: str = ""
    """The parameter by whose value calls go to the same replica of the target; empty: to the least loaded."""


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Who an actor is, by its manifest."""

    name: str
    replica: int
    """From 0."""
    version: str
    deployment: str
    environment: dict[str, str]
    """The approved variables that the manifest lets it read."""


class Invocation(NamedTuple):
    """The context of one delivered call, stamped by the router."""

    caller: str
    """An actor's name, `parent`, or `provider:NAME`."""
    chain: tuple[str, ...] = ()
    """Who stands behind the caller, nearest first."""
    deadline: float | None = None
    """Seconds that remained when the call was delivered; None: no deadline."""


class Hooks(enum.Enum):
    """Which hooks of an actor have run: CREATED -> STARTED or FAILED -> STOPPED."""

    CREATED = "created"
    STARTED = "started"
    FAILED = "failed"
    STOPPED = "stopped"


class Binding:
    """One actor's identity and links. Actors capture the active one when they are created."""

    def __init__(self, identity: Identity, links: tuple[LinkDescription, ...], caller: Caller) -> None:
        self.identity = identity
        self.caller = caller
        self.links: Mapping[str, Link] = types.MappingProxyType({d.name: Link(d, caller) for d in links})
        if len(self.links) != len(links):
            raise ValueError(f"two links of actor {identity.name} have one name: give one of them another with `as:`")
        self._by_number = {d.number: self.links[d.name] for d in links}
        self.environment: Mapping[str, str] = types.MappingProxyType(dict(identity.environment))
        self.failures = 0
        """Exceptions that operations, hooks and message handlers let out, since the start."""
        self.observer: Callable[[Exception], None] | None = None
        """Shown each of them before `on_failure` is (tests)."""

    def learn(self, link: int, operations: tuple[OperationDescription, ...]) -> None:
        """What a link's target declares now: calls that begin from here on go by it."""
        if link in self._by_number:
            describe_anew(self._by_number[link], operations)


_active: Binding | None = None
_current: Actor | None = None


def bind(identity: Identity, links: tuple[LinkDescription, ...], caller: Caller) -> None:
    """Set what the next actor is created with. Process-global by design: one worker is one actor.

    Raises `ValueError` when two links have one name.
    """
    global _active
    _active = Binding(identity, links, caller)


def active() -> Binding | None:
    """What an actor that is created now would be bound to."""
    return _active


@contextlib.contextmanager
def activated(binding: Binding | None) -> Iterator[None]:
    """Within the block actors are created with `binding` (child actors; several harnesses in one test process)."""
    global _active
    before, _active = _active, binding
    try:
        yield
    finally:
        _active = before


def current() -> Actor | None:
    """The entry actor that Thespian created in this process, or None before that."""
    return _current


def set_current(actor: Actor | None) -> None:
    """For `sdk.system` alone."""
    global _current
    _current = actor


_known_operations: weakref.WeakKeyDictionary[type[Actor], Mapping[str, Operation]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Calls that are begun (`link.later`) and messages that are told within leave in one write, when the block ends.

    Sooner, when something is waited for within, or when they are many. For whoever begins dozens of small calls at a
    time: a system call, and a wake-up of the host, for each is most of what they cost.
    """
    gather = getattr(None if _active is None else _active.caller, "together", None)  # a test's has nothing to gather
    with contextlib.nullcontext() if gather is None else gather():
        yield


def operations(cls: type[Actor]) -> Mapping[str, Operation]:
    """The operations of an actor class, by name. Raises `TypeError` on one that could never be called rightly."""
    known = _known_operations.get(cls)
    if known is None:
        known = _known_operations[cls] = types.MappingProxyType(_checked_operations(cls))
    return known


def _checked_operations(cls: type[Actor]) -> dict[str, Operation]:
    from .actor import Actor  # here, because actor.py builds on this module

    found = operations_of(cls)
    for name in found:
        if name.startswith("_"):
            raise TypeError(f"operation {name} of {cls.__name__}: a name with a leading underscore is private")
        if hasattr(Actor, name):
            raise TypeError(f"operation {name} of {cls.__name__}: the name belongs to Actor itself; choose another")
        if is_async(getattr(cls, name)):
            raise TypeError(
                f"operation {name} of {cls.__name__} is async: an operation is a plain method, it may block"
            )
    return found


def dispatch(actor: Actor, operation_name: str, body: bytes | memoryview, invocation: Invocation) -> bytes:
    """Decode the arguments, call the method once, encode its result. Raises `CallError` and nothing else.

    What the method raises otherwise goes to `on_failure` and the log, and becomes INTERNAL without its text.
    `SystemExit` and its like pass: who raises them wants the process to end, which the supervisor sees as a crash.
    """
    operation = operations(type(actor)).get(operation_name)
    if operation is None:
        raise CallError(
            Code.NOT_FOUND,
            f"{actor.name} has no operation {operation_name!r}; it has {', '.join(operations(type(actor))) or 'none'}",
        )
    return perform(actor, operation, body, *invocation)


def perform(
    actor: Actor,
    operation: Operation,
    body: bytes | memoryview,
    caller: str,
    chain: tuple[str, ...],
    deadline: float | None,
) -> bytes:
    """`dispatch`, for whoever has looked the operation up and makes no `Invocation` for it: a worker's every call."""
    if operation.guarded:
        operation.require_caller(caller)
    arguments = operation.decode_arguments(body)
    before = actor.caller, actor.chain, actor.deadline
    actor.caller, actor.chain, actor.deadline = caller, chain, deadline
    try:
        result = operation.encode_result(getattr(actor, operation.function_name)(*arguments))
        if len(result) > MAX_BODY:
            raise CallError(
                Code.EXHAUSTED,
                f"the result of {operation.name} has {len(result)} bytes, at most {MAX_BODY} fit: answer in pages",
                limit=MAX_BODY,
            )
    except CallError as refusal:
        raise _plain(refusal) from None
    except Exception as error:  # noqa: BLE001 - the boundary: nothing but CallError may pass, Thespian would retry
        failed(actor, error, f"operation {operation.name}")
        raise CallError(Code.INTERNAL, f"{actor.name}.{operation.name} failed; its log has the cause") from None
    finally:
        actor.caller, actor.chain, actor.deadline = before
    return result


def start(actor: Actor) -> None:
    """Call `on_start`, once. Raises `CallError` when it failed: the actor must not be called then."""
    if actor.hooks is not Hooks.CREATED:
        raise RuntimeError(f"{actor.name} was started already")
    actor.hooks = Hooks.FAILED  # until it has run to its end
    try:
        actor.on_start()
    except CallError as refusal:
        failed(actor, refusal, "on_start")
        raise _plain(refusal) from None
    except Exception as error:  # noqa: BLE001 - the boundary
        failed(actor, error, "on_start")
        raise CallError(Code.INTERNAL, f"{actor.name} could not start; its log has the cause") from None
    actor.hooks = Hooks.STARTED


def stop(actor: Actor) -> None:
    """Call `on_stop`, once, if `on_start` succeeded. Never raises an `Exception`."""
    started = actor.hooks is Hooks.STARTED
    actor.hooks = Hooks.STOPPED
    if started:
        try:
            actor.on_stop()
        except Exception as error:  # noqa: BLE001 - the boundary
            failed(actor, error, "on_stop")


def failed(actor: Actor, error: Exception, where: str) -> None:
    """Count and log what actor code let out, then tell its `on_failure`. Never raises an `Exception`."""
    binding = actor.binding
    if binding is not None:
        binding.failures += 1
        if binding.observer is not None:
            binding.observer(error)
    LOGGER.error("%s: %s failed", actor.name, where, exc_info=error)
    try:
        actor.on_failure(error)
    except Exception as second:  # the last handler: there is nobody left to tell
        if binding is not None:
            binding.failures += 1
        LOGGER.error("%s: on_failure failed", actor.name, exc_info=second)


def _plain(error: CallError) -> CallError:
    # An author's details may hold anything; what msgpack cannot say must not take the worker down with it.
    try:
        error.encode()
    except Exception:  # noqa: BLE001 - msgspec raises TypeError, OverflowError, UnicodeEncodeError, ...
        LOGGER.error("an error's details were left out, they are not plain data: %s", error)
        return CallError(error.code, str(error.sentence).encode(errors="replace").decode())
    return error
