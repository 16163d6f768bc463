"""What comes in one read is judged as if it came frame by frame: no shortcut lets a call through that stands alone
would be refused. Rule: docs/architecture.md, "Rights" and "What goes out together".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, FrameDecoder, Kind, encode_frame
from tea.protocol.sticky import KEY_BYTES
from tea.runtime.in_flight import KEPT_BODY, HostOrigin, Pending
from tea.runtime.links import Grant
from tea.runtime.poison import CRASHES
from tea.runtime.replicas import ReplicaGroup
from tea.runtime.rights import MAX_ARGUMENTS
from tea.runtime.router import Router
from tea.runtime.worker_port import WorkerPort

LIMIT = 6
MAILBOX = 4
WAITED, ABANDONED, UNKNOWN = 9, 10, 11
"""Causes: a call that the parent waits for, one that nobody waits for any more, and one that was never given."""
POISON = b"\x91\xa6poison"


class Pipe(asyncio.Transport):
    """Keeps all that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.frames += self.decoder.feed(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        return


@dataclass
class Enclave:
    """A caller with links of every kind, its callees, and what was written to each."""

    router: Router
    ports: dict[str, WorkerPort] = field(default_factory=dict)
    pipes: dict[str, Pipe] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, links: dict[int, Grant], replica: int = 0) -> None:
        group = self.router.groups.setdefault(name, ReplicaGroup(name))
        port = WorkerPort(
            self.router, group, replica, bundle_digest=bytes(32), links=links, in_flight_limit=LIMIT, mailbox=MAILBOX,
            kvp_bytes=0, note=lambda port, level, text: self.notes.append(text),
        )  # fmt: skip
        pipe = Pipe()
        port.connection_made(pipe)
        port.operation_numbers = {"note": 0, "mark": 1}
        port.open = True
        group.ports.append(port)
        self.ports[f"{name}#{replica}"], self.pipes[f"{name}#{replica}"] = port, pipe

    def seen(self) -> dict[str, object]:
        """Everything that anybody could tell it by."""
        caller = self.ports["caller#0"]
        return {
            # Whoever is cut off gets what was written before, and no more.
            "written": {name: pipe.frames for name, pipe in self.pipes.items() if self.ports[name].violated is None},
            "figures": self.router.figures,
            "groups": {name: group.figures for name, group in self.router.groups.items()},
            "in hand": {
                name: [
                    (number, one.correlation, one.caller, one.chain, one.operation, one.body, one.cause)
                    for number, one in port.delivered.items()
                ]
                for name, port in self.ports.items()
            },
            "waiting": sorted(caller.outgoing),
            "violated": caller.violated,
            "notes": self.notes,
        }


def enclave() -> Enclave:
    loop = asyncio.get_running_loop()
    router = Router(loop, lambda what, error: None)
    made = Enclave(router)
    both = ("note", "mark")
    links = {
        1: Grant(1, "work", "caller", "work", both),
        2: Grant(2, "asked", "caller", "work", both, behind=frozenset({"parent"})),
        3: Grant(3, "cut", "caller", "work", both, revoked=frozenset({1})),
        4: Grant(4, "many", "caller", "many", both),
        5: Grant(5, "kept", "caller", "work", both, sticky="key"),
        6: Grant(6, "gone", "caller", "gone", both),
        7: Grant(7, "itself", "caller", "caller", both),
        8: Grant(8, "less", "caller", "less", ("note", "other")),
        10: Grant(10, "roomy", "caller", "roomy", both),
    }
    made.add("caller", links)
    made.add("work", {})
    made.add("less", {})
    made.add("roomy", {})
    made.ports["roomy#0"].mailbox = 4 * LIMIT
    for replica in range(2):
        made.add("many", {}, replica)
    book = router.groups["less"].poison
    for _ in range(CRASHES):
        book.ended_with("note", POISON)
    caller = made.ports["caller#0"]
    for number in (WAITED, ABANDONED):
        future = loop.create_future()
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        origin = HostOrigin("parent", future) if number == WAITED else None
        caller.delivered[number] = Pending(number, Kind.CALL, origin, 1, "parent", (), caller, "go", b"\x90", None, 0)
    return made


