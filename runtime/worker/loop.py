"""The worker's loop: one socket, one actor, one call at a time.

May not: be entered before the sandbox is closed. What the actor raises becomes an ERROR; what it prints becomes a log
line; nothing that it does reaches another actor but through numbered links. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import logging
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tea.protocol.context import split_context
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, Frame, FrameDecoder, FrameError, Kind, encode_frame
from tea.sdk import binding, source_lines
from tea.sdk.system import LoadError, System
from tea.trust.bundle import Issuer, verify_bundle
from tea.trust.keys import PublicKey

from .wire import CONTROL_LINK, MAX_LOG_LINE, LogLine, Ready, Welcome

CALL_SECONDS: Final = 30.0
"""How long a call waits that says nothing else: no callee can hold its caller for ever."""
_READ: Final = 32 * 1024
"""Bytes asked for at once: a larger buffer is mapped and unmapped by the C library at every read."""
_CALL: Final = int(Kind.CALL)
_REPLY: Final = int(Kind.REPLY)


class _ActorExited(Exception):
    """The actor sent itself Thespian's exit request: the worker ends, and the supervisor decides what follows."""


class _HostGone(Exception):
    """The socket ended: the host is dead or has cut this worker off."""


class WorkerLoop:
    """Reads frames, dispatches operations, and is what the actor's links call through (`sdk.binding.Caller`)."""

    def __init__(self, connection: socket.socket, seal: Callable[[], None] = lambda: None) -> None:
        self._socket = connection
        self._seal = seal
        self._decoder = FrameDecoder()
        self._inbox: collections.deque[Frame] = collections.deque()
        self._answers: dict[int, Frame] = {}
        self._next_call = 0
        self._cause = 0
        self._deadline_at: float | None = None
        """When the call in hand has no more time, on the monotonic clock; None: it has no deadline."""
        self._operations: tuple[str, ...] = ()

    # -- what the actor's links call ---------------------------------------------------------------------------

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """Call through a numbered link and wait. Raises `CallError`; the host answers at the deadline at the latest."""
        return self._finish(self._begin(link, operation, body, timeout))

    def begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> Callable[[], bytes]:
        """Send a call; the result waits for its answer. The link's window bounds how many may be under way."""
        return functools.partial(self._finish, self._begin(link, operation, body, timeout))

    def _begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> int:
        correlation = self._next_call = self._next_call % 0xFFFFFFFF + 1
        seconds = CALL_SECONDS if timeout is None else timeout
        if self._deadline_at is not None:
            # Nobody waits for this answer longer than the caller of the call in hand does.
            seconds = min(seconds, self._deadline_at - time.monotonic())
        deadline = max(1, min(0xFFFFFFFF, int(seconds * 1000)))
        # The path that has to be short: no Frame is made. The link has checked the size of the arguments.
        self._socket.sendall(
            HEADER.pack(len(body), _CALL, 0, operation, link, correlation, self._cause, deadline) + body
        )
        return correlation

    def _finish(self, correlation: int) -> bytes:
        while True:
            answer = self._answers.pop(correlation, None)
            if answer is not None:
                if answer.kind is Kind.REPLY:
                    return answer.body
                raise CallError.decode(answer.body)
            self._read()

    def tell(self, link: int, operation: int, body: bytes) -> None:
        """Send through a numbered link without an answer."""
        self._send(Frame(Kind.TELL, 0, operation, link, 0, self._cause, 0, body))

    # -- life --------------------------------------------------------------------------------------------------

    def log(self, level: str, text: str) -> None:
        """Hand one line to the host's log."""
        line = LogLine(level, text[:MAX_LOG_LINE])
        self._send(Frame(Kind.TELL, link=CONTROL_LINK, body=msgspec.msgpack.encode(line)))

    def run(self) -> int:
        """Load the bundle, start the actor, serve until BYE or the host is gone. Answers the exit code."""
        sys.stdout = sys.stderr = _Printed(self)
        try:
            welcome, bundle = self._welcome()
            logging.getLogger("Thespian").setLevel(logging.WARNING)
            logging.basicConfig(level=logging.INFO, handlers=[_LogHandler(self, welcome.traceback_to_log)], force=True)
            system = self._start(welcome, bundle)
            if system is None:
                return 1
            try:
                self._serve(system, welcome)
            except _ActorExited:
                self.log("info", "the actor asked for its own end")
            finally:
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
            if hashlib.sha256(data).digest() != welcome.bundle_digest:
                raise ValueError("the bundle's digest is not the one that the host named")
            key = PublicKey.parse(welcome.issuer)
            issuer = Issuer(key, (welcome.identity.name,), welcome.issuer_capabilities)
            return verify_bundle(data, {key.key_id: issuer}, now=None, sdk_version=welcome.sdk_version).archive

        try:
            binding.bind(welcome.identity, welcome.links, self)
            if welcome.kind == "wasm":
                from .wasm_actor import load  # its library is there in workers of that kind alone

                system = load(bundle, welcome, verify, self, self._seal)
            else:
                system = System.load(bundle, welcome.entry, verify)
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
        self._operations = tuple(description.name for description in operations)
        self._send(Frame(Kind.HELLO, body=msgspec.msgpack.encode(Ready(operations))))
        return system

    def _serve(self, system: System, welcome: Welcome) -> None:
        while True:
            frame = self._next_or_wakeup(system)
            if frame is None:
                self._cause = 0
                system.pump()
                if not system.alive:
                    return
            elif frame.kind is Kind.CALL or frame.kind is Kind.TELL:
                self._handle(system, frame, welcome)
            elif frame.kind is Kind.BYE:
                return

    def _handle(self, system: System, frame: Frame, welcome: Welcome) -> None:
        context, arguments = split_context(frame.body)
        deadline = frame.deadline / 1000 if frame.deadline else None
        self._deadline_at = None if deadline is None else time.monotonic() + deadline
        invocation = binding.Invocation(context.caller, context.chain, deadline)
        self._cause = frame.correlation
        try:
            try:
                name = self._operations[frame.operation]
            except IndexError:
                raise CallError(Code.NOT_FOUND, f"{welcome.identity.name} has no operation {frame.operation}") from None
            # At most MAX_BODY bytes: `dispatch` refuses larger results.
            result = binding.dispatch(system.instance, name, arguments, invocation)
            answer = None
        except CallError as error:
            answer = Frame(Kind.ERROR, correlation=frame.correlation, body=error.encode())
        if frame.kind is Kind.CALL:
            if answer is None:
                self._socket.sendall(HEADER.pack(len(result), _REPLY, 0, 0, 0, frame.correlation, 0, 0) + result)
            else:
                self._send(answer)
        else:
            if answer is not None:
                self.log(
                    "warning", f"a message to {self._operation_name(frame.operation)} failed: {error_text(answer)}"
                )
            # A message is done with: the host may count its place in the mailbox as free.
            self._send(Frame(Kind.CREDIT, correlation=frame.correlation))
        system.pump()
        self._cause, self._deadline_at = 0, None
        if not system.alive:
            raise _ActorExited

    def _operation_name(self, number: int) -> str:
        return self._operations[number] if number < len(self._operations) else f"operation {number}"

    # -- frames ------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        try:
            data = encode_frame(frame)
        except FrameError as error:
            raise CallError(Code.INVALID, str(error)) from None
        self._socket.sendall(data)

    def _next(self) -> Frame:
        while not self._inbox:
            self._read()
        return self._inbox.popleft()

    def _next_or_wakeup(self, system: System) -> Frame | None:
        """The next frame, or None when one of the actor's wake-ups is due first."""
        while not self._inbox:
            timeout = system.next_wakeup()
            if timeout is not None and not select.select([self._socket], [], [], max(0.0, timeout))[0]:
                return None
            self._read()
        return self._inbox.popleft()

    def _read(self) -> None:
        data = self._socket.recv(_READ)
        if not data:
            raise _HostGone
        for frame in self._decoder.feed(data):
            if frame.kind is Kind.REPLY or (frame.kind is Kind.ERROR and frame.correlation):
                self._answers[frame.correlation] = frame
            elif frame.kind is Kind.PING:
                self._send(Frame(Kind.PING, correlation=frame.correlation))
            else:
                self._inbox.append(frame)


