"""Runs an actor in a plain pytest: a real Thespian system, real providers in memory, time that the test moves.

May not: be imported by actors that run; import providers (they are found by entry point) or the host.
Rule: docs/architecture.md, "Processes"; the README's tutorial shows it in use.

    from tea.sdk.testing import run_actor

    def test_it_counts() -> None:
        with run_actor(Counter, links={"kvp": ["get", "incr"]}) as harness:
            assert harness.call("increment", by=2) == 2
"""

from .harness import EPOCH, CallerView, Harness, run_actor
from .services import MemoryParent, Told

__all__ = ["EPOCH", "CallerView", "Harness", "MemoryParent", "Told", "run_actor"]
