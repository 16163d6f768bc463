"""Secrets, from end to end: `python docs/secrets_tour.py` seals one, releases it to the enclave that its owner accepts,
sees another refused, revokes it, and breaks the audit log to see the line named.

May not: keep anything but in its folder. The text around it is docs/secrets.md; tests/docs/test_secrets.py runs it.
"""

# ruff: noqa: T201 (it is there to be read)
from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tea.protocol.errors import CallError
from tea.simulator.network import NetworkPlan, SimulatedNetwork, running
from tea.trust.approval import Approvers, approve
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest

PAYER = '''
import hashlib
import hmac

from tea.sdk import Actor, operation


class Payer(Actor):
    """Signs orders with a key that its owner releases to it, and forgets it after each."""

    @operation
    def sign(self, order: str) -> str:
        """HMAC-SHA256 of the order, in hex."""
        key = self.secrets.get("api-key")["value"]
        return hmac.new(key, order.encode(), hashlib.sha256).hexdigest()

    @operation
    def sign_sealed(self, order: str, sealed: bytes) -> str:
        """The same with a key that was sealed to this enclave by hand."""
        return hmac.new(self.secrets.open(sealed), order.encode(), hashlib.sha256).hexdigest()
'''
LEASE = 2
"""Seconds; short, so that the tour sees a lease end."""


def manifest(revision: int, key: PrivateKey, bundle: bytes, service: str) -> str:
    """The deployment's manifest: one actor, linked to the secrets provider."""
    return textwrap.dedent(f"""\
        tea: manifest/1
        deployment: tour
        revision: {revision}
        sandbox: prefer
        issuers:
          dev: {{key: "{key.public.text}", actors: [payer], capabilities: [secrets]}}
        providers:
          secrets: {{service: "{service}"}}
        actors:
          payer: {{version: 0.1.0, bundle: "sha256:{hashlib.sha256(bundle).hexdigest()}", issuer: dev}}
        links:
          - {{from: parent, to: payer, operations: [sign, sign_sealed]}}
          - {{from: payer, to: secrets, operations: [get, open]}}
        """)


async def teactl(*arguments: object, expect: int = 0) -> str:
    """Run `teactl`, show it, answer what it says."""
    words = [str(one) for one in arguments]
    print("$ teactl", *words, flush=True)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "tea.parent_client.cli", *words], capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    print(textwrap.indent(said.strip(), "  "), flush=True)
    if done.returncode != expect:
        raise SystemExit(f"teactl {' '.join(words)} ended with {done.returncode}, expected {expect}")
    return said


async def released(network: SimulatedNetwork, name: str, order: str) -> str:
    """The order's signature by an enclave's payer, or why there is none."""
    try:
        answer: str = await network[name].call("payer", "sign", order)
    except CallError as error:
        answer = f"refused: {error.sentence}"
    print(f"{name} signs {order!r}: {answer}", flush=True)
    return answer


async def tour(folder: Path, secret_file: Path, secret: bytes) -> None:
    """The whole way. Raises `AssertionError` where it goes another one."""
    vault, socket = folder / "vault", folder / "release.sock"

    print("\n-- 1. The owner's vault and its release service")
    await teactl("secrets", "init", vault)
    server = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tea.parent_client.cli", "secrets", "serve", str(vault), "--socket", str(socket)],
        stdout=subprocess.PIPE,
        stderr=(folder / "service.console").open("wb"),
    )
    try:
        assert server.stdout is not None
        service = json.loads(await server.stdout.readline())["service"]
        await with_service(folder, secret_file, secret, vault, socket, service)
    finally:
        server.terminate()
        await server.wait()


