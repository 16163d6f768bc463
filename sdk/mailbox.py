"""How the outside talks to an actor that was written against plain Thespian: one implicit operation, `message`.

May not: change the actor, or give one caller what was sent back to another. The actor sees messages from an address
that stands for their caller, as it would see those of `ActorSystem().ask()`. Rule: docs/thespian.md, "A plain bundle".
"""

from __future__ import annotations

import collections
import time
import typing
from collections.abc import Callable
from typing import Any, Final

import thespian.actors
from thespian.actors import ActorAddress, PoisonMessage
from thespian.system import isInternalActorSystemMessage

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from .actor import Actor

MAX_DELIVERIES: Final = 4096
"""Messages that one call delivers at most before it answers with what there is; the rest goes on after it."""
MAX_HELD: Final = 256
"""Late answers that are held for one caller; the oldest goes first."""
MAX_WAIT: Final = 25.0
"""Seconds that one call waits at most: this replica does nothing else meanwhile."""


class Asker(thespian.actors.Actor):  # type: ignore[misc]
    """The address that a caller's messages come from; keeps what is sent back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: collections.deque[object] = collections.deque(maxlen=MAX_HELD)

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Keep an answer; what Thespian says of its own affairs is none, but for a PoisonMessage."""
        if isinstance(message, PoisonMessage) or not isInternalActorSystemMessage(message):
            self.answers.append(message)


class Post(typing.Protocol):
    """What the actor system does for a mailbox."""

    def create(self, actor_class: type[thespian.actors.Actor]) -> tuple[ActorAddress, thespian.actors.Actor]:
        """Create an actor beside the entry actor."""
        ...

    def send(self, sender: ActorAddress, message: object) -> None:
        """Queue a message for the entry actor."""
        ...

    def pump(self, limit: int) -> int:
        """Deliver due wake-ups and at most `limit` messages; how many."""
        ...

    def next_wakeup(self) -> float | None:
        """Seconds until there is something to deliver."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the entry actor is there still."""
        ...


class Mailbox(Actor):
    """Stands in front of a plain Thespian actor and speaks the runtime's language for it."""

    def open(self, post: Post, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Tie it to the system that it stands in."""
        self._post = post
        self._sleep = sleep
        self._askers: dict[str, tuple[ActorAddress, Asker]] = {}

    @operation
    def message(self, body: object, wait: float = 0.0) -> list[object]:
        """Send `body` to the actor's `receiveMessage`; what it sent back to the sender, oldest first.

        It answers when nothing is left to deliver. With `wait` (seconds, at most 25) it waits so long for the first
        answer where wake-ups are due. Answers that come later are held for the same caller's next call. Raises
        INTERNAL when the actor failed at the message (Thespian has tried three times; the log has the cause), and
        UNAVAILABLE when it exited.
        """
        address, asker = self._asker(self.caller)
        self._post.send(address, body)
        self._deliver(asker, self._patience(wait))
        answers = list(asker.answers)
        asker.answers.clear()
        if any(isinstance(answer, PoisonMessage) for answer in answers):
            raise CallError(Code.INTERNAL, f"{self.name} failed at the message; its log has the cause")
        if not answers and not self._post.alive:
            raise CallError(Code.UNAVAILABLE, f"{self.name} exited at the message, without an answer")
        return answers

    def _asker(self, caller: str) -> tuple[ActorAddress, Asker]:
        found = self._askers.get(caller)
        if found is None:
            address, instance = self._post.create(Asker)
            # As many as the manifest has actors with a link to this one, and the parent.
            found = self._askers[caller] = (address, typing.cast(Asker, instance))
        return found

    def _patience(self, wait: float) -> float:
        if not 0 <= wait <= MAX_WAIT:
            raise CallError(Code.INVALID, f"found wait {wait:g}, expected 0 to {MAX_WAIT:g} seconds")
        return wait if self.deadline is None else min(wait, self.deadline)

    def _deliver(self, asker: Asker, patience: float) -> None:
        until = time.monotonic() + patience
        left = MAX_DELIVERIES
        while left > 0:
            delivered = self._post.pump(left)
            left -= delivered
            if delivered:
                continue
            due = self._post.next_wakeup()
            remaining = until - time.monotonic()
            if asker.answers or due is None or due > remaining or not self._post.alive:
                return
            self._sleep(due)
