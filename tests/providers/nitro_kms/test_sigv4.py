"""Signatures are those of AWS's published examples and of botocore.

May not: reach AWS. Rule: AWS General Reference, "Signature Version 4 signing process"; vectors/SOURCES.md.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tea.providers.nitro.kms.sigv4 import Credentials, sign

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CASES = json.loads((Path(__file__).parent / "vectors" / "sigv4.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["target"])
def test_a_signature_is_the_one_that_botocore_makes(case: dict[str, str]) -> None:
    headers = sign(
        Credentials("AKIDEXAMPLE", SECRET, case["token"]),
        region=case["region"],
        service=case["service"],
        host=case["host"],
        at=float(case["at"]),
        body=case["body"].encode(),
        headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": case["target"]},
    )
    assert headers["Authorization"] == case["authorization"]


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_a_signature_is_the_one_of_the_published_suite(method: str, signature: str) -> None:
    headers = sign(
        Credentials("AKIDEXAMPLE", SECRET),
        region="us-east-1",
        service="service",
        host="example.amazonaws.com",
        at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp(),
        body=b"",
        headers={},
        method=method,
    )
    assert headers["Authorization"].endswith(f"Signature={signature}")


def test_credentials_show_no_secret() -> None:
    shown = repr(Credentials("AKIDEXAMPLE", SECRET, "token-bytes"))
    assert SECRET not in shown
    assert "token-bytes" not in shown


@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key", "session_token"])
@pytest.mark.parametrize("value", ["", "two\r\nlines", "ü"])
def test_credentials_that_would_write_headers_are_refused(field: str, value: str) -> None:
    given = {"access_key_id": "A", "secret_access_key": "B", "session_token": "C", field: value}
    with pytest.raises(ValueError, match=field):
        Credentials(**given)
