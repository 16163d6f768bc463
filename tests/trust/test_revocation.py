"""Revocation: each kind refuses what it names, and only that. Rule: docs/secrets.md, "Revocation"."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tea.trust import pcr
from tea.trust.attestation import AttestationDocument, verify_document
from tea.trust.release import ReleaseCode, ReleaseError
from tea.trust.revocation import Revocations
from tea.trust.statement import Kind, Statement

MANIFEST = b"\x05" * 48
STATEMENT = Statement(
    kind=Kind.SEAL, deployment="test", manifest=MANIFEST, revision=4, epoch=2, log_head=pcr.ZERO, body=b""
)


@pytest.fixture
def document(maker: Any) -> AttestationDocument:
    return verify_document(maker.document(), roots=maker.roots(), at=maker.now_ms)


def refusal(revocations: Revocations, document: AttestationDocument, statement: Statement = STATEMENT) -> str:
    with pytest.raises(ReleaseError) as caught:
        revocations.require(document, statement)
    return caught.value.code


def test_what_nothing_revokes_passes(document: AttestationDocument) -> None:
    Revocations().require(document, STATEMENT)
    Revocations(
        images=[b"\xff" * 48],
        manifests=[b"\xff" * 48],
        enclaves={"i-other"},
        least_revision={"test": 4, "other": 9},
        least_epoch={"test": 2, "other": 9},
    ).require(document, STATEMENT)


def test_an_image_is_revoked_by_pcr0(document: AttestationDocument) -> None:
    revoked = Revocations(images=[b"\xff" * 48, document.pcrs[0]])
    assert refusal(revoked, document) == ReleaseCode.REVOKED_IMAGE
    without = dataclasses.replace(document, pcrs={1: document.pcrs[1]})
    assert refusal(Revocations(), without) == ReleaseCode.REVOKED_IMAGE


def test_a_manifest_is_revoked_by_its_digest(document: AttestationDocument) -> None:
    assert refusal(Revocations(manifests=[MANIFEST]), document) == ReleaseCode.REVOKED_MANIFEST
    none = dataclasses.replace(STATEMENT, manifest=None, revision=0)
    assert refusal(Revocations(), document, none) == ReleaseCode.REVOKED_MANIFEST


def test_an_enclave_is_revoked_by_boot_or_by_instance(document: AttestationDocument) -> None:
    for name in (document.module_id, document.instance_id):
        assert refusal(Revocations(enclaves={name}), document) == ReleaseCode.REVOKED_ENCLAVE


def test_what_is_below_the_least_revision_is_revoked(document: AttestationDocument) -> None:
    assert refusal(Revocations(least_revision={"test": 5}), document) == ReleaseCode.REVOKED_REVISION


def test_what_is_below_the_least_epoch_is_revoked(document: AttestationDocument) -> None:
    assert refusal(Revocations(least_epoch={"test": 3}), document) == ReleaseCode.REVOKED_EPOCH
