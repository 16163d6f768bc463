"""`teactl manifest approve --enclave` and `manifest running`: what runs is attested and approved, or nothing is signed.

May not: replace the enclave; only its parent lies. Rule: docs/teactl.md, "manifest".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.registry import EnclaveEntry, NetworkEntry, Registry
from tea.protocol.channels import RunningManifest
from tea.protocol.errors import CallError, Code
from tea.trust.approval import Approvers, approve, propose_change
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest
from tea.trust.policy import Policy
from tea.trust.roots import Roots

ECHO = """
from tea.sdk import Actor, operation

class Echo(Actor):
    @operation
    def echo(self, value: object) -> object:
        return value
"""
LINK = "  - {from: parent, to: echo, operations: [echo]}"


@pytest.fixture
async def running(enclave: Any, teactl: Any) -> Any:
    """An enclave that runs revision 2, in the books under its simulated root; the next revision lies beside."""
    entry = EnclaveEntry("e1", str(enclave.folder), os.getpid(), None)
    Registry(teactl.folder / ".tea").write(NetworkEntry("default", "test", f"sha256:{enclave.root.hex()}", (entry,)))
    enclave.bundle("echo", ECHO, "Echo")
    await enclave.push(enclave.manifest(revision=2, links=LINK))
    write(teactl.folder / "next.yaml", enclave.manifest(revision=3, links=LINK, providers="  kvp: {}\n  clock: {}"))
    write(teactl.folder / "approvers.yaml", enclave.approvers_text)
    write(teactl.folder / "policy.yaml", policy_of(enclave).to_yaml())
    keys = teactl.folder / ".tea" / "keys"
    keys.mkdir(0o700)
    (keys / "ann.pem").write_bytes(enclave.key.to_pem())
    (keys / "ann.pem").chmod(0o600)
    return enclave


def write(path: Path, text: str) -> None:
    path.write_text(text)


def policy_of(enclave: Any, **changes: Any) -> Policy:
    given: dict[str, Any] = {
        "pinned": Roots.from_digests([enclave.root]),
        "simulated": True,
        "pcrs": {index: (value,) for index, value in enclave.start.pcrs.items()},
        "deployment": "test",
        **changes,
    }
    return Policy(**given)


APPROVE = ("manifest", "approve", "next.yaml", "--key", "ann", "--out", "next.approved", "--enclave", "e1")
TRUST = ("--approvers", "approvers.yaml")


async def test_the_difference_from_what_runs_is_shown_before_anything_is_signed(running: Any, teactl: Any) -> None:
    ran = await teactl.beside(*APPROVE, *TRUST, "--policy", "policy.yaml")
    assert ran.status == 0, ran.err
    assert (
        "revision 2 runs, approved by the quorum of epoch 1, attested just now, in an image that the policy" in ran.out
    )
    assert "~ revision: 2 -> 3" in ran.out
    assert "+ provider clock added" in ran.out
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert ran.json["running"]["revision"] == 2
    assert (ran.json["running"]["epoch"], ran.json["running"]["image"]) == (1, False)
    assert "~ revision: 2 -> 3" in ran.json["changes"]
    ran = await teactl.beside(*APPROVE, *TRUST)
    assert "an image that nobody judged" in ran.out


async def test_what_runs_is_fetched_as_it_can_be_pushed(running: Any, teactl: Any) -> None:
    ran = await teactl.beside("manifest", "running", *TRUST, "--policy", "policy.yaml", "--out", "got", "--json")
    assert (ran.json["revision"], ran.json["deployment"], ran.json["image"]) == (2, "test", True)
    assert teactl("manifest", "verify", "got", *TRUST).status == 0
    ran = await teactl.beside("manifest", "running", *TRUST)
    assert "test revision 2" in ran.out


def signed_nothing(teactl: Any) -> bool:
    return not (teactl.folder / "next.approved").exists()


async def test_what_other_approvers_approved_is_refused(running: Any, teactl: Any) -> None:
    other = Approvers("test", 1, 1, (PrivateKey.generate().public,))
    write(teactl.folder / "approvers.yaml", other.to_yaml())
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "not-approved")
    assert signed_nothing(teactl)


async def test_a_quorum_that_is_not_reached_is_refused(running: Any, teactl: Any) -> None:
    keys = tuple(sorted((running.key.public, running.other_key.public), key=lambda key: key.text))
    write(teactl.folder / "approvers.yaml", Approvers("test", 1, 2, keys).to_yaml())
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "not-approved")
    assert signed_nothing(teactl)


def lying(enclave: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The parent answers with parts of its own."""
    truly = enclave.client.running_manifest

    async def running_manifest(nonce: bytes) -> RunningManifest:
        shown = await truly(changes.get("nonce", nonce))
        return RunningManifest(
            changes.get("approval", shown.approval), changes.get("changes", shown.approver_changes), shown.attestation
        )

    monkeypatch.setattr(enclave.client, "running_manifest", running_manifest)


