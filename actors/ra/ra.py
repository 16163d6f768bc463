"""The remote-attestation actor: every enclave runs one; together they certify layer-1 state, block by block.

May not: be asked by the parent for anything but what it knows (all such operations only read), or believe a peer or the
parents: what counts is what `nitro.verify` accepts. Rule: docs/architecture.md, "Remote attestation of layer-1 state".

The rules of the rounds are in round_book.py, which does no I/O; here its commands are carried out over the links. Peers
are only ever told, never waited for: two actors that waited for each other would stand still.
"""

from __future__ import annotations

from typing import Final

import msgspec
from round_book import RoundBook
from round_commands import Attest, Command, Draw, Look, Note, Quarantine, ReadNode, Rejoin, Reload, Send, Verify
from round_messages import MalformedMessage, NodeFound, decode_message, encode_message
from round_reports import RaStatus, RoundSummary, status_of, summary_of

from tea.sdk import Actor, CallError, Code, Link, operation
from tea.sdk.rounds import CONTRIBUTION_SIZE

TOPIC: Final = "ra"
TICK: Final = 0.25
"""Seconds of a tick: the patience of the rounds is counted in them."""
LOOK_BACK: Final = 64
"""Heights that are looked up at the start, the newest: a restarted actor finds the rounds it was in."""
MAX_SUMMARIES: Final = 256


class _Attested(msgspec.Struct):
    document: bytes
    statement: bytes


class _Verdict(msgspec.Struct):
    module_id: str
    timestamp: int


class _StateAt(msgspec.Struct):
    height: int
    block_hash: bytes
    state_root: bytes


