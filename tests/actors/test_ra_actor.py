"""The ra actor over the real nitro, layer1, clock and log providers; only the relay between enclaves is a double.

Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from ra import Ra
from round_messages import Attestation, Contribution, MalformedMessage, Offer, Want, decode_message, encode_message

from tea.protocol.channels import BlockChanges, Channel, Head
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.sdk import CallError, Code, binding, operation
from tea.sdk.system import System
from tea.sdk.testing import Harness, run_actor
from tea.sdk.testing.harness import EPOCH
from tea.trust import pcr
from tea.trust.policy import Member, Policy
from tea.trust.roots import Roots
from tea.trust.rounds import Difference, EvidenceKind, RoundClaim, verify_certificate, verify_evidence
from tea.trust.statement import Speaker, Statement

FOLDER = Path(__file__).resolve().parents[2] / "actors" / "ra"
SLOTS = ["e1", "e2", "e3", "e4"]
IMAGE = pcr.image_pcr(hashlib.sha384(b"image").digest())
MANIFEST = hashlib.sha384(b"test").digest()
LINKS: Mapping[str, list[str]] = yaml.safe_load((FOLDER / "bundle.yaml").read_text())["capabilities"]


class Attester:
    """One slot's NSM, and statements as a host makes them."""

    def __init__(self, ca: SimulatedCa, instance: str) -> None:
        self.module_id = f"{instance}-enc1"
        self.now = EPOCH
        self.failing = False
        pcrs = dict.fromkeys(pcr.IMAGE_PCRS, IMAGE)
        self._nsm = Nsm(SimulatedNsm(ca.issue_instance(instance, now=EPOCH), self.module_id, pcrs, lambda: self.now))

    def pcrs(self) -> Mapping[int, tuple[bool, bytes]]:
        return {}

    def random(self, size: int) -> bytes:
        return self._nsm.random(size)

    async def attest(
        self,
        kind: str,
        body: bytes,
        *,
        speaker: tuple[str, bytes] | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
        on_behalf: tuple[str, bytes] | None = None,
    ) -> tuple[bytes, bytes]:
        if self.failing:
            raise CallError(Code.UNAVAILABLE, "the NSM is busy")
        statement = Statement(
            kind=kind,
            deployment="test",
            manifest=MANIFEST,
            revision=1,
            epoch=0,
            log_head=pcr.ZERO,
            speaker=None if speaker is None else Speaker(*speaker),
            body=body,
        )
        return self._nsm.attestation(statement.digest, nonce, public_key), statement.encode()

    def manifest_for(self, actor: str, bundle: bytes) -> bytes | None:
        return MANIFEST

    def open_sealed(self, sealed: bytes, *, purpose: str, actor: str, bundle: bytes) -> bytes:
        raise NotImplementedError("nothing is sealed to a slot of the rounds")


class Relay:
    """Stands for vmh and the parents: what a slot sends lands on the network's bus."""

    def __init__(self, slot: str | None, bus: list[tuple[str, str, str, bytes]]) -> None:
        self._slot = slot
        self._bus = bus

    @operation
    def members(self) -> list[str]:
        return SLOTS

    @operation
    def own_slot(self) -> str | None:
        return self._slot

    @operation
    def subscribe(self, topic: str, operation: str) -> None:
        assert (topic, operation) == ("ra", "on_peer")

    @operation
    def tell(self, peer: str, topic: str, body: bytes) -> None:
        self._bus.append((self._slot or "", peer, topic, body))

    @operation
    def publish(self, topic: str, body: bytes) -> int:
        for peer in SLOTS:
            if peer != self._slot:
                self.tell(peer, topic, body)
        return len(SLOTS) - 1


class Parent:
    """One enclave's adapter: a chain of transfers, and from some height on a lie about one account."""

    def __init__(self, lies_from: int | None = None) -> None:
        self.height = 0
        self.lies_from = lies_from

    @staticmethod
    def _hash(height: int) -> bytes:
        return hashlib.sha256(f"block {height}".encode()).digest()

    def _head(self, height: int) -> Head:
        return Head(height, self._hash(height), self._hash(height - 1), bytes(32), height)

    def head(self) -> Head:
        return self._head(self.height)

    def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        found = []
        for height in range(start, min(start + count, self.height + 1)):
            changes: dict[bytes, bytes | None] = {
                f"account {(height + n) % 9}".encode(): b"%d" % height for n in range(3)
            }
            if self.lies_from is not None and height >= self.lies_from:
                changes[b"account x"] = b"a fortune"
            found.append(BlockChanges(self._head(height), changes))
        return tuple(found)


