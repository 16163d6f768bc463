"""What one demo does and when: sizes, who is lied to, who is killed, all from one seed.

May not: start anything. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tea.trust.round_formats import quorum

LEAST_ENCLAVES: Final = 3
MOST_ENCLAVES: Final = 16
LEAST_BLOCKS: Final = 5
MOST_BLOCKS: Final = 200
"""A member keeps the rounds of 256 heights."""
LIES_FROM: Final = 0.40
KILLED_AT: Final = 0.60
BACK_BY: Final = 0.75


def slot_order(name: str) -> tuple[int, str]:
    """Sorts e2 before e12."""
    return len(name), name


@dataclass(frozen=True)
class DemoPlan:
    """One demo. Raises `ValueError`, for people, on sizes that prove nothing."""

    enclaves: int
    blocks: int
    tamper: int
    kill: int
    seed: int
    out: Path
    chain: str | None = None
    """URL of an EVM node; None: the embedded chain."""

    def __post_init__(self) -> None:
        if not LEAST_ENCLAVES <= self.enclaves <= MOST_ENCLAVES:
            raise ValueError(f"--enclaves is {LEAST_ENCLAVES} to {MOST_ENCLAVES}, not {self.enclaves}")
        if not LEAST_BLOCKS <= self.blocks <= MOST_BLOCKS:
            raise ValueError(f"--blocks is {LEAST_BLOCKS} to {MOST_BLOCKS}, not {self.blocks}")
        if not 0 <= self.tamper <= self.faulty:
            raise ValueError(
                f"--tamper is 0 to {self.faulty} for {self.enclaves} enclaves, not {self.tamper}: "
                f"{self.enclaves} members bear (n-1)//3 liars, and with more no round could be certified"
            )
        if self.kill not in (0, 1):
            raise ValueError(f"--kill is 0 or 1, not {self.kill}")
        if self.seed < 0:
            raise ValueError(f"--seed is 0 or more, not {self.seed}")

    @property
    def faulty(self) -> int:
        """How many liars this many members bear."""
        return (self.enclaves - 1) // 3

    @property
    def quorum(self) -> int:
        """How many slots a certificate needs."""
        return quorum(self.enclaves)

    @property
    def names(self) -> tuple[str, ...]:
        """The slots."""
        return tuple(f"e{number}" for number in range(1, self.enclaves + 1))

    @property
    def tampered(self) -> tuple[str, ...]:
        """Whose parents lie."""
        chosen = self._random().sample(self.names, self.tamper)
        return tuple(name for name in self.names if name in chosen)

    @property
    def killed(self) -> str | None:
        """Whose enclave is killed: one whose parent is honest."""
        if not self.kill:
            return None
        draw = self._random()
        draw.sample(self.names, self.tamper)
        return draw.choice([name for name in self.names if name not in self.tampered])

    def _random(self) -> random.Random:
        return random.Random(f"tea.demo {self.seed}")  # noqa: S311 (a reproducible choice)

    # Blocks are numbered from 1.

    @property
    def lies_from(self) -> int:
        """The first block that the tampered parents lie about."""
        return int(self.blocks * LIES_FROM) + 1

    @property
    def kill_after(self) -> int:
        """The block after which the kill comes."""
        return int(self.blocks * KILLED_AT)

    @property
    def back_before(self) -> int:
        """The block before which the killed one is back."""
        return math.ceil(self.blocks * BACK_BY)

    @property
    def restart_after(self) -> int:
        """The block after which it is started again: one later than the kill, if there is room for it."""
        return max(self.kill_after, min(self.kill_after + 1, self.back_before - 1))

    @property
    def pace(self) -> float:
        """Seconds from block to block, at least: each round is n documents verified n times."""
        return max(0.7, 0.09 * self.enclaves)

    @property
    def patience(self) -> float:
        """Seconds without any progress after the last block before rounds are given up."""
        return 20.0 + 2.0 * self.enclaves
