"""The vault: encrypted at rest, changed by nobody unseen, the same for every process that opens it.

Rule: docs/secrets.md, "At rest".
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.refusal import Refusal
from tea.parent_client.secrets.vault import DATABASE, Vault, remembered_head
from tea.trust.audit_log import AuditCode, AuditError
from tea.trust.policy import PolicyError
from tea.trust.release import MAX_SECRET, ReleaseError

SECRET = b"correct horse battery staple"


def test_a_vault_opens_again_with_all_it_holds(setting: Any) -> None:
    setting.put()
    setting.vault.revoke("revision", "test", 3)
    again = Vault.open(setting.vault.folder)
    (record,) = again.records()
    assert again.value(record) == SECRET
    assert again.service.public == setting.vault.service.public
    assert again.revocations().least_revision == {"test": 3}
    assert again.head == setting.vault.head
    assert remembered_head(again.folder) == again.head[1]
    again.close()


def test_what_one_process_revokes_the_other_sees_at_once(setting: Any) -> None:
    other = Vault.open(setting.vault.folder)
    other.revoke("enclave", "i-0123-enc456")
    assert setting.vault.revocations().enclaves == {"i-0123-enc456"}
    setting.put()
    other.revoke_secret("api-key")
    assert setting.vault.record("api-key").revoked
    other.close()


def test_nothing_in_the_folder_shows_a_secret_or_the_services_key(setting: Any) -> None:
    setting.put()
    pem = setting.vault.service.to_pem()
    for path in setting.vault.folder.iterdir():
        data = path.read_bytes()
        assert SECRET not in data
        assert pem[40:80] not in data
        assert path.stat().st_mode & 0o077 == 0, path
    assert "PRIVATE" not in repr(setting.vault)


def test_a_vault_without_its_key_does_not_open(setting: Any) -> None:
    key = setting.vault.folder / "master.key"
    original = key.read_bytes()
    key.write_bytes(bytes(32))
    with pytest.raises(Refusal, match="is not the key"):
        Vault.open(setting.vault.folder)
    key.write_bytes(b"short")
    with pytest.raises(Refusal, match="bytes"):
        Vault.open(setting.vault.folder)
    key.write_bytes(original)
    key.chmod(0o644)
    with pytest.raises(Refusal, match="others"):
        Vault.open(setting.vault.folder)


@pytest.mark.parametrize("wrap", ["http://x", "file2:x", ""])
def test_what_wraps_no_key_is_refused(tmp_path: Path, wrap: str) -> None:
    with pytest.raises(Refusal, match="wraps no keys"):
        Vault.create(tmp_path / "v", wrap)


def test_a_vault_is_made_once_and_found_where_it_is(setting: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="already"):
        Vault.create(setting.vault.folder)
    with pytest.raises(Refusal, match="no vault"):
        Vault.open(tmp_path / "nowhere")
    with pytest.raises(Refusal, match="no vault"):
        remembered_head(tmp_path / "nowhere")
    (tmp_path / DATABASE).write_bytes(b"not a database at all, but of some length")
    with pytest.raises(Refusal, match="damaged"):
        Vault.open(tmp_path)


def test_a_vault_of_another_version_is_refused(setting: Any) -> None:
    setting.vault._database.execute("UPDATE meta SET value = x'32' WHERE name = 'version'")
    with pytest.raises(Refusal, match="version"):
        Vault.open(setting.vault.folder)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE secrets SET policy = replace(policy, 'deployment: test', 'deployment: best')",
        "UPDATE secrets SET actors = 'thief'",
        "UPDATE secrets SET lease = 604800",
        "UPDATE secrets SET version = 7",
        "UPDATE secrets SET value = x'00'",
    ],
)
def test_a_record_that_was_changed_in_the_file_does_not_open(setting: Any, change: str) -> None:
    setting.put()
    with sqlite3.connect(setting.vault.folder / DATABASE) as database:
        database.execute(change)
    with pytest.raises(Refusal, match="was changed"):
        setting.vault.value(setting.vault.record("api-key"))


def test_a_minimum_only_rises(setting: Any) -> None:
    setting.vault.revoke("epoch", "test", 3)
    setting.vault.revoke("epoch", "test", 3)
    with pytest.raises(Refusal, match="only rises"):
        setting.vault.revoke("epoch", "test", 2)
    with pytest.raises(Refusal, match="no secret"):
        setting.vault.revoke_secret("nothing")


@pytest.mark.parametrize(
    ("name", "value", "actors", "lease"),
    [
        ("api-key", b"", ("payer",), 60),
        ("api-key", bytes(MAX_SECRET + 1), ("payer",), 60),
        ("api-key", b"x", (), 60),
        ("api-key", b"x", ("payer",), 0),
        ("api-key", b"x", ("payer",), 8 * 86400),
        ("Api Key", b"x", ("payer",), 60),
        ("api-key", b"x", ("Not An Actor",), 60),
    ],
)
def test_a_secret_that_could_not_be_released_is_not_taken(
    setting: Any, name: str, value: bytes, actors: tuple[str, ...], lease: int
) -> None:
    with pytest.raises((Refusal, ReleaseError)):
        setting.vault.put(name, value, policy=setting.policy.to_yaml(), actors=actors, lease=lease)
    with pytest.raises(PolicyError):
        setting.vault.put("api-key", b"x", policy="tea: policy/1", actors=("payer",), lease=60)
    assert not setting.vault.records()


def test_a_line_written_just_before_the_machine_stopped_is_taken_over(setting: Any) -> None:
    vault = setting.vault
    known = vault.head
    vault.audit.append(known, 1, "released", {"secret": "s"})
    setting.put()
    assert vault.head[0] == known[0] + 2


def test_a_log_that_was_cut_or_replaced_stops_everything(setting: Any) -> None:
    setting.put()
    path = setting.vault.audit.path
    whole = path.read_text()
    cases = {
        "": AuditCode.HEAD,
        whole.splitlines(keepends=True)[0]: AuditCode.HEAD,
        whole[:-10]: AuditCode.LINE,
        whole[:-2] + "\n": AuditCode.LINE,
        whole.replace('"lease":60', '"lease":61'): AuditCode.DIGEST,
    }
    for text, code in cases.items():
        path.write_text(text)
        with pytest.raises(AuditError) as caught:
            setting.put("another")
        assert caught.value.code == code
    path.unlink()
    with pytest.raises(AuditError):
        setting.put("another")
    path.write_text(whole)
    setting.put("another")


def test_a_secret_put_anew_while_it_is_asked_for_is_not_released(setting: Any) -> None:
    setting.put()
    record = setting.vault.record("api-key")
    setting.put()
    with pytest.raises(Refusal, match="ask again"):
        setting.vault.lease(record, "payer", "i-1", {}, lambda revocations: None)
