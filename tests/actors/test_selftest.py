"""The self-test passes on healthy providers, tries every operation that they have, and says what is wrong otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from tea.protocol.channels import BlockChanges, Channel, Head
from tea.protocol.operations import operation
from tea.sdk import CallError, Code
from tea.sdk.testing import Harness, run_actor

PROVIDERS = ("kvp", "crypto", "nitro", "layer1", "intercom", "vmh", "env", "log", "clock", "secrets")
CONFIG: dict[str, dict[str, object]] = {
    "intercom": {"topics": {"selftest": {"publish": ["selftest"], "subscribe": ["selftest"]}}}
}
BUNDLE = Path(__file__).resolve().parents[2] / "actors" / "selftest" / "bundle.yaml"


@pytest.fixture(scope="module")
def harness(actor_module: Callable[[str], Any]) -> Iterator[Harness]:
    with run_actor(
        actor_module("selftest").Selftest,
        links=dict.fromkeys(PROVIDERS, True),
        environment={"LOG_LEVEL": "info"},
        config=CONFIG,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def rows(harness: Harness) -> list[Any]:
    found: list[Any] = harness.call("run")
    return found


def test_everything_is_well_on_healthy_providers(rows: list[Any]) -> None:
    assert [row for row in rows if not row.ok] == []


def test_every_operation_of_every_provider_is_tried(harness: Harness, rows: list[Any]) -> None:
    tried = {(row.provider, row.operation.removesuffix(" (refused)")) for row in rows}
    assert tried == {(name, one.name) for name in PROVIDERS for one in harness.actor.links[name].describe()}


def test_every_provider_refuses_something(rows: list[Any]) -> None:
    assert {row.provider for row in rows if row.operation.endswith(" (refused)")} == set(PROVIDERS)


def test_every_installed_provider_has_checks(actor_module: Callable[[str], Any]) -> None:
    installed = {point.name for point in entry_points(group="tea.providers")}
    assert installed == set(PROVIDERS) == set(actor_module("selftest").CHECKS)


def test_the_bundle_asks_for_every_operation(harness: Harness) -> None:
    asked = yaml.safe_load(BUNDLE.read_text())["capabilities"]
    has = {name: sorted(one.name for one in harness.actor.links[name].describe()) for name in PROVIDERS}
    assert {name: sorted(operations) for name, operations in asked.items()} == has


def test_a_second_run_finds_the_first_ones_things_gone(harness: Harness, rows: list[Any]) -> None:
    again = harness.call("run_one", "kvp")
    assert all(row.ok for row in again)
    assert harness.provider("kvp").usage()["entries"] == 0
    assert harness.provider("crypto").usage()["handles"] == 0


def test_what_was_asked_to_be_told_is_told_after_the_run(harness: Harness, rows: list[Any]) -> None:
    harness.advance(1.0)
    heard = harness.call("heard")
    assert heard["intercom:selftest"] == 1
    assert heard["clock:selftest-once"] >= 1


def test_a_provider_that_is_not_linked_has_no_rows(harness: Harness) -> None:
    assert harness.call("run_one", "teleport") == []


def test_only_providers_may_tell_it_of_ticks_and_heads(harness: Harness) -> None:
    for name, args in (
        ("on_tick", ("t",)),
        ("on_topic", ("t", b"")),
        ("on_head", (1, b"", b"")),
        ("on_peer", ("a", "t", b"")),
    ):
        with pytest.raises(CallError) as caught:
            harness.call(name, *args)
        assert caught.value.code is Code.DENIED


class BrokenLog:
    """A log that forgets, shouts back, and has learnt something new."""

    @operation
    def write(self, level: str, message: str, fields: dict[str, str] | None = None) -> bool:
        return True

    @operation
    def figures(self) -> dict[str, int]:
        return {"written": 0}

    @operation
    def info(self, message: str, fields: dict[str, str] | None = None) -> bool:
        raise CallError(Code.EXHAUSTED, "full")

    @operation
    def rewind(self) -> None: ...


def test_what_is_wrong_is_a_row_that_says_so(actor_module: Callable[[str], Any]) -> None:
    with run_actor(actor_module("selftest").Selftest, links={"log": True}, providers={"log": BrokenLog}) as running:
        found = {row.operation: (row.ok, row.note) for row in running.call("run")}
    assert found == {
        "write": (True, ""),
        "write (refused)": (False, "expected INVALID, but it was done"),
        "info": (False, "EXHAUSTED: full"),
        "info (refused)": (False, "expected INVALID, got EXHAUSTED: full"),
        "figures": (False, "Unexpected: nothing was written"),
        "rewind": (False, "no check of this self-test knows it"),
    }


def test_a_chain_is_read_where_there_is_one(actor_module: Callable[[str], Any]) -> None:
    head = Head(0, bytes([1] * 32), bytes(32), bytes([2] * 32), 1_800_000_000)
    with run_actor(
        actor_module("selftest").Selftest, links={"layer1": True}, config={"layer1": {"start": 0}}
    ) as running:
        running.parent.answers[Channel.ADAPTER, "head"] = lambda: head
        running.parent.answers[Channel.ADAPTER, "blocks"] = lambda start, count: (
            (BlockChanges(head, {b"key": b"value"}),) if start == 0 else ()
        )
        running.advance(60.0)
        found = running.call("run")
        assert [row for row in found if not row.ok] == []
        assert {row.operation: row.note for row in found}["height"] == ""


def test_a_peer_is_asked_where_there_is_one(actor_module: Callable[[str], Any]) -> None:
    with run_actor(
        actor_module("selftest").Selftest, links={"vmh": True}, members={"e1": {}, "e2": {}}, own_slot="e1"
    ) as running:
        running.parent.answers[Channel.PEERS, "request"] = lambda to, actor, topic, body, timeout: body
        found = running.call("run")
        assert [row for row in found if not row.ok] == []
        assert {row.note for row in found if row.operation in ("tell", "request")} == {"to e2"}
        inbox = running.parent.served[Channel.PEERS]
        answer = running.run(inbox.answer("e2", "selftest", "selftest", b"echo"))  # type: ignore[attr-defined]
        assert answer == b"echo"
