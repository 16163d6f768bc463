"""`teactl takeover` and `tenancy`: have a new enclave take a slot over, and ask who holds one.

May not: carry state, or decide who may have it: the two enclaves attest each other. Rule: docs/continuity.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tea.protocol.channels import Attestation, Takeover
from tea.trust.policy import parse_rule

from ..attesting import STATEMENT_SUFFIX, Document, Nonce, find_tenancy, nonce_of
from ..console import Json, Refusal, emit, say
from ..files import read_text, write_whole
from ..operating import DEFAULT_NETWORK, Enclave, Network, ask
from ..operator import TAKEOVER_SECONDS


def register(root: typer.Typer) -> None:
    """Add the two commands to teactl."""
    root.command()(takeover)
    root.command()(tenancy)


def takeover(
    source: Annotated[str, typer.Option("--from", help="The enclave that holds the slot now: a peer's name.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Take a copy of its state; it serves on, and this enclave is a standby.")
    ] = False,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Have an enclave that was pushed with --standby take its slot over from the running holder, which then retires."""
    taken: Takeover = ask(
        network, enclave, lambda client: client.ask("take_over", source, copy, timeout=TAKEOVER_SECONDS + 5)
    )
    if not taken.holder and not copy:
        raise Refusal(
            f"{source} went on by itself as the holder of slot {taken.slot}, and this enclave is a standby: take over "
            "again",
            slot=taken.slot,
            term=taken.term,
        )
    if copy:
        line = f"this is a standby of slot {taken.slot}, with a copy of {source}'s state; {source} serves on"
    else:
        line = f"slot {taken.slot} is held here from term {taken.term}; {source} has retired"
    result = {"ok": True, "slot": taken.slot, "term": taken.term, **({"copy": True} if copy else {})}
    emit(result, as_json, lambda console: say(console, line))


def tenancy(
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The policy (YAML) that the enclave must meet: verify now.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Fetch only, for whoever gave --nonce: the document; statement beside.")
    ] = None,
    document: Document = None,
    nonce: Nonce = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Ask an enclave what it is to its slot, verified against a policy; or fetch that evidence for somebody else."""
    if (policy is None) == (out is None):
        raise typer.BadParameter("give one of the two: --policy to verify, or --out to fetch", param_hint="--policy")
    if out is not None:
        _fetch(out, document, nonce, network, enclave, as_json)
        return
    assert policy is not None
    found = find_tenancy(
        parse_rule(read_text(policy, "policy"), str(policy)), network, enclave, document=document, nonce=nonce
    )
    held = found.tenancy
    result = {
        "ok": True,
        **held._asdict(),
        "role": str(held.role),
        "manifest": f"sha384:{found.manifest.hex()}",
        "enclave": found.module_id,
    }
    emit(
        result,
        as_json,
        lambda console: say(
            console, f"{found.module_id} is {held.role} for {held.deployment}/{held.slot}, term {held.term}"
        ),
    )


def _fetch(
    out: Path, document: Path | None, nonce: str | None, network: str, enclave: str | None, as_json: bool
) -> None:
    statement = out.with_suffix(STATEMENT_SUFFIX)
    if document is not None or statement == out:
        raise typer.BadParameter(f"--out takes a file that does not end in {STATEMENT_SUFFIX}, and no --document")
    asked = nonce_of(nonce)
    evidence: Attestation = ask(network, enclave, lambda client: client.ask("tenancy", asked))
    write_whole(out, evidence.document)
    write_whole(statement, evidence.statement)
    emit(
        {"ok": True, "document": str(out), "statement": str(statement), "nonce": asked},
        as_json,
        lambda console: say(console, f"{out} and {statement.name}, over the nonce {asked.hex()}: nothing is verified"),
    )
