"""`teactl attest`: fetch, inspect and verify attestation documents.

May not: verify by rules of its own: `tea.trust` does, with the clock read here. Rule: docs/teactl.md, "attest".
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from tea.protocol.channels import Attestation
from tea.trust.attestation import (
    AttestationDocument,
    AttestationError,
    Roots,
    aws_roots,
    document_to_builtins,
    parse_document,
    verify_document,
)
from tea.trust.policy import Accepts, PolicyError, parse_rule
from tea.trust.statement import Statement, StatementError, verify_statement

from ..console import Json, Refusal, emit, say
from ..files import read_bytes, read_text, write_whole
from ..operating import DEFAULT_NETWORK, Enclave, Network, ask

T = TypeVar("T")
MAX_FILE = 1 << 20
STATEMENT_SUFFIX = ".statement"

app = typer.Typer(help="Fetch, inspect and verify attestation documents.", no_args_is_help=True)

DocumentFile = Annotated[Path, typer.Argument(help="An attestation document, as the NSM made it.")]


def register(root: typer.Typer) -> None:
    """Add `attest` to teactl."""
    root.add_typer(app, name="attest")


@app.command()
def fetch(
    out: Annotated[Path, typer.Option(help="Where the document goes; its statement goes beside it.")],
    nonce: Annotated[str | None, typer.Option(help="Your nonce in hex, at most 512 bytes; random by default.")] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Ask an enclave for a fresh attestation over your nonce."""
    statement = out.with_suffix(STATEMENT_SUFFIX) if out.name else out
    if statement == out:
        raise typer.BadParameter(
            f"found {str(out)[:80]!r}, expected another ending than {STATEMENT_SUFFIX}: its statement goes there",
            param_hint="--out",
        )
    chosen = secrets.token_bytes(32) if nonce is None else _hex(nonce, "--nonce")
    attestation: Attestation = ask(network, enclave, lambda client: client.ask("attest", chosen))
    write_whole(out, attestation.document)
    write_whole(statement, attestation.statement)
    emit(
        {"ok": True, "document": str(out), "statement": str(statement), "nonce": chosen},
        as_json,
        lambda console: say(console, f"{out} and {statement.name}, over the nonce {chosen.hex()}"),
    )


@app.command()
def inspect(path: DocumentFile, as_json: Json = False) -> None:
    """Show what a document says. Nothing is verified: use `attest verify` to believe it."""
    document = _parsed(lambda: parse_document(_read(path)))
    shown = document_to_builtins(document)
    emit({"ok": True, "verified": False, **shown}, as_json, lambda console: _show("NOT verified", shown, console))


@app.command()
def verify(
    path: DocumentFile,
    at: Annotated[
        str | None, typer.Option(help="The moment at which it must be valid (2024-04-10T07:09:30Z); default: now.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="A policy (YAML) that it must meet; it names the roots.")] = None,
    root: Annotated[
        str | None, typer.Option(help="Pin this root instead of AWS's: sha256:HEX of its DER. Not with --policy.")
    ] = None,
    statement: Annotated[
        Path | None, typer.Option(help="The statement; default: the file beside it that ends in .statement.")
    ] = None,
    nonce: Annotated[str | None, typer.Option(help="The nonce that it must carry, in hex.")] = None,
    as_json: Json = False,
) -> None:
    """Check that a document is authentic and, with --policy, that it is acceptable."""
    if policy is not None and root is not None:
        raise typer.BadParameter("--policy names the roots: give one of the two", param_hint="--root")
    moment = int(time.time() * 1000) if at is None else _moment(at)
    rules = parse_rule(read_text(policy, "policy"), str(policy)) if policy is not None else None
    expected = None if nonce is None else _hex(nonce, "--nonce")
    roots = _roots(rules, root)
    raw = _read(path)
    document = _parsed(lambda: verify_document(raw, roots=roots, at=moment, nonce=expected))
    shown = document_to_builtins(document)
    said = _statement(document, statement or path.with_suffix(STATEMENT_SUFFIX), asked=statement is not None)
    if rules is not None:
        _require(rules, document, said, moment, shown)
    result = {
        "ok": True,
        "authentic": True,
        "policy": None if policy is None else str(policy),
        "root": f"sha256:{document.root.hex()}",
        "at": _iso(moment),
        **({"accepted": True} if rules is not None else {}),
        **({"statement": _plain(said)} if said is not None else {}),
        **shown,
    }
    heading = "authentic, and accepted by the policy" if rules is not None else "authentic; no policy was asked"
    emit(result, as_json, lambda console: _show(heading, shown, console))


def _require(
    rules: Accepts, document: AttestationDocument, said: Statement | None, moment: int, shown: dict[str, object]
) -> None:
    try:
        rules.require(document, said, now_ms=moment)
    except PolicyError as error:
        details = {"authentic": True, "accepted": False, "code": error.code.value}
        raise Refusal(f"authentic, but the policy refuses it: {error}", **details, **shown) from None


def _roots(rules: Accepts | None, root: str | None) -> Roots:
    if rules is not None:
        return rules.roots()
    if root is None:
        return aws_roots()
    algorithm, _, digest = root.partition(":")
    value = _hex(digest, "--root")
    if algorithm != "sha256" or len(value) != 32:
        raise typer.BadParameter("expected sha256: and 64 hex digits", param_hint="--root")
    return Roots.from_digests([value])


def _statement(document: AttestationDocument, path: Path, *, asked: bool) -> Statement | None:
    if not asked and not path.is_file():
        return None
    try:
        return verify_statement(document, _read(path))
    except StatementError as error:
        raise Refusal(f"{path}: {error}", authentic=True, code=error.code.value) from None


def _parsed(make: Callable[[], T]) -> T:
    try:
        return make()
    except AttestationError as error:
        raise Refusal(f"not authentic: {error}", authentic=False, code=error.code.value) from None


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, "attestation document", MAX_FILE)
    except Refusal as error:
        raise Refusal(f"not authentic: {error}", authentic=False) from None


def _hex(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:40]!r} is not hex", param_hint=option) from None


def _moment(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise typer.BadParameter(f"{text[:40]!r} has no time zone: end it in Z for UTC", param_hint="--at")
        return int(moment.astimezone(datetime.UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text[:40]!r} is no time such as 2024-04-10T07:09:30Z", param_hint="--at") from None


def _iso(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(said: Statement) -> dict[str, object]:
    return {
        "kind": said.kind,
        "deployment": said.deployment,
        "manifest": None if said.manifest is None else f"sha384:{said.manifest.hex()}",
        "revision": said.revision,
        "epoch": said.epoch,
        "log_head": said.log_head,
        "speaker": None if said.speaker is None else list(said.speaker),
        "body": said.body,
    }


def _show(heading: str, shown: dict[str, object], console: Console) -> None:
    say(console, heading)
    pcrs = shown["pcrs"]
    assert isinstance(pcrs, dict)
    rows = [("module", shown["module_id"]), ("time", shown["time"]), ("debug mode", "yes" if shown["debug"] else "no")]
    rows += [(f"PCR{index}", value) for index, value in pcrs.items() if set(value) != {"0"}]
    rows += [(name, shown[name]) for name in ("nonce", "user_data", "public_key") if shown[name]]
    for name, value in rows:  # whole values: a digest that is cut off cannot be compared
        say(console, f"{name:<11} {value}")
