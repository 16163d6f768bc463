"""report.html: one demo on one page that needs nothing beside itself.

May not: load anything from anywhere, or say more than was proven. Rule: docs/architecture.md, "The demo".
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape
from typing import Final

from tea.trust.rounds import EvidenceReport

from .demo_harvest import CERTIFICATES, EVIDENCE
from .demo_picture import picture
from .demo_result import DemoResult, disputed
from .demo_state import Event
from .demo_summary import summary_sentences
from .demo_words import contradiction_sentence, key_kind, key_text, listed, value_text

STYLE: Final = """
:root { --ink: #1d2733; --faint: #6b7680; --line: #e1ded6; --good: #2f8f5b; --bad: #c8372d; --paper: #fbfaf7; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 12px; }
p { margin: 8px 0; max-width: 75ch; }
.faint { color: var(--faint); }
.verdict { display: inline-block; margin: 4px 0; padding: 3px 12px; border-radius: 999px; color: #fff; font-weight: 600;
  font-size: 14px; }
.verdict.yes { background: var(--good); } .verdict.no { background: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 24px 0 8px; }
.figures div { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px;
  min-width: 130px; flex: 1; }
.figures b { display: block; font-size: 24px; line-height: 1.2; }
.figures span { color: var(--faint); font-size: 13px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 16px 20px; margin: 12px 0;
  overflow-x: auto; }
.card svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--faint); font-weight: 600; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
pre { background: #1d2733; color: #f3f1ea; border-radius: 8px; padding: 14px 18px; overflow-x: auto;
  overflow-wrap: normal; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; margin-top: 10px; }
