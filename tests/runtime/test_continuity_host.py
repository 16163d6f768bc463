"""What a real host does for its continuity: it freezes while state is handed over, goes on, and starts actors anew.

May not: start a second machine; the other end is a `Continuity` of the same enclave.
Rule: docs/continuity.md, "By hand".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tea.parent_client.operator import Push
from tea.protocol.channels import Takeover
from tea.protocol.errors import CallError, Code
from tea.runtime import continuity, continuity_host
from tea.runtime.continuity import TOPIC, Continuity
from tea.trust import pcr
from tea.trust.approval import approve
from tea.trust.backup import parse_backup, verify_origin
from tea.trust.continuity import ContinuityCode, Role, Ticket, sign_ticket
from tea.trust.handover import Tenancy, verify_tenancy
from tea.trust.handover_holder import HANDING_MS
from tea.trust.manifest import parse_manifest
from tea.trust.policy import Policy
from tea.trust.recovery import recovery_key_text
from tea.trust.roots import Roots
from tea.trust.sealing import SealingKey

KEEPER = """
import time

from tea.sdk import Actor, operation

class Keeper(Actor):
    def on_start(self) -> None:
        self.seen = int(self.kvp.get("n") or 0)

    @operation
    def put(self, value: int) -> None:
        self.kvp.incr("n", value - int(self.kvp.get("n") or 0))

    @operation
    def slowly(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.kvp.incr("n", 1)

    @operation
    def seen_at_start(self) -> int:
        return self.seen

    @operation
    def ticks(self) -> None:
        self.clock.every(0.01, "tick", "t")

    @operation
    def tick(self, token: str) -> None:
        self.kvp.incr("ticks", 1)
"""
LINKS = """
  - {from: parent, to: keeper, operations: [put, slowly, seen_at_start, ticks]}
  - {from: keeper, to: kvp, operations: [get, incr]}
  - {from: keeper, to: clock, operations: [every]}
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def manifest(enclave: Any, revision: int = 1, version: str = "0.1.0") -> str:
    """A slot for this enclave, and a keeper."""
    enclave.bundle(
        "keeper", KEEPER, "Keeper", version=version, capabilities={"kvp": ("get", "incr"), "clock": ("every",)}
    )
    place = pcr.pcr4(enclave.start.credential.instance_id).hex()
    made: str = enclave.manifest(
        revision=revision,
        versions={"keeper": version},
        links=LINKS,
        providers="  kvp: {}\n  clock: {}\n  vmh: {}",
        extra=f"ra: {{members: {{e1: {{pcr4: '{place}'}}}}}}",
    )
    return made


@pytest.fixture
async def holder(enclave: Any) -> Any:
    """An enclave that holds slot e1."""
    await enclave.push(manifest(enclave))
    assert enclave.host.slots.own == "e1"
    return enclave


async def test_a_standby_starts_later_revisions_and_begins_when_no_predecessor_turns_up(enclave: Any) -> None:
    async def push(revision: int, *, standby: bool) -> None:
        text = manifest(enclave, revision, f"0.{revision}.0")
        envelope = approve(parse_manifest(text).canonical(), enclave.key)
        path = enclave.folder / "keeper.tea"
        path.write_bytes(enclave.bundles["keeper"])
        await enclave.client.push(Push(envelope, (), {}, (str(path),), standby))

    for revision in (1, 2):
        await push(revision, standby=True)
        with pytest.raises(CallError, match="waits for the state of slot e1"):
            await enclave.call("keeper", "put", 1)
    await push(3, standby=False)
    await enclave.call("keeper", "put", 1)
    with pytest.raises(CallError, match="it is no standby"):
        await push(4, standby=True)
    await enclave.call("keeper", "put", 2)


async def test_where_state_came_in_nobody_begins_as_the_first(enclave: Any) -> None:
    text = manifest(enclave)
    envelope = approve(parse_manifest(text).canonical(), enclave.key)
    path = enclave.folder / "keeper.tea"
    path.write_bytes(enclave.bundles["keeper"])
    await enclave.client.push(Push(envelope, (), {}, (str(path),), True))
    part = enclave.host.continuity
    await part.import_states(await part.export_states())
    with pytest.raises(CallError, match="state of another holder came in here") as refused:
        await enclave.push(text)
    assert refused.value.code is Code.CONFLICT


async def test_a_freeze_lets_calls_in_hand_end_and_refuses_new_ones(holder: Any) -> None:
    part = holder.host.continuity
    await holder.call("keeper", "put", 1)
    slow = asyncio.create_task(holder.call("keeper", "slowly", 0.3))
    await until(lambda: holder.host.router.in_flight == 1)
    freezing = asyncio.create_task(part.freeze())
    await until(lambda: not holder.host.router.accepting)
    with pytest.raises(CallError) as refused:
        await holder.call("keeper", "put", 9)
    assert refused.value.code is Code.UNAVAILABLE
    await freezing
    assert await slow == 2
    await part.thaw()
    assert await holder.call("keeper", "slowly", 0.0) == 3


async def test_nothing_changes_while_frozen_and_ticks_go_on_after(holder: Any) -> None:
    host = holder.host
    await holder.call("keeper", "ticks")
    await host.continuity.freeze()
    before, letters = await host.continuity.export_states(), host.router.figures.dead_letters
    assert before.keys() == {"kvp"}
    await until(lambda: host.router.figures.dead_letters > letters + 3)
    assert (await host.continuity.export_states())["kvp"] == before["kvp"]
    await host.continuity.thaw()
    letters = host.router.figures.dead_letters
    await holder.call("keeper", "put", 1)
    assert host.router.figures.dead_letters == letters


async def test_an_actor_that_is_not_done_in_time_ends_the_handover_and_the_holder_serves_on(
    holder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuity_host, "FREEZE_SECONDS", 0.05)
    slow = asyncio.create_task(holder.call("keeper", "slowly", 0.5))
    await until(lambda: holder.host.router.in_flight == 1)
    with pytest.raises(CallError) as late:
        await Continuity(holder.host.continuity, "test", "e1").take_over(asking(holder))
    assert late.value.code is Code.CONFLICT
    assert await slow == 1
    assert await holder.call("keeper", "slowly", 0.0) == 2


async def test_actors_start_anew_over_the_state_that_came_in(holder: Any) -> None:
    part = holder.host.continuity
    await holder.call("keeper", "put", 7)
    assert await holder.call("keeper", "seen_at_start") == 0
    await part.freeze()
    await part.import_states(await part.export_states())
    await part.thaw()
    assert await holder.call("keeper", "seen_at_start") == 7


async def test_a_holder_whose_receiver_vanished_goes_on_by_itself(holder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuity, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(continuity_host, "EXPIRE_SECONDS", 0.01)
    await holder.call("keeper", "put", 1)
    receiver = Continuity(holder.host.continuity, "test", "e1")
    with pytest.raises(CallError):
        await receiver.take_over(asking(holder, answers=1))
    assert receiver.tenure.role is Role.EMPTY
    with pytest.raises(CallError, match="handing slot e1 over just now"):
        await holder.call("keeper", "put", 2)
    monkeypatch.setattr(holder.host, "_drift", holder.host._drift + HANDING_MS / 1000 + 1)
    await until(lambda: holder.host.router.accepting)
    await holder.call("keeper", "put", 3)


async def test_an_activation_does_not_open_what_is_frozen_for_a_copy(holder: Any) -> None:
    part = holder.host.continuity
    await holder.call("keeper", "put", 1)
    await part.freeze()
    before = await part.export_states()
    with pytest.raises(CallError, match="state is being copied: push when that has ended") as refused:
        await holder.push(manifest(holder, 2, "0.2.0"))
    assert refused.value.code is Code.CONFLICT
    part._settle()  # as one does that was under way already
    with pytest.raises(CallError, match="being copied"):
        await holder.call("keeper", "put", 2)
    assert (await part.export_states())["kvp"] == before["kvp"]
    await part.thaw()
    await holder.call("keeper", "put", 3)


async def test_a_backup_is_made_while_callers_wait_and_the_holder_serves_on(holder: Any) -> None:
    client = holder.client
    await holder.call("keeper", "put", 5)
    with pytest.raises(CallError, match="names no keepers"):
        await client.backup()
    keys = ", ".join(f"{name}: '{recovery_key_text(SealingKey.generate().public)}'" for name in ("ann", "bob"))
    text = manifest(holder, 2, "0.2.0") + f"\nbackup: {{threshold: 2, keepers: {{{keys}}}}}"
    await holder.push(text)
    made = await client.backup()
    assert (made.slot, made.term, made.threshold, made.keepers) == ("e1", 1, 2, ("ann", "bob"))
    data = await client.backup_piece(made.digest, 0)
    assert hashlib.sha384(data).digest() == made.digest
    verify_origin(parse_backup(data), made.attestation.document, made.attestation.statement, policy_of(holder))
    assert await holder.call("keeper", "slowly", 0.0) == 6


async def test_what_an_enclave_is_to_its_slot_is_attested_to_whoever_asks(holder: Any) -> None:
    evidence = await holder.client.tenancy(b"mine")
    found = verify_tenancy(
        evidence.document, evidence.statement, policy_of(holder), nonce=b"mine", now_ms=int(time.time() * 1000)
    )
    key = holder.host.measurement.sealing_public_key
    assert found == Tenancy("test", "e1", 1, Role.ACTIVE, key)


async def test_a_ticket_for_another_fences_a_real_host_for_good(holder: Any) -> None:
    await holder.call("keeper", "put", 1)
    for wrong, reason in (
        (b"no ticket", ContinuityCode.APPROVAL),
        (sign_ticket(Ticket("test", "e1", 1, bytes(32)), holder.key), ContinuityCode.TERM),
        (sign_ticket(Ticket("test", "e2", 2, bytes(32)), holder.key), ContinuityCode.SLOT),
        (sign_ticket(Ticket("test", "e1", 2, bytes(32)), holder.other_key), ContinuityCode.APPROVAL),
    ):
        with pytest.raises(CallError) as refused:
            await holder.client.present(wrong)
        assert refused.value.details["reason"] == reason
        await holder.call("keeper", "put", 1)
    slow = asyncio.create_task(holder.call("keeper", "slowly", 0.3))
    await until(lambda: holder.host.router.in_flight == 1)
    taken = await holder.client.present(sign_ticket(Ticket("test", "e1", 2, bytes(32)), holder.key))
    assert taken == Takeover("e1", 1, holder=False)
    assert await slow == 2
    with pytest.raises(CallError, match="retired"):
        await holder.call("keeper", "put", 2)


async def test_a_role_changes_by_one_thing_at_a_time(holder: Any) -> None:
    part, ticket = holder.host.continuity, sign_ticket(Ticket("test", "e1", 2, bytes(32)), holder.key)
    pushing = asyncio.create_task(holder.push(manifest(holder, 2, "0.2.0")))
    await until(lambda: holder.host.activating)
    for work in (part.present(ticket), part.backup()):
        with pytest.raises(CallError, match="an activation is under way") as refused:
            await work
        assert refused.value.code is Code.CONFLICT
    await pushing
    slow = asyncio.create_task(holder.call("keeper", "slowly", 0.3))
    await until(lambda: holder.host.router.in_flight == 1)
    presenting = asyncio.create_task(part.present(ticket))
    await until(lambda: part._is_taking)
    with pytest.raises(CallError, match="a takeover, ticket or restore is under way"):
        await part.present(ticket)
    await presenting
    await slow


async def test_a_backup_is_restored_into_nothing_but_an_empty_standby(holder: Any) -> None:
    own = holder.host.measurement.sealing_public_key
    ticket = sign_ticket(Ticket("test", "e1", 2, own, bytes(48)), holder.key)
    with pytest.raises(CallError, match="is active for slot e1 already"):
        await holder.client.restore_offer(ticket, (b"share", b"share"), 10)
    for work in (holder.client.restore_piece(0, b"0123456789"), holder.client.restore()):
        with pytest.raises(CallError) as refused:
            await work
        assert refused.value.code is Code.CONFLICT
    await holder.call("keeper", "put", 1)


async def test_state_of_a_provider_that_does_not_run_here_is_not_taken_in(holder: Any) -> None:
    with pytest.raises(ValueError, match="crypto"):
        await holder.host.continuity.import_states({"crypto": b""})


def policy_of(holder: Any) -> Policy:
    return Policy(
        pinned=Roots.from_digests([holder.root]),
        simulated=True,
        pcrs={index: (value,) for index, value in holder.start.pcrs.items()},
        deployment="test",
    )


def asking(holder: Any, answers: int | None = None) -> Any:
    """Over the parents, as another enclave asks; after so many answers the rest get lost."""
    left = [answers]

    async def ask(message: bytes) -> bytes:
        answer: bytes = await holder.client._hub.ask("e1-new", "host", TOPIC, message, 20.0)
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise CallError(Code.UNAVAILABLE, "the answer got lost")
        return answer

    return ask