class Network:
    """Enclaves with their parents, and the bus between them."""

    def __init__(self, stack: contextlib.ExitStack, lies_from: Mapping[str, int]) -> None:
        self.bus: list[tuple[str, str, str, bytes]] = []
        self.ca = SimulatedCa.create(now=EPOCH)
        self.instances = {slot: f"i-00000000{slot}" for slot in SLOTS}
        self.parents = {slot: Parent(lies_from.get(slot)) for slot in SLOTS}
        self.attesters = {slot: Attester(self.ca, self.instances[slot]) for slot in SLOTS}
        members = {slot: Member(4, pcr.pcr4(instance)) for slot, instance in self.instances.items()}
        self.policy = Policy(
            pinned=Roots.from_digests([self.ca.root_digest]),
            simulated=True,
            pcrs={0: (IMAGE,)},
            deployment="test",
            manifests=(MANIFEST,),
            members=members,
        )
        self.enclaves = {slot: stack.enter_context(self.enclave(slot)) for slot in SLOTS}

    @contextlib.contextmanager
    def enclave(self, slot: str) -> Iterator[Harness]:
        """One enclave's ra actor."""
        links = dict(LINKS)
        with run_actor(
            Ra, links=links, providers={"vmh": Relay(slot, self.bus)}, attester=self.attesters[slot]
        ) as harness:
            parent = self.parents[slot]
            harness.parent.answers[Channel.ADAPTER, "head"] = parent.head
            harness.parent.answers[Channel.ADAPTER, "blocks"] = parent.blocks
            harness.policies.update({member: self.policy.for_member(member) for member in SLOTS})
            yield harness

    def grow(self, height: int) -> None:
        """The chain has finalized blocks up to a height."""
        for parent in self.parents.values():
            parent.height = height

    def run(self, seconds: float) -> None:
        """Let time pass, and messages with it."""
        for _ in range(int(seconds / 0.25)):
            for slot, harness in self.enclaves.items():
                self.attesters[slot].now += 0.25
                harness.advance(0.25)
            while self.bus:
                sender, to, topic, body = self.bus.pop(0)
                self.enclaves[to].as_caller("provider:vmh").call("on_peer", sender, topic, body)
        for harness in self.enclaves.values():
            assert harness.failures == [] and harness.refused == []


@contextlib.contextmanager
def network(**lies_from: int) -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        yield Network(stack, lies_from)


def test_a_lie_is_certified_against_named_shown_and_outlived() -> None:
    with network(e3=2) as net:
        net.grow(3)
        net.run(6)
        for slot in ("e1", "e2", "e4"):
            harness = net.enclaves[slot]
            status = harness.call("status")
            assert (status.slot, status.members, status.height) == (slot, 4, 3)
            assert (status.certified, status.disputed, status.named) == (4, 2, ["e3"])
            assert status.attestations_verified == 16 and status.refused == 0
            assert not status.quarantined and status.agreeing == {0: 4, 1: 4, 2: 3, 3: 3}
            # What it hands out holds offline, under a policy of the reader's own.
            for height in range(4):
                assert verify_certificate(harness.call("certificate", height), net.policy).height == height
            assert harness.call("evidence") == ["dissent-e3-2", "dissent-e3-3"]
            report = verify_evidence(harness.call("evidence_file", "dissent-e3-2"), net.policy)
            assert (report.kind, report.accused, report.height) == (EvidenceKind.DISSENT, "e3", 2)
            assert report.difference == Difference(b"account x", None, b"a fortune")
            summaries = harness.call("rounds", 1, 2)
            assert [s.named for s in summaries] == [[], ["e3"]] and [s.disputed for s in summaries] == [False, True]
            assert all(s.certified and s.silent == [] for s in summaries)
        liar = net.enclaves["e3"]
        assert liar.call("status").quarantined and liar.call("evidence") == []
        with pytest.raises(CallError) as refused:
            _get(liar, b"account x")
        assert refused.value.code is Code.UNTRUSTED
        # Its parent tells the truth again: it loads anew, agrees, and is served from again.
        net.parents["e3"].lies_from = None
        net.run(12)
        assert not liar.call("status").quarantined
        assert _get(liar, b"account x") is None
        net.grow(4)
        net.run(4)
        assert net.enclaves["e1"].call("status").agreeing[4] == 4


def _get(harness: Harness, key: bytes) -> bytes | None:
    from tea.providers.base import Call

    found: bytes | None = harness.run(harness.provider("layer1").get(Call("another"), key))
    return found


def test_a_crashed_actor_is_back_in_its_rounds() -> None:
    with network() as net:
        net.grow(2)
        net.run(3)
        harness = net.enclaves["e2"]
        harness.restart(crash=True)
        assert harness.call("status").certified == 0
        net.run(6)
        assert harness.call("status").certified == 3
        net.grow(3)
        net.run(3)
        assert [h.call("status").certified for h in net.enclaves.values()] == [4] * 4


