"""The short way through Thespian's loader ends where the long one does: same modules, same instance, same refusals.

Each way has a process of its own: Thespian's loader is process-wide. Rule: `sdk/thespian_loading.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys
from tea.sdk import binding, system as module, thespian_loading
from tea.trust.archive import build_archive

way, entry, files = json.loads(sys.argv[1])
if way == "long":
    thespian_loading.install = lambda: None

class Nobody:
    def call(self, *rest): raise AssertionError
    def tell(self, *rest): raise AssertionError

binding.bind(binding.Identity("one", 0, "0.1.0", "test", {}), (), Nobody())
archive = build_archive({name: text.encode() for name, text in files.items()})

def plain(value):
    return value if value is None or isinstance(value, (str, list)) else type(value).__name__

def shown(name):
    found = sys.modules[name]
    spec = found.__spec__
    return {
        **{key: plain(getattr(found, key, "none")) for key in ("__name__", "__package__", "__path__", "__file__")},
        "loader": type(found.__loader__).__name__,
        "spec": [spec.name, type(spec.loader).__name__, spec.origin, spec.submodule_search_locations, spec.parent],
        "names": sorted(key for key in vars(found) if not key.startswith("__")),
    }

try:
    made = module.System.load(b"bundle", entry, lambda bundle: archive)
except Exception as error:
    outcome = [type(error).__name__, str(error), type(error.__cause__).__name__]
else:
    one = made.instance
    kind = type(one)
    outcome = [kind.__name__, kind.__module__, sorted(binding.operations(kind)), getattr(one, "seen", None)]
modules = {name: shown(name) for name in sorted(sys.modules) if name.startswith("{{")}
print(json.dumps([outcome, modules]))
"""
ACTOR = """
from tea.sdk import Actor, operation

class One(Actor):
    @operation
    def work(self, value: int) -> int:
        return value
"""
ARGUMENTS = """
    def __init__(self, capabilities, requirements=None):
        self.seen = [type(capabilities).__name__, str(requirements)]
"""
THESPIAN = """
from thespian.actors import Actor

class One(Actor):
    def receiveMessage(self, message, sender):
        pass
"""
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("one:One", {"one.py": ACTOR}),
    "future": ("one:One", {"one.py": "from __future__ import annotations\n" + ACTOR}),
    "own import": ("one:One", {"one.py": "import helper\nfrom helper import X as Y\n" + ACTOR, "helper.py": "X = 1\n"}),
    "package import": (
        "one:One",
        {
            "one.py": "from parts import deep\n" + ACTOR,
            "parts/__init__.py": "",
            "parts/deep.py": "from . import __name__ as n\n",
        },
    ),
    "entry in a package": ("parts.one:One", {"parts/__init__.py": "", "parts/one.py": ACTOR}),
    "entry is a package": ("parts:One", {"parts/__init__.py": ACTOR}),
    "computed import": (
        "one:One",
        {
            "one.py": ACTOR + "    seen = [__import__('helper').X, __import__('json').__name__]\n",
            "helper.py": "X = 'own'\n",
        },
    ),
    "computed package": (
        "one:One",
        {
            "one.py": ACTOR + "    seen = __import__('parts.deep', fromlist=['X']).X\n",
            "parts/__init__.py": "",
            "parts/deep.py": "X = 'deep'\n",
        },
    ),
    "relative name elsewhere": ("one:One", {"one.py": "import json.decoder\n" + ACTOR}),
    "no such import": ("one:One", {"one.py": "import nowhere\n" + ACTOR}),
    "own import fails": ("one:One", {"one.py": "import helper\n" + ACTOR, "helper.py": "import nowhere\n"}),
    "syntax": ("one:One", {"one.py": "def broken(:\n" + ACTOR}),
    "raises": ("one:One", {"one.py": "raise ValueError('at import')\n"}),
    "no such class": ("one:Other", {"one.py": ACTOR}),
    "no such module": ("other:One", {"one.py": ACTOR}),
    "arguments": ("one:One", {"one.py": ACTOR + ARGUMENTS}),
    "unknown argument": ("one:One", {"one.py": ACTOR + "    def __init__(self, more):\n        pass\n"}),
    "any arguments": (
        "one:One",
        {"one.py": ACTOR + "    def __init__(self, *args, **named):\n        self.seen = sorted(named)\n"},
    ),
    "no actor": ("one:One", {"one.py": "class One:\n    pass\n"}),
    "plain Thespian": ("one:One", {"one.py": THESPIAN}),
}


def load(way: str, case: str) -> Any:
    entry, files = CASES[case]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([way, entry, files])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_both_ways_end_alike(case: str) -> None:
    assert load("short", case) == load("long", case)
