"""What workers know of each other's operations when a revision starts one of them anew and keeps the other.

Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tea.protocol.errors import CallError
from tea.protocol.frame import Frame, Kind

Enclave = Any

WORK = """
import time
from tea.sdk import Actor, CallError, Code, operation

class Work(Actor):
    @operation
    def join(self, first: str, second: str = "two") -> str:
        return f"old: {first}, {second}"

    @operation
    def where(self, key: str) -> int:
        return self.replica

    @operation
    def hold(self, seconds: float) -> list[str]:
        print("holding")
        time.sleep(seconds)
        return ["held"]

    @operation
    def gone(self, value: int) -> int:
        return value
"""
NEWER = """
from tea.sdk import Actor, CallError, Code, operation

class Work(Actor):
    @operation
    def join(self, second: str, first: str, third: str = "three") -> str:
        return f"new: {first}, {second}, {third}"

    @operation
    def where(self, other: int, key: str = "none") -> int:
        return self.replica

    @operation
    def hold(self, seconds: float) -> dict[str, int]:
        return {"held": 1}
"""
SICK = (
    NEWER
    + """
    @operation
    def health(self) -> None:
        raise CallError(Code.INTERNAL, "not well")
"""
)
FRONT = """
import time
from tea.sdk import Actor, CallError, operation

class Front(Actor):
    def on_start(self) -> None:
        self.held = self.work.join
        self.patient = self.work.with_timeout(20.0)
        print("front starts")
        time.sleep(PAUSE)

    @operation
    def by_name(self, first: str, second: str) -> list[str]:
        asked = dict(first=first, second=second)
        found = [self.work.join(**asked), self.held(**asked), self.patient.join(**asked)]
        return [*found, self.work.later.join(**asked).result()]

    @operation
    def by_place(self, arguments: list[object]) -> str:
        try:
            return self.held(*arguments)
        except (TypeError, CallError) as error:
            return str(error)

    @operation
    def takes(self) -> list[str]:
        (join,) = [one for one in self.work.describe() if one.name == "join"]
        return [one.name for one in join.parameters]

    @operation
    def gone(self) -> str:
        try:
            return str(self.work.gone(1))
        except CallError as error:
            return error.code.name

    @operation
    def hold_and_join(self, seconds: float) -> list[object]:
        return [self.work.hold(seconds), self.work.join(first="1", second="2")]

    @operation
    def where(self, key: str) -> int:
        return self.keyed.where(key=key, **({"other": 1} if "other" in self.parameters() else {}))

    def parameters(self) -> list[str]:
        return [one.name for one in self.keyed.describe()[0].parameters]
"""
LINKS = """
  - {from: parent, to: front, operations: [by_name, by_place, gone, hold_and_join, takes, where]}
  - {from: parent, to: work, operations: [where], sticky: key}
  - {from: front, to: work, operations: [gone, hold, join]}
  - {from: front, to: work, operations: [where], as: keyed, sticky: key}
"""
KEYS = [f"key {number}" for number in range(16)]
OLD_NAMES, NEW_NAMES = ["first", "second"], ["second", "first", "third"]


async def push(enclave: Enclave, revision: int, work: str, front: str = "", pause: float = 0.0) -> None:
    enclave.bundle("work", work, "Work")
    if revision == 1 or front:  # what is built again has another digest
        asks = {"work": ("gone", "hold", "join", "where")}
        enclave.bundle("front", FRONT.replace("PAUSE", str(pause)) + front, "Front", capabilities=asks)
    actors = {"work": ", replicas: 3", "front": ", restart: {backoff_ms: 10, backoff_max_ms: 50}"}
    await enclave.push(enclave.manifest(revision=revision, links=LINKS, actors=actors))


def pid(enclave: Enclave, name: str = "front") -> int:
    (found,) = enclave.host.supervisors[name].pids
    return int(found)


def listen(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The links of which the worker of `front` is told from now on."""
    told: list[int] = []
    port = enclave.host.supervisors["front"].group.ports[0]
    send = port.send

    def listening(frame: Frame) -> None:
        if frame.kind is Kind.HELLO and frame.link:
            told.append(frame.link)
        send(frame)

    monkeypatch.setattr(port, "send", listening)
    return told


async def test_a_caller_that_a_revision_keeps_goes_by_what_the_new_target_declares(enclave: Enclave) -> None:
    await push(enclave, 1, WORK)
    assert await enclave.call("front", "by_name", first="1", second="2") == ["old: 1, 2"] * 4
    assert await enclave.call("front", "by_place", arguments=["1"]) == "old: 1, two"
    kept = pid(enclave)
    await push(enclave, 2, NEWER)
    assert pid(enclave) == kept
    assert await enclave.call("front", "takes") == NEW_NAMES
    assert await enclave.call("front", "by_name", first="1", second="2") == ["new: 1, 2, three"] * 4
    assert await enclave.call("front", "by_place", arguments=["2", "1", "3"]) == "new: 1, 2, 3"
    assert await enclave.call("front", "by_place", arguments=["2"]) == "join() misses the argument 'first'"
    assert await enclave.call("front", "gone") == "NOT_FOUND"


async def test_sticky_calls_of_a_caller_that_is_kept_find_the_key_in_its_new_place(enclave: Enclave) -> None:
    await push(enclave, 1, WORK)
    kept = pid(enclave)
    await push(enclave, 2, NEWER)
    assert pid(enclave) == kept
    homes = [await enclave.call("work", "where", 1, key) for key in KEYS]
    assert len(set(homes)) == 3
    assert [await enclave.call("front", "where", key=key) for key in KEYS] == homes


