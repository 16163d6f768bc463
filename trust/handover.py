"""The handover of a slot's keys and state between two enclaves that attest each other; sans-IO, both sides.

May not: attest, send, or read a clock (the host does, and hands times in); release state before the other side's
evidence was verified; let two enclaves be holder, whatever the parents drop, repeat, reorder or forge.
Rule: docs/continuity.md, "The handover"; RFC 9180 (HPKE) for the seal, NIST SP 800-38D for pieces.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .approval import Approvers, verify_approval, verify_changes
from .attestation import AttestationDocument, ChainCache, verify_document
from .continuity import ContinuityCode, ContinuityError, Role, Step, Tenure
from .errors import TrustError
from .handover_messages import (
    MAX_STATE,
    NONCE_BYTES,
    PIECE_BYTES,
    Cancelled,
    Challenge,
    Commit,
    Contents,
    Fetch,
    Hello,
    HolderBody,
    Message,
    Parcel,
    Prepared,
    ReceiverBody,
    Request,
    digest_of,
)
from .manifest import Manifest
from .policy import Policy
from .sealing import SealError, SealingKey, seal
from .statement import Kind, Statement, verify_statement

_NO_NONCE: Final = bytes(NONCE_BYTES)
_NO_DIGEST: Final = bytes(48)
HANDING_MS: Final = 120_000
"""Milliseconds after which a holder goes on by itself when the receiver has not said that it is prepared."""

Random = Callable[[int], bytes]
_M = TypeVar("_M", bound=Message)


class Tenancy(NamedTuple):
    """Who holds a slot, by verified evidence."""

    deployment: str
    slot: str
    term: int
    role: Role
    holder: bytes
    """The X25519 key of its boot, 32 bytes."""


class _Keys(NamedTuple):
    pieces: bytes
    prepared: bytes
    commit: bytes
    cancelled: bytes


def holder_body(tenure: Tenure, *, nonce: bytes = _NO_NONCE, hello: bytes = _NO_DIGEST) -> bytes:
    """The body of a holder's statement (kind `attest`, the boot's own key): for a challenge, or for any third party."""
    return HolderBody(tenure.slot, tenure.term, str(tenure.role), nonce, hello).encode()


def verify_tenancy(
    document: bytes, statement: bytes, policy: Policy, *, nonce: bytes, now_ms: int, cache: ChainCache | None = None
) -> Tenancy:
    """Who holds a slot, for a third party that asked with `nonce`; a `Fence` remembers it. Raises `TrustError`."""
    genuine, said, body = _evidence(document, statement, policy, Kind.ATTEST, HolderBody, nonce, now_ms, cache)
    return _tenancy(genuine, said, body)


def successor_policy(
    own: Policy,
    slot: str,
    *,
    approvers: Approvers,
    changes: Sequence[bytes],
    approval: bytes,
    revision: int,
) -> Policy:
    """What a receiver must meet: the holder's own policy, or the same with a newly approved manifest of that receiver.

    `approvers` are the image's, `own` is the policy for this slot under the holder's manifest of `revision`. An image
    stays the holder's own: another image gets nothing, whatever its manifest. Raises `ContinuityError(APPROVAL)`.
    """
    if not approval:
        return own
    try:
        current = verify_changes(approvers, changes)
        manifest = verify_approval(approval, current)
    except TrustError as error:
        raise ContinuityError(ContinuityCode.APPROVAL, f"the receiver's manifest: {error.sentence}") from None
    if manifest.revision < revision or (manifest.revision == revision and manifest.digest not in own.manifests):
        raise ContinuityError(
            ContinuityCode.APPROVAL,
            f"the receiver's manifest has revision {manifest.revision}, expected above {revision}",
        )
    pcrs = {**own.pcrs, **_binding(manifest, slot)}
    epoch = max(own.min_epoch, current.epoch)
    return dataclasses.replace(own, pcrs=pcrs, manifests=(manifest.digest,), min_epoch=epoch)


def _binding(manifest: Manifest, slot: str) -> dict[int, tuple[bytes, ...]]:
    """The PCR that binds the slot under a manifest: a new one may give the slot to another instance or role."""
    slots = manifest.ra.slots() if manifest.ra is not None else {}
    return {int(key.removeprefix("pcr")): (bytes.fromhex(value),) for key, value in slots.get(slot, {}).items()}


# ---- the holder ------------------------------------------------------------------------------------------------------


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
        self._keys: _Keys | None = None
        self._pieces: list[bytes] = []
        self._expires = 0

    def body(self) -> bytes:
        """The body of the statement (kind `attest`) for the challenge."""
        return holder_body(self._tenure, nonce=self._nonce, hello=digest_of(self._hello))

    def challenge(self, document: bytes, statement: bytes) -> bytes:
        """The Challenge, from the host's evidence over `asked_nonce` and `body`."""
        self._challenge = Challenge(document, statement).encode()
        return self._challenge

    def accept(
        self,
        request: bytes,
        policy: Callable[[Request], Policy],
        *,
        now_ms: int,
        cache: ChainCache | None = None,
    ) -> None:
        """Verify the receiver. From here on a move freezes the holder: what changes now would be lost.

        `policy` says what the receiver must meet (`successor_policy`). Raises `TrustError`; nothing changed then.
        """
        if not self._challenge or self._receiver is not None:
            raise ContinuityError(ContinuityCode.STATE, "a request comes once, after the challenge")
        # 1. Its form.
        asked = Request.parse(request)
        # 2. Genuine, over our nonce, of an image and a manifest that may receive, in the slot's place.
        genuine, said, body = _evidence(
            asked.document, asked.statement, policy(asked), Kind.SEAL, ReceiverBody, self._nonce, now_ms, cache
        )
        # 3. For this very exchange.
        _require_body(body.slot == self._tenure.slot and body.term == self._tenure.term)
        _require_body(hmac.compare_digest(body.challenge, digest_of(self._hello, self._challenge)))
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
        self._keys = _derive(secret, self._transcript)
        self._pieces = [
            AESGCM(self._keys.pieces).encrypt(_count(index), piece, self._transcript)
            for index, piece in enumerate(pieces)
        ]
        try:
            sealed = seal(
                key, contents.encode(), purpose=_purpose(self._transcript), actor=None, manifest_digest=manifest
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
        if not hmac.compare_digest(proof, _proof(self._keys.prepared, self._transcript)):
            raise ContinuityError(ContinuityCode.PROOF, "this does not come from the receiver of this handover")
        if self._tenure.role is Role.HANDING:
            self._tenure.step(Step.COMMIT)
            self._pieces.clear()
        elif self._tenure.role is not Role.RETIRED or self._tenure.term != self._term - 1:
            return Cancelled(_proof(self._keys.cancelled, self._transcript)).encode()
        return Commit(_proof(self._keys.commit, self._transcript)).encode()

    def expired(self, now_ms: int) -> bool:
        """Whether the receiver has had its time. `resume` is then the host's to call."""
        return self._tenure.role is Role.HANDING and now_ms >= self._expires

    def resume(self) -> None:
        """Go on as the holder: the receiver, which has no commit, can never begin."""
        self._tenure.step(Step.RESUME)
        self._pieces.clear()


# ---- the receiver ----------------------------------------------------------------------------------------------------


class ReceiverSide:
    """The receiver's side of one handover. The order is the methods'; one out of it is refused."""

    def __init__(self, tenure: Tenure, random: Random, *, copy: bool = False) -> None:
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
        self._keys: _Keys | None = None
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

    def challenged(self, challenge: bytes, policy: Policy, *, now_ms: int, cache: ChainCache | None = None) -> Tenancy:
        """Verify the holder against what it must be. Raises `TrustError`."""
        asked = Challenge.parse(challenge)
        # 1. Genuine, over our nonce, of an image and a manifest from which we take.
        genuine, said, body = _evidence(
            asked.document, asked.statement, policy, Kind.ATTEST, HolderBody, self._nonce, now_ms, cache
        )
        # 2. An answer to our hello, by the holder, of no earlier term than we know.
        _require_body(hmac.compare_digest(body.hello, digest_of(self._hello)))
        tenancy = _tenancy(genuine, said, body)
        if tenancy.slot != self._tenure.slot or tenancy.deployment != self._tenure.deployment:
            raise ContinuityError(ContinuityCode.SLOT, f"it holds {tenancy.slot!r}, expected {self._tenure.slot!r}")
        if tenancy.role is not Role.ACTIVE or not max(1, self._tenure.term) <= tenancy.term:
            raise ContinuityError(ContinuityCode.TERM, f"it is {tenancy.role} of term {tenancy.term}: no holder for us")
        self._challenge, self._term, self.challenge_nonce = challenge, tenancy.term, body.nonce
        return tenancy

    def body(self) -> bytes:
        """The body of the statement (kind `seal`) for the request."""
        return ReceiverBody(self._tenure.slot, self._term, digest_of(self._hello, self._challenge)).encode()

    def request(
        self,
        document: bytes,
        statement: bytes,
        manifest_digest: bytes,
        *,
        approval: bytes = b"",
        changes: Sequence[bytes] = (),
    ) -> bytes:
        """The Request, from the host's evidence over `challenge_nonce`, `body` and `public_key`.

        `manifest_digest` is that of the statement; `approval` and `changes` show that it is approved, when it is not
        the holder's own.
        """
        self._manifest = manifest_digest
        self._request = Request(document, statement, approval, tuple(changes)).encode()
        return self._request

    def open(self, parcel: bytes) -> int:
        """Open the parcel; how many pieces to fetch. Raises `ContinuityError`."""
        sealed = Parcel.parse(parcel).sealed
        transcript = self._transcript
        try:
            opened = self._key.open(sealed, purpose=_purpose(transcript), actor=None, manifest_digest=self._manifest)
        except SealError as error:
            raise ContinuityError(ContinuityCode.DOES_NOT_OPEN, error.sentence) from None
        contents = Contents.parse(opened)
        expected = self._term + (not self._copy)
        count = -(-contents.size // PIECE_BYTES)
        if contents.term != expected or not 0 <= contents.size <= MAX_STATE or contents.pieces != count:
            raise ContinuityError(ContinuityCode.TERM, f"a parcel of term {contents.term}, expected {expected}")
        self._contents, self._keys = contents, _derive(contents.secret, transcript)
        return contents.pieces

    def fetch(self, index: int) -> bytes:
        """The Fetch for a piece."""
        return Fetch(index).encode()

    def piece(self, sealed: bytes) -> None:
        """The next piece, in order. Raises `ContinuityError(DOES_NOT_OPEN)`; the same one may be fetched again."""
        if self._keys is None:
            raise ContinuityError(ContinuityCode.STATE, "a piece comes after the parcel")
        try:
            self._state += AESGCM(self._keys.pieces).decrypt(_count(self._next), sealed, self._transcript)
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
        self._tenure.step(Step.COPIED, None if self._term == self._tenure.term else self._term)

    def prepared(self) -> bytes:
        """Say that everything is here. From now on only the holder's answer decides: send it until one comes."""
        if self._keys is None or self._copy:
            raise ContinuityError(ContinuityCode.STATE, "nothing was received that could be committed")
        if self._tenure.role is Role.RECEIVING:
            self.state()
            self._tenure.step(Step.RECEIVED)
        return Prepared(_proof(self._keys.prepared, self._transcript)).encode()

    def committed(self, answer: bytes) -> bool:
        """The holder's answer: True, this enclave is the holder now; False, the old one goes on: forget the state.

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
        if not hmac.compare_digest(proof, _proof(expected, self._transcript)):
            raise ContinuityError(ContinuityCode.PROOF, "this does not come from the holder of this handover")
        if commits:
            self._tenure.step(Step.COMMITTED, self._term + 1)
        else:
            self._tenure.step(Step.CANCELLED)
            self._state.clear()
        return commits

    def failed(self) -> None:
        """Give up before `prepared`. Afterwards only the holder can."""
        self._tenure.step(Step.FAILED)
        self._state.clear()

    @property
    def _transcript(self) -> bytes:
        return digest_of(self._hello, self._challenge, self._request)


# ---- what both need --------------------------------------------------------------------------------------------------


def _evidence(
    document: bytes,
    statement: bytes,
    policy: Policy,
    kind: Kind,
    body: type[_M],
    nonce: bytes,
    now_ms: int,
    cache: ChainCache | None,
) -> tuple[AttestationDocument, Statement, _M]:
    genuine = verify_document(document, roots=policy.roots(), at=now_ms, nonce=nonce, cache=cache)
    said = verify_statement(genuine, statement)
    policy.require(genuine, said, now_ms=now_ms, kind=kind)
    return genuine, said, body.parse(said.body)


def _tenancy(genuine: AttestationDocument, said: Statement, body: HolderBody) -> Tenancy:
    try:
        role = Role(body.role)
    except ValueError:
        raise ContinuityError(ContinuityCode.MALFORMED, "a holder's role is none that there is") from None
    if genuine.public_key is None or len(genuine.public_key) != 32:
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "a holder's document carries the X25519 key of its boot")
    return Tenancy(said.deployment, body.slot, body.term, role, genuine.public_key)


def _require_body(holds: bool) -> None:
    if not holds:
        raise ContinuityError(ContinuityCode.TRANSCRIPT, "genuine evidence, but of another exchange than this one")


def _purpose(transcript: bytes) -> str:
    return f"continuity:{transcript.hex()}"


def _derive(secret: bytes, transcript: bytes) -> _Keys:
    if len(secret) != 32:
        raise ContinuityError(ContinuityCode.MALFORMED, "a parcel's secret has 32 bytes")
    okm = HKDF(hashes.SHA256(), 128, transcript, b"tea.continuity.v1").derive(secret)
    return _Keys(okm[:32], okm[32:64], okm[64:96], okm[96:])


def _proof(key: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, transcript, "sha256")


def _count(index: int) -> bytes:
    return index.to_bytes(12, "big")


__all__ = [
    "HANDING_MS",
    "HolderSide",
    "Random",
    "ReceiverSide",
    "Tenancy",
    "holder_body",
    "successor_policy",
    "verify_tenancy",
]