def test_an_nsm_that_fails_for_a_while_is_asked_again() -> None:
    with network() as net:
        net.attesters["e1"].failing = True
        net.grow(1)
        net.run(8)
        assert net.enclaves["e1"].call("status").counters["failures"] > 0
        net.attesters["e1"].failing = False
        net.run(12)
        for harness in net.enclaves.values():
            assert [s.silent for s in harness.call("rounds", 0, 2)] == [[], []]


def test_a_peer_that_talks_rubbish_is_counted_and_harms_nobody() -> None:
    with network() as net:
        harness = net.enclaves["e1"]
        peer = harness.as_caller("provider:vmh")
        for body in (b"", b"\xc1", b"\x93\xa5offer\x01\x02", encode_message(Offer(1))[:-1], bytes(1 << 19)):
            peer.call("on_peer", "e2", "ra", body)
        assert harness.call("status").counters["malformed"] == 5
        peer.call("on_peer", "e1", "ra", encode_message(Offer(1)))
        peer.call("on_peer", "nobody", "ra", encode_message(Offer(1)))
        assert harness.call("status").counters["foreign"] == 2
        for _ in range(300):
            peer.call("on_peer", "e2", "ra", encode_message(Want(0)))
        assert harness.call("status").counters["flooded"] == 44
        assert harness.failures == []


def test_a_forged_document_is_refused_and_counted() -> None:
    with network() as net:
        net.grow(0)
        net.enclaves["e1"].advance(6)
        (mine, *_) = [body for sender, _, _, body in net.bus if sender == "e1"]
        contribution = decode_message(mine)
        assert isinstance(contribution, Contribution)
        claim = RoundClaim(0, Parent._hash(0), bytes(32), (contribution.value,))
        harness = net.enclaves["e1"]
        foreign = Attester(SimulatedCa.create(now=EPOCH), net.instances["e2"])
        document, statement = harness.run(
            foreign.attest("ra", claim.encode(), speaker=("ra", bytes(32)), nonce=claim.nonce)
        )
        harness.as_caller("provider:vmh").call(
            "on_peer", "e2", "ra", encode_message(Attestation(0, document, statement))
        )
        status = harness.call("status")
        assert status.refused == 1 and status.attestations_verified == 0 and status.counters["failures"] == 0


def test_only_providers_tell_it_anything() -> None:
    with network() as net:
        harness = net.enclaves["e1"]
        for caller in ("parent", "counter", "provider:kvp"):
            for name, args in (
                ("on_peer", ("e2", "ra", b"")),
                ("on_tick", ("ra",)),
                ("on_head", (1, bytes(32), bytes(32))),
            ):
                with pytest.raises(CallError) as refused:
                    harness.as_caller(caller).call(name, *args)
                assert refused.value.code is Code.DENIED


def test_bad_questions_get_clear_answers() -> None:
    with network() as net:
        harness = net.enclaves["e1"]
        assert harness.call("certificate", 99) is None and harness.call("rounds", 0) == []
        for name, args, code in (
            ("rounds", (-1,), Code.INVALID),
            ("rounds", (0, 0), Code.INVALID),
            ("rounds", (0, 257), Code.INVALID),
            ("evidence_file", ("dissent-e9-1",), Code.NOT_FOUND),
        ):
            with pytest.raises(CallError) as refused:
                harness.call(name, *args)
            assert refused.value.code is code


def test_an_enclave_without_a_slot_takes_no_part() -> None:
    with run_actor(Ra, links=LINKS, providers={"vmh": Relay(None, [])}) as harness:
        assert harness.call("status").slot is None
        harness.as_caller("provider:vmh").call("on_peer", "e1", "ra", b"")
        harness.as_caller("provider:layer1").call("on_head", 1, bytes(32), bytes(32))
        with pytest.raises(CallError) as refused:
            harness.call("rounds", 0)
        assert refused.value.code is Code.UNAVAILABLE


def test_messages_are_bounded_in_every_field() -> None:
    assert decode_message(encode_message(Contribution(1, bytes(32), False))) == Contribution(1, bytes(32), False)
    for message in (Contribution(-1, bytes(32), False), Contribution(1, bytes(33), True), Want(1 << 63)):
        with pytest.raises(MalformedMessage):
            decode_message(encode_message(message))


def test_the_bundle_runs_as_a_worker_loads_it() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(FOLDER.glob("*.py")):
            archive.writestr(path.name, path.read_bytes())

    class Nothing:
        def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
            raise CallError(Code.UNAVAILABLE, "no provider here")

        def tell(self, link: int, operation: int, body: bytes) -> None: ...

    bound = binding.Binding(binding.Identity("ra", 0, "0.1.0", "test", {}), (), Nothing())
    with binding.activated(bound):
        system = System.load(packed.getvalue(), "ra:Ra", lambda data: data)
        assert sorted(binding.operations(type(system.instance))) == [
            "certificate",
            "evidence",
            "evidence_file",
            "on_head",
            "on_peer",
            "on_tick",
            "rounds",
            "status",
        ]