def error_text(frame: Frame) -> str:
    """An ERROR frame's sentence."""
    return str(CallError.decode(frame.body))


class _LogHandler(logging.Handler):
    """The actor's `logging` records, as log lines. Tracebacks leave in simulated mode only."""

    def __init__(self, loop: WorkerLoop, tracebacks: bool) -> None:
        super().__init__()
        self._loop = loop
        self._tracebacks = tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            source_lines.remember(record.exc_info[1])  # Thespian formats it as well
            if self._tracebacks:
                text += "\n" + source_lines.shown(record.exc_info[1])
            else:
                text += f" ({type(record.exc_info[1]).__name__})"
        self._loop.log(record.levelname.lower(), text)


class _Printed(io.TextIOBase):
    """Standard output of an actor: whole lines become log lines."""

    def __init__(self, loop: WorkerLoop) -> None:
        self._loop = loop
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._loop.log("info", line)
        if len(self._line) > MAX_LOG_LINE:
            self._loop.log("info", self._line)
            self._line = ""
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)


def run_worker(connection: socket.socket, seal: Callable[[], None] = lambda: None) -> int:
    """Serve one actor over `connection` until it ends; the process's exit code.

    `seal` is called when code was compiled and before it runs (kind wasm alone).
    """
    return WorkerLoop(connection, seal).run()
