"""The host's part in continuity: real kvp and crypto providers go over between two hosts, through parents that lie.

May not: start processes; the hosts here are their continuity, their providers and a simulated NSM.
Rule: docs/continuity.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tea.protocol.channels import Channel
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call, Provider
from tea.providers.crypto import Crypto
from tea.providers.kvp import Kvp
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.providers.testing import InMemoryServices, invoke, start_provider
from tea.providers.vmh import Vmh
from tea.runtime import continuity
from tea.runtime.continuity import TOPIC, Continuity
from tea.trust import pcr
from tea.trust.approval import Approvers, add_approval, approve, parse_approvers
from tea.trust.continuity import Role, Ticket, add_signature, sign_ticket
from tea.trust.handover import Approved
from tea.trust.handover_holder import HANDING_MS
from tea.trust.handover_messages import Commit, Fetch, Hello
from tea.trust.keys import PrivateKey
from tea.trust.manifest import Manifest, parse_manifest
from tea.trust.policy import Policy
from tea.trust.roots import Roots
from tea.trust.sealing import SealingKey
from tea.trust.statement import Statement

A, B = (PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
APPROVERS = parse_approvers(
    "tea: approvers/1\ndeployment: d\nepoch: 1\nthreshold: 2\nkeys:\n"
    + "".join(f'  - "{key.public.text}"\n' for key in (A, B))
)
INSTANCE, SLOT = "i-0123456789abcdef0", "e1"
IMAGE = {index: pcr.image_pcr(hashlib.sha384(b"image %d" % index).digest()) for index in range(3)}
CA = SimulatedCa.create()
COUNTER = Call(caller="counter", kvp_bytes=1 << 24)
Ask = Callable[[bytes], Awaitable[bytes]]


def manifest_of(revision: int) -> Manifest:
    member = f"{{pcr4: '{pcr.pcr4(INSTANCE).hex()}'}}"
    return parse_manifest(
        f"tea: manifest/1\ndeployment: d\nrevision: {revision}\nra: {{members: {{{SLOT}: {member}}}}}\n"
    )


class OneHost:
    """What a host lends its continuity; `import_error` and `skew_ms` are faults."""

    def __init__(self, revision: int = 1, image: Mapping[int, bytes] = IMAGE) -> None:
        self.manifest = manifest_of(revision)
        self.revision = revision
        self.epoch = 1
        self.key = SealingKey.from_raw(os.urandom(32))
        self.nsm = Nsm(SimulatedNsm(CA.issue_instance(INSTANCE), f"{INSTANCE}-enc0", image, time.time))
        self.providers: dict[str, Provider[Any]] = {}
        self.frozen = False
        self.skew_ms = 0
        self.import_error: ValueError | None = None
        self.logs: list[str] = []

    async def started(self) -> OneHost:
        self.providers = {
            "kvp": await start_provider(Kvp, InMemoryServices("kvp")),
            "crypto": await start_provider(Crypto, InMemoryServices("crypto")),
        }
        return self

    @property
    def approvers(self) -> Approvers:
        return APPROVERS

    @property
    def approved(self) -> Approved:
        return Approved(add_approval(approve(self.manifest.canonical(), A), B))

    @property
    def manifest_digest(self) -> bytes:
        return self.manifest.digest

    @property
    def public_key(self) -> bytes:
        return self.key.public

    def policy(self) -> Policy:
        return Policy(
            pinned=Roots.from_digests([CA.root_digest]),
            simulated=True,
            pcrs={**{index: (value,) for index, value in IMAGE.items()}, 4: (pcr.pcr4(INSTANCE),)},
            deployment="d",
            manifests=(self.manifest.digest,),
            min_revision=self.revision,
            min_epoch=1,
        )

    async def attest(
        self, kind: str, body: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> tuple[bytes, bytes]:
        said = Statement(
            kind=kind,
            deployment="d",
            manifest=self.manifest.digest,
            revision=self.revision,
            epoch=1,
            log_head=pcr.ZERO,
            body=body,
        )
        return self.nsm.attestation(said.digest, nonce, public_key or self.key.public), said.encode()

    def random(self, size: int) -> bytes:
        return self.nsm.random(size)

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.skew_ms

    async def freeze(self) -> None:
        self.frozen = True

    async def thaw(self) -> None:
        self.frozen = False

    async def export_states(self) -> dict[str, bytes]:
        assert self.frozen, "state must not change while it is exported"
        exported = {name: await provider.export_state() for name, provider in self.providers.items()}
        return {name: state for name, state in exported.items() if state is not None}

    async def import_states(self, states: Mapping[str, bytes]) -> None:
        if self.import_error is not None:
            raise self.import_error
        for name, state in states.items():
            await self.providers[name].import_state(state)

    def log(self, level: str, message: str, **fields: object) -> None:
        self.logs.append(f"{message} {fields}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(continuity, "FIRST_PAUSE", 0.0)


async def holding(**options: Any) -> tuple[OneHost, Continuity]:
    host = await OneHost(**options).started()
    part = Continuity(host, "d", SLOT)
    part.begin()
    return host, part


async def fresh(**options: Any) -> tuple[OneHost, Continuity]:
    host = await OneHost(**options).started()
    return host, Continuity(host, "d", SLOT)


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
    return add_signature(sign_ticket(Ticket("d", SLOT, term, host.public_key, backup), A), B)


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


async def test_a_ticket_of_too_few_or_for_a_backup_changes_nothing() -> None:
    host, part = await fresh()
    for ticket in (sign_ticket(Ticket("d", SLOT, 5, host.public_key), A), ticket_for(host, 5, bytes(48))):
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
