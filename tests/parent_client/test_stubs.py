"""Typed clients out of a bundle: what they are, that they work, and that nothing of the bundle is run to make them."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tea.parent_client.building import build
from tea.parent_client.refusal import Refusal
from tea.parent_client.stub_source import read_actor
from tea.parent_client.stubs import render, stubs_of
from tea.sdk import Actor, operation
from tea.sdk.testing import run_actor
from tea.trust.keys import PrivateKey

LEDGER = '''
"""Runs when it is imported: stubs must not."""
from __future__ import annotations

import enum
import pathlib
from typing import TYPE_CHECKING, Annotated

import msgspec

from records import Entry, Money
from tea.sdk import operation as op

if TYPE_CHECKING:
    from tea.sdk import Link

from base import Base

pathlib.Path("RAN").write_text("it was run")

LIMIT = 4 * 16


class Side(enum.StrEnum):
    BUY = "buy"
    SELL = "sell"

    def other(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class Ledger(Base):
    """Keeps entries. A "quoted" word, and a \\\\ too."""

    bank: Link

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @op
    def add(self, text: Annotated[str, msgspec.Meta(max_length=9)], money: "Money", side: Side = Side.BUY) -> int:
        """Add one; how many there are."""
        self.entries.append(Entry(text, money, side.value))
        return len(self.entries)

    @op
    def newest(self, most: int = LIMIT) -> list[Entry]:
        return self.entries[-most:]

    @op
    def tell(self) -> None:
        """A name that links use themselves."""

    @op(only_from=("parent",))
    def secret(self) -> bytes:
        return b"s"

    @op(only_from=("provider:clock",))
    def tick(self, token: str) -> None: ...

    def version_of(self, name: str) -> "dict[str, tuple[int, ...]]":
        return {name: (1, 2)}

    def not_offered(self) -> int:
        return 0
'''
RECORDS = '''
import msgspec


class Money(msgspec.Struct, frozen=True):
    """An amount."""

    cents: int
    currency: str = "EUR"

    def __str__(self) -> str:
        return open("/etc/passwd").read()


class Entry(msgspec.Struct):
    text: str
    money: "Money"
    side: str
    before: "Entry | None" = None
'''
BASE = '''
from tea.sdk import Actor, operation


class Base(Actor):
    @operation
    def version_of(self, name: str) -> "dict[str, tuple[int, ...]]":
        """What a base declares, an override keeps."""
        raise NotImplementedError
'''
FILES = {"ledger.py": LEDGER.encode(), "records.py": RECORDS.encode(), "base.py": BASE.encode()}
ENTRY = "ledger:Ledger"


def made(tmp_path: Path, files: dict[str, bytes] = FILES, entry: str = ENTRY) -> ModuleType:
    path = tmp_path / "ledger_stubs.py"
    path.write_text(render(read_actor(files, entry), "ledger", "0.1.0", "sha256:00"))
    spec = importlib.util.spec_from_file_location("ledger_stubs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ledger_stubs"] = module
    spec.loader.exec_module(module)
    return module


def one_file(text: str, operation_: str = "def go(self) -> int: ...") -> dict[str, bytes]:
    source = f"""
from tea.sdk import Actor, operation
{textwrap.dedent(text)}
class One(Actor):
    @operation
    {operation_}
