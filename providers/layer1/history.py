"""The versions of the state by block height: a linked chain of the newest heights, and evidence set apart; bounded.

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
    size: int
    """Bytes of memory of the whole tree."""
    gone: int
    """Bytes of all nodes that stood in a version before and stand in this one no more. So two versions of one chain
    take what the later one takes, and the difference of their `gone`."""
    generation: int


class History:
    """The newest versions, consecutive and linked by hash: `keep` heights, and less when those take too many bytes.

    `keep_bytes` bounds what versions take beside the newest, and once more what the evidence takes; the oldest are
    dropped first, the newest never. Trees share structure, and what they share counts once. `generation` changes
    whenever versions are taken away, so that whoever awaited something sees it.
    """

    def __init__(self, start: int, keep: int, keep_bytes: int) -> None:
        self.start = start
        self.keep = keep
        self.keep_bytes = keep_bytes
        self.generation = 0
        self.dropped_for_bytes = 0
        """Versions and evidence that `keep` would have kept."""
        self.quarantined_from: int | None = None
        self._versions: dict[int, Version] = {}
        self._tip: Version | None = None
        self._evidence: dict[int, Version] = {}
        self._evidence_bytes = 0

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

    @property
    def size(self) -> int:
        """Bytes of memory that the newest version takes."""
        return 0 if self._tip is None else self._tip.size

    @property
    def older_bytes(self) -> int:
        """Bytes of memory that the versions before the newest take beside it."""
        return 0 if self._tip is None else self._tip.gone - next(iter(self._versions.values())).gone

    @property
    def evidence_bytes(self) -> int:
        """Bytes of memory that the evidence takes: at most, since it may share with what is kept."""
        return self._evidence_bytes

    def __len__(self) -> int:
        return len(self._versions) + len(self._evidence)

    def rebound(self, keep: int, keep_bytes: int) -> None:
        """Keep another number of heights and bytes; the oldest beyond them go, of the evidence too."""
        self.keep = keep
        self.keep_bytes = keep_bytes
        self._drop_oldest()
        self._drop_evidence()

    def follows(self, head: Head) -> bool:
        """Whether a block of the next height is linked to the tip (the first has nothing to be linked to)."""
        return self._tip is None or head.parent_hash == self._tip.head.block_hash

    def extend(self, head: Head, tree: StateTree, weighed: tuple[int, int] | None = None) -> Version:
        """Add the next height's version. Raises `ValueError` when it is not the next or not linked: our defect.

        `weighed` is what `tree.weighed` says of the tip's tree; without it, it is asked here.
        """
        if head.height != self.next_height or not self.follows(head):
            raise ValueError(f"height {head.height} does not follow the tip")
        before = self._tip
        added, gone = weighed or tree.weighed(StateTree() if before is None else before.tree)
        size, dead = (0, 0) if before is None else (before.size, before.gone)
        version = Version(head, tree, size + added - gone, dead + gone, self.generation)
        self._versions[head.height] = version
        self._tip = version
        self._drop_oldest()
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
        self._drop_evidence()
        self._tip = None
        self.generation += 1

    def quarantine(self, height: int) -> None:
        """From this height on the state is known to dissent; its versions are kept as evidence, `keep` at most."""
        if self.quarantined_from is None or height < self.quarantined_from:
            self.quarantined_from = height
        self._set_apart()
        self._drop_evidence()

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

    def _drop_oldest(self) -> None:
        while len(self._versions) > self.keep:
            del self._versions[next(iter(self._versions))]
        while self.older_bytes > self.keep_bytes:
            del self._versions[next(iter(self._versions))]
            self.dropped_for_bytes += 1

    def _drop_evidence(self) -> None:
        """From the newest down, until heights or bytes are too many. Only versions of one generation surely share."""
        lowest: dict[int, Version] = {}
        kept: dict[int, Version] = {}
        self._evidence_bytes = 0
        heights = sorted(self._evidence, reverse=True)[: self.keep]
        for place, height in enumerate(heights):
            version = self._evidence[height]
            above = lowest.get(version.generation)
            size = version.size if above is None else above.gone - version.gone
            if kept and self._evidence_bytes + size > self.keep_bytes:
                dropped = heights[place:]
                self.dropped_for_bytes += sum(self._versions.get(one) is not self._evidence[one] for one in dropped)
                break
            lowest[version.generation] = kept[height] = version
            self._evidence_bytes += size
        self._evidence = kept
