"""A new actor's project: its class, its tests, what goes into a bundle, a manifest and a page, ready to run.

May not: overwrite a file. Rule: docs/actors.md, "A new project".
"""

from __future__ import annotations

import builtins
import keyword
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tea.trust import names
from tea.trust.archive import build_archive
from tea.trust.claims import BundleError

from .files import write_new
from .refusal import Refusal

MANIFEST: Final = "manifest.yaml"

_ACTOR: Final = '''"""NAME: counts how often it has greeted whom."""

from tea.sdk import Actor, CallError, Code, Link, operation


class CLASS(Actor):
    """Greets by name. The counts live in kvp, so they outlive this worker, and all replicas share them."""

    kvp: Link

    @operation
    def greet(self, name: str) -> str:
        """A greeting for `name`. Raises INVALID on an empty name."""
        if not name:
            raise CallError(Code.INVALID, "a name has at least one character")
        times = self.kvp.incr(f"greeted/{name}", 1)
        return f"Hello, {name}, for the {times}. time"

    @operation
    def greeted(self, name: str) -> int:
        """How often `name` was greeted."""
        return int(self.kvp.get(f"greeted/{name}") or b"0")
'''
_TEST: Final = """import pytest
from tea.sdk import CallError, Code
from tea.sdk.testing import run_actor

from MODULE import CLASS

LINKS = {"kvp": ["get", "incr"]}


def test_it_counts_by_name() -> None:
    with run_actor(CLASS, links=LINKS) as actor:
        assert actor.call("greet", "Ann") == "Hello, Ann, for the 1. time"
        assert actor.call("greet", name="Ann") == "Hello, Ann, for the 2. time"
        assert actor.call("greeted", "Ann") == 2
        assert actor.call("greeted", "Bob") == 0


def test_nobody_has_no_name() -> None:
    with run_actor(CLASS, links=LINKS) as actor:
        with pytest.raises(CallError) as refusal:
            actor.call("greet", "")
        assert refusal.value.code is Code.INVALID


def test_the_counts_survive_a_crash() -> None:
    with run_actor(CLASS, links=LINKS) as actor:
        actor.call("greet", "Ann")
        actor.restart(crash=True)
        assert actor.call("greeted", "Ann") == 1
"""
_BUNDLE: Final = """tea: bundle/1
name: NAME
version: 0.1.0
entry: MODULE:CLASS
sdk: ">=0.1,<0.2"
capabilities:
  kvp: [get, incr]
"""
_MANIFEST: Final = """# What may run, and who may call what. `teactl manifest pin` fills in each `pin`.
tea: manifest/1
deployment: development
revision: 1
sandbox: prefer
issuers:
  dev: {key: pin, actors: [NAME], capabilities: [kvp]}
providers:
  kvp: {}
actors:
  NAME: {version: 0.1.0, bundle: pin, issuer: dev}
links:
  - {from: parent, to: NAME, operations: [greet, greeted]}
  - {from: NAME, to: kvp, operations: [get, incr]}
"""
_README: Final = """# NAME

An actor for tea-runtime: greets by name, and counts how often.

| operation | what it does |
| --- | --- |
| `greet(name: str) -> str` | a greeting; `INVALID` on an empty name |
| `greeted(name: str) -> int` | how often a name was greeted |

It needs a link to `kvp` with `get` and `incr`.

```sh
pytest -p no:asyncio .        # its tests, without an enclave
teactl dev .                  # a simulated enclave that runs it, upgraded on every save

# in another terminal, in the same folder
teactl call --network dev NAME greet '["Ann"]'
```

By hand, step by step:

```sh
teactl bundle build --development bundle.yaml
teactl sim up
teactl manifest pin manifest.yaml --out build/manifest.yaml
teactl manifest approve build/manifest.yaml --development --out build/manifest.approved
teactl push build/manifest.approved
teactl call NAME greet '{"name": "Ann"}'
```
"""


@dataclass(frozen=True)
class NewProject:
    """What was made."""

    folder: Path
    files: tuple[Path, ...]


def new_project(name: str, folder: Path) -> NewProject:
    """Write a project for an actor into a folder that is new or empty. Raises `Refusal` on a name that no actor may
    have, or a folder with something in it.
    """
    if not names.is_name(name) or name in names.RESERVED_NAMES:
        raise Refusal(
            f"found the name {name[:80]!r}, expected {names.NAME_MEND}, and none of "
            f"{', '.join(sorted(names.RESERVED_NAMES))}: choose another"
        )
    module, class_name = name.replace("-", "_"), "".join(part.capitalize() for part in name.split("-"))
    files = {
        f"{module}.py": _ACTOR,
        f"test_{module}.py": _TEST,
        "bundle.yaml": _BUNDLE,
        MANIFEST: _MANIFEST,
        "README.md": _README,
    }
    _require_module(name, module, class_name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refusal(f"{folder} is there already, and not empty: choose another folder with --dir, or another name")
    folder.mkdir(parents=True, exist_ok=True)
    for file, template in files.items():
        text = template.replace("MODULE", module).replace("CLASS", class_name).replace("NAME", name)
        write_new(folder / file, text.encode(), 0o644)
    return NewProject(folder, tuple(folder / file for file in files))


def _require_module(name: str, module: str, class_name: str) -> None:
    """The name becomes a module and a class: neither may hide what Python or a worker has under that name."""
    taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or hasattr(builtins, class_name)
    if not taken and class_name not in ("Actor", "CallError", "Code", "Link"):
        try:
            build_archive({f"{module}.py": b""})
            return
        except BundleError:
            pass
    raise Refusal(
        f"found the name {name!r}, which Python, the sdk or a worker uses itself (module {module}, class "
        f"{class_name}): choose another"
    )
