"""The rounds' promises, held against a network in memory whose bus loses and reorders and some of whose members lie.

Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from round_commands import Quarantine, Reload
from round_limits import Limits
from round_network import Equivocator, Member, Network, block, state
from round_reports import status_of, summary_of

from tea.sdk.rounds import EvidenceKind, parse_certificate, parse_evidence, quorum, verify_proof


def certified_root(member: Member, height: int) -> bytes | None:
    found = member.book.rounds.get(height)
    return None if found is None or found.certificate is None else found.certificate.state_root


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 16])
def test_honest_members_certify_every_block_with_one_nsm_call_each(count: int) -> None:
    network = Network(count)
    for height in range(1, 4):
        network.head(height)
        network.deliver()
    network.tick(4)
    for member in network.members.values():
        assert member.attests == 3
        for height in range(1, 4):
            assert certified_root(member, height) == state(height).root
            assert member.book.rounds[height].is_complete(network.slots)
    assert network.verifications == 3 * count * count
    assert not network.bus


def test_a_complete_round_makes_no_more_traffic() -> None:
    network = Network(5)
    network.head(1)
    network.deliver()
    for _ in range(50):
        for member in network.members.values():
            member.tick()
    assert not network.bus


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (5, 1), (7, 2), (10, 3), (16, 5)])
def test_up_to_a_third_of_liars_are_named_and_the_rest_certify(count: int, liars: int) -> None:
    network = Network(count)
    lying = network.slots[:liars]
    for number, slot in enumerate(lying):
        network.boot(slot, lie=f"lie {number}", lies_from=2)
    for height in range(1, 4):
        network.head(height)
        network.deliver()
    network.tick(30)
    for member in network.honest():
        assert [certified_root(member, height) for height in (1, 2, 3)] == [state(h).root for h in (1, 2, 3)]
        assert member.book.evidence.named == lying
        assert status_of(member.book, 0).disputed == 2
        assert summary_of(member.book, member.book.rounds[2]).named == lying
        assert summary_of(member.book, member.book.rounds[1]).named == []


def test_evidence_of_a_dissent_holds_the_very_key_with_both_values() -> None:
    network = Network(4)
    network.boot("e2", lie="a lie")
    network.head(1)
    network.deliver()
    network.tick(10)
    for member in network.honest():
        (name,) = member.book.evidence.ids()
        assert name == "dissent-e2-1"
        evidence = member.book.evidence.get(name)
        assert evidence is not None and evidence == parse_evidence(evidence.encode())
        assert evidence.kind is EvidenceKind.DISSENT and evidence.accused == "e2"
        difference = evidence.difference
        assert difference is not None and difference.key == b"key 7"
        certificate = parse_certificate(evidence.certificate or b"")
        assert verify_proof(certificate.state_root, b"key 7", difference.certified) == b"value 7 at 1"
        assert verify_proof(state(1, "a lie").root, b"key 7", difference.accused) == b"a lie"


def test_one_member_walks_and_the_others_are_told() -> None:
    network = Network(7)
    network.boot("e7", lie="a lie")
    network.head(1)
    asked = 0
    while network.bus:
        asked += network.bus[0][1] == "e7" and b"node?" in network.bus[0][2]
        sender, to, body = network.bus.pop(0)
        network.members[to].hear(sender, body)
    network.tick()
    assert 1 <= asked <= 3  # the depth of a tree of 24 entries, once
    assert all(member.book.evidence.get("dissent-e7-1") for member in network.honest())
    for member in network.honest():
        evidence = member.book.evidence.get("dissent-e7-1")
        assert evidence is not None and evidence.difference is not None


def test_an_accused_that_does_not_answer_is_named_without_the_key() -> None:
    network = Network(4)
    network.boot("e2", lie="a lie").deaf = True
    network.head(1)
    network.deliver()
    network.tick(200)
    for member in network.honest():
        evidence = member.book.evidence.get("dissent-e2-1")
        assert evidence is not None and evidence.difference is None
    assert not network.bus


def test_another_block_at_a_height_is_named_as_that() -> None:
    network = Network(4)
    network.members["e3"].fork = "fork"
    network.head(1)
    network.deliver()
    for member in network.honest():
        assert member.book.evidence.ids() == ["other-block-e3-1"]
        assert certified_root(member, 1) == state(1).root


def test_three_members_bear_no_liar_they_only_differ() -> None:
    network = Network(3)
    network.boot("e1", lie="a lie")
    network.head(1)
    network.deliver()
    network.tick(100)
    for member in network.members.values():
        assert certified_root(member, 1) is None
        assert member.book.evidence.named == []
        summary = summary_of(member.book, member.book.rounds[1])
        assert summary.disputed and not summary.certified and not summary.named
        assert summary.roots["e1"] != summary.roots["e2"] == summary.roots["e3"]


def test_exactly_two_thirds_are_not_enough() -> None:
    assert [quorum(n) for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 16)] == [1, 2, 3, 3, 4, 5, 5, 7, 7, 11]
    network = Network(6)
    for slot in ("e1", "e2"):
        network.boot(slot, lie="a lie")
    network.head(1)
    network.deliver()
    network.tick(60)
    for member in network.members.values():
        assert certified_root(member, 1) is None and member.book.evidence.named == []


def test_an_equivocator_is_named_with_both_documents() -> None:
    network = Network(4)
    network.boot("e4", Equivocator)
    network.head(1)
    network.deliver()
    network.tick(20)
    for member in network.honest():
        assert certified_root(member, 1) == state(1).root
        assert set(member.book.evidence.named) <= {"e4"}
    caught = [m for m in network.honest() if "equivocation-e4-1" in m.book.evidence.ids()]
    assert caught
    evidence = caught[0].book.evidence.get("equivocation-e4-1")
    assert evidence is not None and len(evidence.attestations) == 2 and evidence.certificate is None


def test_the_silent_are_counted_and_never_accused() -> None:
    network = Network(5)
    network.members["e5"].silent = True
    network.head(1)
    network.deliver()
    assert all(certified_root(member, 1) is None for member in network.honest())
    network.tick(200)
    for member in network.honest():
        assert certified_root(member, 1) == state(1).root
        assert member.attests == 1
        summary = summary_of(member.book, member.book.rounds[1])
        assert summary.silent == ["e5"] and summary.named == []
    assert not network.bus


def test_a_member_that_finds_itself_dissenting_quarantines_and_loads_anew() -> None:
    network = Network(4)
    liar = network.boot("e1", lie="a lie")
    network.head(1)
    network.deliver()
    assert liar.asked[:2] == [Quarantine(1), Reload()]
    assert liar.book.recovery.quarantined and liar.book.evidence.named == []
    assert all(member.asked == [] for member in network.honest())


def test_a_member_never_attests_a_second_root_for_one_block() -> None:
    network = Network(4)
    liar = network.boot("e1", lie="a lie")
    network.head(1)
    network.deliver()
    liar.lie = ""
    liar.head(1)
    network.kill("e2")
    network.boot("e2").head(1)
    network.deliver()
    network.tick(40)
    for slot in ("e3", "e4"):
        assert network.members[slot].book.evidence.ids() == ["dissent-e1-1"]


def test_a_restarted_member_fetches_certificates_and_completes_open_rounds() -> None:
    network = Network(5)
    network.boot("e1", lie="a lie", lies_from=4)
    for height in range(1, 6):
        network.head(height)
        network.deliver()
    network.kill("e5")
    for height in range(6, 10):
        network.head(height)
        network.deliver()
        network.tick(5)
    assert all(certified_root(member, 8) is None for member in network.honest())
    back = network.boot("e5")
    for height in range(1, 10):
        back.head(height)
    network.deliver()
    network.tick(40)
    for member in network.honest():
        assert [certified_root(member, h) for h in range(1, 10)] == [state(h).root for h in range(1, 10)]
        assert member.book.evidence.named == ["e1"]
    # Heights certified before are learned from certificates, not by everybody attesting anew.
    assert back.attests <= 5


def test_a_restarted_actor_learns_the_heights_that_others_have_open() -> None:
    network = Network(4)
    network.kill("e4")
    network.boot("e3", lie="a lie")
    network.head(1)
    network.deliver()
    network.tick(8)
    back = network.boot("e4")
    back.heights.add(1)  # its layer 1 has it, and does not tell it again
    network.tick(60)
    assert certified_root(back, 1) == state(1).root


def test_a_restart_in_one_round_is_legitimate() -> None:
    network = Network(5)
    network.boot("e1", lie="a lie")
    network.members["e4"].silent = True
    network.head(1)
    network.deliver()
    network.tick(6)
    network.kill("e5")
    network.boot("e5").head(1)
    network.deliver()
    network.members["e4"].silent = False
    network.tick(80)
    for member in network.honest():
        assert certified_root(member, 1) == state(1).root
        assert set(member.book.evidence.named) <= {"e1"}
    # Who was there from the start heard the liar; who came late took the certificate.
    assert network.members["e2"].book.evidence.named == network.members["e3"].book.evidence.named == ["e1"]


def test_two_enclaves_alive_in_one_slot_void_it() -> None:
    network = Network(4)
    twin = network.boot("e1")
    for height in (1, 2, 3):
        network.head(height)
        network.deliver()
    other = network.boot("e1")
    other.head(4)
    network.head(4)
    network.deliver()
    network.tick(8)
    network.members["e1"] = twin
    network.head(5)
    network.deliver()
    network.tick(8)
    member = network.members["e2"]
    assert member.book.boots.is_void("e1", twin.enclave.module_id)
    assert member.book.boots.is_void("e1", other.enclave.module_id)
    assert "e1" not in member.book.rounds[5].votes(network.slots, member.book.boots)
    assert member.book.evidence.named == []
    # A new boot takes the slot.
    fresh = network.boot("e1")
    for height in (6, 7):
        network.head(height)
        network.deliver()
    assert not member.book.boots.is_void("e1", fresh.enclave.module_id)
    assert "e1" in member.book.rounds[7].votes(network.slots, member.book.boots)


def test_memory_is_bounded_by_the_heights_kept() -> None:
    limits = Limits(keep=8, ahead=4)
    network = Network(4, limits=limits)
    network.boot("e2", lie="a lie")
    for height in range(1, 40):
        network.head(height)
        network.deliver()
        network.tick()
    for member in network.honest():
        assert sorted(member.book.rounds) == list(range(32, 40))
        assert len(member.book.evidence.ids()) <= 32


def test_a_member_that_was_away_too_long_goes_on_with_what_is_kept() -> None:
    limits = Limits(keep=8, ahead=4)
    network = Network(4, limits=limits)
    network.kill("e4")
    for height in range(1, 30):
        network.head(height)
        network.deliver()
        network.tick(5)
    back = network.boot("e4")
    for height in range(1, 30):
        back.head(height)
    network.deliver()
    network.tick(30)
    assert all(certified_root(back, height) == state(height).root for height in range(22, 30))


def test_a_replaced_block_is_attested_anew() -> None:
    network = Network(4)
    network.members["e4"].silent = True
    network.kill("e3")
    network.head(1)
    network.deliver()
    network.tick(6)
    for member in network.members.values():
        member.fork = "other"
        member.silent = False
    network.boot("e3").fork = "other"
    network.head(1)
    network.deliver()
    network.tick(60)
    for member in network.members.values():
        found = member.book.rounds[1]
        assert found.certificate is not None and found.certificate.block_hash == block(1, "other")
        assert member.book.evidence.named == []


def test_an_honest_member_that_followed_a_replaced_block_later_than_the_others_is_not_named_for_it() -> None:
    network = Network(4)
    for slot in ("e2", "e3", "e4"):
        network.members[slot].fork = "other"
    network.head(1)  # e1 attests the block that is about to be replaced
    network.deliver()
    assert network.members["e2"].book.evidence.named == ["e1"]
    network.members["e1"].fork = "other"
    network.head(1, "e1")
    network.tick(6)
    for slot in ("e2", "e3", "e4"):
        assert certified_root(network.members[slot], 1) == state(1).root
        assert network.members[slot].book.evidence.named == []


def test_a_member_that_stays_with_another_block_stays_named_and_takes_no_more_room() -> None:
    network = Network(4)
    network.members["e3"].fork = "fork"
    network.head(1)
    network.deliver()
    network.tick(60)
    for slot in ("e1", "e2", "e4"):
        assert network.members[slot].book.evidence.ids() == ["other-block-e3-1"]
        assert len(network.members[slot].book.rounds[1].documents["e3"]) == 1


@st.composite
def casts(draw: st.DrawFn) -> tuple[int, list[str], int]:
    """(members, what each of the first few does, seed): at most a third misbehaves."""
    count = draw(st.integers(1, 7))
    kinds = st.sampled_from(["lie", "fork", "equivocate", "silent", "late", "babble"])
    return count, draw(st.lists(kinds, max_size=(count - 1) // 3)), draw(st.integers(0, 1 << 32))


def _cast(network: Network, roles: list[str]) -> dict[str, str]:
    parts = dict(zip(network.slots, roles, strict=False))
    for slot, role in parts.items():
        if role == "lie":
            network.boot(slot, lie=f"lie of {slot}")
        elif role == "equivocate":
            network.boot(slot, Equivocator)
        elif role == "fork":
            network.members[slot].fork = "fork"
        elif role == "silent":
            network.members[slot].silent = True
        elif role == "late":
            network.kill(slot)
    return parts


def _babble(network: Network, slot: str) -> None:
    """Say again, as this slot, things that others said, to anybody."""
    for _ in range(3):
        if network.bus:
            _, _, body = network.random.choice(network.bus)
            network.bus.append((slot, network.random.choice(network.slots), body))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(casts(), st.floats(0, 0.6), st.booleans())
def test_whatever_gets_lost_the_honest_certify_and_are_never_named(
    cast: tuple[int, list[str], int], loss: float, shuffle: bool
) -> None:
    count, roles, seed = cast
    network = Network(count, seed)
    parts = _cast(network, roles)
    heights = range(1, 5)
    babblers = [slot for slot, role in parts.items() if role == "babble"]
    for height in heights:
        network.head(height)
        for slot in babblers:
            _babble(network, slot)
        network.tick(network.random.randrange(4), loss=loss, shuffle=shuffle)
    for slot in [slot for slot, role in parts.items() if role == "late"]:
        for height in heights:
            network.boot(slot).heights.add(height) if slot not in network.members else network.members[slot].head(
                height
            )
    network.tick(90)
    for member in network.honest():
        named = set(member.book.evidence.named)
        assert named <= {slot for slot, role in parts.items() if role in ("lie", "fork", "equivocate")}
        assert {slot for slot, role in parts.items() if role in ("lie", "fork")} <= named
        for height in heights:
            found = member.book.rounds.get(height)
            if found is not None and found.view is not None:
                assert certified_root(member, height) == state(height).root


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(3, 6), st.integers(0, 1 << 32), st.data())
def test_no_number_of_liars_gets_an_honest_member_named_without_two_thirds(
    count: int, seed: int, data: st.DataObject
) -> None:
    network = Network(count, seed)
    liars = data.draw(st.integers(0, quorum(count) - 1))
    for slot in network.slots[:liars]:
        network.boot(slot, lie="one lie for all")
    for height in (1, 2):
        network.head(height)
        network.tick(2, loss=0.3, shuffle=True)
    network.tick(20)
    honest = {member.slot for member in network.honest()}
    for member in network.honest():
        assert honest.isdisjoint(member.book.evidence.named)
