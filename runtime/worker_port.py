"""One worker's socket, seen from the host: frames in, frames out, limits, and who may be called.

May not: trust anything that comes out of it. A frame that is none, or that a worker may not send, ends this worker
and nobody else. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, Flag, Frame, FrameDecoder, FrameError, Kind, encode_frame
from tea.protocol.operations import OperationDescription

from .declared import declared
from .in_flight import Pending, UnderWay
from .lanes import Lane
from .links import Grant
from .loop_time import LoopTime
from .poison import CRASHES
from .refusals import DEBT_LIMIT, DROPPED_FRAME, HOLD_SECONDS, REFUSED_FRAME, REST_TURNS, Debt
from .replicas import ReplicaGroup
from .router import Route, Router
from .worker.window import is_due, unit_of
from .worker.wire import CHUNK, CONTROL_LINK, MAX_LOG_LINE, LogLine, Ready, Welcome

UNSENT_LIMIT: Final = 8 << 20
"""Bytes that may wait for a worker that does not read; beyond it calls to it are refused."""
JOINED_SIZE: Final = 16 << 10
JOINED_FRAMES: Final = 256
"""Smaller frames, and up to so many, are joined into one write."""
UNREAD_LIMIT: Final = 64 << 20
"""Bytes that may wait for a worker that goes on calling and reads no answer: the host's memory is not its."""
LOG_LINES_PER_SECOND: Final = 200
_TOO_MANY_LINES: Final = f"more than {LOG_LINES_PER_SECOND} printed lines a second"
_CALL: Final = Kind.CALL
_REPLY: Final = Kind.REPLY
_CONTEXT: Final = int(Flag.CONTEXT)

Note = Callable[["WorkerPort", str, str], None]


class _Gone(asyncio.Transport):
    """Where a worker's socket was, or is not yet: nothing goes through, and nobody has to ask."""

    def write(self, data: object) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        return

    def is_closing(self) -> bool:
        return True


_GONE: Final = _Gone()


