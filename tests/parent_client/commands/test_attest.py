"""`teactl attest verify` and `inspect` on real documents from AWS hardware: accepted at their time, refused when a bit,
a byte, the root or the time is another.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[3].parent / "shared/data/attestation"
AT = "2024-04-10T07:09:30Z"
MODULE = "i-058bac400e426cc24-enc018e0924a1c4673e"
PCR0 = "ea6ff0cc81650a6a2e5e6b009b058d684600ea08006beafb60a693e2eeb362e3a06039ff8341f0715543672c5c9ffa61"

pytestmark = pytest.mark.shared


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = DATA / "aws-nitro-2024-04-10.cbor"
    if not path.is_file():
        pytest.skip(f"the real attestation documents are not in {DATA}")
    copy = tmp_path / "document.cbor"
    copy.write_bytes(path.read_bytes())
    return copy


def refused(ran: Any, *words: str) -> None:
    assert ran.status == 1
    assert ran.json["ok"] is False
    assert ran.json["authentic"] is False
    for word in words:
        assert word in ran.json["error"]


def test_a_real_document_is_authentic_at_its_time(teactl: Any, document: Path) -> None:
    ran = teactl("attest", "verify", document, "--at", AT, "--json")
    assert ran.status == 0, ran
    assert ran.json["authentic"] is True
    assert ran.json["policy"] is None
    assert "accepted" not in ran.json
    assert ran.json["module_id"] == MODULE
    assert ran.json["pcrs"]["0"] == PCR0
    assert ran.json["at"] == "2024-04-10T07:09:30.000Z"
    assert ran.json["time"] == "2024-04-10T07:09:01.701Z"
    assert ran.json["root"] == "sha256:641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    ran = teactl("attest", "verify", document, "--at", AT)
    assert ran.status == 0
    assert MODULE in ran.out
    assert PCR0 in ran.out


def test_the_process_says_the_same(document: Path) -> None:
    line = [sys.executable, "-m", "tea.parent_client.cli", "attest", "verify", str(document), "--at", AT, "--json"]
    ended = subprocess.run(line, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["authentic"] is True
    ended = subprocess.run(line[:-3], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert b"expired" in ended.stderr or b"valid" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_with_a_policy_it_is_accepted_or_not(teactl: Any, document: Path) -> None:
    policy = teactl.folder / "policy.yaml"
    policy.write_text(f"tea: policy/1\nroots: [aws]\npcrs: {{0: '{PCR0}'}}\n")
    ran = teactl("attest", "verify", document, "--at", AT, "--policy", policy, "--json")
    assert ran.status == 0
    assert (ran.json["authentic"], ran.json["accepted"], ran.json["policy"]) == (True, True, str(policy))
    policy.write_text(f"tea: policy/1\nroots: [aws]\npcrs: {{0: '{'0' * 95}1'}}\n")
    ran = teactl("attest", "verify", document, "--at", AT, "--policy", policy, "--json")
    assert ran.status == 1
    assert (ran.json["authentic"], ran.json["accepted"]) == (True, False)
    assert "authentic, but the policy refuses it" in ran.json["error"]
    assert ran.json["code"]
    assert ran.json["module_id"] == MODULE
    assert teactl("attest", "verify", document, "--policy", policy, "--root", "sha256:" + "00" * 32).status == 2
    for wrong in (b"", b"\xff", b"tea: policy/1\n", b"tea: policy/1\nroots: [aws]\ncolour: red\n", bytes(2 << 20)):
        policy.write_bytes(wrong)
        assert teactl("attest", "verify", document, "--at", AT, "--policy", policy, "--json").status == 1


def test_one_flipped_bit_anywhere_is_refused_with_the_reason(teactl: Any, document: Path) -> None:
    good = document.read_bytes()
    draw = random.Random(20240410)
    places = {0, 1, 2, len(good) * 8 - 1, *(draw.randrange(len(good) * 8) for _ in range(100))}
    for bit in sorted(places):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        document.write_bytes(data)
        refused(teactl("attest", "verify", document, "--at", AT, "--json"), "not authentic: ")


def test_every_flipped_bit_is_refused_by_the_same_rules(document: Path) -> None:
    from tea.trust.attestation import AttestationError, ChainCache, aws_roots, verify_document

    good, roots, cache = document.read_bytes(), aws_roots(), ChainCache()
    at = 1_712_732_970_000
    verify_document(good, roots=roots, at=at, cache=cache)
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        with pytest.raises(AttestationError):
            verify_document(bytes(data), roots=roots, at=at, cache=cache)


def test_a_cut_or_a_longer_document_is_refused(teactl: Any, document: Path) -> None:
    good = document.read_bytes()
    for size in (0, 1, 10, 100, len(good) // 2, len(good) - 1):
        document.write_bytes(good[:size])
        refused(teactl("attest", "verify", document, "--at", AT, "--json"))
    for data in (good + b"\x00", good * 2, b"\xd2" + good, b"\x00" + good, good + bytes(2 << 20)):
        document.write_bytes(data)
        refused(teactl("attest", "verify", document, "--at", AT, "--json"))


def test_another_root_is_refused(teactl: Any, document: Path) -> None:
    root = "sha256:" + "00" * 32
    ran = teactl("attest", "verify", document, "--at", AT, "--root", root, "--json")
    refused(ran, "root")
    assert ran.json["code"] == "root"


def test_without_a_time_or_at_another_time_it_has_expired(teactl: Any, document: Path) -> None:
    refused(teactl("attest", "verify", document, "--json"), "2024")
    assert teactl("attest", "verify", document, "--json").json["code"] == "expired"
    for at, code in [
        ("2024-04-11T07:09:30Z", "expired"),
        ("2023-04-10T07:09:30Z", "not-yet-valid"),
        ("0001-01-01T00:00:00Z", "not-yet-valid"),
        ("1969-12-31T23:59:59+14:00", "not-yet-valid"),
        ("9999-12-31T23:59:59Z", "expired"),
    ]:
        ran = teactl("attest", "verify", document, "--at", at, "--json")
        refused(ran)
        assert ran.json["code"] == code


@pytest.mark.parametrize("at", ["", "now", "2024-04-10T07:09:30", "2024-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none_is_wrong_usage(teactl: Any, document: Path, at: str) -> None:
    ran = teactl("attest", "verify", document, "--at", at, "--json")
    assert ran.status == 2
    assert "--at" in ran.json["error"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--root", "00"), ("--root", "sha256:xy"), ("--root", "sha384:" + "00" * 32), ("--nonce", "z")],
)
def test_an_option_that_is_no_hex_is_wrong_usage(teactl: Any, document: Path, option: str, value: str) -> None:
    ran = teactl("attest", "verify", document, "--at", AT, option, value, "--json")
    assert ran.status == 2
    assert option in ran.json["error"]


def test_a_nonce_that_it_does_not_carry_is_refused(teactl: Any, document: Path) -> None:
    refused(teactl("attest", "verify", document, "--at", AT, "--nonce", "00", "--json"), "nonce")


def test_a_statement_that_it_does_not_vouch_for_is_refused(teactl: Any, document: Path) -> None:
    (document.parent / "other.statement").write_bytes(b"\xa0")
    line = ("attest", "verify", document, "--at", AT, "--statement", document.parent / "other.statement", "--json")
    ran = teactl(*line)
    assert ran.status == 1
    assert "do not belong together" in ran.json["error"]


def test_files_that_are_no_document_are_refused(teactl: Any, tmp_path: Path) -> None:
    draw = random.Random(1)
    for data in (
        b"",
        b"\xa0",
        b"hello",
        b"\x84" + bytes(40),
        b"\x9f" * 5000,
        *(draw.randbytes(500) for _ in range(20)),
    ):
        (tmp_path / "x").write_bytes(data)
        refused(teactl("attest", "verify", tmp_path / "x", "--at", AT, "--json"))
        ran = teactl("attest", "inspect", tmp_path / "x", "--json")
        assert ran.status == 1
    for path in (tmp_path / "nowhere", tmp_path):
        assert teactl("attest", "verify", path, "--at", AT).status == 1
    refused(teactl("attest", "verify", "/dev/zero", "--at", AT, "--json"), "more than")


def test_documents_that_the_index_refuses_are_refused(teactl: Any) -> None:
    if not DATA.is_dir():
        pytest.skip(f"the real attestation documents are not in {DATA}")
    for one in json.loads((DATA / "index.json").read_text()):
        ran = teactl("attest", "verify", DATA / one["file"], "--at", one["timestamp"], "--json")
        assert (ran.status == 0) is (one["verdict"] == "OK"), one
        if ran.status == 0:
            assert ran.json["debug"] is all(ran.json["pcrs"][index] == "0" * 96 for index in "012")


def test_inspect_shows_a_document_and_says_that_nothing_was_verified(teactl: Any, document: Path) -> None:
    data = bytearray(document.read_bytes())
    data[-1] ^= 1  # the signature, which inspect does not look at
    document.write_bytes(data)
    ran = teactl("attest", "inspect", document, "--json")
    assert ran.status == 0
    assert ran.json["verified"] is False
    assert ran.json["module_id"] == MODULE
    assert teactl("attest", "inspect", document).out.startswith("NOT verified\n")
