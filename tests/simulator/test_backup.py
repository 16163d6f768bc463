"""A slot whose holder is lost comes back from its backup, by hand: `teactl` over real processes, from key to restore.

May not: sleep; every enclave and every runtime client is a process. Rule: docs/continuity.md, "A backup by hand".
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client import cli
from tea.parent_client.registry import NetworkEntry, Registry
from tea.protocol.errors import CallError, Code
from tea.simulator.network import NetworkPlan, SimulatedNetwork, running
from tea.simulator.shipped import prepare, shipped
from tea.trust.approval import Approvers, add_approval
from tea.trust.keys import PrivateKey
from tea.trust.policy import Policy
from tea.trust.roots import Roots

ALICE, BOB = PrivateKey.generate(), PrivateKey.generate()
NAMES = ("e1", "e2", "e3")


class Hands:
    """People at their terminals: `teactl` in one folder, with the keys of all of them."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    async def __call__(self, *arguments: object) -> Any:
        """What the command prints with --json; it succeeded."""
        said = await self._run(*arguments)
        assert said["ok"], said
        return said

    async def refused(self, *arguments: object) -> Any:
        said = await self._run(*arguments)
        assert not said["ok"], said
        return said

    async def _run(self, *arguments: object) -> Any:
        self._capture.readouterr()
        await asyncio.to_thread(cli.run, [*(str(one) for one in arguments), "--json"])
        return json.loads(self._capture.readouterr().out)


@pytest.fixture
def hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hands:
    monkeypatch.setenv("TEA_HOME", str(tmp_path / "home"))
    keys = tmp_path / "home" / "keys"
    keys.mkdir(0o700, parents=True)
    for name, key in (("alice", ALICE), ("bob", BOB)):
        (keys / f"{name}.pem").write_bytes(key.to_pem())
        (keys / f"{name}.pem").chmod(0o600)
    return Hands(tmp_path, capsys)


def plan(folder: Path) -> NetworkPlan:
    keys = tuple(sorted((ALICE.public, BOB.public), key=lambda key: key.text))
    approvers = Approvers("development", 1, 2, keys)
    return NetworkPlan(folder / "net", NAMES, approvers, beside={"e2": "e1", "e3": "e1"})


def policy_of(network: SimulatedNetwork, place: str = "e1") -> Policy:
    """The image, on the instance of an enclave."""
    return Policy(
        pinned=Roots.from_digests([network.root_digest]),
        simulated=True,
        pcrs={
            **{index: (value,) for index, value in network.pcrs.items()},
            4: (bytes.fromhex(network.members[place]),),
        },
        deployment="development",
    )


async def prepared(
    hands: Hands, network: SimulatedNetwork, revision: int = 1, place: str = "e1"
) -> tuple[bytes, tuple[Path, ...]]:
    """The counter in slot e1, on the instance of `place`, with three keepers of whom two restore; approved by both."""
    keepers = []
    for name in ("alice", "bob", "carol"):
        path = hands.folder / "home" / "keys" / f"{name}.pub-recovery"
        if not path.exists():
            path.write_text((await hands("backup", "key", name))["public_key"])
        keepers.append(f"{name}: '{path.read_text()}'")
    text = shipped("manifests/counter.yaml").read_text().replace("revision: 1", f"revision: {revision}")
    text = text.replace("  kvp: {}\n", "  kvp: {}\n  vmh: {}\n")
    text += f"ra: {{members: {{e1: {{pcr4: '{network.members[place]}'}}}}}}\n"
    text += f"backup: {{threshold: 2, keepers: {{{', '.join(keepers)}}}}}\n"
    made = prepare(text, "counter.yaml", ALICE, hands.folder / f"bundles{revision}")
    return add_approval(made.envelope, BOB), made.bundles


