"""Agreement by height as one SVG picture: who attested what is certified, who differed, who was silent.

May not: need anything beside itself; colours come with a mark, for those who do not see them.
Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

from html import escape
from typing import Final

from .demo_state import DemoState, RoundView

LEFT: Final = 64
TOP: Final = 116
BARS: Final = 72
"""Height of the bars above the grid."""
WIDTH: Final = 920
AGREES, LATE, DIFFERS, SILENT, OPEN = "#2f8f5b", "#9bd0b1", "#c8372d", "#eceae4", "#d9a521"
INK, FAINT = "#1d2733", "#6b7680"
LATE_SECONDS: Final = 0.4
"""An attestation that is first seen so long after the next block was caught up."""


def picture(state: DemoState) -> str:
    """The `<svg>` element."""
    blocks, names = state.blocks, list(state.enclaves)
    cell = max(7.0, min(36.0, (WIDTH - LEFT - 20) / max(1, len(blocks))))
    row = 28.0 if len(names) <= 10 else 20.0
    width = LEFT + cell * len(blocks) + 20
    height = TOP + row * len(names) + 64
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(width, 640):.0f} {height:.0f}" role="img" '
        f'aria-label="Agreement by height" font-family="system-ui, sans-serif" font-size="12">'
    ]
    parts += _bars(state, blocks, cell)
    parts += _grid(state, blocks, names, cell, row)
    parts += _axis(blocks, cell, TOP + row * len(names))
    parts += _marks(state, blocks, cell, TOP + row * len(names))
    parts += _legend(TOP + row * len(names) + 46)
    return "\n".join([*parts, "</svg>"])


def _bars(state: DemoState, blocks: list[RoundView], cell: float) -> list[str]:
    """How many agree at each height, with the line that a certificate takes."""
    count, base = len(state.enclaves), TOP - 12.0
    line = base - BARS * state.plan.quorum / count
    parts = [
        f'<text x="{LEFT - 10}" y="{base - BARS + 4:.1f}" text-anchor="end" fill="{FAINT}">{count}</text>',
        f'<text x="{LEFT - 10}" y="{base:.1f}" text-anchor="end" fill="{FAINT}">0</text>',
        f'<text x="{LEFT - 10}" y="{line + 4:.1f}" text-anchor="end" fill="{INK}">{state.plan.quorum} ≥ ⅔</text>'
        if line > base - BARS + 14
        else "",
    ]
    for at, found in enumerate(blocks):
        tall = BARS * len(found.agreeing()) / count
        colour = AGREES if found.certified_root is not None else OPEN
        parts.append(
            f'<rect x="{LEFT + at * cell + 1:.1f}" y="{base - tall:.1f}" width="{cell - 2:.1f}" height="{tall:.1f}" '
            f'fill="{colour}"><title>height {found.height}: {len(found.agreeing())} of {count} agree</title></rect>'
        )
    end = LEFT + cell * len(blocks)
    parts.append(
        f'<line x1="{LEFT}" x2="{end:.1f}" y1="{line:.1f}" y2="{line:.1f}" stroke="{INK}" stroke-dasharray="4 3"/>'
    )
    return parts


def _grid(state: DemoState, blocks: list[RoundView], names: list[str], cell: float, row: float) -> list[str]:
    parts: list[str] = []
    late = [one.mined + LATE_SECONDS for one in blocks[1:]] + [float("inf")]
    for place, name in enumerate(names):
        y = TOP + place * row
        tampered = name in state.plan.tampered
        weight = ' font-weight="bold"' if tampered else ""
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + row / 2 + 4:.1f}" text-anchor="end" fill="{DIFFERS if tampered else INK}"'
            f"{weight}>{escape(name)}</text>"
        )
        for at, found in enumerate(blocks):
            colour, mark, words = _cell(found, name, late[at])
            x = LEFT + at * cell
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" height="{row - 2:.1f}" rx="2" '
                f'fill="{colour}"><title>{escape(name)}, height {found.height}: {words}</title></rect>'
            )
            if mark and cell >= 12:
                ink = FAINT if colour == SILENT else INK if colour == LATE else "#fff"
                parts.append(
                    f'<text x="{x + cell / 2:.1f}" y="{y + row / 2 + 4:.1f}" text-anchor="middle" fill="{ink}" '
                    f'pointer-events="none">{mark}</text>'
                )
    return parts


def _cell(found: RoundView, name: str, late: float) -> tuple[str, str, str]:
    root = found.roots.get(name)
    if root is None:
        return SILENT, "", "silent: counted, never accused"
    said = f"attests {root.hex()[:16]}…"
    if name in found.differing():
        return DIFFERS, "✗", f"{said}, which differs"
    if found.certified_root is None:
        return OPEN, "?", f"{said}; open"
    if found.heard.get(name, 0.0) > late:
        return LATE, "✓", f"{said}, as certified; heard late"
    return AGREES, "✓", f"{said}, as certified"


def _axis(blocks: list[RoundView], cell: float, bottom: float) -> list[str]:
    step = max(1, round(28 / cell))
    parts = [
        f'<text x="{LEFT + at * cell + cell / 2:.1f}" y="{bottom + 16:.1f}" text-anchor="middle" fill="{FAINT}">'
        f"{found.height}</text>"
        for at, found in enumerate(blocks)
        if at % step == 0
    ]
    return [*parts, f'<text x="{LEFT - 10}" y="{bottom + 16:.1f}" text-anchor="end" fill="{FAINT}">height</text>']


def _marks(state: DemoState, blocks: list[RoundView], cell: float, bottom: float) -> list[str]:
    """Vertical lines where something was done to the network."""
    plan = state.plan
    marks: list[tuple[int, str, str]] = []
    if plan.tampered:
        marks.append((plan.lies_from - 1, "lies begin", DIFFERS))
    if plan.killed is not None:
        marks.append((plan.kill_after, f"{plan.killed} killed", INK))
        marks.append((plan.back_before - 1, "back", INK))
    parts: list[str] = []
    for at, words, colour in marks:
        if at > len(blocks):
            continue
        x = LEFT + at * cell
        anchor = "end" if words.endswith("killed") else "start"
        shift = -4 if anchor == "end" else 4
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{bottom:.1f}" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{x + shift:.1f}" y="12" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
        )
    return parts


def _legend(y: float) -> list[str]:
    parts: list[str] = []
    x = float(LEFT)
    for colour, words in (
        (AGREES, "attests what is certified"),
        (LATE, "the same, caught up later"),
        (DIFFERS, "attests another state"),
        (SILENT, "silent"),
        (OPEN, "round still open"),
    ):
        parts.append(f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.0f}" y="{y:.0f}" fill="{FAINT}">{words}</text>')
        x += 34 + 6.4 * len(words)
    return parts
