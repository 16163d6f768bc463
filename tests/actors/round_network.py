"""A whole network of round books in memory: a bus that loses and reorders, NSMs whose documents cannot be forged.

May not: look into a book to help it. The liars here are worse than real ones, whose enclaves run honest code: they sign
whatever they like for their own slot. Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

import hashlib
import hmac
import random
from dataclasses import dataclass, field

import round_commands as commands
from round_book import RoundBook
from round_limits import Limits
from round_messages import Attestation, Message, NodeFound, decode_message, encode_message

from tea.sdk.rounds import RoundClaim, SlotAttestation, Statement, StateTree, StateTreeError
from tea.trust import canonical
from tea.trust.statement import Speaker

MANIFEST = bytes(48)


def block(height: int, fork: str = "") -> bytes:
    """The block hash of a height."""
    return hashlib.sha256(f"block {fork}{height}".encode()).digest()


def state(height: int, lie: str = "") -> StateTree:
    """The state at a height; a lie changes one key."""
    entries = {f"key {n}".encode(): f"value {n} at {height}".encode() for n in range(24)}
    if lie:
        entries[b"key 7"] = lie.encode()
    return StateTree(entries)


@dataclass
class Enclave:
    """One boot of a slot's enclave: signs what it is told to, for its own slot only."""

    network: Network
    slot: str
    module_id: str

    def attest(self, claim: RoundClaim, manifest: bytes = MANIFEST, kind: str = "ra") -> SlotAttestation:
        """A document over a claim, at the network's time."""
        statement = Statement(
            kind=kind,
            deployment="test",
            manifest=manifest,
            revision=1,
            epoch=0,
            log_head=bytes(48),
            speaker=Speaker("ra", bytes(32)),
            body=claim.encode(),
        )
        self.network.time += 1
        fields = [self.slot, self.module_id, self.network.time, statement.digest, claim.nonce]
        return SlotAttestation(self.slot, self.network.seal(canonical.encode(fields)), statement.encode())


@dataclass
class Member:
    """A member: its book, and a layer 1 that its parent feeds with truth or with a lie."""

    network: Network
    slot: str
    enclave: Enclave
    book: RoundBook
    lie: str = ""
    """What its parent makes of the state; empty: the truth."""
    lies_from: int = 0
    fork: str = ""
    """Which chain its parent shows it."""
    silent: bool = False
    deaf: bool = False
    """Answers no question about its state."""
    heights: set[int] = field(default_factory=set)
    asked: list[commands.Command] = field(default_factory=list)
    """Quarantines, reloads and attempts to rejoin."""
    attests: int = 0

    def tree(self, height: int) -> StateTree:
        """Its layer 1's state at a height."""
        return state(height, self.lie if height >= self.lies_from else "")

    def head(self, height: int) -> None:
        """Its layer 1 has a new block."""
        self.heights.add(height)
        self.book.head(height, block(height, self.fork), self.tree(height).root)
        self.run()

    def tick(self) -> None:
        """Its clock ticks."""
        self.book.tick()
        self.run()

    def hear(self, sender: str, body: bytes) -> None:
        """A message arrives."""
        self.book.message(sender, decode_message(body))
        self.run()

    def run(self) -> None:
        """Carry out what its book asks for."""
        for command in self.book.commands():
            self.do(command)

    def do(self, command: commands.Command) -> None:
        """Carry out one command."""
        match command:
            case commands.Send(to, message):
                self.send(to, message)
            case commands.Draw(height):
                self.book.contributed(height, self.network.random.randbytes(32))
            case commands.Attest(claim):
                self.attests += 1
                made = self.attest(claim)
                self.book.attested(claim, made.document, made.statement)
            case commands.Verify(attestation, claim):
                found = self.network.verify(attestation, claim)
                if found is None:
                    self.book.refused(command)
                else:
                    self.book.verified(command, *found)
            case commands.Look(height):
                if height in self.heights:
                    self.book.head(height, block(height, self.fork), self.tree(height).root)
            case commands.ReadNode(height, prefix, answer_to):
                node = self.node(height, prefix)
                if answer_to is None:
                    self.book.node(height, prefix, node)
                elif not self.deaf:
                    self.send(answer_to, NodeFound(height, prefix, node))
            case commands.Quarantine() | commands.Reload() | commands.Rejoin():
                self.asked.append(command)
            case commands.Note():
                pass

    def attest(self, claim: RoundClaim) -> SlotAttestation:
        """What its NSM signs."""
        return self.enclave.attest(claim)

    def node(self, height: int, prefix: bytes) -> bytes | None:
        """Its state's node."""
        try:
            return self.tree(height).node(prefix)
        except StateTreeError:
            return None

    def send(self, to: str | None, message: Message) -> None:
        """Onto the bus."""
        if self.silent:
            return
        for slot in self.network.slots if to is None else (to,):
            if slot != self.slot:
                self.network.bus.append((self.slot, slot, encode_message(message)))


