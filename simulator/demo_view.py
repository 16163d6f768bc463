"""The demo as it happens: a live table in a terminal, plain lines elsewhere.

May not: change what it shows. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .demo_plan import slot_order
from .demo_state import DemoState, EnclaveView, Event, RoundView
from .demo_watch import calls_a_second

STYLES: Final = {"step": "dim", "block": "dim", "fault": "red", "finding": "yellow", "good": "green"}
EVENTS_SHOWN: Final = 7
STRIP: Final = 40
"""Heights in the strip of agreement, at most."""
REFRESHES: Final = 4
"""A second."""


class DemoView:
    """Shows one demo's state."""

    def __init__(self, state: DemoState, console: Console) -> None:
        self._state = state
        self._console = console

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it for as long as the block lasts."""
        if not self._console.is_terminal:
            self._state.on_event = self._line
            yield
            return
        with Live(
            get_renderable=self.render, console=self._console, refresh_per_second=REFRESHES, vertical_overflow="visible"
        ):
            yield

    def _line(self, event: Event) -> None:
        self._console.print(f"{event.at:6.1f} s  {event.text}", markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """What a terminal shows now."""
        return Group(self._title(), Text(), self._table(), Text(), *self._strip(), Text(), *self._events())

    def _title(self) -> Text:
        state, plan = self._state, self._state.plan
        blocks = state.blocks
        certified = sum(one.certified_root is not None for one in blocks)
        disputed = sum(one.disputed for one in blocks)
        rate = sum(calls_a_second(view) for view in state.enclaves.values())
        return Text.assemble(
            (f"tea demo  {state.now:5.1f} s  ", "bold"),
            f"block {len(blocks)} of {plan.blocks}   certified {certified}   disputed {disputed}   "
            f"attestations verified {state.attestations:,}   calls/s {rate:.0f}   seed {plan.seed}",
        )

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in ("enclave", "phase", "parent", "height", "state", "agrees with", "verified", "calls/s"):
            table.add_column(column, justify="right" if column in ("height", "verified", "calls/s") else "left")
        for view in self._state.enclaves.values():
            table.add_row(*self._row(view))
        return table

    def _row(self, view: EnclaveView) -> list[RenderableType]:
        state, name = self._state, view.name
        newest = self._newest(name) if view.alive else None
        root, differs, friends = "-", False, "-"
        if newest is not None:
            own = newest.roots[name]
            root = own.hex()[:12]
            differs = name in newest.differing()
            others = [other for other, root_ in newest.roots.items() if other != name and root_ == own]
            friends = " ".join(sorted(others, key=slot_order)) or "nobody"
        lies = name in state.plan.tampered and len(state.blocks) >= state.plan.lies_from
        phase = "quarantined" if view.quarantined and view.alive else view.phase
        healthy = view.phase == "ready" and not view.quarantined
        return [
            Text(name, style="bold"),
            Text(phase, style="green" if healthy else "red" if phase in ("killed", "quarantined") else "yellow"),
            Text("lies", style="red") if lies else Text("honest", style="dim"),
            str(newest.height) if newest is not None else "-",
            Text(root, style="red" if differs else ""),
            Text(friends, style="red" if differs else "green"),
            f"{view.attestations:,}",
            f"{calls_a_second(view):.0f}",
        ]

    def _newest(self, name: str) -> RoundView | None:
        """The newest round in which this slot attested and most others did, so that agreement means something."""
        enough = min(self._state.plan.quorum, len(self._state.enclaves))
        rounds = [one for one in self._state.rounds.values() if name in one.roots and len(one.roots) >= enough]
        return max(rounds, key=lambda one: one.height, default=None)

    def _strip(self) -> list[Text]:
        """A line for each slot: what it said of the newest heights."""
        blocks = self._state.blocks[-STRIP:]
        if not blocks:
            return [Text("no blocks yet", style="dim")]
        lines = []
        for name in self._state.enclaves:
            line = Text(f"{name:>4} ")
            for found in blocks:
                if name not in found.roots:
                    line.append("· ", style="dim")
                elif name in found.differing():
                    line.append("✗ ", style="bold red")
                else:
                    line.append("✓ " if found.certified_root is not None else "? ", style="green")
            lines.append(line)
        heights = Text(f"     heights {blocks[0].height} to {blocks[-1].height}: ", style="dim")
        heights.append("✓ attests what is certified  ✗ differs  ? open  · not heard", style="dim")
        return [*lines, heights]

    def _events(self) -> list[Text]:
        shown = [event for event in self._state.events if event.kind != "block"][-EVENTS_SHOWN:]
        return [Text(f"{event.at:6.1f} s  {event.text}", style=STYLES.get(event.kind, "")) for event in shown]
