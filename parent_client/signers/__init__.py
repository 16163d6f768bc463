"""Who signs: a key in a file, on a PKCS#11 token, or in AWS KMS; all answer what `tea.trust.keys.Signer` asks for.

May not: take a PIN, password or cloud credential on a command line. Rule: docs/secrets.md, "Keys".
"""

from __future__ import annotations

from pathlib import Path

from tea.trust.keys import Signer

from ..keys import read_private

__all__ = ["open_signer"]


def open_signer(spec: str, password_file: Path | None = None) -> Signer:
    """The signer that a `--key` option names: `pkcs11:...` (RFC 7512), `awskms:KEY?region=...`, or a file.

    `password_file` holds the password of a file's key, or a token's PIN. Raises `Refusal`, `SigningError`, `OSError`.
    """
    if spec.startswith("pkcs11:"):
        from .token import TokenSigner

        return TokenSigner.open(spec, password_file)
    if spec.startswith("awskms:"):
        from .kms import KmsSigner

        return KmsSigner.open(spec)
    return read_private(spec, password_file)
