"""`teactl image` as people and scripts use it: exit status, field names, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tea.parent_client.cli import run

from .conftest import certificate_of, pem_of


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, object]:
    assert run(["image", *arguments, "--json"]) == status
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "key.pem").write_bytes(pem_of(key))
    (tmp_path / "certificate.pem").write_bytes(certificate_of(key))
    return ["--key", str(tmp_path / "key.pem"), "--certificate", str(tmp_path / "certificate.pem")]


def test_describe_has_the_field_names_of_nitro_cli(
    tiny: Path, keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    unsigned = ask(capsys, "describe", str(tiny))
    assert list(unsigned)[:7] == [
        "EifVersion", "Measurements", "IsSigned", "CheckCRC", "ImageName", "ImageVersion", "Metadata",
    ]  # fmt: skip
    assert unsigned["EifVersion"] == 4
    assert (unsigned["IsSigned"], unsigned["CheckCRC"]) == (False, True)
    measurements = unsigned["Measurements"]
    assert isinstance(measurements, dict)
    assert list(measurements) == ["HashAlgorithm", "PCR0", "PCR1", "PCR2"]
    assert measurements["HashAlgorithm"] == "Sha384 { ... }"
    assert unsigned["Metadata"] == {
        "BuildTime": "2026-01-02T03:04:05Z",
        "BuildTool": "tea",
        "BuildToolVersion": "0.1.0",
        "OperatingSystem": "Debian 12",
        "KernelVersion": "6.1.0",
        "DockerInfo": {},
        "Deployment": "d",
    }
    ask(capsys, "sign", str(tiny), *keys)
    signed = ask(capsys, "describe", str(tiny))
    assert (signed["IsSigned"], signed["SignatureCheck"]) == (True, True)
    certificate = signed["SigningCertificate"]
    assert isinstance(certificate, dict)
    assert list(certificate) == ["IssuerName", "Algorithm", "NotBefore", "NotAfter", "Signature"]
    assert certificate["IssuerName"] == {"countryName": "DE", "commonName": "image signer"}
    assert certificate["Algorithm"] == "ecdsa-with-SHA384"
    assert isinstance(signed["Measurements"], dict)
    assert "PCR8" in signed["Measurements"]


def test_a_damaged_image_is_described_so_and_not_verified(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    tiny.write_bytes(data)
    assert ask(capsys, "describe", str(tiny))["CheckCRC"] is False
    refused = ask(capsys, "verify", str(tiny), status=1)
    assert (refused["ok"], refused["code"]) == (False, "crc")


def test_verify_holds_to_expected_measurements(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pcr0 = ask(capsys, "measure", str(tiny))["PCR0"]
    assert ask(capsys, "verify", str(tiny), "--pcr", f"0={pcr0}")["ok"] is True
    assert ask(capsys, "verify", str(tiny), "--pcr", "0=" + "00" * 48, status=1)["code"] == "pcr"
    assert ask(capsys, "verify", str(tiny), "--signed", status=1)["code"] == "not-signed"


def test_what_is_no_image_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("hello")
    for command in ("describe", "measure", "verify"):
        assert run(["image", command, str(tmp_path / "text")]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("teactl: at byte 0: ")
        assert said.err.count("\n") == 1


def test_wrong_usage_is_status_2(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "describe", str(tmp_path / "none.eif")]) == 2
    assert run(["image", "verify", str(tiny), "--pcr", "5=00"]) == 2


def test_extract_gives_back_what_the_image_was_made_of(
    tiny: Path, keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "sign", str(tiny), *keys)
    out = tmp_path / "parts"
    written = ask(capsys, "extract", str(tiny), "--out", str(out))
    ramdisks = [f"ramdisk-{number}.cpio" for number in range(3)]
    assert set(written) == {"kernel", "cmdline", "metadata.json", *ramdisks, "signature.cbor", "certificate.pem"}
    assert (out / "cmdline").read_bytes() == b"reboot=k panic=30 console=ttyS0"


def test_diff_names_what_differs(
    tiny: Path, keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys, "diff", str(tiny), str(tiny)) == {"same": True, "differences": []}
    other = tmp_path / "signed.eif"
    ask(capsys, "sign", str(tiny), *keys, "--out", str(other))
    found = ask(capsys, "diff", str(tiny), str(other), status=1)["differences"]
    assert isinstance(found, list)
    assert [one["what"] for one in found] == ["sections", "PCR8"]
    assert run(["image", "diff", str(tiny), str(other)]) == 1
    assert "PCR8: absent -> " in capsys.readouterr().out


def test_text_output_says_the_same(tiny: Path, keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "sign", str(tiny), *keys]) == 0
    assert run(["image", "describe", str(tiny)]) == 0
    said = capsys.readouterr().out
    assert "CRC holds" in said
    assert "signed, the signature holds" in said
