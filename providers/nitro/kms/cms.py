"""CiphertextForRecipient: CMS EnvelopedData for one recipient, RSAES-OAEP with SHA-256 over AES-256-CBC.

May not: accept another algorithm, another structure or a second recipient; say why something does not open (a
decryptor that tells is an oracle). The content has no MAC: only the request's encryption context binds it.
Rule: RFC 5652 section 6, RFC 4055 section 4.1 (OAEP's parameters); AWS KMS, "Decrypt", CiphertextForRecipient.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from . import ber

MAX_ENVELOPE: Final = 64 * 1024
"""Bytes of an envelope; the largest plaintext of KMS has 6 KiB."""
_BLOCK: Final = 16
_KEY: Final = 32

_ENVELOPED_DATA: Final = bytes.fromhex("2a864886f70d010703")
_DATA: Final = bytes.fromhex("2a864886f70d010701")
_OAEP: Final = bytes.fromhex("2a864886f70d010107")
_MGF1: Final = bytes.fromhex("2a864886f70d010108")
_P_SPECIFIED: Final = bytes.fromhex("2a864886f70d010109")
_SHA256: Final = bytes.fromhex("608648016503040201")
_AES_256_CBC: Final = bytes.fromhex("60864801650304012a")
OAEP_SHA256: Final = asymmetric.OAEP(asymmetric.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)


class CmsCode(enum.StrEnum):
    """Why an envelope is refused."""

    MALFORMED = "malformed"
    """Not the BER of an EnvelopedData of the one accepted form."""
    ALGORITHM = "algorithm"
    """Another algorithm than RSAES-OAEP with SHA-256 and AES-256-CBC."""
    DOES_NOT_OPEN = "does-not-open"
    """For another key, or changed on the way: which cannot be told."""


class CmsError(Exception):
    """The envelope is not accepted, or does not open; `code` is a `CmsCode`."""

    def __init__(self, code: CmsCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class Envelope(NamedTuple):
    """What is taken out of an EnvelopedData."""

    encrypted_key: bytes
    iv: bytes
    ciphertext: bytes


def parse_envelope(data: bytes) -> Envelope:
    """Read an EnvelopedData (BER, at most 64 KiB) without opening it. Raises `CmsError`: MALFORMED, ALGORITHM."""
    try:
        return _envelope(ber.parse(data, MAX_ENVELOPE))
    except ber.BerError as error:
        raise CmsError(CmsCode.MALFORMED, f"this is no CMS EnvelopedData as AWS KMS writes it: {error}") from None


def open_envelope(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """The plaintext of an EnvelopedData for this key. Raises `CmsError`."""
    envelope = parse_envelope(data)
    try:
        content_key = key.decrypt(envelope.encrypted_key, OAEP_SHA256)
        if len(content_key) != _KEY:
            raise ValueError("the content key has another size")
        decryptor = Cipher(algorithms.AES256(content_key), modes.CBC(envelope.iv)).decryptor()
        padded = decryptor.update(envelope.ciphertext) + decryptor.finalize()
        unpadder = padding.PKCS7(8 * _BLOCK).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise CmsError(
            CmsCode.DOES_NOT_OPEN, "the envelope does not open: made for another recipient's key, or changed on the way"
        ) from None


def _envelope(root: ber.Element) -> Envelope:
    # ContentInfo
    kind, explicit = root.parts(ber.SEQUENCE, 2, 2, "the ContentInfo")
    _require_oid(kind, _ENVELOPED_DATA, "the content type", ber.BerError)
    (enveloped,) = explicit.parts(0xA0, 1, 1, "the content")
    # EnvelopedData: version, recipientInfos, encryptedContentInfo; neither originatorInfo nor unprotectedAttrs
    version, recipients, content = enveloped.parts(ber.SEQUENCE, 3, 3, "the EnvelopedData")
    if _integer(version, "the version") not in (0, 2):
        raise ber.BerError("the EnvelopedData's version is neither 0 nor 2")
    (recipient,) = recipients.parts(ber.SET, 1, 1, "the recipientInfos")
    encrypted_key = _recipient(recipient)
    content_type, cipher, encrypted = content.parts(ber.SEQUENCE, 3, 3, "the EncryptedContentInfo")
    _require_oid(content_type, _DATA, "the encrypted content's type", ber.BerError)
    algorithm, parameter = cipher.parts(ber.SEQUENCE, 2, 2, "the content encryption algorithm")
    _require_oid(algorithm, _AES_256_CBC, "the content encryption", _Algorithm)
    iv = parameter.expect(ber.OCTET_STRING, "the IV").content
    ciphertext = _octets(encrypted)
    if len(iv) != _BLOCK or not ciphertext or len(ciphertext) % _BLOCK:
        raise ber.BerError("the IV or the encrypted content is not in blocks of 16 bytes")
    return Envelope(encrypted_key, iv, ciphertext)


def _recipient(recipient: ber.Element) -> bytes:
    version, identifier, algorithm, encrypted_key = recipient.parts(ber.SEQUENCE, 4, 4, "the KeyTransRecipientInfo")
    # Who it is for is a hint: there is one key, and the envelope opens with it or does not.
    expected = {2: 0x80, 0: ber.SEQUENCE}.get(_integer(version, "the recipient's version"))
    if expected is None:
        raise ber.BerError("the KeyTransRecipientInfo's version is neither 0 nor 2")
    identifier.expect(expected, "the recipient's identifier")
    _require_oaep(algorithm)
    return encrypted_key.expect(ber.OCTET_STRING, "the encrypted key").content


def _require_oaep(algorithm: ber.Element) -> None:
    """RSAES-OAEP whose hash and mask function are both SHA-256, said explicitly: the default is SHA-1."""
    name, parameters = algorithm.parts(ber.SEQUENCE, 2, 2, "the key encryption algorithm")
    _require_oid(name, _OAEP, "the key encryption", _Algorithm)
    parts = parameters.parts(ber.SEQUENCE, 0, 3, "the parameters of OAEP")
    if len(parts) < 2:
        raise _Algorithm("OAEP's parameters are not SHA-256 for hash and mask: another is the default")
    (digest,) = parts[0].parts(0xA0, 1, 1, "OAEP's hash")
    _require_sha256(digest)
    (mask,) = parts[1].parts(0xA1, 1, 1, "OAEP's mask function")
    name, inner = mask.parts(ber.SEQUENCE, 2, 2, "OAEP's mask function")
    _require_oid(name, _MGF1, "OAEP's mask function", _Algorithm)
    _require_sha256(inner)
    if len(parts) == 3:
        (label,) = parts[2].parts(0xA2, 1, 1, "OAEP's label")
        name, value = label.parts(ber.SEQUENCE, 2, 2, "OAEP's label")
        _require_oid(name, _P_SPECIFIED, "OAEP's label", _Algorithm)
        if value.expect(ber.OCTET_STRING, "OAEP's label").content:
            raise _Algorithm("OAEP's label is not empty")


def _require_sha256(algorithm: ber.Element) -> None:
    parts = algorithm.parts(ber.SEQUENCE, 1, 2, "a hash algorithm")
    _require_oid(parts[0], _SHA256, "OAEP's hash", _Algorithm)
    if len(parts) == 2 and parts[1].expect(ber.NULL, "a hash's parameters").content:
        raise ber.BerError("a hash's parameters are not null")


class _Algorithm(CmsError):
    def __init__(self, sentence: str) -> None:
        super().__init__(CmsCode.ALGORITHM, f"{sentence}; expected RSAES-OAEP with SHA-256 and AES-256-CBC")


def _require_oid(element: ber.Element, oid: bytes, what: str, error: type[ber.BerError] | type[_Algorithm]) -> None:
    if element.expect(ber.OID, what).content != oid:
        raise error(f"{what} is another")


def _integer(element: ber.Element, what: str) -> int:
    content = element.expect(ber.INTEGER, what).content
    if len(content) != 1:
        raise ber.BerError(f"{what} is no small number")
    return content[0]


def _octets(element: ber.Element) -> bytes:
    """[0] IMPLICIT OCTET STRING: at once, or in pieces."""
    if element.tag == 0x80:
        return element.content
    element.expect(0xA0, "the encrypted content")
    return b"".join(_piece(child) for child in element.children)


def _piece(element: ber.Element) -> bytes:
    return element.expect(ber.OCTET_STRING, "a piece of the encrypted content").content
