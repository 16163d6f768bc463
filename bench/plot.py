"""`python -m bench.plot FIGURES.json PLOT.svg`: what `bench.actors --json` found, beside its peers, as one picture.

May not: measure, or mix figures of different runs: it draws one file. Rule: docs/performance.md, "Actors".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pygal
from pygal.style import CleanStyle

LATENCY: Final = {
    "C, direct": "c_direct_p50_us",
    "C, through a relay": "c_relay_p50_us",
    "tea: actor to actor": "routed_p50_us",
    "tea: actor to provider": "provider_p50_us",
    "Pykka (threads)": "pykka_p50_us",
    "Thespian UDP": "thespian_udp_p50_us",
    "pyzmq, routed": "pyzmq_routed_p50_us",
    "xoscar": "xoscar_p50_us",
    "Thespian TCP": "thespian_tcp_p50_us",
}
"""Label -> figure; a peer that was not measured is left out."""


def plot(figures: Mapping[str, float | None]) -> str:
    """An SVG: the median round trip of each, in microseconds, shortest first."""
    known = {label: value for label, name in LATENCY.items() if (value := figures.get(name)) is not None}
    chart = pygal.HorizontalBar(
        style=CleanStyle,
        show_legend=False,
        print_values=True,
        height=360,
        width=760,
        js=(),
        disable_xml_declaration=True,
    )
    chart.title = "Echo of 64 bytes, median round trip in microseconds"
    chart.value_formatter = lambda value: f"{value:.0f}"
    chart.x_labels = sorted(known, key=lambda label: -known[label])
    chart.add("us", [{"value": known[label], "color": _color(label)} for label in chart.x_labels])
    return str(chart.render(is_unicode=True))


def _color(label: str) -> str:
    return "#1f6f8b" if label.startswith("tea") else "#b8b8b8"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, help="what `python -m bench.actors --json` printed")
    parser.add_argument("picture", type=Path, help="the SVG to write")
    arguments = parser.parse_args()
    arguments.picture.write_text(plot(json.loads(arguments.figures.read_text())))


if __name__ == "__main__":
    main()
