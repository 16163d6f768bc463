"""The demo: a network that certifies a chain's state block by block, names who was lied to, and bears a crash.

May not: tell the enclaves anything that a real parent could not, or leave a process behind. Rule: docs/architecture.md,
"The demo".
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

from tea.parent_client.keys import development_key
from tea.protocol.errors import CallError
from tea.trust.approval import Approvers

from .chain_feed import FollowedChain, embedded, follow
from .demo_harvest import CERTIFICATES, EVIDENCE, Harvest, Harvester
from .demo_plan import DemoPlan
from .demo_result import DemoResult, find_problems
from .demo_state import DemoState
from .demo_watch import DemoWatch
from .demo_words import listed
from .network import NetworkPlan, SimulatedNetwork, Tampering, running
from .processes import ProcessError
from .shipped import Approved, prepare, shipped

BASELINE_SECONDS: Final = 60.0
"""For the first round, on a machine that is busy with starting everything."""
KEEP_UP_SECONDS: Final = 10.0
"""How long a block waits for enclaves that are behind, at most."""


async def run_demo(plan: DemoPlan, state: DemoState) -> DemoResult:
    """Run one demo from nothing to nothing. Raises `ProcessError` and `CallError` when it cannot be set up."""
    out = plan.out
    clear(out)
    state.event("step", f"seed {plan.seed}: building bundles, starting the chain")
    folder = out / "network"
    chain = await (embedded(folder, plan.seed, tied=True) if plan.chain is None else follow(plan.chain))
    try:
        state.base = chain.start
        key = development_key()
        text = shipped("manifests/demo.yaml").read_text()
        deployment = re.findall(r"^deployment: (\S+)$", text, re.MULTILINE)[0]
        lies_from = state.height_of(plan.lies_from)
        network_plan = NetworkPlan(
            folder=folder,
            names=plan.names,
            approvers=Approvers(deployment, 1, 1, (key.public,)),
            feed=chain.feed,
            tampering={name: Tampering(lies_from, plan.seed + at) for at, name in enumerate(plan.tampered)},
        )
        state.event("step", f"starting {plan.enclaves} enclaves, each with a parent of its own")
        async with running(network_plan) as network:
            text = re.sub(r"layer1: \{start: \d+", f"layer1: {{start: {chain.start}", text)
            approved = prepare(text, "manifests/demo.yaml", key, out / "bundles", network.members)
            (out / "manifest.yaml").write_text(approved.text)
            policy = out / "policy.yaml"
            policy.write_text(network.policy([approved.manifest.digest]).to_yaml())
            demo = _Demo(plan, state, network, chain, approved, policy)
            harvest = await demo.run()
            result = DemoResult(
                state,
                harvest,
                f"sha384:{approved.manifest.digest.hex()}",
                chain.url if plan.chain else "embedded",
                chain.token,
                policy,
                state.now,
            )
    finally:
        await chain.close()
    result.problems = find_problems(result)
    return result


def clear(out: Path) -> None:
    """Take away what an earlier demo left in the folder, and nothing else."""
    for pattern in (f"{CERTIFICATES}/*.cbor", f"{EVIDENCE}/*.cbor", "network/*/*.console", "network/*/log.jsonl*"):
        for path in out.glob(pattern):
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)


class _Demo:
    """The timeline, on a network that is up."""

    def __init__(
        self,
        plan: DemoPlan,
        state: DemoState,
        network: SimulatedNetwork,
        chain: FollowedChain,
        approved: Approved,
        policy: Path,
    ) -> None:
        self.plan = plan
        self.state = state
        self.network = network
        self.chain = chain
        self.approved = approved
        self.policy = policy
        self.watch = DemoWatch(network, state)
        self.restarting: asyncio.Task[None] | None = None

    async def run(self) -> Harvest:
        """Push, mine, tamper, kill, wait, collect."""
        for name in self.plan.names:
            self._awaits(name)
        self.state.event("step", "pushing the approved manifest to all")
        await asyncio.gather(*(self._push(name) for name in self.plan.names))
        self.watch.start()
        try:
            await self._baseline()
            self.watch.start_calls()
            await self._blocks()
            await self._settle()
            await self.watch.stop_calls()
            self.state.event("step", "collecting certificates and evidence, checking each offline")
            harvester = Harvester(self.network, self.state, self.plan.out, self.policy)
            harvest = await harvester.collect()
            await self._settle_figures()
        finally:
            if self.restarting is not None:
                self.restarting.cancel()
                await asyncio.gather(self.restarting, return_exceptions=True)
            await self.watch.close()
        self.state.event("step", "ending the network")
        return harvest

    def _awaits(self, name: str) -> None:
        view = self.state.enclaves[name]
        view.phase, view.module_id = "awaiting settings", self.network[name].module_id
        view.boots += 1

    async def _push(self, name: str) -> None:
        view = self.state.enclaves[name]
        view.phase = "starting actors"
        await self.network.push(self.approved.envelope, self.approved.bundles, [name])
        view.phase = "ready"

    async def _baseline(self) -> None:
        """The height before the first block: certified by all, so everything works before anything goes wrong."""
        first = self.state.mined(self.chain.start)
        until = self.state.now + BASELINE_SECONDS
        while len(first.holders) < self.plan.enclaves:
            if self.state.now > until:
                waiting = [name for name in self.plan.names if name not in first.holders]
                raise ProcessError(
                    f"{listed(waiting)} did not certify height {first.height} within {BASELINE_SECONDS:g} s: look at "
                    f"{self.network.folder}"
                )
            await self.watch.changed(1.0)

    async def _blocks(self) -> None:
        plan, state = self.plan, self.state
        height = self.chain.start
        for number in range(1, plan.blocks + 1):
            if self.restarting is not None and number >= plan.back_before:
                await self.restarting
            if number == plan.lies_from and plan.tampered:
                parents = f"parent{'s' if plan.tamper > 1 else ''} of {listed(plan.tampered)}"
                text = f"from height {state.height_of(number)} on the {parents} {'lie' if plan.tamper > 1 else 'lies'}"
                state.event("fault", text, state.height_of(number))
            due = state.now + plan.pace
            await self._keep_up(height)
            while height < state.height_of(number):
                height = await self.chain.advance()
                for found in range(max(state.rounds) + 1, min(height, state.height_of(plan.blocks)) + 1):
                    state.mined(found)
            await asyncio.sleep(max(0.0, due - state.now))
            if plan.killed is not None and number == plan.kill_after:
                await self._kill(plan.killed)
            if plan.killed is not None and number == plan.restart_after:
                self.restarting = asyncio.create_task(self._restart(plan.killed))
        if self.restarting is not None:
            await self.restarting

    async def _keep_up(self, height: int) -> None:
        """Wait for enclaves that have not seen a height yet; a machine may be slower than the pace."""
        until = self.state.now + KEEP_UP_SECONDS
        while self.state.now < until:
            behind = [one for one in self.state.enclaves.values() if one.alive and (one.height or 0) < height]
            if not behind:
                return
            await self.watch.changed(0.5)

    async def _kill(self, name: str) -> None:
        view = self.state.enclaves[name]
        view.phase = "killed"
        view.verified_before += view.verified
        view.verified = 0
        view.height = None
        for found in self.state.rounds.values():
            found.holders.discard(name)
        await self.network[name].kill_host()
        self.state.event("fault", f"{name} is killed (SIGKILL): its memory is gone", max(self.state.rounds))

    async def _restart(self, name: str) -> None:
        view = self.state.enclaves[name]
        view.phase = "starting"
        await self.network.restart_host(name)
        self._awaits(name)
        await self._push(name)
        self.state.event("good", f"{name} is back, as a fresh enclave: {view.module_id}", max(self.state.rounds))

    async def _settle(self) -> None:
        """Wait until every honest member holds every certificate; give up when nothing has come for long."""
        honest = {name for name in self.plan.names if name not in self.plan.tampered}
        state, held, until = self.state, -1, 0.0
        while True:
            now_held = sum(len(one.holders & honest) for one in state.blocks)
            if now_held == len(honest) * self.plan.blocks:
                state.event("good", "every honest member holds the certificate of every block")
                return
            if now_held > held:
                held, until = now_held, state.now + self.plan.patience
            elif state.now > until:
                state.event("fault", "some rounds stay open: given up")
                return
            await self.watch.changed(1.0)

    async def _settle_figures(self) -> None:
        """The last figures, of what was verified meanwhile."""
        for name, view in self.state.enclaves.items():
            try:
                status = await self.network[name].call("ra", "status", timeout=10.0)
            except CallError:
                continue
            view.verified = int(status["attestations_verified"])
