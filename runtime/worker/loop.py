"""The worker's loop: one socket, one actor, one call at a time.

May not: be entered before the sandbox is closed. What the actor raises becomes an ERROR; what it prints becomes a log
line; nothing that it does reaches another actor but through numbered links. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import collections
import contextlib
import functools
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from tea.protocol.context import Context, split_context
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, HEADER_SIZE, Frame, FrameDecoder, FrameError, Kind, encode_frame
from tea.protocol.operations import Operation, OperationDescription
from tea.sdk import binding, source_lines
from tea.sdk.system import LoadError, System
from tea.trust.bundle import recheck_bundle
from tea.trust.keys import PublicKey

from .busy_poll import BusyPoll
from .keyed import Keyed, caller_of
from .output import Printed, install_logging, open_logging
from .sender import QUICK_SECONDS, Sender
from .window import cost_of, is_over, unit_of
from .wire import CONTROL_LINK, MAX_LOG_LINE, WINDOW, LogLine, Ready, Welcome

CALL_SECONDS: Final = 30.0
"""How long a call waits that says nothing else: no callee can hold its caller for ever."""
_READ: Final = 32 * 1024
"""Bytes asked for at once: a larger buffer is mapped and unmapped by the C library at every read."""
_STALE: Final = 0.002
"""Seconds after which the socket is looked at before queued mail is begun: somebody may have stopped waiting for it."""
_DEFAULT_DEADLINE: Final = int(CALL_SECONDS * 1000)
_CALL: Final = Kind.CALL
_REPLY: Final = Kind.REPLY
_ERROR: Final = Kind.ERROR


class ActorExited(Exception):
    """The actor sent itself Thespian's exit request: the worker ends, and the supervisor decides what follows."""


class _HostGone(Exception):
    """The socket ended: the host is dead or has cut this worker off."""


