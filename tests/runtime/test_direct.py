"""Direct links: calls from worker to worker past the host, with its limits, its word on who calls, and its way to end
them at any moment.

Rule: docs/architecture.md, "Direct links".
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Frame, Kind, encode_frame
from tea.runtime.lanes import SPARES

Enclave = Any

WORK = """
import os, time
from tea.sdk import Actor, CallError, operation

class Work(Actor):
    def on_start(self) -> None:
        self.order = []

    @operation
    def echo(self, value: object) -> object:
        return value

    @operation
    def who(self, padding: bytes = b"") -> list[object]:
        return [self.caller, list(self.chain), self.deadline is not None]

    @operation
    def which(self, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        return self.replica

    @operation
    def mark(self, name: str) -> None:
        self.order.append(name)

    @operation
    def marks(self) -> list[str]:
        return self.order

    @operation
    def hold(self, seconds: float) -> str:
        print("holding")
        time.sleep(seconds)
        return "held"

    @operation
    def big(self, size: int) -> bytes:
        return bytes(size)

    @operation
    def die(self) -> None:
        os._exit(3)

    @operation
    def secret(self) -> str:
        return "not for the front"

    @operation(only_from=("parent",))
    def for_the_parent(self) -> str:
        return "for the parent"

    @operation
    def open_vault(self) -> str:
        try:
            return self.vault.open()
        except CallError as error:
            return error.code.name

    @operation
    def forge(self, data: bytes) -> str:
        os.write(1, data)
        return "forged"

    @operation
    def edition(self) -> str:
        return "one"
"""
FRONT = """
import os, time
from tea.sdk import Actor, CallError, operation, together

class Front(Actor):
    early = "none"

    def on_start(self) -> None:
        try:
            self.early = self.work.edition()
        except (AttributeError, CallError) as error:
            self.early = error.code.name if isinstance(error, CallError) else "no link"

    @operation
    def through(self, name: str, arguments: list[object]) -> object:
        return self.work[name](*arguments)

    @operation
    def refusal(self, name: str, arguments: list[object], seconds: float = 30.0) -> str:
        try:
            self.work.with_timeout(seconds)[name](*arguments)
        except CallError as error:
            return error.code.name
        return "none"

    @operation
    def many(self, name: str, arguments: list[object], count: int) -> list[object]:
        pending = [getattr(self.work.later, name)(*arguments) for _ in range(count)]
        return [one.result() for one in pending]

    @operation
    def at_once(self, name: str, arguments: list[object], count: int) -> list[object]:
        with together():
            pending = [getattr(self.work.later, name)(*arguments) for _ in range(count)]
            if count == 2:  # waiting within sends what was begun
                pending[0].result()
        return [one.result() for one in pending]

    @operation
    def in_turn(self, names: list[list[object]]) -> list[object]:
        with together():
            pending = [getattr(self.work.later, name)(*arguments) for name, *arguments in names]
        found = []
        for one in pending:
            one.result()
            found.append(time.monotonic())
        return found

    @operation
    def outcomes(self, name: str, arguments: list[object], count: int) -> dict[str, int]:
        found = {"answered": 0}
        begun = []
        for number in range(count):
            try:
                begun.append(getattr(self.work.later, name)(*arguments))
            except CallError as error:
                found[error.code.name] = found.get(error.code.name, 0) + 1
        for one in begun:
            try:
                one.result()
                found["answered"] += 1
                if found["answered"] == 1:
                    print("the first was answered")
            except CallError as error:
                found[error.code.name] = found.get(error.code.name, 0) + 1
        return found

    @operation
    def until_refused(self, seconds: float) -> list[object]:
        "Calls one after the other until one is refused: how many were answered, and the refusal."
        print("calling")
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            try:
                self.work.echo(count)
            except CallError as error:
                return [count, error.code.name]
            count += 1
        return [count, "none"]

    @operation
    def tell(self, name: str) -> None:
        self.work.tell.mark(name)

    @operation
    def link_number(self) -> int:
        return self.work._description.number

    @operation
    def raw(self, data: bytes, answers: int, descriptor: int = 1) -> list[bytes]:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view):]
        return [os.read(descriptor, 65536) for _ in range(answers)]

    @operation
    def early_edition(self) -> str:
        return self.early

    @operation
    def descriptors(self) -> dict[str, object]:
        import fcntl, socket
        found = {"open": [], "refused": []}
        for number in range(64):
            try:
                os.fstat(number)
                found["open"].append(number)
            except OSError:
                pass
        attempts = {
            "dup": lambda: os.dup(1),
            "fcntl": lambda: fcntl.fcntl(1, fcntl.F_DUPFD, 0),
            "socket": lambda: socket.socket(socket.AF_UNIX),
            "receive": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 1).recvmsg(1, 64),
            "again": lambda: (os.close(1), os.dup(0)),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
            except OSError as error:
                found["refused"].append(name)
        return found
