"""A KMS double behind real TLS on loopback, which verifies what AWS verifies before it wraps; and an enclave's NSM.

May not: be lenient: signature, chain, age, nonce and PCRs of a document are checked against the key's policy, because
the public doubles check nothing. Rule: AWS KMS, "Cryptographic attestation support"; docs/nitro-sdk.md.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import os
import re
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from tea.protocol.tunnel import Target
from tea.providers.nitro import sdk
from tea.providers.nitro.kms.client import request_nonce
from tea.providers.nitro.kms.cms import OAEP_SHA256
from tea.providers.nitro.kms.sigv4 import sign
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust import pcr
from tea.trust.attestation import verify_document
from tea.trust.errors import TrustError
from tea.trust.policy import Policy, policy_from_mapping

CREDENTIALS = sdk.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token")
REGION = "eu-west-1"
KEY_ID = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
IMAGE = {index: pcr.image_pcr(hashlib.sha384(b"image %d" % index).digest()) for index in range(3)}
VECTORS = Path(__file__).parent / "vectors"


def tlv(tag: int, *parts: bytes) -> bytes:
    """An element of definite length."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def open_ended(tag: int, *parts: bytes) -> bytes:
    """An element of indefinite length."""
    return bytes([tag, 0x80]) + b"".join(parts) + b"\0\0"