def frames() -> st.SearchStrategy[Frame]:
    bodies = st.sampled_from([b"\x90", b"\x91\x01", POISON, bytes(KEY_BYTES) + b"\x90", bytes(KEPT_BODY + 1)])
    sent = st.builds(
        Frame,
        st.sampled_from([Kind.CALL] * 6 + [Kind.TELL]),
        st.sampled_from([0] * 30 + [1]),
        operation=st.sampled_from([0, 0, 0, 1, 2]),
        link=st.integers(1, 10),
        correlation=st.integers(0, 12),
        cause=st.sampled_from([0, 0, WAITED, WAITED, ABANDONED, UNKNOWN]),
        deadline=st.sampled_from([0, 1000]),
        body=bodies,
    )
    answers = st.builds(
        lambda kind, cause: Frame(kind, correlation=cause, body=CallError(Code.INTERNAL, "no").encode()),
        st.sampled_from([Kind.REPLY, Kind.ERROR]),
        st.sampled_from([WAITED, ABANDONED, UNKNOWN]),
    )
    return st.one_of(sent, sent, sent, answers)


def runs() -> st.SearchStrategy[list[Frame]]:
    """Some of them the same call again and again, as a run is."""
    again = st.tuples(frames(), st.integers(1, LIMIT)).map(lambda one: [one[0]] * one[1])
    return (
        st.lists(again, min_size=1, max_size=6)
        .map(lambda parts: [frame for part in parts for frame in part][: 2 * LIMIT])
        .map(_numbered)
    )


def _numbered(run: list[Frame]) -> list[Frame]:
    # Calls with a correlation below 10 get one of their own, so that most runs are not cut off at the second call.
    return [
        frame._replace(correlation=20 + place) if frame.kind is Kind.CALL and 0 < frame.correlation < 10 else frame
        for place, frame in enumerate(run)
    ]


CALL = Frame(Kind.CALL, link=1, correlation=1, body=b"\x90")


async def outcome(run: list[Frame], *, together: bool) -> dict[str, object]:
    made = enclave()
    data = [encode_frame(frame) for frame in run]
    for piece in [b"".join(data)] if together else data:
        made.ports["caller#0"].data_received(piece)
    await asyncio.sleep(0)
    return made.seen()


@given(run=runs())
@example(run=_numbered([CALL] * LIMIT))
@example(run=_numbered([CALL._replace(link=2, cause=WAITED)] * 3 + [CALL._replace(link=2)]))
@example(
    run=_numbered(
        [CALL._replace(cause=WAITED), Frame(Kind.REPLY, correlation=WAITED, body=b"\xc0"), CALL._replace(cause=WAITED)]
    )
)
@example(run=_numbered([CALL._replace(link=3), CALL._replace(link=3, operation=1)]))
@example(run=_numbered([CALL._replace(link=8), CALL._replace(link=8, body=POISON)]))
@example(run=_numbered([CALL, CALL._replace(link=2)]))
@example(run=_numbered([CALL._replace(link=4)] * (LIMIT + 2)))
@example(run=_numbered([CALL._replace(link=10)] * (LIMIT + 2)))
@example(run=_numbered([CALL, CALL._replace(body=bytes(MAX_ARGUMENTS + 1))]))
@example(run=_numbered([CALL._replace(link=5, body=bytes(KEY_BYTES) + b"\x90")] * 3))
def test_frames_in_one_read_have_the_outcome_of_frames_alone(run: list[Frame]) -> None:
    together = asyncio.run(outcome(run, together=True))
    alone = asyncio.run(outcome(run, together=False))
    assert together == alone


async def test_a_run_takes_the_short_way_and_forgets_it() -> None:
    made = enclave()
    caller = made.ports["caller#0"]
    caller.data_received(b"".join(encode_frame(frame) for frame in _numbered([CALL] * 3)))
    assert caller.route is not None  # this read's; the next one begins without it
    caller.data_received(encode_frame(CALL._replace(correlation=90, link=9)))
    assert caller.route is None
    error = CallError.decode(made.pipes["caller#0"].frames[-1].body)
    assert error.code is Code.DENIED


@pytest.mark.parametrize("change", ["cut", "closed"])
async def test_what_changes_between_two_reads_holds_from_the_first_frame_of_the_second(change: str) -> None:
    made = enclave()
    caller = made.ports["caller#0"]
    caller.data_received(b"".join(encode_frame(frame) for frame in _numbered([CALL] * 2)))
    if change == "cut":
        caller.links = {number: grant for number, grant in caller.links.items() if number != 1}
    else:
        made.ports["work#0"].open = False
    before = len(made.pipes["work#0"].frames)
    caller.data_received(b"".join(encode_frame(CALL._replace(correlation=number)) for number in (70, 71)))
    assert len(made.pipes["work#0"].frames) == before
    codes = [CallError.decode(frame.body).code for frame in made.pipes["caller#0"].frames]
    assert codes == [Code.DENIED if change == "cut" else Code.UNAVAILABLE] * 2
