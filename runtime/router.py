"""The router: moves calls along numbered links, stamps who calls, answers for those who cannot.

May not: decode a body that is not for a provider, or block. Every CALL ends in exactly one REPLY or ERROR, also when
the callee dies, the link is revoked or the deadline passes. Rule: docs/architecture.md, "The wire" and "Rights".
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from tea.protocol.context import Context, encode_context
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.operations import Operation
from tea.providers.base import Call

from .fair_threads import CALLER
from .links import Grant
from .poison import CRASHES, PoisonBook
from .refusals import Refusals

if TYPE_CHECKING:
    from .worker_port import WorkerPort

SWEEP_SECONDS: Final = 0.02
"""How late a passed deadline may be noticed."""
MAX_CHAIN: Final = 32
NOT_READY: Final = "the host is not ready: ask its status for the phase"
KEPT_BODY: Final = 64 << 10
"""Bytes of arguments that are kept while they are in hand; of larger ones a crash is not blamed on any."""
CONTEXT_ROOM: Final = 4096
"""Bytes of a frame that are left for the context: an argument body may have `MAX_BODY` less this."""


class Origin(Protocol):
    """Whoever made a call and waits for its one answer."""

    name: str

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        """Called exactly once a call."""
        ...


@dataclass(slots=True, eq=False)
class Pending:
    """One delivered call or tell, until its callee answers (a call) or credits it (a tell)."""

    number: int
    kind: Kind
    origin: Origin | None
    """None once it was answered for the callee (deadline) or the origin is gone: a late answer is dropped."""
    correlation: int
    caller: str
    chain: tuple[str, ...]
    target: WorkerPort
    operation: str
    body: bytes | None
    """The arguments, kept while they are in hand: what a crash is blamed on. None: too large to be kept."""
    deadline_at: float | None = None


@dataclass(slots=True)
class Figures:
    """Counters; `calls == replies + errors + in flight` at every moment."""

    calls: int = 0
    replies: int = 0
    errors: int = 0
    tells: int = 0
    dead_letters: int = 0
    late_answers: int = 0


class ReplicaGroup:
    """The running replicas of one actor; calls go to the least loaded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ports: list[WorkerPort] = []
        self.refusals = Refusals()
        self.poison = PoisonBook()
        self._turn = 0

    def pick(self, replica: int | None = None) -> WorkerPort | None:
        """The least loaded open replica (in turn among equals), or the one asked for; None when none is open."""
        best: WorkerPort | None = None
        ports = self.ports
        count = len(ports)
        self._turn += 1
        for offset in range(count):
            port = ports[(self._turn + offset) % count]
            if not port.open or (replica is not None and port.replica != replica):
                continue
            if best is None or len(port.delivered) < len(best.delivered):
                best = port
        return best


@dataclass(slots=True)
class _HostOrigin:
    """A caller inside the host: the parent's calls and providers' calls."""

    name: str
    future: asyncio.Future[bytes]

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        if self.future.done():
            return
        if kind is Kind.REPLY:
            self.future.set_result(body)
        else:
            self.future.set_exception(CallError.decode(body))