class Ra(Actor):
    """One member of the rounds. Answers UNAVAILABLE in an enclave that fills no slot of the manifest."""

    vmh: Link
    nitro: Link
    layer1: Link
    clock: Link

    def on_start(self) -> None:
        """Take the slot, listen, and look up the newest heights."""
        self._book: RoundBook | None = None
        self._failures = 0
        own: str | None = self.vmh.own_slot()
        if own is None:
            self._log("warning", "this enclave fills no slot, so it takes part in no rounds")
            return
        self._book = RoundBook(self.vmh.members(), own)
        self.vmh.subscribe(TOPIC, "on_peer")
        self.layer1.subscribe("on_head")
        self.clock.every(TICK, "on_tick", TOPIC)
        self._look_back()
        self._run()

    # -- told by providers -----------------------------------------------------------------------------------------

    @operation(only_from=("provider:layer1",))
    def on_head(self, height: int, block_hash: bytes, state_root: bytes) -> None:
        """A finalized block of my layer 1."""
        if self._book is not None:
            self._book.head(height, block_hash, state_root)
            self._run()

    @operation(only_from=("provider:clock",))
    def on_tick(self, token: str) -> None:
        """Time passes."""
        if self._book is not None:
            self._book.tick()
            self._run()

    @operation(only_from=("provider:vmh",))
    def on_peer(self, sender: str, topic: str, body: bytes) -> None:
        """A message of another enclave's ra actor. `sender` is a hint; a malformed message is counted and dropped."""
        if self._book is None:
            return
        try:
            message = decode_message(body)
        except MalformedMessage:
            self._book.counters["malformed"] += 1
            return
        self._book.message(sender, message)
        self._run()

    # -- for the parent: reading only ------------------------------------------------------------------------------

    @operation
    def status(self) -> RaStatus:
        """Where this member stands: heights, certified and disputed rounds, figures, who is named."""
        return status_of(self._book, self._failures)

    @operation
    def rounds(self, start: int, count: int = 32) -> list[RoundSummary]:
        """The rounds of heights `start` to `start + count - 1` that are known; at most 256 at a time.

        INVALID on a negative start, or another count than 1 to 256.
        """
        if start < 0 or not 1 <= count <= MAX_SUMMARIES:
            raise CallError(Code.INVALID, f"start is at least 0 and count 1 to {MAX_SUMMARIES}, not {start}, {count}")
        book = self._member()
        known = (book.rounds.get(height) for height in range(start, start + count))
        return [summary_of(book, found) for found in known if found is not None]

    @operation
    def certificate(self, height: int) -> bytes | None:
        """The certificate of a height as its file; None while there is none, or the height is no longer kept."""
        found = self._member().rounds.get(height)
        return None if found is None or found.certificate is None else found.certificate.encode()

    @operation
    def evidence(self) -> list[str]:
        """The names of the evidences that this member holds against others, by height."""
        return self._member().evidence.ids()

    @operation
    def evidence_file(self, id: str) -> bytes:
        """One evidence as its file. NOT_FOUND for another name than `evidence` answers."""
        found = self._member().evidence.get(id)
        if found is None:
            raise CallError(Code.NOT_FOUND, f"there is no evidence {id[:100]!r}: `evidence` lists what there is")
        return found.encode()

    # -- commands of the book --------------------------------------------------------------------------------------

    def _run(self) -> None:
        book = self._member()
        for command in book.commands():
            try:
                self._do(book, command)
            except CallError as error:
                self._failures += 1
                self._log("warning", f"{type(command).__name__} failed", reason=str(error))
                self._undo(book, command)

    def _do(self, book: RoundBook, command: Command) -> None:
        match command:
            case Send(to, message):
                if to is None:
                    self.vmh.publish(TOPIC, encode_message(message))
                else:
                    self.vmh.tell(to, TOPIC, encode_message(message))
            case Draw(height):
                book.contributed(height, self.nitro.random(CONTRIBUTION_SIZE))
            case Attest(claim):
                made: _Attested = self.nitro.returning(_Attested).attest(claim.encode(), claim.nonce, "ra")
                book.attested(claim, made.document, made.statement)
            case Verify():
                self._verify(book, command)
            case Look(height):
                self._look(height)
            case ReadNode(height, prefix, answer_to):
                node = self._node(height, prefix)
                if answer_to is None:
                    book.node(height, prefix, node)
                else:
                    self.vmh.tell(answer_to, TOPIC, encode_message(NodeFound(height, prefix, node)))
            case Quarantine(height):
                self.layer1.quarantine(height)
            case Reload():
                self.layer1.reload()
            case Rejoin(height, state_root):
                book.rejoined(self._rejoin(height, state_root))
            case Note(level, text, fields):
                self._log(level, text, **fields)

    def _undo(self, book: RoundBook, command: Command) -> None:
        """Tell the book what did not happen, so that it tries again or counts it."""
        match command:
            case Draw(height):
                book.contributing_failed(height)
            case Attest(claim):
                book.attesting_failed(claim.height)
            case Verify():
                book.refused(command)

    def _verify(self, book: RoundBook, command: Verify) -> None:
        attestation = command.attestation
        try:
            verdict: _Verdict = self.nitro.returning(_Verdict).verify(
                attestation.document, attestation.statement, slot=attestation.slot, nonce=command.claim.nonce
            )
        except CallError as error:
            if error.code is not Code.UNTRUSTED:
                raise
            book.refused(command)
            self._log("info", "a document was refused", slot=attestation.slot, reason=error.sentence)
        else:
            book.verified(command, verdict.module_id, verdict.timestamp)

    def _look_back(self) -> None:
        try:
            newest: int = self.layer1.returning(_StateAt).head().height
        except CallError:
            return  # nothing has come yet; on_head will tell
        for height in range(max(0, newest - LOOK_BACK + 1), newest + 1):
            self._look(height)

    def _look(self, height: int) -> None:
        try:
            state: _StateAt = self.layer1.returning(_StateAt).state_hash(height)
        except CallError as error:
            if error.code not in (Code.NOT_FOUND, Code.UNAVAILABLE):
                raise
        else:
            self._member().head(state.height, state.block_hash, state.state_root)

    def _node(self, height: int, prefix: bytes) -> bytes | None:
        try:
            node: bytes = self.layer1.node(height, prefix)
        except CallError as error:
            if error.code not in (Code.NOT_FOUND, Code.UNAVAILABLE):
                raise
            return None
        return node

    def _rejoin(self, height: int, state_root: bytes) -> str:
        try:
            self.layer1.rejoin(height, state_root)
        except CallError as error:
            return "differs" if error.code is Code.CONFLICT else "later"
        return "agrees"

    def _member(self) -> RoundBook:
        if self._book is None:
            raise CallError(Code.UNAVAILABLE, "this enclave fills no slot of ra.members in the manifest")
        return self._book

    def _log(self, level: str, message: str, **fields: str) -> None:
        if "log" in self.links:
            try:
                self.links["log"].write(level, message, fields)
            except CallError:
                self._failures += 1
