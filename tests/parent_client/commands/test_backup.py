"""`teactl backup` and `ticket` at their edges: keys as files, files that are none, a parent that changes a backup.

May not: move a state; `tests/simulator/test_backup.py` does, from key to restore. Rule: docs/continuity.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.recovery_keys import read_recovery_key
from tea.parent_client.refusal import Refusal
from tea.protocol.channels import Attestation, BackupMade
from tea.protocol.errors import CallError, Code
from tea.trust.approval import Approvers
from tea.trust.backup import Backup, make_backup
from tea.trust.continuity import Ticket, sign_ticket
from tea.trust.handover_messages import PIECE_BYTES
from tea.trust.keys import PrivateKey
from tea.trust.recovery import recovery_key_text
from tea.trust.sealing import SealingKey

Make = Callable[..., Awaitable[Any]]
KEY = PrivateKey.generate()


def backup_of(size: int = 10, **changes: Any) -> Backup:
    """A backup with shares that nobody will join."""
    made = make_backup(
        os.urandom(size),
        deployment="d",
        slot="e1",
        term=3,
        manifest=bytes(48),
        made=1_700_000_000_000,
        keepers=[SealingKey.generate().public for _ in range(3)],
        threshold=2,
        split=lambda secret, threshold, shares: [secret] * shares,
        random=os.urandom,
    )
    return dataclasses.replace(made, **changes)


# -- keys


def test_a_recovery_key_is_its_owner_s_alone_and_never_overwritten(teactl: Any) -> None:
    ran = teactl("backup", "key", "alice", "--json")
    path = Path(ran.json["private"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert recovery_key_text(read_recovery_key("alice").public) == ran.json["public_key"]
    before = path.read_bytes()
    ran = teactl("backup", "key", "alice", "--json")
    assert ran.status == 1 and "is there already" in ran.json["error"]
    assert path.read_bytes() == before
    assert teactl("backup", "key", "../alice").status == 2


def test_a_recovery_key_opens_with_its_password(teactl: Any) -> None:
    password = teactl.folder / "password"
    password.write_text("correct horse\n")
    password.chmod(0o600)
    ran = teactl("backup", "key", "alice", "--password-file", password, "--out", "keys")
    path = teactl.folder / "keys" / "alice.recovery.pem"
    assert "ENCRYPTED" in path.read_text()
    assert recovery_key_text(read_recovery_key(str(path), password).public) in ran.out
    password.write_text("wrong\n")
    for given in (None, password):
        with pytest.raises(Refusal, match="opens to no key"):
            read_recovery_key(str(path), given)


def test_what_is_no_recovery_key_is_refused(teactl: Any) -> None:
    path = teactl.folder / "signing.recovery.pem"
    path.write_bytes(KEY.to_pem())
    path.chmod(0o600)
    with pytest.raises(Refusal, match="another key than X25519"):
        read_recovery_key(str(path))
    path.write_bytes(b"no PEM")
    with pytest.raises(Refusal, match="opens to no key"):
        read_recovery_key(str(path))
    path.chmod(0o644)
    with pytest.raises(Refusal, match="lets others read it"):
        read_recovery_key(str(path))
    with pytest.raises(Refusal, match="no key nobody"):
        read_recovery_key("nobody")


# -- making one


@pytest.fixture
async def making(teactl: Any, make_client: Make, make_host: Make) -> Callable[..., Awaitable[Any]]:
    """Runs `backup make` against an enclave that made this file, and a parent that carries that one."""
    client = await make_client("e1")
    teactl.register(client)

    async def run(data: bytes, *more: object, carried: bytes | None = None) -> Any:
        brought = data if carried is None else carried
        digest = hashlib.sha384(data).digest()

        async def backup() -> BackupMade:
            evidence = Attestation(b"document", b"statement")
            return BackupMade("e1", 3, 1_700_000_000_000, 2, ("a", "b", "c"), len(data), digest, evidence)

        async def backup_piece(asked: bytes, index: int) -> bytes:
            assert asked == digest
            return brought[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]

        await make_host(client, backup=backup, backup_piece=backup_piece)
        return await teactl.beside("backup", "make", "--out", "e1.backup", *more)

    return run


async def test_a_backup_comes_in_pieces_and_is_written_whole_with_its_evidence(making: Any, teactl: Any) -> None:
    data = backup_of(2 * PIECE_BYTES + 5).encode()
    ran = await making(data)
    assert ran.status == 0, ran.err
    assert "slot e1, term 3; 2 of a, b, c restore it" in ran.out
    path = teactl.folder / "e1.backup"
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    beside = [path.with_suffix(suffix).read_bytes() for suffix in (".document", ".statement")]
    assert beside == [b"document", b"statement"]


async def test_a_backup_that_the_parent_changed_is_not_written(making: Any, teactl: Any) -> None:
    data = backup_of().encode()
    for carried in (data[:-1], data[:-1] + b"x", b""):
        ran = await making(data, "--json", carried=carried)
        assert ran.status == 1
        assert "changed on the way" in ran.json["error"]
    assert not (teactl.folder / "e1.backup").exists()


async def test_evidence_that_the_keepers_would_not_accept_is_said_at_once(making: Any, teactl: Any) -> None:
    policy = teactl.folder / "policy.yaml"
    policy.write_text(f"tea: policy/1\nsimulated: {{root: 'sha256:{'11' * 32}'}}\npcrs: {{0: '{'22' * 48}'}}\n")
    ran = await making(backup_of().encode(), "--policy", policy, "--json")
    assert ran.status == 1
    assert not (teactl.folder / "e1.backup").exists()


def test_a_backup_s_file_has_an_ending_of_its_own(teactl: Any) -> None:
    for name in ("e1.document", "e1.statement"):
        assert teactl("backup", "make", "--out", name).status == 2


# -- showing, passing, restoring


def test_a_backup_says_what_it_is_without_being_believed(teactl: Any) -> None:
    path = teactl.folder / "e1.backup"
    path.write_bytes(backup_of().encode())
    ran = teactl("backup", "show", path)
    assert "NOT verified" in ran.out
    assert "2023-11-14T22:13:20Z" in ran.out
    assert "2 of 3 keepers" in ran.out
    path.write_bytes(backup_of(made=-(1 << 62)).encode())
    assert teactl("backup", "show", path, "--json").json["made"].startswith("at -")
    path.write_bytes(b"no backup")
    assert teactl("backup", "show", path, "--json").json["code"] == "malformed"


@pytest.fixture
def passing(teactl: Any) -> Callable[..., Any]:
    """Runs `backup pass` over a backup and its ticket, up to where the enclave would be asked."""
    (teactl.folder / "approvers.yaml").write_text(Approvers("d", 1, 1, (KEY.public,)).to_yaml())
    root = f"simulated: {{root: 'sha256:{'11' * 32}'}}"
    (teactl.folder / "policy.yaml").write_text(f"tea: policy/1\n{root}\npcrs: {{0: '{'22' * 48}'}}\n")
    teactl("backup", "key", "alice")

    def run(backup: Backup, *more: object, named: bytes | None = None, key: PrivateKey = KEY) -> Any:
        (teactl.folder / "e1.backup").write_bytes(backup.encode())
        ticket = Ticket("d", "e1", 4, bytes(32), named or backup.digest)
        (teactl.folder / "ticket").write_bytes(sign_ticket(ticket, key))
        return teactl(
            *("backup", "pass", "e1.backup", "--ticket", "ticket", "--approvers", "approvers.yaml"),
            *("--policy", "policy.yaml", "--key", "alice", "--out", "share", "--json", *more),
        )

    return run


def test_a_keeper_passes_nothing_without_the_quorum_s_ticket_for_this_very_backup(passing: Any, teactl: Any) -> None:
    assert passing(backup_of(), key=PrivateKey.generate()).json["code"] == "approval"
    assert "names another backup" in passing(backup_of(), named=bytes(48)).json["error"]
    assert not (teactl.folder / "share").exists()


def test_a_keeper_passes_nothing_of_a_backup_that_is_too_old(passing: Any, teactl: Any) -> None:
    assert "expected 4 at least" in passing(backup_of(), "--least-term", 4).json["error"]
    assert "made 2023-11-14T22:13:20Z" in passing(backup_of(), "--max-age", 3600).json["error"]
    fresh = backup_of(made=int(time.time() * 1000))
    assert "no network default" in passing(fresh, "--max-age", 3600, "--least-term", 3).json["error"]


def test_a_keeper_s_own_nonce_goes_with_the_document(passing: Any) -> None:
    for wrong in (("--document", "d.cbor"), ("--nonce", "ab"), ("--document", "d.cbor", "--nonce", "xy")):
        ran = passing(backup_of(), *wrong)
        assert ran.status == 2


def test_a_keeper_passes_nothing_to_what_is_not_attested(passing: Any, teactl: Any) -> None:
    (teactl.folder / "d.cbor").write_bytes(b"no document")
    (teactl.folder / "d.statement").write_bytes(b"no statement")
    ran = passing(backup_of(), "--document", "d.cbor", "--nonce", "ab")
    assert (ran.status, ran.json["code"]) == (1, "structure")
    assert not (teactl.folder / "share").exists()


async def test_a_restore_with_too_few_files_is_refused_before_anything_is_sent(teactl: Any) -> None:
    (teactl.folder / "e1.backup").write_bytes(backup_of().encode())
    (teactl.folder / "ticket").write_bytes(b"ticket")
    (teactl.folder / "share").write_bytes(b"share")
    ran = teactl("backup", "restore", "e1.backup", "--ticket", "ticket", "--share", "share", "--json")
    assert (ran.status, ran.json["code"]) == (1, "approval")
    (teactl.folder / "share").write_bytes(bytes(2000))
    ran = teactl("backup", "restore", "e1.backup", "--ticket", "ticket", "--share", "share", "--json")
    assert "is no passed share" in ran.json["error"]
    assert teactl("backup", "restore", "e1.backup", "--ticket", "ticket").status == 2


async def test_what_the_enclave_refuses_is_told_as_it_said_it(teactl: Any, make_client: Make, make_host: Make) -> None:
    client = await make_client("e1")
    teactl.register(client)

    async def restore_offer(ticket: bytes, shares: tuple[bytes, ...], size: int) -> None:
        assert (ticket, shares) == (b"ticket", (b"share", b"share"))
        raise CallError(Code.UNTRUSTED, "the ticket is not approved", reason="approval")

    await make_host(client, restore_offer=restore_offer)
    (teactl.folder / "e1.backup").write_bytes(backup_of().encode())
    (teactl.folder / "ticket").write_bytes(b"ticket")
    (teactl.folder / "share").write_bytes(b"share")
    ran = await teactl.beside(
        *("backup", "restore", "e1.backup", "--ticket", "ticket", "--share", "share", "--share", "share", "--json")
    )
    assert (ran.json["code"], ran.json["details"]["reason"]) == ("UNTRUSTED", "approval")


# -- tickets


def test_a_ticket_is_shown_when_its_quorum_signed_it(teactl: Any) -> None:
    (teactl.folder / "approvers.yaml").write_text(Approvers("d", 1, 1, (KEY.public,)).to_yaml())
    (teactl.folder / "ticket").write_bytes(sign_ticket(Ticket("d", "e1", 4, bytes(32)), KEY))
    ran = teactl("ticket", "show", "ticket", "--approvers", "approvers.yaml")
    assert "approved: d/e1 is held from term 4" in ran.out
    for data in (b"", sign_ticket(Ticket("d", "e1", 4, bytes(32)), PrivateKey.generate())):
        (teactl.folder / "ticket").write_bytes(data)
        ran = teactl("ticket", "show", "ticket", "--approvers", "approvers.yaml", "--json")
        assert (ran.status, ran.json["code"]) == (1, "approval")
    (teactl.folder / "ticket").write_bytes(bytes(70_000))
    assert "is no ticket" in teactl("ticket", "show", "ticket", "--approvers", "approvers.yaml", "--json").json["error"]


@pytest.mark.parametrize(
    "words",
    [
        ("tenancy",),
        ("tenancy", "--policy", "p.yaml", "--out", "d.cbor"),
        ("tenancy", "--out", "d.statement"),
        ("tenancy", "--out", "d.cbor", "--document", "e.cbor"),
        ("tenancy", "--out", "d.cbor", "--nonce", "xy"),
        ("ticket", "new", "--term", "0", "--policy", "p.yaml", "--key", "a", "--out", "t"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(teactl: Any, words: tuple[str, ...]) -> None:
    assert teactl(*words).status == 2
