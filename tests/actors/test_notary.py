"""The notary: its evidence holds for strangers by its README's procedure, and fails for each way of being wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature

from tea.sdk import CallError, Code
from tea.sdk.testing import Harness, run_actor
from tea.trust.errors import TrustError

DIGEST = bytes(range(32))
LINKS = {"crypto": ["generate", "handles", "public_key", "sign"], "nitro": ["attest"]}
README = Path(__file__).resolve().parents[2] / "actors" / "notary" / "README.md"


@pytest.fixture(scope="module")
def verify_signed() -> Any:
    """The very function that the README shows."""
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found.group(1), str(README), "exec"), names)
    return names["verify_signed"]


@pytest.fixture
def notary(actor_module: Callable[[str], Any]) -> Iterator[Harness]:
    with run_actor(actor_module("notary").Notary, links=LINKS) as harness:
        yield harness


def sign(harness: Harness, *args: object) -> dict[str, bytes]:
    signed: dict[str, bytes] = msgspec.to_builtins(harness.call("sign", *args), builtin_types=(bytes,))
    return signed


def policy_of(harness: Harness, deployment: str = "test") -> str:
    root = harness.attester.root_digest.hex()  # type: ignore[attr-defined]
    image = harness.attester.pcrs()[0][1].hex()
    return f"tea: policy/1\nsimulated: {{root: 'sha256:{root}'}}\npcrs: {{0: {image}}}\ndeployment: {deployment}\n"


def now_ms(harness: Harness) -> int:
    return int(harness.now() * 1000)


def test_a_stranger_can_verify_what_it_signed(notary: Harness, verify_signed: Any) -> None:
    signed = sign(notary, DIGEST, b"nonce")
    statement = verify_signed(signed, DIGEST, policy_of(notary), now_ms=now_ms(notary), nonce=b"nonce")
    assert statement.manifest is not None
    assert signed["public_key"] == notary.call("public_key")


@pytest.mark.parametrize("field", ["signature", "public_key", "document", "statement"])
def test_one_flipped_bit_anywhere_is_refused(notary: Harness, verify_signed: Any, field: str) -> None:
    signed = sign(notary, DIGEST)
    for place in (0, len(signed[field]) // 2, -1):
        changed = bytearray(signed[field])
        changed[place] ^= 1
        with pytest.raises((TrustError, ValueError, InvalidSignature)):
            verify_signed({**signed, field: bytes(changed)}, DIGEST, policy_of(notary), now_ms=now_ms(notary))


def test_another_digest_is_refused(notary: Harness, verify_signed: Any) -> None:
    with pytest.raises(ValueError, match="another key or digest"):
        verify_signed(sign(notary, DIGEST), bytes(32), policy_of(notary), now_ms=now_ms(notary))


def test_the_evidence_of_one_signature_does_not_serve_another(notary: Harness, verify_signed: Any) -> None:
    first, second = sign(notary, DIGEST), sign(notary, bytes(32))
    mixed = {**first, "document": second["document"], "statement": second["statement"]}
    with pytest.raises(ValueError, match="another key or digest"):
        verify_signed(mixed, DIGEST, policy_of(notary), now_ms=now_ms(notary))


def test_an_old_nonce_is_refused(notary: Harness, verify_signed: Any) -> None:
    with pytest.raises(TrustError):
        verify_signed(sign(notary, DIGEST, b"old"), DIGEST, policy_of(notary), now_ms=now_ms(notary), nonce=b"new")


def test_another_deployment_is_refused(notary: Harness, verify_signed: Any) -> None:
    with pytest.raises(TrustError):
        verify_signed(sign(notary, DIGEST), DIGEST, policy_of(notary, "other"), now_ms=now_ms(notary))


def test_another_actors_words_do_not_pass_for_the_notarys(
    actor_module: Callable[[str], Any], verify_signed: Any
) -> None:
    with run_actor(actor_module("notary").Notary, links=LINKS, name="mimic") as mimic:
        signed = sign(mimic, DIGEST)
        with pytest.raises(ValueError, match="not by the actor notary"):
            verify_signed(signed, DIGEST, policy_of(mimic), now_ms=now_ms(mimic))


def test_its_key_survives_a_crash(notary: Harness) -> None:
    before = notary.call("public_key")
    notary.restart(crash=True)
    assert notary.call("public_key") == before


@pytest.mark.parametrize("size", [0, 20, 31, 33, 65])
def test_what_is_no_digest_is_not_signed(notary: Harness, size: int) -> None:
    with pytest.raises(CallError) as caught:
        notary.call("sign", bytes(size))
    assert caught.value.code is Code.INVALID


def test_a_nonce_over_the_limit_is_refused(notary: Harness) -> None:
    with pytest.raises(CallError) as caught:
        notary.call("sign", DIGEST, bytes(513))
    assert caught.value.code is Code.INVALID
