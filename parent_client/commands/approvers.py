"""`teactl approvers`: who approves now, and changes of that set, approved by the old quorum; each raises the epoch.

May not: sign what it has not shown. Rule: docs/architecture.md, "Approvers".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.trust.approval import (
    MAX_ENVELOPE,
    Approvers,
    add_change_approval,
    change_payload,
    propose_change,
)
from tea.trust.cose import unverified_payload
from tea.trust.keys import Signer

from ..approving import Changes, Key, Password, current_approvers, read_approvers
from ..console import Json, Refusal, emit, say
from ..console import console as terminal
from ..files import read_bytes, write_whole
from ..signers import open_signer

app = typer.Typer(help="Who approves manifests, and how that changes.", no_args_is_help=True)
change = typer.Typer(help="Change the approvers: the old quorum approves, the epoch rises.", no_args_is_help=True)
app.add_typer(change, name="change")

Initial = Annotated[Path, typer.Argument(help="The approvers' file of the image.")]
Out = Annotated[Path, typer.Option(help="The change to write; push it with --change.")]


def register(root: typer.Typer) -> None:
    """Add `approvers` to teactl."""
    root.add_typer(app, name="approvers")


@app.command()
def show(initial: Initial, changes: Changes = None, as_json: Json = False) -> None:
    """Show who approves after a chain of changes, each verified."""
    current = current_approvers(initial, changes)
    emit(
        {"ok": True, **current.plain(), "digest": f"sha384:{current.digest.hex()}"},
        as_json,
        lambda console: _say(console, current),
    )


@change.command()
def propose(
    initial: Initial,
    new: Annotated[Path, typer.Option(help="The new approvers' file; its epoch is the current one plus 1.")],
    key: Key,
    out: Out,
    changes: Changes = None,
    password_file: Password = None,
    as_json: Json = False,
) -> None:
    """Propose new approvers, with a first approval."""
    current = current_approvers(initial, changes)
    proposed = read_approvers(new)
    _sign(current, proposed, open_signer(key, password_file), None, out, as_json)


@change.command()
def approve(
    initial: Initial,
    path: Annotated[Path, typer.Argument(help="The change that was proposed.")],
    new: Annotated[Path, typer.Option(help="The new approvers' file that it must hold.")],
    key: Key,
    out: Out,
    changes: Changes = None,
    password_file: Password = None,
    as_json: Json = False,
) -> None:
    """Add an approval to a change, after checking that it is the one to these approvers."""
    current = current_approvers(initial, changes)
    proposed = read_approvers(new)
    data = read_bytes(path, "change of approvers", MAX_ENVELOPE)
    _sign(current, proposed, open_signer(key, password_file), data, out, as_json)


def _sign(
    current: Approvers, proposed: Approvers, signer: Signer, present: bytes | None, out: Path, as_json: bool
) -> None:
    lines = _difference(current, proposed)
    if present is not None and unverified_payload(present, limit=MAX_ENVELOPE) != change_payload(current, proposed):
        raise Refusal("the change holds other approvers than the file, or follows another set: nothing was signed")
    if not as_json:  # shown before it is signed
        say(terminal(), "\n".join(lines))
    made = propose_change(current, proposed, signer) if present is None else add_change_approval(present, signer)
    write_whole(out, made)

    def text(console: Console) -> None:
        say(console, f"approved by {signer.public.text}: {out}")

    result = {"ok": True, "path": str(out), "approver": signer.public.text, "epoch": proposed.epoch}
    emit({**result, "changes": lines}, as_json, text)


def _difference(current: Approvers, new: Approvers) -> list[str]:
    lines = [f"epoch: {current.epoch} -> {new.epoch}"]
    if current.threshold != new.threshold:
        lines.append(f"threshold: {current.threshold} -> {new.threshold}")
    before, after = {key.text for key in current.keys}, {key.text for key in new.keys}
    return [
        *lines,
        *(f"- {text}" for text in sorted(before - after)),
        *(f"+ {text}" for text in sorted(after - before)),
    ]


def _say(console: Console, current: Approvers) -> None:
    say(console, f"{current.deployment}, epoch {current.epoch}: {current.threshold} of {len(current.keys)}")
    for key in current.keys:
        say(console, f"  {key.text}")