async def test_a_lost_slot_comes_back_from_its_backup_by_quorum_and_keepers(hands: Hands, tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as network:
        Registry(tmp_path / "home").write(
            NetworkEntry(
                "default",
                "development",
                f"sha256:{network.root_digest.hex()}",
                tuple(one.entry() for one in network.enclaves.values()),
            )
        )
        policy, approvers = tmp_path / "policy.yaml", network.approvers_file
        policy.write_text(policy_of(network).to_yaml())
        old, new, clone = (network[name] for name in NAMES)
        approved = await prepared(hands, network)
        await old.push(*approved)
        assert await old.call("counter", "increment", 42) == 42

        backup = tmp_path / "out" / "e1.backup"
        made = await hands("backup", "make", "-e", "e1", "--out", backup, "--policy", policy)
        assert (made["slot"], made["term"], made["keepers"]) == ("e1", 1, ["alice", "bob", "carol"])
        assert (await hands("backup", "show", backup, "--policy", policy))["verified"] is True
        assert await old.call("counter", "increment", 1) == 43

        # A new enclave on the instance, which waits. One that is no standby is no place for a backup.
        await new.push(*approved, standby=True)
        await clone.push(*approved, standby=True)
        held = await hands("tenancy", "-e", "e2", "--policy", policy)
        assert (held["slot"], held["role"], held["term"]) == ("e1", "empty", 0)
        first, ticket = tmp_path / "half.ticket", tmp_path / "ticket"
        sign = ("--policy", policy, "--backup", backup)
        said = await hands.refused("ticket", "new", "-e", "e1", *sign, "--term", 2, "--key", "alice", "--out", first)
        assert "is active for slot e1 already" in said["error"]
        said = await hands.refused("ticket", "new", "-e", "e2", *sign, "--term", 1, "--key", "alice", "--out", first)
        assert "a --term above it" in said["error"]
        said = await hands.refused(
            "ticket", "new", "-e", "e2", "--policy", policy, "--term", 2, "--key", "alice", "--out", first
        )
        assert "it has nothing of the slot" in said["error"]
        assert not first.exists()

        # One approver at the terminal of the parent; the other on a laptop, over a nonce of their own.
        await hands("ticket", "new", "-e", "e2", *sign, "--term", 2, "--key", "alice", "--out", first)
        said = await hands.refused("ticket", "show", first, "--approvers", approvers)
        assert said["code"] == "approval"
        document = tmp_path / "e2.cbor"
        await hands("tenancy", "-e", "e2", "--out", document, "--nonce", "ab" * 32)
        said = await hands.refused(
            *("ticket", "approve", first, *sign, "--key", "bob", "--out", ticket, "--document", document),
            *("--nonce", "cd" * 32),
        )
        assert said["code"] == "nonce"
        said = await hands.refused("ticket", "approve", first, "-e", "e3", *sign, "--key", "bob", "--out", ticket)
        assert "nothing was signed" in said["error"]
        await hands(
            *("ticket", "approve", first, *sign, "--key", "bob", "--out", ticket, "--document", document),
            *("--nonce", "ab" * 32),
        )
        shown = await hands("ticket", "show", ticket, "--approvers", approvers)
        assert (shown["slot"], shown["term"], shown["backup"]) == ("e1", 2, made["digest"])

        # Keepers pass their shares to that enclave, and to no other.
        given = ("backup", "pass", backup, "--ticket", ticket, "--approvers", approvers)
        alice, carol = tmp_path / "alice.share", tmp_path / "carol.share"
        await hands(*given, "-e", "e2", "--policy", policy, "--key", "alice", "--out", alice)
        await hands(
            *(*given, "--policy", policy, "--key", "carol", "--out", carol, "--document", document),
            *("--nonce", "ab" * 32, "--max-age", 3600, "--least-term", 1),
        )
        out = tmp_path / "no.share"
        said = await hands.refused(*given, "-e", "e3", "--policy", policy, "--key", "bob", "--out", out)
        assert said["code"] == "clone"
        said = await hands.refused(
            *given, "-e", "e2", "--policy", policy, "--key", "bob", "--out", out, "--least-term", 2
        )
        assert "a later one exists" in said["error"]
        other_image = tmp_path / "other.yaml"
        other_image.write_text(dataclasses.replace(policy_of(network), pcrs={0: (bytes([9]) * 48,)}).to_yaml())
        said = await hands.refused(*given, "-e", "e2", "--policy", other_image, "--key", "bob", "--out", out)
        assert said["code"] == "pcr"
        said = await hands.refused(
            *given, "-e", "e2", "--policy", policy, "--origin-policy", other_image, "--key", "bob", "--out", out
        )
        assert said["code"] == "pcr"
        later_epoch = tmp_path / "epoch.yaml"
        later_epoch.write_text(dataclasses.replace(policy_of(network), min_epoch=2).to_yaml())
        said = await hands.refused(*given, "-e", "e2", "--policy", later_epoch, "--key", "bob", "--out", out)
        assert said["code"] == "epoch"
        await hands("backup", "key", "mallory")
        said = await hands.refused(*given, "-e", "e2", "--policy", policy, "--key", "mallory", "--out", out)
        assert said["code"] == "approval"
        said = await hands.refused(
            *("backup", "pass", backup, "--ticket", first, "--approvers", approvers, "-e", "e2"),
            *("--policy", policy, "--key", "bob", "--out", out),
        )
        assert said["code"] == "approval"
        assert not out.exists()

        restore = ("backup", "restore", backup, "--ticket", ticket)
        said = await hands.refused(*restore, "--share", alice, "-e", "e2")
        assert said["code"] == "approval"
        said = await hands.refused(*restore, "--share", alice, "--share", carol, "-e", "e3")
        assert (said["code"], said["details"]["reason"]) == ("UNTRUSTED", "clone")
        said = await hands.refused(*restore, "--share", alice, "--share", alice, "-e", "e2")
        assert (said["code"], said["details"]["reason"]) == ("UNTRUSTED", "approval")
        with pytest.raises(CallError, match="waits for the state of slot e1"):
            await new.call("counter", "value")
        done = await hands(*restore, "--share", alice, "--share", carol, "-e", "e2")
        assert (done["slot"], done["term"]) == ("e1", 2)
        assert await new.call("counter", "value") == 42
        assert await new.call("counter", "increment", 1) == 43

        # The one before was not dead after all: the ticket ends it. What it took since the backup is lost with it.
        retired = await hands("ticket", "present", ticket, "-e", "e1")
        assert (retired["holder"], retired["term"]) == (False, 1)
        with pytest.raises(CallError, match="retired") as fenced:
            await old.call("counter", "increment", 1)
        assert fenced.value.code is Code.UNAVAILABLE
        said = await hands.refused(*restore, "--share", alice, "--share", carol, "-e", "e2")
        assert said["details"]["reason"] == "state"

        # A later revision takes the slot over from the one that was restored, as from any holder.
        await clone.push(*await prepared(hands, network, 2), standby=True)
        taken = await hands("takeover", "--from", "e2", "-e", "e3")
        assert taken["term"] == 3
        assert await clone.call("counter", "value") == 43


async def test_a_copy_is_promoted_by_a_ticket_when_its_holder_is_lost(hands: Hands, tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as network:
        Registry(tmp_path / "home").write(
            NetworkEntry("default", "development", None, tuple(one.entry() for one in network.enclaves.values()))
        )
        policy = tmp_path / "policy.yaml"
        policy.write_text(policy_of(network).to_yaml())
        old, new, _ = (network[name] for name in NAMES)
        approved = await prepared(hands, network)
        await old.push(*approved)
        await old.call("counter", "increment", 7)
        await new.push(*approved, standby=True)
        copied = await hands("takeover", "--from", "e1", "--copy", "-e", "e2")
        assert copied == {"ok": True, "slot": "e1", "term": 1, "copy": True}
        assert await old.call("counter", "increment", 1) == 8
        with pytest.raises(CallError, match="is a standby of slot e1"):
            await new.call("counter", "value")
        assert old.host is not None
        old.host.end_now()

        half, ticket = tmp_path / "half", tmp_path / "ticket"
        sign = ("-e", "e2", "--policy", policy)
        said = await hands.refused("ticket", "new", *sign, "--term", 1, "--key", "alice", "--out", half)
        assert "has seen term 1 already" in said["error"]
        await hands("ticket", "new", *sign, "--term", 2, "--key", "alice", "--out", half)
        said = await hands.refused("ticket", "present", half, "-e", "e2")
        assert said["details"]["reason"] == "approval"
        await hands("ticket", "approve", half, *sign, "--key", "bob", "--out", ticket)
        promoted = await hands("ticket", "present", ticket, "-e", "e2")
        assert promoted == {"ok": True, "slot": "e1", "term": 2, "holder": True}
        assert await new.call("counter", "increment", 1) == 8
        said = await hands.refused("ticket", "present", ticket, "-e", "e2")
        assert said["details"]["reason"] == "state"


async def test_a_slot_whose_instance_is_lost_comes_back_on_another_by_a_new_manifest(
    hands: Hands, tmp_path: Path
) -> None:
    apart = dataclasses.replace(plan(tmp_path), names=("e1", "e2"), beside={})
    async with running(apart) as network:
        Registry(tmp_path / "home").write(
            NetworkEntry("default", "development", None, tuple(one.entry() for one in network.enclaves.values()))
        )
        here, there = tmp_path / "here.yaml", tmp_path / "there.yaml"
        here.write_text(policy_of(network).to_yaml())
        there.write_text(policy_of(network, "e2").to_yaml())
        old, new = network["e1"], network["e2"]
        await old.push(*await prepared(hands, network))
        await old.call("counter", "increment", 9)
        backup = tmp_path / "e1.backup"
        await hands("backup", "make", "-e", "e1", "--out", backup, "--policy", here)
        assert old.host is not None
        old.host.end_now()

        # Under the manifest that gives the slot to the lost instance the other one has no slot at all.
        with pytest.raises(CallError, match="a standby needs a slot"):
            await new.push(*await prepared(hands, network), standby=True)
        await new.push(*await prepared(hands, network, 2, "e2"), standby=True)
        half, ticket = tmp_path / "half", tmp_path / "ticket"
        sign = ("-e", "e2", "--policy", there, "--backup", backup)
        said = await hands.refused(
            *("ticket", "new", "-e", "e2", "--policy", here, "--backup", backup, "--term", 2, "--key", "alice"),
            *("--out", half),
        )
        assert said["code"] == "pcr"
        await hands("ticket", "new", *sign, "--term", 2, "--key", "alice", "--out", half)
        await hands("ticket", "approve", half, *sign, "--key", "bob", "--out", ticket)
        shares: list[object] = []
        for name in ("bob", "carol"):
            given = ("backup", "pass", backup, "--ticket", ticket, "--approvers", network.approvers_file)
            to = ("-e", "e2", "--policy", there, "--key", name, "--out", tmp_path / f"{name}.share")
            assert (await hands.refused(*given, *to))["code"] == "pcr"  # made elsewhere than that policy says
            await hands(*given, *to, "--origin-policy", here)
            shares += ["--share", tmp_path / f"{name}.share"]
        await hands("backup", "restore", backup, "--ticket", ticket, *shares, "-e", "e2")
        assert await new.call("counter", "increment", 1) == 10
