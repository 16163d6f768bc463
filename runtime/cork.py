"""Writes to workers, joined while the frames of one read are handled.

May not: keep anything back beyond that. Rule: docs/architecture.md, "What goes out together".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker_port import WorkerPort


class Cork:
    """Of one router: whether writes are kept back now, and whose."""

    __slots__ = ("on", "ports")

    def __init__(self) -> None:
        self.on = False
        self.ports: list[WorkerPort] = []
        """Workers for whom something is kept back."""

    def pull(self) -> None:
        """Write what was kept back, in one piece a worker."""
        self.on = False
        ports, self.ports = self.ports, []
        for port in ports:
            port.write_corked()
