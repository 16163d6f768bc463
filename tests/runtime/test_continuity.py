"""The host's part in continuity: real kvp and crypto providers go over between two hosts, through parents that lie.

May not: start processes; the hosts here are their continuity, their providers and a simulated NSM.
Rule: docs/continuity.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tea.protocol.channels import Channel
from tea.protocol.errors import CallError, Code
from tea.providers.testing import InMemoryServices, invoke, start_provider
from tea.providers.vmh import Vmh
from tea.runtime import continuity
from tea.runtime.continuity import TOPIC, Continuity
from tea.trust.approval import Approvers
from tea.trust.continuity import ContinuityCode, Role, Ticket, add_signature, sign_ticket
from tea.trust.handover_holder import HANDING_MS
from tea.trust.handover_messages import Commit, Fetch, Hello

from .continuity_hosts import COUNTER, SLOT, A, Ask, B, C, OneHost, fresh, holding


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(continuity, "FIRST_PAUSE", 0.0)


def to(other: Continuity) -> Ask:
    """Parents that carry faithfully."""

    async def ask(message: bytes) -> bytes:
        return await other.answer("e1-new", message)

    return ask


def losing(other: Continuity, lost: Callable[[int], bool]) -> Ask:
    """Parents that carry every message there, and lose answers by their number."""
    count = 0

    async def ask(message: bytes) -> bytes:
        nonlocal count
        answer = await other.answer("e1-new", message)
        count += 1
        if lost(count):
            raise CallError(Code.UNAVAILABLE, "no answer came")
        return answer

    return ask


async def test_keys_and_state_go_over_and_their_actor_notices_nothing() -> None:
    old_host, old = await holding()
    await invoke(old_host.providers["kvp"], "set", "k", b"v" * 400_000, call=COUNTER)
    handle = await invoke(old_host.providers["crypto"], "generate", "ed25519", call=COUNTER)
    public = await invoke(old_host.providers["crypto"], "public_key", handle, call=COUNTER)
    new_host, new = await fresh(revision=2)
    assert await new.take_over(to(old))
    assert new.serves and not old.serves
    assert (new.tenure.term, old.tenure.role) == (2, Role.RETIRED)
    assert old_host.frozen and not new_host.frozen
    assert await invoke(new_host.providers["kvp"], "get", "k", call=COUNTER) == b"v" * 400_000
    assert await invoke(new_host.providers["crypto"], "public_key", handle, call=COUNTER) == public
    third_host, third = await fresh(revision=2)
    assert await third.take_over(to(new))
    assert third.tenure.term == 3
    assert await invoke(third_host.providers["kvp"], "get", "k", call=COUNTER) == b"v" * 400_000


@pytest.mark.parametrize("which", range(1, 8))
async def test_any_one_answer_may_get_lost(which: int) -> None:
    old_host, old = await holding()
    await invoke(old_host.providers["kvp"], "set", "k", bytes(300_000), call=COUNTER)
    _, new = await fresh()
    assert await new.take_over(losing(old, lambda count: count == which))
    assert new.serves and not old.serves


async def test_a_commit_that_never_arrives_leaves_no_holder_and_loses_nothing() -> None:
    _, old = await holding()
    _, new = await fresh()
    with pytest.raises(CallError) as caught:
        await new.take_over(losing(old, lambda count: count > 3))
    assert caught.value.code is Code.UNAVAILABLE
    assert (old.tenure.role, new.tenure.role) == (Role.RETIRED, Role.PREPARED)
    assert await new.finish(to(old))
    assert new.serves
    with pytest.raises(CallError) as conflict:
        await new.finish(to(old))
    assert conflict.value.code is Code.CONFLICT


async def test_a_forged_commit_makes_no_holder() -> None:
    _, old = await holding()
    _, new = await fresh()
    faithful = to(old)
    count = 0

    async def forging(message: bytes) -> bytes:
        nonlocal count
        count += 1
        return Commit(bytes(32)).encode() if count > 3 else await faithful(message)

    with pytest.raises(CallError) as caught:
        await new.take_over(forging)
    assert caught.value.details["reason"] == "proof"
    assert not new.serves and not old.serves
    assert await new.finish(faithful)


async def test_a_copy_leaves_the_holder_serving() -> None:
    old_host, old = await holding()
    await invoke(old_host.providers["kvp"], "set", "k", b"1", call=COUNTER)
    new_host, new = await fresh()
    assert await new.take_over(to(old), copy=True) is False
    assert old.serves and not old_host.frozen
    assert new.tenure.role is Role.STANDBY
    await invoke(old_host.providers["kvp"], "set", "k", b"2", call=COUNTER)
    await new.take_over(to(old), copy=True)
    assert await invoke(new_host.providers["kvp"], "get", "k", call=COUNTER) == b"2"


async def test_a_receiver_whose_provider_refuses_the_state_lets_the_holder_go_on_at_once() -> None:
    old_host, old = await holding()
    new_host, new = await fresh()
    new_host.import_error = ValueError("kvp takes no such state")
    with pytest.raises(CallError) as caught:
        await new.take_over(to(old))
    assert caught.value.code is Code.CONFLICT
    assert old.serves and not old_host.frozen
    assert new.tenure.role is Role.EMPTY
    new_host.import_error = None
    assert await new.take_over(to(old))


async def test_a_holder_goes_on_when_the_receiver_vanishes() -> None:
    old_host, old = await holding()
    _, new = await fresh()
    with pytest.raises(CallError):
        await new.take_over(losing(old, lambda count: count > 1))
    assert old.tenure.role is Role.HANDING and old_host.frozen
    await old.expire()
    assert not old.serves
    with pytest.raises(CallError) as caught:
        await (await fresh())[1].take_over(to(old))
    assert caught.value.details["reason"] == "state"
    old_host.skew_ms = HANDING_MS + 1000
    await old.expire()
    assert old.serves and not old_host.frozen


async def test_an_export_that_fails_leaves_the_holder_serving() -> None:
    old_host, old = await holding()

    async def failing() -> dict[str, bytes]:
        raise RuntimeError("a provider failed")

    old_host.export_states = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a provider failed"):
        await (await fresh())[1].take_over(to(old))
    assert old.serves and not old_host.frozen


async def test_another_image_gets_nothing_and_its_try_is_logged_without_a_secret() -> None:
    old_host, old = await holding()
    await invoke(old_host.providers["kvp"], "set", "k", b"TOP SECRET", call=COUNTER)
    _, thief = await fresh(image={index: bytes([9]) * 48 for index in range(3)})
    with pytest.raises(CallError) as caught:
        await thief.take_over(to(old))
    assert (caught.value.code, caught.value.details["reason"]) == (Code.UNTRUSTED, "pcr")
    assert old.serves and not old_host.frozen
    assert any("refused" in line for line in old_host.logs)
    assert "SECRET" not in "".join(old_host.logs) + repr(caught.value)


@pytest.mark.parametrize(
    "message", [b"", b"\xa0", Fetch(0).encode(), Hello("d", "e9", False, bytes(32)).encode(), b"\xa1\x63tea\x61x"]
)
async def test_what_is_no_beginning_is_refused(message: bytes) -> None:
    _, old = await holding()
    with pytest.raises(CallError) as caught:
        await old.answer("stranger", message)
    assert caught.value.code is Code.UNTRUSTED
    assert old.serves


async def test_an_unknown_message_within_a_handover_is_refused() -> None:
    _, old = await holding()
    await old.answer("e1-new", Hello("d", SLOT, False, bytes(32)).encode())
    with pytest.raises(CallError) as caught:
        await old.answer("e1-new", Commit(bytes(32)).encode())
    assert caught.value.details["reason"] == "malformed"


async def test_nobody_answering_leaves_everything_as_it_was() -> None:
    async def silence(message: bytes) -> bytes:
        raise CallError(Code.UNAVAILABLE, "nobody there")

    _, new = await fresh()
    with pytest.raises(CallError) as caught:
        await new.take_over(silence)
    assert caught.value.code is Code.UNAVAILABLE
    assert new.tenure.role is Role.EMPTY


async def test_two_receivers_at_a_time_end_in_one_holder() -> None:
    _, old = await holding()
    parts = [(await fresh())[1] for _ in range(3)]
    results = await asyncio.gather(*(part.take_over(to(old)) for part in parts), return_exceptions=True)
    assert sum(part.serves for part in (old, *parts)) == 1
    assert any(result is True for result in results) or old.serves


# -- tickets


def ticket_for(host: OneHost, term: int, backup: bytes | None = None) -> bytes:
    return add_signature(sign_ticket(Ticket("d", SLOT, term, host.key.public, backup), A), B)


async def test_a_ticket_makes_a_standby_the_holder_and_fences_the_one_before() -> None:
    old_host, old = await holding()
    new_host, new = await fresh()
    await new.take_over(to(old), copy=True)
    ticket = ticket_for(new_host, 5)
    await new.present(ticket)
    assert new.serves and new.tenure.term == 5
    await old.present(ticket)
    assert not old.serves and old_host.frozen
    with pytest.raises(CallError):
        await old.present(ticket)


async def test_a_ticket_counts_by_the_approvers_of_now_and_not_by_those_of_the_image() -> None:
    _, old = await holding()
    host, part = await fresh()
    await part.take_over(to(old), copy=True)
    ticket = ticket_for(host, 5)
    host.quorum = Approvers("d", 2, 2, tuple(sorted((A.public, C.public), key=lambda key: key.text)))
    with pytest.raises(CallError) as caught:
        await part.present(ticket)
    assert caught.value.details["reason"] == ContinuityCode.APPROVAL
    await part.present(add_signature(sign_ticket(Ticket("d", SLOT, 5, host.key.public), A), C))
    assert part.serves


async def test_a_holder_that_a_ticket_fences_retires_though_its_actors_are_not_done() -> None:
    old_host, old = await holding()
    new_host, _ = await fresh()

    async def busy() -> None:
        raise CallError(Code.CONFLICT, "actors were not done")

    old_host.freeze = busy  # type: ignore[method-assign]
    await old.present(ticket_for(new_host, 5))
    assert not old.serves
    assert any("retired by a ticket" in line for line in old_host.logs)


async def test_a_ticket_of_too_few_or_for_a_backup_or_where_nothing_is_changes_nothing() -> None:
    host, part = await fresh()
    few = sign_ticket(Ticket("d", SLOT, 5, host.key.public), A)
    for ticket in (few, ticket_for(host, 5, bytes(48)), ticket_for(host, 5)):
        with pytest.raises(CallError) as caught:
            await part.present(ticket)
        assert caught.value.code is Code.UNTRUSTED
        assert part.tenure.role is Role.EMPTY


# -- the way there


async def test_messages_travel_as_peers_requests_to_the_host() -> None:
    _, old = await holding()
    services = InMemoryServices("vmh")
    vmh = await start_provider(Vmh, services)
    vmh.serve_host(TOPIC, old.answer)

    async def ask(message: bytes) -> bytes:
        answer: bytes = await services.parent.send(Channel.PEERS, "answer", "e1-new", "host", TOPIC, message)
        return answer

    _, new = await fresh()
    assert await new.take_over(ask)
    with pytest.raises(CallError) as caught:
        await services.parent.send(Channel.PEERS, "answer", "e1-new", "host", "other", b"")
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(CallError):
        await services.parent.send(Channel.PEERS, "answer", "e1-new", "host", TOPIC, bytes(600_000))
    with pytest.raises(RuntimeError):
        Vmh(vmh.config).serve_host(TOPIC, old.answer)
