"""A vault whose key is wrapped by a token or by KMS opens with that key alone. Rule: docs/secrets.md, "At rest"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.refusal import Refusal
from tea.parent_client.secrets.vault import Vault
from tea.parent_client.signers.aws import KmsKey


def again(folder: Path) -> str:
    vault = Vault.open(folder)
    vault.close()
    return vault.service.public.text


def test_a_tokens_key_opens_the_vault(token: Any, tmp_path: Path) -> None:
    made = Vault.create(tmp_path / "v", token.uri("vault"))
    made.close()
    assert again(tmp_path / "v") == made.service.public.text
    assert not (tmp_path / "v" / "master.key").exists()
    token.pin_file.write_text("0000\n")
    try:
        with pytest.raises(Refusal, match="PIN"):
            Vault.open(tmp_path / "v")
    finally:
        token.pin_file.write_text("4321\n")
    again(tmp_path / "v")


def test_a_key_in_kms_opens_the_vault(aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}
    metadata = KmsKey("none", "eu-west-1", aws).ask("CreateKey", asked)["KeyMetadata"]
    assert isinstance(metadata, dict)
    made = Vault.create(tmp_path / "v", f"awskms:{metadata['KeyId']}?region=eu-west-1&endpoint={aws}")
    made.close()
    assert again(tmp_path / "v") == made.service.public.text
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Refusal, match="AWS_ACCESS_KEY_ID"):
        Vault.open(tmp_path / "v")
