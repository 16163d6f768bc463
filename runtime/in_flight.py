"""What is under way: a call or message in a mailbox, the one who waits for its answer, and the counters of all that.

May not: do anything; the router and its rooms do. Rule: docs/architecture.md, "The wire" and "Back-pressure".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import Kind

if TYPE_CHECKING:
    from .worker_port import WorkerPort

KEPT_BODY: Final = 64 << 10
"""Bytes of arguments that are kept while they are in hand; of larger ones a crash is not blamed on any."""
NOBODY_WAITS: Final = "nobody waits for this any more: the call on whose behalf it is made has ended"


class UnderWay(Protocol):
    """One call that has no answer yet, wherever it stands: in a mailbox, before one, with a provider."""

    cause: int
    """Correlation of the caller's own call on whose behalf it was made; 0: of its own accord."""

    def withdraw(self) -> None:
        """Nobody waits for it any more: what was not begun is not, what can be cancelled is. The caller is answered."""
        ...


class Origin(Protocol):
    """Whoever made a call and waits for its one answer."""

    name: str
    outgoing: dict[int, UnderWay]
    """Its calls that wait for their answer, by correlation; `answer` takes them out."""

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        """Called exactly once a call."""
        ...


class Pending(msgspec.Struct, eq=False):
    """One delivered call or tell, until its callee answers (a call) or credits it (a tell)."""

    number: int
    kind: Kind
    origin: Origin | None
    """None once it was answered for the callee (deadline) or the origin is gone: a late answer is dropped."""
    correlation: int
    caller: str
    chain: tuple[str, ...]
    target: WorkerPort
    operation: str
    body: bytes | None
    """The arguments, kept while they are in hand: what a crash is blamed on. None: too large to be kept."""
    deadline_at: float | None = None
    cause: int = 0

    def withdraw(self) -> None:
        """See `UnderWay`. Its place in the mailbox stays taken until the callee has skipped or ended it."""
        self.origin = None
        self.target.withdraw(self.number)


@dataclass(slots=True)
class Figures:
    """Counters; `calls == replies + errors + in flight` at every moment."""

    calls: int = 0
    replies: int = 0
    errors: int = 0
    tells: int = 0
    dead_letters: int = 0
    late_answers: int = 0
    parked: int = 0
    """Calls and messages that wait for a place in a mailbox now."""
    waited: int = 0
    """Calls and messages that had to wait for one, ever."""
    cancelled: int = 0
    """Calls that were ended because nobody waited for them any more."""


@dataclass(slots=True)
class HostOrigin:
    """A caller inside the host: the parent's calls and providers' calls."""

    name: str
    future: asyncio.Future[bytes]
    outgoing: dict[int, UnderWay] = field(default_factory=dict)
    require: Callable[[], None] | None = None
    """Raises `CallError` when the right to the call is gone: asked when a newer revision's replicas are to take it."""

    def answer(self, correlation: int, kind: Kind, body: bytes) -> None:
        self.outgoing.pop(correlation, None)
        if self.future.done():
            return
        if kind is Kind.REPLY:
            self.future.set_result(body)
        else:
            self.future.set_exception(CallError.decode(body))


def nobody_waits() -> CallError:
    """What is answered to a call that is made, or goes on, for one that has ended."""
    return CallError(Code.DEADLINE, NOBODY_WAITS)
