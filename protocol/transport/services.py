"""What this end does for the peer: runs the peer's requests as tasks and answers each call exactly once.

May not: read or write; the endpoint does. May not tell the peer why something failed unless the service says so with a
`CallError`. Rule: docs/architecture.md, "The wire".

Requests are started in the order in which they came, at most `Settings.handlers` at once; the others wait within the
window that the session gave the peer. A request's room is given back when its answer is queued, so that what one peer
can make this process hold is bounded: window + handlers x answer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.operations import Operation, operations_of
from tea.protocol.session import Session

from .figures import Figures
from .settings import Settings


class Request(NamedTuple):
    """A CALL or TELL of the peer."""

    frame: Frame
    expires: float | None
    """When its deadline is over, in the loop's time."""
    session: Session
    """Over which it came, and over which alone it is answered."""


class Owner(Protocol):
    """The endpoint, seen from here."""

    def answer(self, session: Session, frame: Frame) -> asyncio.Future[bytes]:
        """Queue an answer; the result is done when it is on its way."""

    def consumed(self, session: Session, frame: Frame) -> None:
        """A request is done with."""


class _Service(NamedTuple):
    interface: type
    methods: tuple[tuple[Operation, Callable[..., object]], ...]


class Services:
    """The channels that are served, and the requests in hand."""

    def __init__(self, settings: Settings, figures: Figures, owner: Owner) -> None:
        self._owner = owner
        self._settings = settings
        self._figures = figures
        self._loop = asyncio.get_running_loop()
        self._channels: dict[int, _Service] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog: deque[Request] = deque()

    def serve(self, channel: int, interface: type, service: object) -> None:
        """Answer requests on a channel with the methods of `service`. Raises `AttributeError` when one is missing."""
        methods = tuple((op, getattr(service, op.function_name)) for op in operations_of(interface).values())
        self._channels[channel] = _Service(interface, methods)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Those that run now."""
        return set(self._tasks)

    def request(self, request: Request) -> None:
        """Start it, now or when another has ended."""
        self._figures.requests += 1
        if len(self._tasks) < self._settings.handlers:
            self._start(request)
        else:
            self._backlog.append(request)

    def cancel(self) -> None:
        """The peer is gone: nobody waits for answers any more."""
        self._backlog.clear()
        for task in self._tasks:
            task.cancel()

    def defect(self, where: str, error: BaseException) -> None:
        """Somebody raised what should not have been raised."""
        self._figures.defects += 1
        if self._settings.on_defect is not None:
            self._settings.on_defect(where, error)
        else:
            self._loop.call_exception_handler({"message": f"{where} raised {type(error).__name__}", "exception": error})

    # -- inside --------------------------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        task = self._loop.create_task(self._handle(request))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._backlog:
            self._start(self._backlog.popleft())

    async def _handle(self, request: Request) -> None:
        frame = request.frame
        try:
            body, kind = await self._perform(request), Kind.REPLY
        except CallError as error:
            self._figures.refused += 1
            body, kind = self._encode(error), Kind.ERROR
        except asyncio.CancelledError:
            # The peer is gone, or the service's own task was cancelled: then the peer still gets its one answer.
            if frame.kind is Kind.CALL:
                gone = CallError(Code.UNAVAILABLE, "the operation was cancelled")
                self._owner.answer(request.session, _answer(frame, Kind.ERROR, gone.encode()))
            self._owner.consumed(request.session, frame)
            raise
        if frame.kind is Kind.CALL:
            await self._owner.answer(request.session, _answer(frame, kind, body))
        self._owner.consumed(request.session, frame)

    async def _perform(self, request: Request) -> bytes:
        frame = request.frame
        service = self._channels.get(frame.link)
        if service is None:
            raise CallError(Code.NOT_FOUND, f"nothing is served on channel {frame.link}", channel=frame.link)
        if frame.operation >= len(service.methods):
            raise CallError(
                Code.NOT_FOUND,
                f"{service.interface.__name__} has {len(service.methods)} operations, none has number "
                f"{frame.operation}",
                channel=frame.link,
                operation=frame.operation,
            )
        operation, method = service.methods[frame.operation]
        arguments = operation.decode_arguments(frame.body)
        scope = asyncio.timeout_at(request.expires)
        try:
            async with scope:
                result = method(*arguments)
                if inspect.isawaitable(result):
                    result = await result
            body = operation.encode_result(result)
        except CallError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.defect(_name(service, operation), error)
        except Exception as error:  # noqa: BLE001 - whatever a service raises, the call is answered
            if isinstance(error, TimeoutError) and scope.expired():
                raise CallError(Code.DEADLINE, f"{operation.name} did not finish in time") from None
            self.defect(_name(service, operation), error)
        else:
            if len(body) > MAX_BODY:
                raise CallError(
                    Code.EXHAUSTED, f"the result of {operation.name} has {len(body)} bytes, at most {MAX_BODY} fit"
                )
            return body
        raise CallError(Code.INTERNAL, f"{operation.name} failed; the callee's log has the cause")

    def _encode(self, error: CallError) -> bytes:
        try:
            body = error.encode()
            if len(body) <= MAX_BODY:
                return body
        except Exception as defect:  # noqa: BLE001 - details that are no plain data
            self.defect("the details of a CallError", defect)
        return CallError(error.code, error.sentence).encode()


def _name(service: _Service, operation: Operation) -> str:
    return f"{service.interface.__name__}.{operation.name}"


def _answer(request: Frame, kind: Kind, body: bytes) -> Frame:
    return Frame(kind, 0, request.operation, request.link, request.correlation, 0, 0, body)


NO_ANSWER: Final = b""
"""What an answer's future holds once it is on its way."""
