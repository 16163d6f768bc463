"""Evidence of an enclave, asked for now or fetched before, verified before anything is done for that enclave.

May not: verify by rules of its own: `tea.trust` does, with the clock read here. Rule: docs/continuity.md, "By hand".
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from tea.protocol.channels import Attestation, RunningManifest
from tea.trust.approval import Approvers, verify_approval, verify_changes
from tea.trust.attestation import verify_document
from tea.trust.handover import Tenancy, tenancy_of, verify_evidence
from tea.trust.handover_messages import HolderBody
from tea.trust.manifest import Manifest
from tea.trust.policy import Accepts
from tea.trust.roots import Roots, aws_roots
from tea.trust.statement import Kind, verify_statement

from .files import read_bytes
from .operating import ask
from .refusal import Refusal
from .registry import default_registry

MAX_FILE: Final = 1 << 20
STATEMENT_SUFFIX: Final = ".statement"

PolicyFile = Annotated[Path, typer.Option("--policy", help="The policy (YAML) that the enclave must meet.")]
Document = Annotated[
    Path | None,
    typer.Option(
        "--document", help="What `teactl tenancy --out` fetched (its statement beside it), with --nonce; default: ask."
    ),
]
Nonce = Annotated[str | None, typer.Option("--nonce", help="Your nonce in hex, over which --document was fetched.")]


class Found(NamedTuple):
    """A verified enclave, and the manifest that it runs."""

    tenancy: Tenancy
    manifest: bytes
    """SHA-384."""
    module_id: str


class Running(NamedTuple):
    """The manifest that verifiably runs in an enclave, approved by its quorum."""

    manifest: Manifest
    envelope: bytes
    approvers: Approvers
    changes: tuple[bytes, ...]


def nonce_of(text: str | None) -> bytes:
    """The nonce of an option, or a fresh one. Raises `typer.BadParameter`."""
    if text is None:
        return secrets.token_bytes(32)
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:40]!r} is not hex", param_hint="--nonce") from None


def find_tenancy(
    rules: Accepts, network: str, enclave: str | None, document: Path | None = None, nonce: str | None = None
) -> Found:
    """What an enclave that the policy accepts is to its slot, by fresh evidence. Raises `TrustError`, `CallError`."""
    if (document is None) != (nonce is None):
        raise typer.BadParameter("--document and --nonce go together: your nonce is what makes it fresh")
    asked = nonce_of(nonce)
    if document is None:
        evidence: Attestation = ask(network, enclave, lambda client: client.ask("tenancy", asked))
    else:
        evidence = Attestation(
            read_bytes(document, "attestation document", MAX_FILE),
            read_bytes(document.with_suffix(STATEMENT_SUFFIX), "statement", MAX_FILE),
        )
    genuine, said, body = verify_evidence(
        evidence.document, evidence.statement, rules, Kind.ATTEST, HolderBody, asked, _now_ms(), None
    )
    if said.manifest is None:
        raise Refusal("no manifest is active in this enclave: push one first")
    return Found(tenancy_of(genuine, said, body), said.manifest, genuine.module_id)


def find_running(network: str, enclave: str | None, approvers: Approvers, rules: Accepts | None) -> Running:
    """The manifest that runs in an enclave: attested over a fresh nonce, and approved from `approvers` on.

    Without a policy the image is not judged. Raises `TrustError`, `CallError`, `Refusal`.
    """
    nonce = secrets.token_bytes(32)
    shown: RunningManifest = ask(network, enclave, lambda client: client.ask("running_manifest", nonce))
    # 1. Genuine and fresh, by the policy's roots, else those of the network.
    roots = rules.roots() if rules is not None else _roots(network)
    now = _now_ms()
    document = verify_document(shown.attestation.document, roots=roots, at=now, nonce=nonce)
    said = verify_statement(document, shown.attestation.statement)
    # 2. Of the host itself, as the policy wants it.
    if said.kind != Kind.ATTEST or said.speaker is not None:
        raise Refusal(f"the statement is of kind {said.kind!r}, expected the host's own of kind 'attest'")
    if rules is not None:
        rules.require(document, said, now_ms=now, kind=Kind.ATTEST)
    # 3. The manifest is approved, whoever brought it.
    current = verify_changes(approvers, shown.approver_changes)
    manifest = verify_approval(shown.approval, current)
    # 4. And it is the one that the enclave says it runs.
    found = (said.deployment, said.manifest, said.revision, said.epoch)
    if found != (manifest.deployment, manifest.digest, manifest.revision, current.epoch):
        raise Refusal(
            f"the manifest that came is revision {manifest.revision} in epoch {current.epoch}, and the enclave attests "
            f"revision {said.revision} in epoch {said.epoch}: the parent showed another one than that which runs"
        )
    return Running(manifest, shown.approval, current, shown.approver_changes)


def _roots(network: str) -> Roots:
    root = default_registry().network(network).root
    return aws_roots() if root is None else Roots.from_digests([bytes.fromhex(root.removeprefix("sha256:"))])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
