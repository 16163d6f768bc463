"""The release protocol: an answer is believed for one question, by one service, in one enclave, and nothing else.

Rule: docs/secrets.md, "The protocol".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust import canonical, cose, pcr
from tea.trust.keys import PrivateKey
from tea.trust.release import (
    ANSWER_TAG,
    CONTENT_TYPE,
    MAX_SECRET,
    Ask,
    Challenge,
    ReleaseCode,
    ReleaseError,
    Request,
    Terms,
    ask_of,
    open_answer,
    parse_ask,
    parse_challenge,
    parse_request,
    seal_answer,
)
from tea.trust.sealing import SealingKey
from tea.trust.statement import Kind, Speaker, Statement

SERVICE, OTHER = PrivateKey.generate(), PrivateKey.generate()
KEY, ANOTHER = SealingKey.generate(), SealingKey.generate()
MANIFEST, NONCE = b"\x05" * 48, b"\x06" * 40
ASK = Ask("api-key", "payer", b"\x01" * 32)
TERMS = Terms(NONCE, "api-key", "payer", 3, b"\x02" * 16, 60)


def answer(terms: Terms = TERMS, key: PrivateKey = SERVICE, public: bytes | None = None) -> bytes:
    return seal_answer(terms, b"hunter2-value", public_key=public or KEY.public, manifest=MANIFEST, key=key)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ReleaseError) as caught:
        call()
    assert "hunter2" not in str(caught.value)
    return caught.value.code


def opened(
    data: bytes, ask: Ask = ASK, nonce: bytes = NONCE, key: SealingKey = KEY, manifest: bytes = MANIFEST
) -> Callable[[], object]:
    return lambda: open_answer(data, SERVICE.public, ask=ask, nonce=nonce, key=key, manifest=manifest)


def test_an_answer_opens_where_it_was_asked_for() -> None:
    released = open_answer(answer(), SERVICE.public, ask=ASK, nonce=NONCE, key=KEY, manifest=MANIFEST)
    assert released.value == b"hunter2-value"
    assert released.terms == TERMS
    assert "hunter2" not in repr(released)


def test_another_services_answer_is_refused() -> None:
    assert refusal(opened(answer(key=OTHER))) == ReleaseCode.SIGNATURE


@given(st.data())
def test_a_changed_answer_is_refused(data: st.DataObject) -> None:
    good = answer()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    assert refusal(opened(bad)) == ReleaseCode.SIGNATURE


@pytest.mark.parametrize(
    ("ask", "nonce"),
    [
        (ASK, b"\x07" * 40),
        (dataclasses.replace(ASK, secret="other"), NONCE),
        (dataclasses.replace(ASK, actor="other"), NONCE),
    ],
)
def test_an_answer_to_another_question_is_refused(ask: Ask, nonce: bytes) -> None:
    assert refusal(opened(answer(), ask, nonce)) == ReleaseCode.NONCE


def test_an_answer_to_another_enclave_or_manifest_does_not_open() -> None:
    assert refusal(opened(answer(), key=ANOTHER)) == ReleaseCode.SEALED
    assert refusal(opened(answer(), manifest=b"\x08" * 48)) == ReleaseCode.SEALED


def test_what_the_service_signed_of_another_kind_is_refused() -> None:
    other = cose.sign1(b"anything", SERVICE, content_type="application/tea-manifest+cbor")
    assert refusal(opened(other)) == ReleaseCode.SIGNATURE
    wrong = canonical.encode({"tea": ANSWER_TAG, **TERMS.plain()})
    assert refusal(opened(cose.sign1(wrong, SERVICE, content_type=CONTENT_TYPE))) == ReleaseCode.MALFORMED
    wrong = canonical.encode({"tea": ANSWER_TAG, **TERMS.plain(), "sealed": "text"})
    assert refusal(opened(cose.sign1(wrong, SERVICE, content_type=CONTENT_TYPE))) == ReleaseCode.MALFORMED


@pytest.mark.parametrize("key", [b"", b"\0" * 32, b"\1" * 31, b"\1" * 294])
def test_a_key_that_cannot_be_sealed_to_is_refused(key: bytes) -> None:
    assert refusal(lambda: seal_answer(TERMS, b"x", public_key=key, manifest=MANIFEST, key=SERVICE)) == ReleaseCode.KEY


def test_a_document_without_a_key_is_refused_and_a_secret_too_large_is_our_mistake() -> None:
    assert refusal(lambda: seal_answer(TERMS, b"x", public_key=None, manifest=MANIFEST, key=SERVICE)) == ReleaseCode.KEY
    with pytest.raises(ValueError, match="at most"):
        seal_answer(TERMS, bytes(MAX_SECRET + 1), public_key=KEY.public, manifest=MANIFEST, key=SERVICE)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"short"},
        {"secret": "Not A Name"},
        {"actor": ""},
        {"version": 0},
        {"version": True},
        {"seconds": 0},
        {"seconds": 8 * 86400},
        {"lease": b"\0" * 15},
    ],
)
def test_terms_out_of_range_are_refused(change: dict[str, object]) -> None:
    assert refusal(lambda: Terms(**{**TERMS.plain(), **change})) == ReleaseCode.MALFORMED  # type: ignore[arg-type]


def test_messages_survive_their_encoding() -> None:
    request = Request(b"document", b"statement", NONCE)
    assert parse_request(request.encode()) == request
    assert parse_ask(ASK.encode()) == ASK
    assert parse_challenge(Challenge(NONCE, 60).encode()) == Challenge(NONCE, 60)


@pytest.mark.parametrize(
    "parse",
    [parse_request, parse_ask, parse_challenge],
)
@pytest.mark.parametrize(
    "data", [b"", b"\xff", canonical.encode({"tea": "tea.other.v1"}), canonical.encode([1]), bytes(200_000)]
)
def test_what_is_no_message_is_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    assert refusal(lambda: parse(data)) == ReleaseCode.MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        {"document": b"", "statement": b""},
        {"document": b"", "statement": b"", "nonce": b"", "more": 1},
        {"document": "text", "statement": b"", "nonce": b""},
    ],
)
def test_a_request_with_other_fields_is_refused(fields: dict[str, object]) -> None:
    data = canonical.encode({"tea": "tea.release.request.v1", **fields})
    assert refusal(lambda: parse_request(data)) == ReleaseCode.MALFORMED


@pytest.mark.parametrize(
    "fields", [{"nonce": b"\0" * 8, "seconds": 1}, {"nonce": 1, "seconds": 1}, {"nonce": NONCE, "seconds": 0}]
)
def test_a_challenge_out_of_range_is_refused(fields: dict[str, object]) -> None:
    data = canonical.encode({"tea": "tea.release.challenge.v1", **fields})
    assert refusal(lambda: parse_challenge(data)) == ReleaseCode.MALFORMED


def statement(kind: Kind, body: bytes, speaker: Speaker | None = None) -> Statement:
    return Statement(
        kind=kind,
        deployment="test",
        manifest=MANIFEST,
        revision=1,
        epoch=1,
        log_head=pcr.ZERO,
        speaker=speaker,
        body=body,
    )


def test_only_the_host_asks_and_only_by_its_own_kind() -> None:
    assert ask_of(statement(Kind.SEAL, ASK.encode())) == ASK
    assert refusal(lambda: ask_of(statement(Kind.ATTEST, ASK.encode()))) == ReleaseCode.STATEMENT
    actor = statement(Kind.ACTOR, ASK.encode(), Speaker("payer", b"\1" * 32))
    assert refusal(lambda: ask_of(actor)) == ReleaseCode.STATEMENT
    assert refusal(lambda: ask_of(statement(Kind.SEAL, b"something"))) == ReleaseCode.MALFORMED


@pytest.mark.parametrize(
    ("secret", "actor", "bundle"), [("A", "a", b"\0" * 32), ("a", "A", b"\0" * 32), ("a", "a", b"")]
)
def test_an_ask_out_of_range_is_refused(secret: str, actor: str, bundle: bytes) -> None:
    assert refusal(lambda: Ask(secret, actor, bundle)) == ReleaseCode.MALFORMED
