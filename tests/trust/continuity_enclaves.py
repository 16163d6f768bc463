"""Simulated enclaves that hand state to each other, for the tests of continuity; one healthy world, changed by a test.

May not: hold tests. Rule: docs/continuity.md.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust import pcr
from tea.trust.approval import Approvers, add_approval, add_change_approval, approve, parse_approvers, propose_change
from tea.trust.continuity import Tenure
from tea.trust.handover import Approved, approved_policy
from tea.trust.handover_holder import HolderSide
from tea.trust.handover_messages import Prepared
from tea.trust.handover_receiver import ReceiverSide
from tea.trust.keys import PrivateKey
from tea.trust.manifest import Manifest, parse_manifest
from tea.trust.policy import Policy
from tea.trust.roots import Roots
from tea.trust.sealing import SealingKey
from tea.trust.statement import Kind, Statement

A, B, C = (PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
NOW = time.time()
NOW_MS = int(NOW * 1000)
SLOT = "e1"
INSTANCE = "i-0123456789abcdef0"
OTHER_INSTANCE = "i-0fedcba9876543210"
IMAGE = {index: pcr.image_pcr(hashlib.sha384(b"image %d" % index).digest()) for index in range(3)}
CA = SimulatedCa.create(now=NOW)


def approvers_of(epoch: int = 1, keys: tuple[PrivateKey, ...] = (A, B, C)) -> Approvers:
    listed = "\n".join(f'  - "{key.public.text}"' for key in keys)
    return parse_approvers(f"tea: approvers/1\ndeployment: d\nepoch: {epoch}\nthreshold: 2\nkeys:\n{listed}\n")


APPROVERS = approvers_of()


def manifest_of(revision: int, instance: str = INSTANCE) -> Manifest:
    member = f"{{pcr4: '{pcr.pcr4(instance).hex()}'}}"
    return parse_manifest(
        f"tea: manifest/1\ndeployment: d\nrevision: {revision}\nra: {{members: {{{SLOT}: {member}}}}}\n"
    )


def approved(manifest: Manifest, *keys: PrivateKey, changes: tuple[bytes, ...] = ()) -> Approved:
    first, *others = keys or (A, B)
    envelope = approve(manifest.canonical(), first)
    for key in others:
        envelope = add_approval(envelope, key)
    return Approved(envelope, changes)


@dataclass
class Enclave:
    """One enclave of the deployment. Everything about it can be changed before it speaks."""

    manifest: Manifest = field(default_factory=lambda: manifest_of(1))
    instance: str = INSTANCE
    image: Mapping[int, bytes] = field(default_factory=lambda: IMAGE)
    ca: SimulatedCa = field(default_factory=lambda: CA)
    debug: bool = False
    epoch: int = 1
    shown: Approved | None = None
    state: bytes | None = None

    def __post_init__(self) -> None:
        credential = self.ca.issue_instance(self.instance, now=NOW)
        module = f"{self.instance}-enc0123"
        self.nsm = Nsm(SimulatedNsm(credential, module, self.image, lambda: NOW, debug=self.debug))
        self.key = SealingKey.from_raw(os.urandom(32))
        self.tenure = Tenure("d", SLOT)
        self.approved = self.shown or approved(self.manifest)

    def attest(
        self, kind: Kind, body: bytes, nonce: bytes | None, public_key: bytes | None = None
    ) -> tuple[bytes, bytes]:
        """As the host's `attest`: its boot's key unless another is given."""
        said = Statement(
            kind=kind,
            deployment="d",
            manifest=self.manifest.digest,
            revision=self.manifest.revision,
            epoch=self.epoch,
            log_head=pcr.ZERO,
            body=body,
        )
        return self.nsm.attestation(said.digest, nonce, public_key or self.key.public), said.encode()

    def policy(self) -> Policy:
        """What an enclave of this slot must meet, as the host's `policy_for` composes it."""
        return Policy(
            pinned=Roots.from_digests([self.ca.root_digest]),
            simulated=True,
            pcrs={
                **{index: (IMAGE[index],) for index in range(3)},
                4: (pcr.pcr4(self.manifest_instance),),
            },
            deployment="d",
            manifests=(self.manifest.digest,),
            min_revision=self.manifest.revision,
            min_epoch=self.epoch,
        )

    @property
    def manifest_instance(self) -> str:
        return INSTANCE if self.manifest.digest == manifest_of(self.manifest.revision).digest else OTHER_INSTANCE

    def of_receiver(self, shown: Approved) -> Policy:
        """What this holder wants of a receiver."""
        least = self.manifest.revision + 1
        return approved_policy(self.policy(), SLOT, shown, approvers=APPROVERS, least=least, least_epoch=self.epoch)

    def of_holder(self, shown: Approved, oldest: int = 1) -> Policy:
        """What this receiver wants of a holder."""
        return approved_policy(
            self.policy(), SLOT, shown, approvers=APPROVERS, least=oldest, most=self.manifest.revision
        )


def holder(state: bytes = b"the state", **changes: Any) -> Enclave:
    """An enclave that holds the slot."""
    one = Enclave(state=state, **changes)
    one.tenure.begin()
    return one


Tamper = Callable[[str, bytes], bytes]


def untouched(name: str, message: bytes) -> bytes:
    """A parent that carries faithfully."""
    return message


class Exchange:
    """One handover, step by step; `tamper` is the parents between the two."""

    def __init__(self, giver: Enclave, taker: Enclave, *, copy: bool = False, tamper: Tamper = untouched) -> None:
        self.giver, self.taker, self.tamper = giver, taker, tamper
        self.receiver = ReceiverSide(taker.tenure, os.urandom, copy=copy)
        self.holder: HolderSide | None = None

    def challenge(self) -> bytes:
        self.holder = side = HolderSide(self.giver.tenure, self.tamper("hello", self.receiver.hello), os.urandom)
        document, statement = self.giver.attest(Kind.ATTEST, side.body(), side.asked_nonce)
        return self.tamper("challenge", side.challenge(document, statement, self.giver.approved))

    def request(self, challenge: bytes) -> bytes:
        receiver, taker = self.receiver, self.taker
        receiver.challenged(challenge, taker.of_holder, now_ms=NOW_MS)
        evidence = taker.attest(Kind.SEAL, receiver.body(), receiver.challenge_nonce, receiver.public_key)
        return self.tamper("request", receiver.request(*evidence, taker.manifest.digest, taker.approved))

    def parcel(self, request: bytes) -> bytes:
        assert self.holder is not None and self.giver.state is not None
        self.holder.accept(request, self.giver.of_receiver, now_ms=NOW_MS)
        return self.tamper("parcel", self.holder.parcel(self.giver.state))

    def take(self, parcel: bytes) -> None:
        assert self.holder is not None
        for index in range(self.receiver.open(parcel)):
            self.receiver.piece(self.tamper("piece", self.holder.piece(self.receiver.fetch(index))))
        self.taker.state = self.receiver.state()

    def until_prepared(self) -> bytes:
        """Everything up to the receiver's `Prepared`."""
        self.take(self.parcel(self.request(self.challenge())))
        message = self.receiver.prepared()
        Prepared.parse(message)
        return self.tamper("prepared", message)

    def run(self) -> bool:
        """The whole move; whether it was committed."""
        prepared = self.until_prepared()
        assert self.holder is not None
        return self.receiver.committed(self.tamper("commit", self.holder.prepared(prepared)))


def change_of_approvers(new: Approvers) -> bytes:
    return add_change_approval(propose_change(APPROVERS, new, A), B)
