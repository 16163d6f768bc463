"""The loop of a worker that has lanes: calls straight to other workers and straight from them, beside the host's.

May not: be the loop of a worker without lanes, which pays nothing for them. One call at a time, fair turns between the
host and the lanes; what does not fit a lane goes by the host. Rule: docs/architecture.md, "Direct links".
"""

from __future__ import annotations

import collections
import contextlib
import functools
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import HEADER, Kind
from tea.sdk import binding
from tea.sdk.system import System

from .lane import MAX_ARGUMENTS, Incoming, LaneBroken, Outgoing, age_ms
from .loop import CALL_SECONDS, ActorExited, WorkerLoop, nobody_waits
from .sender import HELD_BYTES, QUICK_SECONDS
from .wire import LaneEnd, Welcome

LINGER_SECONDS: Final = 1.0
"""How long a worker that is to end waits for callers that do not read their answers."""


class DirectLoop(WorkerLoop):
    """`WorkerLoop`, with lanes. Each is used from the moment on in which the host says so; until then it is a spare."""

    def __init__(
        self,
        connection: socket.socket,
        lanes: Sequence[socket.socket],
        seal: Callable[[], None] = lambda: None,
        system: System | None = None,
    ) -> None:
        super().__init__(connection, seal, system)
        self._lanes = lanes
        self._spares: dict[int, LaneEnd] = {}
        """Lanes that the host has not said to use, by descriptor."""
        self._outgoing: dict[int, list[Outgoing]] = {}
        """By link; a link whose lanes have all ended has none, and its calls go by the host as any other's."""
        self._turns: collections.deque[Incoming | None] = collections.deque([None])
        """The lanes where calls come in, and the host (None), in the order of their turns."""
        self._asked: dict[int, tuple[Incoming, int]] = {}
        """Lanes by descriptor, and what `poll` was asked for."""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    # -- as a caller -------------------------------------------------------------------------------------------

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        """See `WorkerLoop.call`."""
        if link in self._outgoing:
            sent = self._send_direct(link, operation, body, timeout)
            if sent is not None:
                return self._answer_of(*sent)
        return super().call(link, operation, body, timeout)

    def begin(self, link: int, operation: int, body: bytes, timeout: float | None) -> Callable[[], bytes]:
        """See `WorkerLoop.begin`."""
        if link in self._outgoing:
            sent = self._send_direct(link, operation, body, timeout)
            if sent is not None:
                return functools.partial(self._answer_of, *sent)
        return super().begin(link, operation, body, timeout)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """See `tea.sdk.together`."""
        try:
            with super().together():
                yield
        finally:
            if not self._out.gathers:
                self._flush()

    def _flush(self) -> None:
        super()._flush()
        for lanes in self._outgoing.values():
            for lane in lanes:
                lane.flush()

    def _send_direct(
        self, link: int, operation: int, body: bytes, timeout: float | None
    ) -> tuple[Outgoing, int, float] | None:
        """Send a call by a lane: the lane, its correlation, and until when to wait. None: it has to go by the host."""
        size = len(body)
        if size > MAX_ARGUMENTS:
            return None
        now = time.monotonic()
        seconds = CALL_SECONDS if timeout is None else timeout
        if self._deadline_at is not None:
            seconds = min(seconds, self._deadline_at - now)
            if seconds <= 0:
                raise nobody_waits()
        lane = self._choose(link, size)
        if lane is None:
            return None
        correlation = self._next_call = self._next_call % 0xFFFFFFFF + 1
        milliseconds = min(max(1, int(seconds * 1000)), 0xFFFFFFFF)
        if lane.send(correlation, operation, milliseconds, body, hold=self._out.gathers):
            return lane, correlation, now + seconds
        return None

    def _choose(self, link: int, size: int) -> Outgoing | None:
        """The lane with the fewest bytes under way, if it has room."""
        lanes = self._outgoing[link]
        lane = lanes[0] if len(lanes) == 1 else min(lanes, key=_load)
        if lane.has_room(size, self._window):
            return lane
        for other in lanes:  # what was answered meanwhile, and waited for by nobody
            other.flush()
            self._take_answers(other)
        # Answers that are still to come by a lane that is not open any more are waited for by whoever began the calls.
        lanes[:] = [other for other in lanes if other.open]
        if not lanes:
            del self._outgoing[link]
            return None
        lane = min(lanes, key=_load)
        return lane if lane.has_room(size, self._window) else None

    def _answer_of(self, lane: Outgoing, correlation: int, until: float) -> bytes:
        self._flush()
        while True:
            answer = lane.answers.pop(correlation, None)
            if answer is not None:
                if answer.kind is Kind.REPLY:
                    return answer.body
                raise CallError.decode(answer.body)
            if lane.ended:
                raise CallError(
                    Code.UNAVAILABLE, f"the lane to {lane.name} ended while it had this call in hand: ask again"
                )
            at = until if self._deadline_at is None else min(until, self._deadline_at)
            left = at - time.monotonic()
            if left <= 0:
                lane.abandoned.add(correlation)
                if at < until:
                    raise nobody_waits()
                raise CallError(Code.DEADLINE, f"{lane.name} did not answer in time")
            for descriptor, _events in self._for_answers.wait(lane.poll, left):
                if descriptor == 0:
                    self._read()  # perhaps nobody waits for the call in hand any more
                else:
                    self._take_answers(lane)

    def _take_answers(self, lane: Outgoing) -> None:
        try:
            lane.take_answers()
        except LaneBroken as broken:
            self._break(lane, broken)

    def _break(self, lane: Incoming | Outgoing, broken: LaneBroken) -> None:
        lane.cut()
        self.log("warning", f"the lane {'from' if isinstance(lane, Incoming) else 'to'} {lane.name} was cut: {broken}")

    # -- as a callee -------------------------------------------------------------------------------------------

    def _start(self, welcome: Welcome, bundle: bytes) -> System | None:
        self._spares = {told.descriptor: told for told in welcome.lanes}
        return super()._start(welcome, bundle)

    def _serve(self, system: System, welcome: Welcome) -> None:
        turns, leaving = self._turns, False
        while True:
            self._ask()
            due = bool(self._inbox) or any(lane is not None and lane.is_due for lane in turns)
            if leaving and not due and len(turns) == 1:
                return
            timeout = 0.0 if due else LINGER_SECONDS if leaving else system.next_wakeup()
            heard = self._look(timeout)
            if not (heard or due):
                if leaving:
                    return
                self._cause = 0
                system.pump()
                if not system.alive:
                    return
                continue
            source = _next_with_mail(turns, bool(self._inbox))
            turns.remove(source)
            turns.append(source)
            if source is not None:
                self._answer(system, source, welcome)
            elif self._inbox:
                frame = self._inbox.popleft()
                if frame.kind is Kind.CALL or frame.kind is Kind.TELL:
                    self._handle(system, frame, welcome)
                elif frame.kind is Kind.BYE:
                    # The host has shut the lanes before it said so: what is queued there was sent in time.
                    leaving = True
                    if len(turns) == 1:
                        return
                elif frame.kind is Kind.HELLO:
                    self._open_lane(msgspec.msgpack.decode(frame.body, type=int))

    def _open_lane(self, descriptor: int) -> None:
        told, connection = self._spares.pop(descriptor), self._lanes[descriptor - 1]
        if not told.operations:
            # The lane before it to the same replica has ended; who waits for answers there has it in hand.
            others = [one for one in self._outgoing.get(told.link, ()) if one.told.replica != told.replica]
            self._outgoing[told.link] = [*others, Outgoing(connection, told, self._socket)]
            return
        lane = Incoming(connection, told)
        declared = {operation.description.name: operation for operation in self._operations}
        lane.granted = tuple(declared.get(name) for name in told.operations)
        self._turns.append(lane)
        self._asked[descriptor] = lane, select.POLLIN
        self._poll.register(connection, select.POLLIN)

    def _ask(self) -> None:
        """Take leave of lanes that have ended, and ask `poll` for what the others want."""
        for descriptor, (lane, asked) in list(self._asked.items()):
            wanted = lane.wants()
            if lane.ended and not lane.mail and lane.unsent is None:
                self._poll.unregister(descriptor)
                del self._asked[descriptor]
                self._turns.remove(lane)
            elif wanted != asked:
                self._poll.modify(descriptor, wanted)
                self._asked[descriptor] = lane, wanted

    def _look(self, timeout: float | None) -> bool:
        """Read what there is, of the host and of each lane; wait at most `timeout` seconds. Whether there was any."""
        ready = self._for_calls.wait(self._poll, timeout)
        for descriptor, events in ready:
            if descriptor == 0:
                self._read()
                continue
            lane = self._asked[descriptor][0]
            try:
                lane.hear(events)
            except LaneBroken as broken:
                self._break(lane, broken)
        return bool(ready)

    def _answer(self, system: System, lane: Incoming, welcome: Welcome) -> None:
        """What came by a lane, in its turn: a call, and while they are quick and nobody else waits those behind it."""
        until = time.monotonic() + QUICK_SECONDS
        answers = self._perform(system, lane, welcome)
        alone = not self._inbox and not any(one.is_due for one in self._turns if one is not None and one is not lane)
        while (
            alone
            and lane.mail
            and self._name_of(lane) not in self._slow
            and system.idle
            and len(answers) < HELD_BYTES
            and time.monotonic() < until
        ):
            answers += self._perform(system, lane, welcome)
        lane.send(answers)
        system.pump()
        if not system.alive:
            raise ActorExited

    def _name_of(self, lane: Incoming) -> str:
        number = lane.mail[0].operation
        return lane.told.operations[number] if number < len(lane.told.operations) else ""

    def _perform(self, system: System, lane: Incoming, welcome: Welcome) -> bytes:
        """The answer to the lane's next call: handled as one of the host's, with nobody behind the caller."""
        name, began = self._name_of(lane), time.monotonic()
        _, _, number, sent, correlation, _, milliseconds, body = lane.mail.popleft()
        deadline: float | None = None
        kind, result = Kind.REPLY, b""
        try:
            if number >= len(lane.granted):
                raise CallError(Code.DENIED, f"{lane.caller} has no operation {number} on its link to this actor")
            operation = lane.granted[number]
            if operation is None:
                raise CallError(Code.NOT_FOUND, f"{welcome.identity.name} has no operation {name}")
            if milliseconds:
                deadline = (milliseconds - age_ms(sent)) / 1000
                if deadline <= 0:
                    raise nobody_waits()
                self._deadline_at = time.monotonic() + deadline
            result = binding.perform(system.instance, operation, body, lane.caller, (), deadline)
        except CallError as refusal:
            kind, result = Kind.ERROR, refusal.encode()
        self._deadline_at = None
        self._was_quick(name, began)
        return HEADER.pack(len(result), kind, 0, 0, 0, correlation, 0, 0) + result


def _load(lane: Outgoing) -> int:
    return lane.under_way


def _next_with_mail(turns: Iterable[Incoming | None], host_has_mail: bool) -> Incoming | None:
    """Whose turn it is: the first in the order that has a call to begin; None for the host."""
    for lane in turns:
        if lane is None:
            if host_has_mail:
                return None
        elif lane.is_due:
            return lane
    return None