"""
GRANTED = ("echo", "who", "which", "mark", "hold", "big", "die", "for_the_parent", "open_vault", "forge", "edition")
FRONT_OPERATIONS = (
    "through, refusal, many, at_once, in_turn, outcomes, until_refused, tell, link_number, raw, early_edition, "
    "descriptors"
)
WORK_OPERATIONS = "echo, who, mark, marks, hold, die, edition, secret"
QUICK = ", restart: {backoff_ms: 10, backoff_max_ms: 50}"
SOON = QUICK.replace("{", "{period_s: 1, ")
"""A worker that was started anew has its lanes again after a second."""


def links(*fronts: str, direct: str = "true", granted: tuple[str, ...] = GRANTED, more: str = "") -> str:
    lines = [f"  - {{from: parent, to: work, operations: [{WORK_OPERATIONS}]}}"]
    for front in fronts or ("front",):
        lines.append(f"  - {{from: parent, to: {front}, operations: [{FRONT_OPERATIONS}]}}")
        if granted:
            operations = ", ".join(granted)
            lines.append(f"  - {{from: {front}, to: work, operations: [{operations}], direct: {direct}}}")
    return "\n".join([*lines, more])


def build(enclave: Enclave, *fronts: str, asks: Any = None) -> None:
    enclave.bundle("work", WORK, "Work", capabilities=asks)
    for front in fronts or ("front",):
        enclave.bundle(front, FRONT, "Front", capabilities={"work": GRANTED})


async def push(enclave: Enclave, *fronts: str, revision: int = 1, actors: Any = None, **more: Any) -> None:
    options = {"work": QUICK, **dict.fromkeys(fronts or ("front",), QUICK), **(actors or {})}
    await enclave.push(enclave.manifest(revision=revision, links=links(*fronts, **more), actors=options))


async def start(enclave: Enclave, *fronts: str, **more: Any) -> None:
    build(enclave, *fronts)
    await push(enclave, *fronts, **more)


def lanes(enclave: Enclave, name: str = "work") -> int:
    return int(next(one.lanes for one in enclave.host.status().actors if one.name == name))


def routed(enclave: Enclave) -> int:
    """Calls to `work` that the host has seen."""
    return int(enclave.host.router.figures_of("work").calls)


def pid(enclave: Enclave, name: str) -> int:
    (found,) = enclave.host.supervisors[name].pids
    return int(found)


def call_frame(operation: int, *arguments: object, correlation: int = 1, **fields: int) -> bytes:
    body = msgspec.msgpack.encode(arguments)
    return encode_frame(Frame(Kind.CALL, operation=operation, correlation=correlation, body=body, **fields))


def place(name: str) -> int:
    """An operation's number on the link."""
    return sorted(GRANTED).index(name)


# -- it is used, and says who calls ----------------------------------------------------------------------------


async def test_calls_of_a_direct_link_do_not_pass_the_host(enclave: Enclave) -> None:
    await start(enclave)
    assert (lanes(enclave), lanes(enclave, "front")) == (1, 1)
    assert await enclave.call("front", "through", name="echo", arguments=[[1, "two"]]) == [1, "two"]
    assert await enclave.call("front", "many", name="echo", arguments=[7], count=60) == [7] * 60
    assert routed(enclave) == 0
    assert enclave.host.status().in_flight == 0


async def test_a_link_that_is_not_direct_has_no_lane(enclave: Enclave) -> None:
    await start(enclave, direct="false")
    assert await enclave.call("front", "through", name="echo", arguments=[1]) == 1
    assert (lanes(enclave), lanes(enclave, "front"), routed(enclave)) == (0, 0, 1)


