"""Calls of workers to providers: decoded, checked, run at once or as a task, answered once.

May not: let a provider's defect out, or a task outlive the one who waits for it. Rule: docs/architecture.md,
"Providers" and "Cancellation".
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.operations import Operation
from tea.providers.base import Call

from .fair_threads import CALLER
from .links import Grant
from .loop_time import AT_ONCE_SECONDS, FREE_SECONDS

if TYPE_CHECKING:
    from .router import Router
    from .worker_port import WorkerPort

_Running = Coroutine[object, None, object]
OnDefect = Callable[[str, BaseException], None]


@dataclass(slots=True, eq=False)
class ProviderCall:
    """One call that a provider works on."""

    port: WorkerPort
    correlation: int
    cause: int
    taken: float = 0.0
    """Seconds of the host's loop that its task took."""
    task: asyncio.Task[None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether its worker still waits for it."""
        return self.port.outgoing.get(self.correlation) is self

    def withdraw(self) -> None:
        """See `UnderWay`."""
        if self.task is not None:
            self.task.cancel()


class ProviderCalls:
    """Runs the calls to providers of one router."""

    def __init__(self, router: Router, on_defect: OnDefect) -> None:
        self._router = router
        self._on_defect = on_defect
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, port: WorkerPort, frame: Frame, grant: Grant, chain: tuple[str, ...]) -> None:
        """One CALL on a link to a provider. Raises `CallError`, which is the answer then."""
        clock, size = port.loop_time.clock, len(frame.body)
        began = clock()
        try:
            operation = grant.typed[frame.operation]
            arguments = operation.decode_arguments(frame.body)
            if operation.guarded:
                operation.require_caller(port.name)
            seconds = frame.deadline / 1000 if frame.deadline else None
            call = Call(port.name, port.replica, chain, port.bundle_digest, port.kvp_bytes, seconds)
            try:
                result = grant.methods[frame.operation](call, *arguments)
                if not _is_awaitable(result):
                    body = _encoded(operation, result)
                    size += len(body)
                    self._router.finish(port, frame.correlation, Kind.REPLY, body)
                    return
            except CallError:
                raise
            except Exception as defect:  # noqa: BLE001 (a provider's defect must become one answer, and a log line)
                raise self._defect(f"{grant.target}.{operation.name}", port, defect) from None
            if port.loop_time.usual > FREE_SECONDS:
                port.loop_time.begins()
            known = ProviderCall(port, frame.correlation, frame.cause)
            running = result if inspect.iscoroutine(result) else _awaited(result)
            self.run(known, operation, f"{grant.target}.{operation.name}", seconds, running)
        finally:
            taken = clock() - began
            account = port.loop_time
            account.at_once += taken
            if taken > FREE_SECONDS or account.at_once > AT_ONCE_SECONDS:
                account.took(taken, size)

    def run(
        self, call: ProviderCall, operation: Operation, where: str, seconds: float | None, result: _Running
    ) -> None:
        """Answer the call with what `result` comes to, in a task that ends when nobody waits for it."""
        call.port.outgoing[call.correlation] = call
        task = call.task = self._router.loop.create_task(self._wait_for(call, operation, where, seconds, result))

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if call.awaited:  # cancelled before it began
                self._refuse(call, _stopped(where))
            result.close()

        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _wait_for(
        self, call: ProviderCall, operation: Operation, where: str, seconds: float | None, result: _Running
    ) -> None:
        CALLER.set(call.port.name)  # this task's alone
        size = 0
        try:
            clock = call.port.loop_time.clock
            began = clock()
            try:
                try:
                    waits_for = result.send(None)
                finally:
                    call.taken = clock() - began
            except StopIteration as end:  # as most do: it waited for nothing
                value = end.value
            else:
                async with asyncio.timeout(seconds):
                    value = await _rest_of(result, waits_for, call)
            body = _encoded(operation, value)
            size = len(body)
        except CallError as refusal:
            self._refuse(call, refusal)
        except TimeoutError:
            self._refuse(call, CallError(Code.DEADLINE, f"{where} did not end in {seconds} s"))
        except asyncio.CancelledError:
            self._refuse(call, _stopped(where))
            raise
        except Exception as defect:  # noqa: BLE001 (as above)
            self._refuse(call, self._defect(where, call.port, defect))
        else:
            if call.awaited:
                self._router.finish(call.port, call.correlation, Kind.REPLY, body)
        finally:
            call.port.loop_time.ended(call.taken, size)

    def cancel_all(self) -> list[asyncio.Task[None]]:
        """Cancel what runs (at the host's end); the tasks to wait for."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    def _refuse(self, call: ProviderCall, error: CallError) -> None:
        if call.awaited:
            self._router.finish(call.port, call.correlation, Kind.ERROR, error.encode())

    def _defect(self, where: str, port: WorkerPort, defect: Exception) -> CallError:
        self._on_defect(f"{where} called by {port.name}", defect)
        return CallError(Code.INTERNAL, f"{where} failed; the host's log has the cause")


@types.coroutine
def _rest_of(result: _Running, waits_for: object, call: ProviderCall) -> Generator[object, object, object]:
    """Await a coroutine that waits already, and count what its steps take of the loop, not what it waits in between."""
    while True:
        thrown: BaseException | None = None
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 (a task's cancellation too is the coroutine's to answer)
            thrown = error
        clock = call.port.loop_time.clock
        began = clock()
        try:
            waits_for = result.send(None) if thrown is None else result.throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            thrown = None  # else its traceback would hold this frame, and this frame it
            call.taken += clock() - began


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _is_awaitable(result: object) -> TypeGuard[Awaitable[object]]:
    return hasattr(result.__class__, "__await__")  # what `inspect.isawaitable` asks, in a sixth of its time


def _stopped(where: str) -> CallError:
    return CallError(Code.UNAVAILABLE, f"{where}: the provider stopped")


def _encoded(operation: Operation, value: object) -> bytes:
    body = operation.encode_result(value)
    if len(body) > MAX_BODY:
        raise CallError(Code.EXHAUSTED, f"the result has {len(body)} bytes, at most {MAX_BODY} fit a reply")
    return body
