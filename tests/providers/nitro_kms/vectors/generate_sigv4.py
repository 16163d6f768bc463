"""Writes sigv4.json with botocore's signer: `pip install botocore==1.44.5`, then run this in its folder.

May not: be imported by a test. Rule: AWS General Reference, "Signature Version 4 signing process".
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from unittest import mock

import botocore.auth  # type: ignore[import-not-found,unused-ignore]
from botocore.awsrequest import AWSRequest  # type: ignore[import-not-found,unused-ignore]
from botocore.credentials import Credentials  # type: ignore[import-not-found,unused-ignore]

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CASES = [
    ("eu-west-1", "kms", "kms.eu-west-1.amazonaws.com", "TrentService.Decrypt", '{"CiphertextBlob": "AAAA"}', None),
    ("us-east-2", "kms", "kms.us-east-2.amazonaws.com", "TrentService.GenerateRandom", "{}", "a session/token+=="),
    ("cn-north-1", "kms", "kms.cn-north-1.amazonaws.com.cn", "TrentService.GenerateDataKey", '{"a":"\u00fc"}', "t"),
]


def main() -> None:
    """Sign every case at one moment; write what went in and what came out."""
    moment = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
    vectors = []
    for region, service, host, target, body, token in CASES:
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        request = AWSRequest(method="POST", url=f"https://{host}/", data=body.encode(), headers=headers)
        signer = botocore.auth.SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, token), service, region)
        with mock.patch("botocore.auth.get_current_datetime", return_value=moment.replace(tzinfo=None)):
            signer.add_auth(request)
        vectors.append(
            {
                "region": region,
                "service": service,
                "host": host,
                "target": target,
                "body": body,
                "token": token,
                "at": int(moment.timestamp()),
                "authorization": request.headers["Authorization"],
            }
        )
    Path("sigv4.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
