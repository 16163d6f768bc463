"""Requests of actors to replicas of other actors: bounded, each under the caller's own link, name and chain.

May not: ask on the provider's own rights, or let one replica's answer pass for a part of another's.
Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import is_array

from ..base import Answer, Call, Services
from ..subscriptions import require_operation

MAX_TIMEOUT: Final = 120.0
"""Seconds that a request may wait."""
MAX_ANSWERS: Final = MAX_BODY - (1 << 14)
"""Bytes that the answers of all replicas may have together: a reply less room for what stands around them."""


NONE: Final = msgspec.Raw(b"\xc0")
_NESTED: Final = b"\x91" * 64
"""Lists around a value, more than it will stand in."""
CHECKED: Final = 32 << 10
"""Bytes of answers to one request whose every text and key is checked: built as objects they may take 3 ms."""
_well_formed: Final = msgspec.msgpack.Decoder(msgspec.Raw)
_readable: Final = msgspec.msgpack.Decoder()


class Outcome(msgspec.Struct, frozen=True):
    """What one replica answered to `request_all`."""

    replica: int
    value: msgspec.Raw = NONE
    """The operation's result; None when there is an error (and when the result is None)."""
    error: str | None = None
    """The name of an error code, as `UNAVAILABLE`; None: it answered."""
    sentence: str | None = None
    """What goes with the error."""


class Requests:
    """Those of all actors that wait for their answers."""

    def __init__(self) -> None:
        self.made = 0
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return self._waiting.total()

    async def ask(
        self,
        services: Services,
        call: Call,
        target: str,
        operation: str,
        arguments: msgspec.Raw,
        timeout: float,
        *,
        limit: int,
        replica: int | None = None,
        every: bool = False,
    ) -> Sequence[Answer]:
        """The answers; at most `limit` requests of one actor wait at a time. Raises `CallError`.

        The arguments are one well-formed value and go as they came: the callee decodes them, in its own time.
        """
        require_operation(operation)
        if not (math.isfinite(timeout) and 0 < timeout <= MAX_TIMEOUT):
            raise CallError(Code.INVALID, f"a timeout is over 0 and at most {MAX_TIMEOUT:g} seconds, not {timeout:g}")
        if call.deadline is not None:
            timeout = min(timeout, max(call.deadline, 0.001))
        if self._waiting[call.caller] >= limit:
            raise CallError(Code.EXHAUSTED, f"{limit} requests of {call.caller} wait already", limit=limit)
        body = _array(arguments)
        self._waiting[call.caller] += 1
        self.made += 1
        try:
            return await services.request_actor(
                call, target, operation, body, timeout=timeout, replica=replica, every=every
            )
        finally:
            self._waiting[call.caller] -= 1
            if not self._waiting[call.caller]:
                del self._waiting[call.caller]


def outcomes(answers: Sequence[Answer]) -> list[Outcome]:
    """One a replica. Raises `CallError(EXHAUSTED)` when they do not fit a reply."""
    size = sum(len(one.outcome) for one in answers if isinstance(one.outcome, bytes))
    if size > MAX_ANSWERS:
        raise CallError(
            Code.EXHAUSTED, f"the answers have {size} bytes together, at most {MAX_ANSWERS}", limit=MAX_ANSWERS
        )
    # What is no single value would pass for a part of its neighbours' answers, and what is nested as deep as a decoder
    # goes would make all of them unreadable to who asked: that is found in passing over them. Text that is no text, and
    # a key that is none, would too; but they are found by building the values only, which is the asker's to pay for.
    decoder: msgspec.msgpack.Decoder[Any] = _readable if size <= CHECKED else _well_formed
    return [_outcome(one, decoder) for one in answers]


def _array(arguments: msgspec.Raw) -> bytes:
    """The wire form of arguments by place: a list, or none at all. Raises `CallError(INVALID)` on another value."""
    body = bytes(arguments)
    if body == b"\xc0":
        return b"\x90"
    if not is_array(body):
        raise CallError(Code.INVALID, "the arguments of a request are a list, by place, or None: this is another value")
    return body


def _outcome(answer: Answer, decoder: msgspec.msgpack.Decoder[Any]) -> Outcome:
    outcome, replica = answer.outcome, answer.replica or 0
    if isinstance(outcome, CallError):
        return Outcome(replica, NONE, outcome.code.name, outcome.sentence)
    try:
        decoder.decode(_NESTED + outcome)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError):
        return Outcome(replica, NONE, Code.INTERNAL.name, "it answered with something that is no value")
    return Outcome(replica, msgspec.Raw(outcome))
