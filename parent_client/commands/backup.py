"""`teactl backup`: keepers' keys, backups of a slot, shares passed to an attested enclave, and the restore.

May not: see a state or a share in the clear but the keeper's own, or pass that to an enclave that was not verified.
Rule: docs/continuity.md, "Backups".
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from tea.protocol.channels import Attestation, BackupMade, Takeover
from tea.trust.backup import Backup, parse_backup, pass_share, require_shares, verify_origin
from tea.trust.continuity import ContinuityCode, ContinuityError, verify_ticket
from tea.trust.handover_messages import PIECE_BYTES
from tea.trust.policy import Accepts, parse_rule
from tea.trust.recovery import recovery_key_text

from ..approving import Changes, current_approvers
from ..attesting import MAX_FILE, STATEMENT_SUFFIX, Document, Nonce, PolicyFile, find_tenancy
from ..console import Json, Refusal, emit, say
from ..files import read_bytes, read_text, write_whole
from ..keys import key_folder, read_password, require_key_name
from ..operating import DEFAULT_NETWORK, Enclave, Network, OperatorClient, ask
from ..operator import BACKUP_SECONDS
from ..recovery_keys import read_recovery_key, write_recovery_key
from .ticket import ApproversFile, read_backup, read_ticket, require_backup_of, require_target

app = typer.Typer(help="Back a slot up to k of n keepers, and restore it.", no_args_is_help=True)

DOCUMENT_SUFFIX: Final = ".document"
MAX_SHARE: Final = 1024

BackupFile = Annotated[Path, typer.Argument(help="A backup; its .document and .statement lie beside it.")]


def register(root: typer.Typer) -> None:
    """Add `backup` to teactl."""
    root.add_typer(app, name="backup")


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Name of the key; its file is NAME.recovery.pem.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: keys below .tea.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Encrypt the private key with the first line of this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a keeper's recovery key; its public half goes into the manifest, under `backup`."""
    require_key_name(name)
    text, path = write_recovery_key(name, out or key_folder(), read_password(password_file))
    emit(
        {"ok": True, "name": name, "public_key": text, "private": str(path)},
        as_json,
        lambda console: say(console, f"{text}\nprivate half: {path} (keep it)"),
    )


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="The backup to write; its evidence goes beside it.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="A policy (YAML): check at once that the keepers will accept it.")
    ] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Have the holder of a slot seal its keys and state to the keepers of its manifest. Calls wait for that moment."""
    if out.suffix in (DOCUMENT_SUFFIX, STATEMENT_SUFFIX):
        raise typer.BadParameter(f"found the ending {out.suffix}, which its evidence gets", param_hint="--out")
    rules = None if policy is None else _policy(policy)

    async def fetch(client: OperatorClient) -> tuple[BackupMade, bytes]:
        made: BackupMade = await client.ask("backup", timeout=BACKUP_SECONDS + 5)
        data = bytearray()
        for index in range(-(-made.size // PIECE_BYTES)):
            data += await client.ask("backup_piece", made.digest, index)
        return made, bytes(data)

    made, data = ask(network, enclave, fetch)
    if not hmac.compare_digest(hashlib.sha384(data).digest(), made.digest):
        raise Refusal("what came is not the backup that the enclave made: it was changed on the way")
    if rules is not None:
        verify_origin(parse_backup(data), made.attestation.document, made.attestation.statement, rules)
    write_whole(out, data, 0o600)
    write_whole(out.with_suffix(DOCUMENT_SUFFIX), made.attestation.document)
    write_whole(out.with_suffix(STATEMENT_SUFFIX), made.attestation.statement)
    result = {
        "ok": True,
        "path": str(out),
        "slot": made.slot,
        "term": made.term,
        "threshold": made.threshold,
        "keepers": list(made.keepers),
        "bytes": made.size,
        "digest": f"sha384:{made.digest.hex()}",
    }
    line = f"{out}: slot {made.slot}, term {made.term}; {made.threshold} of {', '.join(made.keepers)} restore it"
    emit(result, as_json, lambda console: say(console, line))


@app.command()
def show(
    path: BackupFile,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="A policy (YAML) that the enclave which made it must meet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a backup says of itself; with --policy, check that an enclave which that accepts made it."""
    backup, data = read_backup(path)
    if policy is not None:
        evidence = _origin(path)
        verify_origin(backup, evidence.document, evidence.statement, _policy(policy))
    result = {
        "ok": True,
        "verified": policy is not None,
        "deployment": backup.deployment,
        "slot": backup.slot,
        "term": backup.term,
        "manifest": f"sha384:{backup.manifest.hex()}",
        "made": _time(backup),
        "threshold": backup.threshold,
        "keepers": [recovery_key_text(one) for one, _ in backup.shares],
        "digest": f"sha384:{hashlib.sha384(data).hexdigest()}",
    }

    def text(console: Console) -> None:
        say(console, "made by an enclave that the policy accepts" if policy is not None else "NOT verified")
        for name in ("deployment", "slot", "term", "made", "manifest", "digest"):
            say(console, f"{name:<11} {result[name]}")
        say(console, f"{'restored by':<11} {backup.threshold} of {len(backup.shares)} keepers")

    emit(result, as_json, text)


