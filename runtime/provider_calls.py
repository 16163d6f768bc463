"""Calls of workers to providers: decoded, checked, run at once or as a task, answered once.

May not: let a provider's defect out, or a task outlive the one who waits for it. Rule: docs/architecture.md,
"Providers" and "Cancellation".
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.operations import Operation
from tea.providers.base import Call

from .fair_threads import CALLER
from .links import Grant

if TYPE_CHECKING:
    from .router import Router
    from .worker_port import WorkerPort

OnDefect = Callable[[str, BaseException], None]


@dataclass(slots=True, eq=False)
class ProviderCall:
    """One call that a provider works on."""

    port: WorkerPort
    correlation: int
    cause: int
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
        operation = grant.typed[frame.operation]
        arguments = operation.decode_arguments(frame.body)
        if operation.guarded:
            operation.require_caller(port.name)
        seconds = frame.deadline / 1000 if frame.deadline else None
        call = Call(port.name, port.replica, chain, port.bundle_digest, port.kvp_bytes, seconds)
        try:
            result = grant.methods[frame.operation](call, *arguments)
            if not _is_awaitable(result):
                self._router.finish(port, frame.correlation, Kind.REPLY, _encoded(operation, result))
                return
        except CallError:
            raise
        except Exception as defect:  # noqa: BLE001 (a provider's defect must become one answer, and a log line)
            raise self._defect(f"{grant.target}.{operation.name}", port, defect) from None
        known = ProviderCall(port, frame.correlation, frame.cause)
        self.run(known, operation, f"{grant.target}.{operation.name}", seconds, result)

    def run(
        self, call: ProviderCall, operation: Operation, where: str, seconds: float | None, result: Awaitable[object]
    ) -> None:
        """Answer the call with what `result` comes to, in a task that ends when nobody waits for it."""
        call.port.outgoing[call.correlation] = call
        task = call.task = self._router.loop.create_task(self._wait_for(call, operation, where, seconds, result))

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if call.awaited:  # cancelled before it began
                self._refuse(call, _stopped(where))
            if inspect.iscoroutine(result):
                result.close()

        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _wait_for(
        self, call: ProviderCall, operation: Operation, where: str, seconds: float | None, result: Awaitable[object]
    ) -> None:
        CALLER.set(call.port.name)  # this task's alone
        try:
            async with asyncio.timeout(seconds):
                value = await result
            body = _encoded(operation, value)
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


def _is_awaitable(result: object) -> TypeGuard[Awaitable[object]]:
    return hasattr(result.__class__, "__await__")  # what `inspect.isawaitable` asks, in a sixth of its time


def _stopped(where: str) -> CallError:
    return CallError(Code.UNAVAILABLE, f"{where}: the provider stopped")


def _encoded(operation: Operation, value: object) -> bytes:
    body = operation.encode_result(value)
    if len(body) > MAX_BODY:
        raise CallError(Code.EXHAUSTED, f"the result has {len(body)} bytes, at most {MAX_BODY} fit a reply")
    return body
