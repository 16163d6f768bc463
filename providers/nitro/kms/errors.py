"""Why a request to KMS failed: a closed set of codes, and the one error that carries them.

May not: hold a secret or a credential. Rule: docs/nitro-sdk.md, "Errors".
"""

from __future__ import annotations

import enum


class KmsCode(enum.StrEnum):
    """Why KMS gave nothing."""

    TUNNEL = "tunnel"
    """The parent opened no tunnel, or cut it."""
    TLS = "tls"
    """The other end is not the one named: its certificate did not verify."""
    TIMEOUT = "timeout"
    HTTP = "http"
    """What came back was not HTTP within its bounds."""
    REFUSED = "refused"
    """KMS said no: `kind` has its own word, as AccessDeniedException."""
    RESPONSE = "response"
    """The answer lacks something, or holds what it should not."""
    PLAINTEXT = "plaintext"
    """The answer came in the clear, where only the enclave should read it."""
    ATTESTATION = "attestation"
    """The NSM made no document."""


class KmsError(Exception):
    """KMS gave nothing; `code` is a `KmsCode`, `kind` the error's name at KMS when it refused."""

    def __init__(self, code: KmsCode, sentence: str, *, kind: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.kind = kind