class WorkerPort(asyncio.Protocol):
    """The host's end of one replica's socketpair."""

    def __init__(
        self,
        router: Router,
        group: ReplicaGroup,
        replica: int,
        *,
        bundle_digest: bytes,
        links: dict[int, Grant],
        in_flight_limit: int,
        mailbox: int,
        kvp_bytes: int,
        note: Note,
        lanes: Sequence[Lane] = (),
        prompt: bool = False,
    ) -> None:
        self.name = group.name
        self.group = group
        self.replica = replica
        self.bundle_digest = bundle_digest
        self.links = links
        self.in_flight_limit = in_flight_limit
        self.mailbox = mailbox
        self.kvp_bytes = kvp_bytes
        self.lanes = lanes
        """Its direct ways to and from other workers, spares included."""
        self.prompt = prompt
        """Whether it was told to send each answer before it begins the next call."""
        self.unsent_limit = UNSENT_LIMIT
        self.open = False
        """Whether calls are given to it: after HELLO, until drain or loss."""
        self.retiring = False
        """Whether its end is the host's own doing: then nothing that it had in hand is to blame."""
        self.outgoing: dict[int, UnderWay] = {}
        """Its calls that wait for their answer, by correlation."""
        self.unit = unit_of(in_flight_limit)
        """Bytes of arguments that are one unit of its windows."""
        self.parked: dict[int, int] = {}
        """Units that wait for a place in somebody's mailbox: calls under 0, messages under the number of their link."""
        self._owed: dict[int, int] = {}
        """Units of messages by link that are settled, and not yet credited."""
        self.delivered: dict[int, Pending] = {}
        self.operation_numbers: dict[str, int] = {}
        self.descriptions: tuple[OperationDescription, ...] = ()
        self._told: dict[int, tuple[OperationDescription, ...]] = {}
        """What the worker knows of its links' operations."""
        self.violated: str | None = None
        self._router = router
        self._note = note
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport = _GONE
        loop = router.loop
        self.ready: asyncio.Future[Ready] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._log_window = 0.0
        self._log_lines = 0
        self._log_dropped = 0
        self._debt = Debt()
        self.loop_time = LoopTime(self._debt, router.loop.call_later, lambda: router.heard)
        """What its calls to providers take of the host's loop."""
        self.route: Route | None = None
        """Where its call before this one went, within one read and with nothing else in between."""
        self.calls_at_once = 0
        """Calls in what was read last. An actor within its limit has at most that many, and as many whose answers were
        under way when it sent them."""
        self._corked: list[bytes] = []
        """What is written when the frames that came in one piece are handled (`cork.py`)."""
        self._held: list[Frame] = []
        """Frames that wait until the worker's debt is forgiven; it is not read meanwhile."""

    # -- asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.violation(f"a malformed frame: {error}")
            return
        self.calls_at_once = 0
        self._router.hears(self)
        self._require_reader()
        if self.violated is not None:
            return
        if self._held:
            self._held.extend(frames)
        elif len(frames) == 1:
            self._take(iter(frames))
        else:
            self._take_corked(frames)

    def _require_reader(self) -> None:
        if self._transport.get_write_buffer_size() > UNREAD_LIMIT:
            self.violation(f"it does not read its answers: {UNREAD_LIMIT >> 20} MiB wait")

    def _take_corked(self, frames: list[Frame]) -> None:
        cork = self._router.cork
        cork.on = True
        try:
            self._take(iter(frames))
        finally:
            cork.pull()

    def _take(self, frames: Iterator[Frame]) -> None:
        router, debt = self._router, self._debt
        self.route = None
        self.loop_time.at_once = 0.0
        for frame in frames:
            if self.violated is not None:
                return
            if debt.units >= DEBT_LIMIT:
                self._hold([frame, *frames])
                return
            kind, flags = frame[0], frame[1]
            if kind is _CALL and not flags:
                router.call_from(self, frame)
                continue
            self.route = None  # it may change what the calls before it were let through by
            if flags:
                self.violation("it set flags, which are the router's")
            elif kind is _REPLY:
                router.answer_from(self, frame)
            elif kind is Kind.CREDIT or frame.link:
                router.frame_from(self, frame)
            else:
                self._own_frame(frame)
        if debt.lapses:
            debt.forgive()
        if self._decoder.error is not None:
            self.violation(f"a malformed frame: {self._decoder.error}")

    def _hold(self, frames: list[Frame]) -> None:
        """Leave these frames, and the socket, unread for a while: too many came to nothing, or took too long."""
        self._held = frames
        if self._debt.why:
            self.refused(self._debt.why)
        if not self._transport.is_closing():
            self._transport.pause_reading()
        if self._debt.rests:
            self._router.busy.make_room()
            self._let_others(REST_TURNS, time.monotonic() + self._debt.seconds)
        else:
            self._router.loop.call_later(HOLD_SECONDS, self._resume)

    def _let_others(self, turns: int, until: float) -> None:
        """Go on after so many turns of the loop, and at that time. A timer would do, but counts in milliseconds."""
        if turns > 0 or time.monotonic() < until:
            self._router.loop.call_soon(self._let_others, turns - 1, until)
        else:
            self._resume()

    def _resume(self) -> None:
        self._debt.forgive()
        frames, self._held = self._held, []
        if self.lost.done():
            return
        self._take_corked(frames)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._transport = _GONE
        self._held = []
        self._router.port_lost(self, self.violated or "its process ended")
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.violated or f"{self.name} ended before it was ready"))
            self.ready.exception()
        if not self.lost.done():
            self.lost.set_result(None)

    # -- what the worker says of itself ------------------------------------------------------------------------

    def _own_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.ERROR and frame.correlation:
            self._router.frame_from(self, frame)
        elif frame.kind is Kind.HELLO:
            self._hello(frame)
        elif frame.kind is Kind.ERROR and not self.ready.done():
            self.ready.set_exception(CallError.decode(frame.body))
            self.ready.exception()
        elif frame.kind is Kind.TELL:
            self._log_line(frame)
        elif frame.kind is Kind.PING or frame.kind is Kind.BYE:
            self._debt.add(DROPPED_FRAME, time.monotonic())
        else:
            self.violation(f"a worker may not send {frame.kind.name} on link 0")

    def _hello(self, frame: Frame) -> None:
        if self.ready.done():
            self.violation("a second HELLO")
            return
        try:
            ready = declared(frame.body)
        except ValueError as error:
            self.violation(f"a HELLO {error}")
            return
        self.descriptions = ready.operations
        self.operation_numbers = {description.name: number for number, description in enumerate(ready.operations)}
        self.ready.set_result(ready)

    def _log_line(self, frame: Frame) -> None:
        now = time.monotonic()
        if now - self._log_window >= 1.0:
            if self._log_dropped:
                self._note(self, "warning", f"{self._log_dropped} printed lines were dropped")
            self._log_window, self._log_lines, self._log_dropped = now, 0, 0
        self._log_lines += 1
        if self._log_lines > LOG_LINES_PER_SECOND:
            self._log_dropped += 1
            self._debt.add(DROPPED_FRAME, now)
            self.refused(_TOO_MANY_LINES)
            return
        self._debt.add(len(frame.body) >> 10, now)  # a line is cut, but it was decoded whole
        try:
            line = msgspec.msgpack.decode(frame.body, type=LogLine)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.violation(f"a log line that is none: {error}")
            return
        self._note(
            self,
            line.level if line.level in ("debug", "info", "warning", "error") else "info",
            line.text[:MAX_LOG_LINE],
        )

    # -- what the host does ------------------------------------------------------------------------------------

    def welcome(self, welcome: Welcome, bundle: bytes) -> None:
        """Send the identity, the links and the bundle."""
        self._told = {link.number: link.operations for link in welcome.links}
        self.send(Frame(Kind.HELLO, Flag.MORE, body=msgspec.msgpack.encode(welcome)))
        for start in range(0, len(bundle), CHUNK):
            more = Flag.MORE if start + CHUNK < len(bundle) else Flag.NONE
            self.send(Frame(Kind.HELLO, more, body=bundle[start : start + CHUNK]))

    def describe(self, declared: Mapping[str, Mapping[str, OperationDescription]], *, direct: bool = True) -> None:
        """Tell the worker what its links' targets declare now, where that is something else than it was told.

        `direct` False: leave out the direct links.
        """
        for grant in self.links.values():
            if grant.target not in declared or (grant.direct and not direct):
                continue
            operations = grant.describe(declared).operations
            if operations != self._told.get(grant.number):
                self._told[grant.number] = operations
                self.send(Frame(Kind.HELLO, link=grant.number, body=msgspec.msgpack.encode(operations)))

    def send(self, frame: Frame) -> None:
        """Write a frame; nothing happens when the worker is gone (its calls are answered by `port_lost`)."""
        self._write(encode_frame(frame))

    def _write(self, data: bytes) -> None:
        cork = self._router.cork
        corked = self._corked
        if not cork.on:
            self._transport.write(data)
        elif len(data) >= JOINED_SIZE or len(corked) >= JOINED_FRAMES:
            self._transport.write(b"".join((*corked, data)))
            corked.clear()
        else:
            if not corked:
                cork.ports.append(self)
            corked.append(data)

    def write_corked(self) -> None:
        """Write what was kept back while frames that came in one piece were handled."""
        if self._corked:
            self._transport.write(b"".join(self._corked))
            self._corked.clear()

    def deliver(self, kind: Kind, number: int, correlation: int, deadline: int, body: bytes) -> None:
        """Give the worker a call or a message, whose body starts with the context. The path that has to be short."""
        self._write(HEADER.pack(len(body), kind, _CONTEXT, number, 0, correlation, 0, deadline) + body)

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        """`Origin`: the one answer to a call of this worker."""
        self.outgoing.pop(correlation, None)
        self._write(HEADER.pack(len(body), kind, 0, 0, CONTROL_LINK, correlation, 0, 0) + body)
        if len(body) >= JOINED_SIZE:  # of smaller ones one read sets off too few to matter
            self._require_reader()

    def number_of(self, operation: str, body: bytes) -> int:
        """An operation's number. Raises `CallError` when there is none, or when this very message is set aside."""
        number = self.operation_numbers.get(operation)
        if number is None:
            has = ", ".join(self.operation_numbers) or "none"
            raise CallError(Code.NOT_FOUND, f"{self.name} has no operation {operation}: it has {has}")
        poison = self.group.poison
        if poison.set_aside and poison.refuses(operation, body):
            raise CallError(
                Code.INVALID,
                f"this very message ended {self.name} {CRASHES} times and is set aside: mend {self.name}.{operation}, "
                "or the message",
            )
        return number

    def use(self, lane: int) -> None:
        """Tell the worker that the lane which is this descriptor of it may be used from now on."""
        self.send(Frame(Kind.HELLO, body=msgspec.msgpack.encode(lane)))

    @property
    def blames(self) -> bool:
        """Whether what it has in hand when it ends is known here, and to blame."""
        return not any(lane.live and lane.leads_to(self.name) for lane in self.lanes)

    def blame(self, first: Pending) -> None:
        """It ended, unasked, with this call or message in hand."""
        key = None if first.body is None else self.group.poison.ended_with(first.operation, first.body)
        if key is not None:
            self.note(
                "error",
                f"a call of {first.operation} by {first.caller} ended {self.name} {CRASHES} times and is set aside: "
                f"sha256:{key.hex()}",
            )

    def withdraw(self, number: int) -> None:
        """Tell the worker that nobody waits for this call any more."""
        self._write(HEADER.pack(0, Kind.BYE, 0, 0, CONTROL_LINK, number, 0, 0))

    def settle(self, link: int, size: int) -> None:
        """A message of it, with arguments of `size` bytes, is in a mailbox or lost: its window has room again."""
        owed = self._owed.get(link, 0) + 1 + size // self.unit
        if is_due(owed, self.in_flight_limit):
            self.send(Frame(Kind.CREDIT, link=link, correlation=owed))
            owed = 0
        self._owed[link] = owed

    def note(self, level: str, text: str) -> None:
        """A log record about this worker."""
        self._note(self, level, text)

    def refused(self, what: str) -> None:
        """Its code tried what it may not: counted by name, and said in the log the first time."""
        if self.group.refusals.count(what):
            self._note(self, "warning", f"{self.name}#{self.replica} was refused {what}")

    def spent(self, size: int) -> None:
        """One of its frames, with a body of `size` bytes, came to nothing: the host's time for such is bounded."""
        self._debt.add(REFUSED_FRAME + (size >> 10), time.monotonic())

    def violation(self, what: str) -> None:
        """The worker broke the protocol: cut it off. The supervisor sees the loss and kills the process."""
        if self.violated is None:
            self.violated = f"broke the protocol: {what}"
            self._note(self, "error", f"{self.name}#{self.replica} {self.violated}")
        self.abort()

    def abort(self) -> None:
        """Close the socket now."""
        self.open = False
        transport, self._transport = self._transport, _GONE
        transport.abort()

    @property
    def unsent(self) -> int:
        """Bytes that the worker has not read."""
        return self._transport.get_write_buffer_size()
