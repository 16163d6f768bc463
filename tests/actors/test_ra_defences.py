"""What peers and parents may try against a member of the rounds, and what comes of it: a counter, and nothing else.

Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

import pytest
from round_book import RoundBook
from round_commands import Command, Quarantine, Rejoin, Reload, Verify
from round_limits import Limits
from round_messages import (
    Attestation,
    Certified,
    Contribution,
    Found,
    NodeFound,
    NodeWanted,
    Offer,
    Want,
    encode_message,
)
from round_network import Member, Network, block, state
from round_recovery import FIRST_WAIT, LONGEST_WAIT, RETRY, Recovery
from round_state import MAX_BOOTS, MAX_VALUES, Boots

from tea.sdk.rounds import Certificate, RoundClaim, SlotAttestation


def certified(height: int = 1, count: int = 4) -> tuple[Network, Certificate]:
    """A network of which e1 is killed, and the certificate that the others made without it."""
    network = Network(count)
    network.kill("e1")
    network.head(height)
    network.deliver()
    network.tick(8)
    found = network.members["e2"].book.rounds[height].certificate
    assert found is not None
    return network, found


def offered(network: Network, height: int = 1) -> Member:
    """e1, back with an empty memory, after it has asked e2 for the certificate that e2 offered."""
    back = network.boot("e1")
    back.silent = True
    back.head(height)
    back.book.message("e2", Offer(height))
    back.tick()
    assert back.book.rounds[height].wanted == "e2"
    return back


def with_first(held: Certificate, **changes: object) -> Certificate:
    first = dataclasses.replace(held.attestations[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(held, attestations=(first, *held.attestations[1:]))


def test_a_good_certificate_is_taken() -> None:
    network, held = certified()
    back = offered(network)
    back.hear("e2", _message(held.encode()))
    assert back.book.rounds[1].certificate == held
    assert back.book.counters["verified"] == 3


def _message(data: bytes, height: int = 1) -> bytes:
    return encode_message(Certified(height, data))


@pytest.mark.parametrize(
    ("spoil", "counter"),
    [
        (lambda held: b"no certificate", "malformed"),
        (lambda held: dataclasses.replace(held, height=2).encode(), "refused"),
        (lambda held: dataclasses.replace(held, state_root=bytes(32)).encode(), "refused"),
        (lambda held: dataclasses.replace(held, block_hash=bytes(32)).encode(), "refused"),
        (lambda held: dataclasses.replace(held, attestations=held.attestations[1:]).encode(), "refused"),
        (lambda held: dataclasses.replace(held, attestations=(held.attestations[0],) * 3).encode(), "refused"),
        (lambda held: with_first(held, slot="e0").encode(), "refused"),
        (lambda held: with_first(held, slot="e1").encode(), "refused"),
        (lambda held: with_first(held, document=b"forged").encode(), "refused"),
        (lambda held: with_first(held, statement=b"none").encode(), "malformed"),
    ],
)
def test_a_bad_certificate_is_refused_and_another_peer_is_asked(
    spoil: Callable[[Certificate], bytes], counter: str
) -> None:
    network, held = certified()
    back = offered(network)
    back.hear("e2", _message(spoil(held)))
    assert back.book.rounds[1].certificate is None
    assert back.book.counters[counter] >= 1
    back.book.message("e3", Offer(1))
    back.tick()
    assert back.book.rounds[1].wanted == "e3"
    back.hear("e3", _message(held.encode()))
    assert back.book.rounds[1].certificate == held


def test_a_certificate_that_nobody_asked_for_is_dropped_unread() -> None:
    network, held = certified()
    back = network.boot("e1")
    back.head(1)
    back.hear("e2", _message(held.encode()))
    assert back.book.counters["late"] == 1 and back.book.counters["verified"] == 0


def test_a_peer_that_offers_and_does_not_send_is_passed_over() -> None:
    network, _ = certified()
    back = offered(network)
    back.book.message("e3", Offer(1))
    for _ in range(Limits().answer):
        back.tick()
    assert back.book.rounds[1].wanted == "e3"


def test_members_that_dissent_make_no_certificate_together() -> None:
    network, held = certified()
    liar = network.members["e2"].enclave
    values = (bytes(32),)
    lying = liar.attest(RoundClaim(1, block(1), state(1, "a lie").root, values))
    mixed = dataclasses.replace(held, attestations=(lying, *held.attestations[1:]))
    back = offered(network)
    back.hear("e2", _message(mixed.encode()))
    assert back.book.rounds[1].certificate is None and back.book.counters["refused"] == 1


def test_one_enclave_is_heard_for_one_slot() -> None:
    network = Network(4)
    member = network.members["e1"]
    for slot in network.slots:
        network.members[slot].enclave.module_id = "i-shared-enc1"
    network.head(1)
    network.deliver()
    assert member.book.rounds[1].certificate is None
    assert member.book.counters["refused"] == 3


def test_anothers_document_under_a_false_name_does_not_keep_the_true_one_out() -> None:
    network = Network(4)
    network.head(1)
    member = network.members["e1"]
    held: list[tuple[str, str, bytes]] = []
    while network.bus:
        sender, to, body = network.bus.pop(0)
        if to == "e1" and b"attestation" in body:
            held.append((sender, to, body))
            member.hear("e4" if sender != "e4" else "e3", body)
        else:
            network.members[to].hear(sender, body)
    assert member.book.counters["refused"] == 3
    for sender, _, body in held:
        member.hear(sender, body)
    assert member.book.rounds[1].is_complete(network.slots)


def test_a_replayed_document_is_not_live() -> None:
    network = Network(4)
    network.head(1)
    network.deliver()
    old = network.members["e2"].book.rounds[1].own
    assert old is not None
    back = network.boot("e1")
    back.silent = True
    back.head(1)
    back.book.message("e2", Attestation(1, old.document, old.statement))
    back.run()
    assert back.book.counters["stale"] == 1 and back.book.counters["verified"] == 0


@pytest.mark.parametrize(
    "attestation",
    [
        lambda e, c: e.attest(dataclasses.replace(c, height=2)),
        lambda e, c: e.attest(c, kind="actor"),
        lambda e, c: SlotAttestation("e2", b"document", b"no statement"),
    ],
)
def test_a_document_about_something_else_is_malformed(attestation: Callable[..., SlotAttestation]) -> None:
    network = Network(4)
    member = network.members["e1"]
    member.head(1)
    contribution = member.book.rounds[1].contribution
    assert contribution is not None
    made = attestation(network.members["e2"].enclave, RoundClaim(1, block(1), state(1).root, (contribution,)))
    member.book.message("e2", Attestation(1, made.document, made.statement))
    assert member.book.counters["malformed"] == 1


def test_a_slot_has_a_bounded_number_of_contributions_documents_and_verifications() -> None:
    network = Network(4)
    member = network.members["e1"]
    member.head(1)
    found = member.book.rounds[1]
    assert found.contribution is not None
    for number in range(50):
        member.book.message("e2", Contribution(1, bytes([number]) * 32, False))
        claim = RoundClaim(1, block(1), state(1, str(number)).root, (found.contribution,))
        made = network.members["e2"].enclave.attest(claim)
        member.book.message("e2", Attestation(1, made.document, made.statement))
        member.run()
    assert len(found.values["e2"]) == MAX_VALUES
    assert member.book.counters["verified"] == 4 and len(found.documents["e2"]) == 4
    # It contradicted itself, so it counts for nothing; two of its documents are the evidence.
    assert found.vote("e2", member.book.boots) is None
    assert member.book.evidence.ids() == ["equivocation-e2-1"]
    for number in range(50):
        made = SlotAttestation("e3", bytes([number]), network.members["e3"].enclave.attest(claim).statement)
        member.book.message("e3", Attestation(1, made.document, made.statement))
        member.run()
    assert member.book.counters["refused"] == Limits().verifications
    assert member.book.counters["flooded"] == 50 - Limits().verifications


def test_heights_out_of_reach_take_no_memory() -> None:
    network = Network(4)
    member = network.members["e1"]
    for height in range(10_000, 10_200):
        member.book.message("e2", Contribution(height, bytes(32), False))
    assert len(member.book.rounds) == Limits().ahead
    member.head(5)
    assert len(member.book.rounds) == 1
    for height in (0, 6, 69, 70, 1 << 60):
        member.book.message("e2", Contribution(height, bytes(32), False))
    assert sorted(member.book.rounds) == [0, 5, 6, 69]


def test_a_member_whose_parent_ran_ahead_comes_back() -> None:
    network = Network(4)
    network.members["e1"].head(100_000)
    network.bus.clear()
    network.head(1)
    network.deliver()
    assert network.members["e1"].book.newest == 1
    assert all(member.book.rounds[1].certificate is not None for member in network.members.values())


def test_questions_are_answered_within_bounds() -> None:
    network = Network(4)
    network.head(1)
    network.deliver()
    member = network.members["e1"]
    for _ in range(100):
        member.book.message("e2", Want(1))
        member.book.message("e2", NodeWanted(1, b""))
    member.run()
    assert len(network.bus) == Limits().served
    member.book.message("e3", NodeWanted(1, b"\x10\xff"))
    member.book.message("e3", Want(2))
    member.run()
    assert len(network.bus) == Limits().served + 1


def test_false_keys_and_false_nodes_do_not_get_into_evidence() -> None:
    network = Network(4)
    network.boot("e2", lie="a lie").deaf = True
    network.head(1)
    network.deliver()
    member = network.members["e1"]
    root = state(1, "a lie").root
    truth, lie = state(1), state(1, "a lie")
    good = Found(1, "e2", root, b"key 7", truth.prove(b"key 7"), lie.prove(b"key 7"))
    for false in (
        Found(1, "e2", bytes(32), good.key, good.certified_proof, good.accused_proof),
        Found(1, "e2", root, b"key 8", good.certified_proof, good.accused_proof),
        Found(1, "e2", root, b"key 8", truth.prove(b"key 8"), lie.prove(b"key 8")),
        Found(1, "e2", root, good.key, good.accused_proof, good.certified_proof),
        Found(1, "e3", root, good.key, good.certified_proof, good.accused_proof),
        Found(2, "e2", root, good.key, good.certified_proof, good.accused_proof),
    ):
        member.book.message("e3", false)
    member.book.message("e2", NodeFound(1, b"", state(1).node(b"")))
    member.book.message("e3", NodeFound(1, b"", lie.node(b"")))
    evidence = member.book.evidence.get("dissent-e2-1")
    assert evidence is not None and evidence.difference is None
    member.book.message("e3", good)
    evidence = member.book.evidence.get("dissent-e2-1")
    assert evidence is not None and evidence.difference is not None and evidence.difference.key == b"key 7"
    assert member.book.evidence.get("dissent-e3-1") is None


def test_an_accused_that_has_forgotten_ends_the_walk() -> None:
    network = Network(4)
    network.boot("e2", lie="a lie").deaf = True
    network.head(1)
    network.deliver()
    member = network.members["e1"]
    member.book.message("e2", NodeFound(1, b"", None))
    for _ in range(40):
        member.tick()
    assert not [message for message in network.bus if message[0] == "e1"]


def test_commands_whose_round_is_gone_are_forgotten() -> None:
    network = Network(4)
    member = network.members["e1"]
    made = member.enclave.attest(RoundClaim(9, block(9), bytes(32), (bytes(32),)))
    claim = RoundClaim(9, block(9), bytes(32), (bytes(32),))
    member.book.contributed(9, bytes(32))
    member.book.contributing_failed(9)
    member.book.attested(claim, made.document, made.statement)
    member.book.attesting_failed(9)
    member.book.verified(Verify(made, claim, None), "i-1-enc1", 1)
    member.book.refused(Verify(made, claim, None))
    member.book.node(9, b"", None)
    member.book.rejoined("agrees")
    assert member.book.rounds == {} and not list(member.book.commands())


def test_a_book_is_a_members() -> None:
    with pytest.raises(ValueError, match="none of"):
        RoundBook(["e1"], "e2")


def test_boots_that_follow_each_other_are_restarts_and_boots_at_once_are_void() -> None:
    boots = Boots()
    for module, times in (("a", (1, 5)), ("b", (6, 9))):
        for time in times:
            boots.speaks("e1", module, time)
    assert not boots.is_void("e1", "a") and not boots.is_void("e1", "b")
    assert boots.slot_of("a") == "e1" and boots.slot_of("z") is None
    boots.speaks("e1", "a", 7)
    assert boots.is_void("e1", "a") and boots.is_void("e1", "b")
    boots.speaks("e1", "c", 10)
    assert not boots.is_void("e1", "c") and not boots.is_void("e1", "unknown")
    for number in range(20):
        boots.speaks("e1", f"m{number}", 100 + number)
    assert boots.slot_of("a") is None and boots.slot_of(f"m{20 - MAX_BOOTS}") == "e1"


def test_recovery_loads_anew_less_and_less_often_until_it_agrees() -> None:
    out: deque[Command] = deque()
    recovery = Recovery(out)
    recovery.agrees(1, b"root 1")
    recovery.dissents(2, b"root 2")
    assert list(out) == [Quarantine(2), Reload()] and recovery.quarantined
    recovery.dissents(3, b"root 3")
    out.clear()
    now = last = 0
    gaps: list[int] = []
    while len(gaps) < 9:
        now += 1
        recovery.tick(now)
        while out:
            if out.popleft() == Rejoin(3, b"root 3"):
                gaps.append(now - last)
                last = now
                recovery.rejoined("differs")
    assert gaps == [min(FIRST_WAIT << n, LONGEST_WAIT) for n in range(9)]
    recovery.tick(now := now + LONGEST_WAIT)
    recovery.rejoined("later")
    out.clear()
    recovery.tick(now + RETRY - 1)
    assert not out
    recovery.tick(now + RETRY)
    assert list(out) == [Rejoin(3, b"root 3")]
    recovery.rejoined("agrees")
    assert not recovery.quarantined
    recovery.rejoined("differs")
    assert list(out) == [Rejoin(3, b"root 3")]


def test_catching_up_asks_different_peers_for_different_heights() -> None:
    network = Network(7)
    for height in range(1, 7):
        network.head(height)
        network.deliver()
    network.kill("e7")
    network.tick(8)
    back = network.boot("e7")
    for height in range(1, 7):
        back.head(height)
    network.deliver()
    asked: set[str] = set()
    back.tick()
    asked |= {to for _, to, body in network.bus if b"want" in body}
    assert len(asked) == 6
