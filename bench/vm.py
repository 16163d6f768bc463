"""The real image in a real machine: boots, gets its settings over AF_VSOCK, certifies rounds with simulated peers.

`python -m bench.vm [--image FILE] [--json]`; `make vm` sets up what it needs. Not a benchmark of QEMU: the figures are
those of one run under whatever accelerator there is. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tea.enclave_image.assembly.approvers import insecure_development_approvers, insecure_development_key
from tea.enclave_image.assembly.builder import BuildPlan, build_image
from tea.enclave_image.console import say
from tea.enclave_image.eif.codes import ImageError
from tea.enclave_image.eif.describe import describe_image
from tea.enclave_image.eif.reader import open_image
from tea.enclave_image.vm.boot_log import Stage
from tea.enclave_image.vm.machine import VirtualMachine
from tea.enclave_image.vm.plan import MachinePlan
from tea.parent_client.building import build
from tea.parent_client.registry import socket_folder
from tea.protocol.errors import CallError
from tea.simulator.chain_feed import FollowedChain, embedded
from tea.simulator.enclave import READY, SimulatedEnclave
from tea.simulator.identity import module_id
from tea.simulator.network import NetworkPlan, SimulatedNetwork
from tea.simulator.processes import Child, ProcessError
from tea.simulator.shipped import prepare, shipped
from tea.trust.attestation import ChainCache
from tea.trust.errors import TrustError
from tea.trust.rounds import verify_certificate

MIB: Final = 1 << 20
SLOTS: Final = ("e1", "e2", "e3")
IN_VM: Final = "e3"
BOOT_SECONDS: Final = 90.0
READY_SECONDS: Final = 240.0
ROUND_SECONDS: Final = 120.0
END_SECONDS: Final = 60.0
READY_BUDGET: Final = 20.0
BALLAST: Final = 50
"""MiB of the settings push that is measured."""
MEMORY_MIB: Final = 1024


class VmEnclave(SimulatedEnclave):
    """An enclave whose host runs in a virtual machine; its parent's runtime client is as everybody's."""

    machine: VirtualMachine
    image: Path
    files: Path

    @classmethod
    def instead_of(cls, one: SimulatedEnclave, image: Path, files: Path) -> VmEnclave:
        """The same slot, instance and parent, with a machine for its host."""
        made = cls.__new__(cls)
        made.__dict__.update(one.__dict__)
        made.image, made.files = image, files
        return made

    async def power_on(self) -> None:
        """Start the machine, with a fresh module id on its instance."""
        self.module_id = module_id(self.instance_id)
        socket = socket_folder(self.folder) / "enclave.sock"
        start = self._platform(self.module_id).encode()
        self.machine = VirtualMachine(MachinePlan(self.image, self.files, start, socket, memory_mib=MEMORY_MIB))
        await self.machine.start()

    async def awaits_settings(self) -> None:
        """Wait until its host has dialled its parent across the machine's edge."""
        await self.machine.booted(BOOT_SECONDS)
        waiting = asyncio.ensure_future(self._in_phase("awaiting-settings"))
        ended = asyncio.ensure_future(self.machine.ended(READY_SECONDS))
        try:
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ProcessError(f"the machine ended, {self.machine.log().stage.value}: {self.machine.log().detail}")
            waiting.result()
        finally:
            waiting.cancel()
            ended.cancel()
            await asyncio.gather(waiting, ended, return_exceptions=True)

    def start_host(self) -> None:
        """A machine is started by `power_on`, which takes a loop."""
        raise RuntimeError("power_on() starts a machine")

    async def end_host(self) -> None:
        """Whatever is left of it ends."""
        await self.machine.kill()

    def children(self) -> list[Child]:
        """The runtime client; the machine is ended by `end_host`."""
        return [one for one in (self.client,) if one is not None and one.returncode is None]


def main(argv: list[str] | None = None) -> int:
    """Run and print. 0: everything held; 1: something did not, and it is said what."""
    parser = argparse.ArgumentParser(prog="python -m bench.vm", description=__doc__)
    parser.add_argument("--image", type=Path, help="an image for a VM; built when it is not given")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("build/vm"), help="folder for consoles and the image")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        result = asyncio.run(_run(arguments.image, arguments.out, arguments.blocks))
    except (ImageError, TrustError, ProcessError, CallError, TimeoutError, OSError) as error:
        result = {"ok": False, "problems": [f"{type(error).__name__}: {error}"]}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:26} {value}")
    return 0 if result["ok"] else 1


