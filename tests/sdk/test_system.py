"""Loading a bundle through Thespian, behind a Source Authority; pumping what actors send."""

from __future__ import annotations

import builtins
import io
import sys
import zipfile
from collections.abc import Iterator

import msgspec
import pytest

from tea.sdk import Actor, CallError, binding
from tea.sdk.system import PUMP_LIMIT, LoadError, System

IDENTITY = binding.Identity("loaded", 0, "1.0.0", "here", {})
PARENT = binding.Invocation("parent")

ENTRY = '''"""An actor of two modules and a package."""

from __future__ import annotations

import msgspec
from tea.sdk import Actor, operation

import arithmetic
from shapes.square import Square


class Note(msgspec.Struct):
    text: str
    next: Note | None = None


class Helper(Actor):
    def on_message(self, message, sender):
        self.send(sender, message + " heard")


class Entry(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.heard = []

    def on_message(self, message, sender) -> None:
        self.heard.append(message)
        if message == "again":
            self.send(self.myAddress, "again")

    @operation
    def area(self, side: int) -> int:
        import arithmetic as late

        return late.add(Square(side).area(), arithmetic.ZERO)

    @operation
    def wrap(self, note: Note) -> Note:
        return Note("wrapped", note)

    @operation
    def help(self) -> None:
        self.send(self.createActor(Helper), "word")

    @operation
    def never_rest(self) -> None:
        self.send(self.myAddress, "again")


class NoActor:
    pass


class Broken(Actor):
    @operation
    async def later(self) -> int:
        return 1


class Exploding(Actor):
    def __init__(self):
        raise ValueError("not today")
'''
FILES = {
    "entry.py": ENTRY,
    "arithmetic.py": "ZERO = 0\n\n\ndef add(a, b):\n    return a + b\n",
    "shapes/__init__.py": "",
    "shapes/square.py": (
        "from .base import Shape\n\n\nclass Square(Shape):\n    def area(self):\n        return self.side ** 2\n"
    ),
    "shapes/base.py": "class Shape:\n    def __init__(self, side):\n        self.side = side\n",
    "wrong.py": "this is no python\n",
    "raising.py": "raise ValueError('at import')\n",
}


class NoCaller:
    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        raise AssertionError("nothing is called here")

    def tell(self, link: int, operation: int, body: bytes) -> None:
        raise AssertionError("nothing is told here")


