"""`teactl`: finds its commands by entry points, runs one, turns every refusal into a sentence and an exit status.

May not: hold a command, or show a traceback for anything that came from outside. A floor adds its own commands under
`[project.entry-points."tea.commands"]`: a function `register(app)`. Rule: docs/teactl.md.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final

import typer

from tea.protocol.errors import CallError
from tea.trust.errors import TrustError

from .console import plain, visible
from .refusal import Refusal

GROUP: Final = "tea.commands"
TRACEBACK_VARIABLE: Final = "TEA_TRACEBACK"
YES, REFUSED, USAGE = 0, 1, 2
_UsageError: Final = typer.BadParameter.__mro__[1]

HELP: Final = """Operate attested actors: keys, bundles, manifests, enclaves.

Exit status: 0 yes, 1 refused or failed, 2 wrong usage. With --json a refusal is a JSON object as well:
{"ok": false, "error": "..."}.
"""


def build() -> typer.Typer:
    """The application with every command that is installed."""
    app = typer.Typer(
        name="teactl",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name):
        try:
            register = point.load()
        except ImportError as error:
            # One floor that is not all there must not take the other commands away.
            sys.stderr.write(f"teactl: the command {point.name} is left out: {error}\n")
            continue
        register(app)
    return app


@functools.cache
def command() -> Any:
    """What runs a command line; made once a process."""
    # Typer reads every signature anew each time it is asked: a tenth of a second that one process pays once.
    return typer.main.get_command(build())


def run(arguments: list[str]) -> int:
    """Run one command line; its exit status. Refusals go to standard error, or into the JSON object on --json."""
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale, what is said can be written
    try:
        status = _run(arguments, as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has gone (`teactl logs | head`): nobody to tell. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    return status


def _run(arguments: list[str], as_json: bool) -> int:
    try:
        # On --json a wrong usage is ours to show; else Typer shows it with the usage and exits.
        answer = command()(args=arguments, prog_name="teactl", standalone_mode=not as_json)
        return _status(answer)
    except SystemExit as exit_:
        return _status(exit_.code)
    except (KeyboardInterrupt, typer.Abort):
        return _refused("interrupted", as_json)
    except Refusal as refusal:
        return _refused(refusal.sentence, as_json, refusal.details)
    except TrustError as error:
        return _refused(str(error), as_json, {"code": error.code.value})
    except CallError as error:
        return _refused(str(error), as_json, {"code": error.code.name, "details": error.details})
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{_path(error.filename)}: {error.strerror}" if error.filename else str(error)
        return _refused(what, as_json)
    except Exception as error:  # noqa: BLE001 (the last net: an operator gets a sentence, whatever we did wrong)
        if isinstance(error, _UsageError):
            said: object = getattr(error, "format_message", error.__str__)()  # with the option's name
            return _refused(str(said), as_json, {"usage": True}, USAGE)
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        return _refused(
            f"this is a defect of teactl, please report it: {what} (set {TRACEBACK_VARIABLE}=1 to see where)", as_json
        )


def _status(code: object) -> int:
    # Typer's own exits: 0 after a command or --help, 2 on wrong usage (it has said why), 130 on an interrupt.
    if code is None:
        return YES
    return code if code in (YES, REFUSED, USAGE) and isinstance(code, int) else REFUSED


def _path(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes | str | os.PathLike) else str(filename)


def _refused(sentence: str, as_json: bool, details: Mapping[str, object] | None = None, status: int = REFUSED) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"ok": False, "error": sentence, **plain(details or {})}, indent=2) + "\n")
    else:
        sys.stderr.write(f"teactl: {visible(sentence, keep=chr(10))}\n")
    return status


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
