"""The versions of the state by block height: a linked chain of the newest heights, and evidence set apart.

May not: do I/O or believe a block that does not follow the one before.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from typing import NamedTuple

from tea.protocol.channels import Head
from tea.trust.statetree import StateTree


class Version(NamedTuple):
    """The state after one block."""

    head: Head
    tree: StateTree


class History:
    """The newest `keep` versions, consecutive and linked by hash. Older ones are dropped; trees share structure.

    `generation` changes whenever versions are taken away, so that whoever awaited something sees it.
    """

    def __init__(self, start: int, keep: int) -> None:
        self.start = start
        self.keep = keep
        self.generation = 0
        self.quarantined_from: int | None = None
        self._versions: dict[int, Version] = {}
        self._tip: Version | None = None
        self._evidence: dict[int, Version] = {}

    @property
    def tip(self) -> Version | None:
        """The newest version."""
        return self._tip

    @property
    def next_height(self) -> int:
        """The height that `extend` takes next."""
        return self.start if self._tip is None else self._tip.head.height + 1

    @property
    def oldest(self) -> int:
        """The lowest height kept; `start` when there is none."""
        return next(iter(self._versions), self.start)

    def __len__(self) -> int:
        return len(self._versions) + len(self._evidence)

    def rebound(self, keep: int) -> None:
        """Keep another number of heights; the oldest beyond it go, of the evidence too."""
        self.keep = keep
        for kept in (self._versions, self._evidence):
            for height in sorted(kept)[: max(0, len(kept) - keep)]:
                del kept[height]

    def follows(self, head: Head) -> bool:
        """Whether a block of the next height is linked to the tip (the first has nothing to be linked to)."""
        return self._tip is None or head.parent_hash == self._tip.head.block_hash

    def extend(self, head: Head, tree: StateTree) -> Version:
        """Add the next height's version. Raises `ValueError` when it is not the next or not linked: our defect."""
        if head.height != self.next_height or not self.follows(head):
            raise ValueError(f"height {head.height} does not follow the tip")
        version = Version(head, tree)
        self._versions[head.height] = version
        self._tip = version
        if len(self._versions) > self.keep:
            del self._versions[next(iter(self._versions))]
        return version

    def at(self, height: int) -> Version | None:
        """The version that is current for a height, None when it is not kept."""
        return self._versions.get(height)

    def attested(self, height: int) -> Version | None:
        """What stood at a height when it was quarantined, else what stands there: what others hold us to."""
        return self._evidence.get(height) or self._versions.get(height)

    def rewind(self, height: int) -> None:
        """Take away every version above a kept height."""
        self._tip = self._versions[height]
        for above in [h for h in self._versions if h > height]:
            del self._versions[above]
        self.generation += 1

    def clear(self) -> None:
        """Take away every version, to load anew from `start`; quarantined ones stay as evidence."""
        self._set_apart()
        self._versions.clear()
        self._tip = None
        self.generation += 1

    def quarantine(self, height: int) -> None:
        """From this height on the state is known to dissent; its versions are kept as evidence, `keep` at most."""
        if self.quarantined_from is None or height < self.quarantined_from:
            self.quarantined_from = height
        self._set_apart()

    def rejoin(self) -> None:
        """The state agrees again. Evidence stays: what was attested at those heights stays attested."""
        self.quarantined_from = None

    def _set_apart(self) -> None:
        if self.quarantined_from is None:
            return
        for height, version in self._versions.items():
            if height >= self.quarantined_from:
                # What was set apart first is what was attested; a later version never replaces it.
                self._evidence.setdefault(height, version)
        while len(self._evidence) > self.keep:
            del self._evidence[min(self._evidence)]
