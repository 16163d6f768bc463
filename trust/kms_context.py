"""The encryption context under which AWS KMS keeps a secret: for one secret, one actor, one manifest.

May not: hold the secret. KMS opens a ciphertext under the very same context only, and its answer to the enclave has no
MAC of its own: this is what keeps a parent from handing in another ciphertext of the same key.
Rule: AWS KMS, "Encryption context"; docs/nitro-sdk.md, "Secrets".
"""

from __future__ import annotations

from typing import Final

from . import names

VERSION: Final = "kms/1"
_MANIFEST_DIGEST: Final = 48
_MAX_SECRET: Final = 128


def encryption_context(*, secret: str, actor: str | None, manifest_digest: bytes) -> dict[str, str]:
    """The context, as `Encrypt` and `Decrypt` take it; key policies can name its entries.

    `secret` is 1 to 128 printable ASCII characters; `actor` None means the host itself; the digest has 48 bytes. It is
    no secret: KMS writes it into CloudTrail. Raises `ValueError` on anything else.
    """
    if not 1 <= len(secret) <= _MAX_SECRET or not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"a secret's name is 1 to {_MAX_SECRET} printable ASCII characters")
    if actor is not None and not names.is_name(actor):
        raise ValueError(f"an actor's name must be {names.NAME_MEND}")
    if len(manifest_digest) != _MANIFEST_DIGEST:
        raise ValueError(f"a manifest's digest has {_MANIFEST_DIGEST} bytes, not {len(manifest_digest)}")
    return {
        "tea": VERSION,
        "tea:secret": secret,
        # `host` is reserved: no actor can have that name.
        "tea:actor": "host" if actor is None else actor,
        "tea:manifest": f"sha384:{manifest_digest.hex()}",
    }
