"""`teactl ra verify`: certificates and evidence offline, by a policy that names roots and members."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("tea_tests_rounds", Path(__file__).parents[2] / "trust/test_rounds.py")
assert _spec is not None
assert _spec.loader is not None
rounds = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rounds)


@pytest.fixture
def work(teactl: Any) -> Path:
    folder: Path = teactl.folder
    (folder / "certificate").write_bytes(rounds.certificate().encode())
    (folder / "evidence").write_bytes(rounds.dissent(difference=rounds.differing()).encode())
    (folder / "policy.yaml").write_text(rounds.POLICY.to_yaml())
    return folder


def test_a_certificate_and_evidence_are_verified(teactl: Any, work: Path) -> None:
    ran = teactl("ra", "verify", "certificate", "evidence", "--policy", "policy.yaml", "--json")
    assert ran.status == 0, ran
    certificate, evidence = ran.json["files"]
    assert certificate["kind"] == "certificate"
    assert certificate["slots"] == ["e1", "e2", "e3", "e4"]
    assert (certificate["height"], certificate["quorum"], certificate["members"]) == (12, 4, 5)
    assert certificate["state_root"] == rounds.TRUTH.root.hex()
    assert (evidence["kind"], evidence["accused"]) == ("dissent", "e5")
    assert bytes.fromhex(evidence["difference"]["key"]) == b"key 3"
    assert bytes.fromhex(evidence["difference"]["accused"]) == b"false"
    assert evidence["certificate"]["height"] == 12
    ran = teactl("ra", "verify", "certificate", "evidence", "--policy", "policy.yaml")
    lines = ran.out.splitlines()
    assert "4 of 5 members (e1, e2, e3, e4; 4 needed) attest state" in lines[0]
    assert "e5 (" in lines[1]
    assert "they differ in key 3: certified 74727565, accused 66616c7365" in lines[1]


def test_evidence_of_an_equivocation_and_of_an_absent_key_is_told(teactl: Any, work: Path) -> None:
    key = b"\xff\x01"
    lie = rounds.TRUTH.apply({key: b"x"})
    told = rounds.dissent(lie.root, difference=rounds.differing(key, rounds.TRUTH, lie))
    (work / "evidence").write_bytes(told.encode())
    ran = teactl("ra", "verify", "evidence", "--policy", "policy.yaml")
    assert ran.status == 0, ran
    assert "they differ in ff01: certified absent, accused 78" in ran.out


def test_every_changed_byte_is_refused(teactl: Any, work: Path) -> None:
    for name in ("certificate", "evidence"):
        good = (work / name).read_bytes()
        for place in range(0, len(good), len(good) // 12):
            data = bytearray(good)
            data[place] ^= 1
            (work / name).write_bytes(data)
            ran = teactl("ra", "verify", name, "--policy", "policy.yaml", "--json")
            assert ran.status == 1
            assert ran.json["file"] == name
            assert ran.json["code"]


def test_another_policy_refuses_what_this_one_accepts(teactl: Any, work: Path) -> None:
    text = (work / "policy.yaml").read_text()
    (work / "policy.yaml").write_text(text.replace(rounds.CA.root_digest.hex(), "00" * 32))
    ran = teactl("ra", "verify", "certificate", "--policy", "policy.yaml", "--json")
    assert ran.status == 1
    assert "root" in ran.json["error"]


def test_files_that_are_neither_are_refused(teactl: Any, work: Path) -> None:
    for data in (b"", b"\xff", b"\xa0", b"x" * 1000, bytes((16 << 20) + 1)):
        (work / "x").write_bytes(data)
        assert teactl("ra", "verify", "x", "--policy", "policy.yaml", "--json").status == 1
    for line in (("nowhere", "--policy", "policy.yaml"), ("certificate", "--policy", "x"), (".", "--policy", ".")):
        assert teactl("ra", "verify", *line).status == 1