async def with_service(folder: Path, secret_file: Path, secret: bytes, vault: Path, socket: Path, service: str) -> None:
    """What needs the service running."""
    print("\n-- 2. Two enclaves of one deployment: `current` runs revision 2, `stale` still revision 1")
    key = PrivateKey.generate()
    claims = ClaimsInput(
        name="payer",
        version="0.1.0",
        entry="payer:Payer",
        issued_at=int(time.time()),
        capabilities={"secrets": ("get", "open")},
    )
    bundle = build_bundle(build_archive({"payer.py": PAYER.encode()}), claims, key)
    (folder / "payer.tea").write_bytes(bundle)
    texts = {revision: manifest(revision, key, bundle, service) for revision in (1, 2)}
    for revision, text in texts.items():
        (folder / f"revision-{revision}.yaml").write_text(text)
    plan = NetworkPlan(
        folder / "network",
        ("current", "stale"),
        Approvers("tour", 1, 1, (key.public,)),
        release=f"unix:{socket}",
    )
    async with running(plan) as network:
        for name, revision in (("stale", 1), ("current", 2)):
            envelope = approve(parse_manifest(texts[revision]).canonical(), key)
            await network[name].push(envelope, [folder / "payer.tea"])

        print("\n-- 3. The owner accepts this image, booted with revision 2, and nothing else")
        pcrs = [word for index, value in network.pcrs.items() for word in ("--pcr", f"{index}={value.hex()}")]
        root = f"sha256:{network.root_digest.hex()}"
        policy = folder / "policy.yaml"
        await teactl(
            *("policy", "from-manifest", folder / "revision-2.yaml", "--out", policy, "--root", root, "--booted"), *pcrs
        )
        stored = ("--policy", policy, "--actor", "payer", "--lease", LEASE, "--in", secret_file)
        await teactl("secrets", "put", vault, "api-key", *stored)

        print("\n-- 4. One gets it, the other does not")
        expected = hmac.new(secret, b"order 1", hashlib.sha256).hexdigest()
        assert await released(network, "current", "order 1") == expected
        refusal = await released(network, "stale", "order 1")
        assert "PCR16 is" in refusal and "expected" in refusal, refusal

        print("\n-- 5. The same by hand: sealed to one enclave's attested key, it opens in no other")
        for name in ("current", "stale"):
            attestation = await network[name].ask("attest", secrets.token_bytes(32))
            (folder / f"{name}.document").write_bytes(attestation.document)
            (folder / f"{name}.statement").write_bytes(attestation.statement)
        seal = ("secret", "seal", "--policy", policy, "--actor", "payer", "--in", secret_file)
        sealed = folder / "api-key.sealed"
        await teactl(*seal, "--document", folder / "current.document", "--out", sealed)
        signed = await network["current"].call("payer", "sign_sealed", "order 2", sealed.read_bytes())
        assert signed == hmac.new(secret, b"order 2", hashlib.sha256).hexdigest()
        said = await teactl(*seal, "--document", folder / "stale.document", "--out", folder / "never", expect=1)
        assert "PCR16 is" in said and not (folder / "never").exists()
        try:
            await network["stale"].call("payer", "sign_sealed", "order 2", sealed.read_bytes())
            raise AssertionError("another enclave opened what was sealed to this one")
        except CallError as error:
            print(f"stale opens what was sealed to current: refused: {error.sentence}")

        print("\n-- 6. Revoked: the lease that is out ends, and no other is given")
        await teactl("secrets", "revoke", vault, "--secret", "api-key")
        await asyncio.sleep(LEASE)  # the one thing here that is a matter of time
        assert "revoked" in await released(network, "current", "order 3")

    print("\n-- 7. The audit log says who got what; a line that is changed is named")
    said = await teactl("secrets", "audit", "verify", vault, "--show")
    assert "released" in said and "refused" in said and "revoked" in said
    log = vault / "audit.log"
    lines = log.read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if '"released"' in line)
    lines[number - 1] = lines[number - 1].replace('"actor":"payer"', '"actor":"nobody"')
    broken = folder / "broken.log"
    broken.write_text("\n".join(lines) + "\n")
    said = await teactl("secrets", "audit", "verify", broken, expect=1)
    assert f"line {number}" in said, said
    print("\nThe tour is over: all went as it should.")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="secrets, from end to end")
    parser.add_argument("--folder", type=Path, help="where everything goes; default: a temporary folder")
    parser.add_argument("--in", dest="secret", type=Path, help="the secret's file; default: a random one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = arguments.secret
        if secret is None:
            secret = folder / "api-key.secret"
            secret.write_text(secrets.token_urlsafe(32))
        asyncio.run(tour(folder, secret, secret.read_bytes()))


if __name__ == "__main__":
    main()
