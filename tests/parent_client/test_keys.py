"""Key files: who can read them, that none is overwritten, passwords, and that nothing of them is ever shown."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from tea.parent_client import keys
from tea.parent_client.refusal import Refusal
from tea.trust.keys import PrivateKey, SigningError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEA_HOME", str(tmp_path / ".tea"))
    return tmp_path / ".tea"


def test_a_private_key_is_for_its_owner_alone(home: Path) -> None:
    private, public = keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert public.read_text().startswith("ed25519:")
    assert keys.read_private("alice").public == keys.read_public("alice")


def test_no_key_is_overwritten(home: Path) -> None:
    private, public = keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    before = private.read_bytes()
    with pytest.raises(Refusal, match=r"alice.pem is there already: choose another name"):
        keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    private.unlink()
    with pytest.raises(Refusal, match=r"alice.pub is there already"):
        keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    public.unlink()
    public.symlink_to(home / "nowhere")
    with pytest.raises(Refusal, match=r"alice.pub is there already"):
        keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    assert not private.exists()
    assert before


def test_a_key_that_others_can_read_is_refused_with_the_mend(home: Path) -> None:
    private, _ = keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    private.chmod(0o640)
    with pytest.raises(Refusal, match=r"found mode 0640, .* expected 0600: chmod 600"):
        keys.read_private("alice")


def test_an_encrypted_key_opens_with_its_password_and_no_other(home: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("first line\r\nsecond\n")
    password.chmod(0o600)
    private, _ = keys.write_key("alice", PrivateKey.generate("p384"), keys.key_folder(), keys.read_password(password))
    assert b"ENCRYPTED" in private.read_bytes()
    assert keys.read_private("alice", password).public == keys.read_public("alice")
    with pytest.raises(SigningError, match="is encrypted: give its password"):
        keys.read_private("alice")
    password.write_text("other")
    with pytest.raises(SigningError, match="does not open"):
        keys.read_private("alice", password)


@pytest.mark.parametrize("content", ["", "\n", "\nsecond"])
def test_an_empty_password_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "password"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Refusal, match="found an empty first line"):
        keys.read_password(path)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(Refusal, match="found mode 0644") as refused:
        keys.read_password(path)
    assert "secret" not in str(refused.value)


def test_a_name_means_the_key_of_that_name_also_when_a_file_is_called_so(home: Path, tmp_path: Path) -> None:
    keys.write_key("alice", PrivateKey.generate(), keys.key_folder())
    (tmp_path / "alice").write_text("no key")
    assert keys.read_private("alice").public == keys.read_public("alice")


def test_a_path_means_that_file(home: Path, tmp_path: Path) -> None:
    keys.write_key("bob", PrivateKey.generate(), tmp_path / "elsewhere")
    assert keys.read_private("elsewhere/bob.pem").public == keys.read_public(str(tmp_path / "elsewhere/bob.pub"))


def test_a_key_that_is_nowhere_is_named_with_the_mend(home: Path) -> None:
    with pytest.raises(Refusal, match=r"no key carol: .*`teactl key new carol` makes one"):
        keys.read_private("carol")
    with pytest.raises(Refusal, match=r"no key \.\./carol") as refused:
        keys.read_public("../carol")
    assert "makes one" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"ed25519:", b"x" * 100_000, b"ed25519:AAAA"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pub"
    path.write_bytes(content)
    with pytest.raises((Refusal, SigningError)):
        keys.read_public(str(path))
    path.chmod(0o600)
    with pytest.raises(SigningError, match="no private key"):
        keys.read_private(str(path))


def test_the_development_key_is_made_once_also_by_many_at_a_time(home: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(keys.development_key().public.text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {keys.read_public("dev").text}


def test_a_development_key_that_cannot_be_made_says_why(home: Path) -> None:
    keys.key_folder().mkdir(parents=True)
    (keys.key_folder() / "dev.pub").write_text("left over")
    with pytest.raises(Refusal, match=r"dev.pub is there already"):
        keys.development_key()
