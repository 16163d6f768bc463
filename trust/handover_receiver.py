"""The receiver's side of a handover, sans-IO: verify the holder, take everything in, begin when the holder has retired.

May not: serve before the holder's commit, or give up by itself once it has said that it is prepared.
Rule: docs/continuity.md, "The handover"; RFC 9180 (HPKE) for the seal, NIST SP 800-38D for pieces.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .attestation import ChainCache
from .continuity import ContinuityCode, ContinuityError, Role, Step, Tenure
from .handover import (
    Approved,
    Keys,
    Random,
    Tenancy,
    derive,
    nonce_of,
    proof_of,
    purpose_of,
    require_exchange,
    tenancy_of,
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
    HolderBody,
    Parcel,
    Prepared,
    ReceiverBody,
    Request,
    digest_of,
)
from .policy import Policy
from .sealing import SealError, SealingKey
from .statement import Kind


class ReceiverSide:
    """The receiver's side of one handover. The order is the methods'; one out of it is refused."""

    def __init__(self, tenure: Tenure, random: Random, *, copy: bool = False) -> None:
        self._had_copy = tenure.role is Role.STANDBY
        tenure.step(Step.ASK)
        self._tenure = tenure
        self._copy = copy
        self._nonce = random(NONCE_BYTES)
        self._key = SealingKey.from_raw(random(32))
        self._hello = Hello(tenure.deployment, tenure.slot, copy, self._nonce).encode()
        self._challenge = b""
        self._term = 0
        self._request = b""
        self._manifest = b""
        self._contents: Contents | None = None
        self._keys: Keys | None = None
        self._state = bytearray()
        self._next = 0
        self.challenge_nonce = b""
        """What the document of the request must be over."""

    @property
    def hello(self) -> bytes:
        """The first message."""
        return self._hello

    @property
    def public_key(self) -> bytes:
        """What the document of the request carries as public_key: made for this handover, 32 bytes."""
        return self._key.public

    def challenged(
        self,
        challenge: bytes,
        policy: Callable[[Approved], Policy],
        *,
        now_ms: int,
        cache: ChainCache | None = None,
    ) -> Tenancy:
        """Verify the holder; `policy` says what it must meet (`approved_policy`). Raises `TrustError`."""
        asked = Challenge.parse(challenge)
        # 1. Genuine, over our nonce, of an image and a manifest from which we take.
        genuine, said, body = verify_evidence(
            asked.document,
            asked.statement,
            policy(Approved(asked.approval, asked.changes)),
            Kind.ATTEST,
            HolderBody,
            self._nonce,
            now_ms,
            cache,
        )
        # 2. An answer to our hello, by the holder, of no earlier term than we know.
        require_exchange(hmac.compare_digest(body.hello, digest_of(self._hello)))
        tenancy = tenancy_of(genuine, said, body)
        if tenancy.slot != self._tenure.slot or tenancy.deployment != self._tenure.deployment:
            raise ContinuityError(ContinuityCode.SLOT, f"it holds {tenancy.slot!r}, expected {self._tenure.slot!r}")
        if tenancy.role is not Role.ACTIVE or not max(1, self._tenure.term) <= tenancy.term:
            raise ContinuityError(ContinuityCode.TERM, f"it is {tenancy.role} of term {tenancy.term}: no holder for us")
        self._challenge, self._term, self.challenge_nonce = challenge, tenancy.term, body.nonce
        return tenancy

    def body(self) -> bytes:
        """The body of the statement (kind `seal`) for the request."""
        return ReceiverBody(self._tenure.slot, self._term, digest_of(self._hello, self._challenge)).encode()

    def request(self, document: bytes, statement: bytes, manifest_digest: bytes, approved: Approved) -> bytes:
        """The Request, from the host's evidence over `challenge_nonce`, `body` and `public_key`.

        `manifest_digest` is that of the statement, and `approved` shows that it is approved.
        """
        self._manifest = manifest_digest
        self._request = Request(document, statement, *approved).encode()
        return self._request

    def open(self, parcel: bytes) -> int:
        """Open the parcel; how many pieces to fetch. Raises `ContinuityError`."""
        sealed = Parcel.parse(parcel).sealed
        transcript = self._transcript
        try:
            opened = self._key.open(sealed, purpose=purpose_of(transcript), actor=None, manifest_digest=self._manifest)
        except SealError as error:
            raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, error.sentence) from None
        contents = Contents.parse(opened)
        expected = self._term + (not self._copy)
        count = -(-contents.size // PIECE_BYTES)
        if contents.term != expected or not 0 <= contents.size <= MAX_STATE or contents.pieces != count:
            raise ContinuityError(ContinuityCode.TERM, f"a parcel of term {contents.term}, expected {expected}")
        self._contents, self._keys = contents, derive(contents.secret, transcript)
        return contents.pieces

    def fetch(self, index: int) -> bytes:
        """The Fetch for a piece."""
        return Fetch(index).encode()

    def piece(self, sealed: bytes) -> None:
        """The next piece, in order. Raises `ContinuityError(DOES_NOT_OPEN)`; the same one may be fetched again."""
        if self._keys is None:
            raise ContinuityError(ContinuityCode.STATE, "a piece comes after the parcel")
        try:
            self._state += AESGCM(self._keys.pieces).decrypt(nonce_of(self._next), sealed, self._transcript)
        except (InvalidTag, ValueError):
            raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, f"piece {self._next} is not the holder's") from None
        self._next += 1

    def state(self) -> bytes:
        """All of it, once every piece is here. It may be looked at, not served. Raises `ContinuityError`."""
        contents, state = self._contents, bytes(self._state)
        if contents is None or self._next != contents.pieces:
            raise ContinuityError(ContinuityCode.STATE, "pieces are missing")
        if not hmac.compare_digest(hashlib.sha384(state).digest(), contents.digest):
            raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, "the pieces are not the state that was sealed")
        return state

    def copied(self) -> None:
        """The copy was taken in: a standby now."""
        if not self._copy:
            raise ContinuityError(ContinuityCode.STATE, "this was asked for as a move, not as a copy")
        self.state()
        self._tenure.step(Step.COPIED, self._term)

    def prepared(self) -> bytes:
        """Say that everything is here. From now on only the holder's answer decides: send it until one comes."""
        if self._keys is None or self._copy or self._tenure.role not in (Role.RECEIVING, Role.PREPARED):
            raise ContinuityError(ContinuityCode.STATE, "nothing was received that could be committed")
        if self._tenure.role is Role.RECEIVING:
            self.state()
            self._tenure.step(Step.RECEIVED)
        return Prepared(proof_of(self._keys.prepared, self._transcript)).encode()

    def committed(self, answer: bytes) -> bool:
        """The holder's answer: True, this enclave is the holder; False, the old one goes on, and this is a copy.

        Raises `ContinuityError` on anything else, and waits on: a parent can forge no answer.
        """
        if self._keys is None or self._tenure.role is not Role.PREPARED:
            raise ContinuityError(ContinuityCode.STATE, "no answer is awaited")
        try:
            proof = Commit.parse(answer).proof
            expected, commits = self._keys.commit, True
        except ContinuityError:
            proof = Cancelled.parse(answer).proof
            expected, commits = self._keys.cancelled, False
        if not hmac.compare_digest(proof, proof_of(expected, self._transcript)):
            raise ContinuityError(ContinuityCode.PROOF, "this does not come from the holder of this handover")
        if commits:
            self._tenure.step(Step.COMMITTED, self._term + 1)
        else:
            self._tenure.step(Step.CANCELLED, self._term)
        return commits

    def failed(self) -> bytes | None:
        """Give up before `prepared`; afterwards only the holder can. The Abort to send, when a parcel was opened."""
        self._tenure.step(Step.KEPT if self._had_copy else Step.FAILED)
        self._state.clear()
        if self._keys is None or self._copy:
            return None
        return Abort(proof_of(self._keys.abort, self._transcript)).encode()

    @property
    def _transcript(self) -> bytes:
        return digest_of(self._hello, self._challenge, self._request)
