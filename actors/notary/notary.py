"""Signs digests with a key that was made in the enclave, and attests that it did, so that strangers can believe it.

May not: let the key out (it has none: the crypto provider does), or sign anything but its own tagged message.
Rule: README.md of this folder, which says how a relying party verifies what `sign` answers.
"""

from __future__ import annotations

import msgspec

from tea.sdk import Actor, CallError, Code, Link, operation

TAG = "tea.notary.v1"
ALGORITHM = "ed25519"
DIGEST_SIZES = (32, 48, 64)


class Signed(msgspec.Struct, frozen=True):
    """A signature, and the evidence of where the key lives and under which manifest it was used."""

    signature: bytes
    """Ed25519 over `TAG`, a zero byte and the digest: 64 bytes."""
    public_key: bytes
    """32 bytes."""
    document: bytes
    """The attestation document (COSE_Sign1) whose user_data is the SHA-384 of the statement."""
    statement: bytes
    """Canonical: deployment, manifest, revision, this actor and its bundle; its body is `evidence_body`."""


def message_of(digest: bytes) -> bytes:
    """What is signed: the tag keeps a notary's signature from passing for anything else."""
    return TAG.encode() + b"\0" + digest


def evidence_body(public_key: bytes, digest: bytes) -> bytes:
    """The statement's body: it binds the key and what was signed. msgpack `[tag, algorithm, public key, digest]`."""
    return msgspec.msgpack.encode([TAG, ALGORITHM, public_key, digest])


class Notary(Actor):
    """One key for all replicas; it ends with the enclave."""

    crypto: Link
    nitro: Link

    def on_start(self) -> None:
        if not self._handles():
            self.crypto.generate(ALGORITHM)
        # The oldest: replicas that start at once may each make one, and must agree on which they use.
        self._handle = self._handles()[0]
        self._public_key: bytes = self.crypto.public_key(self._handle)

    @operation
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes. Believe it only with the evidence of a `sign`."""
        return self._public_key

    @operation
    def sign(self, digest: bytes, nonce: bytes | None = None) -> Signed:
        """Sign a digest of 32, 48 or 64 bytes. `nonce` (at most 512 bytes) goes into the document: it proves freshness.

        Raises INVALID on another size.
        """
        if len(digest) not in DIGEST_SIZES:
            raise CallError(Code.INVALID, f"a digest has 32, 48 or 64 bytes, not {len(digest)}: hash what you have")
        signature: bytes = self.crypto.sign(self._handle, message_of(digest))
        attested = self.nitro.attest(evidence_body(self._public_key, digest), nonce)
        return Signed(signature, self._public_key, attested["document"], attested["statement"])

    def _handles(self) -> list[str]:
        return [key["handle"] for key in self.crypto.handles() if key["algorithm"] == ALGORITHM]
