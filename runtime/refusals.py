"""What a worker tried and was refused: counted by name, said once in the log, shown in status.

May not: cost the host more than a bounded amount, whatever a worker tries: after a number of refused system calls the
host stops listening, and the kernel refuses alone. Rule: docs/sandbox.md, "Named refusals".
"""

from __future__ import annotations

import asyncio
import collections
import errno
import fcntl
import os
import select
import struct
from collections.abc import Callable
from typing import Final

from .worker.syscall_table import name_of

LISTENED_CALLS: Final = 64
"""Refused system calls of one worker that the host hears of; the kernel refuses the rest without it."""
MAX_WHAT: Final = 256
"""Characters of such a name: some quote what an actor calls its operations."""
NAMES: Final = 64
"""Different names that are counted apart; further ones count as "other"."""

Say = Callable[[str], None]

# struct seccomp_notif: u64 id; u32 pid; u32 flags; struct seccomp_data. struct seccomp_notif_resp: u64 id; s64 val;
# s32 error; u32 flags. The ioctl numbers are SECCOMP_IOCTL_NOTIF_RECV and _SEND.
_NOTIFICATION: Final = 80
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101


class Refusals:
    """The refused attempts of one actor, over all of its replicas and restarts."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def count(self, what: str) -> bool:
        """Count one attempt; True when it is the first of its name."""
        what = what[:MAX_WHAT]
        if what not in self.counts and len(self.counts) >= NAMES:
            what = "other"
        self.counts[what] += 1
        return self.counts[what] == 1


REFUSED_FRAME: Final = 16
DROPPED_FRAME: Final = 1
DEBT_LIMIT: Final = 1024
"""What a worker may cost in a second with frames that come to nothing: 64 refused ones, 1024 dropped ones, or 1 MiB."""
HOLD_SECONDS: Final = 0.25
REST_TURNS: Final = 4
REST_AT_LEAST: Final = 60e-6
REST_AT_MOST: Final = 1e-3
"""Seconds. For so many turns of the loop, and for as long as the others' share takes, a worker that rests is not read:
whatever they have to say is heard before it."""
TOO_MANY: Final = "more refused frames than it may send in a second"
TOO_LONG: Final = "more of the host's time than its share"


class Debt:
    """What a worker's refused frames have cost the host lately, in units of a dropped one (about a microsecond).

    A worker over its limit is not read for a while: the kernel then stops it at its own writes. So a flood costs the
    host, and with it the neighbours, a bounded part of its time, and an actor within its limits never notices.
    """

    __slots__ = ("_kept", "_since", "lapses", "rests", "seconds", "units", "why")

    def __init__(self) -> None:
        self.units = 0
        self.why = TOO_MANY
        """What is said when it is held; nothing of a short rest, which whoever has much to do takes often."""
        self._since = 0.0
        self.seconds = 0.0
        """How long it rests."""
        self.rests = False
        """Whether it is held for a moment, not for `HOLD_SECONDS`."""
        self.lapses = False
        """Whether it need not rest after all, if it has nothing more to say."""
        self._kept = 0

    def add(self, units: int, now: float) -> None:
        """Add a frame's cost; what is older than a second is forgiven."""
        if now - self._since > 1.0:
            self._since = now
            if self.rests:
                self._kept = 0
            else:
                self.units = 0
        if self.rests:
            self._kept += units
        else:
            self.units += units

    def rest(self, seconds: float, *, lapses: bool = False) -> None:
        """The others have their turn, as its calls took the host's time; what else it owes it owes afterwards.

        `lapses`: if nothing more came in the same read, it need not rest.
        """
        self.lapses = lapses and (self.lapses or self.units < DEBT_LIMIT)
        self.seconds = max(REST_AT_LEAST, min(seconds, REST_AT_MOST))
        if self.units < DEBT_LIMIT:
            self.units, self.why, self._kept, self.rests = DEBT_LIMIT, "", self.units, True

    def exhaust(self) -> None:
        """It is to be held for long, as its calls took the host's time."""
        self.units, self.why, self._kept, self.rests, self.lapses = DEBT_LIMIT, TOO_LONG, 0, False, False

    def forgive(self) -> None:
        """It was held for it."""
        self.units, self.why, self._kept, self.rests, self.lapses = self._kept, TOO_MANY, 0, False, False


class Listener:
    """Answers one worker's refused system calls with EPERM and says their names. Owns the descriptor."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor = descriptor
        self._loop = loop
        self._left = LISTENED_CALLS
        self._say: Say | None = None
        self._early: list[str] = []
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        loop.add_reader(descriptor, self._readable)

    def tell(self, say: Say) -> None:
        """Tell `say` of each refused call from now on, and of those that were refused already."""
        self._say = say
        early, self._early = self._early, []
        for name in early:
            say(name)

    def close(self) -> None:
        """Stop listening. From then on the kernel answers ENOSYS to what would have been asked."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        events = self._poll.poll(0)
        if not events:
            return
        if not events[0][1] & select.POLLIN:  # the worker is gone
            self.close()
            return
        notification = bytearray(_NOTIFICATION)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, notification)
            identity, _pid, _flags, number = struct.unpack_from("<QIIi", notification)
            fcntl.ioctl(self._descriptor, _SEND, bytearray(struct.pack("<QqiI", identity, 0, -errno.EPERM, 0)))
        except FileNotFoundError:  # the worker ended, or a signal took it out of the call, in the meantime
            return
        except OSError:
            self.close()
            return
        self._left -= 1
        self._tell(name_of(number))
        if self._left <= 0:
            self._tell(f"more than {LISTENED_CALLS} refused system calls")
            self.close()

    def _tell(self, name: str) -> None:
        if self._say is not None:
            self._say(name)
        else:
            self._early.append(name)
