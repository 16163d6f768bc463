"""The rehearsal leaves a zygote as it was, but for what the interpreter keeps to itself.

May not: run in the test's own process: a worker takes its logging and its standard output.
Rule: docs/architecture.md, "The sandbox".
"""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import builtins, json, logging, sys
from tea.runtime.worker import offered
from tea.runtime.worker.output import install_logging
from tea.runtime.worker.rehearsal import rehearse
from tea.sdk import binding, source_lines

def state():
    return {
        "modules": sorted(name for name in sys.modules if "rehearsed" in name or name.startswith("{{")),
        "finders": len(sys.meta_path),
        "import": builtins.__import__ is original,
        "streams": [sys.stdout is streams[0], sys.stderr is streams[1]],
        "handlers": [[id(handler), handler.log is None] for handler in logging.root.handlers],
        "bound": [binding.active() is None, binding.current() is None],
        "archives": len(source_lines._archives),
    }

original, streams = builtins.__import__, (sys.stdout, sys.stderr)
offered.preload()
install_logging()
before = state()
system = rehearse()
print(json.dumps([before, state(), system.alive]))
"""


def test_nothing_of_the_rehearsed_actor_is_left() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    before, after, alive = json.loads(done.stdout)
    assert after == before
    assert after["modules"] == []
    assert after["bound"] == [True, True]
    assert not alive
    assert done.stderr == ""