@app.command("pass")
def pass_(
    path: BackupFile,
    ticket: Annotated[Path, typer.Option(help="The approved ticket that names the backup and the enclave.")],
    approvers: ApproversFile,
    policy: PolicyFile,
    key: Annotated[str, typer.Option("--key", help="Your recovery key: a name or a path.")],
    out: Annotated[Path, typer.Option(help="The share to write, sealed to that enclave alone.")],
    origin_policy: Annotated[
        Path | None, typer.Option(help="The policy (YAML) that the enclave which made it must meet; default: --policy.")
    ] = None,
    max_age: Annotated[int | None, typer.Option(min=1, help="Refuse a backup that is older, in seconds.")] = None,
    least_term: Annotated[int, typer.Option(min=1, help="Refuse a backup of an older term.")] = 1,
    change: Changes = None,
    document: Document = None,
    nonce: Nonce = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the key's password.")] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """As a keeper: verify ticket, enclave and backup, then seal your share anew to that enclave."""
    rules = _policy(policy)
    # 1. The quorum wants this very backup in the enclave that its ticket names.
    said = verify_ticket(read_ticket(ticket), current_approvers(approvers, change))
    backup, data = read_backup(path)
    require_backup_of(said, data)
    # 2. It is recent enough for you.
    if backup.term < least_term:
        raise ContinuityError(
            ContinuityCode.TERM,
            f"the backup is of term {backup.term}, expected {least_term} at least: a later one exists",
        )
    if max_age is not None and time.time() * 1000 - backup.made > max_age * 1000:
        raise Refusal(f"the backup was made {_time(backup)}, expected one of the last {max_age} seconds")
    # 3. The enclave is there now, is what your policy accepts, and holds nothing yet.
    found = find_tenancy(rules, network, enclave, document, nonce)
    require_target(found, backup)
    # 4. The rest is `pass_share`'s: who made the backup, whose key the ticket names, and that a share of it is yours.
    evidence = _origin(path)
    share = pass_share(
        backup,
        read_recovery_key(key, password_file),
        said,
        enclave_key=found.tenancy.holder,
        manifest=found.manifest,
        origin=(evidence.document, evidence.statement),
        policy=rules if origin_policy is None else _policy(origin_policy),
    )
    write_whole(out, share, 0o600)
    result = {"ok": True, "path": str(out), "enclave": found.module_id, "slot": said.slot, "term": said.term}
    line = f"{out}: your share of slot {said.slot} (made {_time(backup)}), for {found.module_id} alone"
    emit({**result, "made": _time(backup)}, as_json, lambda console: say(console, line))


@app.command()
def restore(
    path: BackupFile,
    ticket: Annotated[Path, typer.Option(help="The approved ticket that names the backup and the enclave.")],
    share: Annotated[list[Path], typer.Option("--share", help="A share that a keeper passed; repeat.")],
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Restore a backup into the enclave that its ticket names; it holds the slot from then on."""
    backup, data = read_backup(path)
    envelope = read_ticket(ticket)
    shares = tuple(read_bytes(one, "passed share", MAX_SHARE) for one in share)
    require_shares(backup.threshold, len(shares), len(backup.shares))

    async def send(client: OperatorClient) -> Takeover:
        await client.ask("restore_offer", envelope, shares, len(data))
        for index, start in enumerate(range(0, len(data), PIECE_BYTES)):
            await client.ask("restore_piece", index, data[start : start + PIECE_BYTES])
        taken: Takeover = await client.ask("restore", timeout=BACKUP_SECONDS + 5)
        return taken

    taken = ask(network, enclave, send)
    line = (
        f"slot {taken.slot} is held here from term {taken.term}, with the state of {_time(backup)}; if the holder "
        "before may still live, show it the ticket: `teactl ticket present`"
    )
    emit({"ok": True, "slot": taken.slot, "term": taken.term}, as_json, lambda console: say(console, line))


def _policy(path: Path) -> Accepts:
    return parse_rule(read_text(path, "policy"), str(path))


def _origin(path: Path) -> Attestation:
    return Attestation(
        read_bytes(path.with_suffix(DOCUMENT_SUFFIX), "attestation document", MAX_FILE),
        read_bytes(path.with_suffix(STATEMENT_SUFFIX), "statement", MAX_FILE),
    )


def _time(backup: Backup) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(backup.made / 1000, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"at {backup.made} ms"