async def _run(image: Path | None, out: Path, blocks: int) -> dict[str, object]:
    if image is None:
        image = out / "tea-vm.eif"
        build_image(BuildPlan(image))
    with open_image(image) as opened:
        pcrs = describe_image(opened).pcrs()
    # Sockets have short paths.
    with tempfile.TemporaryDirectory(prefix="tea-vm-") as folder:
        chain = await embedded(out, 1, tied=True)
        try:
            return await _Trial(image, Path(folder), out, chain, pcrs).run(blocks)
        finally:
            await chain.close()


class _Trial:
    """One network with a machine in it, from nothing to nothing."""

    def __init__(self, image: Path, folder: Path, out: Path, chain: FollowedChain, pcrs: dict[int, bytes]) -> None:
        self.out = out
        self.folder = folder
        self.chain = chain
        approvers = insecure_development_approvers()
        self.network = SimulatedNetwork(NetworkPlan(folder / "n", SLOTS, approvers, chain.feed))
        # All members claim the image's measurements: the peers' NSMs are as simulated as the machine's.
        self.network.pcrs = dict(pcrs)
        self.vm = VmEnclave.instead_of(self.network[IN_VM], image, folder / "m")
        self.network.enclaves[IN_VM] = self.vm
        self.figures: dict[str, object] = {"ok": False}
        self.certified: set[int] = set()
        self.digests: list[bytes] = []
        self.cache = ChainCache()

    async def run(self, blocks: int) -> dict[str, object]:
        """Boot, push, certify, restart the client, push much, shut down."""
        try:
            return await self._run(blocks)
        except BaseException:
            say(self._last_words())
            raise
        finally:
            console = self.vm.files / "console"
            if console.exists():
                shutil.copy(console, self.out / "console.log")
            try:
                await self.vm.machine.kill()
                await self.network.end()
            finally:
                self.network.end_now()

    async def _run(self, blocks: int) -> dict[str, object]:
        figures = self.figures
        approved = self._prepare(1, "")
        peers = [one for name, one in self.network.enclaves.items() if name != IN_VM]
        for one in peers:
            one.start_host()
            await one.start_client()
        for one in peers:
            await one.awaits_settings()
        await self.network.push(approved.envelope, approved.bundles, [one.name for one in peers])
        await self.vm.start_client()
        say("powering on")
        await self.vm.power_on()
        machine = self.vm.machine
        await self.vm.awaits_settings()
        figures["seconds_to_settings"] = round(machine.seconds, 2)
        await self.vm.push(approved.envelope, approved.bundles)
        status = (await self.vm.status()).enclave
        if status is None or status.phase != READY:
            raise ProcessError(f"the enclave took its settings and is {status.phase if status else 'gone'}, not ready")
        figures["seconds_to_ready"] = round(machine.seconds, 2)
        figures["seconds_to_init"] = machine.log().init_seconds
        figures["heartbeat_answered"] = machine.alive.is_set()
        say(f"READY after {machine.seconds:.1f} s")
        await self._rounds(blocks)
        say("the runtime client is killed, and started again")
        client = self.vm.client
        assert client is not None
        client.kill()
        await self.vm.end_client()
        await self.vm.start_client()
        await self._rounds(2)
        figures["survived_client_restart"] = True
        figures["guest_memory_mib"] = machine.log().memory_mib
        await self._push_much()
        await self._rounds(1)
        figures["rounds_certified"] = len(self.certified)
        figures["guest_memory_mib_with_push"] = machine.log().memory_mib
        figures["qemu_resident_mib"] = round(machine.resident_mib(), 1)
        say("shutting down")
        await self.vm.ask("stop", 5.0)
        log = await machine.ended(END_SECONDS)
        figures["ended"] = log.stage.value
        problems = [] if log.stage is Stage.ENDED else [f"the machine ended as {log.stage.value}: {log.detail}"]
        if len(self.certified) < blocks + 3:
            problems.append(f"{len(self.certified)} rounds were certified, expected {blocks + 3}")
        figures["within_ready_budget"] = float(str(figures["seconds_to_ready"])) < READY_BUDGET
        figures["problems"] = problems
        figures["ok"] = not problems
        return figures

    def _prepare(self, revision: int, ballast: str) -> Any:
        text = shipped("manifests/demo.yaml").read_text()
        text = re.sub(r"^deployment: \S+", f"deployment: {self.network.plan.approvers.deployment}", text, flags=re.M)
        text = re.sub(r"^revision: \d+", f"revision: {revision}", text, flags=re.M)
        text = re.sub(r"layer1: \{start: \d+", f"layer1: {{start: {self.chain.start}", text)
        if ballast:
            text = text.replace("actors: [counter, ra]", "actors: [ballast, counter, ra]")
            text = text.replace("\nactors:\n", f"\nactors:\n{ballast}")
        key = insecure_development_key()
        bundles = self.folder / "b"
        if ballast:
            build(self._ballast() / "bundle.yaml", key, bundles)
        made = prepare(text, "manifests/demo.yaml", key, bundles, self.network.members) if not ballast else None
        if made is None:
            made = _prepare_with(text, key, bundles, self.network.members)
        self.digests.append(made.manifest.digest)
        return made

    def _ballast(self) -> Path:
        """An actor that does nothing and is large: its bundle is what is pushed."""
        folder = self.folder / "ballast"
        folder.mkdir(exist_ok=True)
        (folder / "ballast.py").write_text("from tea.sdk import Actor\n\n\nclass Ballast(Actor):\n    pass\n")
        (folder / "load.py").write_text("")
        (folder / "load.bin").write_bytes(os.urandom(BALLAST * MIB))
        (folder / "bundle.yaml").write_text(
            'tea: bundle/1\nname: ballast\nversion: 0.1.0\nentry: ballast:Ballast\nsdk: ">=0.1,<0.2"\n'
            'include: ["*.py", "*.bin"]\n'
        )
        return folder

    async def _push_much(self) -> None:
        entry = "  ballast:\n    version: 0.1.0\n    bundle: pin\n    issuer: dev\n    limits: {memory_mib: 512}\n"
        approved = self._prepare(2, entry)
        say(f"pushing {BALLAST} MiB of settings")
        names = list(self.network.enclaves)
        started = time.monotonic()
        await self.network.push(approved.envelope, approved.bundles, [IN_VM])
        self.figures["push_seconds_with_activation"] = round(time.monotonic() - started, 2)
        await self.network.push(approved.envelope, approved.bundles, [name for name in names if name != IN_VM])
        status = await self.vm.status()
        mib = status.pushed_bytes / MIB
        self.figures["push_mib"] = round(mib, 1)
        self.figures["push_mib_a_second"] = round(mib / status.pushed_seconds, 1) if status.pushed_seconds else None

    async def _rounds(self, count: int) -> None:
        """Mine blocks, one by one, and wait until the enclave in the machine holds a certificate that verifies."""
        for _ in range(count):
            height = await self.chain.advance()
            policy = self.network.policy(self.digests)
            until = time.monotonic() + ROUND_SECONDS
            while True:
                try:
                    data = await self.vm.call("ra", "certificate", height, timeout=10.0)
                except CallError as error:
                    data, said = None, str(error)
                else:
                    said = "no certificate yet"
                if isinstance(data, bytes):
                    await asyncio.to_thread(verify_certificate, data, policy, cache=self.cache)
                    self.certified.add(height)
                    say(f"height {height} is certified")
                    break
                if time.monotonic() > until:
                    raise ProcessError(f"height {height} was not certified in {ROUND_SECONDS:g} s: {said}")
                await asyncio.sleep(0.2)

    def _last_words(self) -> str:
        try:
            text = (self.vm.files / "console").read_text(errors="replace")
        except OSError:
            return "the console is empty"
        return "the console's last lines:\n" + "\n".join(text.splitlines()[-15:])


def _prepare_with(text: str, key: Any, bundles: Path, members: dict[str, str]) -> Any:
    """As `prepare`, with an actor that lies among the bundles already."""
    from tea.parent_client.pinning import pin
    from tea.simulator.shipped import Approved
    from tea.trust.approval import approve
    from tea.trust.manifest import parse_manifest

    pinned = pin(text, "manifest.yaml", issuer=key.public, bundles=bundles, members=members)
    manifest = parse_manifest(pinned, "manifest.yaml")
    paths = tuple(bundles / f"{name}-{actor.version}.tea" for name, actor in manifest.actors.items())
    return Approved(manifest, pinned, approve(manifest.canonical(), key), paths)


if __name__ == "__main__":
    sys.exit(main())
