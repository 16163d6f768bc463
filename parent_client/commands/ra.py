"""`teactl ra`: check round certificates and evidence offline.

May not: take roots, members or a manifest from the file that it checks: they come from the policy.
Rule: docs/architecture.md, "Remote attestation".
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tea.trust.attestation import ChainCache
from tea.trust.policy import Policy, parse_policy
from tea.trust.rounds import (
    CertificateReport,
    EvidenceReport,
    RoundCode,
    RoundError,
    verify_certificate,
    verify_evidence,
)

from ..console import Json, Refusal, emit, say
from ..files import read_bytes, read_text

MAX_FILE = 16 << 20

app = typer.Typer(help="Check round certificates and evidence offline.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `ra` to teactl."""
    root.add_typer(app, name="ra")


@app.callback()
def group() -> None:
    """Check round certificates and evidence offline."""


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Certificates or evidence.")],
    policy: Annotated[Path, typer.Option(help="A policy (YAML) with `members`: who takes part, under which roots.")],
    as_json: Json = False,
) -> None:
    """Check every signature of a certificate or of evidence, each document at its own time."""
    rules = parse_policy(read_text(policy, "policy"), str(policy))
    cache = ChainCache()
    results = []
    for path in files:
        data = read_bytes(path, "certificate, and no evidence", MAX_FILE)
        try:
            results.append((path, _verify(data, rules, cache)))
        except RoundError as error:
            raise Refusal(f"{path}: {error}", file=str(path), code=error.code.value) from None

    def text(console: Console) -> None:
        for path, report in results:
            say(console, f"{path}: {_describe(report)}")

    emit({"ok": True, "files": [{"file": str(path), **_plain(report)} for path, report in results]}, as_json, text)


def _verify(data: bytes, rules: Policy, cache: ChainCache) -> CertificateReport | EvidenceReport:
    try:
        return verify_certificate(data, rules, cache=cache)
    except RoundError as error:
        if error.code is not RoundCode.MALFORMED:
            raise
    return verify_evidence(data, rules, cache=cache)


def _plain(report: CertificateReport | EvidenceReport) -> dict[str, object]:
    if isinstance(report, CertificateReport):
        return {
            "kind": "certificate",
            "deployment": report.deployment,
            "manifest": f"sha384:{report.manifest.hex()}",
            "height": report.height,
            "block_hash": report.block_hash,
            "state_root": report.state_root,
            "slots": report.slots,
            "members": report.members,
            "quorum": report.quorum,
            "modules": report.modules,
            "from": _iso(report.first_ms),
            "to": _iso(report.last_ms),
        }
    difference = report.difference
    return {
        "kind": report.kind.value,
        "accused": report.accused,
        "module_id": report.module_id,
        "height": report.height,
        "block_hash": report.block_hash,
        "state_root": report.state_root,
        "other_root": report.other_root,
        "time": _iso(report.time_ms),
        "certificate": None if report.certificate is None else _plain(report.certificate),
        "difference": None
        if difference is None
        else {"key": difference.key, "certified": difference.certified, "accused": difference.accused},
    }


def _describe(report: CertificateReport | EvidenceReport) -> str:
    if isinstance(report, CertificateReport):
        return (
            f"{len(report.slots)} of {report.members} members ({', '.join(report.slots)}; {report.quorum} needed) "
            f"attest state {report.state_root.hex()[:16]} of block {report.height} {report.block_hash.hex()[:16]}"
        )
    text = (
        f"{report.accused} ({report.module_id}) attested state {report.state_root.hex()[:16]} of block {report.height} "
        f"at {_iso(report.time_ms)}, against {report.other_root.hex()[:16]} ({report.kind.value})"
    )
    if report.difference is not None:
        key, one = report.difference.key, report.difference
        text += f"; they differ in {_readable(key)}: certified {_value(one.certified)}, accused {_value(one.accused)}"
    return text


def _readable(key: bytes) -> str:
    return key.decode() if key.isascii() and key.decode().isprintable() else key.hex()


def _value(value: bytes | None) -> str:
    return "absent" if value is None else value.hex()


def _iso(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
