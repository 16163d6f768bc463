"""`python -m bench.settings`: pushing 100 MiB of bundles, against a raw copy of as much plus SHA-256.

May not: skip what production does: chunks are hashed at both ends, bundles verified, actors started; the chunks' time
alone is what is compared. Rule: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tea.parent_client.client import RuntimeClient, unix_config
from tea.parent_client.operator import Push
from tea.providers.nitro.authority import SimulatedCa
from tea.providers.nitro.start import SimulatedStart
from tea.simulator.identity import instance_id, module_id, simulated_pcrs
from tea.trust.approval import approve
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest

ACTOR = b"from tea.sdk import Actor\n\nclass Heavy(Actor):\n    pass\n"
PIECE = 1 << 20


def raw_copy(size: int) -> float:
    """Seconds to send `size` bytes through a Unix socket to a process that hashes them."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        digest, left = hashlib.sha256(), size
        while left:
            data = theirs.recv(min(PIECE, left))
            digest.update(data)
            left -= len(data)
        theirs.sendall(digest.digest())
        os._exit(0)
    theirs.close()
    piece = os.urandom(PIECE)
    started = time.perf_counter()
    for _ in range(size // PIECE):
        ours.sendall(piece)
    ours.recv(32)
    seconds = time.perf_counter() - started
    os.waitpid(pid, 0)
    ours.close()
    return seconds


def _bundles(folder: Path, key: PrivateKey, count: int, mib: int) -> tuple[str, list[Path]]:
    actors, paths = [], []
    for number in range(count):
        name = f"heavy{number}"
        files = {f"{name}.py": ACTOR, **{f"data/{part}.bin": os.urandom(PIECE) for part in range(mib)}}
        claims = ClaimsInput(
            name=name, version="0.1.0", entry=f"{name}:Heavy", issued_at=int(time.time()), capabilities={}
        )
        data = build_bundle(build_archive(files), claims, key)
        path = folder / f"{name}.tea"
        path.write_bytes(data)
        paths.append(path)
        digest = hashlib.sha256(data).hexdigest()
        limits = "limits: {memory_mib: 1024}"
        actors.append(f"  {name}: {{version: 0.1.0, bundle: 'sha256:{digest}', issuer: dev, {limits}}}")
    names = ", ".join(f"heavy{number}" for number in range(count))
    text = "\n".join(
        [
            "tea: manifest/1",
            "deployment: bench",
            "revision: 1",
            "sandbox: prefer",
            f"issuers: {{dev: {{key: '{key.public.text}', actors: [{names}], capabilities: []}}}}",
            "providers: {}",
            "actors:",
            *actors,
            "links: []",
        ]
    )
    return text, paths


async def push(mib: int) -> dict[str, float]:
    """A real host process and a real client; seconds for the chunks, and for everything until READY."""
    with tempfile.TemporaryDirectory(prefix="tea-bench-") as name:
        folder = Path(name)
        key = PrivateKey.generate()
        approvers = f"tea: approvers/1\ndeployment: bench\nepoch: 1\nthreshold: 1\nkeys: ['{key.public.text}']\n"
        (folder / "approvers.yaml").write_text(approvers)
        manifest, paths = _bundles(folder, key, 2, mib // 2)
        envelope = approve(parse_manifest(manifest).canonical(), key)
        client = RuntimeClient(unix_config("e1", folder))
        await client.start()
        instance = instance_id(b"bench", "e1")
        credential = SimulatedCa.create().issue_instance(instance)
        start = SimulatedStart(credential, module_id(instance), simulated_pcrs(approvers.encode()))
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tea.runtime", "--mode", "simulated", "--credential-fd", str(reading)]
        command += ["--parent", f"unix:{folder}/enclave.sock", "--approvers", str(folder / "approvers.yaml")]
        host = subprocess.Popen(command, pass_fds=[reading])  # noqa: ASYNC220
        os.close(reading)
        os.write(writing, start.encode())
        os.close(writing)
        try:
            while not (await client.status()).connected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            started = time.perf_counter()
            await client.push(Push(envelope, (), {}, tuple(str(path) for path in paths)))
            ready = time.perf_counter() - started
            status = await client.status()
            await client.stop(0.0)
            host.wait(20)
        finally:
            host.kill()
            await client.close()
        return {"push_seconds": status.pushed_seconds, "ready_seconds": ready, "bytes": float(status.pushed_bytes)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.settings", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--mib", type=int, default=100)
    arguments = parser.parse_args()
    raw = sorted(raw_copy(arguments.mib << 20) for _ in range(3))[1]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pushed = runner.run(push(arguments.mib))
    result: dict[str, Any] = {
        "push_over_raw_copy": pushed["push_seconds"] / raw,
        "push_mib_per_s": pushed["bytes"] / (1 << 20) / pushed["push_seconds"],
        "raw_copy_mib_per_s": arguments.mib / raw,
        "ready_seconds": pushed["ready_seconds"],
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:24} {value:.2f}")


if __name__ == "__main__":
    main()