class WorkerLoop:
    """Reads frames, dispatches operations, and is what the actor's links call through (`sdk.binding.Caller`)."""

    def __init__(
        self, connection: socket.socket, seal: Callable[[], None] = lambda: None, system: System | None = None
    ) -> None:
        self._socket = connection
        self._out = Sender(connection)
        self._seal = seal
        self._system = system
        self._ready = select.poll()
        self._ready.register(connection, select.POLLIN)
        self._for_calls = BusyPoll()
        self._for_answers = BusyPoll()
        self._decoder = FrameDecoder()
        self._inbox: collections.deque[Frame] = collections.deque()
        self._answers: dict[int, Frame] = {}
        self._next_call = 0
        self._context = Context("")
        self._context_bytes = b""
        """Of the last call, as they came: the next one has the same more often than not."""
        self._cause = 0
        self._deadline_at: float | None = None
        """When the call in hand has no more time, on the monotonic clock; None: it has no deadline."""
        self._operations: tuple[Operation, ...] = ()
        self._caller: WorkerLoop | Keyed = self
        """What the actor's links call through."""
        self._read_at = 0.0
        """When the mail that is queued was read, about."""
        self._may_hold = False
        """Whether an answer may wait for those of the calls that are queued behind it."""
        self._slow: set[int | str] = set()
        """Operations that took long when they were last measured: by number, of calls by a lane by name."""
        self._window = WINDOW
        self._unit = unit_of(WINDOW)
        self._under_way = 0
        """Units of the window that calls without an answer take."""
        self._costs: dict[int, int] = {}
        """Calls that take more than one unit."""
        self._told: dict[int, int] = {}
        """Units of messages by link, less what was credited."""

    # -- what the actor's links call ---------------------------------------------------------------------------

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """Call through a numbered link and wait. Raises `CallError`; the host answers at the deadline at the latest."""
        return self._await(self._begin(link, operation, body, timeout))

    def begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> Callable[[], bytes]:
        """Send a call; the result waits for its answer. The link's window bounds how many may be under way."""
        return functools.partial(self._finish, self._begin(link, operation, body, timeout))

    def _begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> int:
        correlation = self._next_call = self._next_call % 0xFFFFFFFF + 1
        size = len(body)
        cost = 1 + size // self._unit
        full = self._under_way + cost > self._window
        if full or timeout is not None or self._deadline_at is not None:
            deadline = self._deadline(timeout, cost)
        else:
            deadline = _DEFAULT_DEADLINE
        self._under_way += cost
        if cost > 1:
            self._costs[correlation] = cost
        # The path that has to be short: no Frame is made. The link has checked the size of the arguments.
        data = HEADER.pack(size, _CALL, 0, operation, link, correlation, self._cause, deadline) + body
        if self._out.gathers:
            self._out.hold(data)
        else:
            self._out.send(data)
        return correlation

    def _deadline(self, timeout: float | None, cost: int) -> int:
        """The milliseconds that a call has, once there is room for it in the window."""
        seconds = CALL_SECONDS if timeout is None else timeout
        if self._deadline_at is not None:
            # Nobody waits for this answer longer than the caller of the call in hand does.
            seconds = min(seconds, self._deadline_at - time.monotonic())
            if seconds <= 0:
                raise nobody_waits()
        if self._under_way + cost > self._window:
            seconds = self._wait(lambda: is_over(self._under_way, cost, self._window), seconds)
            if seconds <= 0:
                raise CallError(Code.DEADLINE, f"{self._under_way} calls are under way, and none was answered in time")
        return min(max(1, int(seconds * 1000)), 0xFFFFFFFF)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """See `tea.sdk.together`."""
        return self._out.gathering()

    def _flush(self) -> None:
        """Send what is held back: this worker is going to wait."""
        self._out.flush()

    def _finish(self, correlation: int) -> bytes:
        answer = self._answers.pop(correlation, None)
        if answer is None:
            return self._await(correlation)
        if answer.kind is _REPLY:
            return answer.body
        raise CallError.decode(answer.body)

    def _await(self, correlation: int) -> bytes:
        self._flush()
        if not self._answers and not self._decoder.buffered:
            if self._for_answers.on:
                self._for_answers.wait(self._ready)
            data = self._socket.recv(_READ)
            if len(data) >= HEADER_SIZE:
                # By far the most frequent: the one answer that is waited for, and nothing else. No Frame is made.
                size, kind, flags, _, _, number, _, _ = HEADER.unpack_from(data)
                if kind == _REPLY and number == correlation and len(data) == HEADER_SIZE + size and not flags:
                    self._under_way -= self._costs.pop(correlation, 1) if self._costs else 1
                    return data[HEADER_SIZE:]
            self._received(data)
        while True:
            answer = self._answers.pop(correlation, None)
            if answer is not None:
                if answer.kind is _REPLY:
                    return answer.body
                raise CallError.decode(answer.body)
            if self._for_answers.on:
                self._for_answers.wait(self._ready)
            self._read()

    def tell(self, link: int, operation: int, body: bytes) -> None:
        """Send through a numbered link without an answer; waits while the link's window is full.

        Raises `CallError(EXHAUSTED)` when it stays full: the message was not sent.
        """
        cost = cost_of(body, self._unit)
        told = self._told
        if told.get(link, 0) + cost > self._window:
            seconds = CALL_SECONDS
            if self._deadline_at is not None:
                seconds = min(seconds, self._deadline_at - time.monotonic())
            if self._wait(lambda: is_over(told.get(link, 0), cost, self._window), seconds) <= 0:
                raise CallError(Code.EXHAUSTED, f"{told[link]} messages wait for a place in the mailbox of the target")
        told[link] = told.get(link, 0) + cost
        self._out.put(_encoded(Frame(Kind.TELL, 0, operation, link, 0, self._cause, 0, body)))

    def _wait(self, full: Callable[[], bool], seconds: float) -> float:
        """Read until there is room in a window; the seconds that are left then, 0 when they are over."""
        self._flush()
        until = time.monotonic() + seconds
        while full():
            if self._deadline_at is not None:
                until = min(until, self._deadline_at)
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return 0
            self._read()
        return until - time.monotonic()

    # -- life --------------------------------------------------------------------------------------------------

    def log(self, level: str, text: str) -> None:
        """Hand one line to the host's log."""
        line = LogLine(level, text[:MAX_LOG_LINE])
        self._send(Frame(Kind.TELL, link=CONTROL_LINK, body=msgspec.msgpack.encode(line)))

    def run(self) -> int:
        """Load the bundle, start the actor, serve until BYE or the host is gone. Answers the exit code."""
        sys.stdout = sys.stderr = Printed(self.log)
        try:
            welcome, bundle = self._welcome()
            install_logging()
            open_logging(self.log, tracebacks=welcome.traceback_to_log)
            system = self._start(welcome, bundle)
            if system is None:
                return 1
            try:
                self._serve(system, welcome)
            except ActorExited:
                self.log("info", "the actor asked for its own end")
            finally:
                with contextlib.suppress(OSError):
                    self._out.flush()  # also where the actor ends its own process: these calls are done
                system.stop()
            self._send(Frame(Kind.BYE))
        except (_HostGone, OSError):
            return 2
        return 0

    def _welcome(self) -> tuple[Welcome, bytes]:
        welcome: Welcome | None = None
        bundle = bytearray()
        while welcome is None or len(bundle) < welcome.bundle_size:
            frame = self._next()
            if frame.kind is not Kind.HELLO:
                continue
            if welcome is None:
                welcome = msgspec.msgpack.decode(frame.body, type=Welcome)
            else:
                bundle += frame.body
        return welcome, bytes(bundle)

    def _start(self, welcome: Welcome, bundle: bytes) -> System | None:
        def verify(data: bytes) -> bytes:
            # The host verified this bundle already; the Source Authority is the second lock on the same door.
            return recheck_bundle(data, digest=welcome.bundle_digest, issuer=PublicKey.parse(welcome.issuer))

        try:
            self._window, self._unit = welcome.in_flight, unit_of(welcome.in_flight)
            self._for_calls.on = self._for_answers.on = welcome.looks
            self._may_hold = not welcome.prompt and not welcome.lanes
            caller = self._caller = caller_of(self, welcome.links)
            binding.bind(welcome.identity, welcome.links, caller)
            if welcome.kind == "wasm":
                from .wasm_actor import load  # its library is there in workers of that kind alone

                system = load(bundle, welcome, verify, caller, self._seal)
            else:
                system = self._system or System()
                system.open(bundle, welcome.entry, verify)
            system.start()
            declared = binding.operations(type(system.instance))
            operations = tuple(operation.description for operation in declared.values())
        except BaseException as error:  # noqa: BLE001 (a bundle's module body may raise anything, SystemExit included)
            sentence = f"{welcome.identity.name} could not be started: {type(error).__name__}"
            if isinstance(error, CallError | LoadError):
                sentence += f": {error}"
            if welcome.traceback_to_log:
                self.log("error", source_lines.shown(error))
            self._send(Frame(Kind.ERROR, body=CallError(Code.INTERNAL, sentence).encode()))
            return None
        self._operations = tuple(declared.values())
        self._send(Frame(Kind.HELLO, body=msgspec.msgpack.encode(Ready(operations))))
        return system

    def _serve(self, system: System, welcome: Welcome) -> None:
        inbox, now = self._inbox, time.monotonic
        while True:
            if inbox and now() - self._read_at <= _STALE:
                frame: Frame | None = inbox.popleft()
            else:
                frame = self._next_or_wakeup(system)
            if frame is None:
                self._cause = 0
                system.pump()
                if not system.alive:
                    return
            elif frame.kind is _CALL or frame.kind is Kind.TELL:
                self._handle(system, frame, welcome)
            elif frame.kind is Kind.BYE:
                return

    def _handle(self, system: System, frame: Frame, welcome: Welcome) -> None:
        kind, _, number, _, correlation, _, milliseconds, body = frame
        known = self._context_bytes
        if known and body.startswith(known):
            arguments = body[len(known) :]
        else:
            self._context, arguments = split_context(body)
            self._context_bytes = body[: len(body) - len(arguments)]
        caller, chain = self._context
        began, deadline = time.monotonic(), None
        if milliseconds:
            deadline = milliseconds / 1000
            self._deadline_at = began + deadline
        self._cause = correlation
        inbox, out = self._inbox, self._out
        others_wait = self._may_hold and bool(inbox or out.held)
        if others_wait and number in self._slow:
            out.flush()
        error: CallError | None = None
        try:
            if number >= len(self._operations):
                raise CallError(Code.NOT_FOUND, f"{welcome.identity.name} has no operation {number}")
            # At most MAX_BODY bytes: `perform` refuses larger results.
            result = binding.perform(system.instance, self._operations[number], arguments, caller, chain, deadline)
        except CallError as refusal:
            error = refusal
        if kind is _CALL:
            if error is None:
                data = HEADER.pack(len(result), _REPLY, 0, 0, 0, correlation, 0, 0) + result
            else:
                data = _encoded(Frame(Kind.ERROR, correlation=correlation, body=error.encode()))
        else:
            if error is not None:
                self.log("warning", f"a message to {self._operation_name(number)} failed: {error}")
            # A message is done with: the host may count its place in the mailbox as free.
            data = _encoded(Frame(Kind.CREDIT, correlation=correlation))
        if others_wait and self._was_quick(number, began) and inbox and system.idle:
            out.hold(data)
        else:
            out.send(data)
        # It is answered: what its own mail sets off from here on is of the actor's own accord.
        self._cause, self._deadline_at = 0, None
        system.pump()
        if not system.alive:
            raise ActorExited

    def _was_quick(self, operation: int | str, began: float) -> bool:
        if time.monotonic() - began < QUICK_SECONDS:
            self._slow.discard(operation)
            return True
        if isinstance(operation, str) or operation < len(self._operations):
            self._slow.add(operation)
        return False

    def _operation_name(self, number: int) -> str:
        return self._operations[number].name if number < len(self._operations) else f"operation {number}"

    # -- frames ------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        self._out.send(_encoded(frame))

    def _next(self) -> Frame:
        while not self._inbox:
            self._read()
        return self._inbox.popleft()

    def _next_or_wakeup(self, system: System) -> Frame | None:
        """The next frame, or None when one of the actor's wake-ups is due first."""
        if self._inbox:
            if time.monotonic() - self._read_at > _STALE:
                while select.select([self._socket], [], [], 0)[0]:
                    self._read()
                self._read_at = time.monotonic()
                return self._inbox.popleft() if self._inbox else self._next_or_wakeup(system)
            return self._inbox.popleft()
        self._out.flush()
        while not self._inbox:
            timeout = system.next_wakeup()
            if (self._for_calls.on or timeout is not None) and not self._for_calls.wait(self._ready, timeout):
                return None
            self._read()
        if len(self._inbox) > 1:
            self._read_at = time.monotonic()
        return self._inbox.popleft()

    def _read(self) -> None:
        self._received(self._socket.recv(_READ))

    def _received(self, data: bytes) -> None:
        if not data:
            raise _HostGone
        answers, inbox, costs = self._answers, self._inbox, self._costs
        for frame in self._decoder.feed(data):
            kind, correlation = frame[0], frame[4]
            if kind is _CALL:
                inbox.append(frame)
            elif kind is _REPLY or (kind is _ERROR and correlation):
                answers[correlation] = frame
                self._under_way -= costs.pop(correlation, 1) if costs else 1
            elif kind is Kind.PING:
                self._send(Frame(Kind.PING, correlation=frame.correlation))
            elif kind is Kind.CREDIT:
                self._told[frame.link] = max(0, self._told.get(frame.link, 0) - frame.correlation)
            elif kind is Kind.BYE and frame.correlation:
                self._withdraw(frame.correlation)
            elif kind is Kind.HELLO and frame.link != CONTROL_LINK:
                self._learn(frame)
            else:
                self._inbox.append(frame)

    def _learn(self, frame: Frame) -> None:
        """The target of a link is another now, or up only now: this is what its operations take."""
        operations = msgspec.msgpack.decode(frame.body, type=tuple[OperationDescription, ...])
        if isinstance(self._caller, Keyed):
            self._caller.learn(frame.link, operations)
        bound = binding.active()
        if bound is not None:
            bound.learn(frame.link, operations)

    def _withdraw(self, number: int) -> None:
        """Nobody waits for this call any more: skip it, or, when it is in hand, call nobody else for it."""
        if number == self._cause:
            self._deadline_at = 0.0
            return
        for place, frame in enumerate(self._inbox):
            if frame.correlation == number and frame.kind is Kind.CALL:
                del self._inbox[place]
                self._send(Frame(Kind.ERROR, correlation=number, body=nobody_waits().encode()))
                return


def _encoded(frame: Frame) -> bytes:
    try:
        return encode_frame(frame)
    except FrameError as error:
        raise CallError(Code.INVALID, str(error)) from None


def nobody_waits() -> CallError:
    return CallError(Code.DEADLINE, "nobody waits for this any more: the call on whose behalf it is made has ended")


def run_worker(connection: socket.socket, seal: Callable[[], None] = lambda: None, system: System | None = None) -> int:
    """Serve one actor over `connection` until it ends; the process's exit code.

    `seal` is called when code was compiled and before it runs (kind wasm alone). `system` is one that was made before
    the fork, where its memory is shared with all workers.
    """
    return WorkerLoop(connection, seal, system).run()
