"""The recipes of docs/actors.md and the bundle of docs/thespian.md run, in one real enclave each."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client.building import read_source
from tea.parent_client.stub_source import read_actor
from tea.parent_client.stubs import render
from tea.protocol.errors import CallError, Code
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle

from .documents import ROOT, blocks

_spec = importlib.util.spec_from_file_location("tea_tests_runtime_docs", ROOT / "tests" / "runtime" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_runtime = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _runtime
_spec.loader.exec_module(_runtime)
enclave = _runtime.enclave

ACTORS = {block.file: block.text for block in blocks((ROOT / "docs" / "actors.md").read_text()) if block.file}
THESPIAN = {block.file: block.text for block in blocks((ROOT / "docs" / "thespian.md").read_text()) if block.file}

SOURCE = """
from tea.sdk import Actor, CallError, Code, operation

class Source(Actor):
    @operation
    def price(self, symbol: str) -> int:
        if self.name == "third":
            raise CallError(Code.UNAVAILABLE, "closed")
        return {"first": 10, "second": 20}[self.name]
"""
AGENT = """
from tea.sdk import Actor, operation

class Agent(Actor):
    @operation
    def pay(self, amount: int) -> str:
        return self.vault.pay(amount)
"""


class Kitchen:
    """Puts recipes into an enclave and serves them."""

    def __init__(self, enclave: Any) -> None:
        self.enclave = enclave
        self.links: list[str] = []

    def add(
        self, name: str, entry: str, files: Mapping[str, str], asks: Mapping[str, tuple[str, ...]], *offers: str
    ) -> None:
        capabilities = dict(asks)
        claims = ClaimsInput(
            name=name, version="0.1.0", entry=entry, issued_at=int(time.time()), capabilities=capabilities
        )
        archive = build_archive({file: text.encode() for file, text in files.items()})
        self.enclave.bundles[name] = build_bundle(archive, claims, self.enclave.key)
        if offers:
            self.links.append(f"  - {{from: parent, to: {name}, operations: [{', '.join(offers)}]}}")
        for target, operations in capabilities.items():
            self.links.append(f"  - {{from: {name}, to: {target}, operations: [{', '.join(operations)}]}}")

    async def serve(self, providers: str) -> Any:
        await self.enclave.push(
            self.enclave.manifest(
                links="\n".join(self.links), providers=providers, issuer_capabilities="kvp, clock, crypto, intercom"
            )
        )
        return self.enclave.call


def recipe(name: str) -> dict[str, str]:
    return {f"{name}.py": ACTORS[f"recipes/{name}.py"]}


@pytest.fixture
async def call(enclave: Any) -> Any:
    kitchen = Kitchen(enclave)
    stubs = render(read_actor({"prices.py": recipe("prices")["prices.py"].encode()}, "prices:Prices"), "p", "1", "-")
    kitchen.add("once", "once:Once", recipe("once"), {"kvp": ("compare_and_set",)}, "claim")
    kitchen.add("prices", "prices:Prices", recipe("prices"), {"kvp": ("get", "set")}, "put", "get")
    kitchen.add("buyer", "prices:Buyer", recipe("prices"), {"prices": ("get",)}, "cost")
    sources = dict.fromkeys(("first", "second", "third"), ("price",))
    for name in sources:
        kitchen.add(name, "source:Source", {"source.py": SOURCE}, {})
    kitchen.add("median", "median:Median", recipe("median"), sources, "of")
    kitchen.add("board", "board:Board", recipe("board"), {"first": ("price",)}, "of")
    kitchen.add("heartbeat", "heartbeat:Heartbeat", recipe("heartbeat"), {"clock": ("every",)}, "count", "beat")
    kitchen.add("publisher", "news:Publisher", recipe("news"), {"intercom": ("publish",)}, "publish")
    kitchen.add("reader", "news:Reader", recipe("news"), {"intercom": ("subscribe",)}, "newest")
    kitchen.add("thermometer", "last:Thermometer", recipe("last"), {"intercom": ("publish",)}, "measure")
    kitchen.add("display", "last:Display", recipe("last"), {"intercom": ("subscribe",)}, "shown")
    kitchen.add("worker", "fleet:Worker", recipe("fleet"), {}, "work")
    asks = {"worker": ("status",), "intercom": ("request_all",)}
    kitchen.add("foreman", "fleet:Foreman", recipe("fleet"), asks, "total")
    kitchen.add("vault", "vault:Vault", recipe("vault"), {}, "pay")
    kitchen.add("agent", "agent:Agent", {"agent.py": AGENT}, {"vault": ("pay",)}, "pay")
    kitchen.add(
        "signer",
        "signer:Signer",
        recipe("signer"),
        {"crypto": ("generate", "public_key", "sign")},
        "public_key",
        "sign",
    )
    kitchen.add("sums", "sums:Sums", recipe("sums"), {}, "add", "total")
    shop = recipe("typed") | {"prices_stubs.py": stubs}
    kitchen.add("shop", "typed:Shop", shop, {"prices": ("get", "put")}, "double")
    temperature = "{publish: [thermometer], subscribe: [display], retain: true}"
    topics = f"{{news: {{publish: [publisher], subscribe: [reader]}}, temperature: {temperature}}}"
    return await kitchen.serve(f"  kvp: {{}}\n  clock: {{}}\n  crypto: {{}}\n  intercom: {{topics: {topics}}}")


async def test_every_recipe_of_the_authors_page_works(call: Any, enclave: Any) -> None:
    assert await call("once", "claim", "j") is True
    assert await call("once", "claim", "j") is False

    with pytest.raises(CallError) as refusal:
        await call("prices", "get", "XMR")
    assert refusal.value.code is Code.NOT_FOUND
    await call("prices", "put", {"symbol": "XMR", "units": 300})
    assert await call("buyer", "cost", "XMR", 4) == 1200
    assert await call("shop", "double", "XMR") == 600
    assert (await call("prices", "get", "XMR"))["units"] == 600

    assert await call("median", "of", "XMR") == 15
    assert await call("board", "of", ["XMR"] * 30) == [10] * 30

    with pytest.raises(CallError) as refusal:
        await call("heartbeat", "beat", "forged")
    assert refusal.value.code is Code.DENIED

    await call("publisher", "publish", "hello")
    while not (heard := await call("reader", "newest")):
        pass
    assert heard == ["hello"]

    await call("thermometer", "measure", 20.5)
    assert await call("display", "shown") == 20.5
    display = enclave.host.supervisors["display"]
    os.kill(display.pids[0], signal.SIGKILL)
    while display.restarts == 0:
        await asyncio.sleep(0.005)
    assert await call("display", "shown") == 20.5

    for _ in range(5):
        await call("worker", "work")
    assert await call("foreman", "total") == {"done": 5, "silent": 0}

    assert await call("vault", "pay", 100) == "paid 100 for parent"
    assert await call("agent", "pay", 100) == "paid 100 for agent"
    for name in ("vault", "agent"):
        with pytest.raises(CallError) as refusal:
            await call(name, "pay", 101)
        assert refusal.value.code is Code.DENIED

    assert len(await call("signer", "public_key")) == 32
    assert len(await call("signer", "sign", b"message")) == 64

    for number in (1, 2, 3):
        await call("sums", "add", "x", number)
    assert await call("sums", "total", "x") == 6
    while not await call("heartbeat", "count"):
        pass


async def test_the_parents_program_runs(
    call: Any, enclave: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await call("prices", "put", {"symbol": "XMR", "units": 5})
    stubs = render(
        read_actor({"prices.py": recipe("prices")["prices.py"].encode()}, "prices:Prices"), "prices", "1", "-"
    )
    (tmp_path / "prices_stubs.py").write_text(stubs)
    sys.path.insert(0, str(tmp_path))
    try:
        program: dict[str, Any] = {}
        exec(ACTORS["recipes/parent.py"], program)
        await program["show"](enclave.folder)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("prices_stubs", None)
    assert "Price(symbol='XMR', units=5)" in capsys.readouterr().out


async def test_the_plain_bundle_of_thespians_page_runs(enclave: Any, tmp_path: Path) -> None:
    (tmp_path / "bundle.yaml").write_text(THESPIAN["bundle.yaml"])
    source = read_source(tmp_path / "bundle.yaml")
    kitchen = Kitchen(enclave)
    kitchen.add(source.name, source.entry, {"greeter.py": THESPIAN["greeter.py"]}, {}, "message")
    call = await kitchen.serve("  kvp: {}")
    assert await call("greeter", "message", "Yorick") == ["Greetings, Yorick."]


def test_every_recipe_is_tried() -> None:
    tried = Path(__file__).read_text()
    for file in ACTORS:
        name = Path(file).stem
        assert f'recipe("{name}")' in tried or f'"{file}"' in tried, file
