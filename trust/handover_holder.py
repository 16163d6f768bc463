"""The holder's side of a handover, sans-IO: verify the receiver, freeze, pack, and retire before the other begins.

May not: release state before the receiver's evidence was verified, or go on after it has committed.
Rule: docs/continuity.md, "The handover"; RFC 9180 (HPKE) for the seal, NIST SP 800-38D for pieces.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .attestation import ChainCache
from .continuity import ContinuityCode, ContinuityError, Role, Step, Tenure
from .handover import (
    Approved,
    Keys,
    Random,
    derive,
    holder_body,
    nonce_of,
    proof_of,
    purpose_of,
    require_exchange,
    verify_evidence,
)
from .handover_messages import (
    MAX_STATE,
    NONCE_BYTES,
    PIECE_BYTES,
    Abort,
    Cancelled,
    Challenge,
    Commit,
    Contents,
    Fetch,
    Hello,
    Parcel,
    Prepared,
    ReceiverBody,
    Request,
    digest_of,
)
from .policy import Policy
from .sealing import SealError, seal
from .statement import Kind

HANDING_MS: Final = 120_000
"""Milliseconds after which a holder may go on by itself when the receiver has not said that it is prepared."""


class HolderSide:
    """The holder's side of one handover. The order is the methods'; one out of it is refused."""

    def __init__(self, tenure: Tenure, hello: bytes, random: Random) -> None:
        asked = Hello.parse(hello)
        if (asked.deployment, asked.slot) != (tenure.deployment, tenure.slot):
            raise ContinuityError(ContinuityCode.SLOT, f"this enclave holds nothing of {asked.slot[:64]!r}")
        if len(asked.nonce) != NONCE_BYTES:
            raise ContinuityError(ContinuityCode.MALFORMED, f"a nonce has {NONCE_BYTES} bytes")
        if tenure.role is not Role.ACTIVE:
            raise ContinuityError(ContinuityCode.STATE, f"this enclave is {tenure.role} for slot {tenure.slot}")
        self.copy = asked.copy
        self.asked_nonce = asked.nonce
        """What the document of the challenge must be over."""
        self._tenure = tenure
        self._hello = hello
        self._random = random
        self._nonce = random(NONCE_BYTES)
        self._challenge = b""
        self._receiver: tuple[bytes, bytes] | None = None
        self._transcript = b""
        self._term = 0
        self._keys: Keys | None = None
        self._pieces: list[bytes] = []
        self._expires = 0
        self._committed = False

    def body(self) -> bytes:
        """The body of the statement (kind `attest`) for the challenge."""
        return holder_body(self._tenure, nonce=self._nonce, hello=digest_of(self._hello))

    def challenge(self, document: bytes, statement: bytes, approved: Approved) -> bytes:
        """The Challenge, from the host's evidence over `asked_nonce` and `body`, and what approves its manifest."""
        self._challenge = Challenge(document, statement, *approved).encode()
        return self._challenge

    def accept(
        self,
        request: bytes,
        policy: Callable[[Approved], Policy],
        *,
        now_ms: int,
        cache: ChainCache | None = None,
    ) -> None:
        """Verify the receiver. From here on a move freezes the holder: what changes now would be lost.

        `policy` says what the receiver must meet (`approved_policy`). Raises `TrustError`; nothing changed then.
        """
        if not self._challenge or self._receiver is not None:
            raise ContinuityError(ContinuityCode.STATE, "a request comes once, after the challenge")
        # 1. Its form.
        asked = Request.parse(request)
        # 2. Genuine, over our nonce, of an image and a manifest that may receive, in the slot's place.
        genuine, said, body = verify_evidence(
            asked.document,
            asked.statement,
            policy(Approved(asked.approval, asked.changes)),
            Kind.SEAL,
            ReceiverBody,
            self._nonce,
            now_ms,
            cache,
        )
        # 3. For this very exchange.
        require_exchange(body.slot == self._tenure.slot and body.term == self._tenure.term)
        require_exchange(hmac.compare_digest(body.challenge, digest_of(self._hello, self._challenge)))
        # 4. With a key to seal to, and a manifest to bind to.
        if genuine.public_key is None or said.manifest is None:
            raise ContinuityError(ContinuityCode.TRANSCRIPT, "the receiver has no key to seal to, or no manifest yet")
        if not self.copy:
            self._tenure.step(Step.HAND)
            self._expires = now_ms + HANDING_MS
        self._receiver = (genuine.public_key, said.manifest)
        self._transcript = digest_of(self._hello, self._challenge, request)

    def parcel(self, state: bytes) -> bytes:
        """The Parcel of the state, exported while frozen. Raises `ContinuityError(MALFORMED)` when it is too large."""
        if self._receiver is None or self._keys is not None:
            raise ContinuityError(ContinuityCode.STATE, "state is packed once, for a receiver that was accepted")
        if len(state) > MAX_STATE:
            raise ContinuityError(ContinuityCode.MALFORMED, f"a state has at most {MAX_STATE} bytes, not {len(state)}")
        key, manifest = self._receiver
        secret = self._random(32)
        pieces = [state[at : at + PIECE_BYTES] for at in range(0, len(state), PIECE_BYTES)]
        self._term = self._tenure.term + (not self.copy)
        contents = Contents(secret, self._term, len(state), len(pieces), hashlib.sha384(state).digest())
        self._keys = derive(secret, self._transcript)
        self._pieces = [
            AESGCM(self._keys.pieces).encrypt(nonce_of(index), piece, self._transcript)
            for index, piece in enumerate(pieces)
        ]
        try:
            sealed = seal(
                key, contents.encode(), purpose=purpose_of(self._transcript), actor=None, manifest_digest=manifest
            )
        except SealError as error:
            raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, error.sentence) from None
        return Parcel(sealed).encode()

    def piece(self, fetch: bytes) -> bytes:
        """A sealed piece. It is worth nothing to anyone but the receiver, so anyone may ask."""
        index = Fetch.parse(fetch).index
        if not 0 <= index < len(self._pieces):
            raise ContinuityError(ContinuityCode.MALFORMED, f"there is no piece {index}, of {len(self._pieces)}")
        return self._pieces[index]

    def prepared(self, message: bytes) -> bytes:
        """Retire, and answer the Commit; the same one again however often it is asked for. Or Cancelled.

        The order is the promise: this enclave has stopped for good before the other may begin.
        """
        if self._keys is None or self.copy:
            raise ContinuityError(ContinuityCode.STATE, "nothing was handed over that could be committed")
        proof = Prepared.parse(message).proof
        if not hmac.compare_digest(proof, proof_of(self._keys.prepared, self._transcript)):
            raise ContinuityError(ContinuityCode.PROOF, "this does not come from the receiver of this handover")
        if self._tenure.role is Role.HANDING:
            self._tenure.retire(Step.COMMIT, self._term)
            self._committed = True
            self._pieces.clear()
        elif not (self._committed and self._tenure.role is Role.RETIRED):
            # It went on by itself, or a ticket has made another the holder: this receiver has no commit and gets none.
            return Cancelled(proof_of(self._keys.cancelled, self._transcript)).encode()
        return Commit(proof_of(self._keys.commit, self._transcript)).encode()

    def aborted(self, message: bytes) -> bool:
        """The receiver cannot take it in: whether this enclave went on by that; False when it had done so before."""
        if self._keys is None or self.copy:
            raise ContinuityError(ContinuityCode.STATE, "nothing was handed over that could be given up")
        if not hmac.compare_digest(Abort.parse(message).proof, proof_of(self._keys.abort, self._transcript)):
            raise ContinuityError(ContinuityCode.PROOF, "this does not come from the receiver of this handover")
        if self._tenure.role is not Role.HANDING:
            return False
        self.resume()
        return True

    def expired(self, now_ms: int) -> bool:
        """Whether the receiver has had its time. `resume` is then the host's to call."""
        return self._tenure.role is Role.HANDING and now_ms >= self._expires

    def resume(self) -> None:
        """Go on as the holder: the receiver, which has no commit, can never begin."""
        self._tenure.step(Step.RESUME)
        self._pieces.clear()