async def test_a_revision_that_fails_its_health_check_leaves_callers_what_they_know(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(enclave, 1, WORK)
    told = listen(enclave, monkeypatch)
    with pytest.raises(CallError, match="not well"):
        await push(enclave, 2, SICK)
    assert told == []
    assert await enclave.call("front", "takes") == OLD_NAMES
    assert await enclave.call("front", "by_name", first="1", second="2") == ["old: 1, 2"] * 4


async def test_nobody_is_told_of_a_target_that_declares_what_it_declared(
    enclave: Enclave, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(enclave, 1, WORK)
    told = listen(enclave, monkeypatch)
    supervisor = enclave.host.supervisors["work"]
    os.kill(supervisor.pids[0], signal.SIGKILL)
    await until(lambda: supervisor.restarts == 1 and supervisor.running == 3)
    await push(enclave, 2, WORK + "# another\n")
    assert enclave.host.supervisors["work"] is not supervisor
    assert told == []
    assert await enclave.call("front", "by_name", first="1", second="2") == ["old: 1, 2"] * 4
    await push(enclave, 3, NEWER)
    assert len(told) == 2, "one frame a link"


async def test_a_call_in_hand_ends_as_it_began_and_the_next_one_goes_by_the_new_target(enclave: Enclave) -> None:
    await push(enclave, 1, WORK)
    kept = pid(enclave)
    holding = asyncio.ensure_future(enclave.call("front", "hold_and_join", seconds=3.0))
    await enclave.logged("holding")
    await push(enclave, 2, NEWER)
    assert not holding.done(), "the machine is too slow for this test"
    assert await holding == [["held"], "new: 1, 2, three"]
    assert pid(enclave) == kept


async def test_a_caller_that_drains_calls_the_new_target_by_what_that_declares(enclave: Enclave) -> None:
    await push(enclave, 1, WORK)
    holding = asyncio.ensure_future(enclave.call("front", "hold_and_join", seconds=3.0))
    await enclave.logged("holding")
    await push(enclave, 2, NEWER, front="# another\n")
    assert not holding.done(), "the machine is too slow for this test"
    assert await holding == [["held"], "new: 1, 2, three"]


async def test_a_caller_that_was_coming_back_while_a_revision_went_live_learns_of_it(
    enclave: Enclave, until: Any
) -> None:
    await push(enclave, 1, WORK, pause=2.0)
    supervisor = enclave.host.supervisors["front"]
    os.kill(pid(enclave), signal.SIGKILL)
    await until(lambda: bool(supervisor._starting) and not supervisor.running)
    await push(enclave, 2, NEWER)
    assert enclave.host.supervisors["front"] is supervisor
    assert not supervisor.running, "the machine is too slow for this test"
    await until(lambda: supervisor.running == 1)
    assert await enclave.call("front", "by_name", first="1", second="2") == ["new: 1, 2, three"] * 4
    assert await enclave.call("front", "by_place", arguments=["2"]) == "join() misses the argument 'first'"


async def test_a_target_that_is_down_while_a_revision_goes_live_is_known_by_what_it_declared(
    enclave: Enclave, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enclave.bundle("work", WORK, "Work")
    enclave.bundle("front", FRONT.replace("PAUSE", "0"), "Front", capabilities={"work": ("gone", "hold", "join")})
    links = "\n".join(line for line in LINKS.splitlines() if "where" not in line or "by_name" in line)
    slow = {"work": ", restart: {backoff_ms: 60000, backoff_max_ms: 60000}"}
    await enclave.push(enclave.manifest(links=links, actors=slow))
    told = listen(enclave, monkeypatch)
    os.kill(pid(enclave, "work"), signal.SIGKILL)
    await until(lambda: not enclave.host.supervisors["work"].running)
    await enclave.push(enclave.manifest(revision=2, links=links, actors=slow))
    assert told == []
    assert await enclave.call("front", "takes") == OLD_NAMES


RING = """
from tea.sdk import Actor, operation

class Ring(Actor):
    @operation
    def join(self, first: str, second: str = "two") -> str:
        return f"{first}, {second}"

    @operation
    def ask(self) -> str:
        return self.other.join(second="2", first="1")
"""


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_actors_that_call_each_other_in_a_circle_know_each_other_once_they_are_up(
    enclave: Enclave, until: Any, direct: str
) -> None:
    lines = []
    for name, other in (("left", "right"), ("right", "left")):
        enclave.bundle(name, RING, "Ring", capabilities={other: ("join",)})
        lines.append(f"  - {{from: parent, to: {name}, operations: [ask]}}")
        lines.append(f"  - {{from: {name}, to: {other}, operations: [join], as: other, direct: {direct}}}")
    await enclave.push(enclave.manifest(links="\n".join(lines), actors={"left": ", restart: {backoff_ms: 10}"}))
    assert await enclave.call("left", "ask") == "1, 2"
    assert await enclave.call("right", "ask") == "1, 2"
    os.kill(pid(enclave, "left"), signal.SIGKILL)
    await until(lambda: enclave.host.supervisors["left"].restarts == 1 and enclave.host.supervisors["left"].running)
    assert await enclave.call("left", "ask") == "1, 2"
