"""The router: moves calls along numbered links, stamps who calls, answers for those who cannot.

May not: decode a body, or block. Every CALL ends in exactly one REPLY or ERROR, also when the callee dies, the link is
revoked or the deadline passes. Who waits for a place is `parking`'s, who is not waited for `cancellation`'s, and what
providers do `provider_calls`'. Rule: docs/architecture.md, "The wire" and "Rights".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from tea.protocol.context import encode_context
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind
from tea.protocol.sticky import NO_KEY

from .busy_loop import BusyLoop
from .cancellation import Cancellation
from .cork import Cork
from .in_flight import KEPT_BODY, Figures, HostOrigin, Origin, Pending
from .links import Grant
from .parking import Parked, Parking
from .provider_calls import ProviderCalls
from .replicas import ReplicaGroup
from .rights import granted, split_key

if TYPE_CHECKING:
    from .worker_port import WorkerPort

NOT_READY: Final = "the host is not ready: ask its status for the phase"
_CALL: Final = Kind.CALL
_REPLY: Final = Kind.REPLY


class Route(msgspec.Struct, frozen=True, eq=False):
    """Where a worker's last call went: a call like it, in the same read and with nothing in between, goes there too.

    Within one read nothing changes that `granted` and `deliver` look at but the places that are left: so those are
    what is asked for again. Whoever handles anything else of that worker in between forgets it (`WorkerPort.route`).
    """

    link: int
    operation: int
    cause: int
    chain: tuple[str, ...]
    target: WorkerPort
    name: str
    number: int
    """Of the operation, as the target numbers its own."""


@dataclass
class Router:
    """Holds who runs and who may call whom. One per host, on the host's loop."""

    loop: asyncio.AbstractEventLoop
    on_defect: Callable[[str, BaseException], None]
    """Told of exceptions in providers: (what failed, the exception). The caller gets INTERNAL without detail."""
    groups: dict[str, ReplicaGroup] = field(default_factory=dict)
    parent_grants: dict[str, frozenset[str]] = field(default_factory=dict)
    """What `from: parent` links allow: actor -> operations."""
    figures: Figures = field(default_factory=Figures)
    actor_figures: dict[str, Figures] = field(default_factory=dict)
    accepting: bool = False
    """Whether links are open: set at READY, cleared at drain, and while the enclave does not hold its slot."""
    closed: str = NOT_READY
    """What is said to whoever calls while links are closed."""
    quiet: bool = False
    """Whether the host's own messages are dead letters too: what is in hand can come to an end."""
    frozen: bool = False
    """Whether workers may not call either: no provider's state changes by them."""
    heard: int = 0
    """How often another worker was heard than the one before."""
    _hears: WorkerPort | None = None
    _next: int = 0

    def __post_init__(self) -> None:
        self.cork = Cork()
        self.busy = BusyLoop(self.loop)
        self.parking = Parking(self)
        self.cancellation = Cancellation(self)
        self.provider_calls = ProviderCalls(self, self.on_defect)

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return self.figures.calls - self.figures.replies - self.figures.errors

    def figures_of(self, actor: str) -> Figures:
        """The counters of calls to one actor, over all its revisions."""
        return self.actor_figures.setdefault(actor, Figures())

    # -- calls from workers ------------------------------------------------------------------------------------

    def hears(self, port: WorkerPort) -> None:
        """A worker was read."""
        self.busy.heard()
        if port is not self._hears:
            self._hears = port
            self.heard += 1

    def frame_from(self, port: WorkerPort, frame: Frame) -> None:
        """One frame from a worker, other than a CALL or REPLY (HELLO, PING and BYE are the port's own)."""
        kind = frame.kind
        if kind is Kind.TELL:
            self._tell_from(port, frame)
        elif kind is Kind.CREDIT:
            self._credit_from(port, frame)
        elif kind is Kind.ERROR:
            self.answer_from(port, frame)
        else:
            port.violation(f"a worker may not send {kind.name} here")

    def call_from(self, port: WorkerPort, frame: Frame) -> None:
        """One CALL from a worker."""
        _, _, operation, link, correlation, cause, deadline, body = frame
        outgoing = port.outgoing
        if correlation == 0 or correlation in outgoing:
            port.violation(f"correlation {correlation} is in use or 0")
            return
        self.figures.calls += 1
        port.calls_at_once += 1
        limit = port.in_flight_limit
        route = port.route
        if (
            route is not None
            and route.link == link
            and route.operation == operation
            and route.cause == cause
            and len(outgoing) < limit
            and port.calls_at_once <= 2 * limit
            and len(route.target.delivered) < route.target.mailbox
            and len(body) <= KEPT_BODY
        ):
            self.give(
                route.target, route.number, _CALL, port, correlation, route.name, body, port.name, route.chain,
                deadline, cause,
            )  # fmt: skip
            return
        port.route = None
        try:
            # What came in one piece was sent before any of it was answered, however fast a provider answers.
            if len(outgoing) >= limit or port.calls_at_once > 2 * limit:
                port.refused("more calls in flight than its limit")
                raise CallError(
                    Code.EXHAUSTED, f"{port.name} has {limit} calls in flight, its limit: wait for answers first"
                )
            if self.frozen:
                raise CallError(Code.UNAVAILABLE, self.closed)
            grant, chain = granted(port, frame)
            if grant.provider is not None:
                self.provider_calls.call(port, frame, grant, chain)
            else:
                self._call_actor(port, frame, grant, chain)
        except CallError as error:
            port.spent(len(frame.body))
            self.finish(port, correlation, Kind.ERROR, error.encode())

    def _call_actor(self, port: WorkerPort, frame: Frame, grant: Grant, chain: tuple[str, ...]) -> None:
        target = grant.target
        name = port.name
        if target == name or target in chain:
            group = self.groups.get(target)
            if group is not None and len(group.ports) == 1:
                raise CallError(
                    Code.CONFLICT,
                    f"{target} waits for this very call ({' <- '.join((name, *chain))}): it would never end",
                )
        kind, _flags, number, link, correlation, cause, deadline, body = frame
        key = NO_KEY
        if grant.sticky:
            key, body = split_key(body)
        operation = grant.operations[number]
        delivered = self.deliver(
            kind, port, correlation, target, operation, body, name, chain, deadline, cause, None, key, port, link
        )
        if delivered and self.cork.on and not grant.sticky:  # more may follow in this read
            group = self.groups[target]
            if len(group.ports) == 1 and not group.poison.set_aside:
                (callee,) = group.ports
                port.route = Route(link, number, cause, chain, callee, operation, callee.operation_numbers[operation])

    def _tell_from(self, port: WorkerPort, frame: Frame) -> None:
        self.figures.tells += 1
        delivered = True
        try:
            if self.frozen:
                raise CallError(Code.UNAVAILABLE, self.closed)
            grant, chain = granted(port, frame)
            if grant.provider is not None:
                raise CallError(Code.INVALID, f"{grant.target} is a provider: call it, do not tell it")
            key, body = split_key(frame.body) if grant.sticky else (NO_KEY, frame.body)
            delivered = self.deliver(
                Kind.TELL, None, 0, grant.target, grant.operations[frame.operation], body, port.name, chain, 0,
                frame.cause, None, key, port, frame.link,
            )  # fmt: skip
        except CallError as error:
            self.dead_letter(port.links[frame.link].target if frame.link in port.links else None)
            port.spent(len(frame.body))
            port.refused(f"the delivery of a message ({error.code.name}: {error.sentence})")
        if delivered and frame.link in port.links:
            port.settle(frame.link, len(frame.body))

    # -- calls from the host -----------------------------------------------------------------------------------

    async def call(
        self,
        caller: str,
        actor: str,
        operation: str,
        body: bytes,
        *,
        timeout: float | None,
        replica: int | None = None,
        key: bytes = NO_KEY,
    ) -> bytes:
        """Call an actor as `caller` (`parent` or `provider:NAME`); the msgpack result. Raises `CallError`.

        Whoever stops waiting (cancels this) takes the call back.
        """
        if not self.accepting:
            self.figures.calls += 1
            self.figures.errors += 1
            raise CallError(Code.UNAVAILABLE, self.closed)
        return await self.call_for(caller, (), actor, operation, body, timeout=timeout, replica=replica, key=key)

    async def call_for(
        self,
        caller: str,
        chain: tuple[str, ...],
        actor: str,
        operation: str,
        body: bytes,
        *,
        timeout: float | None,
        replica: int | None = None,
        key: bytes = NO_KEY,
        require: Callable[[], None] | None = None,
    ) -> bytes:
        """`call` as the host, or as a worker whose right `requests` has checked; `require` checks it once more."""
        origin = HostOrigin(caller, self.loop.create_future(), require=require)
        self.submit(origin, 1, caller, actor, operation, body, timeout=timeout, chain=chain, replica=replica, key=key)
        return await self._answer_to(origin)

    def submit(
        self,
        origin: Origin,
        correlation: int,
        caller: str,
        actor: str,
        operation: str,
        body: bytes,
        *,
        timeout: float | None,
        chain: tuple[str, ...] = (),
        replica: int | None = None,
        key: bytes = NO_KEY,
    ) -> None:
        """Call an actor as `caller`; `origin.answer` is called exactly once, perhaps before this returns."""
        self.figures.calls += 1
        deadline = 0 if timeout is None else max(1, int(timeout * 1000))
        try:
            self.deliver(
                Kind.CALL, origin, correlation, actor, operation, body, caller, chain, deadline, 0, replica, key
            )
        except CallError as error:
            self.finish(origin, correlation, Kind.ERROR, error.encode())

    async def call_port(self, port: WorkerPort, caller: str, operation: str, body: bytes, *, timeout: float) -> bytes:
        """Call one replica that may not be open yet (its health check). Raises `CallError`."""
        origin = HostOrigin(caller, self.loop.create_future())
        number = port.number_of(operation, body)
        self.figures.calls += 1
        deadline = max(1, int(timeout * 1000))
        self.give(port, number, Kind.CALL, origin, 1, operation, body, caller, (), deadline, 0)
        return await self._answer_to(origin)

    async def _answer_to(self, origin: HostOrigin) -> bytes:
        try:
            return await origin.future
        except asyncio.CancelledError:
            self.cancellation.caller_gone(origin)
            raise

    def tell(self, caller: str, actor: str, operation: str, body: bytes, *, replica: int | None = None) -> bool:
        """Tell an actor as the host; False when it is a dead letter (counted)."""
        self.figures.tells += 1
        try:
            if self.quiet:
                raise CallError(Code.UNAVAILABLE, self.closed)
            self.deliver(Kind.TELL, None, 0, actor, operation, body, caller, (), 0, 0, replica)
        except CallError:
            self.dead_letter(actor)
            return False
        return True

    def dead_letter(self, actor: str | None) -> None:
        """Count a message that was lost."""
        self.figures.dead_letters += 1
        if actor in self.groups:
            self.figures_of(actor).dead_letters += 1

    # -- delivery and answers ----------------------------------------------------------------------------------

    def deliver(
        self,
        kind: Kind,
        origin: Origin | None,
        correlation: int,
        actor: str,
        operation: str,
        body: bytes,
        caller: str,
        chain: tuple[str, ...],
        deadline: int,
        cause: int,
        replica: int | None = None,
        key: bytes = NO_KEY,
        sender: WorkerPort | None = None,
        link: int = 0,
    ) -> bool:
        """Into a mailbox (True), or into the line of those who wait for a place in one. Raises `CallError`."""
        group = self.groups.get(actor)
        if group is None:
            there = ", ".join(sorted(self.groups)) or "none"
            raise CallError(Code.NOT_FOUND, f"no actor {actor} in the manifest: there are {there}")
        port = group.pick_by(key) if key != NO_KEY else group.pick(replica)
        if port is None:
            raise CallError(Code.UNAVAILABLE, f"no replica of {actor} is running now", actor=actor)
        number = port.number_of(operation, body)
        delivered = port.delivered
        if caller in group.lines or len(delivered) >= port.mailbox or (delivered and port.unsent > port.unsent_limit):
            at = self.loop.time() + deadline / 1000 if deadline else None
            one = Parked(
                self.parking, group, kind, origin, correlation, operation, body, caller, chain, cause, at, replica, key,
                sender, link,
            )  # fmt: skip
            self.parking.park(group, one, port.mailbox)
            if origin is not None:
                origin.outgoing[correlation] = one
            if at is not None:
                self.cancellation.sweep_later()
            return False
        self.give(port, number, kind, origin, correlation, operation, body, caller, chain, deadline, cause)
        return True

    def give(
        self,
        port: WorkerPort,
        number: int,
        kind: Kind,
        origin: Origin | None,
        correlation: int,
        operation: str,
        body: bytes,
        caller: str,
        chain: tuple[str, ...],
        deadline: int,
        cause: int,
    ) -> None:
        """Into this replica's mailbox, which has room."""
        delivered = port.delivered
        given = self._next % 0xFFFFFFFF + 1
        while given in delivered:
            given = given % 0xFFFFFFFF + 1
        self._next = given
        at = self.loop.time() + deadline / 1000 if deadline else None
        kept = body if len(body) <= KEPT_BODY else None
        pending = delivered[given] = Pending(
            given, kind, origin, correlation, caller, chain, port, operation, kept, at, cause
        )
        if origin is not None:
            origin.outgoing[correlation] = pending
            port.group.figures.calls += 1
            if at is not None:
                cancellation = self.cancellation
                cancellation.timed.add(port)
                if not cancellation.sweeping:
                    cancellation.sweep_later()
        port.deliver(kind, number, given, deadline, encode_context(caller, chain) + body)

    def answer_from(self, port: WorkerPort, frame: Frame) -> None:
        """One REPLY or ERROR from a worker."""
        pending = port.delivered.pop(frame.correlation, None)
        if pending is None or pending.kind is not _CALL:
            port.violation(f"an answer to call {frame.correlation}, which it was not given or has answered")
            return
        group = port.group
        kind = frame.kind
        if kind is _REPLY:
            group.figures.replies += 1
        else:
            group.figures.errors += 1
        if group.poison.suspects and pending.body is not None:
            group.poison.answered(pending.operation, pending.body)
        origin = pending.origin
        if origin is None:
            self.figures.late_answers += 1
        else:
            self.finish(origin, pending.correlation, kind, frame.body)
        if group.lines:
            self.parking.serve(group)

    def _credit_from(self, port: WorkerPort, frame: Frame) -> None:
        pending = port.delivered.pop(frame.correlation, None)
        if pending is None or pending.kind is not Kind.TELL:
            port.violation(f"a credit for message {frame.correlation}, which it was not given or has credited")
        elif port.group.lines:
            self.parking.serve(port.group)

    def finish(self, origin: Origin, correlation: int, kind: Kind, body: bytes) -> None:
        """The one answer to a call."""
        if kind is _REPLY:
            self.figures.replies += 1
        else:
            self.figures.errors += 1
        origin.answer(correlation, kind, body)

    def port_lost(self, port: WorkerPort, why: str) -> None:
        """A worker is gone: answer what it had in hand, once; end what it waited for."""
        delivered, port.delivered = port.delivered, {}
        group = port.group
        if delivered and not port.retiring:
            group.prompt = True
            if port.blames and (port.prompt or len(delivered) == 1):
                # A worker takes its mail in order, so the oldest that it has not answered is what it had in hand.
                port.blame(next(iter(delivered.values())))
        body = CallError(Code.UNAVAILABLE, f"{port.name} ended while it had this call in hand ({why})").encode()
        for pending in delivered.values():
            if pending.kind is Kind.TELL:
                self.dead_letter(port.name)
            else:
                group.figures.errors += 1
                if pending.origin is not None:
                    self.finish(pending.origin, pending.correlation, Kind.ERROR, body)
        if port in group.ports:
            group.ports.remove(port)
        self.cancellation.caller_gone(port)
        if self.groups.get(port.name) is group:
            self.parking.sender_gone(port)
        if not group.lines:
            return
        if any(other.open for other in group.ports):
            self.parking.serve(group)
        else:
            self.parking.leave(group, why)

    def cancel_tasks(self) -> Iterable[asyncio.Task[None]]:
        """Cancel running provider calls (at the host's end); the tasks to wait for."""
        return self.provider_calls.cancel_all()