"""
    return {"one.py": source.encode()}


def test_they_pass_the_strictest_checker(tmp_path: Path) -> None:
    made(tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "ledger_stubs.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + (tmp_path / "ledger_stubs.py").read_text()


def test_nothing_of_the_bundle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path)
    assert not (tmp_path / "RAN").exists()


def test_data_comes_along_without_its_methods(tmp_path: Path) -> None:
    stubs = made(tmp_path)
    money = stubs.Money(5)
    assert (money.cents, money.currency) == (5, "EUR")
    assert "open" not in (tmp_path / "ledger_stubs.py").read_text()
    assert not hasattr(stubs.Side.BUY, "other")


def test_who_may_call_what_is_seen_in_the_classes(tmp_path: Path) -> None:
    stubs = made(tmp_path)

    def operations(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert operations(stubs.LedgerLink) == {"add", "newest", "tell", "version_of"}
    assert operations(stubs.LedgerClient) == {"add", "newest", "tell", "version_of", "secret"}


def test_another_actor_calls_through_them(tmp_path: Path) -> None:
    stubs = made(tmp_path)
    records, base = ModuleType("records"), ModuleType("base")
    exec(RECORDS, vars(records))
    exec(BASE, vars(base))
    before = {name: sys.modules.get(name) for name in ("records", "base")}
    sys.modules.update(records=records, base=base)
    try:
        actor = ModuleType("ledger")
        sys.modules["ledger"] = actor
        exec(LEDGER.replace('pathlib.Path("RAN")', f"pathlib.Path({str(tmp_path / 'RAN')!r})"), vars(actor))
        assert stubs is not None

        class Broker(Actor):
            @operation
            def trade(self) -> object:
                ledger = stubs.LedgerLink(self.links["ledger"])
                assert ledger.add("one", stubs.Money(100)) == 1
                assert ledger.add("two", stubs.Money(7, "CHF"), stubs.Side.SELL) == 2
                assert ledger.tell() is None
                assert ledger.version_of("x") == {"x": (1, 2)}
                newest = ledger.newest()
                assert isinstance(newest[1], stubs.Entry)
                return [(entry.text, entry.money.cents, entry.side) for entry in newest]

        def run() -> Any:
            with (
                run_actor(actor.Ledger) as ledger,
                run_actor(Broker, links={"ledger": True}, providers={"ledger": ledger}) as broker,
            ):
                return broker.call("trade")

        assert run() == [["one", 100, "buy"], ["two", 7, "sell"]]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        del sys.modules["ledger"]


def test_the_parent_calls_through_them(tmp_path: Path) -> None:
    stubs = made(tmp_path)
    asked: list[tuple[object, ...]] = []

    class Client:
        async def ask(self, name: str, *args: object) -> Any:
            asked.append((name, *args))
            return msgspec.msgpack.encode([{"text": "a", "money": {"cents": 3}, "side": "buy"}])

    newest = asyncio.run(stubs.LedgerClient(Client()).newest(2))
    assert newest == [stubs.Entry("a", stubs.Money(3), "buy")]
    assert asked == [("call", "ledger", "newest", msgspec.msgpack.encode((2,)))]


async def test_the_parents_class_calls_a_real_enclave(tmp_path: Path, enclave: Any) -> None:
    source = """
from tea.sdk import Actor, operation
import msgspec

class Pair(msgspec.Struct):
    one: int
    two: str

class Pairs(Actor):
    @operation
    def swap(self, pair: Pair) -> list[Pair]:
        return [Pair(int(pair.two), str(pair.one))]