async def test_the_caller_is_who_the_host_said_and_nobody_stands_behind(enclave: Enclave) -> None:
    await start(enclave, "front", "other")
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", [], True]
    assert await enclave.call("other", "through", name="who", arguments=[]) == ["other", [], True]
    assert await enclave.call("work", "who") == ["parent", [], True]
    assert routed(enclave) == 1


async def test_large_arguments_go_by_the_host(enclave: Enclave) -> None:
    await start(enclave)
    padding = bytes(20_000)
    assert await enclave.call("front", "through", name="who", arguments=[padding]) == ["front", ["parent"], True]
    assert routed(enclave) == 1


async def test_large_answers_come_whole(enclave: Enclave) -> None:
    await start(enclave)
    assert await enclave.call("front", "through", name="big", arguments=[900_000]) == bytes(900_000)
    found = await enclave.call("front", "outcomes", name="big", arguments=[500_000], count=20)
    assert found == {"answered": 20}
    assert routed(enclave) == 0


async def test_messages_go_by_the_host(enclave: Enclave, until: Any) -> None:
    await start(enclave)
    tells = enclave.host.router.figures.tells
    await enclave.call("front", "tell", name="told")
    assert enclave.host.router.figures.tells == tells + 1
    assert await enclave.call("work", "marks") == ["told"]


async def test_calls_that_do_not_fit_a_lane_go_by_the_host_beside_it(enclave: Enclave) -> None:
    await start(enclave, actors={"front": QUICK + ", limits: {in_flight: 8}"})
    assert await enclave.call("front", "many", name="which", arguments=[0.001], count=100) == [0] * 100
    assert 0 < routed(enclave) < 100


async def test_calls_go_to_the_replica_with_the_fewest_under_way(enclave: Enclave) -> None:
    await start(enclave, actors={"work": ", replicas: 2", "front": ", replicas: 2"})
    assert (lanes(enclave), lanes(enclave, "front")) == (4, 4)
    found = await enclave.call("front", "many", name="which", arguments=[0.001], count=40)
    assert {found.count(0), found.count(1)} == {20}
    assert routed(enclave) == 0


async def test_who_may_call_is_kept_by_operations_too(enclave: Enclave) -> None:
    await start(enclave)
    assert await enclave.call("front", "refusal", name="for_the_parent", arguments=[]) == "DENIED"
    assert routed(enclave) == 0


async def test_a_link_that_demands_who_stands_behind_is_not_opened_by_a_direct_call(enclave: Enclave) -> None:
    vault = """
from tea.sdk import Actor, operation

class Vault(Actor):
    @operation
    def open(self) -> str:
        return "open"
"""
    build(enclave, asks={"vault": ("open",)})
    enclave.bundle("vault", vault, "Vault")
    behind = "  - {from: work, to: vault, operations: [open], behind: [front]}"
    await push(enclave, more=behind)
    assert await enclave.call("front", "through", name="open_vault", arguments=[]) == "DENIED"
    await push(enclave, revision=2, more=behind, direct="false")
    assert await enclave.call("front", "through", name="open_vault", arguments=[]) == "open"


# -- deadlines -------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_direct_call_and_the_lane_goes_on(enclave: Enclave) -> None:
    await start(enclave)
    assert await enclave.call("front", "refusal", name="hold", arguments=[0.3], seconds=0.05) == "DEADLINE"
    assert await enclave.call("front", "through", name="echo", arguments=["after"]) == "after"
    assert routed(enclave) == 0


async def test_a_direct_call_whose_deadline_passed_in_the_queue_is_skipped(enclave: Enclave) -> None:
    await start(enclave, "front", "other")
    holding = asyncio.ensure_future(enclave.call("other", "through", name="hold", arguments=[0.5]))
    await enclave.logged("holding")
    assert await enclave.call("front", "refusal", name="mark", arguments=["late"], seconds=0.05) == "DEADLINE"
    assert await holding == "held"
    assert await enclave.call("front", "through", name="mark", arguments=["in time"]) is None
    assert await enclave.call("work", "marks") == ["in time"]


