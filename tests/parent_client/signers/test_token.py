"""Keys on a PKCS#11 token: they sign what verifies, and wrap keys; a PIN never stands on a command line.

Rule: docs/secrets.md, "Keys".
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.refusal import Refusal
from tea.parent_client.signers import open_signer
from tea.parent_client.signers.token import TokenSigner, TokenWrap, parse_uri
from tea.trust import cose
from tea.trust.keys import P384, PrivateKey


def test_a_tokens_signature_counts_in_a_quorum(token: Any) -> None:
    signer, file = open_signer(token.uri("approver")), PrivateKey.generate()
    assert signer.public.algorithm == P384
    data = cose.add_signature(cose.sign(b"payload", signer, content_type="t"), file)
    keys = {one.public.key_id: one.public for one in (signer, file)}
    assert cose.verify_quorum(data, keys, 2, content_type="t").payload == b"payload"
    assert "4321" not in repr(signer)


def test_the_pin_may_stand_in_the_password_file(token: Any) -> None:
    uri = token.uri("approver").partition("&pin-source")[0]
    assert open_signer(uri, token.pin_file).public == open_signer(token.uri("approver")).public
    with pytest.raises(Refusal, match="PIN"):
        open_signer(uri)


def test_a_tokens_key_wraps_and_unwraps_for_one_context(token: Any) -> None:
    wrap = TokenWrap.open(token.uri("vault"))
    wrapped = wrap.wrap(b"k" * 32, b"context")
    assert b"kkk" not in wrapped
    assert wrap.unwrap(wrapped, b"context") == b"k" * 32
    with pytest.raises(Refusal):
        wrap.unwrap(wrapped, b"another")


@pytest.mark.parametrize(
    ("label", "says"), [("small", "another curve"), ("nobody", "no public key"), ("vault", "no public key")]
)
def test_a_key_that_is_not_there_or_on_another_curve_is_refused(token: Any, label: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        TokenSigner.open(token.uri(label))


def test_a_wrong_pin_token_or_library_is_named(token: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "pin"
    wrong.write_text("0000\n")
    wrong.chmod(0o600)
    uri = token.uri("approver")
    with pytest.raises(Refusal, match="wrong"):
        open_signer(uri.replace(str(token.pin_file), str(wrong)))
    with pytest.raises(Refusal, match="no token"):
        open_signer(uri.replace("tea-test", "another"))
    with pytest.raises(Refusal, match="library"):
        open_signer(uri.replace(token.module, str(wrong)))
    shutil.copy(token.pin_file, tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(Refusal, match="others"):
        open_signer(uri.replace(str(token.pin_file), str(tmp_path / "open")))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("pkcs11:token=a;object=b?module-path=/x&pin-value=1234", "shows the PIN"),
        ("pkcs11:token=a?module-path=/x", "lacks object"),
        ("pkcs11:object=a?module-path=/x", "lacks token"),
        ("pkcs11:token=a;object=b", "module-path"),
        ("pkcs11:token=a;object=b;serial=1?module-path=/x", "serial"),
        ("pkcs11:token=a;object=b?module-path=/x&what=1", "what"),
    ],
)
def test_a_uri_that_says_too_little_or_too_much_is_refused(
    uri: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEA_PKCS11_MODULE", raising=False)
    with pytest.raises(Refusal, match=says) as caught:
        parse_uri(uri)
    assert "1234" not in str(caught.value)
