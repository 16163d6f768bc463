"""The manifests that ship run: each is pinned, approved, pushed to a simulated enclave and called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tea.simulator.network import NetworkPlan, running
from tea.simulator.shipped import prepare, shipped
from tea.trust.approval import Approvers
from tea.trust.keys import PrivateKey

CALLS: dict[str, tuple[object, ...]] = {
    "counter": ("counter", "increment", 3),
    "notary": ("notary", "sign", bytes(32)),
    "selftest": ("selftest", "run"),
    "demo": ("ra", "status"),
}


def holds(name: str, answer: Any) -> None:
    if name == "counter":
        assert answer == 3
    elif name == "notary":
        assert len(answer["signature"]) == 64
    elif name == "selftest":
        assert len(answer) > 100
        assert [row for row in answer if not row["ok"]] == []
    else:
        assert (answer["slot"], answer["members"]) == ("e1", 1)


def test_every_manifest_that_ships_is_tried() -> None:
    assert {path.stem for path in shipped("manifests").glob("*.yaml")} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
async def test_a_shipped_manifest_runs(name: str, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    text = shipped(f"manifests/{name}.yaml").read_text()
    (deployment,) = re.findall(r"^deployment: (\S+)$", text, re.MULTILINE)
    plan = NetworkPlan(tmp_path / "net", ("e1",), Approvers(deployment, 1, 1, (key.public,)))
    async with running(plan) as network:
        approved = prepare(text, f"{name}.yaml", key, tmp_path / "bundles", network.members)
        await network.push(approved.envelope, approved.bundles)
        actor, operation, *arguments = CALLS[name]
        holds(name, await network["e1"].call(str(actor), str(operation), *arguments))