async def test_a_call_that_nobody_waits_for_any_more_waits_for_no_direct_answer(enclave: Enclave) -> None:
    await start(enclave)
    body = msgspec.msgpack.encode(["hold", [20.0]])
    waiting = asyncio.ensure_future(enclave.host.router.call("parent", "front", "refusal", body, timeout=None))
    await enclave.logged("holding")
    waiting.cancel()
    async with asyncio.timeout(10):  # the callee holds on for longer than that
        assert await enclave.call("front", "link_number") > 0


async def test_calls_begun_together_go_by_the_lane(enclave: Enclave) -> None:
    await start(enclave, "front", "other")
    assert await enclave.call("front", "at_once", name="echo", arguments=["x"], count=60) == ["x"] * 60
    assert await enclave.call("front", "at_once", name="echo", arguments=["x"], count=2) == ["x"] * 2
    assert routed(enclave) == 0
    holding = asyncio.ensure_future(enclave.call("other", "through", name="hold", arguments=[0.5]))
    await enclave.logged("holding")  # so that nothing is answered while they are begun
    assert await enclave.call("front", "at_once", name="echo", arguments=["x"], count=300) == ["x"] * 300
    assert await holding == "held"
    assert routed(enclave) > 0  # what does not fit the lane


async def test_an_answer_by_a_lane_does_not_wait_for_a_call_that_is_known_to_take_long(enclave: Enclave) -> None:
    await start(enclave)
    await enclave.call("front", "through", name="hold", arguments=[0.01])
    first, second, third = await enclave.call("front", "in_turn", names=[["echo", 1], ["hold", 2.0], ["echo", 2]])
    assert second - first > 0.25  # of two seconds
    assert third >= second


# -- fair turns ------------------------------------------------------------------------------------------------


async def test_lane_and_host_are_served_in_turn(enclave: Enclave) -> None:
    await start(enclave)
    holding = asyncio.ensure_future(enclave.call("work", "hold", seconds=0.5))
    await enclave.logged("holding")
    by_lane = asyncio.ensure_future(enclave.call("front", "many", name="mark", arguments=["lane"], count=50))
    by_host = [asyncio.ensure_future(enclave.call("work", "mark", name="host")) for _ in range(5)]
    await asyncio.gather(holding, by_lane, *by_host)
    order = await enclave.call("work", "marks")
    assert (order.count("lane"), order.count("host")) == (50, 5)
    assert order[:12].count("host") == 5
    assert routed(enclave) == 1 + 5 + 1


async def test_a_caller_that_does_not_read_its_answers_is_waited_for_by_nobody(enclave: Enclave) -> None:
    await start(enclave, "front", "other")
    flood = b"".join(call_frame(place("big"), 900_000, correlation=1 + n) for n in range(50))
    await enclave.call("other", "raw", data=flood, answers=0)
    assert await enclave.call("front", "many", name="echo", arguments=[1], count=200) == [1] * 200
    assert await enclave.call("work", "echo", value="by the host") == "by the host"
    status = next(one for one in enclave.host.status().actors if one.name == "work")
    assert (status.running, status.restarts) == (1, 0)


# -- what may not be sent --------------------------------------------------------------------------------------


async def test_an_operation_that_the_link_does_not_grant_is_denied_to_a_forged_frame(enclave: Enclave) -> None:
    await start(enclave)
    (answer,) = await enclave.call("front", "raw", data=call_frame(len(GRANTED)), answers=1)
    assert answer[4] == Kind.ERROR
    assert CallError.decode(answer[24:]).code is Code.DENIED
    assert await enclave.call("front", "through", name="echo", arguments=["on"]) == "on"
    assert (lanes(enclave), routed(enclave)) == (1, 0)


