"""`teactl ticket`: the approvers' word on who holds a slot, where its holder cannot say so any more.

May not: sign for an enclave whose attestation was not verified in the same breath. Rule: docs/continuity.md, "Tickets".
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, Final

import typer

from tea.protocol.channels import Takeover
from tea.trust.backup import MAX_BACKUP, Backup, parse_backup
from tea.trust.continuity import (
    MAX_TICKET,
    ContinuityCode,
    ContinuityError,
    Role,
    Ticket,
    add_signature,
    sign_ticket,
    unverified_ticket,
    verify_ticket,
)
from tea.trust.policy import parse_rule

from ..approving import Changes, Key, Password, current_approvers
from ..attesting import Document, Found, Nonce, PolicyFile, find_tenancy
from ..console import Json, Refusal, emit, say
from ..console import console as terminal
from ..files import read_bytes, read_text, write_whole
from ..operating import DEFAULT_NETWORK, Enclave, Network, ask
from ..operator import TICKET_SECONDS
from ..signers import open_signer

app = typer.Typer(help="Say by quorum who holds a slot.", no_args_is_help=True)

TicketFile = Annotated[Path, typer.Argument(help="A ticket.")]
BackupFile = Annotated[Path | None, typer.Option("--backup", help="The backup that the enclave is to restore.")]
ApproversFile = Annotated[Path, typer.Option("--approvers", help="The approvers' file of the image.")]
_WITHOUT: Final = frozenset({Role.STANDBY, Role.PREPARED, Role.RETIRED})


def register(root: typer.Typer) -> None:
    """Add `ticket` to teactl."""
    root.add_typer(app, name="ticket")


def read_ticket(path: Path) -> bytes:
    """A ticket's file."""
    return read_bytes(path, "ticket", MAX_TICKET)


def read_backup(path: Path) -> tuple[Backup, bytes]:
    """A backup's file, parsed and raw. Raises `ContinuityError`."""
    data = read_bytes(path, "backup", MAX_BACKUP)
    return parse_backup(data), data


