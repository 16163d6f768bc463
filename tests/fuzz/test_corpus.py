"""Every input of the corpus, what once crashed included, goes through every target, and so do its mutilations.

Rule: docs/security.md, "Fuzzing".
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tea_fuzz_targets", HERE / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODULE = load()
TARGETS = MODULE.TARGETS


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in INPUTS) < 256 * 1024


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_harms_no_target(path: Path) -> None:
    data = path.read_bytes()
    for target in TARGETS.values():
        target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutilated_input_harms_no_target(name: str) -> None:
    chance = random.Random(name)
    for path in sorted((CORPUS / name).iterdir()):
        data = path.read_bytes()
        for _ in range(40):
            at = chance.randrange(len(data))
            wrong = data[:at] + chance.randbytes(chance.randrange(3)) + data[at + chance.randrange(3) :]
            TARGETS[name](wrong)
            TARGETS[name](data[:at])


def test_the_valid_things_of_the_corpus_are_valid() -> None:
    # Else a target would turn back at its door, and fuzz nothing behind it.
    roots, at = MODULE._PINNED
    MODULE.verify_document((CORPUS / "attestation" / "document").read_bytes(), roots=roots, at=at)
    whole = (CORPUS / "bundle" / "bundle").read_bytes()
    MODULE.verify_bundle(whole, MODULE.ISSUERS, now=MODULE.NOW, sdk_version="0.1.0")
    MODULE.parse_manifest((CORPUS / "manifest" / "manifest").read_text())
    MODULE.manifest_from_canonical((CORPUS / "manifest_canonical" / "manifest").read_bytes())
    MODULE.verify_approval((CORPUS / "manifest_canonical" / "approved").read_bytes(), MODULE.APPROVERS)
    for policy in ("policy", "combination"):
        MODULE.parse_rule((CORPUS / "policy" / policy).read_text())
    MODULE.parse_statement((CORPUS / "statement" / "statement").read_bytes())
    sealed = (CORPUS / "sealed" / "sealed").read_bytes()
    MODULE.open_sealed(MODULE.SEALING, sealed, purpose="secret", actor="payer", manifest_digest=bytes(48))
    MODULE.verify_lines((CORPUS / "audit" / "log").read_text().splitlines())
    for path in (CORPUS / "envelope_cms").glob("data-key*"):
        MODULE.cms.parse_envelope(path.read_bytes())
    MODULE.parse_backup((CORPUS / "backup" / "backup").read_bytes())
    MODULE.Challenge.parse((CORPUS / "handover" / "challenge").read_bytes())
    MODULE.parse_tunnel(MODULE.Opening().feed((CORPUS / "tunnel" / "request").read_bytes())[0])
    MODULE.bitcoin.parse_address((CORPUS / "addresses" / "p2tr").read_text())