def wrap(public_key: rsa.RSAPublicKey, spki: bytes, plaintext: bytes) -> bytes:
    """An EnvelopedData in the very shape of AWS's: indefinite outside, definite within, identifier of 32 bytes."""
    key, iv = os.urandom(32), os.urandom(16)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
    null = b"\5\0"
    sha256 = tlv(0x30, tlv(6, bytes.fromhex("608648016503040201")), null)
    mask = tlv(0xA1, tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d010108")), sha256))
    oaep = tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d010107")), tlv(0x30, tlv(0xA0, sha256), mask))
    identifier = tlv(0x80, hashlib.sha256(spki).digest())
    recipient = tlv(0x30, tlv(2, b"\2"), identifier, oaep, tlv(4, public_key.encrypt(key, OAEP_SHA256)))
    cipher = tlv(0x30, tlv(6, bytes.fromhex("60864801650304012a")), tlv(4, iv))
    content = open_ended(
        0x30, tlv(6, bytes.fromhex("2a864886f70d010701")), cipher, open_ended(0xA0, tlv(4, ciphertext))
    )
    enveloped = open_ended(0x30, tlv(2, b"\2"), tlv(0x31, recipient), content)
    return open_ended(0x30, tlv(6, bytes.fromhex("2a864886f70d010703")), open_ended(0xA0, enveloped))


class Refused(Exception):
    """An error of KMS's: its type and message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class KmsDouble:
    """KMS for one key. `policy` is the key policy's recipient conditions. Faults are attribute edits."""

    policy: Policy
    key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    max_age_ms: int = 300_000
    ignores_recipient: bool = False
    raw_answer: bytes | None = None
    """Bytes that are sent instead of an HTTP answer, then the connection is closed."""
    stall: threading.Event | None = None
    """Set: the answer waits for it."""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _documents: set[bytes] = field(default_factory=set)

    def serve(self, headers: Mapping[str, str], body: bytes) -> dict[str, object]:
        """One request. Raises `Refused`."""
        self._require_signed(headers, body)
        operation = headers["X-Amz-Target"].removeprefix("TrentService.")
        request = json.loads(body)
        self.requests.append((operation, request))
        if operation == "Encrypt":
            plaintext = base64.b64decode(request["Plaintext"])
            return {"KeyId": KEY_ID, "CiphertextBlob": _b64(self._encrypt(plaintext, request))}
        if operation == "Decrypt":
            secret = self._decrypt(base64.b64decode(request["CiphertextBlob"]), request)
            answer: dict[str, object] = {"KeyId": KEY_ID, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        elif operation == "GenerateDataKey":
            secret = os.urandom(request["NumberOfBytes"])
            answer = {"KeyId": KEY_ID, "CiphertextBlob": _b64(self._encrypt(secret, request))}
        elif operation == "GenerateRandom":
            secret = os.urandom(request["NumberOfBytes"])
            answer = {}
        else:
            raise Refused("UnknownOperationException", operation)
        if self.ignores_recipient:
            return {**answer, "Plaintext": _b64(secret)}
        spki = self._require_recipient(operation, request)
        public_key = load_der_public_key(spki)
        if not isinstance(public_key, rsa.RSAPublicKey):
            raise Refused("ValidationException", "the attested key is not RSA")
        return {**answer, "Plaintext": "", "CiphertextForRecipient": _b64(wrap(public_key, spki, secret))}

    def _require_recipient(self, operation: str, request: dict[str, Any]) -> bytes:
        recipient = request.get("Recipient")
        if not recipient:
            raise Refused("AccessDeniedException", "the key policy demands an attested recipient")
        if recipient["KeyEncryptionAlgorithm"] != "RSAES_OAEP_SHA_256":
            raise Refused("ValidationException", "KeyEncryptionAlgorithm")
        raw = base64.b64decode(recipient["AttestationDocument"], validate=True)
        now = int(time.time() * 1000)
        try:
            document = verify_document(raw, roots=self.policy.roots(), at=now, nonce=request_nonce(operation, request))
            self.policy.require(document, now_ms=now)
        except TrustError as error:
            raise Refused("AccessDeniedException", f"{error.code}: {error.sentence}") from None
        if abs(now - document.timestamp) > self.max_age_ms:
            raise Refused("ExpiredException", "the attestation document is too old")
        if raw in self._documents:
            raise Refused("AccessDeniedException", "the attestation document was used before")
        self._documents.add(raw)
        if document.public_key is None:
            raise Refused("ValidationException", "the attestation document has no public key")
        return document.public_key

    def _require_signed(self, headers: Mapping[str, str], body: bytes) -> None:
        match = re.search(r"SignedHeaders=([a-z0-9;-]+), Signature=", headers["Authorization"])
        assert match is not None
        names = {name for name in match[1].split(";") if name not in ("host", "x-amz-date", "x-amz-security-token")}
        at = datetime.datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        expected = sign(
            CREDENTIALS,
            region=REGION,
            service="kms",
            host=headers["Host"],
            at=at.timestamp(),
            body=body,
            headers={name: headers[name] for name in names},
        )
        if not hmac.compare_digest(expected["Authorization"], headers["Authorization"]):
            raise Refused("InvalidSignatureException", "the request's signature does not match")
        if abs(at.timestamp() - time.time()) > 300:
            raise Refused("InvalidSignatureException", "the request's signature has expired")

    def _encrypt(self, plaintext: bytes, request: dict[str, Any]) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(self.key).encrypt(nonce, plaintext, _context(request))

    def _decrypt(self, ciphertext: bytes, request: dict[str, Any]) -> bytes:
        try:
            return AESGCM(self.key).decrypt(ciphertext[:12], ciphertext[12:], _context(request))
        except InvalidTag:
            raise Refused("InvalidCiphertextException", "") from None


def _context(request: dict[str, Any]) -> bytes:
    return json.dumps(request.get("EncryptionContext", {}), sort_keys=True).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _handler(double: KmsDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if double.stall is not None:
                double.stall.wait(30)
            if double.raw_answer is not None:
                self.wfile.write(double.raw_answer)
                self.close_connection = True
                return
            try:
                status, answer = 200, double.serve(self.headers, body)  # type: ignore[arg-type]
            except Refused as error:
                status, answer = 400, {"__type": f"com.amazon#{error.kind}", "message": str(error)}
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is what some tests are about


@dataclass(frozen=True)
class TlsFiles:
    """A certificate authority made for this run, and a certificate for localhost."""

    authority: Path
    chain: Path
    key: Path

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def serving(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """TLS for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    now = datetime.datetime.now(datetime.UTC)
    made = []
    for index, (name, key) in enumerate(zip(("test authority", "localhost"), keys, strict=True)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(index == 0, None), critical=True)
        )
        if index:
            alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    files = TlsFiles(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    files.authority.write_bytes(made[0])
    files.chain.write_bytes(made[1])
    files.key.write_bytes(keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture(scope="session")
def ca() -> SimulatedCa:
    """The simulated network's certificate authority."""
    return SimulatedCa.create(intermediates=True)


@pytest.fixture
def nsm(ca: SimulatedCa) -> sdk.NsmSession:
    """The NSM of an enclave that runs the image of the key's policy."""
    return nsm_of(ca, IMAGE)


def nsm_of(ca: SimulatedCa, image: Mapping[int, bytes], **options: Any) -> sdk.NsmSession:
    """A session with a simulated NSM."""
    instance = "i-0123456789abcdef0"
    device = SimulatedNsm(ca.issue_instance(instance), f"{instance}-enc0123", image, time.time, **options)
    return sdk.NsmSession(device)


@pytest.fixture(scope="session")
def recipient() -> sdk.RecipientKey:
    """The enclave's RSA key."""
    return sdk.RecipientKey.generate()


@pytest.fixture
def double(ca: SimulatedCa) -> KmsDouble:
    """A KMS whose one key is for the image of these tests."""
    mapping = {
        "tea": "policy/1",
        "simulated": {"root": f"sha256:{ca.root_digest.hex()}"},
        "pcrs": {index: value.hex() for index, value in IMAGE.items()},
    }
    return KmsDouble(policy_from_mapping(mapping))


@pytest.fixture
def endpoint(double: KmsDouble, tls_files: TlsFiles) -> Iterator[Target]:
    """Where the double listens, with TLS."""
    server = _Server(("127.0.0.1", 0), _handler(double))
    context = tls_files.serving()
    plain = server.get_request

    def with_tls() -> Any:
        sock, address = plain()
        sock.settimeout(30)
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    server.get_request = with_tls  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Target("localhost", server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


MakeClient = Callable[..., sdk.KmsClient]


@pytest.fixture
def make_client(nsm: sdk.NsmSession, endpoint: Target, tls_files: TlsFiles, recipient: sdk.RecipientKey) -> MakeClient:
    """Makes clients; what is not said is healthy, and dials the double directly."""

    def make(session: sdk.NsmSession = nsm, **changes: Any) -> sdk.KmsClient:
        given: dict[str, Any] = {
            "region": REGION,
            "credentials": CREDENTIALS,
            "endpoint": endpoint,
            "tls": tls_files.trusting(),
            "recipient": recipient,
            **changes,
        }
        return sdk.kms_client(session, **given)

    return make