@app.command()
def new(
    term: Annotated[int, typer.Option("--term", min=1, help="The term: above every one that the slot has seen.")],
    policy: PolicyFile,
    key: Key,
    out: Annotated[Path, typer.Option(help="The ticket to write.")],
    backup: BackupFile = None,
    document: Document = None,
    nonce: Nonce = None,
    password_file: Password = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Verify an enclave, and sign that it holds its slot from a term on; further approvers add theirs to the ticket."""
    found = _found(policy, network, enclave, document, nonce)
    _sign(_ticket(found, term, backup), found, None, key, password_file, out, as_json)


@app.command()
def approve(
    path: TicketFile,
    policy: PolicyFile,
    key: Key,
    out: Annotated[Path, typer.Option(help="The ticket to write.")],
    backup: BackupFile = None,
    document: Document = None,
    nonce: Nonce = None,
    password_file: Password = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Add a signature to a ticket, after verifying that very enclave, and the backup where it names one."""
    data = read_ticket(path)
    said = unverified_ticket(data)
    found = _found(policy, network, enclave, document, nonce)
    if said != (expected := _ticket(found, said.term, backup)):
        raise Refusal(
            f"the ticket says: {_describe(said)}; what you verified: {_describe(expected)}: nothing was signed"
        )
    _sign(said, found, data, key, password_file, out, as_json)


@app.command()
def show(path: TicketFile, approvers: ApproversFile, change: Changes = None, as_json: Json = False) -> None:
    """Check that a quorum of the approvers signed a ticket, and show what it says."""
    ticket = verify_ticket(read_ticket(path), current_approvers(approvers, change))
    emit({"ok": True, **_plain(ticket)}, as_json, lambda console: say(console, f"approved: {_describe(ticket)}"))


@app.command()
def present(
    path: TicketFile, network: Network = DEFAULT_NETWORK, enclave: Enclave = None, as_json: Json = False
) -> None:
    """Show a ticket to an enclave: the one that it names holds the slot from now on, and any other holder retires."""
    data = read_ticket(path)
    taken: Takeover = ask(network, enclave, lambda client: client.ask("present", data, timeout=TICKET_SECONDS + 5))
    line = (
        f"slot {taken.slot} is held here from term {taken.term}" if taken.holder else f"retired from slot {taken.slot}"
    )
    emit(
        {"ok": True, "slot": taken.slot, "term": taken.term, "holder": taken.holder},
        as_json,
        lambda console: say(console, line),
    )


def _found(policy: Path, network: str, enclave: str | None, document: Path | None, nonce: str | None) -> Found:
    return find_tenancy(parse_rule(read_text(policy, "policy"), str(policy)), network, enclave, document, nonce)


def _ticket(found: Found, term: int, backup: Path | None) -> Ticket:
    """The ticket for a verified enclave. Raises `ContinuityError` where it would not do what it is for."""
    held = found.tenancy
    if backup is None:
        digest = None
        if held.role not in _WITHOUT:
            why = "it has nothing of the slot: restore a --backup" if held.role is Role.EMPTY else "no ticket is needed"
            raise ContinuityError(
                ContinuityCode.STATE,
                f"{found.module_id} is {held.role} for slot {held.slot}: {why}; nothing was signed",
            )
    else:
        what, data = read_backup(backup)
        digest = hashlib.sha384(data).digest()
        require_target(found, what)
        if term <= what.term:
            raise ContinuityError(
                ContinuityCode.TERM, f"the backup is of term {what.term}, expected a --term above it, not {term}"
            )
    if term <= held.term:
        raise ContinuityError(
            ContinuityCode.TERM,
            f"{found.module_id} has seen term {held.term} already, expected a --term above it, not {term}",
        )
    return Ticket(held.deployment, held.slot, term, held.holder, digest)


def require_target(found: Found, backup: Backup) -> None:
    """Raise `ContinuityError` unless a backup can be restored into this verified enclave."""
    held = found.tenancy
    if (held.deployment, held.slot) != (backup.deployment, backup.slot):
        raise ContinuityError(
            ContinuityCode.SLOT,
            f"the backup is of {backup.deployment}/{backup.slot}, and the enclave fills {held.deployment}/{held.slot}",
        )
    if held.role is not Role.EMPTY:
        raise ContinuityError(
            ContinuityCode.STATE,
            f"{found.module_id} is {held.role} for slot {held.slot} already: a backup is restored into a new enclave, "
            "pushed with --standby",
        )


def _sign(
    ticket: Ticket, found: Found, present: bytes | None, key: str, password_file: Path | None, out: Path, as_json: bool
) -> None:
    signer = open_signer(key, password_file)
    if not as_json:  # shown before it is signed
        say(terminal(), f"{_describe(ticket)}; it is {found.module_id}, {found.tenancy.role} now")
    write_whole(out, sign_ticket(ticket, signer) if present is None else add_signature(present, signer))
    emit(
        {"ok": True, "path": str(out), "approver": signer.public.text, "enclave": found.module_id, **_plain(ticket)},
        as_json,
        lambda console: say(console, f"signed by {signer.public.text}: {out}"),
    )


def _plain(ticket: Ticket) -> dict[str, object]:
    return {
        "deployment": ticket.deployment,
        "slot": ticket.slot,
        "term": ticket.term,
        "holder": ticket.holder,
        "backup": None if ticket.backup is None else f"sha384:{ticket.backup.hex()}",
    }


def _describe(ticket: Ticket) -> str:
    what = "" if ticket.backup is None else f", restored from the backup sha384:{ticket.backup.hex()[:16]}..."
    return (
        f"{ticket.deployment}/{ticket.slot} is held from term {ticket.term} by the enclave of key "
        f"{ticket.holder.hex()[:16]}...{what}"
    )


def require_backup_of(ticket: Ticket, data: bytes) -> None:
    """Raise `ContinuityError` unless the ticket names this very file."""
    if ticket.backup is None or not hmac.compare_digest(ticket.backup, hashlib.sha384(data).digest()):
        raise ContinuityError(ContinuityCode.APPROVAL, "the ticket names another backup than this file, or none")
