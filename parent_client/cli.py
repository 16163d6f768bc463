"""`teactl`: finds its commands by entry points, runs one, turns every refusal into a sentence and an exit status.

May not: hold a command. A floor adds its own under `[project.entry-points."tea.commands"]`: a function
`register(app)`. Exit status: 0 yes, 1 refused or failed, 2 wrong usage. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Final

import typer

from tea.protocol.errors import CallError
from tea.trust.errors import TrustError

from .console import Refusal, plain
from .registry import RegistryError

GROUP: Final = "tea.commands"
YES, REFUSED, USAGE = 0, 1, 2


def build() -> typer.Typer:
    """The application with every command that is installed."""
    app = typer.Typer(
        name="teactl",
        help="Operate attested actors: keys, bundles, manifests, enclaves. Exit status: 0 yes, 1 refused or failed, "
        "2 wrong usage.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name):
        point.load()(app)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line; its exit status. Refusals go to standard error, or into the JSON object on --json."""
    as_json = "--json" in arguments
    try:
        build()(args=arguments, prog_name="teactl")
    except SystemExit as exit_:
        # Typer's own exits: 0 after a command or --help, 2 on wrong usage (it has said why), 1 on an interrupt.
        return exit_.code if isinstance(exit_.code, int) else REFUSED
    except Refusal as refusal:
        return _refused(refusal.sentence, as_json, **refusal.details)
    except TrustError as error:
        return _refused(str(error), as_json, code=error.code.value)
    except CallError as error:
        return _refused(str(error), as_json, code=error.code.name, details=error.details)
    except RegistryError as error:
        return _refused(str(error), as_json)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _refused(what, as_json)
    return YES


def _refused(sentence: str, as_json: bool, **details: object) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"ok": False, "error": sentence, **plain(details)}, indent=2) + "\n")
    else:
        sys.stderr.write(f"teactl: {sentence}\n")
    return REFUSED


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