def archive(**more: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, text in {**FILES, **more}.items():
            target.writestr(name, text)
    return out.getvalue()


def verify(bundle: bytes) -> bytes:
    """Stands for `trust.bundle`: a bundle is SIGNED and then the archive."""
    if not bundle.startswith(b"SIGNED"):
        raise PermissionError("the signature does not hold")
    return bundle.removeprefix(b"SIGNED")


@pytest.fixture
def bound() -> None:
    binding.bind(IDENTITY, (), NoCaller())


@pytest.fixture
def system(bound: None) -> Iterator[System]:
    system = System.load(b"SIGNED" + archive(), "entry:Entry", verify)
    system.start()
    yield system
    system.stop()


def call(system: System, name: str, *args: object) -> object:
    return msgspec.msgpack.decode(binding.dispatch(system.instance, name, msgspec.msgpack.encode(args), PARENT))


def test_a_bundle_of_several_modules_becomes_an_actor(system: System) -> None:
    assert call(system, "area", 3) == 9
    assert isinstance(system.instance, Actor)
    assert binding.current() is system.instance


def test_structs_that_the_bundle_defines_travel(system: System) -> None:
    note = {"text": "a", "next": None}
    assert call(system, "wrap", note) == {"text": "wrapped", "next": note}


def test_children_from_the_bundle_are_created_and_heard(system: System) -> None:
    call(system, "help")
    while system.next_wakeup() == 0.0:
        system.pump()
    assert system.instance.heard == ["word heard"]


def test_the_bundles_modules_do_not_become_the_processs(system: System) -> None:
    assert not {"entry", "arithmetic", "shapes", "shapes.square"} & sys.modules.keys()


def test_builtin_import_is_the_processs_own_again(bound: None) -> None:
    before = builtins.__import__
    system = System.load(b"SIGNED" + archive(), "entry:Entry", verify)
    assert builtins.__import__ is before
    with pytest.raises(LoadError):
        System.load(b"SIGNED" + archive(), "raising:Entry", verify)
    assert builtins.__import__ is before
    system.stop()


def test_a_bundle_that_does_not_verify_is_not_loaded(bound: None) -> None:
    with pytest.raises(PermissionError, match="signature"):
        System.load(b"FORGED" + archive(), "entry:Entry", verify)


def test_nothing_of_a_refused_bundle_runs(bound: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PermissionError):
        System.load(b"FORGED" + archive(**{"entry.py": "print('running')"}), "entry:Entry", verify)
    assert "running" not in capsys.readouterr().out


def test_verify_is_given_the_whole_bundle_once(bound: None) -> None:
    seen: list[bytes] = []

    def spy(bundle: bytes) -> bytes:
        seen.append(bundle)
        return verify(bundle)

    bundle = b"SIGNED" + archive()
    System.load(bundle, "entry:Entry", spy).stop()
    assert seen == [bundle]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("entry", "expected module:Class"),
        ("entry:", "expected module:Class"),
        (":Entry", "expected module:Class"),
        ("entry:Entry.x", "expected module:Class"),
        ("entry:Nothing", "no attribute 'Nothing'"),
        ("nothing:Entry", "No module named"),
        ("entry:NoActor", "no subclass of tea.sdk.Actor"),
        ("entry:Note", "cannot be created"),
        ("entry:Broken", "async"),
        ("entry:Exploding", "not today"),
        ("wrong:Entry", "invalid syntax"),
        ("raising:Entry", "at import"),
        ("os:getcwd", "cannot be created"),
    ],
)
def test_an_entry_that_is_no_actor_says_what_is_wrong(bound: None, entry: str, why: str) -> None:
    with pytest.raises(LoadError, match=why):
        System.load(b"SIGNED" + archive(), entry, verify)


def test_an_archive_that_is_no_zip_is_refused(bound: None) -> None:
    with pytest.raises(LoadError, match="zip"):
        System.load(b"SIGNED" + b"PK nothing", "entry:Entry", verify)


def test_an_actor_that_never_rests_leaves_room_for_calls(system: System) -> None:
    call(system, "never_rest")
    assert system.pump() == PUMP_LIMIT
    assert system.next_wakeup() == 0.0, "there is more, and the worker looks at its socket first"
    assert call(system, "area", 2) == 4
    assert system.pump(5) == 5


def test_an_actor_at_rest_waits_for_nothing(system: System) -> None:
    assert system.next_wakeup() is None
    assert system.pump() == 0


def test_stop_ends_the_entry_actor(bound: None) -> None:
    system = System.load(b"SIGNED" + archive(), "entry:Entry", verify)
    assert system.alive
    system.start()
    system.stop()
    assert not system.alive
    assert binding.current() is None


def test_two_versions_live_side_by_side(bound: None) -> None:
    first = System.load(b"SIGNED" + archive(), "entry:Entry", verify)
    second = System.load(
        b"SIGNED" + archive(**{"arithmetic.py": "ZERO = 100\nadd = int.__add__\n"}), "entry:Entry", verify
    )
    assert call(first, "area", 3) == 9
    assert call(second, "area", 3) == 109
    first.stop()
    second.stop()


def test_an_on_start_that_refuses_is_heard(bound: None) -> None:
    text = (
        "from tea.sdk import Actor, CallError, Code\n\n\nclass Entry(Actor):\n"
        "    def on_start(self):\n        raise CallError(Code.UNAVAILABLE, 'no key yet')\n"
    )
    system = System.load(b"SIGNED" + archive(**{"entry.py": text}), "entry:Entry", verify)
    with pytest.raises(CallError, match="no key yet"):
        system.start()