@dataclass
class Equivocator(Member):
    """Signs one state root for half of its peers and another for the rest."""

    def send(self, to: str | None, message: Message) -> None:
        found = self.book.rounds.get(message.height)
        if not isinstance(message, Attestation) or found is None or found.view is None:
            super().send(to, message)
            return
        values = tuple(sorted({value for heard in found.values.values() for value in heard}))
        other = self.enclave.attest(
            RoundClaim(message.height, found.view[0], state(message.height, "two-faced").root, values)
        )
        for number, slot in enumerate(self.network.slots if to is None else (to,)):
            # Some get to see both: they catch it. Who sees only the false one names it as a dissenter.
            super().send(slot, message)
            if number % 2 or to is not None:
                super().send(slot, Attestation(message.height, other.document, other.statement))


class Network:
    """Members, the bus between them, and the authority that their documents hang from."""

    def __init__(self, count: int, seed: int = 0, limits: Limits | None = None) -> None:
        self.slots = [f"e{number}" for number in range(1, count + 1)]
        self.random = random.Random(seed)
        self.key = self.random.randbytes(32)
        self.limits = limits
        self.time = 1_700_000_000_000
        self.boots = 0
        self.bus: list[tuple[str, str, bytes]] = []
        self.members: dict[str, Member] = {}
        self.verifications = 0
        for slot in self.slots:
            self.boot(slot)

    def boot(self, slot: str, kind: type[Member] = Member, *, lie: str = "", lies_from: int = 0) -> Member:
        """Start (or restart) a slot's enclave, with an empty memory."""
        self.boots += 1
        enclave = Enclave(self, slot, f"i-{slot}-enc{self.boots:04x}")
        book = RoundBook(self.slots, slot, self.limits)
        member = self.members[slot] = kind(self, slot, enclave, book, lie=lie, lies_from=lies_from)
        return member

    def seal(self, payload: bytes) -> bytes:
        """What stands for a signature here."""
        return canonical.encode([payload, hmac.digest(self.key, payload, "sha384")])

    def verify(self, attestation: SlotAttestation, claim: RoundClaim) -> tuple[str, int] | None:
        """(module id, time) when a document holds for its slot, statement and nonce."""
        self.verifications += 1
        try:
            match canonical.decode(attestation.document):
                case [bytes() as payload, bytes() as seal] if hmac.compare_digest(
                    hmac.digest(self.key, payload, "sha384"), seal
                ):
                    fields = canonical.decode(payload)
                case _:
                    return None
        except canonical.CanonicalError:
            return None
        said = hashlib.sha384(attestation.statement).digest()
        match fields:
            case [attestation.slot, str() as module_id, int() as time, digest, claim.nonce] if digest == said:
                return module_id, time
        return None

    def kill(self, slot: str) -> None:
        """End a slot's enclave."""
        del self.members[slot]

    def head(self, height: int, *slots: str) -> None:
        """The chain finalizes a block; members hear of it in some order."""
        told = [slot for slot in slots or self.slots if slot in self.members]
        self.random.shuffle(told)
        for slot in told:
            self.members[slot].head(height)

    def deliver(self, *, loss: float = 0.0, shuffle: bool = False, most: int = 100_000) -> None:
        """Deliver what is on the bus, and what comes of it."""
        for _ in range(most):
            if not self.bus:
                return
            at = self.random.randrange(len(self.bus)) if shuffle else 0
            sender, to, body = self.bus.pop(at)
            if to in self.members and self.random.random() >= loss:
                self.members[to].hear(sender, body)
        raise AssertionError("the members do not stop talking")

    def tick(self, times: int = 1, *, loss: float = 0.0, shuffle: bool = False) -> None:
        """Let time pass."""
        for _ in range(times):
            for slot in self.slots:
                if slot in self.members:
                    self.members[slot].tick()
            self.deliver(loss=loss, shuffle=shuffle)

    def honest(self) -> list[Member]:
        """The living members that nobody lies to."""
        return [m for m in self.members.values() if type(m) is Member and not (m.lie or m.fork or m.silent)]
