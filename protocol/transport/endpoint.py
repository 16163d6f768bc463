"""One peer: calls to it, and services for it, over a session that outlives its connections.

May not: believe what the peer says beyond its types, or let a slow service stop reading.
Rule: docs/architecture.md, "The wire".

A frame's `link` is the number of a channel, its `operation` the place of the operation in `operations_of(interface)`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.hello import Hello
from tea.protocol.operations import numbered
from tea.protocol.session import Credited, Opened, Session, State

from .connection import Connection
from .figures import Figures
from .services import NO_ANSWER, Request, Services
from .settings import Settings
from .turns import Line, Turn

_log: Final = logging.getLogger("tea.protocol.transport")
_LONGEST: Final = 0xFFFFFFFF
# Milliseconds that a frame's deadline can say, and the largest correlation.
_MISSED_BEATS: Final = 3


class Endpoint:
    """Calls to one peer and services for it. Made by `connect` and `listen`."""

    def __init__(
        self,
        session: Session,
        settings: Settings,
        *,
        renew: Callable[[], Session] | None = None,
        on_opened: Callable[[Endpoint], None] | None = None,
    ) -> None:
        """`renew` gives the next session when one is over (a dialer that reconnects); without it the endpoint ends.

        `on_opened` is called when a session has begun, before its first request is served.
        """
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._settings = settings
        self._renew = renew
        self._on_opened = on_opened
        self._connection: Connection | None = None
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._correlation = 0
        self._calls = Line(settings.waiting, settings.waiting_bytes)
        self._answers = Line(settings.handlers, MAX_BODY * settings.handlers)
        self._grace: asyncio.TimerHandle | None = None
        self._unreachable = False
        self._missed = 0
        self._heard = 0.0
        self._beat = self._loop.call_later(settings.heartbeat, self._on_beat)
        self.on_closed: Callable[[], object] | None = None
        """Called once, when the endpoint is over."""
        self.figures = Figures()
        self._services = Services(settings, self.figures, self)
        self.greeting = b""
        """What the peer said in its HELLO."""
        self.opened = asyncio.Event()
        """Set while frames flow."""
        self.closed = asyncio.Event()
        """Set when the endpoint is over, for good; `reason` says why."""
        self.reason: CallError | None = None
        """Why the endpoint, or its last session, is over."""

    def __repr__(self) -> str:
        return f"Endpoint({self._session!r})"

    # -- for everybody -------------------------------------------------------------------------------------------

    def serve(self, channel: int, interface: type, service: object) -> None:
        """Answer the peer's requests on a channel with the methods of `service`, which may be async or plain.

        They raise `CallError` to refuse; any other exception is answered INTERNAL and goes to `Settings.on_defect`.
        A call whose deadline passes is cancelled and answered DEADLINE.
        """
        self._services.serve(channel, interface, service)

    async def call(
        self, channel: int, interface: type, name: str, *args: object, timeout: float | None = 10.0, **kwargs: object
    ) -> Any:
        """Call an operation of the peer's service; its typed result. `timeout` in seconds, None for no deadline.

        Raises `CallError`: the peer's own, DEADLINE when the time is over, UNAVAILABLE when the peer is gone,
        EXHAUSTED when too many calls wait or the arguments are too large; `LookupError` and `TypeError` on an operation
        or arguments that the interface does not have.
        """
        number, operation = numbered(interface)[name]
        body = operation.encode_arguments(*args, **kwargs)
        return operation.decode_result(await self.call_raw(channel, number, body, timeout=timeout))

    async def call_raw(self, channel: int, number: int, body: bytes, *, timeout: float | None = 10.0) -> bytes:
        """Call by the operation's number, with encoded arguments; the encoded result. Raises as `call` does."""
        self._require_peer()
        if len(body) > MAX_BODY:
            raise CallError(
                Code.EXHAUSTED, f"the arguments have {len(body)} bytes, at most {MAX_BODY} fit a frame", limit=MAX_BODY
            )
        if not self._calls.fits(len(body)):
            raise CallError(
                Code.EXHAUSTED,
                f"{len(self._calls)} calls with {self._calls.size} bytes wait already for room towards the peer",
            )
        correlation = self._next_correlation()
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._pending[correlation] = answer
        deadline, timer = 0, None
        if timeout is not None:
            deadline = min(max(int(timeout * 1000), 1), _LONGEST)
            timer = self._loop.call_later(timeout, self._overdue, answer, timeout)
        self.figures.calls += 1
        frame = Frame(Kind.CALL, 0, number, channel, correlation, 0, deadline, body)
        self._put(Turn(frame, answer), self._calls)
        try:
            return await answer
        finally:
            del self._pending[correlation]
            if timer is not None:
                timer.cancel()

    def tell(self, channel: int, interface: type, name: str, *args: object, **kwargs: object) -> bool:
        """Tell the peer, without an answer and without waiting. False when it was dropped: the bounded queue is full,
        or there is no peer; drops are counted in `figures`. Raises `LookupError` and `TypeError` as `call` does.
        """
        number, operation = numbered(interface)[name]
        return self.tell_raw(channel, number, operation.encode_arguments(*args, **kwargs))

    def tell_raw(self, channel: int, number: int, body: bytes) -> bool:
        """Tell by the operation's number, with encoded arguments. False when it was dropped."""
        if self._calls.first() is not None or len(body) > MAX_BODY or not self._session.can_send(Kind.TELL, len(body)):
            self.figures.tells_dropped += 1
            return False
        self.figures.tells += 1
        self._session.send(Frame(Kind.TELL, 0, number, channel, 0, 0, 0, body))
        self._schedule()
        return True

    def close(self, error: CallError | None = None) -> Awaitable[None]:
        """End it now: what is queued is written, then BYE with the reason; calls in flight fail with UNAVAILABLE.

        The result may be awaited: until the connection is gone and the services' tasks have ended.
        """
        connection, tasks = self._connection, self._services.tasks
        if not self.closed.is_set():
            self._session.close(error)
            self._finish(error or CallError(Code.UNAVAILABLE, "the connection was closed at this end"))
        return asyncio.ensure_future(_ended(connection, tasks))

    # -- for client and server -----------------------------------------------------------------------------------

    def admits(self, hello: Hello) -> bool:
        """Whether a new connection with this HELLO continues this endpoint's session."""
        return self._session.admits(hello)

    def adopt(self, connection: Connection, first: bytes | bytearray = b"") -> None:
        """Go on over this connection, of which `first` has been read; the one before is dropped."""
        if self._connection is not None:
            before, self._connection = self._connection, None
            self.opened.clear()
            self._session.detach()
            before.abort()
        self._session.attach()
        self._connection = connection
        connection.owner = self
        self._missed = 0
        if first:
            self.received(connection, memoryview(first))
        connection.schedule()

    def abandon(self, error: CallError) -> None:
        """Nobody comes back: end the session, and begin another or end the endpoint."""
        self._session.close(error)
        self._over(error)

    def defect(self, where: str, error: BaseException) -> None:
        """Somebody at this end raised what should not have been raised: count it and tell `Settings.on_defect`."""
        self._services.defect(where, error)

    def received(self, connection: Connection, data: memoryview) -> None:
        """Connection: bytes have come."""
        if connection is not self._connection:
            return
        session = self._session
        for event in session.receive(data):
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Credited):
                self._admit()
            elif isinstance(event, Opened):
                self._on_open(event)
            else:
                _log.info("a session ended: %.200r", event.error.sentence)
                self._over(event.error)
            if self._session is not session or self._connection is not connection:
                return
        connection.schedule()

    def data_to_send(self, connection: Connection, limit: int) -> list[bytes]:
        """Connection: what to write next."""
        return self._session.data_to_send(limit) if connection is self._connection else []

    def lost(self, connection: Connection) -> None:
        """Connection: the stream has ended."""
        if connection is not self._connection:
            return
        self._connection = None
        self.opened.clear()
        self._session.detach()
        gone = CallError(Code.UNAVAILABLE, "the connection to the peer was lost")
        if self._session.state is State.NEW and self._renew is None:
            self._finish(gone)
        elif not self._session.resumable:
            self.abandon(gone)
        else:
            self._start_grace()

    # -- inside: sending -----------------------------------------------------------------------------------------

    def _require_peer(self) -> None:
        if self.closed.is_set() or self._unreachable:
            because = "" if self.reason is None else f": {self.reason.sentence}"
            raise CallError(Code.UNAVAILABLE, f"the peer cannot be reached{because}")

    def _next_correlation(self) -> int:
        while True:
            self._correlation = self._correlation % _LONGEST + 1
            if self._correlation not in self._pending:
                return self._correlation

    def _put(self, turn: Turn, line: Line) -> None:
        if line.first() is None and self._session.can_send(turn.frame.kind, len(turn.frame.body)):
            self._send(turn)
        else:
            line.append(turn)
            self._session.ask_credit()
        self._schedule()

    def _send(self, turn: Turn) -> None:
        self._session.send(turn.frame)
        if turn.frame.kind is not Kind.CALL:
            turn.done.set_result(NO_ANSWER)

    def _admit(self) -> None:
        # Answers first: they need no window, and each frees a request's room at this end.
        for line in (self._answers, self._calls):
            while (turn := line.first()) is not None:
                if not self._session.can_send(turn.frame.kind, len(turn.frame.body)):
                    self._session.ask_credit()
                    break
                line.pop()
                self._send(turn)
        self._schedule()

    def _schedule(self) -> None:
        if self._connection is not None:
            self._connection.schedule()

    def _overdue(self, answer: asyncio.Future[bytes], timeout: float) -> None:
        if not answer.done():
            self.figures.overdue += 1
            answer.set_exception(
                CallError(Code.DEADLINE, f"no answer within {timeout:g} s; whether it took effect is unknown")
            )

    # -- inside: what comes in -----------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.REPLY or frame.kind is Kind.ERROR:
            answer = self._pending.get(frame.correlation)
            if answer is None or answer.done():
                self.figures.late += 1
            elif frame.kind is Kind.REPLY:
                answer.set_result(frame.body)
            else:
                answer.set_exception(CallError.decode(frame.body))
            return
        expires = self._loop.time() + frame.deadline / 1000 if frame.deadline else None
        self._services.request(Request(frame, expires, self._session))

    def answer(self, session: Session, frame: Frame) -> asyncio.Future[bytes]:
        """Services: queue an answer; the result is done when it is on its way."""
        sent: asyncio.Future[bytes] = self._loop.create_future()
        if session is self._session and session.ending is None:
            self._put(Turn(frame, sent), self._answers)
        else:
            sent.set_result(NO_ANSWER)  # whoever asked is gone
        return sent

    def consumed(self, session: Session, frame: Frame) -> None:
        """Services: a request is done with; its room is given back to the peer."""
        session.consume(frame)
        self._schedule()

    # -- inside: the session's life ------------------------------------------------------------------------------

    def _on_open(self, event: Opened) -> None:
        self._stop_grace()
        self._unreachable = False
        self.greeting = event.greeting
        if event.resumed:
            self.figures.resumed += 1
        else:
            self.figures.sessions += 1
        self.opened.set()
        if not event.resumed and self._on_opened is not None:
            try:
                self._on_opened(self)
            except Exception as error:  # noqa: BLE001 - a defect there must not look like one of the peer
                self.defect("on_endpoint", error)
                self.close(CallError(Code.INTERNAL, "the listener could not take the connection"))
        self._admit()

    def _over(self, error: CallError) -> None:
        if self._renew is None:
            self._finish(error)
            return
        self._drop()
        self.reason = error
        self._fail(error)
        self._session = self._renew()
        self._start_grace()

    def _finish(self, error: CallError) -> None:
        self._drop()
        self.reason = error
        self._stop_grace()
        self._beat.cancel()
        self.closed.set()
        self._fail(error)
        if self.on_closed is not None:
            self.on_closed()

    def _drop(self) -> None:
        self.opened.clear()
        if self._connection is not None:
            self._connection.close()  # writes the session's last words, which is why it is still ours
            self._connection = None

    def _fail(self, error: CallError) -> None:
        self._calls.clear()
        self._answers.clear()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(CallError(Code.UNAVAILABLE, f"the peer is gone: {error.sentence}"))
        self._services.cancel()

    def _start_grace(self) -> None:
        if self._grace is None:
            self._grace = self._loop.call_later(self._settings.grace, self._on_grace_over)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _on_grace_over(self) -> None:
        self._grace = None
        self._unreachable = True
        self.abandon(CallError(Code.UNAVAILABLE, f"the peer did not come back within {self._settings.grace:g} s"))

    def _on_beat(self) -> None:
        self._beat = self._loop.call_later(self._settings.heartbeat, self._on_beat)
        connection = self._connection
        if connection is None:
            return
        if connection.heard != self._heard:
            self._heard = connection.heard
            self._missed = 0
        else:
            self._missed += 1
            if self._missed >= _MISSED_BEATS:
                connection.abort()
                return
            self._session.ping()
        self._session.settle()
        connection.schedule()


async def _ended(connection: Connection | None, tasks: set[asyncio.Task[None]]) -> None:
    if connection is not None:
        await connection.gone.wait()
    if tasks:
        await asyncio.wait(tasks)