@lru_cache(maxsize=4096)
def _context(caller: str, chain: tuple[str, ...]) -> bytes:
    return encode_context(Context(caller, chain))


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
    _next: int = 0
    _timed: set[WorkerPort] = field(default_factory=set)
    """Ports that have calls with a deadline in hand."""
    _sweeping: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return self.figures.calls - self.figures.replies - self.figures.errors

    def figures_of(self, actor: str) -> Figures:
        """The counters of calls to one actor."""
        figures = self.actor_figures.get(actor)
        if figures is None:
            figures = self.actor_figures[actor] = Figures()
        return figures

    # -- calls from workers ------------------------------------------------------------------------------------

    def frame_from(self, port: WorkerPort, frame: Frame) -> None:
        """One frame from a worker (HELLO, PING and BYE are the port's own)."""
        kind = frame.kind
        if kind is Kind.CALL:
            self.call_from(port, frame)
        elif kind is Kind.REPLY or kind is Kind.ERROR:
            self.answer_from(port, frame)
        elif kind is Kind.TELL:
            self._tell_from(port, frame)
        elif kind is Kind.CREDIT:
            self._credit_from(port, frame)
        else:
            port.violation(f"a worker may not send {kind.name} here")

    def call_from(self, port: WorkerPort, frame: Frame) -> None:
        """One CALL from a worker."""
        correlation = frame.correlation
        if correlation == 0 or correlation in port.outgoing:
            port.violation(f"correlation {correlation} is in use or 0")
            return
        self.figures.calls += 1
        port.outgoing.add(correlation)
        port.calls_at_once += 1
        try:
            # What came in one piece was sent before any of it was answered, however fast a provider answers.
            if len(port.outgoing) > port.in_flight_limit or port.calls_at_once > 2 * port.in_flight_limit:
                port.refused("more calls in flight than its limit")
                raise CallError(
                    Code.EXHAUSTED,
                    f"{port.name} has {port.in_flight_limit} calls in flight, its limit: wait for answers first",
                )
            grant, chain = self._granted(port, frame)
            if grant.provider is not None:
                self._call_provider(port, frame, grant, chain)
            else:
                self._call_actor(port, frame, grant, chain)
        except CallError as error:
            port.spent(len(frame.body))
            self._finish(port, correlation, Kind.ERROR, error.encode())

    def _granted(self, port: WorkerPort, frame: Frame) -> tuple[Grant, tuple[str, ...]]:
        """The grant that a frame names, and who stands behind it. Raises `CallError`."""
        if self.frozen:
            raise CallError(Code.UNAVAILABLE, self.closed)
        grant = port.links.get(frame.link)
        if grant is None:
            port.refused("a link that it was not given")
            raise CallError(Code.DENIED, f"{port.name} has no link {frame.link}", link=frame.link)
        if frame.operation >= len(grant.operations):
            port.refused(f"an operation that its link to {grant.target} does not have")
            raise CallError(
                Code.DENIED,
                f"{port.name} has no operation {frame.operation} on its link to {grant.target}",
                link=frame.link,
                operation=frame.operation,
            )
        chain: tuple[str, ...] = ()
        over = False
        if frame.cause:
            cause = port.delivered.get(frame.cause)
            if cause is None:
                port.refused("a cause that it was not given")
                raise CallError(Code.DENIED, f"{port.name} names a cause that it was not given", cause=frame.cause)
            chain = (cause.caller, *cause.chain)
            over = cause.kind is Kind.CALL and cause.origin is None
            if len(chain) > MAX_CHAIN:
                raise CallError(Code.EXHAUSTED, f"the chain of callers is longer than {MAX_CHAIN}")
        if grant.behind and over:
            raise CallError(
                Code.DENIED, f"the call that {port.name} names has passed its deadline: nobody is behind it"
            )
        if grant.behind and not grant.behind.issubset(chain):
            raise CallError(
                Code.DENIED,
                f"the link from {port.name} to {grant.target} demands {' and '.join(sorted(grant.behind))} behind the "
                f"call; behind this one stands {', '.join(chain) or 'nobody'}",
            )
        if len(frame.body) > MAX_BODY - CONTEXT_ROOM:
            raise CallError(
                Code.INVALID, f"arguments of {len(frame.body)} bytes, at most {MAX_BODY - CONTEXT_ROOM} fit a call"
            )
        return grant, chain

    def _call_actor(self, port: WorkerPort, frame: Frame, grant: Grant, chain: tuple[str, ...]) -> None:
        if grant.target == port.name or grant.target in chain:
            group = self.groups.get(grant.target)
            if group is not None and len(group.ports) == 1:
                raise CallError(
                    Code.CONFLICT,
                    f"{grant.target} waits for this very call ({' <- '.join((port.name, *chain))}): it would never end",
                )
        self._deliver(
            Kind.CALL,
            port,
            frame.correlation,
            grant.target,
            grant.operations[frame.operation],
            frame.body,
            caller=port.name,
            chain=chain,
            deadline=frame.deadline,
        )

    def _call_provider(self, port: WorkerPort, frame: Frame, grant: Grant, chain: tuple[str, ...]) -> None:
        operation = grant.typed[frame.operation]
        arguments = operation.decode_arguments(frame.body)
        operation.require_caller(port.name)
        seconds = frame.deadline / 1000 if frame.deadline else None
        call = Call(port.name, port.replica, chain, port.bundle_digest, port.kvp_bytes, seconds)
        where = f"{grant.target}.{operation.name}"
        try:
            result = grant.methods[frame.operation](call, *arguments)
            if not inspect.isawaitable(result):
                self._reply(port, frame.correlation, operation, result)
                return
        except CallError:
            raise
        except Exception as defect:  # noqa: BLE001 (a provider's defect must become one answer, and a log line)
            raise self._defect(where, port, defect) from None
        self._run_for(port, self._await_provider(port, frame.correlation, operation, where, seconds, result))

    def _run_for(self, port: WorkerPort, work: Coroutine[Any, Any, None]) -> None:
        """Run a provider's part of a call; it ends with the worker that asked for it."""
        task = self.loop.create_task(work)
        for tasks in (self._tasks, port.provider_tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _await_provider(
        self,
        port: WorkerPort,
        correlation: int,
        operation: Operation,
        where: str,
        seconds: float | None,
        result: Awaitable[object],
    ) -> None:
        CALLER.set(port.name)  # this task's alone
        try:
            async with asyncio.timeout(seconds):
                value = await result
            self._reply(port, correlation, operation, value)
        except CallError as refusal:
            self._refuse(port, correlation, refusal)
        except TimeoutError:
            self._refuse(port, correlation, CallError(Code.DEADLINE, f"{where} did not end in {seconds} s"))
        except asyncio.CancelledError:
            self._refuse(port, correlation, CallError(Code.UNAVAILABLE, f"{where}: the provider stopped"))
            raise
        except Exception as defect:  # noqa: BLE001 (as above)
            self._refuse(port, correlation, self._defect(where, port, defect))

    def _reply(self, port: WorkerPort, correlation: int, operation: Operation, value: object) -> None:
        body = operation.encode_result(value)
        if len(body) > MAX_BODY:
            raise CallError(Code.EXHAUSTED, f"the result has {len(body)} bytes, at most {MAX_BODY} fit a reply")
        self._finish(port, correlation, Kind.REPLY, body)

    def _defect(self, where: str, port: WorkerPort, defect: Exception) -> CallError:
        self.on_defect(f"{where} called by {port.name}", defect)
        return CallError(Code.INTERNAL, f"{where} failed; the host's log has the cause")

    def _refuse(self, port: WorkerPort, correlation: int, error: CallError) -> None:
        self._finish(port, correlation, Kind.ERROR, error.encode())

    def _tell_from(self, port: WorkerPort, frame: Frame) -> None:
        self.figures.tells += 1
        try:
            grant, chain = self._granted(port, frame)
            if grant.provider is not None:
                raise CallError(Code.INVALID, f"{grant.target} is a provider: call it, do not tell it")
            self._deliver(
                Kind.TELL,
                None,
                0,
                grant.target,
                grant.operations[frame.operation],
                frame.body,
                caller=port.name,
                chain=chain,
                deadline=0,
            )
        except CallError as error:
            self.figures.dead_letters += 1
            port.spent(len(frame.body))
            port.refused(f"the delivery of a message ({error.code.name}: {error.sentence})")

    # -- calls from the host -----------------------------------------------------------------------------------

    async def call(
        self, caller: str, actor: str, operation: str, body: bytes, *, timeout: float | None, replica: int | None = None
    ) -> bytes:
        """Call an actor as `caller` (`parent` or `provider:NAME`); the msgpack result. Raises `CallError`."""
        future: asyncio.Future[bytes] = self.loop.create_future()
        self.submit(_HostOrigin(caller, future), 0, caller, actor, operation, body, timeout=timeout, replica=replica)
        return await future

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
        replica: int | None = None,
    ) -> None:
        """Call an actor as `caller`; `origin.answer` is called exactly once, perhaps before this returns."""
        self.figures.calls += 1
        deadline = 0 if timeout is None else max(1, int(timeout * 1000))
        try:
            if not self.accepting:
                raise CallError(Code.UNAVAILABLE, self.closed)
            self._deliver(
                Kind.CALL,
                origin,
                correlation,
                actor,
                operation,
                body,
                caller=caller,
                chain=(),
                deadline=deadline,
                replica=replica,
            )
        except CallError as error:
            self._finish(origin, correlation, Kind.ERROR, error.encode())

    async def call_port(self, port: WorkerPort, caller: str, operation: str, body: bytes, *, timeout: float) -> bytes:
        """Call one replica that may not be open yet (its health check). Raises `CallError`."""
        future: asyncio.Future[bytes] = self.loop.create_future()
        origin = _HostOrigin(caller, future)
        self.figures.calls += 1
        self._give(
            port, Kind.CALL, origin, 0, operation, body, caller=caller, chain=(), deadline=max(1, int(timeout * 1000))
        )
        return await future

    def require_parent_link(self, actor: str, operation: str) -> None:
        """Raise `CallError` unless the manifest has a link `from: parent` for this operation."""
        allowed = self.parent_grants.get(actor)
        if allowed is None:
            if actor not in self.groups:
                raise CallError(Code.NOT_FOUND, f"no actor {actor} in the manifest: there are {self._names()}")
            raise CallError(Code.DENIED, f"the manifest has no link from parent to {actor}")
        if operation not in allowed:
            raise CallError(
                Code.DENIED,
                f"the link from parent to {actor} does not grant {operation}: it grants {', '.join(sorted(allowed))}",
            )

    def tell(self, caller: str, actor: str, operation: str, body: bytes, *, replica: int | None = None) -> bool:
        """Tell an actor as the host; False when it is a dead letter (counted)."""
        self.figures.tells += 1
        try:
            if self.quiet:
                raise CallError(Code.UNAVAILABLE, self.closed)
            self._deliver(
                Kind.TELL, None, 0, actor, operation, body, caller=caller, chain=(), deadline=0, replica=replica
            )
        except CallError:
            self.figures.dead_letters += 1
            return False
        return True

    # -- delivery and answers ----------------------------------------------------------------------------------

    def _deliver(
        self,
        kind: Kind,
        origin: Origin | None,
        correlation: int,
        actor: str,
        operation: str,
        body: bytes,
        *,
        caller: str,
        chain: tuple[str, ...],
        deadline: int,
        replica: int | None = None,
    ) -> None:
        group = self.groups.get(actor)
        if group is None:
            raise CallError(Code.NOT_FOUND, f"no actor {actor} in the manifest: there are {self._names()}")
        port = group.pick(replica)
        if port is None:
            raise CallError(Code.UNAVAILABLE, f"no replica of {actor} is running now", actor=actor)
        self._give(port, kind, origin, correlation, operation, body, caller=caller, chain=chain, deadline=deadline)

    def _give(
        self,
        port: WorkerPort,
        kind: Kind,
        origin: Origin | None,
        correlation: int,
        operation: str,
        body: bytes,
        *,
        caller: str,
        chain: tuple[str, ...],
        deadline: int,
    ) -> None:
        actor, group = port.name, port.group
        number = port.operation_numbers.get(operation)
        if number is None:
            raise CallError(
                Code.NOT_FOUND,
                f"{actor} has no operation {operation}: it has {', '.join(port.operation_numbers) or 'none'}",
            )
        if group.poison.refuses(operation, body):
            raise CallError(
                Code.INVALID,
                f"this very message ended {actor} {CRASHES} times and is set aside: mend {actor}.{operation}, or the "
                "message",
            )
        delivered = port.delivered
        if len(delivered) >= port.mailbox or (delivered and port.unsent > port.unsent_limit):
            raise CallError(Code.EXHAUSTED, f"the mailbox of {actor} is full ({len(delivered)} waiting)")
        given = self._next % 0xFFFFFFFF + 1
        while given in delivered:
            given = given % 0xFFFFFFFF + 1
        self._next = given
        at = self.loop.time() + deadline / 1000 if deadline else None
        kept = body if len(body) <= KEPT_BODY else None
        delivered[given] = Pending(given, kind, origin, correlation, caller, chain, port, operation, kept, at)
        if kind is Kind.CALL:
            self.figures_of(actor).calls += 1
            if at is not None:
                self._timed.add(port)
                self._sweep_later()
        port.deliver(kind, number, given, deadline, _context(caller, chain) + body)

    def answer_from(self, port: WorkerPort, frame: Frame) -> None:
        """One REPLY or ERROR from a worker."""
        pending = port.delivered.pop(frame.correlation, None)
        if pending is None or pending.kind is not Kind.CALL:
            port.violation(f"an answer to call {frame.correlation}, which it was not given or has answered")
            return
        figures = self.figures_of(port.name)
        if frame.kind is Kind.REPLY:
            figures.replies += 1
        else:
            figures.errors += 1
        origin, poison = pending.origin, port.group.poison
        if poison.suspects and pending.body is not None:
            poison.answered(pending.operation, pending.body)
        if origin is None:
            self.figures.late_answers += 1
            return
        self._finish(origin, pending.correlation, frame.kind, frame.body)

    def _credit_from(self, port: WorkerPort, frame: Frame) -> None:
        pending = port.delivered.pop(frame.correlation, None)
        if pending is None or pending.kind is not Kind.TELL:
            port.violation(f"a credit for message {frame.correlation}, which it was not given or has credited")

    def _finish(self, origin: Origin, correlation: int, kind: Kind, body: bytes) -> None:
        if kind is Kind.REPLY:
            self.figures.replies += 1
        else:
            self.figures.errors += 1
        origin.answer(correlation, kind, body)

    def port_lost(self, port: WorkerPort, why: str) -> None:
        """A worker is gone: answer what it had in hand, once; forget what it waited for."""
        delivered, port.delivered = port.delivered, {}
        if delivered and not port.retiring:
            # A worker takes its mail in order, so the oldest is what it had in hand.
            first = next(iter(delivered.values()))
            key = None if first.body is None else port.group.poison.ended_with(first.operation, first.body)
            if key is not None:
                port.note(
                    "error",
                    f"a call of {first.operation} by {first.caller} ended {port.name} {CRASHES} times and is set aside:"
                    f" sha256:{key.hex()}",
                )
        body = CallError(Code.UNAVAILABLE, f"{port.name} ended while it had this call in hand ({why})").encode()
        for pending in delivered.values():
            if pending.kind is Kind.TELL:
                self.figures.dead_letters += 1
            else:
                self.figures_of(port.name).errors += 1
                if pending.origin is not None:
                    self._finish(pending.origin, pending.correlation, Kind.ERROR, body)
        if port in port.group.ports:
            port.group.ports.remove(port)
        for task in list(port.provider_tasks):  # nobody waits for these any more
            task.cancel()

    # -- deadlines ---------------------------------------------------------------------------------------------

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Answer for callees that let a deadline pass. Looks at what is in flight, which mailboxes bound."""
        self._sweeping = False
        now = self.loop.time()
        for port in list(self._timed):
            waiting = False
            for pending in list(port.delivered.values()):
                if pending.deadline_at is None or pending.origin is None:
                    continue
                if pending.deadline_at > now:
                    waiting = True
                    continue
                # Its place in the mailbox stays taken until the callee answers: it is still busy with it.
                origin, pending.origin = pending.origin, None
                port.refused("more time than a call's deadline")
                error = CallError(Code.DEADLINE, f"{port.name} did not answer in time")
                self._finish(origin, pending.correlation, Kind.ERROR, error.encode())
            if not waiting:
                self._timed.discard(port)
        if self._timed:
            self._sweep_later()

    def _names(self) -> str:
        return ", ".join(sorted(self.groups)) or "none"

    def cancel_tasks(self) -> Iterable[asyncio.Task[None]]:
        """Cancel running provider calls (at the host's end); the tasks to wait for."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks
