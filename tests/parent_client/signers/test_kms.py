"""AWS KMS: what it signs is verified before it is used; what is asked of it is signed as AWS says.

Rule: docs/secrets.md, "Keys". KMS is moto's server; the vector for requests is an independent writer's.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from collections.abc import Callable

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tea.parent_client.aws_credentials import Credentials
from tea.parent_client.refusal import Refusal
from tea.parent_client.signers import open_signer
from tea.parent_client.signers.aws import KmsKey, signed_headers
from tea.parent_client.signers.kms import KmsSigner, KmsWrap
from tea.trust import cose

REGION = "eu-west-1"


def spec(key: str, endpoint: str) -> str:
    return f"awskms:{key}?region={REGION}&endpoint={endpoint}"


def make_key(endpoint: str, key_spec: str, usage: str) -> str:
    made = KmsKey("none", REGION, endpoint).ask("CreateKey", {"KeySpec": key_spec, "KeyUsage": usage})
    metadata = made["KeyMetadata"]
    assert isinstance(metadata, dict)
    return str(metadata["KeyId"])


def test_a_signature_by_kms_verifies(aws: str) -> None:
    signer = open_signer(spec(make_key(aws, "ECC_NIST_P384", "SIGN_VERIFY"), aws))
    data = cose.sign1(b"payload", signer, content_type="t")
    assert cose.verify1(data, {signer.public.key_id: signer.public}, content_type="t").payload == b"payload"


def test_a_key_on_another_curve_is_refused(aws: str) -> None:
    with pytest.raises(Refusal, match="P-384"):
        KmsSigner.open(spec(make_key(aws, "ECC_NIST_P256", "SIGN_VERIFY"), aws))


def test_kms_wraps_and_unwraps_for_one_context(aws: str) -> None:
    wrap = KmsWrap.open(spec(make_key(aws, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"), aws))
    wrapped = wrap.wrap(b"k" * 32, b"context")
    assert wrap.unwrap(wrapped, b"context") == b"k" * 32
    with pytest.raises(Refusal, match="KMS refuses Decrypt"):
        wrap.unwrap(wrapped, b"another")


def test_a_refusal_carries_kmss_own_word(aws: str) -> None:
    with pytest.raises(Refusal, match="NotFound"):
        KmsSigner.open(spec("00000000-0000-0000-0000-000000000000", aws))


@pytest.mark.parametrize(
    "text",
    [
        "awskms:",
        "awskms:key",
        "awskms:key?region=nowhere",
        "awskms:key?region=eu-west-1&endpoint=http://kms.example.com",
        "awskms:key?region=eu-west-1&endpoint=ftp://127.0.0.1",
        "awskms:key?region=eu-west-1&secret=1",
    ],
)
def test_a_key_that_is_not_named_well_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(Refusal):
        KmsKey.parse(text)


def test_the_region_may_stand_in_the_arn() -> None:
    key = KmsKey.parse("awskms:arn:aws:kms:us-east-2:111122223333:key/abc")
    assert (key.region, key.endpoint) == ("us-east-2", "https://kms.us-east-2.amazonaws.com")


def test_requests_are_signed_as_an_independent_writer_does() -> None:
    # Computed with botocore 1.44 (SigV4Auth, service kms) over the same request.
    made = signed_headers(
        Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session"),
        host="kms.us-east-1.amazonaws.com",
        region="us-east-1",
        target="TrentService.Sign",
        body=b'{"KeyId": "k"}',
        at=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    )
    assert made["authorization"].endswith(BOTOCORE), made["authorization"]


BOTOCORE = "Signature=ef6f010b0ec4ac483c3af7d0309092f8b431d986d37df1dc6c1001bc985e50c8"


async def lying(answer: Callable[[str, dict[str, str]], dict[str, object]], use: Callable[[str], object]) -> None:
    """`use` is called with the address of a KMS that answers what the test says."""

    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.text())
        return web.Response(text=json.dumps(answer(request.headers["x-amz-target"], asked)))

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    try:
        await asyncio.to_thread(use, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        await runner.cleanup()


async def test_a_kms_that_lies_is_caught(aws: str) -> None:
    real = KmsKey(make_key(aws, "ECC_NIST_P384", "SIGN_VERIFY"), REGION, aws)
    other = KmsKey(make_key(aws, "ECC_NIST_P384", "SIGN_VERIFY"), REGION, aws)
    public = real.ask("GetPublicKey", {})["PublicKey"]
    message = base64.b64encode(b"\0" * 48).decode()
    asked = {"Message": message, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_384"}
    forged = other.ask("Sign", asked)["Signature"]

    def use(endpoint: str) -> None:
        signer = KmsSigner.open(spec("any", endpoint))
        with pytest.raises(Refusal, match="not that of"):
            signer.sign(b"data")

    await lying(lambda target, asked: {"PublicKey": public} if "Public" in target else {"Signature": forged}, use)
    await lying(lambda target, asked: {"PublicKey": public} if "Public" in target else {"Signature": "AAAA"}, use)


async def test_of_what_is_long_kms_signs_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    # moto hashes a digest once more, which KMS does not: a double that takes it as the digest that it is.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    key = ec.generate_private_key(ec.SECP384R1())
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def answer(target: str, asked: dict[str, str]) -> dict[str, object]:
        if "Public" in target:
            return {"PublicKey": base64.b64encode(der).decode()}
        assert asked["MessageType"] == "DIGEST"
        digest = base64.b64decode(asked["Message"])
        signature = key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA384())))
        return {"Signature": base64.b64encode(signature).decode()}

    def use(endpoint: str) -> None:
        signer = KmsSigner.open(spec("any", endpoint))
        signer.public.verify(signer.sign(bytes(5000)), bytes(5000))

    await lying(answer, use)


@pytest.mark.parametrize("answer", [{}, {"PublicKey": "not base64!"}, {"PublicKey": "AAAA"}])
async def test_a_kms_that_answers_nonsense_is_refused(
    answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")

    def use(endpoint: str) -> None:
        with pytest.raises(Refusal):
            KmsSigner.open(spec("any", endpoint))

    await lying(lambda target, asked: answer, use)


def test_a_kms_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with pytest.raises(Refusal, match="does not answer"):
        KmsSigner.open(spec("any", "http://127.0.0.1:1"))
