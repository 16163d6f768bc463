"""What a member does that finds itself dissenting: quarantine, load anew, rejoin when it agrees. Sans-IO.

May not: end a quarantine on its own word; layer 1 compares its root with a certified one.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".

    trusted --dissents--> loading --(a while)--> Rejoin --agrees--> trusted
                             ^                      |--later------> (a while)
                             '------ Reload <-------'--differs (twice as long as before)
"""

from __future__ import annotations

from collections import deque
from typing import Final

from round_commands import Command, Quarantine, Rejoin, Reload

FIRST_WAIT: Final = 8
"""Ticks from loading anew to the first look whether it agrees; doubles each time that it does not."""
LONGEST_WAIT: Final = 512
RETRY: Final = 4
"""Ticks until asking again, while the state is still loading."""


class Recovery:
    """The way back of a member that dissents."""

    def __init__(self, out: deque[Command]) -> None:
        self._out = out
        self._certified: tuple[int, bytes] | None = None
        self._wait = FIRST_WAIT
        self._due: int | None = None
        self._now = 0
        self.quarantined = False

    def agrees(self, height: int, state_root: bytes) -> None:
        """My state at a height is the certified one."""
        self._remember(height, state_root)

    def dissents(self, height: int, state_root: bytes) -> None:
        """My state at a height is not the certified one, which is `state_root`."""
        self._remember(height, state_root)
        self._out.append(Quarantine(height))
        if not self.quarantined:
            self.quarantined = True
            self._reload()

    def tick(self, now: int) -> None:
        """Look whether it is time to rejoin."""
        self._now = now
        if self.quarantined and self._due is not None and now >= self._due and self._certified is not None:
            self._due = None
            self._out.append(Rejoin(*self._certified))

    def rejoined(self, outcome: str) -> None:
        """`agrees`: trusted again. `differs`: load once more, later. `later`: not loaded yet."""
        if not self.quarantined:
            return
        if outcome == "agrees":
            self.quarantined = False
            self._wait = FIRST_WAIT
            self._due = None
        elif outcome == "differs":
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._reload()
        else:
            self._due = self._now + RETRY

    def _reload(self) -> None:
        self._out.append(Reload())
        self._due = self._now + self._wait

    def _remember(self, height: int, state_root: bytes) -> None:
        if self._certified is None or height >= self._certified[0]:
            self._certified = (height, state_root)