FORGED = {
    "a kind that is none": bytes(4) + b"\x63" + bytes(19),
    "a frame of 4 GiB": b"\xff" * 4 + b"\x01" + bytes(19),
    "arguments over the bound of a lane": encode_frame(Frame(Kind.CALL, correlation=1, body=bytes(17_000))),
    "a context": call_frame(0, flags=1),
    "more to come": call_frame(0, flags=2),
    "a message": encode_frame(Frame(Kind.TELL, correlation=1)),
    "an answer": encode_frame(Frame(Kind.REPLY, correlation=1, body=b"\xc0")),
    "a credit": encode_frame(Frame(Kind.CREDIT, correlation=1)),
    "an end": encode_frame(Frame(Kind.BYE)),
    "a cause": call_frame(0, cause=1),
    "no correlation": call_frame(0, correlation=0),
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_no_caller_may_send_ends_its_lane_and_harms_nobody(enclave: Enclave, name: str) -> None:
    await start(enclave, "front", "other")
    work = pid(enclave, "work")
    await enclave.call("other", "raw", data=FORGED[name], answers=0)
    assert "from other#0 was cut" in await enclave.logged("was cut")
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", [], True]
    assert routed(enclave) == 0
    assert await enclave.call("other", "through", name="who", arguments=[]) == ["other", ["parent"], True]
    assert routed(enclave) == 1
    assert pid(enclave, "work") == work


@pytest.mark.parametrize(
    "data",
    [
        encode_frame(Frame(Kind.REPLY, correlation=0x7FFF_0000, body=b"\xc0")),
        encode_frame(Frame(Kind.CALL, correlation=1)),
        encode_frame(Frame(Kind.ERROR, flags=1, correlation=1)),
        bytes(4) + b"\x63" + bytes(19),
    ],
    ids=["an answer to no call", "a call", "flags", "no frame"],
)
async def test_what_no_callee_may_send_ends_its_lane_and_the_calls_in_hand_once(enclave: Enclave, data: bytes) -> None:
    await start(enclave, "front", "other")
    front = pid(enclave, "front")
    # The first lane of `work` is that of `front`.
    found = await enclave.call("front", "outcomes", name="forge", arguments=[data], count=1)
    assert found == {"answered": 0, "UNAVAILABLE": 1}
    assert "to work#0 was cut" in await enclave.logged("was cut")
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", ["parent"], True]
    assert await enclave.call("other", "through", name="who", arguments=[]) == ["other", [], True]
    assert pid(enclave, "front") == front


async def test_a_worker_with_a_lane_has_that_and_its_spares_and_can_have_no_other_descriptor(enclave: Enclave) -> None:
    await start(enclave, "front", "other")
    found = await enclave.call("front", "descriptors")
    assert found == {"open": [0, 1, 2, 3], "refused": ["dup", "fcntl", "socket", "receive", "again"]}
    assert await enclave.call("other", "through", name="who", arguments=[]) == ["other", [], True]


# -- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["work", "front"])
async def test_kill_9_of_either_end_under_load_ends_each_call_once_and_the_next_go_by_the_host(
    enclave: Enclave, until: Any, victim: str
) -> None:
    await start(enclave)
    load = asyncio.ensure_future(enclave.call("front", "outcomes", name="which", arguments=[0.02], count=60))
    await enclave.logged("the first was answered")
    os.kill(pid(enclave, victim), signal.SIGKILL)
    if victim == "work":
        found = await load
        assert sum(found.values()) == 60
        assert 0 < found["answered"] < 60
        assert set(found) == {"answered", "UNAVAILABLE"}
    else:
        with pytest.raises(CallError) as ended:
            await load
        assert ended.value.code is Code.UNAVAILABLE
    supervisor = enclave.host.supervisors[victim]
    await until(lambda: supervisor.restarts == 1 and supervisor.running == 1)
    assert (lanes(enclave), lanes(enclave, "front")) == (0, 0)
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", ["parent"], True]
    assert enclave.host.status().in_flight == 0


async def kill(enclave: Enclave, until: Any, victim: str, replica: int = 0) -> None:
    """End a replica, and wait until there is another."""
    supervisor = enclave.host.supervisors[victim]
    restarts, running = supervisor.restarts, supervisor.running
    os.kill(supervisor._replicas[replica].process.pid, signal.SIGKILL)
    await until(lambda: supervisor.restarts == restarts + 1 and supervisor.running == running)


async def require_direct(enclave: Enclave, front: str = "front") -> None:
    seen = routed(enclave)
    assert await enclave.call(front, "through", name="who", arguments=[]) == [front, [], True]
    assert await enclave.call(front, "many", name="echo", arguments=[7], count=20) == [7] * 20
    assert routed(enclave) == seen


@pytest.mark.parametrize("victim", ["work", "front"])
async def test_lanes_come_back_by_themselves_after_a_restart_for_as_long_as_there_are_spares(
    enclave: Enclave, until: Any, victim: str
) -> None:
    await start(enclave, actors=dict.fromkeys(("work", "front"), SOON))
    (survivor,) = {"work", "front"} - {victim}
    before = pid(enclave, survivor)
    for _ in range(SPARES):
        await kill(enclave, until, victim)
        assert lanes(enclave) == 0
        assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", ["parent"], True]
        await until(lambda: lanes(enclave) == 1)
        assert lanes(enclave, "front") == 1
        await require_direct(enclave)
    await kill(enclave, until, victim)
    assert "between front#0 and work#0" in await enclave.logged("no lane is left")
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", ["parent"], True]
    assert pid(enclave, survivor) == before
    # The other end's restart brings new ones.
    await kill(enclave, until, survivor)
    await until(lambda: lanes(enclave) == 1)
    await require_direct(enclave)


async def test_each_pair_of_replicas_has_its_lane_again(enclave: Enclave, until: Any) -> None:
    await start(enclave, actors={"work": SOON + ", replicas: 2", "front": SOON + ", replicas: 2"})
    assert lanes(enclave) == 4
    await asyncio.gather(kill(enclave, until, "work", 1), kill(enclave, until, "front", 0))
    assert lanes(enclave) == 1
    await until(lambda: lanes(enclave) == lanes(enclave, "front") == 4)
    seen = routed(enclave)
    for _ in range(4):
        found = await enclave.call("front", "many", name="which", arguments=[0.001], count=40)
        assert {found.count(0), found.count(1)} == {20}
    assert routed(enclave) == seen


async def test_calls_under_load_are_each_answered_once_while_lanes_go_and_come_back(
    enclave: Enclave, until: Any
) -> None:
    await start(enclave, actors=dict.fromkeys(("work", "front"), SOON))
    load = asyncio.ensure_future(enclave.call("front", "outcomes", name="which", arguments=[0.05], count=60))
    await enclave.logged("the first was answered")
    await kill(enclave, until, "work")
    await until(lambda: lanes(enclave) == 1)
    found = await load
    assert sum(found.values()) == 60
    assert set(found) <= {"answered", "UNAVAILABLE"}
    await require_direct(enclave)
    assert enclave.host.status().in_flight == 0


@pytest.mark.parametrize("victim", ["work", "front"])
async def test_lanes_come_back_after_a_revision_that_kept_both_ends(enclave: Enclave, until: Any, victim: str) -> None:
    await start(enclave, actors=dict.fromkeys(("work", "front"), SOON))
    before = await enclave.call("front", "link_number")
    await push(enclave, revision=2, actors=dict.fromkeys(("work", "front"), SOON))
    for _ in range(SPARES):
        await kill(enclave, until, victim)
        await until(lambda: lanes(enclave) == 1)
        await require_direct(enclave)
    assert (await enclave.call("front", "link_number") == before) == (victim == "work")


@pytest.mark.parametrize("victim", ["work", "front"])
@pytest.mark.parametrize("kept", [False, True], ids=["", "after a revision that kept the workers"])
async def test_a_lane_that_came_back_stops_at_once_when_its_link_is_taken_away(
    enclave: Enclave, until: Any, victim: str, kept: bool
) -> None:
    await start(enclave, actors=dict.fromkeys(("work", "front"), SOON))
    if kept:
        await push(enclave, revision=2, actors=dict.fromkeys(("work", "front"), SOON))
    await kill(enclave, until, victim)
    await until(lambda: lanes(enclave) == 1)
    old = enclave.host.supervisors["front"].group.ports[0].lanes
    assert sum(lane.alive for lane in old) >= SPARES
    calling = asyncio.ensure_future(enclave.call("front", "until_refused", seconds=20.0))
    await enclave.logged("calling")
    enclave.bundle("front", FRONT, "Front")
    await push(enclave, revision=3, granted=())
    assert not any(lane.alive for lane in old), "the spares too"
    count, refusal = await calling
    assert count > 0
    assert refusal in ("DENIED", "UNAVAILABLE")


async def test_what_is_written_on_a_spare_before_its_time_ends_that_lane_and_harms_nobody(
    enclave: Enclave, until: Any
) -> None:
    await start(enclave, "front", "other", actors=dict.fromkeys(("work", "front", "other"), SOON))
    await enclave.call("other", "raw", data=FORGED["a message"], answers=0, descriptor=2)
    await kill(enclave, until, "work")
    assert "from other#0 was cut" in await enclave.logged("was cut")
    await require_direct(enclave)
    assert await enclave.call("other", "through", name="who", arguments=[]) == ["other", ["parent"], True]


async def test_a_message_that_ends_a_worker_with_lanes_again_and_again_is_set_aside(
    enclave: Enclave, until: Any
) -> None:
    await start(enclave)
    supervisor = enclave.host.supervisors["work"]
    for ends in range(1, 5):  # of the first, which had a lane, nothing is known
        with pytest.raises(CallError) as ended:
            await enclave.call("work", "die")
        assert ended.value.code is Code.UNAVAILABLE
        await until(lambda ends=ends: supervisor.restarts == ends and supervisor.running == 1)
    with pytest.raises(CallError, match="is set aside"):
        await enclave.call("work", "die")


async def test_actors_that_follow_a_restart_have_their_lanes_again(enclave: Enclave, until: Any) -> None:
    await start(enclave, actors={"work": SOON.replace("{", "{strategy: rest-for-one, ")})
    front = pid(enclave, "front")
    await kill(enclave, until, "work")
    await until(lambda: lanes(enclave) == 1 and pid(enclave, "front") != front)
    await require_direct(enclave)


async def test_a_direct_call_that_ends_its_callee_is_blamed_on_nobody_who_waits_by_the_host(
    enclave: Enclave, until: Any
) -> None:
    await start(enclave, actors={"work": QUICK.replace("{", "{intensity: 20, ")})
    supervisor = enclave.host.supervisors["work"]
    innocent = asyncio.ensure_future(enclave.call("work", "hold", seconds=0.3))
    await enclave.logged("holding")
    ending = asyncio.ensure_future(enclave.call("front", "refusal", name="die", arguments=[]))
    waiting = asyncio.ensure_future(enclave.call("work", "echo", value="innocent"))
    assert await innocent == "held"
    assert await ending == "UNAVAILABLE"
    await asyncio.gather(waiting, return_exceptions=True)
    assert not supervisor.group.poison.suspects


@pytest.mark.parametrize("changed", ["work", "front"])
async def test_an_upgrade_of_either_end_makes_the_lane_anew_and_loses_no_call(enclave: Enclave, changed: str) -> None:
    enclave.bundle("alone", FRONT, "Front")
    build(enclave)
    options = {"alone": QUICK}
    alone = "  - {from: parent, to: alone, operations: [link_number]}"
    await push(enclave, actors=options, more=alone)
    before = {name: pid(enclave, name) for name in ("work", "front", "alone")}
    load = [
        asyncio.ensure_future(enclave.call("front", "outcomes", name="which", arguments=[0.01], count=50))
        for _ in range(3)
    ]
    await enclave.logged("the first was answered")
    source, entry = {"work": (WORK, "Work"), "front": (FRONT, "Front")}[changed]
    asks = {"work": GRANTED} if changed == "front" else None
    enclave.bundle(changed, source + "# another\n", entry, capabilities=asks)
    await push(enclave, revision=2, actors=options, more=alone)
    for one in load:
        assert await one == {"answered": 50}
    await enclave.host.drained()
    after = {name: pid(enclave, name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"work", "front"}
    seen = routed(enclave)
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", [], True]
    assert (lanes(enclave), routed(enclave)) == (1, seen)
    assert "ignored its drain" not in (enclave.host.supervisors["work"].last_error or "")


async def test_a_revision_that_changes_neither_end_keeps_workers_and_lane(enclave: Enclave) -> None:
    await start(enclave)
    before = pid(enclave, "work"), pid(enclave, "front")
    await push(enclave, revision=2)
    assert (pid(enclave, "work"), pid(enclave, "front")) == before
    assert (lanes(enclave), routed(enclave)) == (1, 0)


async def test_a_call_in_on_start_goes_to_the_revision_that_serves(enclave: Enclave) -> None:
    await start(enclave)
    assert await enclave.call("front", "early_edition") == "NOT_FOUND"
    enclave.bundle("work", WORK.replace('"one"', '"two"'), "Work")
    await push(enclave, revision=2)
    assert await enclave.call("front", "early_edition") == "one"
    assert await enclave.call("front", "through", name="edition", arguments=[]) == "two"


@pytest.mark.parametrize("kept", [False, True], ids=["", "after a revision that kept the workers"])
@pytest.mark.parametrize("left", [(), ("who",)], ids=["removed", "narrowed"])
async def test_a_link_that_a_newer_revision_takes_away_stops_at_once(
    enclave: Enclave, left: tuple[str, ...], kept: bool
) -> None:
    await start(enclave)
    if kept:
        await push(enclave, revision=2)
    calling = asyncio.ensure_future(enclave.call("front", "until_refused", seconds=20.0))
    await enclave.logged("calling")
    enclave.bundle("front", FRONT, "Front", capabilities={"work": left} if left else None)
    await push(enclave, revision=3, granted=left)
    count, refusal = await calling
    assert count > 0
    assert refusal in ("DENIED", "UNAVAILABLE")
    assert lanes(enclave) == (1 if left else 0)


async def test_a_worker_that_drains_answers_what_came_by_a_lane(enclave: Enclave) -> None:
    await start(enclave)
    load = asyncio.ensure_future(enclave.call("front", "outcomes", name="which", arguments=[0.02], count=60))
    await enclave.logged("the first was answered")
    enclave.bundle("work", WORK + "# another\n", "Work")
    await push(enclave, revision=2)
    assert await load == {"answered": 60}


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_workers_that_were_kept_by_a_revision_drain_with_the_rights_that_they_have(
    enclave: Enclave, direct: str
) -> None:
    await start(enclave, direct=direct)
    await push(enclave, revision=2, direct=direct)
    calling = asyncio.ensure_future(enclave.call("front", "until_refused", seconds=1.5))
    await enclave.logged("calling")
    enclave.bundle("front", FRONT + "# another\n", "Front", capabilities={"work": GRANTED})
    await push(enclave, revision=3, direct=direct)
    _count, refusal = await calling
    assert refusal == "none"


CIRCLE = """
from tea.sdk import Actor, CallError, operation

class Circle(Actor):
    @operation
    def ask(self, depth: int) -> str:
        try:
            return self.other.with_timeout(0.3).ask(depth - 1) if depth else "asked"
        except CallError as error:
            return error.code.name
"""


async def test_a_circle_of_direct_calls_is_ended_by_its_deadline(enclave: Enclave) -> None:
    lines = []
    for name, other in (("left", "right"), ("right", "left")):
        enclave.bundle(name, CIRCLE, "Circle", capabilities={other: ("ask",)})
        lines.append(f"  - {{from: parent, to: {name}, operations: [ask]}}")
        lines.append(f"  - {{from: {name}, to: {other}, operations: [ask], as: other, direct: true}}")
    await enclave.push(enclave.manifest(links="\n".join(lines)))
    assert (lanes(enclave, "left"), lanes(enclave, "right")) == (2, 2)
    for name in ("left", "right"):
        assert await enclave.call(name, "ask", depth=1) == "asked"
        assert await enclave.call(name, "ask", depth=2) == "DEADLINE"
        assert await enclave.call(name, "ask", depth=1) == "asked"


async def test_no_descriptor_of_a_lane_is_left_behind(enclave: Enclave) -> None:
    def held() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    await start(enclave, actors={"work": ", replicas: 3", "front": ", replicas: 2"})
    before = held()
    good = enclave.bundles["front"]
    enclave.bundle("front", FRONT.replace("early = ", "1 / 0; early = "), "Front", capabilities={"work": GRANTED})
    with pytest.raises(CallError):
        await push(enclave, revision=2, actors={"work": ", replicas: 3", "front": ", replicas: 2"})
    assert held() == before
    assert await enclave.call("front", "through", name="who", arguments=[]) == ["front", [], True]
    enclave.bundles["front"] = good
    enclave.bundle("work", WORK + "# another\n", "Work")
    await push(enclave, revision=3, actors={"work": ", replicas: 3", "front": ", replicas: 2"})
    await enclave.host.drained()
    assert held() == before
    for number in enclave.host.supervisors["front"].pids:
        os.kill(number, signal.SIGKILL)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while lanes(enclave) or enclave.host.supervisors["front"].running < 2:
            await asyncio.sleep(0.005)
    # Of each of the six ways the live lane is gone, and there is a spare more, of which the host has both ends.
    assert held() == before - 6 + 2 * 6
