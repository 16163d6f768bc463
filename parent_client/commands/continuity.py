"""`teactl takeover`: have a new enclave take keys and state over from the one that holds its slot.

May not: carry state, or decide who may have it: the two enclaves attest each other. Rule: docs/continuity.md.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tea.protocol.channels import Takeover

from ..console import Json, Refusal, emit, say
from ..operating import DEFAULT_NETWORK, Enclave, Network, ask
from ..operator import TAKEOVER_SECONDS


def register(root: typer.Typer) -> None:
    """Add `takeover` to teactl."""
    root.command()(takeover)


def takeover(
    source: Annotated[str, typer.Option("--from", help="The enclave that holds the slot now: a peer's name.")],
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Have an enclave that was pushed with --standby take its slot over from the running holder, which then retires."""
    taken: Takeover = ask(
        network, enclave, lambda client: client.ask("take_over", source, timeout=TAKEOVER_SECONDS + 5)
    )
    if not taken.holder:
        raise Refusal(
            f"{source} went on by itself as the holder of slot {taken.slot}, and this enclave is a standby: take over "
            "again",
            slot=taken.slot,
            term=taken.term,
        )
    emit(
        {"ok": True, "slot": taken.slot, "term": taken.term},
        as_json,
        lambda console: say(console, f"slot {taken.slot} is held here from term {taken.term}; {source} has retired"),
    )
