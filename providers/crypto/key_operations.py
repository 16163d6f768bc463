"""crypto's operations on keys themselves: make, take in, move to another enclave, show the public half, forget.

May not: answer with a secret that is not sealed to a verified enclave, or take one in that an actor could read.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.trust.attestation import ChainCache
from tea.trust.policy import Policy
from tea.trust.sealing import SealError

from ..base import Call
from .algorithms import ALGORITHMS, SLOW, draw, key_from_secret
from .exporting import Recipient, purpose_of, require_sizes, sealed_for, verify_recipient
from .keyring import Handle
from .keys import Key
from .keystore import CryptoConfig, KeyStore
from .limits import MAX_SEALED, require_size, unknown


class KeyOperations(KeyStore):
    """Handles, and the two ways in which a key crosses the enclave's border: both sealed."""

    def __init__(self, config: CryptoConfig) -> None:
        super().__init__(config)
        self._chains = ChainCache()

    @operation
    async def generate(self, call: Call, algorithm: str, exportable: bool = False) -> str:
        """Make a key; answers its handle. The class says which algorithms there are; another is INVALID.

        From the NSM's random: all but RSA, which takes a tenth of a second to seconds, one at a time for each actor,
        and comes from OpenSSL's generator. `exportable`: `export_sealed` may move it; DENIED when the manifest does not
        let this actor export. Raises EXHAUSTED when the actor has all its handles.
        """
        ring = self._ring(call)
        ring.require_room()
        self._require_export(call, exportable)
        make = SLOW.get(algorithm)
        if make is None:
            key = draw(algorithm, self.services.attester.random)
            key.exportable = exportable
            return ring.add(key)
        async with ring.making:
            ring.require_room()
            key = await self.services.run_in_thread(make)
        if self._rings.get(call.caller) is not ring:
            raise CallError(Code.UNAVAILABLE, f"{call.caller} left the manifest while its key was made")
        key.exportable = exportable
        return ring.add(key)

    @operation
    async def import_sealed(self, call: Call, algorithm: str, sealed: bytes, exportable: bool = False) -> str:
        """Take in a key that `teactl secret seal --key ALGORITHM` or `export_sealed` sealed for this actor; its handle.

        The actor never sees it. What is sealed: 32 bytes (ed25519, sr25519, x25519, the AEADs, hkdf-hmac); a private
        scalar, big-endian, of 32 or 48 bytes (secp256k1, p-256; p-384); PKCS#8 or PKCS#1 in DER, not encrypted (RSA).
        `exportable` as for `generate`. Raises UNTRUSTED when it was sealed for another enclave, actor, manifest or
        algorithm; INVALID on another algorithm, or what is no key of it; DENIED; EXHAUSTED.
        """
        if algorithm not in ALGORITHMS:
            raise unknown("algorithm", algorithm, ALGORITHMS)
        require_size(sealed, MAX_SEALED, "a sealed key")
        ring = self._ring(call)
        ring.require_room()
        self._require_export(call, exportable)
        try:
            secret = self.services.attester.open_sealed(
                sealed, purpose=purpose_of(algorithm), actor=call.caller, bundle=call.bundle
            )
        except SealError as error:
            raise CallError(Code.UNTRUSTED, error.sentence, reason=f"seal:{error.code.value}") from None
        # RSA's numbers are checked against each other, which takes milliseconds.
        key = await self._run(algorithm in SLOW, _imported, algorithm, secret)
        if self._rings.get(call.caller) is not ring:
            raise CallError(Code.UNAVAILABLE, f"{call.caller} left the manifest while its key was taken in")
        key.exportable = exportable
        return ring.add(key)

    @operation
    async def export_sealed(
        self,
        call: Call,
        handle: str,
        document: bytes,
        statement: bytes,
        slot: str,
        nonce: bytes | None = None,
    ) -> bytes:
        """An exportable key, sealed to another enclave of this deployment: for `import_sealed` of the same actor there.

        That actor calls `nitro.attest` and sends `document` and `statement`; they are verified against the manifest's
        policy for `slot` (of `ra.members`), and against `nonce` when it is given: draw one, else an older attestation
        of the same boot serves as well. Nothing but that boot opens the result, for this actor under that manifest.
        The messages that an AEAD key may still encrypt are shared, half to each. The key stays here too.

        DENIED unless the key was made exportable and the manifest's `providers.crypto.export` gives this actor this
        slot; UNTRUSTED with the rule that failed as `reason`; NOT_FOUND for no such handle or slot; EXHAUSTED.
        """
        self._leaving(call, handle, slot)
        require_sizes(document, statement, nonce)
        try:
            policy: Policy = self.services.policy_for(slot)
        except LookupError:
            raise CallError(Code.NOT_FOUND, f"the manifest's ra.members has no slot {slot[:64]!r}") from None
        recipient: Recipient = await self.services.run_in_thread(
            lambda: verify_recipient(
                document,
                statement,
                policy,
                actor=call.caller,
                nonce=nonce,
                now_ms=int(self.services.now() * 1000),
                cache=self._chains,
            )
        )
        # Once more: meanwhile the key may have been forgotten, or a revision may have taken the grant back.
        key = self._leaving(call, handle, slot)
        sealed = sealed_for(recipient, key.share_secret(), algorithm=key.algorithm, actor=call.caller)
        self._exported += 1
        self.services.log(
            "info", "exported a key", actor=call.caller, algorithm=key.algorithm, slot=slot, to=recipient.module_id
        )
        return sealed

    @operation
    async def public_key(self, call: Call, handle: str, format: str = "native") -> bytes:
        """The public half of a key.

        `native` is what the other operations take: 32 bytes (ed25519, sr25519, x25519), the compressed point of 33 or
        49 bytes (secp256k1, p-256, p-384), SubjectPublicKeyInfo in DER (RSA). Others: `uncompressed` (points), `spki`
        and `pem` (all but sr25519), `pkcs1` (RSA: RSAPublicKey in DER, which is taken too). Raises NOT_FOUND; INVALID
        for a format that the key has not.
        """
        return self._key(call, handle, Key, "have a public half").public(format)

    @operation
    async def handles(self, call: Call) -> list[Handle]:
        """The actor's keys, oldest first: {handle, algorithm, exportable}."""
        return self._ring(call).handles()

    @operation
    async def forget_key(self, call: Call, handle: str) -> bool:
        """Drop a key for good; False when the handle has none."""
        return self._ring(call).forget(handle)

    def _leaving(self, call: Call, handle: str, slot: str) -> Key:
        """A key that may go to a slot. Raises NOT_FOUND; DENIED."""
        key = self._key(call, handle, Key, "leave")
        if not key.exportable:
            raise CallError(Code.DENIED, f"this key of {key.algorithm} was not made exportable: it never leaves")
        if slot not in self.config_for(call).export.get(call.caller, ()):
            raise CallError(
                Code.DENIED,
                f"the manifest lets {call.caller} export no key to {slot[:64]!r}: providers.crypto.export gives it",
                caller=call.caller,
            )
        return key

    def _require_export(self, call: Call, exportable: bool) -> None:
        if exportable and call.caller not in self.config_for(call).export:
            raise CallError(
                Code.DENIED,
                f"the manifest lets {call.caller} make no exportable key: providers.crypto.export names who may",
                caller=call.caller,
            )


def _imported(algorithm: str, secret: bytes) -> Key:
    try:
        return key_from_secret(algorithm, secret)
    except ValueError:
        # Whose word it is does not matter: an error may hold bytes of the key.
        raise CallError(Code.INVALID, f"what was sealed is no key of {algorithm}", size=len(secret)) from None
