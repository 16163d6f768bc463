"""A simulated network starts, loses an enclave, gets it back, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from cryptography import x509

from tea.protocol.errors import CallError, Code
from tea.simulator.network import NetworkPlan, SimulatedNetwork, running
from tea.simulator.processes import ProcessError
from tea.simulator.shipped import prepare, shipped
from tea.trust import pcr
from tea.trust.approval import Approvers
from tea.trust.attestation import verify_document
from tea.trust.keys import PrivateKey
from tea.trust.policy import PolicyError, parse_policy
from tea.trust.statement import verify_statement

KEY = PrivateKey.generate()


def plan(folder: Path, *names: str, deployment: str = "development") -> NetworkPlan:
    return NetworkPlan(folder, names, Approvers(deployment, 1, 1, (KEY.public,)))


async def test_enclaves_start_are_killed_and_come_back_as_fresh_ones(tmp_path: Path) -> None:
    async with running(plan(tmp_path / "net", "e1", "e2")) as network:
        records = [child.record for child in network.children()]
        assert len({one.pid for one in records}) == 4
        one = network["e1"]
        approved = prepare(
            shipped("manifests/counter.yaml").read_text(), "counter.yaml", KEY, tmp_path / "bundles", network.members
        )
        await network.push(approved.envelope, approved.bundles)
        assert await one.call("counter", "increment", 2) == 2

        before = one.module_id
        await one.kill_host()
        # The parent waits a while for it to come back; a fresh enclave ends that wait with an answer.
        asked = asyncio.create_task(one.call("counter", "value"))
        assert await network["e2"].call("counter", "value") == 0

        await network.restart_host("e1")
        assert one.module_id != before
        assert one.module_id.startswith(one.instance_id)
        with pytest.raises(CallError) as refused:
            await asked
        assert refused.value.code is Code.UNAVAILABLE
        await network.push(approved.envelope, approved.bundles, ["e1"])
        assert await one.call("counter", "value") == 0

        # The policy accepts the fresh boot as the slot that it is, and as no other.
        nonce = secrets.token_bytes(16)
        attestation = await one.ask("attest", nonce)
        status = await one.status()
        assert status.enclave is not None
        policy = parse_policy(network.policy([approved.manifest.digest]).to_yaml())
        now = _timestamp(attestation.document)
        document = verify_document(attestation.document, roots=policy.roots(), at=now, nonce=nonce)
        statement = verify_statement(document, attestation.statement)
        policy.for_member("e1").require(document, statement, now_ms=now)
        assert document.pcrs[pcr.INSTANCE_PCR].hex() == network.members["e1"]
        # It goes on attesting for as long as somebody may let a network run.
        later = x509.load_der_x509_certificate(document.cabundle[-1]).not_valid_after_utc.timestamp()
        assert later * 1000 - now > 300 * 86_400_000
        with pytest.raises(PolicyError):
            policy.for_member("e2").require(document, statement, now_ms=now)
        records += [child.record for child in network.children()]
    assert [one.name for one in records if one.is_running()] == []


def _timestamp(document: bytes) -> int:
    from tea.trust.attestation import parse_document

    return parse_document(document).timestamp


async def test_a_network_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    network = SimulatedNetwork(plan(tmp_path / "net", "e1", "e2"))
    network.approvers_file.write_text("no approvers")
    with pytest.raises(ProcessError, match=r"e\d host ended with status 1.*approvers.yaml"):
        await network.start()
    assert network.children() == []


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    network = SimulatedNetwork(plan(tmp_path / "net", "e1", "e2"))
    starting = asyncio.create_task(network.start())
    while not network.children():
        await asyncio.sleep(0)
    records = [child.record for child in network.children()]
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [one.name for one in records if one.is_running()] == []
    assert network.children() == []


async def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    async with running(plan(folder, "e1")) as network:
        assert (await network["e1"].status()).connected
    assert not list(folder.rglob("*.sock"))