.two > div { border-radius: 8px; padding: 10px 14px; border: 1px solid var(--line); }
.two .true { border-left: 5px solid var(--good); } .two .false { border-left: 5px solid var(--bad); }
.two b { display: block; font-size: 13px; color: var(--faint); font-weight: 600; }
tr.fault td:last-child { color: var(--bad); } tr.finding td:last-child { font-weight: 600; }
tr.good td:last-child { color: var(--good); } tr.block td, tr.step td { color: var(--faint); }
@media (max-width: 640px) { .two { grid-template-columns: 1fr; } }
"""


def report(result: DemoResult) -> str:
    """The page."""
    state, plan = result.state, result.state.plan
    verdict = ("yes", "as it should be") if result.ok else ("no", "not as it should be")
    body = [
        "<h1>Who was lied to?</h1>",
        f'<p class="faint">{plan.enclaves} attested enclaves, {plan.blocks} blocks of '
        f"{'an embedded EVM chain' if result.chain == 'embedded' else escape(result.chain)}, seed {plan.seed}, "
        f'{result.seconds:.0f} seconds. <span class="verdict {verdict[0]}">{verdict[1]}</span></p>',
        *(f"<p>{escape(problem)}</p>" for problem in result.problems),
        _figures(result),
        "<h2>In words</h2>",
        *(f"<p>{escape(line)}</p>" for line in summary_sentences(result, evidence=False)),
        "<h2>Agreement by height</h2>",
        '<p class="faint">Each column is a block. Above: how many members attest the same state; the dashed line is '
        "what a certificate takes. Below: what each member attested.</p>",
        f'<div class="card">{picture(state)}</div>',
        "<h2>The evidence</h2>",
        *_evidence(result),
        "<h2>Timeline</h2>",
        _timeline(result),
        "<h2>Check it yourself, offline</h2>",
        _checking(result),
        "<h2>The members</h2>",
        _members(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>tea-runtime demo, seed {plan.seed}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _figures(result: DemoResult) -> str:
    state, harvest = result.state, result.harvest
    named = harvest.named or ["nobody"]
    waits = [one.certified_at - one.mined for one in state.blocks if one.certified_at is not None]
    figures = [
        (f"{len(harvest.certificates)} / {state.plan.blocks}", "rounds certified"),
        (str(len(disputed(state, harvest))), "rounds disputed"),
        (", ".join(named) if len(named) <= 2 else str(len(named)), "named with evidence"),
        (f"{state.attestations:,}", "attestations verified"),
        (f"{state.calls:,}", f"calls, {state.calls - state.calls_answered} unanswered"),
        (f"{statistics.median(waits):.1f} s" if waits else "-", "from block to certificate"),
    ]
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in figures)
    return f'<div class="figures">{cells}</div>'


def _evidence(result: DemoResult) -> list[str]:
    harvest, parts = result.harvest, []
    for accused in harvest.named:
        best = harvest.best(accused)
        if best is not None:
            parts.append(_one_evidence(result, *best))
    return parts or ["<p>Nobody contradicted anybody: there is no evidence, because there is nothing to show.</p>"]


def _one_evidence(result: DemoResult, name: str, best: EvidenceReport) -> str:
    number = sum(report.accused == best.accused for report in result.harvest.evidence.values())
    text = (
        f"<p><b>{escape(best.accused)}</b> ({escape(best.module_id)})</p><p>{escape(contradiction_sentence(best))}</p>"
    )
    if best.difference is not None:
        found = best.difference
        text += (
            f"<p>The two states differ in {escape(key_kind(found.key, result.token))}:<br>"
            f"<code>{escape(key_text(found.key))}</code></p>"
            f'<div class="two"><div class="true"><b>in the certified state</b>'
            f"{_value(found.key, found.certified)}</div>"
            f'<div class="false"><b>in the state of {escape(best.accused)}</b>{_value(found.key, found.accused)}</div>'
            "</div>"
            '<p class="faint">Both values are proven: each by a path through the state tree to the root that was '
            "attested.</p>"
        )
    more = f" and {number - 1} more" if number > 1 else ""
    return f'<div class="card">{text}<p class="faint"><code>{EVIDENCE}/{escape(name)}</code>{more}</p></div>'


def _value(key: bytes, value: bytes | None) -> str:
    raw = "" if value is None else f'<br><code class="faint">0x{value.hex()}</code>'
    return f"{escape(value_text(key, value))}{raw}"


def _timeline(result: DemoResult) -> str:
    rows = "".join(
        f'<tr class="{kind}"><td class="number">{at:.1f} s</td><td class="number">{heights}</td>'
        f"<td>{escape(text)}</td></tr>"
        for at, kind, heights, text in _grouped(result.state.events)
    )
    head = '<tr><th class="number">time</th><th class="number">height</th><th>what happened</th></tr>'
    return f'<div class="card"><table>{head}{rows}</table></div>'


def _grouped(events: Sequence[Event]) -> list[tuple[float, str, str, str]]:
    """Blocks that were certified alike, one after the other, take one line."""
    rows: list[tuple[float, str, str, str]] = []
    first = last = 0
    for event in events:
        words = event.text.partition(" is ")[2]
        if event.kind == "block" and event.height is not None:
            if rows and rows[-1][1] == "block" and rows[-1][3].endswith(f" {words}") and event.height == last + 1:
                last = event.height
                rows[-1] = (rows[-1][0], "block", f"{first} to {last}", f"each is {words}")
            else:
                first = last = event.height
                rows.append((event.at, "block", str(first), f"is {words}"))
        else:
            rows.append((event.at, event.kind, "" if event.height is None else str(event.height), event.text))
    return rows


def _checking(result: DemoResult) -> str:
    out = escape(str(result.state.plan.out))
    return (
        "<p>The certificates and the evidence are files. Each is checked against a policy of the reader's own: roots, "
        "image and members come from there and never from the file, and each document is judged at the time that it "
        "carries. Nothing needs to run for it.</p>"
        f"<pre>cd {out}\nteactl ra verify {CERTIFICATES}/*.cbor --policy policy.yaml\n"
        f"teactl ra verify {EVIDENCE}/*.cbor --policy policy.yaml</pre>"
        f'<p class="faint">This policy is of a simulated network, whose root was made for this run; a real one names '
        f"AWS's root and the image's PCRs. Manifest: <code>{escape(result.manifest_digest)}</code></p>"
    )


def _members(result: DemoResult) -> str:
    state, plan = result.state, result.state.plan
    rows = []
    for name, view in state.enclaves.items():
        parent = f"lied from height {state.height_of(plan.lies_from)}" if name in plan.tampered else "honest"
        attested = sum(name in one.roots for one in state.blocks)
        rows.append(
            f"<tr><td><b>{escape(name)}</b></td><td><code>{escape(view.module_id)}</code></td><td>{parent}</td>"
            f'<td class="number">{view.boots}</td><td class="number">{attested}</td>'
            f'<td class="number">{view.attestations:,}</td><td class="number">{view.calls:,}</td>'
            f'<td class="number">{view.errors:,}</td></tr>'
        )
    head = (
        '<tr><th>slot</th><th>enclave</th><th>parent</th><th class="number">boots</th>'
        '<th class="number">blocks attested</th><th class="number">verified</th>'
        '<th class="number">calls</th><th class="number">with error</th></tr>'
    )
    killed = f'<p class="faint">{escape(plan.killed)} was killed once.</p>' if plan.killed is not None else ""
    tampered = f'<p class="faint">Tampered with: {escape(listed(plan.tampered))}.</p>' if plan.tampered else ""
    return f'<div class="card"><table>{head}{"".join(rows)}</table>{tampered}{killed}</div>'
