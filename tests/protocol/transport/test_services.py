"""Requests become tasks, and each call is answered exactly once: by its result, its refusal, or its deadline."""

from __future__ import annotations

import asyncio

import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind
from tea.protocol.operations import operation
from tea.protocol.session import Role, Session
from tea.protocol.transport.figures import Figures
from tea.protocol.transport.services import NO_ANSWER, Request, Services
from tea.protocol.transport.settings import Settings


class Queue:
    """A service whose requests end when they are told to."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    @operation
    async def stubborn(self, number: int) -> None:
        self.started.append(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise CallError(Code.CONFLICT, "I had to stop") from None

    @operation
    async def take(self, number: int) -> int:
        self.started.append(number)
        gate = self.gates[number] = asyncio.Event()
        await gate.wait()
        return number


class Recorder:
    """The endpoint's place: keeps what it is given."""

    def __init__(self) -> None:
        self.answers: list[Frame] = []
        self.consumed_frames: list[Frame] = []
        self.room = asyncio.Event()
        self.room.set()
        self.changed = asyncio.Event()

    def answer(self, session: Session, frame: Frame) -> asyncio.Future[bytes]:
        self.answers.append(frame)
        self.changed.set()

        async def when_there_is_room() -> bytes:
            await self.room.wait()
            return NO_ANSWER

        return asyncio.ensure_future(when_there_is_room())

    def consumed(self, session: Session, frame: Frame) -> None:
        self.consumed_frames.append(frame)
        self.changed.set()

    async def until(self, answers: int, consumed: int) -> None:
        while len(self.answers) < answers or len(self.consumed_frames) < consumed:
            self.changed.clear()
            await self.changed.wait()


def call(number: int, name: str = "take", deadline: int = 0) -> Request:
    op = 0 if name == "stubborn" else 1
    expires = asyncio.get_running_loop().time() + deadline / 1000 if deadline else None
    body = b"\x91" + number.to_bytes(1, "big")
    return Request(
        Frame(Kind.CALL, 0, op, 1, number + 1, 0, deadline, body), expires, Session(Role.LISTENER, bytes(16))
    )


@pytest.fixture
async def desk() -> tuple[Services, Recorder, Queue]:
    recorder, queue = Recorder(), Queue()
    services = Services(Settings(handlers=2), Figures(), recorder)
    services.serve(1, Queue, queue)
    return services, recorder, queue


Desk = tuple[Services, Recorder, Queue]


async def test_requests_start_in_order_and_at_most_so_many_at_once(desk: Desk) -> None:
    services, recorder, queue = desk
    for number in range(5):
        services.request(call(number))
    await asyncio.sleep(0)
    assert queue.started == [0, 1]
    queue.gates[1].set()
    await recorder.until(1, 1)
    while 2 not in queue.gates:
        await asyncio.sleep(0)
    assert queue.started == [0, 1, 2]
    for number in (0, 2, 3, 4):
        while number not in queue.gates:
            await asyncio.sleep(0)
        queue.gates[number].set()
    await recorder.until(5, 5)
    assert sorted(frame.correlation for frame in recorder.answers) == [1, 2, 3, 4, 5]
    assert {frame.kind for frame in recorder.answers} == {Kind.REPLY}


async def test_a_deadline_that_passes_is_answered_and_the_operation_cancelled(desk: Desk) -> None:
    services, recorder, _ = desk
    services.request(call(0, deadline=1))
    await recorder.until(1, 1)
    (answer,) = recorder.answers
    error = CallError.decode(answer.body)
    assert (answer.kind, error.code, error.sentence) == (Kind.ERROR, Code.DEADLINE, "take did not finish in time")


async def test_a_deadline_that_passed_while_the_request_waited_is_answered_too(desk: Desk) -> None:
    services, recorder, queue = desk
    services.request(call(0))
    services.request(call(1))
    services.request(call(2, deadline=1))
    await asyncio.sleep(0.005)
    queue.gates[0].set()
    await recorder.until(2, 2)
    assert CallError.decode(recorder.answers[1].body).code is Code.DEADLINE
    queue.gates[1].set()
    await recorder.until(3, 3)


async def test_an_operation_may_refuse_instead_when_its_time_is_over(desk: Desk) -> None:
    services, recorder, _ = desk
    services.request(call(0, "stubborn", deadline=1))
    await recorder.until(1, 1)
    assert CallError.decode(recorder.answers[0].body).sentence == "I had to stop"


async def test_a_requests_room_is_given_back_when_its_answer_is_on_its_way_and_not_before(desk: Desk) -> None:
    services, recorder, queue = desk
    recorder.room.clear()
    services.request(call(0))
    await asyncio.sleep(0)
    queue.gates[0].set()
    await recorder.until(1, 0)
    await asyncio.sleep(0)
    assert recorder.consumed_frames == []
    assert len(services.tasks) == 1
    recorder.room.set()
    await recorder.until(1, 1)


async def test_when_the_peer_is_gone_what_waits_is_forgotten_and_what_runs_is_cancelled(desk: Desk) -> None:
    services, recorder, queue = desk
    for number in range(5):
        services.request(call(number))
    await asyncio.sleep(0)
    tasks = services.tasks
    services.cancel()
    await asyncio.wait(tasks)
    assert queue.started == [0, 1]
    assert len(recorder.answers) == 2
    assert not services.tasks


async def test_serving_what_lacks_an_operation_is_a_defect_that_shows_at_once(desk: Desk) -> None:
    services, _, _ = desk
    with pytest.raises(AttributeError):
        services.serve(2, Queue, object())
