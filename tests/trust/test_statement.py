"""Statements: bound to their document, canonical, and nobody passes for another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.trust import canonical, pcr
from tea.trust.attestation import AttestationDocument, verify_document
from tea.trust.statement import (
    MAX_BODY,
    Kind,
    Speaker,
    Statement,
    StatementCode,
    StatementError,
    parse_statement,
    verify_statement,
)

if TYPE_CHECKING:
    from tests.trust.conftest import Maker

HEALTHY: dict[str, Any] = {
    "kind": "actor",
    "deployment": "tutorial",
    "manifest": b"\x01" * 48,
    "revision": 3,
    "epoch": 1,
    "log_head": b"\x02" * 48,
    "speaker": Speaker("notary", b"\x03" * 32),
    "body": b"signed",
}
GOLDEN = "f0cc59245d1a7fe359150cc1f0e849d93d4827e366abc44822dbb16ab88251c578a76d3f7c4a379ef76276e365db9214"


def statement(**changes: Any) -> Statement:
    return Statement(**{**HEALTHY, **changes})


def encoded(**changes: Any) -> bytes:
    """The canonical bytes of any fields; None as a change leaves nothing out."""
    fields = {**HEALTHY, "speaker": ["notary", b"\x03" * 32], "tea": "tea.statement.v1", **changes}
    return canonical.encode({key: value for key, value in fields.items() if value != "LEFT OUT"})


def document(maker: Maker, user_data: bytes | None) -> AttestationDocument:
    return verify_document(maker.document(user_data=user_data), roots=maker.roots(), at=maker.now_ms)


def code_of(data: bytes) -> StatementCode:
    with pytest.raises(StatementError) as refusal:
        parse_statement(data)
    code = refusal.value.code
    assert isinstance(code, StatementCode)
    return code


def test_the_encoding_is_this_and_stays_this() -> None:
    assert statement().digest.hex() == hashlib.sha384(encoded()).hexdigest()
    assert statement().encode() == encoded()
    assert statement().digest.hex() == GOLDEN


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kind": "ready", "speaker": None},
        {"kind": "attest", "speaker": None, "manifest": None, "revision": 0, "epoch": 0, "log_head": pcr.ZERO},
        {"kind": "seal", "speaker": None, "body": b""},
        {"kind": "kms", "speaker": None},
        {"kind": "ra", "body": bytes(MAX_BODY)},
    ],
)
def test_what_was_said_is_read_back(changes: dict[str, Any]) -> None:
    assert parse_statement(statement(**changes).encode()) == statement(**changes)


def test_the_statement_of_a_document_is_believed(maker: Maker) -> None:
    said = statement()
    assert verify_statement(document(maker, said.digest), said.encode()) == said


def test_the_statement_of_another_document_is_refused_before_it_is_read(maker: Maker) -> None:
    for user_data in (statement(revision=4).digest, None, b""):
        with pytest.raises(StatementError) as refusal:
            verify_statement(document(maker, user_data), b"not even CBOR")
        assert refusal.value.code is StatementCode.USER_DATA


def test_bytes_that_a_document_vouches_for_must_still_be_a_statement(maker: Maker) -> None:
    with pytest.raises(StatementError) as refusal:
        verify_statement(document(maker, hashlib.sha384(b"free text").digest()), b"free text")
    assert refusal.value.code is StatementCode.NOT_CANONICAL


def test_an_actor_never_passes_for_the_host_nor_the_host_for_an_actor() -> None:
    for kind in Kind:
        actors = kind in (Kind.ACTOR, Kind.RA)
        with pytest.raises(StatementError) as refusal:
            statement(kind=kind, speaker=None if actors else HEALTHY["speaker"])
        assert refusal.value.code is StatementCode.SPEAKER


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tea": "tea.event.v1"}, StatementCode.NOT_CANONICAL),
        ({"body": bytes(MAX_BODY + 5000)}, StatementCode.NOT_CANONICAL),
        ({"kind": "boss"}, StatementCode.KIND),
        ({"kind": 1}, StatementCode.KIND),
        ({"speaker": None}, StatementCode.SPEAKER),
        ({"kind": "ready"}, StatementCode.SPEAKER),
        ({"more": 1}, StatementCode.FIELD),
        ({"body": "LEFT OUT"}, StatementCode.FIELD),
        ({"body": 1}, StatementCode.FIELD),
        ({"body": bytes(MAX_BODY + 1)}, StatementCode.FIELD),
        ({"deployment": "Two Words"}, StatementCode.FIELD),
        ({"deployment": b"x"}, StatementCode.FIELD),
        ({"manifest": bytes(32)}, StatementCode.FIELD),
        ({"manifest": None}, StatementCode.FIELD),
        ({"revision": 0}, StatementCode.FIELD),
        ({"revision": -1}, StatementCode.FIELD),
        ({"revision": True}, StatementCode.FIELD),
        ({"revision": 1 << 63}, StatementCode.FIELD),
        ({"epoch": "1"}, StatementCode.FIELD),
        ({"log_head": bytes(32)}, StatementCode.FIELD),
        ({"speaker": ["notary"]}, StatementCode.FIELD),
        ({"speaker": "notary"}, StatementCode.FIELD),
        ({"speaker": [1, bytes(32)]}, StatementCode.FIELD),
        ({"speaker": ["Not A Name", bytes(32)]}, StatementCode.FIELD),
        ({"speaker": ["notary", bytes(48)]}, StatementCode.FIELD),
    ],
)
def test_a_malformed_statement_is_refused(changes: dict[str, Any], code: StatementCode) -> None:
    assert code_of(encoded(**changes)) is code


def test_every_code_has_its_test() -> None:
    assert {code.value for code in StatementCode} == {"user-data", "not-canonical", "field", "kind", "speaker"}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), at=st.integers(0, 200))
def test_any_bytes_are_a_statement_or_the_one_error(data: bytes, at: int) -> None:
    for candidate in (data, encoded()[:at] + data + encoded()[at + len(data) :]):
        try:
            assert parse_statement(candidate).encode() == candidate
        except StatementError:
            pass