"""
    enclave.bundle("pairs", source, "Pairs")
    await enclave.push(enclave.manifest(links="  - {from: parent, to: pairs, operations: [swap]}"))
    stubs = made(tmp_path, {"pairs.py": source.encode()}, "pairs:Pairs")

    class Client:
        async def ask(self, name: str, *args: Any) -> Any:
            return await getattr(enclave.client, name)(*args)

    assert await stubs.PairsClient(Client(), "pairs").swap(stubs.Pair(1, "2")) == [stubs.Pair(2, "1")]


def test_a_bundle_and_its_project_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    for name, data in FILES.items():
        (tmp_path / "project" / name).write_bytes(data)
    description = tmp_path / "project" / "bundle.yaml"
    description.write_text(f"tea: bundle/1\nname: ledger\nversion: 0.1.0\nentry: {ENTRY}\n")
    built = build(description, PrivateKey.generate(), tmp_path)
    assert stubs_of(built.path) == stubs_of(tmp_path / "project")


def test_a_bundle_with_another_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_bytes(one_file("")["one.py"])
    description = tmp_path / "bundle.yaml"
    description.write_text("tea: bundle/1\nname: one\nversion: 0.1.0\nentry: one:One\n")
    built = build(description, PrivateKey.generate(), tmp_path)
    built.path.write_bytes(built.path.read_bytes().replace(b"def go", b"def no"))
    with pytest.raises(Refusal, match="another archive"):
        stubs_of(built.path)


def test_an_actor_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle.yaml").write_text("tea: bundle/1\nname: one\nversion: 0.1.0\nkind: wasm\nentry: one.wasm\n")
    with pytest.raises(Refusal, match="of the kind wasm"):
        stubs_of(tmp_path)


def test_an_actor_of_plain_thespian_has_its_one_operation() -> None:
    source = (
        "from thespian.actors import ActorTypeDispatcher as D\nclass P(D):\n    def receiveMsg_str(self, m, s): ...\n"
    )
    actor = read_actor({"p.py": source.encode()}, "p:P")
    assert [one.name for one in actor.operations] == ["message"]


@pytest.mark.parametrize(
    ("text", "signature", "why"),
    [
        ("", "def go(self, by=1) -> int: ...", "has no type"),
        ("", "def go(self) : ...", "a type for each"),
        ("", "def go(self, *, by: int) -> int: ...", "plain parameters"),
        ("", "def go(self, by: int = compute()) -> int: ...", "without running it"),
        ("", "def go(self, by: __import__('os').sep = 1) -> int: ...", "without running it"),
        ("", "def go(self, by: (lambda: 1)() = 1) -> int: ...", "without running it"),
        ("", "def go(self, by: int = [x for x in y]) -> int: ...", "without running it"),
        ("", "def go(self, by: int = 1 << 10**10) -> int: ...", "without running it"),
        ("", "def go(self, by: int = 9**9) -> int: ...", "without running it"),
        ("", "def go(self, by: str = 'a' * 99) -> int: ...", "without running it"),
        ("", "def go(self, by: int.__class__) -> int: ...", "without running it"),
        ("", "def go(self, by: Nowhere) -> int: ...", "no definition of Nowhere"),
        ("import os", "def go(self, by: os.PathLike) -> int: ...", "the module os"),
        ("from antigravity import fly", "def go(self, by: fly) -> int: ...", "the module antigravity"),
        ("class Odd:\n    x: int", "def go(self, by: Odd) -> int: ...", "expected a msgspec.Struct"),
        ("T = open('x').read()", "def go(self, by: T) -> int: ...", "without running it"),
        ("def T(): ...", "def go(self, by: T) -> int: ...", "no definition of T"),
        (
            "import msgspec\nclass S(msgspec.Struct, tag=print('x')):\n    x: int",
            "def go(self, by: S) -> int: ...",
            "without running it",
        ),
        (
            "import msgspec\nclass S(msgspec.Struct):\n    x: int = exit()",
            "def go(self, by: S) -> int: ...",
            "without running it",
        ),
        (
            "import msgspec\nclass S(msgspec.Struct, metaclass=M):\n    x: int",
            "def go(self, by: S) -> int: ...",
            "other bases",
        ),
        (
            "import dataclasses\n@dataclasses.dataclass\n@print\nclass S:\n    x: int",
            "def go(self, by: S) -> int: ...",
            "other bases",
        ),
        ("from enum import sys", "def go(self, by: sys) -> int: ...", "the module enum"),
        ("", "def go(self, by: object = exit) -> int: ...", "no definition of exit"),
        (
            "import msgspec\nimport typing\nclass S(msgspec.Struct):\n    x: int = "
            "msgspec.field(default_factory=typing.sys.exit)",
            "def go(self, by: S) -> int: ...",
            "without running it",
        ),
        (
            "import msgspec\nclass S(msgspec.Struct):\n    x: int = msgspec.field(default_factory=exit)",
            "def go(self, by: S) -> int: ...",
            "without running it",
        ),
    ],
)
def test_what_cannot_be_read_off_the_source_is_refused(text: str, signature: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        read_actor(one_file(text, signature), "one:One")


@pytest.mark.parametrize(
    ("files", "entry", "why"),
    [
        ({"one.py": b"x ="}, "one:One", "is no Python"),
        ({"one.py": b"\x00"}, "one:One", "is no Python"),
        ({"one.py": b"("}, "two:One", "found no class One"),
        ({"one.py": b"class One: ..."}, "one:One", "no base that is an Actor"),
        ({"one.py": b"class One(One): ..."}, "one:One", "found no class"),
    ],
)
def test_an_entry_that_is_no_actor_is_refused(files: dict[str, bytes], entry: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        read_actor(files, entry)


def test_whatever_a_docstring_holds_it_stays_one() -> None:
    doc = 'x """ + exit() + """ \\'
    source = f"from tea.sdk import Actor, operation\nclass One(Actor):\n    {doc!r}\n    @operation\n"
    source += f"    def go(self) -> int:\n        {doc!r}\n"
    rendered = render(read_actor({"one.py": source.encode()}, "one:One"), "one", "0.1.0", "sha256:00")
    assert not [
        node for node in ast.walk(ast.parse(rendered)) if isinstance(node, ast.Call) and "exit" in ast.dump(node.func)
    ]


def test_the_command_writes_them(teactl: Any) -> None:
    assert teactl("actor", "new", "tally").status == 0
    ran = teactl("bundle", "stubs", "tally", "--out", "tally_stubs.py", "--json")
    assert ran.json["path"] == "tally_stubs.py"
    assert "class TallyClient" in (teactl.folder / "tally_stubs.py").read_text()
