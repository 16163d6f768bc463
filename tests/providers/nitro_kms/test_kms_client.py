"""KMS with an attested recipient, over real TLS: what an enclave gets, and every way in which it gets nothing.

May not: reach AWS, or mock: the double of `conftest.py` verifies as AWS does. Rule: docs/nitro-sdk.md.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tea.protocol.tunnel import Target
from tea.providers.nitro import sdk
from tea.providers.nitro.client import ErrorCode
from tea.providers.nitro.kms.client import default_endpoint
from tea.providers.nitro.kms.cms import parse_envelope
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust.kms_context import encryption_context

from .conftest import IMAGE, KEY_ID, KmsDouble, TlsFiles, nsm_of, wrap

MakeClient = Callable[..., sdk.KmsClient]
SECRET = b"correct horse battery staple"
CONTEXT = encryption_context(secret="api-token", actor="counter", manifest_digest=bytes(48))


def refusal(call: Callable[[], object]) -> sdk.KmsError:
    with pytest.raises(sdk.KmsError) as caught:
        call()
    assert SECRET.decode() not in f"{caught.value!r} {caught.value}"
    return caught.value


def test_a_secret_is_decrypted_for_the_enclave_alone(make_client: MakeClient, double: KmsDouble) -> None:
    client = make_client()
    ciphertext = client.encrypt(KEY_ID, SECRET, encryption_context=CONTEXT)
    assert client.decrypt(ciphertext, key_id=KEY_ID, encryption_context=CONTEXT) == SECRET
    operation, request = double.requests[-1]
    assert operation == "Decrypt"
    assert request["Recipient"]["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"


def test_a_data_key_comes_with_the_ciphertext_that_gives_it_back(make_client: MakeClient) -> None:
    client = make_client()
    made = client.generate_data_key(KEY_ID, size=64, encryption_context=CONTEXT)
    assert len(made.plaintext) == 64
    assert made.key_id == KEY_ID
    assert client.decrypt(made.ciphertext, encryption_context=CONTEXT) == made.plaintext
    assert made.plaintext.hex() not in repr(made)
    assert str(made.plaintext) not in repr(made)


def test_random_has_the_size_that_was_asked_for(make_client: MakeClient) -> None:
    client = make_client()
    first, second = client.generate_random(1024), client.generate_random(1024)
    assert len(first) == len(second) == 1024
    assert first != second


def test_every_request_has_a_document_of_its_own_over_itself(make_client: MakeClient, double: KmsDouble) -> None:
    client = make_client()
    client.generate_random(8)
    client.generate_random(8)
    documents = {request["Recipient"]["AttestationDocument"] for _, request in double.requests}
    assert len(documents) == 2


def test_the_doubles_envelope_has_the_shape_of_awss(recipient: sdk.RecipientKey) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(recipient.public)
    assert isinstance(key, rsa.RSAPublicKey)
    wrapped = wrap(key, recipient.public, bytes(32))
    assert wrapped[:33].hex() == "308006092a864886f70d010703a08030800201023182016b308201670201028020"
    assert wrapped[65:68].hex() == "303c06"
    assert wrapped[-10:] == bytes(10)
    assert len(parse_envelope(wrapped).ciphertext) == 48
    assert recipient.open(wrapped) == bytes(32)


# -- what KMS refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 2])
def test_another_image_gets_nothing_and_is_told_the_pcr(make_client: MakeClient, ca: SimulatedCa, index: int) -> None:
    ciphertext = make_client().encrypt(KEY_ID, SECRET)
    error = refusal(lambda: make_client(nsm_of(ca, {**IMAGE, index: bytes([7]) * 48})).decrypt(ciphertext))
    assert (error.code, error.kind) == (sdk.KmsCode.REFUSED, "AccessDeniedException")
    assert f"PCR{index}" in error.sentence


def test_an_enclave_in_debug_mode_gets_nothing(make_client: MakeClient, ca: SimulatedCa) -> None:
    ciphertext = make_client().encrypt(KEY_ID, SECRET)
    error = refusal(lambda: make_client(nsm_of(ca, IMAGE, debug=True)).decrypt(ciphertext))
    assert error.kind == "AccessDeniedException"


def test_an_enclave_of_another_platform_gets_nothing(make_client: MakeClient) -> None:
    ciphertext = make_client().encrypt(KEY_ID, SECRET)
    error = refusal(lambda: make_client(nsm_of(SimulatedCa.create(), IMAGE)).decrypt(ciphertext))
    assert error.kind == "AccessDeniedException"


class Altered(sdk.NsmSession):
    """A session whose documents are changed on the way by a function."""

    def __init__(self, session: sdk.NsmSession, change: Callable[[bytes], bytes], **forced: Any) -> None:
        self._session = session
        self._change = change
        self._forced = forced

    def attestation(
        self, *, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        given: dict[str, Any] = {"user_data": user_data, "nonce": nonce, "public_key": public_key, **self._forced}
        return self._change(self._session.attestation(**given))


def flipped(document: bytes) -> bytes:
    return document[:-1] + bytes([document[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "forced", "kind"),
    [
        (flipped, {}, "AccessDeniedException"),
        (bytes, {"nonce": bytes(32)}, "AccessDeniedException"),
        (bytes, {"nonce": None}, "AccessDeniedException"),
        (bytes, {"public_key": None}, "ValidationException"),
        (lambda document: b"", {}, "AccessDeniedException"),
    ],
    ids=["forged signature", "another request's nonce", "no nonce", "no public key", "no document"],
)
def test_a_document_that_is_not_for_this_request_gets_nothing(
    make_client: MakeClient, nsm: sdk.NsmSession, change: Callable[[bytes], bytes], forced: dict[str, Any], kind: str
) -> None:
    assert refusal(lambda: make_client(Altered(nsm, change, **forced)).generate_random(8)).kind == kind


def test_a_document_that_was_used_before_gets_nothing(make_client: MakeClient, nsm: sdk.NsmSession) -> None:
    kept: list[bytes] = []

    def keep(document: bytes) -> bytes:
        kept.append(document)
        return kept[0]

    client = make_client(Altered(nsm, keep))
    client.generate_random(8)
    assert refusal(lambda: client.generate_random(8)).kind == "AccessDeniedException"


def test_an_old_document_gets_nothing(make_client: MakeClient, double: KmsDouble) -> None:
    double.max_age_ms = -1
    assert refusal(lambda: make_client().generate_random(8)).kind == "ExpiredException"


@pytest.mark.parametrize(
    "other",
    [
        {},
        encryption_context(secret="other", actor="counter", manifest_digest=bytes(48)),
        encryption_context(secret="api-token", actor="ra", manifest_digest=bytes(48)),
        encryption_context(secret="api-token", actor=None, manifest_digest=bytes(48)),
        encryption_context(secret="api-token", actor="counter", manifest_digest=bytes(47) + b"\1"),
    ],
    ids=["none", "another secret", "another actor", "the host", "another manifest"],
)
def test_a_ciphertext_opens_for_its_secret_actor_and_manifest_only(
    make_client: MakeClient, other: dict[str, str]
) -> None:
    client = make_client()
    ciphertext = client.encrypt(KEY_ID, SECRET, encryption_context=CONTEXT)
    error = refusal(lambda: client.decrypt(ciphertext, encryption_context=other))
    assert error.kind == "InvalidCiphertextException"


def test_wrong_credentials_are_refused(make_client: MakeClient) -> None:
    client = make_client(credentials=lambda: sdk.Credentials("AKIDEXAMPLE", "another"))
    assert refusal(lambda: client.generate_random(8)).kind == "InvalidSignatureException"


# -- what the enclave refuses ----------------------------------------------------------------------------------------


def test_an_answer_in_the_clear_is_refused(make_client: MakeClient, double: KmsDouble) -> None:
    client = make_client()
    ciphertext = client.encrypt(KEY_ID, SECRET)
    double.ignores_recipient = True
    assert refusal(lambda: client.decrypt(ciphertext)).code is sdk.KmsCode.PLAINTEXT


def test_an_answer_for_another_enclaves_key_does_not_open(make_client: MakeClient, nsm: sdk.NsmSession) -> None:
    other = sdk.RecipientKey.generate()
    client = make_client(Altered(nsm, bytes, public_key=other.public))
    with pytest.raises(sdk.CmsError) as caught:
        client.generate_random(8)
    assert caught.value.code is sdk.CmsCode.DOES_NOT_OPEN


def test_a_server_that_this_enclave_does_not_trust_gets_no_request(make_client: MakeClient, double: KmsDouble) -> None:
    error = refusal(lambda: make_client(tls=None).generate_random(8))
    assert error.code is sdk.KmsCode.TLS
    assert not double.requests


def test_a_server_under_another_name_gets_no_request(
    make_client: MakeClient, double: KmsDouble, endpoint: Target, tls_files: TlsFiles
) -> None:
    # 127.0.0.2 answers too, and its certificate is not for that name.
    error = refusal(lambda: make_client(endpoint=Target("127.0.0.2", endpoint.port)).generate_random(8))
    assert error.code in (sdk.KmsCode.TLS, sdk.KmsCode.TUNNEL)
    assert not double.requests


def test_tls_without_verification_is_our_own_mistake(make_client: MakeClient, tls_files: TlsFiles) -> None:
    context = tls_files.trusting()
    context.check_hostname = False
    with pytest.raises(ValueError, match="host name"):
        make_client(tls=context).generate_random(8)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", sdk.KmsCode.TUNNEL),
        (b"SSH-2.0-OpenSSH\r\n\r\n", sdk.KmsCode.HTTP),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b" " * 70000, sdk.KmsCode.HTTP),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", sdk.KmsCode.HTTP),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", sdk.KmsCode.RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", sdk.KmsCode.RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", sdk.KmsCode.RESPONSE),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"CiphertextForRecipient":"*" }', sdk.KmsCode.RESPONSE),
        (b"HTTP/1.1 302 Found\r\nLocation: https://localhost/\r\nContent-Length: 0\r\n\r\n", sdk.KmsCode.REFUSED),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 6\r\n\r\n<html>", sdk.KmsCode.RESPONSE),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_closed_set(
    make_client: MakeClient, double: KmsDouble, answer: bytes, code: sdk.KmsCode | None
) -> None:
    double.raw_answer = answer
    error = refusal(lambda: make_client().generate_random(8))
    assert code is None or error.code is code


def test_a_server_that_never_answers_runs_into_the_deadline(make_client: MakeClient, double: KmsDouble) -> None:
    double.stall = threading.Event()
    try:
        assert refusal(lambda: make_client(seconds=0.3).generate_random(8)).code is sdk.KmsCode.TIMEOUT
    finally:
        double.stall.set()


def test_nobody_listening_is_a_broken_way(make_client: MakeClient) -> None:
    error = refusal(lambda: make_client(endpoint=Target("localhost", 1)).generate_random(8))
    assert error.code is sdk.KmsCode.TUNNEL


def test_a_failing_nsm_is_named(make_client: MakeClient, ca: SimulatedCa) -> None:
    session = nsm_of(ca, IMAGE)
    device = session._device
    assert isinstance(device, SimulatedNsm)
    device.failing = 5
    assert refusal(lambda: make_client(session).generate_random(8)).code is sdk.KmsCode.ATTESTATION


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.decrypt(b""),
        lambda client: client.decrypt(bytes(6145)),
        lambda client: client.generate_data_key(KEY_ID, size=0),
        lambda client: client.generate_data_key(KEY_ID, size=1025),
        lambda client: client.generate_random(0),
        lambda client: client.generate_random(1025),
        lambda client: client.encrypt(KEY_ID, b""),
        lambda client: client.encrypt(KEY_ID, bytes(4097)),
    ],
)
def test_sizes_that_kms_does_not_take_are_our_own_mistake(
    make_client: MakeClient, double: KmsDouble, call: Callable[[sdk.KmsClient], object]
) -> None:
    with pytest.raises(ValueError, match="bytes"):
        call(make_client())
    assert not double.requests


def test_an_endpoint_follows_from_the_region() -> None:
    assert str(default_endpoint("eu-west-1")) == "kms.eu-west-1.amazonaws.com:443"
    assert str(default_endpoint("cn-north-1")) == "kms.cn-north-1.amazonaws.com.cn:443"
    with pytest.raises(ValueError, match="target"):
        default_endpoint("eu west")


@pytest.mark.parametrize(
    "wrong",
    [{"secret": ""}, {"secret": "x" * 129}, {"secret": "a\n"}, {"actor": "Not A Name"}, {"manifest_digest": bytes(32)}],
)
def test_a_context_of_what_no_manifest_has_is_our_own_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name|bytes"):
        encryption_context(**{"secret": "s", "actor": "counter", "manifest_digest": bytes(48), **wrong})


# -- the session alone -----------------------------------------------------------------------------------------------


def test_a_session_has_all_that_the_nsm_has(ca: SimulatedCa) -> None:
    with nsm_of(ca, IMAGE) as nsm:
        assert nsm.describe().max_pcrs == 32
        assert len(nsm.random(300)) == 300
        assert nsm.pcr(0).data == IMAGE[0]
        value = nsm.extend_pcr(16, b"x")
        assert value == hashlib.sha384(bytes(48) + b"x").digest()
        nsm.lock_pcr(16)
        nsm.lock_pcrs(18)
        assert [index for index, register in nsm.pcrs().items() if register.locked] == list(range(18))
        assert nsm.attestation(user_data=b"u", nonce=b"n", public_key=b"k")
        assert nsm.seed_entropy(16).size == 16
        with pytest.raises(sdk.NsmError) as caught:
            nsm.extend_pcr(16, b"y")
        assert caught.value.code is ErrorCode.READ_ONLY_INDEX
    with pytest.raises(sdk.NsmError):
        nsm.random(1)


def test_outside_an_enclave_a_session_says_so(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        sdk.NsmSession(path=str(tmp_path / "nsm"))
