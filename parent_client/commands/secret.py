"""`teactl secret seal`: encrypt a secret to an attested enclave, for one actor under one manifest.

May not: seal before the attestation is verified and the policy accepts it, or take a secret on a command line.
Rule: docs/secrets.md, "By hand".
"""

from __future__ import annotations

import secrets as random
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from rich.console import Console

from tea.protocol.channels import Attestation
from tea.trust.attestation import verify_document
from tea.trust.policy import parse_rule
from tea.trust.sealing import seal
from tea.trust.statement import Kind, verify_statement

from ..console import Json, Refusal, emit, say
from ..files import read_bytes, read_text, write_whole
from ..operating import DEFAULT_NETWORK, Enclave, Network, ask

MAX_FILE = 1 << 20
_KEY_BYTES = {
    **dict.fromkeys(("ed25519", "sr25519", "x25519", "secp256k1", "p-256"), 32),
    **dict.fromkeys(("aes-256-gcm", "chacha20-poly1305", "hkdf-hmac"), 32),
    "p-384": 48,
}
_RSA_BITS = {f"rsa-{use}-{bits}": bits for use in ("pss", "oaep") for bits in (2048, 3072)}
_HOST_KINDS = (Kind.READY, Kind.ATTEST, Kind.SEAL)

app = typer.Typer(help="Seal secrets to attested enclaves.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add `secret` to teactl."""
    root.add_typer(app, name="secret")


@app.callback()
def group() -> None:
    """Seal secrets to attested enclaves."""


def read_secret(path: str) -> bytes:
    """A secret from a file, or from standard input (`-`). Raises `Refusal` on none."""
    data = sys.stdin.buffer.read(MAX_FILE + 1) if path == "-" else read_bytes(Path(path), "secret", MAX_FILE)
    if not data or len(data) > MAX_FILE:
        raise Refusal(f"{path}: a secret has 1 to {MAX_FILE} bytes, this has {len(data)}")
    return data


def _require_key(algorithm: str, data: bytes) -> None:
    """Refuse what `crypto.import_sealed` would refuse. Raises `Refusal`, which says nothing of the key."""
    size = _KEY_BYTES.get(algorithm)
    if size is not None:
        if len(data) != size:
            raise Refusal(f"a key of {algorithm} has {size} bytes, this has {len(data)}")
        return
    bits = _RSA_BITS.get(algorithm)
    if bits is None:
        raise Refusal(f"crypto has no algorithm {algorithm[:32]!r}; it has {', '.join((*_KEY_BYTES, *_RSA_BITS))}")
    try:
        made = load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        made = None
    if not isinstance(made, rsa.RSAPrivateKey) or made.key_size != bits:
        raise Refusal(f"a key of {algorithm} is RSA of {bits} bits as PKCS#8 or PKCS#1 in DER, not encrypted")


@app.command("seal")
def seal_(
    policy: Annotated[Path, typer.Option(help="The policy (YAML) that the enclave must meet.")],
    actor: Annotated[str, typer.Option(help="The actor that may open it.")],
    out: Annotated[Path, typer.Option(help="The sealed secret to write.")],
    value: Annotated[str, typer.Option("--in", help="File with the secret; - for standard input.")] = "-",
    key: Annotated[
        str | None,
        typer.Option(help="It is a key of this algorithm (RSA in DER, others raw), for crypto.import_sealed."),
    ] = None,
    document: Annotated[
        Path | None, typer.Option(help="A document that was fetched (its statement beside it); default: ask now.")
    ] = None,
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    as_json: Json = False,
) -> None:
    """Verify an enclave's attestation, then seal a secret to its key, for one actor under its running manifest."""
    rules = parse_rule(read_text(policy, "policy"), str(policy))
    nonce: bytes | None = None
    if document is None:
        nonce = random.token_bytes(32)
        asked = nonce
        attestation: Attestation = ask(network, enclave, lambda client: client.ask("attest", asked))
        raw, beside = attestation.document, attestation.statement
    else:
        raw = read_bytes(document, "attestation document", MAX_FILE)
        beside = read_bytes(document.with_suffix(".statement"), "statement", MAX_FILE)
    now = time.time_ns() // 1_000_000
    found = verify_document(raw, roots=rules.roots(), at=now, nonce=nonce)
    statement = verify_statement(found, beside)
    rules.require(found, statement, now_ms=now)
    if statement.kind not in _HOST_KINDS:
        raise Refusal(f"the statement is of kind {statement.kind!r}, expected the host's own: ask it for `attest`")
    if statement.manifest is None:
        raise Refusal("no manifest is active in this enclave: push one first, the secret is bound to it")
    data = read_secret(value)
    if key is not None:
        _require_key(key, data)
    purpose = "secret" if key is None else f"key:{key}"
    sealed = seal(found.public_key or b"", data, purpose=purpose, actor=actor, manifest_digest=statement.manifest)
    write_whole(out, sealed)
    result = {"ok": True, "path": str(out), "actor": actor, "purpose": purpose, "manifest": statement.manifest}

    def text(console: Console) -> None:
        say(console, f"{out}: sealed to {found.module_id}, for {actor} under sha384:{result['manifest'].hex()[:16]}...")  # type: ignore[attr-defined]

    emit({**result, "enclave": found.module_id, "bytes": len(sealed)}, as_json, text)