async def test_a_parent_that_shows_an_older_approved_manifest_is_found_out(
    running: Any, teactl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = approve(parse_manifest(running.manifest(revision=1, links=LINK)).canonical(), running.key)
    lying(running, monkeypatch, approval=old)
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert ran.status == 1
    assert "the parent showed another one than that which runs" in ran.json["error"]
    assert signed_nothing(teactl)


@pytest.mark.parametrize("shown", ["made up", "nothing"])
async def test_a_parent_that_makes_a_manifest_up_is_found_out(
    running: Any, teactl: Any, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    made_up = approve(parse_manifest(running.manifest(revision=2)).canonical(), PrivateKey.generate())
    lying(running, monkeypatch, approval=made_up if shown == "made up" else b"")
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "not-approved")
    assert signed_nothing(teactl)


async def test_an_attestation_of_another_time_is_refused(
    running: Any, teactl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(running, monkeypatch, nonce=b"an older nonce")
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "nonce")
    assert signed_nothing(teactl)


async def test_changes_of_approvers_that_the_enclave_does_not_follow_are_refused(
    running: Any, teactl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old quorum approved a change, and the enclave was not told: the epoch that it attests says so."""
    current = Approvers("test", 1, 1, (running.key.public,))
    change = propose_change(current, Approvers("test", 2, 1, (running.key.public,)), running.key)
    lying(running, monkeypatch, changes=(change,))
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert "in epoch 2, and the enclave attests revision 2 in epoch 1" in ran.json["error"]
    assert signed_nothing(teactl)


async def test_another_image_or_network_is_refused(running: Any, teactl: Any) -> None:
    write(teactl.folder / "policy.yaml", policy_of(running, pcrs={0: (bytes([9]) * 48,)}).to_yaml())
    ran = await teactl.beside(*APPROVE, *TRUST, "--policy", "policy.yaml", "--json")
    assert (ran.status, ran.json["code"]) == (1, "pcr")
    teactl.register(running.client)  # in the books as a real one: AWS's root
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "root")
    assert signed_nothing(teactl)


async def test_a_revision_that_the_enclave_would_refuse_is_not_signed(running: Any, teactl: Any) -> None:
    write(teactl.folder / "next.yaml", running.manifest(revision=1, links=LINK))
    ran = await teactl.beside(*APPROVE, *TRUST, "--json")
    assert (ran.status, ran.json["code"]) == (1, "lower-revision")
    assert signed_nothing(teactl)


async def test_an_enclave_without_a_manifest_shows_none_and_nonces_are_bounded(enclave: Any) -> None:
    with pytest.raises(CallError) as none:
        await enclave.client.running_manifest(b"n")
    assert none.value.code is Code.UNAVAILABLE
    for ask in (enclave.client.running_manifest, enclave.client.tenancy, enclave.client.attest):
        with pytest.raises(CallError) as long:
            await ask(bytes(513))
        assert long.value.code is Code.INVALID
    with pytest.raises(CallError) as slotless:
        await enclave.client.tenancy(b"n")
    assert slotless.value.code is Code.CONFLICT


@pytest.mark.parametrize(
    "wrong",
    [
        ("--enclave", "e1"),
        ("--approvers", "approvers.yaml"),
        ("--policy", "policy.yaml"),
        ("--enclave", "e1", "--approvers", "approvers.yaml", "--running", "old.approved"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(teactl: Any, wrong: tuple[str, ...]) -> None:
    ran = teactl("manifest", "approve", "m.yaml", "--out", "m.approved", "--development", *wrong)
    assert ran.status == 2
